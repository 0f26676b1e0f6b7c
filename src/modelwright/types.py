"""The nouns every room shares: parts, turns, examples, batches, and the columns between them.

A row of a data set becomes an ``Example`` (a task says how), an example becomes ``Encoded``
arrays (a codec says how), many encoded examples are ``Columns`` on disk, some columns become a
``Batch`` (an objective says how), and a batch becomes a loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[Any]
Row = Mapping[str, Any]  # one record of a data set, as its source gave it


@dataclass(frozen=True)
class Text:
    """A piece of text."""

    text: str


@dataclass(frozen=True, eq=False)
class Image:
    """Pixels (height, width) or (height, width, channels), uint8 or float.

    ``prepared`` says that a codec has brought them to its size already, ``original`` what height
    and width they had before, where that matters.
    """

    pixels: Array
    prepared: bool = False
    original: tuple[int, int] | None = None


@dataclass(frozen=True)
class ImageFile:
    """A picture as the bytes of its file, decoded by whoever needs its pixels."""

    content: bytes
    name: str


@dataclass(frozen=True, eq=False)
class Frames:
    """A sequence of feature vectors (time, features), float; time varies between examples."""

    frames: Array


@dataclass(frozen=True, eq=False)
class Sound:
    """A recording of one channel: ``samples`` (time,) float32 in -1..1, ``rate`` a second."""

    samples: Array
    rate: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.rate


@dataclass(frozen=True)
class Label:
    """One of a closed set of names."""

    name: str


@dataclass(frozen=True)
class Number:
    """A quantity, in the unit that its data set gives it."""

    value: float


@dataclass(frozen=True)
class Box:
    """A thing in a picture: its class, and its sides in pixels from the upper left corner.

    ``score`` is how sure an answer is of it, 0 to 1.
    """

    label: str
    left: float
    top: float
    right: float
    bottom: float
    score: float = 1.0

    @property
    def said(self) -> str:
        """Class, score and the four sides, as a line for people."""
        sides = " ".join(f"{v:.0f}" for v in (self.left, self.top, self.right, self.bottom))
        return f"{self.label} {self.score:.2f} at {sides}"


@dataclass(frozen=True)
class Span:
    """A stretch of the text that is given: its characters ``begin`` to ``end`` - 1.

    ``label`` is what it is, where that is asked; ``score`` how sure an answer is of it, 0 to 1;
    ``text`` its words, empty while they are not looked up.
    """

    begin: int
    end: int
    label: str = ""
    score: float = 1.0
    text: str = ""

    @property
    def said(self) -> str:
        """Its words, what they are and, of an answer, how sure that is, as a line for people."""
        words = self.text.strip() or f"characters {self.begin} to {self.end}"
        sure = "" if self.score == 1 else f" ({self.score:.2f})"
        return f"{self.label}: {words}{sure}".removeprefix(": ")


@dataclass(frozen=True)
class Position:
    """Where a board game stands: its name, a state of its rules, and what was moved last.

    ``state`` is one of ``data.games``, and reads as the notation of its game. ``touched`` are the
    squares of the last move as bits, numbered as the game does; 0 where it is not known.
    """

    game: str
    state: Any
    touched: int = 0


SAID_SCORE = 0.5  # boxes that are less sure are not shown to people

Part = Text | Image | ImageFile | Frames | Sound | Label | Number | Box | Span | Position


@dataclass(frozen=True)
class Turn:
    """What one party says: ``role`` is "document", "system", "user" or "assistant".

    ``learn`` marks a turn whose content the model shall produce; other turns are given.
    """

    role: str
    parts: tuple[Part, ...]
    learn: bool = False

    @property
    def text(self) -> str:
        """All text parts joined."""
        return "".join(p.text for p in self.parts if isinstance(p, Text))

    @property
    def label(self) -> str:
        """The name of the only label part."""
        (name,) = self.labels
        return name

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of all label parts."""
        return tuple(p.name for p in self.parts if isinstance(p, Label))

    @property
    def numbers(self) -> tuple[float, ...]:
        """The values of all numbers."""
        return tuple(p.value for p in self.parts if isinstance(p, Number))

    @property
    def sound(self) -> Sound:
        """The only recording."""
        (found,) = (p for p in self.parts if isinstance(p, Sound))
        return found

    @property
    def boxes(self) -> tuple[Box, ...]:
        """All boxes."""
        return tuple(p for p in self.parts if isinstance(p, Box))

    @property
    def spans(self) -> tuple[Span, ...]:
        """All stretches of the given text."""
        return tuple(p for p in self.parts if isinstance(p, Span))

    @property
    def positions(self) -> tuple[Position, ...]:
        """All positions of games."""
        return tuple(p for p in self.parts if isinstance(p, Position))

    @property
    def said(self) -> str:
        """The content for people: its text, its labels and numbers, or a line a box or a span."""
        if boxes := self.boxes:
            sure = [box.said for box in boxes if box.score >= SAID_SCORE]
            return "\n".join(sure) or f"nothing surer than {SAID_SCORE}"
        if spans := self.spans:
            return "\n".join((*self.labels, *(span.said for span in spans)))
        if positions := self.positions:
            return "\n".join(str(position.state) for position in positions)
        named = [*self.labels, *(f"{value:g}" for value in self.numbers)]
        return ", ".join(named) if named else self.text


