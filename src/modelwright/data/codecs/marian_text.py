"""Text by the tokenizers of a published Marian: one for sources, one for targets, joint ids.

Each is a sentencepiece model of its own language. What it cuts a text into are looked up in one
vocabulary, in which either may lack pieces of its own: those are the unknown token, and what a
model does not know may still be a word of the vocabulary. A text may begin with the language that
is wanted, ``>>deu<<``, which is looked up whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from modelwright.data.codecs import published_text
from modelwright.data.tokenizing.alphabet import encodable
from modelwright.data.tokenizing.encoder import TextEncoder, parse_tokenizer
from modelwright.errors import CorruptError

ORIGINALS = ("source.spm", "target.spm", "vocab.json")
SIDES = ("source.json", "target.json")  # the models of the first two as the library reads them


class Codec(published_text.Codec):
    """Two sentencepiece models and their joint vocabulary.

    What is written is cut by the target's model (``tokens``), what is read by the source's
    (``source_tokens``).
    """

    def __init__(
        self, content: bytes, facts: Mapping[str, Any], files: Mapping[str, bytes]
    ) -> None:
        """Tokenizers of two languages.

        Args:
            content: a ``tokenizer.json`` that knows the joint vocabulary: it decodes.
            facts: as of ``published_text.Codec``.
            files: ``ORIGINALS`` as they were published, and ``SIDES``.

        Raises:
            ModelwrightError: as of ``published_text.Codec``.
        """
        super().__init__(content, facts)
        self.files = {name: files[name] for name in (*ORIGINALS, *SIDES)}
        self._ids: dict[str, int] = json.loads(files["vocab.json"])
        self._unknown = self._ids[str(self.names["unk_token"])]
        self._sides = {n: TextEncoder(parse_tokenizer(files[n], n)).tokenizer for n in SIDES}

    @property
    def originals(self) -> dict[str, bytes]:
        """The tokenizer's files as they were published."""
        return {name: self.files[name] for name in ORIGINALS}

    def settings(self, context: int | None) -> dict[str, dict[str, Any]]:
        """The JSON files that were published beside them: name -> content."""
        found = dict(super().settings(context))
        config = found.get("tokenizer_config.json", {})
        found["tokenizer_config.json"] = {**config, "tokenizer_class": "MarianTokenizer"}
        return found

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text that is written; special tokens that are typed in it are text."""
        return self._cut(text, "target.json")

    def source_tokens(self, text: str) -> list[int]:
        """Token ids of a text that is read."""
        return self._cut(text, "source.json")

    def _cut(self, text: str, side: str) -> list[int]:
        text, pieces = encodable(text), []
        if text.startswith(">>") and (end := text.find("<<")) != -1:
            pieces.append(text[: end + 2])
            text = text[end + 2 :]
        pieces += self._sides[side].encode(text, add_special_tokens=False).tokens
        ids = (self._ids.get(piece, self._unknown) for piece in pieces)
        return [self._unknown if i in self.special else i for i in ids]

    def save(self) -> dict[str, bytes]:
        """What ``published_text.Codec`` saves, and the files of both sides."""
        return {**super().save(), **self.files}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        if missing := [n for n in (*ORIGINALS, *SIDES) if n not in files]:
            raise CorruptError(f"codec: {missing[0]} of Marian's tokenizers is missing")
        return cls(files["tokenizer.json"], json.loads(files[published_text.FACTS]), files)
