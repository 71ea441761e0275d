#!/usr/bin/env bash
# The lab of cni-ipam.clab.yaml, and a smoke test:
#   run.sh          make the images, start the lab, test; it stays
#   run.sh test     only test
#   run.sh delete   take the lab down
# Needs docker and containerlab, and root.
set -euo pipefail
cd "$(dirname "$0")"

LAB=cni-ipam.clab.yaml

say() { printf 'containerlab: %s\n' "$*"; }
die() { printf 'containerlab: %s\n' "$*" >&2; exit 1; }

# A command on a machine of the lab.
on() {
    local machine=$1
    shift
    docker exec "clab-cni-ipam-$machine" "$@"
}

make_lab() {
    docker build -f ../../packaging/Dockerfile -t cni-ipam:0.1.0 ../..
    docker build -f Dockerfile -t cni-ipam-lab:0.1.0 ../..
    containerlab deploy --topo "$LAB" --reconfigure
}

# Each node has a record of its own in the datastore, as calico-node would make it.
make_nodes() {
    local node
    for node in node1 node2; do
        on "$node" sysctl -q -w net.ipv4.ip_forward=1
        printf '%s\n' "apiVersion: projectcalico.org/v3" "kind: Node" "metadata: {name: $node}" |
            docker exec -i "clab-cni-ipam-$node" ipamctl apply -f -
    done
    on router sysctl -q -w net.ipv4.ip_forward=1
}

# A pod is a network namespace; prints its address.
make_pod() {
    on "$1" ip netns add pod >&2
    on "$1" env CNI_PATH=/opt/cni/bin /opt/cni/bin/cnitool add lab /run/netns/pod >&2
    on "$1" ip -n pod -4 -br address show dev eth0 | awk '{sub("/.*", "", $3); print $3}'
}

delete_pod() {
    on "$1" env CNI_PATH=/opt/cni/bin /opt/cni/bin/cnitool del lab /run/netns/pod
    on "$1" ip netns delete pod
}

# Waits until the node has learned the other's block from the router.
wait_for_block() {
    local second
    for second in $(seq 30); do
        if on "$1" ip route show proto bird | grep -q '^10\.244\.'; then
            say "$1 knows the other's block after $second s"
            return
        fi
        sleep 1
    done
    die "$1 learns no block: docker exec clab-cni-ipam-$1 birdc show protocols"
}

smoke_test() {
    make_nodes
    local one two
    one=$(make_pod node1)
    two=$(make_pod node2)
    say "node1's pod has $one, node2's has $two"
    wait_for_block node1
    wait_for_block node2
    on node1 ip netns exec pod ping -c 2 -W 5 "$two"
    on node2 ip netns exec pod ping -c 2 -W 5 "$one"
    [ -z "$(on router ip route show "$one/32")" ] || die "the router knows a pod"
    delete_pod node1
    delete_pod node2
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
