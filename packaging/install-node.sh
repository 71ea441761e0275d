#!/usr/bin/env bash
# Puts cni-ipam on the node whose folders are mounted below HOST, from within its image:
#   install-node.sh install          bundle, node name, kubeconfig and, last, the network list
#   install-node.sh token            keep the kubeconfig's token fresh, until SIGTERM
#   install-node.sh install-drop-in  bundle, and calico-ipam in place of Calico's own
#   install-node.sh keep-drop-in     put it back whenever Calico's node image replaces it, until SIGTERM
#   install-node.sh uninstall        take everything away again, in the opposite order
#   install-node.sh idle             do nothing, until SIGTERM
#
# A file appears, and is replaced, by one rename; nothing appears before what it needs. So a node
# has the old state or the new one, whenever this is interrupted, and calling it again goes on.
#
# The kubeconfig's token belongs to the plugin's service account and to no pod, so it outlives this
# one: an upgrade, or a node that can't pull the image, does not stop the plugin.
set -euo pipefail

HOST=${HOST:-/host}
NETWORK_LIST_NAME=${NETWORK_LIST_NAME:-10-cni-ipam.conflist}
SERVICE_ACCOUNT=${SERVICE_ACCOUNT:-cni-ipam}
TOKEN_SECONDS=${TOKEN_SECONDS:-86400}
RENEW_SECONDS=${RENEW_SECONDS:-1200}
RETRY_SECONDS=${RETRY_SECONDS:-10}
own=${OWN_SERVICE_ACCOUNT_FOLDER:-/var/run/secrets/kubernetes.io/serviceaccount}

verb=${1:-install-node.sh}
here=$(dirname "$0")
networks=$HOST/etc/cni/net.d
kubeconfig=$networks/cni-ipam-kubeconfig
network_list=$networks/$NETWORK_LIST_NAME
name_file=$HOST/var/lib/cni-ipam/nodename
drop_in=$HOST/opt/cni/bin/calico-ipam

say() { printf '%s: %s\n' "$verb" "$*"; }
die() { printf '%s: %s\n' "$verb" "$*" >&2; exit 1; }

# Replaces $1 by what stands on stdin, in one step, unless it is the same. No runtime takes a file
# whose name ends in .new for a network list. (Called where `set -e` does not hold.)
put_file() {
    local fresh=$1.new
    mkdir -p "$(dirname "$1")" && rm -f "$fresh" && (umask 077 && cat >"$fresh") || return
    if cmp -s "$fresh" "$1" && [ "$(stat -c %a "$1")" = 600 ]; then
        rm "$fresh"
    else
        sync "$fresh" && mv -fT "$fresh" "$1"
    fi
}

find_server() {
    local host=$KUBERNETES_SERVICE_HOST
    case $host in
    *:*) host="[$host]" ;;
    esac
    echo "https://$host:${KUBERNETES_SERVICE_PORT:-443}"
}

# Prints a new token of the plugin's service account. The pod's own token stays out of the list of
# processes.
request_token() {
    local namespace answer
    namespace=$(cat "$own/namespace") || return
    answer=$(printf 'Authorization: Bearer %s\n' "$(cat "$own/token")" |
        curl --silent --show-error --fail-with-body --max-time 30 --cacert "$own/ca.crt" \
            --header @- --header 'Content-Type: application/json' --data \
            '{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{"expirationSeconds":'"$TOKEN_SECONDS"'}}' \
            "$(find_server)/api/v1/namespaces/$namespace/serviceaccounts/$SERVICE_ACCOUNT/token") ||
        { printf '%s\n' "$answer" >&2; return 1; }
    printf %s "$answer" | jq -er .status.token ||
        { echo "the API server's answer holds no token" >&2; return 1; }
}

# Writes the kubeconfig with a new token; if there is none to be had, the old one stays.
write_kubeconfig() {
    local token authority
    authority=$(base64 -w 0 "$own/ca.crt") && token=$(request_token) || return
    printf '%s\n' \
        "apiVersion: v1" \
        "kind: Config" \
        "clusters:" \
        "- name: cluster" \
        "  cluster:" \
        "    server: $(find_server)" \
        "    certificate-authority-data: $authority" \
        "users:" \
        "- name: $SERVICE_ACCOUNT" \
        "  user:" \
        "    token: $token" \
        "contexts:" \
        "- name: cni-ipam" \
        "  context:" \
        "    cluster: cluster" \
        "    user: $SERVICE_ACCOUNT" \
        "current-context: cni-ipam" | put_file "$kubeconfig"
}

