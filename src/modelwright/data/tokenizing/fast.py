"""Byte-level BPE by our kernel, else by tiktoken, where the ids are provably the same.

The kernel (``kernels/bpe.cpp``) does what the tokenizers library does, the merges in their order.
Where it cannot be compiled there is tiktoken, which is slower but still several times as fast.
It joins any two neighbours that together spell a token, the one of lowest rank first; the
tokenizers library joins only the pairs in its list of merges. The results are equal for every
text if (a) every merge joins bytes or tokens of earlier merges, (b) no token is made by two
merges, and (c) every token, encoded alone, gives itself. Proof: let both have agreed so far, and
let tiktoken now join x and y to t, which was made by the merge (u, v). No merge has crossed the
bounds of t in this text, so what lies between them went as in t encoded alone. By (a) merges
happen in the order of their ranks, so when the turn of t came, (u, v) stood there by (c); hence
x = u and y = v, and the other library joins the same two. All three are checked when a tokenizer
is loaded. The splitting into words must agree too: only patterns known to cover every text and
to mean the same to both engines are taken, and the character classes in them are compared on
every character that is met.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, models, normalizers, pre_tokenizers

from modelwright.data.tokenizing.alphabet import SPLIT, byte_characters
from modelwright.kernels import bpe

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}NUMBER"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT4 = _GPT4.replace("NUMBER", "{1,3}")
QWEN2 = _GPT4.replace("NUMBER", "")
PATTERNS = (SPLIT, GPT2, GPT4, QWEN2)  # as the kernel counts them

_ATOMS = (r"\p{L}", r"\p{N}", r"\s", r"(?i:[strevmld])")  # what the patterns are made of
_BLOCK = 256  # code points that are compared together
_BLANK = 20_000  # white space in one run beyond which tiktoken's regex engine gives up
_BLANKS = re.compile(rf"\s{{{_BLANK}}}")


@dataclass(frozen=True)
class Texts:
    """Texts behind one another in memory, as Arrow has them.

    Attributes:
        data: (bytes,), where they lie; each is valid UTF-8.
        begins: (texts,), where each begins, ascending.
        ends: (texts,), where each ends.
    """

    data: NDArray[np.uint8]
    begins: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __iter__(self) -> Iterator[bytes]:
        """Every text as UTF-8."""
        for begin, end in zip(self.begins.tolist(), self.ends.tolist(), strict=True):
            yield self.data[begin:end].tobytes()

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each, (texts,)."""
        return self.ends - self.begins

    @staticmethod
    def of(texts: Iterable[bytes]) -> Texts:
        """The texts, put behind one another."""
        held = list(texts)
        bounds = np.cumsum([0, *map(len, held)], dtype=np.int64)
        return Texts(np.frombuffer(b"".join(held), np.uint8), bounds[:-1], bounds[1:])


@dataclass(frozen=True)
class Ranks:
    """A byte-level BPE in tiktoken's terms.

    Attributes:
        tokens: turn -> token, as the file spells it, the 256 bytes first.
        ids: turn -> token id, shape (turns,), uint32.
        merges: the two turns that each merge joins, shape (turns - 256, 2), uint32.
        pattern: the regular expression of the words.
        composed: whether text is brought to Unicode's form NFC first.
        kernel: it in the kernel, or None where that cannot be compiled.
    """

    tokens: list[str]
    ids: NDArray[np.uint32]
    merges: NDArray[np.uint32]
    pattern: str
    composed: bool
    kernel: bpe.Encoder | None

    @property
    def ranks(self) -> dict[bytes, int]:
        """Bytes of a token -> its turn."""
        byte_of = {char: byte for byte, char in byte_characters().items()}
        return {bytes(byte_of[c] for c in token): turn for turn, token in enumerate(self.tokens)}


