"""A worker of a pool: tasks in as lines of JSON, outcomes out as lines of JSON.

A fresh interpreter, not a fork: a fork beside the threads of a library is how pools hang. Nothing
outlives a run that was killed: where the system can, it kills the worker with the process that
started it, whatever library the worker is in; elsewhere the worker ends when its input does.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import sys
import threading

from modelwright.data.corpus.attempt import attempt

PR_SET_PDEATHSIG = 1  # of Linux, see prctl(2)


def _end_with(parent: int) -> None:
    """Have this process killed when ``parent`` ends; only Linux can."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it has ended before we could ask
        os._exit(0)


def _listen(waiting: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        waiting.put(line)
    os._exit(0)  # whoever gave us work is gone: what we are at would never be committed


def _let_go() -> None:
    """Give freed memory back to the system, so that an idle worker holds little."""
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def main() -> None:
    """Work until the input ends or whoever started us does."""
    _end_with(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who leads asks
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not stand between outcomes
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(waiting,), daemon=True).start()
    while True:
        outcome = attempt(json.loads(waiting.get()))
        sys.stdout.flush()  # before the outcome, after which this process may be ended
        out.write(json.dumps(outcome) + "\n")
        out.flush()
        _let_go()


if __name__ == "__main__":
    main()
