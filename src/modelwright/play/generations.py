"""Examples that the model in training makes itself, generation by generation.

Before step g * ``steps`` of the training the model, as it is then, makes the rows of generation g,
and they are written down before anything is learned of them. The rows of a step are drawn from the
last ``window`` generations, each once before any comes again. A generation depends on (seed, g) and
the parameters, rows on (seed, step): a training that was stopped and goes on finds the generations
it had, or makes the same ones again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from modelwright.data.shards import open_shard
from modelwright.runtime import derived_seed
from modelwright.types import Array, Columns, join, rows_in, take


class Maker(Protocol):
    """Whoever makes a generation: ``play/self_play.py``, ``play/rollouts.py``.

    Attributes:
        steps: of training between two generations.
        window: generations that are learned from together.
    """

    steps: int
    window: int

    def make(self, number: int, folder: Path) -> str:
        """Write a generation's rows into a folder as a shard; a line for people.

        Whatever else the next one needs lies beside the folder by then.
        """
        ...


class Context(NamedTuple):
    """What a maker is given of a training.

    Attributes:
        seed: of everything that is drawn.
        folder: where the generations are kept.
        tell: called with a line for people, or with nothing while it goes on.
        task: of the stage, which grades what is made.
        columns: reads the stage's own train examples.
    """

    seed: int
    folder: Path
    tell: Callable[[str], None]
    task: Any = None
    columns: Callable[[], Columns] = dict


class Generations:
    """The examples of a step, made as the training comes to it: ``training/examples.py``.

    Args:
        maker: of the generations.
        context: of the training.
        batch: rows of a step.
        parts: micro-batches of a step.
        playing: a context in which the model answers instead of learning.
    """

    def __init__(
        self,
        maker: Maker,
        context: Context,
        *,
        batch: int,
        parts: int,
        playing: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.maker, self.context, self.playing = maker, context, playing
        self.per_step, self.parts = batch, parts
        self.total = batch * maker.steps  # an epoch is what is learned of a generation
        self._joined: tuple[int, Columns] | None = None
        self._order: tuple[tuple[int, int], Array] | None = None

    def __call__(self, step: int) -> list[Columns]:
        """The micro-batches of a step; the first of a generation makes it before."""
        columns = self._recent(step // self.maker.steps)
        return [take(columns, rows) for rows in self._drawn(step, rows_in(columns))]

    def rows(self, step: int) -> list[Array]:
        """The rows among those of the generations that are learned from at a step."""
        return self._drawn(step, rows_in(self._recent(step // self.maker.steps)))

    def _drawn(self, step: int, rows: int) -> list[Array]:
        generation, within = divmod(step, self.maker.steps)
        at = within * self.per_step + np.arange(self.per_step)
        passes = range(int(at[0]) // rows, int(at[-1]) // rows + 1)
        found = np.concatenate([self._pass(generation, n, rows)[at[at // rows == n] % rows]
                                for n in passes])  # fmt: skip
        return list(np.array_split(found, self.parts))

    def _pass(self, generation: int, number: int, rows: int) -> Array:
        """All rows in the order of one pass over them."""
        key = (generation, number)
        if self._order is None or self._order[0] != key:
            rng = np.random.default_rng(derived_seed(self.context.seed, "rows", *key))
            self._order = (key, rng.permutation(rows))
        return self._order[1]

    def _recent(self, generation: int) -> Columns:
        """The columns of the last generations up to one."""
        first = max(0, generation - self.maker.window + 1)
        wanted = range(first, generation + 1)
        if self._joined is None or self._joined[0] != generation:
            self._joined = (generation, join([self._generation(g) for g in wanted]))
        return self._joined[1]

    def _generation(self, number: int) -> Columns:
        """The rows of a generation: as they were written, or made now."""
        folder = self.context.folder / f"generation-{number:04d}"
        if not folder.is_dir():
            with self.playing():
                line = self.maker.make(number, folder)
            self.context.tell(f"generation {number}: {line}")
        return open_shard(folder)
