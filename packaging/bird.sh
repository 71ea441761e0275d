# shellcheck shell=bash
# The part of setup.sh for the tests with BGP: Debian's BIRD 2 with its shared libraries as mere
# files, for its package would start a daemon, and a bare system may lack the libraries.
# build/bird leads there. Where it cannot be had, build/bird-missing says why, those tests are
# skipped, and it is tried again a day later.

make_bird() {
    local release folder
    release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    folder=$CACHE/bird-debian-$release
    rm -f build/bird build/bird-missing
    if get_or_miss bird "$folder" "Debian's BIRD" unpack_bird; then
        ln -s "$folder" build/bird
    else
        say "tests with BGP are skipped: $(cat build/bird-missing)"
    fi
}

unpack_bird() {
    local folder=$1
    unpack_packages download_bird "$folder" || return
    serve_libraries "$folder"/usr/sbin/* || return
    "$folder/usr/sbin/bird" --version
}

# BIRD, and the two of its libraries that a system without it may lack, by the names of this release.
download_bird() (
    cd "$1" || return
    apt-get download -q bird2 || return
    # shellcheck disable=SC2046  # a list of words
    apt-get download -q $(dpkg-deb --field bird2_*.deb Depends | grep -o 'lib\(ssh\|readline\)[^ ,]*')
)
