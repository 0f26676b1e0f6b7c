"""Word n-grams of texts, their MinHash and exact hashes; see ``shingles.cpp``.

A word is a run of characters that Python calls word characters; an ideograph, a kana or a hangul
syllable is a word of its own. Case does not count. Texts are composed (NFC) first. Without a
compiler plain Python and numpy give the same numbers.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from modelwright.kernels.build import library

SHINGLE_WORDS = 5
MOST_WORDS = 64
MOST_MINIMA = 256

Hashes = NDArray[np.uint64]
Offsets = NDArray[np.int64]

_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_IDEOGRAPHS += "\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_IDEOGRAPHS}]|[^\\W{_IDEOGRAPHS}]+")
_TABLE = 0x20000  # code points in the kernel's table: the planes with letters
_SPACE, _IDEOGRAPH, _IS_WORD = 1 << 29, 1 << 30, 1 << 31
_BASE = 0x9E3779B97F4A7C15
_STEP = 0xBF58476D1CE4E5B9
_LAST = 0x94D049BB133111EB
_ALL = (1 << 64) - 1
_BLOCK = 1 << 15  # shingles hashed at a time in numpy: the block stays in the second-level cache


def composed(text: str) -> str:
    """The text in NFC; ASCII and what is composed already comes back as it is."""
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return text
    return unicodedata.normalize("NFC", text)


def native() -> bool:
    """Whether the compiled kernel is in use."""
    return _kernel() is not None


@functools.cache
def _kernel() -> ctypes.CDLL | None:
    kernel = library("shingles", ())
    if kernel is not None:
        for function in (kernel.sketch, kernel.shingle, kernel.minima, kernel.common):
            function.restype = ctypes.c_long
    return kernel


def sketch(
    texts: Sequence[str], size: int, *, words: int = SHINGLE_WORDS, seed: int = 0
) -> tuple[Hashes, NDArray[np.uint32]]:
    """The exact hash and the MinHash signature of each text, without keeping its n-grams.

    Args:
        texts: what to hash; its UTF-8 is copied once, so give a batch of some MB.
        size: hash functions, 1..256.
        words: n of the n-grams, 1..64; a shorter text is one n-gram, one without a word is its
            characters'.
        seed: of the hash functions.

    Returns:
        exact, uint64 (texts, 2): BLAKE2b-128 of the composed text with white space collapsed;
        signatures, uint32 (texts, size): two texts agree in a column with a probability equal to
        the Jaccard similarity of their sets of n-grams (Broder 1997).
    """
    _check(words, size)
    kernel = _kernel()
    if kernel is None:
        return _plain_exact(texts), minima(*_plain_sets(texts, words, whole=True), size, seed=seed)
    content, offsets = _joined(texts)
    odd, plus = _functions(size, seed)
    exact = np.empty((len(texts), 2), np.uint64)
    least = np.empty((len(texts), size), np.uint32)
    _checked(
        kernel.sketch(
            ctypes.c_char_p(content),
            _pointer(offsets),
            ctypes.c_long(len(texts)),
            _pointer(_table()),
            ctypes.c_int(words),
            _pointer(odd),
            _pointer(plus),
            ctypes.c_int(size),
            _pointer(exact),
            _pointer(least),
        )
    )
    return exact, least


def sets(
    texts: Sequence[str], words: int = SHINGLE_WORDS, *, whole: bool = True
) -> tuple[Hashes, Offsets]:
    """The distinct hashed word n-grams of each text, ascending.

    A text of fewer than ``words`` words is one n-gram, all it has, if ``whole``, else none; one
    without any word is its characters'.

    Returns:
        values, uint64, and offsets, int64 (texts + 1): text i has values[offsets[i]:offsets[i+1]].
    """
    _check(words, 1)
    kernel = _kernel()
    if kernel is None:
        return _plain_sets(texts, words, whole=whole)
    content, offsets = _joined(texts)
    values = np.empty(len(content) // 2 + len(texts) + 1, np.uint64)
    counts = np.empty(len(texts), np.int64)
    total = kernel.shingle(
        ctypes.c_char_p(content),
        _pointer(offsets),
        ctypes.c_long(len(texts)),
        _pointer(_table()),
        ctypes.c_int(words),
        ctypes.c_int(whole),
        _pointer(values),
        _pointer(counts),
    )
    return values[: _checked(total)].copy(), _starts(counts)


def minima(values: Hashes, offsets: Offsets, size: int, *, seed: int = 0) -> NDArray[np.uint32]:
    """MinHash signatures, uint32 (sets, size), of ready sets of n-grams, none of them empty."""
    odd, plus = _functions(size, seed)
    count = len(offsets) - 1
    kernel = _kernel()
    if kernel is None:
        return _plain_minima(values, offsets, odd, plus)
    result = np.empty((count, size), np.uint32)
    values = np.ascontiguousarray(values, np.uint64)
    offsets = np.ascontiguousarray(offsets, np.int64)
    _checked(
        kernel.minima(
            _pointer(values),
            _pointer(offsets),
            ctypes.c_long(count),
            _pointer(odd),
            _pointer(plus),
            ctypes.c_int(size),
            _pointer(result),
        )
    )
    return result


def common(a: Hashes, b: Hashes) -> int:
    """How many values two ascending arrays without repetition share."""
    kernel = _kernel()
    if kernel is None:
        return len(a) + len(b) - len(distinct(np.concatenate([a, b])))
    a, b = np.ascontiguousarray(a, np.uint64), np.ascontiguousarray(b, np.uint64)
    shared: int = kernel.common(
        _pointer(a), ctypes.c_long(len(a)), _pointer(b), ctypes.c_long(len(b))
    )
    return shared


def distinct(values: Hashes) -> Hashes:
    """The sorted distinct values; by sorting, for numpy's own hashing takes three times as long."""
    ordered = np.sort(values)
    if len(ordered) < 2:
        return ordered
    new = np.ones(len(ordered), dtype=bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return ordered[new]


def mix(x: Hashes) -> Hashes:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every bit depends on every bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(_STEP)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(_LAST)
    return x ^ (x >> np.uint64(31))


def band_keys(signature: NDArray[np.uint32], bands: int) -> Hashes:
    """The keys of ``bands`` bands, uint64 (texts, bands): equal where a band's minima all are.

    Band i takes the columns from i * rows to (i + 1) * rows, rows = columns // bands (Leskovec,
    Rajaraman and Ullman, Mining of Massive Datasets, section 3.4).
    """
    keys = np.tile(np.arange(bands, dtype=np.uint64), (len(signature), 1))
    rows = signature.shape[1] // max(1, bands)
    for k in range(rows):
        keys = mix(keys * np.uint64(_BASE) + signature[:, k : rows * bands : rows])
    return keys


def _check(words: int, size: int) -> None:
    if not (1 <= words <= MOST_WORDS and 1 <= size <= MOST_MINIMA):
        raise ValueError(
            f"shingles: {words} words and {size} hash functions;"
            f" 1..{MOST_WORDS} and 1..{MOST_MINIMA} are possible"
        )


def _checked(answer: int) -> int:
    if answer < 0:
        raise MemoryError("shingles: not enough memory for a text's scratch")
    return answer


def _pointer(array: NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _starts(counts: Offsets) -> Offsets:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])


