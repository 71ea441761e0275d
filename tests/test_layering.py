"""Who may import whom (DESIGN.md), read from the source of every module."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
PACKAGE = PROJECT / "cni_ipam"

# Rooms that are one module or a few of a folder; every other module's room is its folder.
ROOMS = {
    "__init__": "version",
    "errors": "errors",
    "datastore.port": "records",
    "datastore.keys": "records",
    "datastore.codec": "records",
    "datastore.open": "door",
    "datastore.kubernetes_client": "client",
    "datastore": "adapters",
    "routes.plan": "plan",
    "core.address": "address",
    "cni.kubernetes_package": "kubernetes package",
}
FLOOR = {"errors", "lean"}
CORE = {"core", "address"}
PARTS = {
    *FLOOR, *CORE, "records", "client", "adapters", "door", "ipam", "workload", "plan", "routes",
    "cni",
}  # fmt: skip
MAY_IMPORT = {
    "version": set(),
    "errors": set(),
    "lean": {"errors"},
    "address": {"lean"},
    "core": {*FLOOR, "address"},
    "records": {*FLOOR, *CORE},
    # Annotations and records come by one connection, as the netconf says.
    "client": {*FLOOR, "cni"},
    "adapters": {*FLOOR, *CORE, "records", "client"},
    # The table of adapters: each is imported where it is chosen. What chooses is the netconf's.
    "door": {*FLOOR, "records", "client", "adapters", "cni"},
    "ipam": {*FLOOR, *CORE, "records"},
    # Both turn texts into addresses; the netconf also says in plan's words which routes it wants.
    "workload": {*FLOOR, "address"},
    "cni": {*FLOOR, "address", "plan", "kubernetes package"},
    # In the full program alone: it reads what cni's own means do not.
    "kubernetes package": {*FLOOR, "cni"},
    "plan": {*FLOOR, *CORE},
    "routes": {*FLOOR, *CORE, "plan"},
    # Where the parts are put together. Nobody imports these, but the agent runs the plugin's verbs.
    "plugin": {*PARTS, "version"},
    "agent": {*PARTS, "version", "plugin"},
    "ctl": {*PARTS, "version"},
}
# Standard modules that core/ and ipam/ may use; all else would be I/O, a clock, or slow to import.
PURE = {
    "core.moment": {"time"},  # for gmtime and strftime alone
    "core.selector": {"base64", "hashlib"},  # inside one function, which the plugin never calls
}
# What the plugin's own path may use: modules in C, and where it says so others on demand.
C_MODULES = {
    "_functools", "_json", "_sha3", "_signal", "_socket", "_sqlite3", "_ssl", "_struct", "_thread",
    "binascii", "errno", "fcntl", "posix", "sys", "time", "zlib",
}  # fmt: skip
ON_DEMAND = {
    "lean.json": {"json", "json.decoder", "json.encoder"},  # where _json is not what we know
    "datastore.kubernetes_records": {"_sha2", "_sha256"},  # for long names; 3.11 has the latter
    "plugin.main": {"traceback"},  # for the log, after a surprise
    **{name: modules for name, modules in PURE.items() if name != "core.moment"},
}
LEAN_ROOMS = {*FLOOR, *CORE, "records", "door", "ipam", "workload", "cni", "plan", "plugin"}
# What stands in a function runs later, and an `except ImportError` where something is missing.
LATER = (ast.FunctionDef, ast.ExceptHandler)
LEAN_MODULES = {
    "datastore.etcd",
    "datastore.etcd_client",
    "datastore.kubernetes",
    "datastore.kubernetes_client",
    "datastore.kubernetes_faults",
    "datastore.kubernetes_objects",
    "datastore.kubernetes_reader",
    "datastore.kubernetes_records",
    "datastore.kubernetes_resources",
    "datastore.sqlite",
    "routes.netlink",
    "routes.message",
}


def name_of(path: Path) -> str:
    """A module's name without the package's: `core.block`."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(name: str) -> str:
    """The room that a module stands in."""
    folder = name.partition(".")[0]
    return ROOMS.get(name) or ROOMS.get(folder, folder)


def imports_of(path: Path) -> list[tuple[str, bool]]:
    """Every module that a source imports, and whether that happens when it is itself imported."""
    found = []
    _walk(ast.parse(path.read_text()), found, at_import=True)
    return found


