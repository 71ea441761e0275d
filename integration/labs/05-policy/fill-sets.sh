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
    local change="flush set inet pods $1"
    [ -z "$elements" ] || change+="; add element inet pods $1 { $elements }"
    nft "$change" # in one step, or a caller could be refused in between
}

# pods NAMESPACE SELECTOR
pods() {
    kubectl get pods -n "$1" -l "$2" -o "jsonpath={range .items[*]}$1/{.metadata.name} {end}"
}

# namespaces [SELECTOR]
namespaces() {
    kubectl get namespaces -l "${1:-}" -o 'jsonpath={.items[*].metadata.name}'
}

fill jpython "$(pods japp app.kubernetes.io/name=jpython)"
fill stack-test "$(namespaces stack=test)"
fill stack-dev "$(namespaces stack=dev)"
fill app-jnginx "$(namespaces app=jnginx)"
fill all-pods "$(namespaces)"
fill role-db "$(pods default role=db)"
fill role-frontend "$(pods default role=frontend)"
fill project-myproject "$(namespaces project=myproject)"
