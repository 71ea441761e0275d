"""Container images without a registry: an archive as `docker save` writes it, from plain files."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

POD_IMAGE = "cni-ipam.test/busybox:1"
PAUSE_COMMAND = ("/bin/sleep", "infinity")
# Alive until it is told to end; each pod says its name by HTTP, over IPv4 and IPv6.
POD_COMMAND = (
    "/bin/sh",
    "-c",
    "trap 'exit 0' TERM; hostname >/srv/index.html; httpd -f -p 80 -h /srv & wait",
)


def make_pod_image(path: Path, busybox: Path) -> None:
    """Write the image of every pod, and of the pause container: busybox under all of its names."""
    words = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout
    links = {f"bin/{name}": "/bin/busybox" for name in words.split() if name != "busybox"}
    files = {
        "bin/busybox": busybox.read_bytes(),
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n",
        "srv/index.html": b"",
        "root/": b"",
        "tmp/": b"",
    }
    make_image(path, POD_IMAGE, files, links, command=PAUSE_COMMAND)


def make_image(
    path: Path,
    name: str,
    files: Mapping[str, bytes],
    links: Mapping[str, str] = {},
    *,
    command: Sequence[str] = (),
    entrypoint: Sequence[str] = (),
    variables: Sequence[str] = ("PATH=/bin",),
) -> None:
    """Write the archive of an image `name` with one layer.

    The names of `files` have no leading slash; all are executable; one that ends with a slash is
    a folder. `links` are symbolic links and where they lead.
    """
    layer = _pack(files, links)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Entrypoint": list(entrypoint),
                "Cmd": list(command),
                "Env": list(variables),
            },
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"],
            },
        }
    )
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}])
    parts = {
        "layer.tar": layer,
        "config.json": config.encode(),
        "manifest.json": manifest.encode(),
    }
    path.write_bytes(_pack(parts, {}))


def _pack(files: Mapping[str, bytes], links: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name.rstrip("/"))
            entry.mode = 0o755
            entry.size = len(content)
            entry.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            archive.addfile(entry, io.BytesIO(content))
        for name, target in links.items():
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.SYMTYPE
            entry.linkname = target
            archive.addfile(entry)
    return buffer.getvalue()
