"""Text: byte-level BPE tokens with a chat layout, any bytes in, the same bytes out.

Layout of tokens: a document is its text and <|end|>; a conversation is, turn by turn,
<|role|> text, and <|end|> after every assistant turn. The end of a learned turn is learned.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from modelwright.data.tokenizing.alphabet import END, ROLES, byte_characters
from modelwright.data.tokenizing.encoder import TextEncoder, highest, load_encoder, with_layout
from modelwright.data.tokenizing.train import SMALLEST, train_tokenizer
from modelwright.errors import ModelwrightError
from modelwright.types import Array, Columns, Encoded, Example, Ragged, Turn, text_turn

_PROBES = (
    "Two  words,\n\tand 12345 '\u00e9\u4e2d\u6587' \U0001f642.",
    "a",
    "x <|end|> y",
    "\n\n x",
)
# The chat layout as a template of the hub's, for those who read an export.
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}"
    f"{{% if message.role == 'assistant' %}}{END}{{% endif %}}{{% endfor %}}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class Codec:
    """A trained byte-level BPE (arXiv:1508.07909) and the chat layout around it."""

    ragged = ("tokens", "learn", "rejected", "rejected_learn")
    before: tuple[int, ...] = ()  # what stands before and after every text beside its end
    after: tuple[int, ...] = ()
    template: str | None = TEMPLATE
    names: Mapping[str, str] = {"eos_token": END, "pad_token": END}

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.encoder = TextEncoder(tokenizer)  # "<|end|>" typed by a user is text, not control
        self.tokenizer = tokenizer
        self.vocabulary: int = highest(tokenizer) + 1
        self.end = self._number(END)
        self.ends = [self.end]
        self.role = {r: self._number(f"<|{r}|>") for r in ROLES}
        self.special: frozenset[int] = frozenset({self.end, *self.role.values()})
        self._spelling = self._spellings()
        self.token_bytes = np.array([len(s) for s in self._spelling], dtype=np.int64)

    @classmethod
    def fit(
        cls,
        examples: Iterable[Example],
        *,
        vocabulary: int = 4096,
        tokenizer: str | None = None,
        split: str = "own",
    ) -> Codec:
        """Train the merges on the text of ``examples``, or take those of a file.

        Args:
            examples: of the train split.
            vocabulary: how many tokens there shall be.
            tokenizer: the path of a byte-level ``tokenizer.json`` to use instead of training one;
                the tokens of the chat layout that it lacks are added.
            split: where text is cut into words, "own", or as a published tokenizer has it: "gpt2",
                "llama3" or "qwen2", which other programs can repeat (an export to GGUF needs it).
        """
        if tokenizer:
            return cls.of_file(Path(tokenizer))
        if vocabulary < SMALLEST:
            raise ModelwrightError(
                f"codec.vocabulary: {vocabulary} is below {SMALLEST}, "
                "the 256 bytes and the special tokens; raise it"
            )
        texts = (turn.text for example in examples for turn in example.turns)
        return cls(train_tokenizer(texts, vocabulary=vocabulary, split=split))

    @classmethod
    def of_file(cls, path: Path) -> Codec:
        """The codec of a byte-level ``tokenizer.json`` with the chat layout.

        Raises:
            ModelwrightError: it is none, or does not give every text back.
        """
        encoder = load_encoder(path)
        if not isinstance(encoder, TextEncoder):
            raise ModelwrightError(
                f"{path}: a sentencepiece model cannot be trained on here; "
                "give a byte-level tokenizer.json"
            )
        codec = cls(with_layout(encoder.tokenizer))
        for probe in _PROBES:
            if codec.text(codec.tokens(probe)) != probe:
                raise ModelwrightError(
                    f"{path}: does not give the text {probe!r} back, so it is no byte-level "
                    "tokenizer; give another, or leave codec.tokenizer out to train one"
                )
        return codec

    def settings(self, context: int | None) -> dict[str, dict[str, Any]]:
        """What ``transformers`` reads beside ``tokenizer.json``: name of a file -> content."""
        found: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **self.names,
            "clean_up_tokenization_spaces": False,
            "chat_template": self.template,
        }
        return {"tokenizer_config.json": found | ({"model_max_length": context} if context else {})}

    def _number(self, special: str) -> int:
        number: int | None = self.tokenizer.token_to_id(special)
        if number is None:
            raise ModelwrightError(f"tokenizer: no token {special!r}; train it with modelwright")
        return number

    def _spellings(self) -> list[bytes]:
        """The bytes of every token; special tokens spell nothing."""
        byte_of = {char: byte for byte, char in byte_characters().items()}
        control = {i for i, t in self.tokenizer.get_added_tokens_decoder().items() if t.special}
        spelling = []
        for i in range(self.vocabulary):
            token = "" if i in control else self.tokenizer.id_to_token(i) or ""
            if not byte_of.keys() >= set(token):
                raise ModelwrightError(
                    f"tokenizer: the token {token!r} is not made of bytes; give a byte-level one"
                )
            spelling.append(bytes(byte_of[c] for c in token))
        return spelling

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text."""
        ids: list[int] = self.encoder.encode(text).tolist()
        return ids

    def source_tokens(self, text: str) -> list[int]:
        """Token ids of a text that is read and answered: the same."""
        return self.tokens(text)

    @property
    def originals(self) -> dict[str, bytes]:
        """The tokenizer's own files."""
        return {"tokenizer.json": self.save()["tokenizer.json"]}

    def spell(self, tokens: Iterable[int]) -> bytes:
        """The bytes that tokens spell; special tokens spell nothing."""
        return b"".join(self._spelling[t] for t in tokens)

    def text(self, tokens: Iterable[int]) -> str:
        """The text of tokens; bytes that are not UTF-8 become U+FFFD."""
        return self.spell(tokens).decode("utf-8", errors="replace")

    def layout(self, turns: Sequence[Turn]) -> tuple[list[int], list[bool]]:
        """Tokens of some turns and which of them are learned."""
        tokens: list[int] = []
        learn: list[bool] = []
        for turn in turns:
            body = self.tokens(turn.text)
            if turn.role == "document":
                body = [*body, self.end]
            elif turn.role in self.role:
                tokens.append(self.role[turn.role])
                learn.append(False)
                if turn.role == "assistant":
                    body = [*body, self.end]
            else:
                raise ModelwrightError(
                    f"turn: role {turn.role!r} is not document, {', '.join(ROLES)}"
                )
            tokens += body
            learn += [turn.learn] * len(body)
        return tokens, learn

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """Tokens after which the assistant's answer (or a document's continuation) follows."""
        if turns and turns[-1].role == "document":
            return self.layout(turns)[0][:-1]  # the document goes on: no <|end|> yet
        return [*self.layout(turns)[0], self.role["assistant"]]

    def encode(self, example: Example) -> Encoded:
        """``tokens`` (T,) and ``learn`` (T,), bool.

        Of an example that compares two answers also ``rejected`` (R,) and ``rejected_learn`` (R,):
        the same turns with the other answer.
        """
        return laid_out(self, example)

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given (its score and joined parts aside)."""
        turns = self._turns(encoded["tokens"], encoded["learn"])
        if "rejected" not in encoded:
            return Example(turns)
        (other,) = self._turns(encoded["rejected"], encoded["rejected_learn"])[-1:]
        return Example(turns, other if other.learn else text_turn("assistant", ""))

    def _turns(self, tokens: Array, marks: Array) -> tuple[Turn, ...]:
        """The turns that tokens spell, by their layout."""
        starts = {token: role for role, token in self.role.items()}
        turns: list[Turn] = []
        role, body, learned = "document", list[int](), False
        for token, learn in zip(tokens.tolist(), marks.tolist(), strict=True):
            if token in starts:
                if body or role != "document":
                    turns.append(text_turn(role, self.text(body), learn=learned))
                role, body, learned = starts[token], [], False
            elif token == self.end:
                learned = learned or learn
            else:
                body.append(token)
                learned = learned or learn
        turns.append(text_turn(role, self.text(body), learn=learned))
        return tuple(turns)

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """Rows padded on the right with <|end|>, which is not learned there: (B, T) each."""
        return padded(columns, self.end)

    def framed(self, tokens: Sequence[int], longest: int) -> list[int]:
        """A text cut to ``longest`` tokens, its end included."""
        return [*tokens[: longest - 1], self.end]

    def save(self) -> dict[str, bytes]:
        """``tokenizer.json`` in the format of the tokenizers library."""
        return {"tokenizer.json": self.tokenizer.to_str().encode()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        document = json.loads(files["tokenizer.json"])
        return cls(Tokenizer.from_str(json.dumps(document)))


class Layout(Protocol):
    """A codec that lays turns out as tokens."""

    vocabulary: int

    def layout(self, turns: Sequence[Turn]) -> tuple[list[int], list[bool]]:
        """Tokens of some turns and which of them are learned."""
        ...


def laid_out(codec: Layout, example: Example) -> dict[str, Array]:
    """The fields of an example that are tokens; see ``Codec.encode``."""
    small = np.uint16 if codec.vocabulary <= 1 << 16 else np.uint32

    def fields(turns: Sequence[Turn], tokens: str, learn: str) -> dict[str, Array]:
        ids, marks = codec.layout(turns)
        return {tokens: np.array(ids, dtype=small), learn: np.array(marks, dtype=np.bool_)}

    found = fields(example.turns, "tokens", "learn")
    if (other := example.rejected) is not None:
        turns = (*example.given, other) if other.learn else example.given
        found |= fields(turns, "rejected", "rejected_learn")
    return found


def padded(columns: Columns, end: int) -> dict[str, Tensor]:
    """``tokens`` and ``learn`` (B, T), int64 and bool, padded with ``end``, not learned there."""
    tokens, learn = columns["tokens"], columns["learn"]
    if not isinstance(tokens, Ragged) or not isinstance(learn, Ragged):  # windows: one length
        return {
            "tokens": torch.from_numpy(np.asarray(tokens, dtype=np.int64)),
            "learn": torch.from_numpy(np.asarray(learn, dtype=np.bool_)),
        }
    shape = (len(tokens), int(tokens.lengths.max()))
    inside = np.arange(shape[1]) < tokens.lengths[:, None]
    filled = np.full(shape, end, dtype=np.int64)
    filled[inside] = tokens.values
    learned = np.zeros(shape, dtype=np.bool_)
    learned[inside] = learn.values
    return {"tokens": torch.from_numpy(filled), "learn": torch.from_numpy(learned)}