def ranks_of(document: Mapping[str, Any]) -> Ranks | str:
    """The ranks of a ``tokenizer.json``, or why tiktoken cannot be shown to give its ids."""
    model = document["model"]
    if model.get("type") != "BPE":
        return f"the model is {model.get('type')}, not BPE"
    odd = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    if found := [name for name in odd if model.get(name)]:
        return f"the model has {found[0]}"
    if any(not token["special"] for token in document.get("added_tokens", [])):
        return "it has added tokens that are not special"
    normalizer = document.get("normalizer")
    if normalizer is not None and normalizer != {"type": "NFC"}:
        return f"it has the normalizer {normalizer.get('type')}"
    pattern = pattern_of(document.get("pre_tokenizer"))
    if pattern not in PATTERNS:
        return "its pre-tokenizer is not one of the known patterns"
    return _proved(model, document, pattern, normalizer is not None)


def pattern_of(parts: Any) -> str | None:
    """The regular expression of a byte-level pre-tokenizer as JSON has it, or None."""
    match parts:
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return GPT2 if parts.get("use_regex", True) else None
        case {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": str(pattern)},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            return pattern
    return None


def _proved(
    model: Mapping[str, Any], document: Mapping[str, Any], pattern: str, composed: bool
) -> Ranks | str:
    """Check (a), (b) and (c) of the module's proof while writing down the ranks."""
    vocabulary: dict[str, int] = model["vocab"]
    byte_of = {char: byte for byte, char in byte_characters().items()}
    if not vocabulary.keys() >= byte_of.keys():
        return "not all 256 bytes are tokens"
    order = list(byte_of)
    made = set(order)
    merges = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    for pair in merges:
        if len(pair) != 2 or pair[0] not in made or pair[1] not in made:
            return f"the merge {' '.join(pair)!r} joins what no earlier merge made"
        token = pair[0] + pair[1]
        if token in made or token not in vocabulary:
            return f"the token {token!r} is made twice or is not in the vocabulary"
        made.add(token)
        order.append(token)
    added = {token["content"] for token in document.get("added_tokens", [])}
    if model.get("ignore_merges") and vocabulary.keys() - made - added:
        return "some words are tokens that no merge makes"
    ids = np.array([vocabulary[token] for token in order], dtype=np.uint32)
    turn_of = {token: turn for turn, token in enumerate(order)}
    joined = np.array([(turn_of[a], turn_of[b]) for a, b in merges], dtype=np.uint32)
    joined = joined.reshape(-1, 2)
    if bpe.native():
        characters = byte_characters()
        turns = np.array([turn_of[characters[b]] for b in range(256)], dtype=np.uint32)
        number = PATTERNS.index(pattern)
        kernel = bpe.Encoder(joined, turns, ids, pattern=number, classes=_classes)
        odd = None if kernel.odd is None else order[kernel.odd]
    else:
        kernel, plain = None, models.BPE(vocab=vocabulary, merges=[(a, b) for a, b in merges])
        odd = next((token for token in order if len(plain.tokenize(token)) != 1), None)
    if odd is not None:
        return f"the token {odd!r} is never made from its own text"
    return Ranks(order, ids, joined, pattern, composed, kernel)


class Quick(Protocol):
    """Either of the quick roads."""

    def encode(self, text: str) -> NDArray[np.uint32] | None:
        """Ids (T,) of text without lone surrogates, or None where the other library must do it."""
        ...


def quick(ranks: Ranks) -> Quick:
    """The quickest road that this machine has.

    Raises:
        ImportError: there is no compiler, and tiktoken is not installed.
    """
    return Native(ranks) if ranks.kernel is not None else Fast(ranks)


class Native:
    """Token ids of text by the kernel."""

    def __init__(self, ranks: Ranks) -> None:
        if ranks.kernel is None:
            raise RuntimeError("Native: no kernel; ask bpe.native() first")
        self._nfc = normalizers.NFC() if ranks.composed else None
        self._kernel = ranks.kernel

    def encode(self, text: str) -> NDArray[np.uint32]:
        """Ids (T,) of text without lone surrogates."""
        if self._nfc is not None and not text.isascii():
            text = self._nfc.normalize_str(text)
        return self._kernel.encode(text.encode())

    def encode_many(self, texts: Texts, end: int) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Ids (T,) of texts behind one another, each with ``end``, and how many each has."""
        if self._nfc is not None and not _composed(texts):
            normal = (self._nfc.normalize_str(text.decode()) for text in texts)
            texts = Texts.of(text.encode() for text in normal)
        return self._kernel.encode_many(texts.data, texts.begins, texts.ends, end)


def _composed(texts: Texts) -> bool:
    """Whether all texts are surely in Unicode's form NFC, in whatever edition of it.

    What is in this form is so in its parts. Of characters that Python's edition knows, no other
    edition says anything else, or knows them not and leaves them; of others nothing is sure.
    """
    data = texts.data[texts.begins[0] : texts.ends[-1]] if len(texts.begins) else texts.data[:0]
    if not len(data) or data.max() < 128:
        return True
    whole = data.tobytes().decode()
    known = all(unicodedata.category(c) != "Cn" for c in set(whole))
    return known and unicodedata.is_normalized("NFC", whole)


@functools.cache
def _splits() -> list[pre_tokenizers.PreTokenizer]:
    """Splits that leave the characters of one of the atoms."""
    return [pre_tokenizers.Split(Regex(f"(?:{a})+"), "removed", invert=True) for a in _ATOMS]


@functools.cache
def _classes(first: int) -> NDArray[np.uint8]:
    """Letter 1, number 2, white space 4: what the library's regex engine says of 256 characters."""
    found = np.zeros(256, dtype=np.uint8)
    if 0xD800 <= first < 0xE000:
        return found
    characters = "".join(map(chr, range(first, first + 256)))
    for bit, split in zip((1, 2, 4), _splits(), strict=False):
        for piece, _ in split.pre_tokenize_str(characters):
            found[[ord(c) - first for c in piece]] |= bit
    return found


class Fast:
    """Token ids of text by tiktoken.

    Raises:
        ImportError: tiktoken is not installed.
    """

    def __init__(self, ranks: Ranks) -> None:
        import tiktoken  # noqa: PLC0415 - of an extra, and only where much text is encoded

        self._ids, self._composed = ranks.ids, ranks.composed
        self._nfc = normalizers.NFC()  # the other library's own, of its edition of Unicode
        self._encoding = tiktoken.Encoding(
            "modelwright", pat_str=ranks.pattern, mergeable_ranks=ranks.ranks, special_tokens={}
        )
        single = {bytes([b]): b for b in range(256)}
        self._classes = [
            (
                tiktoken.Encoding("class", pat_str=a, mergeable_ranks=single, special_tokens={}),
                split,
            )
            for a, split in zip(_ATOMS, _splits(), strict=True)
        ]
        self._same = {chr(c) for c in range(128)}  # both engines know ASCII alike
        self._other: set[str] = set()

    def encode(self, text: str) -> NDArray[np.uint32] | None:
        """Ids (T,) of text without lone surrogates, or None where the other library must do it."""
        if not text.isascii():
            if self._composed:
                text = self._nfc.normalize_str(text)
            if not self._same.issuperset(text):
                self._compare(set(text) - self._same - self._other)
                if not self._other.isdisjoint(text):
                    return None
        if len(text) > _BLANK and _BLANKS.search(text):
            return None
        return self._ids[self._encoding.encode_ordinary(text)]

    def _compare(self, fresh: Iterable[str]) -> None:
        """Ask both engines for the classes of characters that were not met before.

        Their whole neighbourhoods are asked for, since what is met next is often near.
        """
        blocks = {ord(c) // _BLOCK * _BLOCK for c in fresh}
        points = (point for block in sorted(blocks) for point in range(block, block + _BLOCK))
        characters = "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)
        unlike: set[str] = set()
        for theirs, split in self._classes:
            one = set(bytes(theirs.encode_ordinary(characters)).decode())
            other = {c for piece, _ in split.pre_tokenize_str(characters) for c in piece}
            unlike |= one ^ other
        self._other |= unlike
        self._same |= set(characters) - unlike
