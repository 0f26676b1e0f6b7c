"""Pairs of texts: a source that is given and a target that is to be written, of one tokenizer.

A source is framed as an encoder reads it, its tokens and the end; a target begins with the token
that starts a decoder and ends with the end. Batches are packed: sources stand one after another
and so do targets, and nothing is padded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from modelwright.data.codecs import marian_text, published_text, text
from modelwright.errors import ModelwrightError
from modelwright.types import Columns, Encoded, Example, Shortened, Turn, ragged_column, text_turn

READ = ("user", "document")  # roles of what is given; each is read by itself


class Codec:
    """A tokenizer, the tokens between which a target stands, and how much of a text is read.

    ``opening`` is what a decoder reads before it writes: the start token, and what the tokenizer
    puts before every text.
    """

    ragged: tuple[str, ...] = ("tokens", "source")

    def __init__(
        self,
        text_codec: text.Codec | published_text.Codec,
        *,
        longest: int,
        start: int,
        padding: int,
        prefix: str = "",
    ) -> None:
        if longest < 2:
            raise ModelwrightError(
                f"codec.longest: {longest} leaves no room for a token and the end; raise it"
            )
        self.text, self.longest, self.prefix = text_codec, longest, prefix
        self.vocabulary = text_codec.vocabulary
        self.start, self.end, self.padding = start, text_codec.end, padding
        self.opening: list[int] = [start]
        self.special = text_codec.special  # what ends an answer
        if isinstance(text_codec, published_text.Codec):
            self.opening += text_codec.before
            self.special = frozenset(text_codec.facts["ends"])  # its other ones end nothing
        # Sentencepiece puts a space before the first word, which is none of the text's.
        self.spaced = self.spell(text_codec.tokens("a")[:1])[:1] == b" "

    @classmethod
    def fit(
        cls,
        examples: Iterable[Example],
        *,
        vocabulary: int = 8192,
        longest: int = 256,
        prefix: str = "",
        tokenizer: str | None = None,
        split: str = "own",
    ) -> Codec:
        """Train one tokenizer on sources and targets of the train split, or take that of a file.

        Args:
            examples: each with a text that is given and one to be learned.
            vocabulary: how many tokens there shall be, for both sides together.
            longest: how many tokens are read of a source, and learned of a target, its end
                included.
            prefix: put before every source, as some models are used to.
            tokenizer: the path of a byte-level ``tokenizer.json`` to use instead.
            split: where text is cut into words: "own" knows the words of ASCII letters; "gpt2",
                "llama3" and "qwen2" those of every alphabet.
        """
        inner = text.Codec.fit(examples, vocabulary=vocabulary, tokenizer=tokenizer, split=split)
        return cls(inner, longest=longest, start=inner.end, padding=inner.end, prefix=prefix)

    @classmethod
    def around(
        cls,
        text_codec: published_text.Codec,
        *,
        start: int,
        padding: int,
        longest: int = 256,
        prefix: str = "",
    ) -> Codec:
        """The same with a published tokenizer and the tokens that its model starts from."""
        return cls(text_codec, longest=longest, start=start, padding=padding, prefix=prefix)

    def encode(self, example: Example) -> Encoded:
        """``tokens`` (T,), the start token and the target; ``source`` (S,); S, T - 1 <= longest.

        A question, an example without a turn to learn, has the opening alone as tokens.

        Raises:
            ModelwrightError: nothing is given, or several turns are to be learned.
        """
        learned = [turn for turn in example.turns if turn.learn]
        if len(learned) > 1:
            raise ModelwrightError(
                f"codec text_pairs: an example has {len(learned)} turns to learn, one is meant"
            )
        given = self.text.source_tokens(self.prefix + self.given_text(example.turns))
        source, cut = self._framed(given)
        target = self.opening
        if learned:
            written, also = self._framed(self.text.tokens(learned[0].text))
            target, cut = [self.start, *written], cut or also
        small = np.uint16 if self.vocabulary <= 1 << 16 else np.uint32
        both = {"tokens": np.array(target, dtype=small), "source": np.array(source, dtype=small)}
        return Shortened.where(cut, both)

    def given_text(self, turns: Sequence[Turn]) -> str:
        """What is read of the turns that are given: the text of the last one.

        Raises:
            ModelwrightError: nothing is given.
        """
        given = [turn for turn in turns if not turn.learn and turn.role in READ]
        if not given:
            raise ModelwrightError("codec text_pairs: no text is given to be read; give a source")
        return given[-1].text

    def _framed(self, whole: list[int]) -> tuple[list[int], bool]:
        """A text's tokens with what stands around it, and whether its end was left out."""
        framed = self.text.framed(whole, self.longest)
        kept = len(framed) - len(self.text.framed([], self.longest))
        return framed, kept < len(whole)

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given, as far as its texts were read."""
        source = self.text.text(encoded["source"].tolist()).removeprefix(self.prefix)
        turns = [text_turn("user", source)]
        tokens = encoded["tokens"].tolist()
        if len(tokens) > len(self.opening):
            turns.append(text_turn("assistant", self.text.text(tokens), learn=True))
        return Example(tuple(turns))

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """All targets (N,) and sources (M,) one after another, and their bounds (B + 1,): int64."""
        found = {}
        for name, bounds, ours in (
            ("tokens", "starts", "tokens"),
            ("sources", "source_starts", "source"),
        ):
            column = ragged_column(columns, ours)
            found[name] = torch.from_numpy(np.asarray(column.values).astype(np.int64))
            found[bounds] = torch.from_numpy(np.array(column.offsets, dtype=np.int64))
        return found

    # For what writes answers; see ``serving.batch.Speller`` --------------------------------------

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """The source that the last given turn is, whole: every message stands for itself."""
        words = self.text.source_tokens(self.prefix + self.given_text(turns))
        return self.text.framed(words, len(words) + self.longest)

    def tokens(self, words: str) -> list[int]:
        """Token ids of a text."""
        return self.text.tokens(words)

    def spell(self, tokens: Iterable[int]) -> bytes:
        """The bytes that tokens spell; special tokens spell nothing."""
        return self.text.spell(tokens)

    # Files ---------------------------------------------------------------------------------------

    def save(self) -> dict[str, bytes]:
        """The tokenizer's files and ``text_pairs.json``."""
        facts = {
            "longest": self.longest,
            "start": self.start,
            "padding": self.padding,
            "prefix": self.prefix,
        }
        return {**self.text.save(), "text_pairs.json": json.dumps(facts).encode()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        facts = json.loads(files["text_pairs.json"])
        if marian_text.ORIGINALS[0] in files:
            return cls(marian_text.Codec.load(files), **facts)
        kind = published_text if published_text.FACTS in files else text
        return cls(kind.Codec.load(files), **facts)
