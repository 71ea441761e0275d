"""The standard library through the narrow door: the project's start-up tricks, and only here.

A container runtime starts the plugin anew for every pod, waits for it, and often does so for many
pods at once. The plugin then works for about a millisecond. So its speed is the speed of its start,
and that is decided, in this order, by

1. what is imported,
2. how it is packaged,
3. how many times it asks the datastore,

and by nothing else that can be written in Python.

What an import costs. Debian 12, CPython 3.11.2, `python3 -I -S -c "import …"`, wall time of spawn
to exit in ms, minimum and median of 30 rounds in each of which every line ran once, in random
order, on two cores:

    nothing                    7.0   7.8      what CPython itself takes
    posix._exit(0) at once     5.7   7.0      the same, without tidying up at the end
    _socket, fcntl, binascii   7.0   7.8      built in: free
    os                         7.9   9.3
    datetime                   8.0   9.3
    functools                  9.5  10.8
    enum                      11.0  12.7
    ipaddress                 10.3  13.1
    sqlite3                   11.9  13.3      lean.sqlite    8.6   9.7
    re                        12.8  13.8
    socket                    13.3  15.0
    json                      14.1  15.8      lean.json      7.7   8.7
    signal, contextlib, …     12.7  15.0      lean.lock      7.9   9.1
    pathlib                   16.5  19.3
    typing                    15.6  19.5
    ssl                       21.2  23.9      _ssl           9.8  11.2
    dataclasses               21.1  24.1      lean.record    7.4   8.8
    logging                   25.9  30.2      lean.log       7.9   9.5
    http.client               32.7  36.8      lean.http      8.0   8.8

The columns do not add up: `json`, `re`, `enum`, `typing`, `socket` share most of what they load.
But the first of them costs, and any one costs more than all that the plugin does with SQLite.
Most of these modules are thin layers over C code that is built into the interpreter or comes with
it. The rooms of this folder take that C code and leave the layer out.

How it is packaged comes second. An interpreter that looks for its modules in many folders, or
unpacks them, pays for each file. A bundle whose start hooks import `inspect` gives away more than
everything in this folder saves; a test of the bundle sees to that. The plugin is therefore written
such that it can also be linked into one static program: its modules use C modules that can be built
in, and none of them finds data by a path of its own.

Rules for this folder and for all that the plugin imports (a test holds the list of modules):

* Built-in and C modules of the standard library, and the project's own modules. Nothing else is
  imported at the top of a module; what is rarely needed (`zlib` for a rotation) is imported there.
* `typing`, `collections.abc` and `types` only under `if TYPE_CHECKING`, a name of our own, which
  type checkers know. Annotations stay texts, by `from __future__ import annotations`.
* Modules with an underscore are no public interface of CPython. What is taken from them is small,
  has been the same from 3.11 to 3.13, and each room is tested against the public module on random
  input. Where a room cannot serve on an interpreter it takes the public module and is only slower.
* A room that lends a stand-in for a standard module takes it back at once, and does without it
  where another thread could meet it.
* Each room says what it saves. A room that stops saving is removed.
"""