def text_turn(role: str, text: str, *, learn: bool = False) -> Turn:
    """A turn of a single piece of text."""
    return Turn(role, (Text(text),), learn)


@dataclass(frozen=True)
class Answer:
    """A turn that answers, and what else is known of it by name, such as ``probabilities``."""

    turn: Turn
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Example:
    """Turns, some given and some to be learned.

    ``rejected`` is another answer to the same turns, a worse one, where answers are compared; one
    that is not marked ``learn`` says that there is none. An example of a bad answer alone has no
    turn to learn, and that answer as ``rejected``. ``accepted`` are the texts of all answers that
    are right, where a task grades against several and learns one.
    """

    turns: tuple[Turn, ...]
    rejected: Turn | None = None
    accepted: tuple[str, ...] = ()

    @property
    def given(self) -> tuple[Turn, ...]:
        """The turns before ``answer``: what a model is asked; all of them where none is learned."""
        for i in range(len(self.turns) - 1, -1, -1):
            if self.turns[i].learn:
                return self.turns[:i]
        return self.turns

    @property
    def answer(self) -> Turn:
        """The last turn to be learned: the reference answer."""
        for turn in reversed(self.turns):
            if turn.learn:
                return turn
        raise ValueError("the example has no turn to learn")


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths in one flat array: row i is values[offsets[i]:offsets[i+1]].

    ``values`` has shape (total, ...), ``offsets`` has shape (rows + 1,), int64, from 0.
    """

    values: Array
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Array:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Length of every row, shape (rows,)."""
        return np.diff(self.offsets)

    @staticmethod
    def of(rows: Sequence[Array]) -> Ragged:
        """Join a non-empty sequence of arrays along their first axis."""
        lengths = np.array([len(r) for r in rows], dtype=np.int64)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return Ragged(np.concatenate(rows), offsets)


Encoded = Mapping[str, Array]  # one example as arrays; scalars have shape ()


class Shortened(dict[str, Array]):
    """An encoded example of which its codec left out an end: it is longer than the codec reads."""

    @classmethod
    def where(cls, cut: bool, encoded: dict[str, Array]) -> Encoded:
        """``encoded``, marked if an end was ``cut`` off."""
        return cls(encoded) if cut else encoded


Column = Array | Ragged  # one field of many examples
Columns = Mapping[str, Column]  # many examples, every column with the same number of rows


def stack(encoded: Sequence[Encoded], ragged: Sequence[str]) -> Columns:
    """Join encoded examples into columns; the fields named in ``ragged`` may vary in length."""
    columns: dict[str, Column] = {}
    for name in encoded[0]:
        values = [np.asarray(e[name]) for e in encoded]
        columns[name] = Ragged.of(values) if name in ragged else np.stack(values)
    return columns


def take(columns: Columns, rows: Array) -> Columns:
    """The chosen rows of every column, copied into memory."""
    chosen: dict[str, Column] = {}
    for name, column in columns.items():
        if isinstance(column, Ragged):
            chosen[name] = Ragged.of([np.asarray(column[int(r)]) for r in rows])
        else:
            chosen[name] = np.asarray(column).take(rows, axis=0)  # faster than column[rows]
    return chosen


def join(parts: Sequence[Columns]) -> Columns:
    """The rows of several columns of the same names, one after another."""
    joined: dict[str, Column] = {}
    for name in parts[0]:
        found = [part[name] for part in parts]
        ragged = [c[i] for c in found if isinstance(c, Ragged) for i in range(len(c))]
        plain = [c for c in found if not isinstance(c, Ragged)]
        joined[name] = Ragged.of(ragged) if ragged else np.concatenate(plain)
    return joined


