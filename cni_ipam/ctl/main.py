"""Where ipamctl starts: its commands, the options that all of them have, and how it ends.

Errors go to stderr as one message without a trace, and the exit status is 1, as with calicoctl.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cni_ipam.ctl import bird, check, cluster, configure, crud, label, release, routes, show
from cni_ipam.ctl.locate import Wishes
from cni_ipam.ctl.session import Session
from cni_ipam.errors import CniIpamError, Conflict, OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_WITH_VALUE = (
    *("-c", "--config", "--datastore-type", "--sqlite-path", "--netconf-dir", "-l", "--log-level"),
    "--context",
)
_WITHOUT_VALUE = ("--allow-version-mismatch",)
_OUTPUT_IS_LOST = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
_EVERYWHERE = "These options may also stand behind the command."


def main() -> None:
    """Run the command of this process's arguments, and end the process."""
    _open_closed_streams()
    try:
        status = run(sys.argv[1:], dict(os.environ), os.path.basename(sys.argv[0]))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has enough.
        _drop_output()
        status = 1
    except OSError as error:
        if error.errno not in _OUTPUT_IS_LOST or error.filename is not None:
            raise
        _drop_output()
        print(f"stdout: {error.strerror}", file=sys.stderr)
        status = 1
    sys.exit(status)


def run(arguments: Sequence[str], environ: Mapping[str, str], program: str = "ipamctl") -> int:
    """The exit status of one command."""
    application = typer.main.get_command(_application(environ))
    try:
        _refuse_foreign(arguments)
        status = application.main(
            args=with_shared_options_first(arguments), prog_name=program, standalone_mode=False
        )
    except typer.TyperException as error:
        if error.format_message().startswith("Usage:"):
            print(error.format_message())
            return 0
        _complain(f"{error.format_message()}\nuse '{program} --help' to read about the commands")
        return 1
    except typer.Abort:
        return 1
    except CniIpamError as error:
        _complain(f"{error.msg}\n{error.details}" if error.details else error.msg)
        return 1
    except Conflict as conflict:
        _complain(str(conflict))
        return 1
    return status if isinstance(status, int) else 0


def with_shared_options_first(arguments: Sequence[str]) -> list[str]:
    """The same arguments with the options that all commands share before the command."""
    first: list[str] = []
    rest: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--":
            rest += [argument, *remaining]
        elif argument in _WITH_VALUE:
            first += [argument, *[value for value in [next(remaining, None)] if value is not None]]
        elif argument in _WITHOUT_VALUE or _is_joined(argument):
            first.append(argument)
        else:
            rest.append(argument)
    return first + rest


def _is_joined(argument: str) -> bool:
    """Whether it is a shared option and its value in one, as in `--config=FILE` or `-cFILE`."""
    if argument.startswith("--"):
        return argument.partition("=")[0] in _WITH_VALUE
    return argument[:2] in _WITH_VALUE


def _application(environ: Mapping[str, str]) -> typer.Typer:
    application = _group()

    @application.callback(epilog=_EVERYWHERE)
    def shared(
        context: typer.Context,
        *,
        config: Annotated[
            str | None, typer.Option("-c", "--config", help="A config file of calicoctl.")
        ] = None,
        datastore_type: Annotated[
            str | None, typer.Option("--datastore-type", help="sqlite, etcdv3 or kubernetes.")
        ] = None,
        sqlite_path: Annotated[
            str | None, typer.Option("--sqlite-path", help="The file of the datastore.")
        ] = None,
        netconf_dir: Annotated[
            str | None, typer.Option("--netconf-dir", help="Where this node's networks are.")
        ] = None,
        log_level: Annotated[str, typer.Option("-l", "--log-level", help="Ignored.")] = "panic",
        kube_context: Annotated[str, typer.Option("--context", help="Ignored.")] = "",
        allow_version_mismatch: Annotated[
            bool, typer.Option("--allow-version-mismatch", help="Ignored.")
        ] = False,
    ) -> None:
        """Manage the addresses of cni-ipam, in calicoctl's words."""
        del log_level, kube_context, allow_version_mismatch
        session = Session(Wishes(config, datastore_type, sqlite_path, netconf_dir), environ)
        context.obj = session
        context.call_on_close(session.close)

    for command in (crud.create, crud.apply, crud.replace, crud.delete, crud.patch, crud.get):
        application.command()(command)
    application.command()(label.label)
    application.command()(cluster.version)
    application.add_typer(
        _group(show.show, check.check, release.release, configure.configure),
        name="ipam",
        help="Addresses.",
    )
    application.add_typer(
        _group(routes.show, routes.check, routes.repair, routes.watch, bird.bird_config),
        name="routes",
        help="This node's routes.",
    )
    application.add_typer(_group(bird.status), name="node", help="This node.")
    datastore = _group(cluster.lock, cluster.unlock, cluster.upgrade)
    datastore.add_typer(
        _group(cluster.lock, cluster.unlock), name="migrate", help="As calicoctl has them."
    )
    application.add_typer(datastore, name="datastore", help="The datastore as a whole.")
    return application


def _group(*commands: Callable[..., None]) -> typer.Typer:
    group = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)
    for command in commands:
        group.command()(command)
    return group


def _refuse_foreign(arguments: Sequence[str]) -> None:
    """Raise OperatorError for an argument that is not UTF-8."""
    for argument in arguments:
        data = argument.encode("utf-8", "surrogateescape")
        shown = data.decode("utf-8", "backslashreplace")
        if shown != argument:
            raise OperatorError(f"the argument '{shown}' is not UTF-8, but all arguments must be")


def _complain(message: str) -> None:
    """Tell on stderr what is wrong, after all that stdout was told; even if that is lost."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError:
        print(message, file=sys.stderr)
        raise
    print(message, file=sys.stderr)


def _open_closed_streams() -> None:
    """Where the caller closed a standard stream, the next file, such as the datastore, would get
    its number: what is said goes nowhere instead. `stdin` stays None, as there is nothing in it."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)
            if name != "stdin":
                setattr(sys, name, os.fdopen(number, "w"))


def _drop_output() -> None:
    """What is still to be written goes nowhere: at its end Python would complain once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
