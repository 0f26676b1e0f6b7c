"""A task on sequences: a tag for every word, such as the slots of a spoken command.

Tags are BIO: B-artist begins a slot, I-artist goes on with it, O is outside of any.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.models import reading
from modelwright.models.model import ModelConfig
from modelwright.tasks.task import Constant, Measured, Task
from modelwright.tasks.vector_classification import missing_column
from modelwright.types import (
    Batch,
    Columns,
    Encoded,
    Example,
    Label,
    Policy,
    Ragged,
    Row,
    Text,
    Turn,
    ragged_column,
    text_turn,
)

OUTSIDE, UNKNOWN = "O", 0


def rows(path: Path | None) -> Iterator[Row]:
    """The commands of the SNIPS benchmark (Coucke et al. 2018): ``words`` and ``tags``, ``split``.

    Read from train_INTENT_full.json.gz and validate_INTENT.json.gz, which are its test.
    """
    if path is None or not (files := sorted(path.glob("*.json.gz"))):
        raise ModelwrightError(
            f"{path}: no commands; get 2017-06-custom-intent-engines of sonos/nlu-benchmark, pack"
            " its files with gzip and set data.path to their folder"
        )
    for file in files:
        split = "train" if file.name.startswith("train") else "test"
        for intent, commands in json.loads(gzip.decompress(file.read_bytes())).items():
            for number, command in enumerate(commands):
                words, tags = _tagged(command["data"])
                name = f"{split}:{intent}:{number}"
                text = " ".join(words)
                yield {"id": name, "text": text, "words": words, "tags": tags, "split": split}


def _tagged(pieces: Sequence[Mapping[str, str]]) -> tuple[list[str], list[str]]:
    words: list[str] = []
    tags: list[str] = []
    for piece in pieces:
        found = piece["text"].lower().split()
        slot = piece.get("entity")
        begin, inside = (f"B-{slot}", f"I-{slot}") if slot else (OUTSIDE, OUTSIDE)
        words += found
        tags += [begin, *[inside] * (len(found) - 1)][: len(found)]
    return words, tags


class SlotTagging(Task):
    """Rows with ``words`` and as many ``tags``."""

    codec = __name__
    objective = __name__
    model = __name__
    measure = "slot F1"
    specimen: ClassVar[Row] = {
        "id": "a",
        "words": ["play", "blue", "train"],
        "tags": ["O", "B-album", "I-album"],
    }

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One example: the words are given, a part each, and their tags are to be learned."""
        for name in ("words", "tags"):
            if name not in row:
                raise missing_column(row, name, "is read", name)
        words, tags = row["words"], row["tags"]
        if not words or len(words) != len(tags):
            return "not a tag for every word"
        answer = Turn("assistant", tuple(map(Label, tags)), learn=True)
        return iter([Example((_given(words), answer))])

    def grade(self, example: Example, answer: Turn) -> float:
        """F1 of the slots of one command."""
        return _f1([example.answer.labels], [answer.labels])

    def measures(self, examples: Sequence[Example], policy: Policy) -> list[Measured]:
        """F1 of whole slots, name and extent, and the share of words that are tagged right."""
        said = [turn.labels for turn in policy.answer([e.given for e in examples])]
        right = [e.answer.labels for e in examples]
        pairs = [pair for a, b in zip(right, said, strict=True) for pair in zip(a, b, strict=False)]
        words = sum(map(len, right))
        share = sum(a == b for a, b in pairs) / words
        return [Measured(self.measure, _f1(right, said)), Measured("words right", share)]

    def baselines(self, train: Sequence[Example]) -> Mapping[str, Policy]:
        """The commonest tag of each word in train."""
        seen: dict[str, Counter[str]] = {}
        for example in train:
            for word, tag in zip(_words(example), example.answer.labels, strict=True):
                seen.setdefault(word, Counter())[tag] += 1
        return {"commonest tag": _Commonest({w: c.most_common(1)[0][0] for w, c in seen.items()})}

    def question(self, text: str) -> Sequence[Turn]:
        """The turns of a typed command."""
        return (_given(text.lower().split()),)


class _Commonest(Constant):
    """A policy that looks each word up."""

    def __init__(self, tags: Mapping[str, str]) -> None:
        super().__init__(text_turn("assistant", ""))
        self.tags = tags

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:
        """The tags of each question's words, O for those never seen."""
        every = [
            [self.tags.get(word, OUTSIDE) for word in _words(Example(tuple(g)))] for g in given
        ]
        return [Turn("assistant", tuple(map(Label, tags))) for tags in every]


