"""What rules about the quality of a text count, in one pass over it; see ``text_stats.cpp``.

Words are counted without a segmenter, so that the same measures hold in every script: a word is
a run of letters and digits (marks belong to the letter before, single apostrophes, hyphens and
underscores join), and a letter of a script that is written without spaces (ideographs, kana,
Thai, Lao, Burmese, Khmer) is a word of its own.
"""

from __future__ import annotations

import ctypes
import functools
import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelwright.kernels.build import library

SCRIPTS = ("none", "latin", "han", "kana", "hangul", "cyrillic", "arabic", "other")
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")  # Gopher, table A1
CHINESE_STOP_WORDS = "的是在了不有和一"

_OTHER, _SPACE, _WORD, _UNSPACED, _MARK, _JOIN = range(6)
_JOINERS = "'’-‐‑_"
_RANGES = {  # first and last code point, by script
    "latin": ((0x41, 0x24F), (0x1E00, 0x1EFF), (0x2C60, 0x2C7F), (0xA720, 0xA7FF),
              (0xFB00, 0xFB06), (0xFF21, 0xFF5A)),
    "han": ((0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x3029), (0x3400, 0x4DBF),
            (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
    "kana": ((0x3041, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F), (0x1AFF0, 0x1B16F)),
    "hangul": ((0x1100, 0x11FF), (0x3130, 0x318F), (0xA960, 0xA97F), (0xAC00, 0xD7FF)),
    "cyrillic": ((0x400, 0x52F), (0x1C80, 0x1C8F), (0x2DE0, 0x2DFF), (0xA640, 0xA69F)),
    "arabic": ((0x600, 0x6FF), (0x750, 0x77F), (0x870, 0x8FF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFF)),
}  # fmt: skip
_UNSPACED_RANGES = (*_RANGES["han"], *_RANGES["kana"], (0xE00, 0xEFF), (0x1000, 0x109F),
                    (0x1780, 0x17FF))  # fmt: skip
_ASSIGNED = ((0, 0x40000), (0xE0000, 0xE0200))  # nothing with a meaning lies beyond

_WORD_SHAPE = re.compile(rb"\x02[\x02\x04]*(?:\x05\x02[\x02\x04]*)*|\x03")
_SIGN_TOKEN = re.compile(rb"(?:(?<=\x01)|\A)[^\x01\x02\x03]+(?=\x01|\Z)")
_RUN = re.compile(rb"[^\x01\x03]+")
_SENTENCE = re.compile(r"(?<![.!?…])[.!?…]++[\"')\]”’」』]*+(?=\s|\Z)")
_CHINESE_SENTENCE = re.compile(r"[。！？]+")
_ELLIPSIS = re.compile(r"\.{3,}|…")
_LOREM = re.compile("lorem ipsum", re.IGNORECASE | re.ASCII)
_ENDS = frozenset(".!?\"'…”’。！？．」』؟۔।።")
_BULLETS = frozenset("•‣▶◀◦■□▪▫●○–·・")
_PRIME, _GOLDEN, _ALL = 0xD6E8FEB86659FD93, 0x9E3779B97F4A7C15, (1 << 64) - 1

Hashes = NDArray[np.uint64]
Places = NDArray[np.uint32]


class TextStats(NamedTuple):
    """Counts of a text; characters are Unicode code points.

    Attributes:
        chars, visible: all characters; those that are not white space.
        letters, digits: letters of any script; decimal digits.
        words, word_chars: words and their characters.
        alpha_words: words with at least one letter.
        unspaced: words that are a letter of a script without spaces.
        signs: what stands between white space and holds no word.
        hashes, ellipses, braces, lorem: ``#``; ``…`` or three dots and more; ``{`` and ``}``;
            "lorem ipsum".
        sentences: ends of sentences: stops before white space, or Chinese stops anywhere.
        stop_words, chinese_stop_words: how many different ones of the two lists occur.
        newlines: line ends.
        lines, line_chars: lines that are not blank, and their characters without white space at
            both ends; such lines are meant below.
        bullet_lines, ellipsis_lines, ended_lines: lines that begin with a bullet; that end in an
            ellipsis; that end in a stop or a closing quotation mark.
        short_lines: lines of at most 30 characters.
        longest_line: characters of the longest line.
        repeated_lines, repeated_line_chars: lines equal to an earlier one, and their characters.
        paragraphs, repeated_paragraphs, repeated_paragraph_chars: the same of runs of lines
            between blank ones.
        longest_run: the longest run of characters with neither white space nor a letter of a
            script without spaces.
        none .. other: characters by script; ``none`` are those that are no letters.
        top_2 .. top_4: characters in the commonest n-gram of words, times how often it occurs;
            0 where none occurs twice.
        repeated_5 .. repeated_10: characters of words covered by n-grams that occurred before.
    """

    chars: int
    visible: int
    letters: int
    digits: int
    words: int
    word_chars: int
    alpha_words: int
    unspaced: int
    signs: int
    hashes: int
    ellipses: int
    braces: int
    lorem: int
    sentences: int
    stop_words: int
    chinese_stop_words: int
    newlines: int
    lines: int
    line_chars: int
    bullet_lines: int
    ellipsis_lines: int
    ended_lines: int
    short_lines: int
    longest_line: int
    repeated_lines: int
    repeated_line_chars: int
    paragraphs: int
    repeated_paragraphs: int
    repeated_paragraph_chars: int
    longest_run: int
    none: int
    latin: int
    han: int
    kana: int
    hangul: int
    cyrillic: int
    arabic: int
    other: int
    top_2: int
    top_3: int
    top_4: int
    repeated_5: int
    repeated_6: int
    repeated_7: int
    repeated_8: int
    repeated_9: int
    repeated_10: int


_COUNTS = ctypes.c_int64 * len(TextStats._fields)
_OWN = threading.local()
_KEPT_BYTES = 1 << 18


@functools.cache
def table() -> NDArray[np.uint8]:
    """For every code point: bits 0-2 kind, bit 3 letter, bit 4 digit, bits 5-7 script."""
    flags = np.zeros(0x110000, np.uint8)
    scripts = np.full(0x110000, SCRIPTS.index("other"), np.uint8)
    unspaced = np.zeros(0x110000, bool)
    for name, ranges in _RANGES.items():
        for first, last in ranges:
            scripts[first : last + 1] = SCRIPTS.index(name)
    for first, last in _UNSPACED_RANGES:
        unspaced[first : last + 1] = True
    for first, end in _ASSIGNED:
        signs = [chr(c) for c in range(first, end)]
        size, part = len(signs), slice(first, end)
        letter = np.fromiter(map(str.isalpha, signs), bool, size)
        if first <= 0x3007 < end:
            letter[0x3007 - first] = True  # the ideograph for zero, a number to Unicode
        digit = np.fromiter(map(str.isdecimal, signs), bool, size)
        word = np.fromiter(map(str.isalnum, signs), bool, size) | letter
        mark = np.array([unicodedata.category(c)[0] == "M" for c in signs])
        space = np.fromiter(map(str.isspace, signs), bool, size)
        kind = np.where(mark, _MARK, np.where(space, _SPACE, _OTHER)).astype(np.uint8)
        kind[word] = _WORD
        kind[letter & unspaced[part]] = _UNSPACED
        flags[part] = kind | letter << 3 | digit << 4 | np.where(letter, scripts[part], 0) << 5
    for sign in _JOINERS:
        flags[ord(sign)] = _JOIN
    return flags


@functools.cache
def _table_address() -> int:
    return table().ctypes.data


def native() -> bool:
    """Whether the compiled kernel is used."""
    return library("text_stats", ()) is not None


def text_stats(text: str, grams: bool = True) -> TextStats:
    """Count everything; without ``grams`` the counts of n-grams stay 0, in half the time."""
    kernel = _kernel()
    if kernel is None:
        return plain_stats(text, grams)
    content = text.encode("utf-8", "surrogatepass")
    counts = _COUNTS()
    if kernel.text_stats(content, len(content), _table_address(), int(grams), counts):
        raise MemoryError("text_stats: not enough memory for its scratch")
    return TextStats._make(counts)


def words(text: str) -> tuple[Hashes, Places, Places]:
    """The words of a text: hash, first character, last character + 1; ASCII in lower case.

    The hash of a word is the same on every machine, with and without the compiled kernel.
    """
    kernel = _kernel()
    if kernel is None:
        return plain_words(text)
    content = text.encode("utf-8", "surrogatepass")
    room = _room(len(content))
    found = kernel.text_words(content, len(content), _table_address(), *room.addresses)
    return room.hashes[:found].copy(), room.starts[:found].copy(), room.ends[:found].copy()


class _Room:
    """Arrays for the kernel to write into, with their addresses, which are slow to ask for."""

    def __init__(self, size: int) -> None:
        self.hashes = np.empty(size, np.uint64)
        self.starts, self.ends = np.empty(size, np.uint32), np.empty(size, np.uint32)
        self.addresses = tuple(a.ctypes.data for a in (self.hashes, self.starts, self.ends))


def _room(size: int) -> _Room:
    """This thread's arrays for a text of so many bytes; only small ones are kept."""
    if size > _KEPT_BYTES:
        return _Room(size)
    room: _Room | None = getattr(_OWN, "room", None)
    if room is None:
        room = _OWN.room = _Room(_KEPT_BYTES)
    return room


def gram_hashes(hashes: Hashes, n: int) -> Hashes:
    """The hash of every run of ``n`` words, (words - n + 1,): a polynomial of theirs, mixed."""
    count = len(hashes) - n + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    sums = gram_sums(hashes)
    return _mixed((sums[n:] - sums[:count]) * _powers(len(sums))[0][n - 1 : n - 1 + count])


def gram_sums(hashes: Hashes) -> Hashes:
    """Sums of h[i] / B^i modulo 2^64, (words + 1,), for ``gram_hashes_at``.

    B is odd and so has an inverse. With them the time for a run does not depend on its length.
    """
    sums = np.zeros(len(hashes) + 1, np.uint64)
    np.cumsum(hashes * _powers(len(sums))[1][: len(hashes)], out=sums[1:])
    return sums


def gram_hashes_at(sums: Hashes, starts: NDArray[np.int64], n: int) -> Hashes:
    """The hashes of the runs of ``n`` words that begin at ``starts`` and end within the text."""
    return _mixed((sums[starts + n] - sums[starts]) * _powers(len(sums))[0][starts + (n - 1)])


def _mixed(total: Hashes) -> Hashes:
    total = (total ^ (total >> np.uint64(32))) * np.uint64(_PRIME)
    mixed: Hashes = total ^ (total >> np.uint64(29))
    return mixed


def _powers(count: int) -> tuple[Hashes, Hashes]:
    """B^i and B^-i modulo 2^64 for i < count, or further."""
    size = 1 << max(10, count.bit_length())
    return _powers_of(size) if size <= _KEPT_BYTES else _powers_of.__wrapped__(size)


@functools.lru_cache(maxsize=32)
def _powers_of(count: int) -> tuple[Hashes, Hashes]:
    """See ``_powers``."""
    both = []
    for base in (_GOLDEN, pow(_GOLDEN, -1, 1 << 64)):
        factors = np.full(count, base, np.uint64)
        factors[0] = 1
        both.append(np.cumprod(factors))
    return both[0], both[1]


@functools.cache
def _kernel() -> ctypes.CDLL | None:
    kernel = library("text_stats", ())
    if kernel is None:
        return None
    pointer, long = ctypes.c_void_p, ctypes.c_long
    kernel.text_stats.argtypes = [ctypes.c_char_p, long, pointer, ctypes.c_int, pointer]
    kernel.text_words.argtypes = [ctypes.c_char_p, long, pointer, pointer, pointer, pointer]
    kernel.text_words.restype = long
    size = kernel.text_stats_size()
    if size != len(TextStats._fields):
        raise AssertionError(f"text_stats.cpp counts {size} things, text_stats.py reads others")
    return kernel


def _flags(text: str) -> NDArray[np.uint8]:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    found: NDArray[np.uint8] = table()[codes]
    return found


def plain_words(text: str) -> tuple[Hashes, Places, Places]:
    """What ``words`` returns, in Python."""
    spans = [m.span() for m in _WORD_SHAPE.finditer((_flags(text) & 7).tobytes())]
    hashes = [_hash(text[a:b]) for a, b in spans]
    starts, ends = ([s[i] for s in spans] for i in range(2))
    return np.array(hashes, np.uint64), np.array(starts, np.uint32), np.array(ends, np.uint32)


@functools.lru_cache(maxsize=1 << 16)
def _hash(word: str) -> int:
    content = word.encode("utf-8", "surrogatepass").lower()  # of bytes: only ASCII
    value = (_GOLDEN + len(content)) & _ALL
    for i in range(0, len(content), 8):
        value = ((value ^ int.from_bytes(content[i : i + 8], "little")) * _PRIME) & _ALL
        value ^= value >> 32
    value = (value * _PRIME) & _ALL
    return value ^ (value >> 29)


def plain_stats(text: str, grams: bool = True) -> TextStats:
    """What ``text_stats`` returns, in Python."""
    flags = _flags(text)
    kinds = (flags & 7).tobytes()
    letter = (flags & 8) > 0
    spans = [m.span() for m in _WORD_SHAPE.finditer(kinds)]
    found = [text[a:b] for a, b in spans]
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(letter)])
    folded = {_lower_ascii(w) for w in set(found) if 2 <= len(w) <= 4}
    scripts = np.bincount(flags >> 5, minlength=8).tolist()
    counts = {
        "chars": len(text),
        "visible": len(text) - kinds.count(_SPACE),
        "letters": int(letter.sum()),
        "digits": int(((flags & 16) > 0).sum()),
        "words": len(found),
        "word_chars": sum(map(len, found)),
        "alpha_words": sum(1 for a, b in spans if before[b] > before[a]),
        "unspaced": kinds.count(_UNSPACED),
        "signs": len(_SIGN_TOKEN.findall(kinds)),
        "hashes": text.count("#"),
        "ellipses": len(_ELLIPSIS.findall(text)),
        "braces": text.count("{") + text.count("}"),
        "lorem": len(_LOREM.findall(text)),
        "sentences": len(_SENTENCE.findall(text)) + len(_CHINESE_SENTENCE.findall(text)),
        "stop_words": len(folded & set(STOP_WORDS)),
        "chinese_stop_words": sum(c in text for c in CHINESE_STOP_WORDS),
        "newlines": text.count("\n"),
        "longest_run": max((len(r) for r in _RUN.findall(kinds)), default=0),
        **_of_lines(text),
        **dict(zip(SCRIPTS, scripts, strict=True)),
        **(_of_grams(found) if grams else _NO_GRAMS),
    }
    return TextStats(**counts)


