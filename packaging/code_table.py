# The opening of the lean program's main script: lean.spec fills TABLE and adds lean_entry.py.
# One table in the program itself instead of an archive entry for each module saves a quarter of a
# millisecond for each module that a verb imports. Only the first module of a verb comes by way of
# Python's import system; what that one needs is run directly, in order.
import gc
import sys
from _frozen_importlib import ModuleSpec
from marshal import loads

# The process is gone before a collection could pay for itself.
gc.disable()
Module = type(sys)

# Name of the module: (is it a package, its marshalled code, the modules of the table it needs).
TABLE = {}


def load(name):
    """Let the module and what it needs be in sys.modules."""
    parent, _, last = name.rpartition(".")
    if parent and parent not in sys.modules:
        load(parent)
    is_package, code, needs = TABLE[name]
    module = Module(name)
    module.__package__ = name if is_package else parent
    if is_package:
        module.__path__ = []
    run(module, code, needs)
    sys.modules[name] = module
    if parent:
        setattr(sys.modules[parent], last, module)


def run(module, code, needs):
    """Run the module's code, after the modules it needs."""
    for need in needs:
        if need not in sys.modules:
            load(need)
    exec(loads(code), module.__dict__)


class CodeTable:
    """Finder and loader of the modules in TABLE."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        """Describe a module of the table; None for every other."""
        if name in TABLE:
            return ModuleSpec(name, CodeTable, origin="bundle", is_package=TABLE[name][0])
        return None

    @staticmethod
    def create_module(spec):
        """Ask for a module of the default kind."""

    @staticmethod
    def exec_module(module):
        """Run the module's code in it."""
        _, code, needs = TABLE[module.__spec__.name]
        run(module, code, needs)


sys.frozen = True
sys.meta_path.insert(0, CodeTable)