def _joined(texts: Sequence[str]) -> tuple[bytes, Offsets]:
    pieces = [composed(text).encode("utf-8", "surrogatepass") for text in texts]
    lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
    return b"".join(pieces), _starts(lengths)


@functools.cache
def _functions(size: int, seed: int) -> tuple[Hashes, Hashes]:
    """The factors and addends of the hash functions (a x + b) mod 2^64, high half."""
    generator = np.random.default_rng(seed)
    odd = generator.integers(0, 1 << 63, size, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return odd, generator.integers(0, 1 << 63, size, dtype=np.uint64)


@functools.cache
def _table() -> NDArray[np.uint32]:
    """For every code point of the first two planes: its lower case and its kind."""
    characters = "".join(map(chr, range(_TABLE)))
    lower = _folded(characters).encode("utf-32-le", "surrogatepass")
    table = np.frombuffer(lower, "<u4").astype(np.uint32)
    for pattern, bits in (
        (r"\w+", _IS_WORD),
        (r"\s+", _SPACE),
        (f"[{_IDEOGRAPHS}]+", _IS_WORD | _IDEOGRAPH),
    ):
        for run in re.finditer(pattern, characters):
            table[run.start() : run.end()] |= np.uint32(bits)
    return table


def _folded(text: str) -> str:
    """Lower case, one character for one: no dot beside the i of İ, one sigma."""
    if text.isascii():
        return text.lower()
    return text.replace("İ", "i").replace("Σ", "σ").replace("ς", "σ").lower()


@functools.lru_cache(maxsize=1 << 16)
def _word_hash(word: str) -> int:
    """Eight bytes at a time, zeros behind, then the length."""
    content = word.encode("utf-8", "surrogatepass")
    value = 0
    for at in range(0, len(content), 8):
        value = (value ^ int.from_bytes(content[at : at + 8], "little")) * _STEP & _ALL
        value ^= value >> 32
    value = (value ^ len(content)) * _LAST & _ALL
    return value ^ (value >> 29)


def _plain_exact(texts: Sequence[str]) -> Hashes:
    digests = [
        hashlib.blake2b(
            " ".join(composed(text).split()).encode("utf-8", "surrogatepass"), digest_size=16
        ).digest()
        for text in texts
    ]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64).reshape(len(texts), 2)


def _plain_sets(texts: Sequence[str], words: int, *, whole: bool) -> tuple[Hashes, Offsets]:
    pieces = []
    for text in map(composed, texts):
        found = _WORD.findall(_folded(text)) or ([" ".join(text.split())] if whole else [])
        hashes = np.fromiter(map(_word_hash, found), np.uint64, len(found))
        pieces.append(distinct(_ngrams(hashes, words, whole=whole)))
    lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
    return np.concatenate([np.empty(0, np.uint64), *pieces]), _starts(lengths)


def _ngrams(hashes: Hashes, words: int, *, whole: bool) -> Hashes:
    size = words if len(hashes) >= words else len(hashes) if whole else 0
    if size == 0:
        return np.empty(0, np.uint64)
    count = len(hashes) - size + 1
    mixed = np.full(count, size, np.uint64)
    for k in range(size):  # a polynomial in an odd base, modulo 2^64
        mixed = mixed * np.uint64(_BASE) + hashes[k : k + count]
    return mix(mixed)


def _plain_minima(
    values: Hashes, offsets: Offsets, odd: Hashes, plus: Hashes
) -> NDArray[np.uint32]:
    rows = len(offsets) - 1
    result = np.empty((rows, len(odd)), np.uint32)
    first = 0
    while first < rows:
        limit = offsets[first] + _BLOCK
        last = max(first + 1, int(np.searchsorted(offsets, limit, "right")) - 1)
        block = values[offsets[first] : offsets[last]]
        starts = offsets[first:last] - offsets[first]
        for k in range(len(odd)):
            hashed = ((block * odd[k] + plus[k]) >> np.uint64(32)).astype(np.uint32)
            result[first:last, k] = np.minimum.reduceat(hashed, starts)
        first = last
    return result
