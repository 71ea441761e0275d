"""cni-k8s.json: pods with annotations, asked for through the plugin's edge in this process.

Calico shares a row's work out between its main plugin, which reads annotations, and `calico-ipam`,
which gets what is left of them on stdin. Under that main plugin stdin is final for us, too, and a
row would show nothing. So the plugin is called by the name `calico-ipam` as the delegate of another
interface plugin, where it reads pod and namespace itself: all that a row expects of both programs
is then its own doing. Each row is played twice, with the pod's annotations from a stand-in for the
API server, and from the runtime. The datastore is in memory and counts as shared: as on a cluster,
nobody makes a Node or a pool but the row.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from .cni_k8s_expectations import check
from .cni_k8s_stage import API_SERVER, RUNTIME, Stage

Row = dict[str, Any]

KEYS = {
    *("id", "what", "why", "source", "origin", "note", "quirk"),
    *("pod_annotations", "namespace_annotations", "conf", "pools", "given", "cni_args", "expect"),
}
STATE = {"exhausted_pools", "allocated", "namespace_labels", "namespace_missing", "node_missing"}


def run_row(row: Row) -> list[str]:
    """Play the row with the pod's annotations from either source, and compare all it expects."""
    unknown = (row.keys() - KEYS) | (row.get("given", {}).keys() - STATE)
    if unknown:
        return [f"keys that the runner does not know: {sorted(unknown)}"]
    complaints = []
    for source in (API_SERVER, RUNTIME):
        with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
            stage = Stage(row, source, Path(folder))
            found = [*check(stage, row["expect"]), *stage.find_unsound()]
        complaints += [f"annotations from the {source}: {complaint}" for complaint in found]
    return complaints
