#!/usr/bin/env bash
# A kind cluster with cni-ipam as its network, and a smoke test:
#   run.sh          make the cluster, install, test; it stays
#   run.sh delete   delete the cluster
# Needs docker, kind and kubectl.
set -euo pipefail
cd "$(dirname "$0")/../.."

IMAGE=cni-ipam:0.1.0
CLUSTER=cni-ipam
POD_IMAGE=busybox:1.36
here=integration/kind

say() { printf 'kind: %s\n' "$*"; }
die() { printf 'kind: %s\n' "$*" >&2; exit 1; }
kubectl() { command kubectl --context "kind-$CLUSTER" "$@"; }

make_cluster() {
    docker build -f packaging/Dockerfile -t "$IMAGE" .
    docker pull "$POD_IMAGE"
    kind create cluster --config "$here/cluster.yaml"
    kind load docker-image --name "$CLUSTER" "$IMAGE" "$POD_IMAGE"
}

install() {
    kubectl apply -f conf/crds
    kubectl wait --for=condition=Established --timeout=60s -f conf/crds
    kubectl apply -f conf/rbac.yaml
    kubectl apply -f "$here/pools.yaml"
    kubectl apply -f conf/daemonset.yaml
    kubectl -n kube-system rollout status daemonset cni-ipam --timeout=180s
    kubectl wait --for=condition=Ready node --all --timeout=180s
}

address_of() { kubectl get pod "$1" -o 'jsonpath={.status.podIP}'; }

smoke_test() {
    kubectl apply -f "$here/pods.yaml"
    kubectl wait --for=condition=Ready pod plain annotated --timeout=120s
    local plain annotated
    plain=$(address_of plain)
    annotated=$(address_of annotated)
    say "plain has $plain, annotated has $annotated"
    [[ $plain == 10.244.* ]] || die "plain should have an address of the pool default"
    [[ $annotated == 172.16.* ]] || die "annotated should have one of the pool infraestrutura"
    kubectl exec plain -- ping -c 1 -W 5 "$annotated"
    kubectl exec annotated -- ping -c 1 -W 5 "$plain"
    kubectl delete -f "$here/pods.yaml"
    ! kubectl get ipamblocks -o yaml | grep -E 'pod: (plain|annotated)$' || die "addresses are left"
    say "all is well"
}

case ${1:-run} in
run)
    make_cluster
    install
    smoke_test
    ;;
install) install ;;
test) smoke_test ;;
delete) kind delete cluster --name "$CLUSTER" ;;
*) die "usage: run.sh [run|install|test|delete]" ;;
esac
