"""Repeated parts of texts: long spans within a row, and lines that the whole corpus repeats.

What it does: (1) of a span of ``words`` words or more that a row repeats, the first occurrence
stays and later ones go; (2) lines that stand more often than wanted in a corpus go, all of them,
after a first pass has counted them (``data/line_counts.py``; ``corpus: true`` has a corpus make
that pass, see ``corpus/lines.py``): menus, cookie notices, footers. What it does not: find spans
that two rows share in the middle of different lines, as a suffix array would (Lee et al. 2022,
arXiv:2107.06499). Rows that share most of their text are near-duplicates and leave at
deduplication.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from modelwright.data import line_counts
from modelwright.data.grams import folded_words
from modelwright.data.operations.operation import Step, WorkRow
from modelwright.errors import ModelwrightError
from modelwright.kernels.text_stats import gram_hashes


@dataclass(frozen=True)
class Operation:
    """Settings of the step ``substrings``.

    Attributes:
        words: length of the shortest span that counts as repeated, in words; a Chinese character
            is a word, case and punctuation do not count. 0: spans are not looked for.
        lines: a file made by ``data/line_counts.py``: hashes of the lines that go. "": none do.
        corpus: whether lines that stand in more than ``rows`` rows of the corpus go, all of them; a
            corpus counts them before it is read, as the steps before this one leave them.
        rows: see ``corpus``; at least 1.
        share: rows that lose more than this share of their characters leave, 0..1.
    """

    words: int = 50
    lines: str = ""
    corpus: bool = False
    rows: int = 10
    share: float = 0.8

    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if (self.words != 0 and self.words < 5) or not 0 <= self.share <= 1:
            raise ModelwrightError(
                "step substrings: words must be 0 or at least 5, share must be in 0..1"
            )
        if self.rows < 1:
            raise ModelwrightError(f"step substrings: rows: {self.rows}: must be 1 or more")
        if self.corpus and self.lines:
            raise ModelwrightError(
                "step substrings: corpus: counts the lines itself; leave `lines` or `corpus` out"
            )

    def assets(self) -> dict[str, str]:
        """The hash of the file of lines."""
        if not self.lines:
            return {}
        try:
            content = Path(self.lines).read_bytes()
        except OSError as error:
            raise ModelwrightError(
                f"step substrings: lines: {self.lines}: {error.strerror or error}"
            ) from None
        return {"lines": hashlib.blake2b(content, digest_size=16).hexdigest()}

    def begin(self) -> Step:
        """Returns the step.

        Raises:
            ModelwrightError: the file of lines cannot be read, or nobody has counted them.
        """
        if self.corpus:
            raise ModelwrightError(
                "step substrings: corpus: only `modelwright data run` can count a corpus's lines;"
                " give a file of `lines` instead"
            )
        lines = line_counts.load(Path(self.lines)) if self.lines else None

        def step(row: WorkRow) -> str | None:
            text = row.get("text")
            if not isinstance(text, str):
                return None
            before, size = text, len(text)
            if lines is not None:
                text = line_counts.without(text, lines)
            if self.words:
                text = without_repeats(text, self.words)
            if text is before or text == before:
                return None
            lost = 1 - len(text) / size
            row["text"] = text
            row.setdefault("attributes", {})["substrings.share"] = round(lost, 4)
            return "repeated text" if lost > self.share or not text.strip() else None

        return step


def without_repeats(text: str, words: int) -> str:
    """The text without the later occurrences of spans of at least ``words`` words.

    One pass: whatever is covered by a run of ``words`` words that began earlier in the text goes,
    the first occurrence excepted, even where the two overlap.
    """
    hashes, starts, ends = folded_words(text)
    grams = gram_hashes(hashes, words)
    if len(grams) < 2:
        return text
    ordered = np.sort(grams)
    if not (ordered[1:] == ordered[:-1]).any():
        return text
    _, first, group = np.unique(grams, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[group] < np.arange(len(grams)))
    edges = np.zeros(len(hashes) + 1, np.int64)
    np.add.at(edges, again, 1)
    np.add.at(edges, again + words, -1)
    # Where a span overlaps its own first occurrence, that occurrence stays whole.
    gone = np.cumsum(edges[:-1]) > 0
    for start in np.unique(first[group[again]]).tolist():
        if not gone[start]:
            gone[start : start + words] = False
    runs = np.diff(np.r_[0, gone.astype(np.int8), 0])
    pieces, at = [], 0
    for begin, end in zip(
        np.flatnonzero(runs == 1).tolist(), np.flatnonzero(runs == -1).tolist(), strict=True
    ):
        pieces.append(text[at : int(starts[begin])])
        at = int(starts[end]) if end < len(starts) else int(ends[end - 1])
    return "".join(pieces) + text[at:]
