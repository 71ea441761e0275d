"""The cluster-wide settings: read, and written by the rules.

They lie where allocations look for them, under the key that `calicoctl ipam configure` uses,
which in etcd is not the key of the resource IPAMConfiguration that `calicoctl apply` writes.
"""

from __future__ import annotations

from cni_ipam.core.config import find_config_problems
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import ABSENT, Range, Write
from cni_ipam.errors import CorruptRecord, ValidationError
from cni_ipam.ipam.retry import retry
from cni_ipam.lean.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_ipam.core.config import IpamConfig
    from cni_ipam.datastore.port import Datastore

RESOURCE = "/calico/resources/v3/projectcalico.org/ipamconfigurations/default"
_NAMES = {
    "strict_affinity": "strictAffinity",
    "auto_allocate_blocks": "autoAllocateBlocks",
    "max_blocks_per_host": "maxBlocksPerHost",
    "vm_persistence": "kubeVirtVMAddressPersistence",
    "cooldown_seconds": "ipCooldownSeconds",
}


def find_unheeded(store: Datastore, config: IpamConfig) -> str | None:
    """A line on the resource IPAMConfiguration if it says something else than `config`, which is
    in force; None if it does not. calico-node makes one in every cluster, and somebody may have
    applied one in the belief that it counts."""
    entries = store.read([Range(RESOURCE)])[0]
    if not entries:
        return None
    try:
        stated = codec.decode_config_resource(entries[0], config)
    except CorruptRecord as fault:
        return f"{fault.msg}; assignment never reads it, and it should be deleted"
    differing = [
        f"{name}={_show(stated, field)} (in force: {_show(config, field)})"
        for field, name in _NAMES.items()
        if _show(stated, field) != _show(config, field)
    ]
    if not differing:
        return None
    return (
        f"{RESOURCE} says {', '.join(differing)}, but assignment reads {keys.CONFIG} alone: "
        "`ipamctl apply` that object, or make it say what is in force"
    )


def _show(config: IpamConfig, field: str) -> str:
    value = getattr(config, field)
    if field == "vm_persistence":
        return value or "Enabled"
    return str(value).lower()


def read_config(store: Datastore) -> IpamConfig:
    """The settings, or the defaults if nobody has made any. Raises CorruptRecord."""
    entries = store.read([Range(keys.CONFIG)])[0]
    return codec.decode_found_config(entries)


def write_config(store: Datastore, config: IpamConfig) -> None:
    """Store `config` in place of all settings, even of ones that cannot be understood.

    Raises ValidationError if it breaks a rule, TryAgainLater; then nothing has changed."""
    _check(config)

    def write() -> None:
        entries = store.read([Range(keys.CONFIG)])[0]
        _put(store, config, entries[0].revision if entries else ABSENT)

    retry(write)


def change_config(store: Datastore, **changes: object) -> IpamConfig:
    """Store the settings with `changes` (names of IpamConfig's fields) and return them. What
    others change at the same time stays.

    Raises ValidationError if the outcome breaks a rule, CorruptRecord, TryAgainLater."""

    def change() -> IpamConfig:
        entries = store.read([Range(keys.CONFIG)])[0]
        former = codec.decode_found_config(entries)
        config = replace(former, **changes)
        _check(config)
        _put(store, config, entries[0].revision if entries else ABSENT)
        return config

    return retry(change)


def _check(config: IpamConfig) -> None:
    problems = find_config_problems(config)
    if problems:
        raise ValidationError("\n".join(problems))


def _put(store: Datastore, config: IpamConfig, revision: int) -> None:
    store.commit([Write(keys.CONFIG, codec.encode_config(config), revision)])
