"""Units one after the other in this process: for small corpora and for finding faults."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from modelwright.data.corpus.attempt import Outcome, Task, attempt


class Inline:
    """Does every task itself."""

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Task, Outcome]]:
        """Yield (index of the task, the task, outcome) in order."""
        for number, task in enumerate(tasks):
            yield number, task, attempt(task)

    def close(self) -> None:
        """Nothing is held."""
