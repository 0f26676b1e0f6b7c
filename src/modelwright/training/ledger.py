"""Where a training left its plan, so that it leaves it at the same place when it is repeated.

The plan is a pure function of the step. What may change it on the way: a step that is skipped
(not finite, or an overflow of float16), a window of batches that is passed over after going back,
and micro-batches that are cut smaller. Each is an entry here, written to the run's manifest before
the training goes on; what a step does is then a pure function of the step and of the ledger, and a
run that was killed and resumed repeats the very same departures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Entry:
    """One departure. Steps count from 0 here, as the loop does; people are told step + 1.

    ``step`` is where it was found; ``to`` (rollback) the step that was gone back to; ``batches``
    (rollback) how many batches are passed over from there on; of a halve, ``to`` is how often
    the micro-batches are cut from there on. ``why`` is for people.
    """

    kind: Literal["skip", "overflow", "rollback", "halve"]
    step: int
    why: str
    to: int = 0
    batches: int = 0


@dataclass
class Ledger:
    """The departures so far; ``write`` keeps them (serial and synchronous: it returns when kept).

    ``write`` is given all entries as plain values.
    """

    entries: list[Entry] = field(default_factory=list)
    write: Callable[[list[dict[str, Any]]], None] = lambda _: None

    def add(self, entry: Entry) -> None:
        """Keep an entry, once: a step that is repeated after a kill finds it here already."""
        if entry not in self.entries:
            self.entries.append(entry)
            self.write([asdict(e) for e in self.entries])

    def data_step(self, step: int) -> int:
        """The step of the plan whose batch step ``step`` takes: later by all that was passed over.

        After going back from step s to step c, step c takes the batch that was planned for
        step s + 1: the window c .. s is never seen again.
        """
        passed = sum(e.batches for e in self.entries if e.kind == "rollback" and e.to <= step)
        return step + passed

    def halvings(self, step: int) -> int:
        """How often the micro-batches of a step are cut in two."""
        return sum(e.kind == "halve" and e.step <= step for e in self.entries)

    def skipped_before(self, step: int) -> int:
        """How many steps just before ``step`` were skipped in a row."""
        skipped = {e.step for e in self.entries if e.kind == "skip"}
        count = 0
        while step - 1 - count in skipped:
            count += 1
        return count

    def overflows(self) -> list[int]:
        """The steps at which a float16 gradient overflowed, in rising order."""
        return sorted(e.step for e in self.entries if e.kind == "overflow")

    def rollbacks(self, to: int) -> int:
        """How often the training went back to step ``to``."""
        return sum(e.kind == "rollback" and e.to == to for e in self.entries)