def _walk(node: ast.AST, found: list[tuple[str, bool]], *, at_import: bool) -> None:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            found.extend([(alias.name, at_import) for alias in child.names])
        elif isinstance(child, ast.ImportFrom):
            found.extend([(name, at_import) for name in _names(child)])
        elif isinstance(child, ast.If) and _is_for_types(child.test):
            for statement in child.body:
                _walk(ast.Module([statement], []), found, at_import=False)
            for statement in child.orelse:
                _walk(ast.Module([statement], []), found, at_import=at_import)
        else:
            _walk(child, found, at_import=at_import and not isinstance(child, LATER))


def _is_for_types(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def _names(statement: ast.ImportFrom) -> list[str]:
    """`from cni_ipam.datastore import codec` imports a module, `… import Entry` from one."""
    assert not statement.level, "relative import"
    module = statement.module or ""
    inner = module.removeprefix("cni_ipam").removeprefix(".")
    parts = [f"{inner}.{alias.name}".removeprefix(".") for alias in statement.names]
    if module.startswith("cni_ipam") and any(part in MODULES for part in parts):
        return [f"cni_ipam.{part}" if part in MODULES else module for part in parts]
    return [module]


def project_imports(name: str) -> set[str]:
    """The project's modules that a module imports, for types or for use."""
    names = [module for module, _ in imports_of(MODULES[name]) if module.startswith("cni_ipam")]
    return {module.removeprefix("cni_ipam").removeprefix(".") or "__init__" for module in names}


def foreign_imports(name: str, *, at_import: bool | None = None) -> set[str]:
    """Everybody else's; types' sakes do not count."""
    used = _without_types(MODULES[name])
    return {
        module
        for module, early in used
        if not module.startswith("cni_ipam")
        and module != "__future__"
        and (at_import is None or early == at_import)
    }


def _without_types(path: Path) -> list[tuple[str, bool]]:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and _is_for_types(node.test):
            node.body = [ast.Pass()]
    found: list[tuple[str, bool]] = []
    _walk(tree, found, at_import=True)
    return found


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_its_room_may(name):
    """The table above, for uses and for types."""
    room = room_of(name)
    allowed = {room, *MAY_IMPORT[room]}
    wrong = {imported for imported in project_imports(name) if room_of(imported) not in allowed}
    assert set() == wrong


def test_every_room_is_in_the_table():
    """A new folder needs a line there."""
    assert {room_of(name) for name in MODULES} <= set(MAY_IMPORT)


def test_nobody_imports_those_who_put_the_parts_together():
    """Of plugin, agent and ctl only the agent may use another: it runs the plugin's verbs."""
    tops = {"plugin", "agent", "ctl"}
    found = {
        (room_of(name), room_of(imported))
        for name in MODULES
        for imported in project_imports(name)
        if room_of(imported) in tops
    }
    assert found <= {("agent", "plugin"), *[(top, top) for top in tops]}


@pytest.mark.parametrize("name", [n for n in MODULES if room_of(n) in {*CORE, "ipam", "records"}])
def test_decisions_are_pure(name):
    """No I/O, no clock, no randomness: what is not imported cannot be used."""
    assert foreign_imports(name) <= PURE.get(name, set())


def test_core_takes_from_time_only_what_spells():
    """The clock is an argument."""
    tree = ast.parse(MODULES["core.moment"].read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "time"
    }
    assert {"gmtime", "strftime"} == used


@pytest.mark.parametrize(
    "name", [n for n in MODULES if room_of(n) in LEAN_ROOMS or n in LEAN_MODULES]
)
def test_the_plugins_path_uses_modules_in_c(name):
    """A module of the standard library in Python costs milliseconds of every ADD."""
    assert foreign_imports(name, at_import=True) <= C_MODULES
    assert foreign_imports(name) <= C_MODULES | ON_DEMAND.get(name, set())


def test_adapters_are_imported_on_demand():
    """Opening one must not load the others."""
    found = imports_of(MODULES["datastore.open"])
    early = {room_of(module.removeprefix("cni_ipam.")) for module, at_import in found if at_import}
    assert "adapters" not in early


def test_the_errors_import_nothing():
    """So that everybody can import them."""
    assert set() == project_imports("errors") | foreign_imports("errors")


def test_packaging_is_no_package():
    """It would shadow the one of that name in the registry."""
    assert not (PROJECT / "packaging" / "__init__.py").exists()
