"""Every error of the project, each with the code that it has on the wire.

    CniIpamError
    ├── VersionError           1    cniVersion or verb not spoken
    ├── UnsupportedError       2    a field of the netconf that cannot be served
    ├── EnvironmentInvalid     4    a CNI_… variable is missing or wrong
    │   └── NetnsInvalid       8    CNI_NETNS is the plugin's own network namespace
    ├── InputOutputError       5    stdin, or the datastore's files, cannot be read or written
    │   └── FileUnreadable          one that the configuration names
    ├── DecodeError            6    not JSON
    ├── NetconfError           7    the network configuration is wrong
    │   └── NetworkNameInvalid      its name, without which no verb can do
    ├── TryAgainLater         11    the same call can succeed later
    │   ├── DatastoreUnavailable
    │   ├── LockTimeout
    │   └── RetriesExhausted
    ├── NotAvailable          50    STATUS: ADD cannot be served
    ├── AllocationError
    │   ├── NoQualifiedPool  100
    │   ├── PoolExhausted    101
    │   ├── BlockLimit       102
    │   ├── StrictAffinity   103
    │   ├── AddressInUse     104
    │   │   └── HandleLimit         the handle has as many addresses as it may have
    │   ├── NotInPool        105
    │   ├── AddressReserved  106
    │   └── FamilyMissing    107
    ├── CheckFailed          108
    ├── Unauthorized         110
    ├── CorruptRecord        111
    │   └── CorruptDatastore        no record of it serves
    ├── RouteError           120
    └── OperatorError               ipamctl alone: refused objects, missing or existing ones
        ├── ValidationError
        ├── NotFound
        ├── AlreadyExists
        ├── UpdateConflict          the record is not the one that the request is about
        ├── NotEmpty                a block that must be empty is not
        └── CoolingDown             the address rests after its release
    Conflict                        a lost swap: read again and decide anew; never on the wire

Three classes of cause: retry (Conflict), tell (all of the others), and nothing is swallowed.
This module imports nothing.
"""

from __future__ import annotations


class Conflict(Exception):
    """Another writer was first: `key` no longer has the revision that the decision was made on."""

    def __init__(self, key: str) -> None:
        super().__init__(f"update conflict: {key}")
        self.key = key


class CniIpamError(Exception):
    """What the caller is told: `msg` says what is wrong, `details` what to do about it."""

    code = 999

    def __init__(self, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.msg = msg
        self.details = details


class VersionError(CniIpamError):
    """The cniVersion, or the verb at that version, is not spoken."""

    code = 1


class UnsupportedError(CniIpamError):
    """A field of the network configuration that cannot be served; `msg` names key and value."""

    code = 2


class EnvironmentInvalid(CniIpamError):
    """A CNI_… variable is missing or malformed."""

    code = 4


class NetnsInvalid(EnvironmentInvalid):
    """CNI_NETNS names the plugin's own network namespace."""

    code = 8


class InputOutputError(CniIpamError):
    """Reading stdin, or reading or writing the datastore's files, failed."""

    code = 5


class FileUnreadable(InputOutputError):
    """A file that the configuration names cannot be read."""


class DecodeError(CniIpamError):
    """Stdin is not the JSON that it should be."""

    code = 6


class NetconfError(CniIpamError):
    """The network configuration is wrong; `msg` names key, value and what would be right."""

    code = 7


class NetworkNameInvalid(NetconfError):
    """The network has no name, or one that is not allowed."""


class TryAgainLater(CniIpamError):
    """The same call can succeed later."""

    code = 11


class DatastoreUnavailable(TryAgainLater):
    """The datastore does not answer, or is locked by its operator."""


class LockTimeout(TryAgainLater):
    """The lock was not had in time."""


class RetriesExhausted(TryAgainLater):
    """Too many lost swaps in a row."""


class NotAvailable(CniIpamError):
    """STATUS: an ADD could not be served now."""

    code = 50


class AllocationError(CniIpamError):
    """No address could be given; a subclass says why."""


class NoQualifiedPool(AllocationError):
    """No pool may be used; `details` lists each pool and why not."""

    code = 100


class PoolExhausted(AllocationError):
    """The pools that may be used have no free address; `details` gives the numbers."""

    code = 101


class BlockLimit(AllocationError):
    """The node has as many blocks as it may have."""

    code = 102


class StrictAffinity(AllocationError):
    """Only another node's block has a free address, and strictAffinity forbids borrowing."""

    code = 103


class AddressInUse(AllocationError):
    """The requested address is another attachment's."""

    code = 104


class HandleLimit(AddressInUse):
    """The handle has as many addresses of the family as it may have, and not the requested ones."""


class NotInPool(AllocationError):
    """The requested address lies in no enabled pool."""

    code = 105


class AddressReserved(AllocationError):
    """The requested address is one that a pool with a gateway keeps back."""

    code = 106


class FamilyMissing(AllocationError):
    """One of two wanted families has no address, so neither is kept."""

    code = 107


class CheckFailed(CniIpamError):
    """CHECK: what is recorded is not what the result says."""

    code = 108


class Unauthorized(CniIpamError):
    """The datastore refuses these credentials."""

    code = 110


class CorruptRecord(CniIpamError):
    """A record of the datastore is not what it should be; `msg` names its `key`."""

    code = 111

    def __init__(self, key: str, problem: str) -> None:
        details = "other records still serve; `ipamctl ipam check` lists every broken one"
        super().__init__(f"the record {key} {problem}", details)
        self.key = key


class CorruptDatastore(CorruptRecord):
    """The datastore as a whole is damaged: no record of it serves. Its `key` is the file's path."""

    def __init__(self, path: str, problem: str) -> None:
        details = "restore a copy of it, or move it away to begin with an empty one"
        CniIpamError.__init__(self, f"sqlite_path {path}: {problem}", details)
        self.key = path


class RouteError(CniIpamError):
    """The kernel refused a route; what had been assigned is given back."""

    code = 120


class OperatorError(CniIpamError):
    """A command of the operator was refused."""


class ValidationError(OperatorError):
    """An object breaks the rules of its kind; `msg` has one line for each broken rule."""


class NotFound(OperatorError):
    """The object does not exist."""


class AlreadyExists(OperatorError):
    """The object exists already."""


class UpdateConflict(OperatorError):
    """The record is not as the request knows it: handle, sequence number or owner differ."""


class NotEmpty(OperatorError):
    """A block that must be empty has addresses in use."""


class CoolingDown(OperatorError):
    """The address was released and rests until its cooldown is over."""
