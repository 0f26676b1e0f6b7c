"""A tracker at arm's length: its own thread behind a bounded queue.

Whatever the tracker does (down, slow, hung, raising), ``write`` returns at once and never raises.
Lines that find the queue full, or that the tracker refuses, are lost to it and counted; the run's
own ``metrics/*.jsonl`` has them all.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

ROOM = 4096  # records that wait at most
PATIENCE = 30.0  # seconds that closing waits for what is still in the queue
PAUSE = 0.5  # seconds before the first retry, doubled for each further one
TRIES = 3  # of one record
LONGEST = 60.0  # seconds between attempts to open


class _Target(Protocol):
    def write(self, values: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class Background:
    """Writes to what ``opened()`` makes, from a thread of its own; both may fail or hang."""

    def __init__(
        self,
        name: str,
        opened: Callable[[], _Target],
        *,
        room: int = ROOM,
        patience: float = PATIENCE,
        pause: float = PAUSE,
    ) -> None:
        self.name, self.opened = name, opened
        self.room, self.patience, self.pause = room, patience, pause
        self.offered = self.written = 0
        self.reason = ""
        self.waiting: deque[dict[str, Any]] = deque()
        self.changed = threading.Condition()
        self.closing = threading.Event()
        self.thread = threading.Thread(target=self._work, name=f"watch-{name}", daemon=True)
        self.thread.start()

    def write(self, values: Mapping[str, Any]) -> None:
        """Leave one record for the tracker, or drop it when too many wait already."""
        with self.changed:
            self.offered += 1
            if len(self.waiting) < self.room:
                self.waiting.append(dict(values))
                self.changed.notify()
            elif not self.reason:
                self.reason = "it is too slow"

    def close(self) -> None:
        """Wait ``patience`` seconds at most for the tracker to finish; then leave it alone."""
        self.closing.set()
        with self.changed:
            self.changed.notify()
        self.thread.join(self.patience)
        if self.thread.is_alive():
            self.reason = self.reason or f"it did not finish within {self.patience:g} s"

    @property
    def report(self) -> str:
        """After ``close``: what the tracker did not get and why, or an empty string."""
        lost = self.offered - self.written
        if not lost and not self.reason:
            return ""
        return f"{self.name}: {lost} of {self.offered} lines lost ({self.reason})"

    def _work(self) -> None:
        target = self._open()
        if target is None:
            return
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.waiting or self.closing.is_set())
                if not self.waiting:
                    break
                values = self.waiting.popleft()
            self._write(target, values)
        try:
            target.close()
        except Exception as error:
            self.reason = _said(error)

    def _open(self) -> _Target | None:
        """The tracker, tried again and again until the training ends."""
        pause = self.pause
        while True:
            try:
                return self.opened()
            except Exception as error:
                self.reason = _said(error)
            if self.closing.wait(pause):
                return None
            pause = min(2 * pause, LONGEST)

    def _write(self, target: _Target, values: Mapping[str, Any]) -> None:
        for attempt in range(TRIES):
            try:
                target.write(values)
            except Exception as error:
                self.reason = _said(error)
            else:
                self.written += 1
                return
            if self.closing.is_set() or self.closing.wait(self.pause * 2**attempt):
                return


def _said(error: Exception) -> str:
    """One short line of what went wrong."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:200]
