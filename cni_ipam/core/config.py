"""IPAMConfig: the cluster-wide settings of the allocation engine."""

from __future__ import annotations

from cni_ipam.lean.record import record

DEFAULT_MAX_BLOCKS = 20
MOST_BLOCKS = 2**31 - 1
LONGEST_COOLDOWN_SECONDS = 1200
PERSISTENCE = ("Enabled", "Disabled")
NO_BLOCK_FOR_ANYBODY = "Cannot disable 'StrictAffinity' and 'AutoAllocateBlocks' at the same time"
LIMIT_NEEDS_STRICT = "MaxBlocksPerHost requires StrictAffinity to be enabled"


@record
class IpamConfig:
    """Defaults are those of an absent record; an empty record `{}` differs: no new blocks.

    `vm_persistence` tells whether a virtual machine keeps its addresses; empty means Enabled."""

    strict_affinity: bool = False
    auto_allocate_blocks: bool = True
    max_blocks_per_host: int = 0
    cooldown_seconds: int = 0
    vm_persistence: str = ""
    extra: dict[str, object] | None = None

    def limit_blocks(self, requested: int = 0) -> int:
        """How many blocks a host may own in the pools of one request: what the request says
        within what the record says; 0 in both stands for 20."""
        limit = max(0, self.max_blocks_per_host)
        if requested and (not limit or requested < limit):
            return requested
        return limit or DEFAULT_MAX_BLOCKS


def find_config_problems(config: IpamConfig) -> list[str]:
    """The rules that settings break: those of Calico's library, and of the schema of its resource.

    Not everybody who writes them asks for the rules, so they may be broken in what is read."""
    most, cooldown = config.max_blocks_per_host, config.cooldown_seconds
    persistence = config.vm_persistence
    rules = (
        (not config.strict_affinity and not config.auto_allocate_blocks, NO_BLOCK_FOR_ANYBODY),
        (most > 0 and not config.strict_affinity, LIMIT_NEEDS_STRICT),
        (
            not 0 <= most <= MOST_BLOCKS,
            f"MaxBlocksPerHost is {most}, it must be between 0 and {MOST_BLOCKS}",
        ),
        (
            not 0 <= cooldown <= LONGEST_COOLDOWN_SECONDS,
            f"IPCooldownSeconds is {cooldown}, it must be between 0 and {LONGEST_COOLDOWN_SECONDS}",
        ),
        (
            bool(persistence) and persistence not in PERSISTENCE,
            f"KubeVirtVMAddressPersistence is {persistence!r}, it must be Enabled or Disabled",
        ),
    )
    return [problem for broken, problem in rules if broken]
