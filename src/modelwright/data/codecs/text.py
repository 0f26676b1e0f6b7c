"""Text: byte-level BPE tokens with a chat layout, any bytes in, the same bytes out.

Layout of tokens: a document is its text and <|end|>; a conversation is, turn by turn,
<|role|> text, and <|end|> after every assistant turn. The end of a learned turn is learned.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from modelwright.errors import ModelwrightError
from modelwright.types import Columns, Encoded, Example, Ragged, Turn, text_turn

END = "<|end|>"
ROLES = ("system", "user", "assistant")
SPECIAL = (END, *(f"<|{role}|>" for role in ROLES))

# Words with their leading space, numbers of at most three digits, punctuation runs, and white
# space kept in runs so that indentation is one token.
_SPLIT = r" ?[A-Za-z]+|\p{N}{1,3}| ?[^\s\p{N}A-Za-z]+\n*|\s*\n|\s+(?!\S)|\s+"

_SURROGATES = re.compile("[\ud800-\udfff]")


class Codec:
    """A trained byte-level BPE (arXiv:1508.07909) and the chat layout around it."""

    ragged = ("tokens", "learn")

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        tokenizer.encode_special_tokens = True  # "<|end|>" typed by a user is text, not control
        self.vocabulary: int = tokenizer.get_vocab_size()
        self.end = self._number(END)
        self.role = {r: self._number(f"<|{r}|>") for r in ROLES}
        self.special: frozenset[int] = frozenset({self.end, *self.role.values()})
        self._spelling = self._spellings()
        self.token_bytes = np.array([len(s) for s in self._spelling], dtype=np.int64)

    @classmethod
    def fit(cls, examples: Iterable[Example], *, vocabulary: int = 4096) -> Codec:
        """Train the merges on the text of ``examples`` until ``vocabulary`` tokens exist."""
        smallest = 256 + len(SPECIAL)
        if vocabulary < smallest:
            raise ModelwrightError(
                f"codec.vocabulary: {vocabulary} is below {smallest}, "
                "the 256 bytes and the special tokens; raise it"
            )
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        texts = (_encodable(turn.text) for example in examples for turn in example.turns)
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    def _number(self, special: str) -> int:
        number: int | None = self.tokenizer.token_to_id(special)
        if number is None:
            raise ModelwrightError(f"tokenizer: no token {special!r}; train it with modelwright")
        return number

    def _spellings(self) -> list[bytes]:
        """The bytes of every token; special tokens spell nothing."""
        byte_of = {char: byte for byte, char in _byte_characters().items()}
        spelling = []
        for i in range(self.vocabulary):
            token = self.tokenizer.id_to_token(i) or ""
            known = i not in self.special
            spelling.append(bytes(byte_of[c] for c in token) if known else b"")
        return spelling

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text."""
        ids: list[int] = self.tokenizer.encode(_encodable(text), add_special_tokens=False).ids
        return ids

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
        """``tokens`` (T,) and ``learn`` (T,), bool."""
        tokens, learn = self.layout(example.turns)
        small = np.uint16 if self.vocabulary <= 1 << 16 else np.uint32
        return {"tokens": np.array(tokens, dtype=small), "learn": np.array(learn, dtype=np.bool_)}

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given (its score and joined parts aside)."""
        starts = {token: role for role, token in self.role.items()}
        turns: list[Turn] = []
        role, body, learned = "document", list[int](), False
        for token, learn in zip(encoded["tokens"].tolist(), encoded["learn"].tolist(), strict=True):
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
        return Example(tuple(turns))

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """Rows padded on the right with <|end|>, which is not learned there: (B, T) each."""
        tokens, learn = columns["tokens"], columns["learn"]
        if not isinstance(tokens, Ragged) or not isinstance(learn, Ragged):  # windows: one length
            return {
                "tokens": torch.from_numpy(np.asarray(tokens, dtype=np.int64)),
                "learn": torch.from_numpy(np.asarray(learn, dtype=np.bool_)),
            }
        shape = (len(tokens), int(tokens.lengths.max()))
        inside = np.arange(shape[1]) < tokens.lengths[:, None]
        padded = np.full(shape, self.end, dtype=np.int64)
        padded[inside] = tokens.values
        learned = np.zeros(shape, dtype=np.bool_)
        learned[inside] = learn.values
        return {"tokens": torch.from_numpy(padded), "learn": torch.from_numpy(learned)}

    def save(self) -> dict[str, bytes]:
        """``tokenizer.json`` in the format of the tokenizers library."""
        return {"tokenizer.json": self.tokenizer.to_str().encode()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        document = json.loads(files["tokenizer.json"])
        return cls(Tokenizer.from_str(json.dumps(document)))


def _encodable(text: str) -> str:
    """The text with U+FFFD for lone surrogates, which no UTF-8 can spell; JSON may hold them."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def _byte_characters() -> dict[int, str]:
    """The printable character that stands for each byte in byte-level BPE files.

    Printable Latin-1 bytes stand for themselves; the others take 256, 257, ... in order. This
    is the alphabet of the published GPT-2 vocabulary, which the tokenizers library writes.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in set(printable)]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(rest)}}
