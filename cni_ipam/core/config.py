"""IPAMConfig: the cluster-wide settings of the allocation engine."""

from __future__ import annotations

from cni_ipam.lean.record import record

DEFAULT_MAX_BLOCKS = 20


@record
class IpamConfig:
    """Defaults are those of an absent record; an empty record `{}` differs: no new blocks."""

    strict_affinity: bool = False
    auto_allocate_blocks: bool = True
    max_blocks_per_host: int = 0
    cooldown_seconds: int = 0

    @property
    def block_limit(self) -> int:
        """How many blocks a host may own in the pools of one request; 0 stands for 20."""
        return self.max_blocks_per_host or DEFAULT_MAX_BLOCKS
