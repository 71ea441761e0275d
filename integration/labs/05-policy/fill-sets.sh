#!/bin/bash
# Fills the sets of policy.nft, as a policy engine does all the time: the API server knows which pods
# and namespaces a selector means, IPAM knows their addresses.
set -euo pipefail

# Lines of address, namespace and pod.
allocations=$(ipamctl ipam check --show-all-ips |
    sed -n 's/^ *\([^ ]*\) allocated; .*[:,]namespace=\([^,]*\),.*,pod=\([^,]*\).*/\1 \2 \3/p')

# fill SET "NAMESPACE NAMESPACE/POD …"
fill() {
    local elements
    elements=$(while read -r address namespace pod; do
        case " $2 " in *" $namespace "* | *" $namespace/$pod "*) echo "$address" ;; esac
    done <<<"$allocations" | paste -sd,)
    echo "$1: $elements"
    nft "flush set inet pods $1${elements:+; add element inet pods $1 { $elements }}"
}

fill jpython "$(kubectl get pods -n japp -l app.kubernetes.io/name=jpython \
    -o 'jsonpath={range .items[*]}japp/{.metadata.name} {end}')"
for stack in test dev; do
    fill "stack-$stack" "$(kubectl get namespaces -l "stack=$stack" -o 'jsonpath={.items[*].metadata.name}')"
done
