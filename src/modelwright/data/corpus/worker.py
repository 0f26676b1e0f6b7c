"""A worker of a pool: tasks in as lines of JSON, outcomes out as lines of JSON.

A fresh interpreter, not a fork: a fork beside the threads of a library is how pools hang. It
ends when its standard input does, so nothing outlives a run that was killed.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading

from modelwright.data.corpus.attempt import attempt


def _listen(waiting: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        waiting.put(line)
    os._exit(0)  # whoever gave us work is gone: what we are at would never be committed


def main() -> None:
    """Work until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who leads asks
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not stand between outcomes
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(waiting,), daemon=True).start()
    while True:
        outcome = attempt(json.loads(waiting.get()))
        out.write(json.dumps(outcome) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
