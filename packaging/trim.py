"""What the lean program does not need of a module: annotations, and imports for type checkers.

Nobody reads them at run time but `record`, which reads those of class bodies; they stay.
Leaving the rest out saves a tenth of what each start has to unmarshal.
"""

from __future__ import annotations
import __future__

import ast
import marshal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container
    from types import CodeType


class Trimmer(ast.NodeTransformer):
    """Takes annotations off functions and drops `if TYPE_CHECKING:`."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """A function without annotations, neither of arguments nor of local names."""
        self.generic_visit(node)
        node.returns = None
        given = node.args
        for argument in [*given.posonlyargs, *given.args, *given.kwonlyargs]:
            argument.annotation = None
        for rest in (given.vararg, given.kwarg):
            if rest is not None:
                rest.annotation = None
        node.body = [LocalTrimmer().visit(statement) for statement in node.body]
        return node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        """What stands for run time in `if TYPE_CHECKING: … else: …`."""
        self.generic_visit(node)
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return node.orelse or ast.Pass()
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt:
        """No import of `__future__`: the compiler is told by a flag."""
        return ast.Pass() if node.module == "__future__" else node


class LocalTrimmer(ast.NodeTransformer):
    """Turns annotated assignments to local names into plain ones."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        """The same assignment; a mere declaration is nothing."""
        if node.value is None:
            return ast.Pass()
        return ast.copy_location(ast.Assign([node.target], node.value), node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        """Class bodies keep theirs."""
        return node


def trim(source: bytes) -> ast.Module:
    """The syntax tree of a module without what only type checkers read."""
    return ast.fix_missing_locations(Trimmer().visit(ast.parse(source)))


def compile_trimmed(tree: ast.Module, shown: str) -> bytes:
    """Marshalled code of a trimmed module, without docstrings and asserts."""
    flag = __future__.annotations.compiler_flag
    code: CodeType = compile(tree, shown, "exec", flags=flag, dont_inherit=True, optimize=2)
    return marshal.dumps(code)


def find_needs(tree: ast.Module, known: Container[str]) -> list[str]:
    """The `known` modules that a module imports when it is run itself, in order."""
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in dict.fromkeys(names) if name in known]
