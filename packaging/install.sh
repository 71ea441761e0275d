#!/usr/bin/env bash
# Puts the bundle in place, or takes it away again:
#   install.sh install|install-drop-in|install-plugin|drop-in|uninstall [DESTDIR]
# install-plugin leaves out what is for people: ipamctl's link and the example. drop-in does only what
# install-drop-in does more than install.
#
# Each version lies in a folder of its own, /opt/cni-ipam-<build id>.<random>, and /opt/cni-ipam is
# a link to the current one. Everything that becomes visible does so by one rename, so whatever
# interrupts an install, the old version works or the new one does. The version before the current
# one stays until the next install: a process that was started from it may still be reading it.
set -euo pipefail

verb=${1:-}
root=${2:-}
root=${root%/}
bundle=$(dirname "$0")/../dist/cni-ipam
opt=$root/opt
bin=$opt/cni/bin
example=$root/etc/cni/net.d/10-cni-ipam.conflist.example

say() { printf '%s: %s\n' "$verb" "$*"; }
die() { printf '%s: %s\n' "$verb" "$*" >&2; exit 1; }

# Versions in /opt, one a line.
list_versions() { find "$opt" -maxdepth 1 -type d -regextype egrep -regex '.*/cni-ipam-[0-9a-f]{12}\.[[:alnum:]]{6}'; }

# Nothing where the link leads nowhere.
current_version() { [ ! -e "$opt/cni-ipam" ] || readlink "$opt/cni-ipam"; }

leads_to() { [ "$(readlink "$1")" = "$2" ]; }

# Replaces $2 by a link to $1 in one step.
put_link() {
    ln -sfn "$1" "$2.new"
    mv -fT "$2.new" "$2"
}

remove_link() {
    rm -f "$2.new"
    if leads_to "$2" "$1"; then
        rm "$2"
    fi
}

# Makes a folder and those above it; prints those that were not there, without DESTDIR, the
# innermost last.
make_folder() {
    [ ! -d "$1" ] || return 0
    make_folder "$(dirname "$1")"
    mkdir "$1"
    echo "${1#"$root"}"
}

# Makes the bundle the current version. $1…: the folders that must be there.
install_bundle() {
    [ -x "$bundle/cni-ipam" ] || die "no bundle in $bundle; make build"
    [ -L "$opt/cni-ipam" ] || [ ! -e "$opt/cni-ipam" ] ||
        die "$opt/cni-ipam is not a link of ours; move it away first"
    local folder created
    # The root of a staging area is its owner's, what is made below it is ours to take away.
    mkdir -p "$root/"
    created=$(for folder in "$@"; do make_folder "$folder"; done)
    exec 9<"$opt"
    flock 9
    previous=$(current_version)
    version=$opt/$previous
    if [ -n "$created" ] || [ -z "$previous" ] || ! is_bundle "$version"; then
        copy_bundle "$created"
    fi
    put_link /opt/cni-ipam/cni-ipam "$bin/cni-ipam"
}

is_bundle() { diff -rq --no-dereference --exclude=CREATED "$bundle" "$1" >/dev/null; }

# Puts the bundle beside the current version and switches. $1: the folders that were made for it.
copy_bundle() {
    trap 'rm -rf "${version:-}"' EXIT
    version=$(mktemp -d "$opt/cni-ipam-$(cat "$bundle/BUILD-ID").XXXXXX")
    cp -a "$bundle/." "$version/"
    chown -R --no-dereference "$(id -u):$(id -g)" "$version"
    chmod 0755 "$version"
    {
        cat "$opt/${previous:-none}/CREATED" 2>/dev/null || true
        [ -z "$1" ] || echo "$1"
    } >"$version/CREATED"
    sync -f "$version"
    put_link "$(basename "$version")" "$opt/cni-ipam"
    trap - EXIT
}

# Removes the versions before the previous one, if this was an upgrade.
finish() {
    local folder
    [ "$version" = "$opt/$previous" ] || list_versions | while read -r folder; do
        case $(basename "$folder") in
        "$previous" | "$(basename "$version")") ;;
        *) rm -rf "$folder" ;;
        esac
    done
    say "$(cat "$version/BUILD-ID") is in $opt/cni-ipam"
}

install_all() {
    install_bundle "$opt" "$bin" "$root/usr/local/bin" "$(dirname "$example")"
    put_link /opt/cni-ipam/ipamctl "$root/usr/local/bin/ipamctl"
    install_example "$version"
    finish
}

# The example is written where there is none, and where it still is what some version wrote.
install_example() {
    [ -e "$1/10-cni-ipam.conflist" ] || return 0
    if [ ! -e "$example" ] || example_is_ours; then
        cp "$1/10-cni-ipam.conflist" "$example.new"
        mv -fT "$example.new" "$example"
    fi
}

example_is_ours() {
    local folder
    for folder in "$opt"/cni-ipam-*; do
        if cmp -s "$example" "$folder/10-cni-ipam.conflist"; then
            return 0
        fi
    done
    return 1
}

# What is replaced is kept as calico-ipam.orig; our own link never is.
install_drop_in() {
    local place=$bin/calico-ipam
    if [ -e "$place" ] && ! leads_to "$place" /opt/cni-ipam/calico-ipam; then
        cp -a "$place" "$place.orig.new"
        mv -fT "$place.orig.new" "$place.orig"
    fi
    put_link /opt/cni-ipam/calico-ipam "$place"
    say "$place is ours now"
    [ ! -e "$place.orig" ] || say "the one that it replaces is kept as $place.orig"
}

# Removes those of the listed folders that are empty.
remove_folders() {
    local folder
    for folder in $1; do
        [ ! -d "$root$folder" ] || rmdir --ignore-fail-on-non-empty "$root$folder"
    done
}

uninstall() {
    local current created folder
    if [ -d "$opt" ]; then
        exec 9<"$opt"
        flock 9
    fi
    current=$(current_version)
    created=$(tac "$opt/${current:-none}/CREATED" 2>/dev/null || true)
    if [ ! -e "$bin/calico-ipam.orig" ]; then
        :
    elif leads_to "$bin/calico-ipam" /opt/cni-ipam/calico-ipam; then
        mv -fT "$bin/calico-ipam.orig" "$bin/calico-ipam"
    else
        say "$bin/calico-ipam is not ours any more, so it and $bin/calico-ipam.orig stay"
    fi
    remove_link /opt/cni-ipam/calico-ipam "$bin/calico-ipam"
    remove_link /opt/cni-ipam/cni-ipam "$bin/cni-ipam"
    remove_link /opt/cni-ipam/ipamctl "$root/usr/local/bin/ipamctl"
    if [ -e "$example" ]; then
        if example_is_ours; then
            rm "$example"
        else
            say "$example was edited, so it stays"
        fi
    fi
    rm -f "$bin"/calico-ipam.orig.new "$example.new"
    remove_folders "$created"
    # Last, for they hold the record of the folders.
    [ ! -d "$opt" ] || list_versions | while read -r folder; do rm -rf "$folder"; done
    rm -f "$opt/cni-ipam" "$opt/cni-ipam.new"
    remove_folders "$created"
    say "done; data in $root/var/lib/cni-ipam, if any, stays"
}

case $verb in
install) install_all ;;
install-drop-in)
    install_all
    install_drop_in
    ;;
install-plugin)
    install_bundle "$opt" "$bin"
    finish
    ;;
drop-in) install_drop_in ;;
uninstall) uninstall ;;
*) die "usage: install.sh install|install-drop-in|install-plugin|drop-in|uninstall [DESTDIR]" ;;
esac
