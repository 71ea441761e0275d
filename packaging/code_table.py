# The opening of the lean program's main script: lean.spec fills TABLE and adds lean_entry.py.
# One table in the program itself instead of an archive entry for each module saves a quarter of a
# millisecond for each module that a verb imports.
import sys
from _frozen_importlib import ModuleSpec
from marshal import loads

# Name of the module: (is it a package, its marshalled code).
TABLE = {}


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
        exec(loads(TABLE[module.__spec__.name][1]), module.__dict__)


sys.frozen = True
sys.meta_path.insert(0, CodeTable)
