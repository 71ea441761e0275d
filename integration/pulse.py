"""A pulse that begins waiting system calls anew, in every thread of this process.

Some kernels (seen on 6.18) now and then lose the wake-up at the end of a pipe: whoever polls it
sleeps on although nobody can write any more, and a test run hangs for ever in `communicate` with a
process that has ended. A signal makes Python repeat the call, which then returns at once.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time

INTERVAL_SECONDS = 2.0
# Processes that we start ignore it, should it ever reach one.
SIGNAL = signal.SIGURG


def start_pulse() -> None:
    """Begin, for as long as the process lives. Only for the main thread."""
    signal.signal(SIGNAL, lambda *_: None)
    threading.Thread(target=_beat, name="pulse", daemon=True).start()


def _beat() -> None:
    tgkill = ctypes.CDLL(None).tgkill
    while True:
        time.sleep(INTERVAL_SECONDS)
        for number in [thread.native_id for thread in threading.enumerate()]:
            # That a thread has ended meanwhile is fine: its number names nobody then.
            if number is not None:
                tgkill(os.getpid(), number, SIGNAL)
