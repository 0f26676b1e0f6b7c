"""The examples of step s, as a pure function of (seed, s): nothing to save, nothing to lose.

Every class here answers ``examples(step)`` with the micro-batches of that step as columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from modelwright.data.packing import pack
from modelwright.errors import ModelwrightError
from modelwright.runtime import derived_seed
from modelwright.types import Array, Columns, join, ragged_column, rows_in, take

# Micro-batches of a step whose rows vary in length. With more less is padded, and each costs its
# calls: 16 recordings on four cores took 329 ms in one, 291 in two and 376 in four.
LENGTH_PARTS = 2


class Examples(Protocol):
    """The micro-batches of a step."""

    per_step: int  # examples (rows or windows) of one step
    total: int  # examples of one epoch

    def __call__(self, step: int) -> list[Columns]:
        """Micro-batches of step ``step``, counted from 0."""
        ...

    def rows(self, step: int) -> list[Array]:
        """The numbers of the rows that a step's micro-batches come from, to name them."""
        ...


class Shuffled:
    """Rows drawn without replacement: a new permutation each epoch, seeded by (seed, epoch).

    Where rows vary in length (``by_length`` names a ragged field) a step is still a plain random
    sample, but its rows are sorted by length and cut into micro-batches of similar length: less
    padding at the same gradient (law 2). Steps of similar lengths would be faster yet, and learn
    worse, since what is short is often of one kind. ``numbers`` are the rows' numbers where the
    columns are a choice of a larger table. ``times`` (rows,) says how often an epoch has a row:
    2.5 is twice, and once more for half of the rows of that weight, other ones in every epoch.
    """

    def __init__(
        self,
        columns: Columns,
        batch: int,
        *,
        seed: int,
        accumulate: int = 1,
        by_length: str = "",
        numbers: Array | None = None,
        times: Array | None = None,
    ) -> None:
        self.columns, self.seed, self.numbers, self.times = columns, seed, numbers, times
        self.total = rows_in(columns) if times is None else len(drawn(times, seed))
        self.per_step = min(batch, self.total)
        self.lengths = ragged_column(columns, by_length).lengths if by_length else None
        self.parts = max(accumulate, LENGTH_PARTS) if by_length else accumulate
        self._epoch: tuple[int, Array] | None = None

    def order(self, epoch: int) -> Array:
        """The rows of an epoch in their order, shape (total,)."""
        if self._epoch is None or self._epoch[0] != epoch:
            seed = derived_seed(self.seed, "epoch", epoch)
            rng = np.random.default_rng(seed)
            rows = self.total if self.times is None else drawn(self.times, seed)
            self._epoch = (epoch, rng.permutation(rows))
        return self._epoch[1]

    def __call__(self, step: int) -> list[Columns]:
        """Rows [step * per_step, ...) of the endless sequence of epochs, in micro-batches.

        The last, incomplete batch of an epoch is filled from the next epoch.
        """
        return [take(self.columns, part) for part in self._parts(step)]

    def rows(self, step: int) -> list[Array]:
        """The rows' numbers, in the order of the micro-batches."""
        parts = self._parts(step)
        return parts if self.numbers is None else [self.numbers[part] for part in parts]

    def _parts(self, step: int) -> list[Array]:
        first = step * self.per_step
        epoch, offset = divmod(first, self.total)
        if self.lengths is None and self.parts == 1 and offset + self.per_step <= self.total:
            return [self.order(epoch)[offset : offset + self.per_step]]  # as below, at no cost
        wanted: list[Array] = []
        while (have := sum(map(len, wanted))) < self.per_step:
            epoch, offset = divmod(first + have, self.total)
            wanted.append(self.order(epoch)[offset : offset + self.per_step - have])
        rows = np.concatenate(wanted)
        if self.lengths is not None:
            rows = rows[np.argsort(self.lengths[rows], kind="stable")]
        return np.array_split(rows, min(self.parts, len(rows)))


def drawn(times: Array, seed: int) -> Array:
    """The rows of an epoch in which row i stands ``times[i]`` times, in rising order of weights.

    How many they are does not depend on the seed.
    """
    rng = np.random.default_rng(derived_seed(seed, "times"))
    found = []
    for weight in np.unique(times):
        rows = np.flatnonzero(times == weight)
        more = rng.permutation(rows)[: round(weight % 1 * len(rows))]
        found += [np.repeat(rows, int(weight)), more]
    return np.concatenate(found)


