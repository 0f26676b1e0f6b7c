"""Encoders: text to token ids by any ``tokenizer.json`` or sentencepiece ``.model``.

A tokenizer is data: JSON, or the protobuf message that sentencepiece reads itself; neither can
run code. Special tokens that are typed in a text are text, never control.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer

from modelwright.data.tokenizing.alphabet import END, SPECIAL, encodable
from modelwright.data.tokenizing.fast import Native, Quick, Texts, quick, ranks_of
from modelwright.errors import MachineError, ModelwrightError

Ids = NDArray[np.uint32]
Lengths = NDArray[np.int64]

_SLOW = 1 << 16  # characters that are encoded before the quick road is prepared
LARGEST = 1 << 30  # bytes of a tokenizer's file; real ones are below 50 MB


class Encoder(Protocol):
    """Text to ids.

    Attributes:
        vocabulary: ids lie in 0..vocabulary - 1.
        end: the id that ends a document, or None where the tokenizer has none.
        fingerprint: 16 bytes that are equal for equal tokenizers, however they are written.
        name: the file in which ``content`` is kept.
    """

    vocabulary: int
    end: int | None
    name: str

    @property
    def fingerprint(self) -> bytes:
        """See above."""
        ...

    def encode(self, text: str) -> Ids:
        """Ids (T,) of a text, without any special token."""
        ...

    def encode_many(self, texts: Texts) -> tuple[Ids, Lengths]:
        """Ids (T,) of texts behind one another, each with ``end``, and how many each has.

        ``end`` must not be None.
        """
        ...

    def content(self) -> bytes:
        """The tokenizer as a file that ``load_encoder`` reads."""
        ...


class TextEncoder:
    """A tokenizer of the tokenizers library, by a quicker road where that gives the same ids.

    ``slow_because`` says why it does not, and is empty where it does or was not needed yet.
    """

    name = "tokenizer.json"

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.encode_special_tokens = True
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.tokenizer = tokenizer
        self.vocabulary = highest(tokenizer) + 1
        self.end: int | None = tokenizer.token_to_id(END)
        self.slow_because = ""
        self._fast: Quick | None = None
        self._left = _SLOW

    @cached_property
    def _document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.tokenizer.to_str())
        return found

    @cached_property
    def fingerprint(self) -> bytes:
        """BLAKE2b of the JSON in its canonical form, 16 bytes."""
        plain = json.dumps(self._document, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(plain.encode(), digest_size=16).digest()

    def encode(self, text: str) -> Ids:
        """Ids (T,) of a text; lone surrogates are read as U+FFFD."""
        text = encodable(text)
        self._left -= len(text)
        if self._left < 0 and self._fast is None and not self.slow_because:
            self.hurry()
        ids = self._fast.encode(text) if self._fast is not None else None
        if ids is None:
            found = self.tokenizer.encode(text, add_special_tokens=False).ids
            ids = np.array(found, dtype=np.uint32)
            if self._reserved is not None:
                special, unknown = self._reserved
                ids[np.isin(ids, special)] = unknown
        return ids

    @cached_property
    def _reserved(self) -> tuple[Ids, int] | None:
        """Ids that no text may give, and the one for the unknown, of a unigram model.

        Special tokens are pieces of such a model like any others, so it finds those that are typed.
        """
        if type(self.tokenizer.model).__name__ != "Unigram":
            return None
        unknown = self._document["model"].get("unk_id")
        special = [t["id"] for t in self._document.get("added_tokens", ()) if t.get("special")]
        return None if unknown is None else (np.array(special, dtype=np.uint32), int(unknown))

    def encode_many(self, texts: Texts) -> tuple[Ids, Lengths]:
        """Ids (T,) of texts behind one another, each with ``end``, and how many each has."""
        if self._fast is None and not self.slow_because:
            self.hurry()
        if isinstance(self._fast, Native) and self.end is not None:
            return self._fast.encode_many(texts, self.end)
        return one_by_one(self, texts)

    def hurry(self) -> bool:
        """Prepare the quick road at once; whether there is one (else see ``slow_because``)."""
        found = ranks_of(self._document)
        if isinstance(found, str):
            self.slow_because = found
            return False
        try:
            self._fast = quick(found)
        except ImportError:
            self.slow_because = "no compiler, no tiktoken: pip install 'modelwright[data]'"
        return self._fast is not None

    def content(self) -> bytes:
        """``tokenizer.json`` in the format of the tokenizers library."""
        text: str = self.tokenizer.to_str()
        return text.encode()


class PieceEncoder:
    """A sentencepiece model; its own <eos> ends a document."""

    name = "tokenizer.model"

    def __init__(self, content: bytes, where: str) -> None:
        try:
            from sentencepiece import SentencePieceProcessor  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise MachineError(
                f"{where}: a sentencepiece model needs sentencepiece, which is not installed: "
                "pip install 'modelwright[data]'"
            ) from error
        try:
            self._pieces = SentencePieceProcessor(model_proto=content)
        except RuntimeError as error:
            raise ModelwrightError(
                f"{where}: no sentencepiece model ({str(error)[:100]}); get the file again"
            ) from error
        self._content = content
        self.vocabulary: int = self._pieces.vocab_size()
        end = self._pieces.eos_id()
        self.end: int | None = None if end < 0 else end
        self.fingerprint = hashlib.blake2b(content, digest_size=16).digest()

    def encode(self, text: str) -> Ids:
        """Ids (T,) of a text; lone surrogates are read as U+FFFD."""
        return np.array(self._pieces.encode(encodable(text), out_type=int), dtype=np.uint32)

    def encode_many(self, texts: Texts) -> tuple[Ids, Lengths]:
        """Ids (T,) of texts behind one another, each with ``end``, and how many each has."""
        return one_by_one(self, texts)

    def content(self) -> bytes:
        """The model's protobuf message, as it was read."""
        return self._content


