"""A mutant: one function of the product with a bug put into its text."""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType

    import pytest


@dataclass(frozen=True)
class Mutant:
    """What the bug is, where its text stands, what stands there instead, and who must notice."""

    bug: str
    function: FunctionType
    right: str
    wrong: str
    catch: Callable[[], None]

    def plant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the bug in; everybody who holds the function has it then."""
        source = textwrap.dedent(inspect.getsource(self.function))
        assert 1 == source.count(self.right), f"not in {self.function.__qualname__}: {self.right}"
        text = "from __future__ import annotations\n" + source.replace(self.right, self.wrong)
        names: dict[str, FunctionType] = {}
        exec(compile(text, "<mutant>", "exec"), self.function.__globals__, names)
        monkeypatch.setattr(self.function, "__code__", names[self.function.__name__].__code__)