class Packed:
    """Rows of ``room`` tokens, filled with the documents of ``inner``'s epochs by best fit.

    A step has ``batch`` such rows, in ``accumulate`` micro-batches. No document is cut and none is
    left out; which of them share a row is a pure function of (seed, epoch), as their order is. Of
    weights that are no whole numbers an epoch may have a row more or less than another: then some
    of an epoch stand twice, or are left to another.

    Raises:
        ModelwrightError: a document does not fit.
    """

    def __init__(self, inner: Shuffled, room: int, batch: int, *, accumulate: int = 1) -> None:
        self.inner, self.room, self.accumulate = inner, room, accumulate
        lengths = ragged_column(inner.columns, "tokens").lengths - 1  # the last one is no input
        if (longest := int(lengths.max())) > room:
            raise ModelwrightError(
                f"pack: a document of {longest} tokens does not fit into rows of {room}; raise it "
                "to model.context"
            )
        self.lengths = np.maximum(lengths, 1)
        self._epoch: tuple[int, list[Array]] | None = None
        self.total = len(self.plan(0))
        self.per_step = min(batch, self.total)

    def plan(self, epoch: int) -> list[Array]:
        """The documents of every row of an epoch, in order."""
        if self._epoch is None or self._epoch[0] != epoch:
            order = self.inner.order(epoch)
            packing = pack(self.lengths[order], self.room)
            rows = np.split(order[packing.documents], packing.first[1:-1])
            rng = np.random.default_rng(derived_seed(self.inner.seed, "packed", epoch))
            self._epoch = (epoch, [rows[i] for i in rng.permutation(len(rows))])
        return self._epoch[1]

    def __call__(self, step: int) -> list[Columns]:
        """The documents of a step's rows, in micro-batches."""
        return [take(self.inner.columns, part) for part in self._parts(step)]

    def rows(self, step: int) -> list[Array]:
        """The documents' numbers, in the order of the micro-batches."""
        parts, numbers = self._parts(step), self.inner.numbers
        return parts if numbers is None else [numbers[part] for part in parts]

    def _parts(self, step: int) -> list[Array]:
        wanted = []
        for at in range(step * self.per_step, (step + 1) * self.per_step):
            rows = self.plan(at // self.total)
            wanted.append(rows[at % self.total % len(rows)])
        parts = np.array_split(np.arange(len(wanted)), min(self.accumulate, len(wanted)))
        return [np.concatenate([wanted[i] for i in part]) for part in parts]


class Augmented:
    """Other views of the rows that ``inner`` gives, a pure function of (seed, step) as they are.

    All rows of a step are changed at once and then cut as they were, so that accumulation and
    the number of processes change nothing of what is drawn.
    """

    def __init__(self, inner: Examples, augment: Callable[[Columns, int], Columns]) -> None:
        self.inner, self.augment = inner, augment
        self.per_step, self.total = inner.per_step, inner.total

    def __call__(self, step: int) -> list[Columns]:
        """The micro-batches of ``inner``, changed."""
        parts = self.inner(step)
        if len(parts) == 1:
            return [self.augment(parts[0], step)]
        changed = self.augment(join(parts), step)
        ends = np.cumsum([rows_in(part) for part in parts])
        return [take(changed, rows) for rows in np.split(np.arange(ends[-1]), ends[:-1])]

    def rows(self, step: int) -> list[Array]:
        """The rows that the micro-batches come from."""
        return self.inner.rows(step)


class Windows:
    """Windows of a stream of documents joined end to end, for pretraining.

    The stream is cut into ``length`` + 1 tokens (inputs and targets overlap by one) at an offset
    drawn for each epoch, so that epochs differ in their cuts; windows come in a seeded order.
    """

    def __init__(
        self, columns: Columns, batch: int, length: int, *, seed: int, accumulate: int = 1
    ) -> None:
        self.tokens = ragged_column(columns, "tokens").values
        self.offsets = ragged_column(columns, "tokens").offsets
        self.learn = ragged_column(columns, "learn").values
        self.length, self.seed, self.accumulate = length, seed, accumulate
        self.total = (len(self.tokens) - 1) // length - 1  # one less: room for the offset
        if self.total < 1:
            raise ModelwrightError(
                f"data: {len(self.tokens)} training tokens are too few for model.context={length};"
                " give more text or a smaller context"
            )
        self.batch = min(batch, self.total)
        self.per_step = self.batch * accumulate
        self._epoch: tuple[int, Array] | None = None

    def starts(self, epoch: int) -> Array:
        """First token of every window of an epoch, in order, shape (total,)."""
        if self._epoch is None or self._epoch[0] != epoch:
            rng = np.random.default_rng(derived_seed(self.seed, "epoch", epoch))
            offset = int(rng.integers(self.length))
            self._epoch = (epoch, offset + self.length * rng.permutation(self.total))
        return self._epoch[1]

    def __call__(self, step: int) -> list[Columns]:
        """Micro-batches of windows (batch, length + 1)."""
        reach = np.arange(self.length + 1)
        micro = [starts[:, None] + reach for starts in self._parts(step)]
        return [{"tokens": self.tokens[r], "learn": self.learn[r]} for r in micro]

    def rows(self, step: int) -> list[Array]:
        """The documents that the windows of each micro-batch touch, in rising order."""

        def touched(starts: Array) -> Array:
            first = np.searchsorted(self.offsets, starts, side="right") - 1
            last = np.searchsorted(self.offsets, starts + self.length, side="right") - 1
            spans = [np.arange(a, b + 1) for a, b in zip(first, last, strict=True)]
            return np.unique(np.concatenate(spans))

        return [touched(starts) for starts in self._parts(step)]

    def _parts(self, step: int) -> list[Array]:
        """First tokens of the windows of every micro-batch."""
        first = step * self.per_step
        starts = np.array(
            [
                self.starts((first + i) // self.total)[(first + i) % self.total]
                for i in range(self.per_step)
            ]
        )
        return np.split(starts, self.accumulate)


def once(columns: Columns, batch: int) -> Iterator[Columns]:
    """Every row once, in order, for evaluation."""
    total = rows_in(columns)
    for start in range(0, total, batch):
        yield take(columns, np.arange(start, min(start + batch, total)))


def windows_once(columns: Columns, batch: int, length: int) -> Iterator[Columns]:
    """Every token of the stream predicted exactly once, in order, for evaluation.

    All windows have length + 1 tokens; the last one starts earlier so as to end at the end of
    the stream, and what it repeats is not counted again.
    """
    tokens, learn = ragged_column(columns, "tokens").values, ragged_column(columns, "learn").values
    last = len(tokens) - 1  # windows predict positions 1 .. last
    if last < 1:
        return
    length = min(length, last)
    starts = np.arange(0, last, length)
    begin = np.minimum(starts, last - length)
    for i in range(0, len(starts), batch):
        rows = begin[i : i + batch, None] + np.arange(length + 1)
        fresh = rows > starts[i : i + batch, None]
        yield {"tokens": tokens[rows], "learn": learn[rows] & fresh}
