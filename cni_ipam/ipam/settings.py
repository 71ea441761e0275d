"""The cluster-wide settings: read, and written by the rules.

They lie where allocations look for them, under the key that `calicoctl ipam configure` uses,
which in etcd is not the key of the resource IPAMConfiguration.
"""

from __future__ import annotations

from cni_ipam.core.config import find_config_problems
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import ABSENT, Range, Write
from cni_ipam.errors import ValidationError
from cni_ipam.ipam.retry import retry
from cni_ipam.lean.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_ipam.core.config import IpamConfig
    from cni_ipam.datastore.port import Datastore


def read_config(store: Datastore) -> IpamConfig:
    """The settings, or the defaults if nobody has made any. Raises CorruptRecord."""
    entries = store.read([Range(keys.CONFIG)])[0]
    return codec.decode_config(entries[0] if entries else None)


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
        former = codec.decode_config(entries[0] if entries else None)
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