def one_by_one(encoder: Encoder, texts: Texts) -> tuple[Ids, Lengths]:
    """``Encoder.encode_many`` by ``encode``.

    Raises:
        ModelwrightError: the tokenizer has no token that ends a text.
    """
    if encoder.end is None:
        raise ModelwrightError("the tokenizer has no token that ends a text; give another")
    end, found = np.array([encoder.end], dtype=np.uint32), [np.zeros(0, dtype=np.uint32)]
    for text in texts:
        found += encoder.encode(text.decode()), end
    sizes = np.array([len(one) for one in found[1:]], dtype=np.int64)
    return np.concatenate(found), sizes.reshape(-1, 2).sum(axis=1)


def load_encoder(path: Path) -> TextEncoder | PieceEncoder:
    """The tokenizer in a ``tokenizer.json`` or a sentencepiece ``.model``.

    Raises:
        ModelwrightError: no such file, or not what its name says.
        MachineError: sentencepiece is needed and not installed.
    """
    content = _read(path)
    if path.suffix == ".model":
        return PieceEncoder(content, str(path))
    return TextEncoder(parse_tokenizer(content, str(path)))


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST:
            raise ModelwrightError(f"{path}: over {LARGEST >> 30} GiB; this is no tokenizer")
        return path.read_bytes()
    except OSError as error:
        raise ModelwrightError(
            f"{path}: cannot be read ({error.strerror}); name a tokenizer.json or a .model file"
        ) from error


def parse_tokenizer(content: bytes, where: str) -> Tokenizer:
    """The tokenizer of a ``tokenizer.json``'s content."""
    try:
        return Tokenizer.from_str(content.decode())
    except Exception as error:  # the library raises plain Exception
        raise ModelwrightError(
            f"{where}: no tokenizer of the tokenizers library ({str(error)[:100]}); "
            "give its tokenizer.json"
        ) from error


def highest(tokenizer: Tokenizer) -> int:
    """The highest id; where numbers are left out, more than the count of tokens."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)


def with_layout(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with the special tokens of our layout, those that it lacks at the end."""
    missing = [t for t in SPECIAL if tokenizer.token_to_id(t) is None]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in missing])
    return tokenizer


@contextmanager
def one_thread() -> Iterator[None]:
    """The tokenizers library on one thread: workers are many, and sums keep their order."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def bytes_per_token(
    encoder: Encoder, texts: Sequence[tuple[str, str]]
) -> dict[str, dict[str, Any]]:
    """How well a tokenizer fits each language.

    Args:
        encoder: the tokenizer.
        texts: (language, text) pairs.

    Returns:
        language -> ``bytes`` of UTF-8, ``tokens``, and ``bytes_per_token`` (None without tokens).
    """
    found: dict[str, dict[str, Any]] = {}
    for language, text in texts:
        of = found.setdefault(language, {"bytes": 0, "tokens": 0})
        of["bytes"] += len(encodable(text).encode())
        of["tokens"] += len(encoder.encode(text))
    for of in found.values():
        of["bytes_per_token"] = of["bytes"] / of["tokens"] if of["tokens"] else None
    return dict(sorted(found.items()))
