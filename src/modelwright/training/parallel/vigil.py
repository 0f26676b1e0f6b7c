"""Keeping watch over the other processes: who is gone, stopped or stuck, and where.

Every process says twice a second how far it is. The watch is a thread with a connection of its
own, so it goes on while the main thread waits inside a collective. A killed or stopped process
says nothing more; a stuck one goes on speaking but comes no further.
"""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from modelwright.errors import EXIT_MACHINE

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

Sign = tuple[int, int, str, str]  # beats, collectives done, what is being done, who

BEAT = 0.5  # seconds between two signs of life
SILENCE = 2.5  # seconds without one that mean: gone or stopped
GRACE = 5.0  # seconds that gloo has to give up before the process is ended from here
AGAIN = "its work is in the last checkpoint; give the same command again to go on"
_NEVER: Sign = (-1, 0, "", "")


class Vigil(threading.Thread):
    """Says that this process lives and how far it is; names the one that keeps all waiting."""

    def __init__(self, store: Store, rank: int, size: int, timeout: float) -> None:
        super().__init__(name="vigil", daemon=True)
        self.store, self.rank, self.size, self.timeout = store, rank, size, timeout
        self.done = 0  # collectives this process has been through
        self.phase, self.since = "start", 0.0  # what it waits in (since when; 0: it works)
        self.moved = time.monotonic()  # when it last came to or from such a place
        self.lock, self.ending = threading.Lock(), threading.Event()
        self.beats = 0
        self.me = f"process {os.getpid()} on {socket.gethostname()}"

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """While the main thread waits for the others."""
        self.phase, self.since = what, time.monotonic()
        self.done += 1
        try:
            yield
        finally:
            self.since, self.moved = 0.0, time.monotonic()

    def run(self) -> None:
        """Beat until stopped; end the process where a library would keep it waiting for ever.

        Gloo gives up by itself after ``timeout``, and the main thread then asks ``missing``. NCCL
        does not tell the main thread: it is watched whether another process falls silent.
        """
        while not self.ending.wait(BEAT):
            try:
                self.beat()
                now = time.monotonic()
                late = self.since and now - self.since > self.timeout + GRACE
                still = now - max(self.moved, self.since) > self.timeout
                if late or (still and self.silent()):
                    self.give_up(self.missing())
            except RuntimeError:
                return  # the store is gone with its host: the collectives will say so

    def beat(self) -> None:
        """One sign of life: beats, collectives done, what is being done."""
        with self.lock:
            self.beats += 1
            doing = f"waiting ({self.phase})" if self.since else f"working (after {self.phase})"
            sign = f"{self.beats}|{self.done}|{doing}|{self.me}"
            self.store.set(f"beat/{self.rank}", sign)

    def signs(self) -> dict[int, Sign]:
        """The last sign of every process: beats, collectives done, doing, who."""
        found: dict[int, Sign] = {}
        with self.lock:
            for rank in range(self.size):
                if self.store.check([f"beat/{rank}"]):
                    beats, done, doing, who = self.store.get(f"beat/{rank}").decode().split("|")
                    found[rank] = (int(beats), int(done), doing, who)
        return found

    def silent(self) -> list[int]:
        """The processes that give no sign of life for ``SILENCE`` seconds."""
        before = self.signs()
        time.sleep(SILENCE)
        after = self.signs()
        others = [r for r in range(self.size) if r != self.rank]
        return [r for r in others if r not in after or before.get(r, _NEVER)[0] == after[r][0]]

    def missing(self) -> str:
        """Look for ``SILENCE`` seconds, then say in one line which processes are missing."""
        try:
            silent, after = self.silent(), self.signs()
        except RuntimeError:
            return f"rank {self.rank} has lost the store of the processes; {AGAIN}"
        if silent:
            named = ", ".join(f"rank {r} ({_who(after, r)})" for r in silent)
            return f"{named} gives no sign of life: killed or stopped; {AGAIN}"
        furthest = max(sign[1] for sign in after.values())
        behind = [r for r, sign in after.items() if sign[1] < furthest]
        if behind:
            named = ", ".join(f"rank {r} ({_who(after, r)}, {after[r][2]})" for r in behind)
            return f"{named} lives but comes no further; {AGAIN}"
        return f"rank {self.rank} waits in {self.phase}, and all processes live; {AGAIN}"

    def give_up(self, why: str) -> None:
        """Say why, show where this process waits, and end it."""
        print(f"modelwright: rank {self.rank}: {why}", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        sys.stderr.flush()
        os._exit(EXIT_MACHINE)  # the main thread is inside a collective and cannot be asked

    def stop(self) -> None:
        """End the watch."""
        self.ending.set()
        self.join()


def _who(signs: dict[int, Sign], rank: int) -> str:
    return signs[rank][3] if rank in signs else "never heard of"
