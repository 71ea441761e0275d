# shellcheck shell=bash
# The part of setup.sh for the lab in containers: Debian's Docker as mere files, for its package would
# start a daemon, and its containerd and runc, which are those of the tests on a cluster. build/docker
# leads there. Where it cannot be had, build/docker-missing says why, that test is skipped unless an
# engine answers anyhow, and it is tried again a day later.

make_docker() {
    local release folder runtime
    release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    folder=$CACHE/docker-debian-$release
    runtime=$CACHE/containerd-debian-$release
    rm -f build/docker build/docker-missing
    if get_or_miss docker "$runtime" "Debian's containerd" unpack_containerd &&
        get_or_miss docker "$folder" "Debian's Docker" unpack_docker; then
        ln -s "$folder" build/docker
    else
        say "the lab in containers is skipped: $(cat build/docker-missing)"
    fi
}

unpack_docker() {
    local folder=$1
    unpack_packages download_docker "$folder" || return
    serve_libraries "$folder"/usr/sbin/dockerd || return
    "$folder/usr/sbin/dockerd" --version
}

# Docker, and the one of its libraries that a system without it may lack, by its name in this release.
download_docker() (
    cd "$1" || return
    apt-get download -q docker.io || return
    # shellcheck disable=SC2046  # a list of words
    apt-get download -q $(dpkg-deb --field docker.io_*.deb Depends | grep -o 'libdevmapper[^ ,]*')
)