# Prints the network list for this node: that of the cluster's ConfigMap, else the image's own.
find_network_list() {
    local list own=${NETWORK_LIST:-/etc/cni-ipam/network.conflist}
    local given=("${own%/*}"/*)
    [ -e "$own" ] || ! [ -e "${given[0]}" ] ||
        die "the ConfigMap has ${given[*]##*/}, but no ${own##*/}: kubectl create configmap cni-ipam --from-file=${own##*/}"
    for list in "$own" "$here/../conf/30-kubernetes.conflist"; do
        [ -e "$list" ] || continue
        is_network_list "$list" ||
            die "$list is not a network list: it needs a name and plugins, each with a type, as JSON"
        echo "$list"
        return
    done
    die "no network list"
}

# A runtime that finds anything else has no network at all.
is_network_list() {
    local start
    # jq passes over a byte order mark, runtimes don't.
    read -r start <"$1" || true
    [[ $start != $'\xef\xbb\xbf'* ]] && jq -es '
        def is_name: type == "string" and length > 0;
        length == 1 and (.[0] | type == "object" and (.name | is_name) and (.plugins |
            type == "array" and length > 0 and all(.[]; type == "object" and (.type | is_name))))
    ' "$1" >/dev/null
}

# Variables that the pod must have.
require() {
    local name
    for name in "$@"; do
        [ -n "${!name:-}" ] || die "$name is not set"
    done
}

install_node() {
    local list
    # Before anything changes: what can be wrong with what is given.
    list=$(find_network_list)
    require NODE_NAME KUBERNETES_SERVICE_HOST
    "$here/install.sh" install-plugin "$HOST"
    # Without a newline, for all of it is the name.
    printf %s "$NODE_NAME" | put_file "$name_file"
    lock
    write_kubeconfig || die "no token for $SERVICE_ACCOUNT, so the network list is not written"
    put_file "$network_list" <"$list"
    say "$network_list is in place"
}

# One writer at a time: a pod that is replaced may still be there.
lock() {
    mkdir -p "$networks"
    exec 8<"$networks"
    flock 8
}

unlock() { exec 8<&-; }

renew_forever() {
    require KUBERNETES_SERVICE_HOST
    while :; do
        lock
        if write_kubeconfig; then
            unlock
            pause "$RENEW_SECONDS"
        else
            unlock
            say "the token could not be renewed; again in $RETRY_SECONDS s" >&2
            pause "$RETRY_SECONDS"
        fi
    done
}

# A sleep that a signal ends at once.
pause() {
    sleep "$1" &
    wait $!
}

install_drop_in() {
    "$here/install.sh" install-plugin "$HOST"
    "$here/install.sh" drop-in "$HOST"
}

keep_drop_in() {
    while :; do
        if [ "$(readlink "$drop_in")" != /opt/cni-ipam/calico-ipam ]; then
            "$here/install.sh" drop-in "$HOST"
        fi
        pause "$RETRY_SECONDS"
    done
}

uninstall() {
    # First, so that nobody calls what is about to go.
    rm -f "$network_list" "$network_list.new"
    "$here/install.sh" uninstall "$HOST"
    rm -f "$kubeconfig" "$kubeconfig.new" "$name_file" "$name_file.new"
    # Not if other data is in it, or if it is mounted here.
    rmdir "$(dirname "$name_file")" 2>/dev/null || true
}

stop() {
    # shellcheck disable=SC2046  # a word each, or none
    kill $(jobs -p) 2>/dev/null || true
    wait
    exit 0
}

trap stop TERM INT
case $verb in
install) install_node ;;
token) renew_forever ;;
install-drop-in) install_drop_in ;;
keep-drop-in) keep_drop_in ;;
uninstall) uninstall ;;
idle) pause infinity ;;
*) die "usage: install-node.sh install|token|install-drop-in|keep-drop-in|uninstall|idle" ;;
esac
