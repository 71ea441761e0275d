# shellcheck shell=bash
# The part of setup.sh for the tests on a real cluster: Kubernetes and containerd 2, built from their
# Go modules (ten minutes of two cores, 700 MB of modules), and Debian's containerd 1.6, runc and
# busybox as mere files, for their packages would start a daemon. build/kubernetes and
# build/containerd lead there. Where they cannot be had, build/kubernetes-missing says why, those
# tests are skipped, and it is tried again a day later.

KUBERNETES=v1.34.1

make_kubernetes() {
    local release programs runtime
    release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    programs=$(cat integration/cluster/{kubernetes,containerd}/go.* | sha256sum | cut -c1-12)
    programs=$CACHE/kubernetes-$KUBERNETES-plugins-$PLUGINS-$programs
    runtime=$CACHE/containerd-debian-$release
    rm -f build/kubernetes build/containerd build/kubernetes-missing
    if get_or_miss kubernetes "$runtime" "Debian's containerd" unpack_containerd &&
        get_or_miss kubernetes "$programs" "Kubernetes $KUBERNETES" build_kubernetes; then
        ln -s "$programs" build/kubernetes
        ln -s "$runtime" build/containerd
    else
        say "no cluster, tests on one are skipped: $(cat build/kubernetes-missing)"
    fi
}

# With the plugin that containerd wants beside those of any network.
build_kubernetes() {
    local folder=$1 go number=k8s.io/component-base/version.git
    go=$(find_go) || return
    build_tools "$go" kubernetes "$folder" \
        "-X ${number}Version=$KUBERNETES -X ${number}Major=1 -X ${number}Minor=34" &&
        build_tools "$go" containerd "$folder" &&
        GOBIN=$folder GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS=-buildvcs=false \
            "$go" install "github.com/containernetworking/plugins/plugins/main/loopback@$PLUGINS"
}

build_tools() {
    local go=$1 module=$2 folder=$3 flags=${4:-}
    GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS=-buildvcs=false timeout 2400 nice "$go" \
        -C "integration/cluster/$module" build -trimpath -o "$folder/" \
        -tags no_btrfs,no_aufs,no_devmapper,no_zfs -ldflags="-s -w $flags" tool
}

unpack_containerd() {
    unpack_packages download_containerd "$1"
}

download_containerd() (
    cd "$1" && apt-get download -q containerd runc busybox-static
)
