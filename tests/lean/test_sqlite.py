"""The narrow door to SQLite against the wide one."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.lean import sqlite

ROOT = Path(__file__).parents[2]
VALUES = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
)


def run(code: str) -> list[str]:
    """The lines that a bare interpreter prints, in which nothing but `code` has been imported."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.splitlines()


@given(st.lists(st.tuples(VALUES, VALUES), max_size=5))
def test_answers_as_the_standard_module(rows: list[tuple[object, object]]) -> None:
    """The same statements give the same rows."""
    answers = []
    for connect in (sqlite.connect, sqlite3.connect):
        db = connect(":memory:", isolation_level=None)
        db.execute("CREATE TABLE t(a, b)")
        for row in rows:
            db.execute("INSERT INTO t VALUES(?,?)", row)
        answers.append(db.execute("SELECT a, b, typeof(a) FROM t ORDER BY a, b").fetchall())
        db.close()
    assert answers[0] == answers[1]


@pytest.mark.parametrize("statement", ["nonsense", "SELECT * FROM nothing", "BEGIN; BEGIN"])
def test_fails_as_the_standard_module(statement: str) -> None:
    """The same class of error with the same text."""
    failures = []
    for connect in (sqlite.connect, sqlite3.connect):
        db = connect(":memory:")
        with pytest.raises(sqlite3.Error) as caught:
            db.execute(statement)
        failures.append((type(caught.value), str(caught.value)))
        db.close()
    assert failures[0] == failures[1]


def test_loads_no_functools() -> None:
    """Neither while it is imported nor when a connection makes its cache of statements."""
    assert ["[(1,)]", "[]"] == run(
        "from cni_ipam.lean.sqlite import connect\n"
        "db = connect(':memory:')\n"
        "for n in range(300): db.execute(f'SELECT {n}')\n"
        "print(db.execute('SELECT 1').fetchall())\n"
        "print([m for m in ('functools', 'collections', 'operator') if m in sys.modules])"
    )


def test_functools_can_be_loaded_later() -> None:
    """It is the real one, and connections made before and after it work."""
    assert ["True", "[(1,)] [(1,)]"] == run(
        "from cni_ipam.lean.sqlite import connect\n"
        "early = connect(':memory:')\n"
        "import functools, sqlite3\n"
        "print(functools.lru_cache(maxsize=2)(len).cache_info().maxsize == 2)\n"
        "late = sqlite3.connect(':memory:')\n"
        "print(*[db.execute('SELECT 1').fetchall() for db in (early, late)])"
    )


def test_functools_can_be_loaded_before() -> None:
    """Then it is used, and stays what it was."""
    assert ["True [(1,)]"] == run(
        "import functools\n"
        "before = functools.lru_cache\n"
        "from cni_ipam.lean.sqlite import connect\n"
        "print(functools.lru_cache is before is sys.modules['functools'].lru_cache,"
        " connect(':memory:').execute('SELECT 1').fetchall())"
    )


def test_a_process_with_threads_gets_the_real_functools() -> None:
    """Another thread must not meet the stand-in."""
    assert ["True"] == run(
        "import _thread\n"
        "lock = _thread.allocate_lock(); lock.acquire()\n"
        "_thread.start_new_thread(lock.acquire, ())\n"
        "while not _thread._count(): pass\n"
        "import cni_ipam.lean.sqlite\n"
        "print('lru_cache' in vars(sys.modules['functools']) and 'wraps' in"
        " vars(sys.modules['functools']))\n"
        "lock.release()"
    )