def slots(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """The slots of a command: name, first word, and the word after the last."""
    found, begin = set(), 0
    for at, tag in enumerate([*tags, OUTSIDE]):
        if at and tags[at - 1] != OUTSIDE and tag != f"I-{tags[at - 1][2:]}":
            found.add((tags[at - 1][2:], begin, at))
        if tag != OUTSIDE and (tag.startswith("B-") or not at or tags[at - 1][2:] != tag[2:]):
            begin = at
    return found


def _f1(right: Sequence[Sequence[str]], said: Sequence[Sequence[str]]) -> float:
    """2 |A ∩ B| / (|A| + |B|) over the slots of all commands; 1 where neither has any."""
    pairs = [(slots(a), slots(b)) for a, b in zip(right, said, strict=True)]
    total = sum(len(a) + len(b) for a, b in pairs)
    return 2 * sum(len(a & b) for a, b in pairs) / total if total else 1.0


def _given(words: Sequence[str]) -> Turn:
    return Turn("user", tuple(Text(f"{word} ") for word in words))


def _words(example: Example) -> list[str]:
    """The words of the turns that are given."""
    given = (t for t in example.turns if not t.learn)
    return [p.text.strip() for t in given for p in t.parts if isinstance(p, Text)]


class Codec:
    """The words and tags of the train part, by number; words met once are unknown."""

    ragged: tuple[str, ...] = ("tokens", "tags")

    def __init__(self, words: list[str], tags: list[str]) -> None:
        self.words, self.tags = words, tags
        self.numbers = {word: i for i, word in enumerate(words, start=1)}
        self.vocabulary, self.outputs = len(words) + 1, len(tags)

    @classmethod
    def fit(cls, examples: Iterable[Example], *, least: int = 2) -> Codec:
        """Learn words met ``least`` times, and tags."""
        count: Counter[str] = Counter()
        tags: set[str] = set()
        for example in examples:
            count.update(_words(example))
            tags.update(example.answer.labels)
        return cls(sorted(w for w, n in count.items() if n >= least), sorted(tags))

    def encode(self, example: Example) -> Encoded:
        """``tokens`` and ``tags`` (T,) int32; -1 is the tag of a question's words."""
        words = _words(example)
        if not words:
            raise ModelwrightError("no words to tag; write some")
        said = next((t.labels for t in example.turns if t.learn), None)
        known = {tag: i for i, tag in enumerate(self.tags)}  # a tag that train lacks is not learned
        tags = [-1] * len(words) if said is None else [known.get(tag, -1) for tag in said]
        tokens = [self.numbers.get(word, UNKNOWN) for word in words]
        return {"tokens": np.array(tokens, np.int32), "tags": np.array(tags, np.int32)}

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given, unknown words as such."""
        words = [("?", *self.words)[i] for i in encoded["tokens"].tolist()]
        tags = encoded["tags"].tolist()
        if max(tags) < 0:
            return Example((_given(words),))
        labels = tuple(Label(self.tags[i] if i >= 0 else "?") for i in tags)
        return Example((_given(words), Turn("assistant", labels, learn=True)))

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """``tokens`` and ``tags`` (B, T) int64, padded with -1."""
        return {name: _padded(ragged_column(columns, name)) for name in self.ragged}

    def decode(self, outputs: Tensor) -> list[Turn]:
        """Numbers of tags (B, T), -1 beyond a command's end, as turns."""
        rows = [[Label(self.tags[i]) for i in row if i >= 0] for row in outputs.tolist()]
        return [Turn("assistant", tuple(row)) for row in rows]

    def save(self) -> dict[str, bytes]:
        """``words.json``."""
        return {"words.json": json.dumps({"words": self.words, "tags": self.tags}).encode()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        return cls(**json.loads(files["words.json"]))


def _padded(column: Ragged) -> Tensor:
    lengths = column.lengths
    padded = np.full((len(column), int(lengths.max())), -1, dtype=np.int64)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = column.values
    return torch.from_numpy(padded)


class Objective:
    """Cross-entropy of every tag, in nats."""

    packs = False
    draws = False

    def __init__(self, codec: Any) -> None:
        self.codec = codec

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """``tokens`` (B, T) are the input, ``tags`` (B, T) the targets; an item is a word."""
        tensors = self.codec.tensors(columns)
        tags = tensors.pop("tags")
        return Batch(tensors, {"tags": tags}, int((tags >= 0).sum()), computed=tags.numel())

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """The likeliest tag of every word, (B, T), -1 beyond a command's end."""
        best: Tensor = model(**batch.inputs).argmax(2)
        return best.masked_fill(batch.inputs["tokens"] < 0, -1)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The cross-entropy summed over the words that have a tag."""
        logits: Tensor = model(**batch.inputs).float().flatten(0, 1)
        tags = batch.targets["tags"].flatten()
        return F.cross_entropy(logits, tags, reduction="sum", ignore_index=-1)


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of a tagger: an embedding, ``layers`` that read ``span`` words, a tag for each word."""

    family: ClassVar[str] = __name__
    inputs = reading.texts
    specimen: ClassVar[dict[str, Any]] = {"vocabulary": 11, "outputs": 3, "width": 8}
    vocabulary: PositiveInt
    outputs: PositiveInt
    width: PositiveInt = 128
    layers: PositiveInt = 2
    span: PositiveInt = 5

    def build(self) -> Tagger:
        """The module with fresh parameters."""
        return Tagger(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The codec knows the words and the tags."""
        return {"vocabulary": codec.vocabulary, "outputs": codec.outputs}

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:  # noqa: ARG002
        """FLOPs of forward and backward for one word: 6 per weight."""
        return 6.0 * self.width * (self.layers * self.span * self.width + self.outputs)


class Tagger(nn.Module):
    """Tokens (B, T), -1 beyond the end, to logits (B, T, outputs)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.width
        self.embedding = nn.Embedding(config.vocabulary, width)
        self.layers = nn.ModuleList(
            nn.Conv1d(width, width, config.span, padding="same") for _ in range(config.layers)
        )
        self.output = nn.Linear(width, config.outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """What lies beyond a command's end is zero before every layer."""
        true = (tokens >= 0)[:, None]
        x = self.embedding(tokens.clamp(min=0)).transpose(1, 2) * true
        for layer in self.layers:
            x = x + F.relu(layer(x)) * true
        logits: Tensor = self.output(x.transpose(1, 2))
        return logits
