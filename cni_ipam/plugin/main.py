"""The process edge: environment and stdin in, one JSON document and an exit status out.

Whatever happens, stdout holds a result or one error object and nothing else, and a stack
trace goes to the log alone.
"""

from __future__ import annotations

import posix
import sys

from cni_ipam import __version__
from cni_ipam.cni.netconf import parse_netconf
from cni_ipam.cni.request import ABOUT, read_request, read_standard_input, read_variable
from cni_ipam.cni.result import error_document
from cni_ipam.cni.settings import HandOver
from cni_ipam.cni.version import version_reply
from cni_ipam.errors import (
    CniIpamError,
    FileUnreadable,
    NetconfError,
    NetnsInvalid,
    NetworkNameInvalid,
    NotAvailable,
    UnsupportedError,
)
from cni_ipam.lean import log
from cni_ipam.plugin.context import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cni_ipam.cni.netconf import Netconf
    from cni_ipam.cni.request import Request

CALICO_NAME = "calico-ipam"
OWN_NETNS = "/proc/self/ns/net"


def main() -> None:
    """Serve one call and end the process."""
    called_as = sys.argv[0].rpartition("/")[2]
    if sys.argv[1:] in (["-v"], ["--version"]):
        _end(f"{__version__}\n", 0)
    # os is not imported yet, and posix.environ is what it would be made from.
    environ = posix.environ
    if not read_variable(environ, "CNI_COMMAND"):
        posix.write(2, ABOUT.encode())
        _end("", 0)
    _end(*serve(environ, called_as, read_standard_input))


def serve(
    environ: Mapping[bytes, bytes], called_as: str, read_stdin: Callable[[], bytes]
) -> tuple[str, int]:
    """What goes to stdout, and the exit status."""
    try:
        return _dispatch(environ, called_as, read_stdin), 0
    except CniIpamError as error:
        log.error("failed", code=error.code, msg=error.msg, details=error.details)
        return error_document(error), 1
    except Exception as error:  # noqa: BLE001 - the edge: what we got wrong must be an answer, too
        _log_trace(error)
        surprise = CniIpamError(
            f"internal error: {type(error).__name__}: {error}", "the log has the stack trace"
        )
        return error_document(surprise), 1


def _dispatch(
    environ: Mapping[bytes, bytes], called_as: str, read_stdin: Callable[[], bytes]
) -> str:
    request = read_request(environ, read_stdin)
    if request.command == "VERSION":
        return version_reply()
    netconf = _read_netconf(request, called_as, environ)
    _start_log(request, netconf)
    if request.command == "ADD":
        _refuse_own_netns(request, environ)
    context = Context(request, netconf)
    try:
        return _find_verb(request.command)(context)
    finally:
        context.close()


def _start_log(request: Request, netconf: Netconf) -> None:
    """Log as the netconf says, and at debug what was asked; never stdin, which may hold tokens."""
    to = netconf.log
    log.configure(to.level, to.path, to.max_size_mb, to.max_age_days, to.max_count)
    log.debug(
        "call",
        command=request.command,
        network=netconf.name,
        container=request.container_id,
        ifname=request.ifname,
        netns=request.netns,
        node=netconf.node_name,
    )


def _read_netconf(request: Request, called_as: str, environ: Mapping[bytes, bytes]) -> Netconf:
    """The configuration; one that STATUS cannot use means that ADD could not either."""
    name = CALICO_NAME if called_as == CALICO_NAME else "cni-ipam"
    try:
        return parse_netconf(request, name, environ)
    except HandOver as wish:
        from cni_ipam.plugin.hand_over import hand_over

        hand_over(str(wish), request.stdin, name, environ)
    except NetworkNameInvalid:
        raise
    except (NetconfError, UnsupportedError, FileUnreadable) as error:
        if request.command == "STATUS":
            raise NotAvailable(error.msg, error.details) from error
        raise


def _find_verb(command: str) -> Callable[[Context], str]:
    """The verb's function; only its module is imported."""
    if command == "ADD":
        from cni_ipam.plugin.add import add as verb
    elif command == "DEL":
        from cni_ipam.plugin.delete import delete as verb
    elif command == "CHECK":
        from cni_ipam.plugin.check import check as verb
    elif command == "GC":
        from cni_ipam.plugin.gc import gc as verb
    else:
        from cni_ipam.plugin.status import status as verb
    return verb


def _refuse_own_netns(request: Request, environ: Mapping[bytes, bytes]) -> None:
    """Raises NetnsInvalid if the pod's network namespace is the plugin's own. The reference
    library looks after the verb has run, when an address is gone already; we look before."""
    if read_variable(environ, "CNI_NETNS_OVERRIDE").upper() in ("1", "TRUE"):
        return
    try:
        pod, own = posix.stat(request.netns), posix.stat(OWN_NETNS)
    except OSError:
        return
    if (pod.st_dev, pod.st_ino) == (own.st_dev, own.st_ino):
        raise NetnsInvalid(
            "plugin's netns and netns from CNI_NETNS should not be the same",
            f"CNI_NETNS is {request.netns}; CNI_NETNS_OVERRIDE=1 allows it",
        )


def _log_trace(error: BaseException) -> None:
    from traceback import format_exception

    log.error("internal error", trace="".join(format_exception(error)))


def _end(output: str, status: int) -> None:
    """Write and leave at once: taking the interpreter down costs 1.5 ms; nothing is buffered."""
    data = output.encode("utf-8", "surrogateescape")
    while data:
        data = data[posix.write(1, data) :]
    posix._exit(status)  # noqa: SLF001 - its public name


if __name__ == "__main__":
    main()
