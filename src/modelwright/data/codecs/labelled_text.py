"""Labelled text: the tokens of one text, and one label.

A text is its byte-level BPE tokens and <|end|>, so none is empty. Batches are packed: texts of
different lengths stand one after another, and nothing is padded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from modelwright.data import labels as label_sets
from modelwright.data.codecs import published_text, text
from modelwright.errors import ModelwrightError
from modelwright.types import Columns, Encoded, Example, Text, ragged_column


class Codec(label_sets.Labelled):
    """A trained tokenizer, the label set, and how much of a text is read.

    ``truncated`` counts the texts of which ``encode`` has left out the end.
    """

    ragged = ("tokens",)
    packs = True  # what ``tensors`` gives holds no padding

    def __init__(
        self, text_codec: text.Codec | published_text.Codec, labels: list[str], *, longest: int
    ) -> None:
        self.text, self.labels, self.longest = text_codec, labels, longest
        self.vocabulary = text_codec.vocabulary
        self.truncated = 0

    @classmethod
    def fit(
        cls, examples: Iterable[Example], *, vocabulary: int = 8192, longest: int = 512
    ) -> Codec:
        """Learn tokens and labels from the ``examples`` of the train split.

        Args:
            examples: each with one Text part to read and a Label to learn.
            vocabulary: how many tokens there shall be.
            longest: how many tokens of a text are read, its end included.
        """
        if longest < 2:
            raise ModelwrightError(
                f"codec.longest: {longest} leaves no room for a token and the end; raise it"
            )
        names: set[str] = set()

        def seen() -> Iterator[Example]:
            for example in examples:
                _text(example)
                names.update(n for n in [label_sets.label_of(example)] if n is not None)
                yield example

        tokenizer = text.Codec.fit(seen(), vocabulary=vocabulary)
        return cls(tokenizer, label_sets.label_set(names), longest=longest)

    @classmethod
    def around(
        cls, text_codec: published_text.Codec, examples: Iterable[Example], *, longest: int = 512
    ) -> Codec:
        """The labels of the ``examples`` of the train split, with a published tokenizer."""
        names = {n for e in examples for n in [label_sets.label_of(e)] if n is not None}
        return cls(text_codec, label_sets.label_set(names), longest=longest)

    def encode(self, example: Example) -> Encoded:
        """``tokens`` (T,), 1 <= T <= ``longest``, the last one <|end|>; ``label`` (), int64.

        A question, an example without a turn to learn, has the label -1.

        Raises:
            ModelwrightError: not exactly one text, or an unknown label.
        """
        found = self.text.tokens(_text(example))
        self.truncated += len(found) >= self.longest
        tokens = self.text.framed(found, self.longest)
        small = np.uint16 if self.vocabulary <= 1 << 16 else np.uint32
        number = np.array(label_sets.label_number(example, self.labels), dtype=np.int64)
        return {"tokens": np.array(tokens, dtype=small), "label": number}

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given, as far as its text was read."""
        read = Text(self.text.text(encoded["tokens"].tolist()))
        return label_sets.turns(read, int(encoded["label"]), self.labels)

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """``tokens`` (N,) of all texts, their ``starts`` (B + 1,), and ``label`` (B,): int64."""
        tokens = ragged_column(columns, "tokens")
        return {
            "tokens": torch.from_numpy(np.asarray(tokens.values).astype(np.int64)),
            "starts": torch.from_numpy(np.array(tokens.offsets, dtype=np.int64)),
            "label": torch.from_numpy(np.array(columns["label"], dtype=np.int64)),
        }

    def save(self) -> dict[str, bytes]:
        """``tokenizer.json`` and ``labelled_text.json``."""
        facts = {"labels": self.labels, "longest": self.longest}
        return {**self.text.save(), "labelled_text.json": json.dumps(facts).encode()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        facts = json.loads(files["labelled_text.json"])
        kind = published_text if published_text.FACTS in files else text
        return cls(kind.Codec.load(files), facts["labels"], longest=facts["longest"])


def _text(example: Example) -> str:
    """The text of the only Text part."""
    found = [p.text for t in example.turns for p in t.parts if isinstance(p, Text)]
    if len(found) != 1:
        raise ModelwrightError(
            f"codec labelled_text: an example has {len(found)} texts, exactly one is meant"
        )
    return found[0]