def ragged_column(columns: Columns, name: str) -> Ragged:
    """The column ``name``, which must be a ragged one."""
    column = columns[name]
    if not isinstance(column, Ragged):
        raise TypeError(f"column {name!r} has rows of one length, ragged ones are meant")
    return column


def rows_in(columns: Columns) -> int:
    """How many examples the columns hold."""
    return len(next(iter(columns.values())))


@dataclass(frozen=True)
class Batch:
    """What one forward pass needs.

    ``inputs`` are the keywords of the model's ``forward``. The objective's loss is a SUM over
    ``count`` items (tokens, images, sequences); the loop divides by the count of the whole
    step, so that accumulation and parallel training change nothing. ``bytes`` is the number of
    UTF-8 bytes the targets spell (0 where the targets are not text), for bits per byte.
    ``computed`` is the number of positions the model works on, padding included: the cost.
    """

    inputs: dict[str, Any]
    targets: dict[str, Tensor]
    count: int
    bytes: int = 0
    computed: int = 0

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        tensors = [*self.targets.values(), *self.inputs.values()]
        if all(t.device == device for t in tensors if isinstance(t, Tensor)):
            return self
        inputs = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in self.inputs.items()}
        targets = {k: v.to(device) for k, v in self.targets.items()}
        return replace(self, inputs=inputs, targets=targets)


class Codec(Protocol):
    """Turns to arrays and tensors, and back. Fitted on the train split, saved with the model.

    The same object prepares training data, exports and serves, so these cannot differ. Where one
    pass of the model is an answer, it also has ``decode(outputs)``, which gives a turn for each
    row; and ``labels``, or ``outputs``: how many numbers the model's head is to give. It may have
    ``details(outputs)``: for each row what else is known of the answer, plain values by name; and
    ``spelled(turns, columns)``, which adds to the turns what stands in the stored rows alone.
    ``head`` names what the model's head is for, where that is not one label of the whole, and
    ``any_length`` says that rows longer than a model reads at once are no trouble.
    ``problem(example)`` says why an example cannot be learned from, such as a character that
    train has not, or is empty.
    """

    ragged: tuple[str, ...]  # fields of ``encode`` that vary in length

    def encode(self, example: Example) -> Encoded:
        """One example as arrays, to be stored."""
        ...

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given: shards need nothing beside them."""
        ...

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """Stored columns as the tensors of a batch: padded, normalised."""
        ...

    def save(self) -> dict[str, bytes]:
        """The codec as files: name -> content."""
        ...


@dataclass(frozen=True)
class RawInput:
    """An input of an artefact as its user gives it.

    Attributes:
        name: of the input.
        dtype: of its numbers.
        shape: lengths of its axes; a name stands for any length: "batch" first, "time".
        about: what it is and in which units, in a line for people.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int | str, ...]
    about: str


class Front(Protocol):
    """The numbers' way through a codec, as a module that goes into an exported graph.

    A codec that makes a model's inputs from numbers alone has a method ``front()`` that gives one.
    ``facts`` is what else the user of an artefact must know, as plain values.
    """

    reads: tuple[RawInput, ...]
    facts: Mapping[str, Any]

    def __call__(self, *raw: Tensor) -> dict[str, Tensor]:
        """The keywords of the model's ``forward`` for raw inputs: what ``Codec.tensors`` makes."""
        ...

    def raw(self, example: Example) -> dict[str, Array]:
        """An example as the raw inputs of a batch of one, as its user has it: not encoded."""
        ...


class Objective(Protocol):
    """How a model learns: what a batch is and what it costs.

    ``packs`` says that rows of different lengths are joined, so that nothing is padded;
    ``draws`` that ``collate`` takes random numbers. One that asks the model in another way than
    ``model(**batch.inputs)`` also has ``predict(model, batch)``: outputs for ``Codec.decode``.
    One whose batches are texts, ``tokens`` and ``starts``, and whose loss is a sum over their
    positions may have ``at(batch, rows)``: what some of these are to learn, so that several
    processes can share a text.
    """

    packs: bool
    draws: bool

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:
        """Make a batch of stored examples."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss SUMMED over the ``batch.count`` items, a scalar."""
        ...


class Policy(Protocol):
    """Anything that answers: a served engine, or the model in training."""

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:
        """One answer for each conversation."""
        ...
