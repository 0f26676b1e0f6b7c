"""A training that stands still is ended, with the stacks of all threads in the run's folder.

A hung collective, a dead disk or a deadlock would otherwise hold its machines until somebody
looks. The watchdog counts its own ticks, not the clock: a process that was suspended as a whole
(Ctrl-Z, a sleeping laptop) is not taken for a hung one.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from modelwright.errors import EXIT_MACHINE

FIRST = 4.0  # the first step may take so many times longer: it compiles


@dataclass
class Watchdog:
    """Ends the process when ``beat`` is not called for ``seconds`` (0: never).

    ``folder`` receives ``hung-rank-R.txt``; ``rank`` is this process's number.
    """

    seconds: float = 0.0
    folder: Path = field(default_factory=Path)
    rank: int = 0

    def __post_init__(self) -> None:
        self._phase, self._step, self._patience = "start", 0, FIRST
        self._waited = 0.0
        self._done = threading.Event()

    def __enter__(self) -> Self:
        self._done.clear()
        if self.seconds:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()

    def beat(self, phase: str, step: int) -> None:
        """Say what begins now: it may take ``seconds``."""
        if self._phase == "step":
            self._patience = 1.0  # a first step has been done
        self._phase, self._step, self._waited = phase, step, 0.0

    def _watch(self) -> None:
        tick = min(1.0, self.seconds / 5)
        last = time.monotonic()
        while not self._done.wait(tick):
            now = time.monotonic()
            self._waited += min(now - last, 2 * tick)
            last = now
            if self._waited > self.seconds * self._patience:
                self._end()

    def _end(self) -> None:
        path = self.folder / f"hung-rank-{self.rank}.txt"
        what = (
            f"rank {self.rank}, step {self._step + 1}, phase {self._phase}: "
            f"nothing moved for {self._waited:.0f} s"
        )
        try:
            with path.open("w", encoding="utf-8") as file:
                file.write(f"{what}\n\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError:
            faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
        line = (
            f"modelwright: {what}; all stacks are in {path}; give the same command again to go on "
            "from the last save, or raise the stage's `watchdog`\n"
        )
        os.write(2, line.encode())
        os._exit(EXIT_MACHINE)
