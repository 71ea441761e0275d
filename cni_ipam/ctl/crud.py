"""The commands on objects: create, apply, replace, delete, patch, get. Texts are calicoctl's."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from cni_ipam.ctl.deletion import delete_record
from cni_ipam.ctl.documents import Document, DocumentError, UnknownField, read_documents
from cni_ipam.ctl.output import get_printer
from cni_ipam.ctl.records import (
    apply_record,
    create_record,
    get_record,
    list_records,
    patch_record,
    refuse_namespace,
    update_record,
)
from cni_ipam.ctl.resources import get_kind
from cni_ipam.errors import AlreadyExists, CniIpamError, NotFound, OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cni_ipam.ctl.output import Shown
    from cni_ipam.ctl.resources import Kind, Resource
    from cni_ipam.ctl.session import Session

_NOT_EXPORTED = (
    *("namespace", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp"),
    "deletionGracePeriodSeconds",
)

FileName = Annotated[
    str | None,
    typer.Option("-f", "--filename", metavar="FILE", help="A file, a folder, or - for stdin."),
]
Recursive = Annotated[bool, typer.Option("-R", "--recursive", help="Folders in folders too.")]
SkipEmpty = Annotated[bool, typer.Option("--skip-empty", help="Files without objects are fine.")]
KindName = Annotated[str | None, typer.Argument(metavar="KIND")]
Names = Annotated[list[str] | None, typer.Argument(metavar="NAME")]


@dataclass(frozen=True)
class Source:
    """Where objects come from, if not from the command line."""

    filename: str | None
    recursive: bool
    skip_empty: bool


@dataclass
class Outcome:
    """What became of each object."""

    documents: Sequence[Document]
    handled: int = 0
    errors: list[CniIpamError] = field(default_factory=list)

    @property
    def of_kind(self) -> str:
        """The quoted kind and a blank if there is just one kind, else nothing."""
        kinds = {document.kind.name for document in self.documents}
        return f"'{kinds.pop()}' " if len(kinds) == 1 else ""


def create(
    context: typer.Context,
    *,
    filename: FileName = None,
    recursive: Recursive = False,
    skip_empty: SkipEmpty = False,
    skip_exists: Annotated[
        bool, typer.Option("--skip-exists", help="Objects that are there already are fine.")
    ] = False,
) -> None:
    """Create objects from a file."""
    session: Session = context.obj
    documents = _load(Source(filename, recursive, skip_empty))
    store = session.store

    def step(document: Document) -> None:
        try:
            create_record(store, document.kind, document.resource, session.now, session.seed())
        except AlreadyExists:
            if not skip_exists:
                raise

    _run("create", "created", documents, step)


def apply(
    context: typer.Context,
    *,
    filename: FileName = None,
    recursive: Recursive = False,
    skip_empty: SkipEmpty = False,
) -> None:
    """Create objects from a file, or replace those that exist."""
    session: Session = context.obj
    documents = _load(Source(filename, recursive, skip_empty))
    store = session.store

    def step(document: Document) -> None:
        apply_record(store, document.kind, document.resource, session.now, session.seed())

    _run("apply", "applied", documents, step)


def replace(
    context: typer.Context,
    *,
    filename: FileName = None,
    recursive: Recursive = False,
    skip_empty: SkipEmpty = False,
) -> None:
    """Replace objects that exist with those of a file."""
    session: Session = context.obj
    outcome = Outcome(_load(Source(filename, recursive, skip_empty)))
    store = session.store
    for document in outcome.documents:
        try:
            update_record(store, document.kind, document.resource)
        except CniIpamError as error:
            outcome.errors.append(error)
    count = len(outcome.documents)
    if not count:
        print("No resources specified")
    elif not outcome.errors:
        print(f"Successfully replaced {count} {outcome.of_kind}resource(s)")
    else:
        # calicoctl counts the failed ones as well, and tells the last error alone.
        print(
            f"Partial success: replaced the first {count} out of {count} "
            f"{outcome.of_kind}resources:"
        )
        raise OperatorError(f"hit error: {outcome.errors[-1]}", outcome.errors[-1].details)


def delete(
    context: typer.Context,
    *,
    kind: KindName = None,
    names: Names = None,
    filename: FileName = None,
    recursive: Recursive = False,
    skip_empty: SkipEmpty = False,
    skip_not_exists: Annotated[
        bool, typer.Option("-s", "--skip-not-exists", help="Objects that are gone are fine.")
    ] = False,
) -> None:
    """Delete objects by kind and name, or those of a file."""
    session: Session = context.obj
    outcome = Outcome(_choose(kind, names, Source(filename, recursive, skip_empty)))
    store = session.store
    for document in outcome.documents:
        try:
            refuse_namespace(document.kind, document.resource["metadata"])
            _refuse_clusters_own(session, document)
            lost = delete_record(store, document.kind, document.resource, session.now, session.wait)
            session.remove_blackholes(lost)
        except NotFound as error:
            if not skip_not_exists:
                outcome.errors.append(error)
        except CniIpamError as error:
            outcome.errors.append(error)
    done = len(outcome.documents) - len(outcome.errors)
    if not outcome.documents:
        print("No resources specified")
    elif done:
        print(f"Successfully deleted {done} {outcome.of_kind}resource(s)")
    if outcome.errors:
        lines = [f"Failed to delete {outcome.of_kind}resource: {e}\n" for e in outcome.errors]
        raise OperatorError("".join(lines) + _advise(outcome.errors))


def _refuse_clusters_own(session: Session, document: Document) -> None:
    """A Node of Kubernetes must be refused before its blocks are given up."""
    if document.kind.name == "Node" and session.place.datastore.kind == "kubernetes":
        raise OperatorError(
            f"operation delete is not supported on Node({document.resource['metadata']['name']})",
            "it is Kubernetes' own: use `kubectl delete node`; `ipamctl ipam release --node` gives "
            "up what a dead node holds",
        )


def patch(
    context: typer.Context,
    *,
    kind: Annotated[str, typer.Argument(metavar="KIND")],
    name: Annotated[str, typer.Argument(metavar="NAME")],
    changes: Annotated[str, typer.Option("-p", "--patch", metavar="JSON", help="The changes.")],
    form: Annotated[
        str, typer.Option("-t", "--type", help="strategic or merge, which are the same here.")
    ] = "strategic",
) -> None:
    """Change some fields of an object: lists are replaced, null removes a field."""
    session: Session = context.obj
    chosen = _named(kind, [name])[0]
    store = session.store
    if form not in ("strategic", "merge"):
        raise OperatorError(f"patch type '{form}' is not supported: use strategic or merge")
    try:
        patch_record(store, chosen.kind, name, changes)
    except UnknownField:
        raise
    except CniIpamError as error:
        raise OperatorError(f"hit error: {error}", error.details) from None
    print(f"Successfully patched 1 '{chosen.kind.name}' resource")


def get(
    context: typer.Context,
    *,
    kind: KindName = None,
    names: Names = None,
    filename: FileName = None,
    recursive: Recursive = False,
    skip_empty: SkipEmpty = False,
    output: Annotated[
        str, typer.Option("-o", "--output", help="ps, wide, yaml, json, name, custom-columns=A,B.")
    ] = "ps",
    export: Annotated[
        bool, typer.Option("--export", help="Without what belongs to this datastore alone.")
    ] = False,
) -> None:
    """Show objects by kind and name, or those of a file."""
    session: Session = context.obj
    printer = get_printer(output)
    shown, errors = _find(session, kind, names, Source(filename, recursive, skip_empty))
    if export and names:
        shown = [(chosen, _exported(resource)) for chosen, resource in shown]
    sys.stdout.write(printer(shown))
    if errors:
        raise OperatorError("\n".join(map(str, errors)), _advise(errors))


def _find(
    session: Session, kind: str | None, names: Sequence[str] | None, source: Source
) -> tuple[list[Shown], list[CniIpamError]]:
    """The objects that were asked for or the list of their kind, and what could not be shown."""
    if source.filename is None and kind is not None and not names:
        chosen = _get_kind(kind)
        found, faults = list_records(session.store, chosen)
        return [(chosen, found)], [*faults]
    shown: list[Shown] = []
    errors: list[CniIpamError] = []
    documents = _choose(kind, names, source, _get_kind)
    store = session.store
    for document in documents:
        try:
            shown.append((document.kind, get_record(store, document.kind, document.name)))
        except CniIpamError as error:
            errors.append(error)
    return shown, errors


def _exported(resource: Resource) -> Resource:
    metadata = {k: v for k, v in resource["metadata"].items() if k not in _NOT_EXPORTED}
    return {**resource, "metadata": metadata}


def _get_kind(alias: str) -> Kind:
    try:
        return get_kind(alias)
    except OperatorError as error:
        raise OperatorError(f"failed to get resources: {error}", error.details) from None


def _choose(
    kind: str | None,
    names: Sequence[str] | None,
    source: Source,
    find: Callable[[str], Kind] = get_kind,
) -> Sequence[Document]:
    if source.filename is None and kind is not None:
        return _named(kind, names or [""], find)
    if kind is not None:
        raise OperatorError("name objects on the command line or in a file, not both")
    documents = _load(source)
    if not all(document.name for document in documents):
        raise OperatorError("resource name may not be empty")
    return documents


def _named(
    kind: str, names: Sequence[str], find: Callable[[str], Kind] = get_kind
) -> list[Document]:
    chosen = find(kind)
    if not all(names):
        raise OperatorError("resource name may not be empty")
    return [Document(chosen, {"metadata": {"name": name}, "spec": {}}) for name in names]


def _load(source: Source) -> Sequence[Document]:
    if source.filename is None:
        raise OperatorError("no resources specified", "name a file with -f, or - for stdin")
    try:
        return read_documents(
            source.filename, recursive=source.recursive, skip_empty=source.skip_empty
        )
    except DocumentError as error:
        raise OperatorError(f"failed to execute command: {error}", error.details) from None


def _run(
    verb: str, past: str, documents: Sequence[Document], step: Callable[[Document], None]
) -> None:
    """Do `step` for each object, going on after errors, and tell what became of them."""
    outcome = Outcome(documents)
    for document in documents:
        try:
            step(document)
            outcome.handled += 1
        except CniIpamError as error:
            outcome.errors.append(error)
    done, count, of_kind = outcome.handled, len(documents), outcome.of_kind
    errors, advice = f"[{' '.join(map(str, outcome.errors))}]", _advise(outcome.errors)
    if not count:
        print("No resources specified")
    elif not outcome.errors:
        print(f"Successfully {past} {done} {of_kind}resource(s)")
    elif count == 1:
        raise OperatorError(f"failed to {verb} {of_kind}resource: {errors}", advice)
    elif not done:
        raise OperatorError(f"failed to {verb} any {of_kind}resources: {errors}", advice)
    else:
        print(f"Partial success: {past} the first {done} out of {count} {of_kind}resources:")
        raise OperatorError(f"hit error: {errors}", advice)


def _advise(errors: Iterable[CniIpamError]) -> str:
    """What to do about them, each piece of advice once."""
    return "\n".join(dict.fromkeys([error.details for error in errors if error.details]))
