"""SQLite through `_sqlite3`, the C module that `sqlite3` wraps.

Saves 4 ms of start-up: a process that imports this ran 8.6 ms (median 9.7), one that imports
`_sqlite3` itself 10.0 (11.8), `sqlite3` 11.9 (13.3), an empty one 7.0 (7.8).

`_sqlite3` imports `functools` (and with it collections, operator, reprlib, types) for one thing:
`lru_cache`, which it fetches once, when it is initialised, and from which each connection makes
its cache of statements. So while it is being initialised, and never longer, a stand-in that offers
just that takes the place of `functools`.
"""

from __future__ import annotations

import _thread
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any


def _lru_cache(maxsize: int) -> Callable[[Any], Any]:
    """As `functools.lru_cache(maxsize)`; the cache's statistics come as a plain tuple."""
    from _functools import _lru_cache_wrapper  # type: ignore[import-not-found]

    def wrap(function: Any) -> Any:
        return _lru_cache_wrapper(function, maxsize, False, lambda *numbers: numbers)

    return wrap


def _lend_functools() -> ModuleType | None:
    """Put the stand-in in its place; None where the real module is there or must be used."""
    if "_sqlite3" in sys.modules or "functools" in sys.modules or _thread._count():
        # With other threads, one of them could meet the stand-in in its own `import functools`.
        return None
    lent = type(sys)("functools")
    lent.lru_cache = _lru_cache  # type: ignore[attr-defined]
    sys.modules["functools"] = lent
    return lent


_lent = _lend_functools()
try:
    from _sqlite3 import Connection, Error, OperationalError, ProgrammingError, connect
finally:
    if _lent is not None and sys.modules.get("functools") is _lent:
        del sys.modules["functools"]

__all__ = ["Connection", "Error", "OperationalError", "ProgrammingError", "connect"]