def _lower_ascii(word: str) -> str:
    return word.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def _of_lines(text: str) -> dict[str, int]:
    stripped = [line.strip() for line in text.split("\n")]
    lines = [line for line in stripped if line]
    blanks = [-1, *(i for i, line in enumerate(stripped) if not line), len(stripped)]
    paragraphs = [tuple(stripped[a + 1 : b]) for a, b in pairwise(blanks) if b > a + 1]
    seen = Counter(lines)
    blocks = Counter(paragraphs)
    return {
        "lines": len(lines),
        "line_chars": sum(map(len, lines)),
        "bullet_lines": sum(r[0] in _BULLETS or r[:2] in ("- ", "* ", "+ ") for r in lines),
        "ellipsis_lines": sum(r.endswith(("...", "…")) for r in lines),
        "ended_lines": sum(r[-1] in _ENDS for r in lines),
        "short_lines": sum(len(r) <= 30 for r in lines),
        "longest_line": max(map(len, lines), default=0),
        "repeated_lines": len(lines) - len(seen),
        "repeated_line_chars": sum(len(r) * (n - 1) for r, n in seen.items()),
        "paragraphs": len(paragraphs),
        "repeated_paragraphs": len(paragraphs) - len(blocks),
        "repeated_paragraph_chars": sum(sum(map(len, p)) * (n - 1) for p, n in blocks.items()),
    }


_NO_GRAMS = {name: 0 for name in TextStats._fields if name.startswith(("top_", "repeated_"))}
_NO_GRAMS = {name: 0 for name in _NO_GRAMS if name.rpartition("_")[2].isdecimal()}


def _of_grams(found: Sequence[str]) -> dict[str, int]:
    ends = [0, *np.cumsum([len(w) for w in found]).tolist()]
    counts = {}
    for n in range(2, 11):
        grams = [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]
        if n <= 4:
            times = Counter(grams)
            most = max(times.values(), default=0)
            sizes = (sum(map(len, g)) * most for g, t in times.items() if t == most)
            counts[f"top_{n}"] = max(sizes) if most > 1 else 0
            continue
        seen: set[tuple[str, ...]] = set()
        covered = total = 0
        for i, gram in enumerate(grams):
            if gram in seen:
                total += ends[i + n] - ends[max(covered, i)]
                covered = i + n
            seen.add(gram)
        counts[f"repeated_{n}"] = total
    return counts
