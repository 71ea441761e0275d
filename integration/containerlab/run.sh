#!/usr/bin/env bash
# Lab 02 by containerlab, and a smoke test:
#   run.sh          make the images, start the lab, test; it stays
#   run.sh test     only test
#   run.sh delete   take the lab down
# Needs docker and containerlab, and root.
set -euo pipefail
cd "$(dirname "$0")/../labs/02-external-pool"

LAB=external-pool.clab.yaml
CONFIG=/etc/bird/bird.conf
PAUSE=0.5
TRIES=240

say() { printf 'containerlab: %s\n' "$*"; }
die() { printf 'containerlab: %s\n' "$*" >&2; exit 1; }

# A command on a machine of the lab.
on() {
    local machine=$1
    shift
    docker exec "clab-external-pool-$machine" "$@"
}

# Files of the lab, applied on node1.
apply() {
    local file
    for file in "$@"; do
        docker exec -i clab-external-pool-node1 ipamctl apply -f - <"$file"
    done
}

make_lab() {
    docker build -f ../../../packaging/Dockerfile -t cni-ipam:0.1.0 ../../..
    docker build -f ../../containerlab/Dockerfile -t cni-ipam-lab:0.1.0 ../../..
    containerlab deploy --topo "$LAB" --reconfigure
}

# There is no Kubernetes here, and so no annotations: a second network list names the pool.
make_networks() {
    local networks=/etc/cni/lab
    on "$1" mkdir -p "$networks"
    # shellcheck disable=SC2016  # the node's own shell
    on "$1" sh -c 'sed "/\"kubernetes\": /d" /etc/cni/net.d/10-cni-ipam.conflist >$0/lab.conflist
        sed -e "s/\"name\": \"lab\"/\"name\": \"external\"/" \
            -e "s/{\"type\": \"cni-ipam\"}/{\"type\": \"cni-ipam\", \"ipv4_pools\": [\"external-pool\"]}/" \
            $0/lab.conflist >$0/external.conflist' "$networks"
}

start_bird() {
    on "$1" sh -c "ipamctl routes bird-config -o $CONFIG && bird -R 2>/var/log/bird.log &&
        ipamctl routes watch --bird $CONFIG >/var/log/watch.log 2>&1 &"
}

# A pod is a network namespace with the name of its network, which answers HTTP by its name.
make_pod() {
    on "$1" ip netns add "$2" >&2
    on "$1" env CNI_PATH=/opt/cni/bin NETCONFPATH=/etc/cni/lab cnitool add "$2" "/run/netns/$2" >&2
    # shellcheck disable=SC2016  # the node's own shell
    on "$1" sh -c 'mkdir -p /run/pods/$0 && echo $0 >/run/pods/$0/index.html
        exec ip netns exec $0 busybox httpd -p 80 -h /run/pods/$0' "$2"
    on "$1" ip -n "$2" -4 -br address show dev eth0 | awk '{sub("/.*", "", $3); print $3}'
}

delete_pod() {
    on "$1" env CNI_PATH=/opt/cni/bin NETCONFPATH=/etc/cni/lab cnitool del "$2" "/run/netns/$2"
    # shellcheck disable=SC2016  # the node's own shell
    on "$1" sh -c 'kill $(ip netns pids $0) && ip netns delete $0' "$2"
}

# What the router knows of pods: prefix and node.
list_routes() {
    on router birdc show route |
        sed -n 's/^\([0-9.]*\/[0-9]*\) .*\[\(node[12]\) .*/\1 \2/p' | sort
}

# Waits until a command succeeds.
wait_for() {
    local what=$1
    shift
    for _ in $(seq $TRIES); do
        "$@" && return
        sleep $PAUSE
    done
    die "this does not come: $what; the router has: $(list_routes)"
}

knows_one_block_of_each() {
    [ "$(list_routes | awk '{print $2}' | sort | tr '\n' ' ')" = "node1 node2 " ] &&
        [ "$(list_routes | grep -c '^198\.19\..*/29 ')" = 2 ]
}

knows_nothing() { [ -z "$(list_routes)" ]; }
reaches() { [ "$(on client curl -s --max-time 2 "http://$1/")" = "$2" ]; }

smoke_test() {
    local node first second plain
    wait_for "etcd" apply cluster.yaml
    apply 01-externalIpPool.yml 01.globalBgpPeer.yml
    for node in node1 node2; do
        make_networks "$node"
        start_bird "$node"
    done
    first=$(make_pod node1 external)
    second=$(make_pod node2 external)
    plain=$(make_pod node1 lab)
    say "pods of external-pool: $first on node1, $second on node2; of the default pool: $plain"
    wait_for "one /29 of each node" knows_one_block_of_each
    list_routes
    wait_for "node1's page" reaches "$first" external
    wait_for "node2's page" reaches "$second" external
    ! reaches "$plain" lab || die "the client reaches a pod of the default pool"
    for node in node1 node2; do
        delete_pod "$node" external
    done
    delete_pod node1 lab
    wait_for "no route" knows_nothing
    say "all is well"
}

case ${1:-run} in
run)
    make_lab
    smoke_test
    ;;
test) smoke_test ;;
delete) containerlab destroy --topo "$LAB" --cleanup ;;
*) die "usage: run.sh [run|test|delete]" ;;
esac
