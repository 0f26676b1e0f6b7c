"""Runs of words looked up by their hashes: phrases of a list, n-grams of an evaluation set.

A word is one of ``kernels/text_stats.py``: an ideograph is a word of its own, so that a run of
13 is 13 words of English and 13 characters of Chinese. Case does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelwright.kernels.text_stats import (
    Hashes,
    Places,
    gram_hashes,
    gram_hashes_at,
    gram_sums,
    words,
)

MOST_NAMES = 64  # one bit each


def folded_words(text: str) -> tuple[Hashes, Places, Places]:
    """The words of a text in lower case; places are those of the text as it is."""
    lower = text.lower()
    return words(lower if len(lower) == len(text) else text)


@dataclass(frozen=True)
class Found:
    """Where runs were found: first words, lengths in words, bits of the names; each (finds,)."""

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    marks: Hashes

    def covered(self, total: int) -> NDArray[np.bool_]:
        """Which of ``total`` words belong to a run."""
        if not len(self.starts):
            return np.zeros(total, np.bool_)
        edges = np.zeros(total + 1, np.int64)
        np.add.at(edges, self.starts, 1)
        np.add.at(edges, self.starts + self.lengths, -1)
        inside: NDArray[np.bool_] = np.cumsum(edges[:-1]) > 0
        return inside


@dataclass(frozen=True)
class GramIndex:
    """Hashes of runs by their length, sorted, with the bits of the names each belongs to.

    ``heads`` is a table of bits over the hashes of the first ``head`` words of every run: most
    places of most texts are left after one look into it.
    """

    keys: Mapping[int, Hashes]
    marks: Mapping[int, Hashes]
    head: int
    heads: NDArray[np.bool_]

    @staticmethod
    def of(texts: Iterable[tuple[Hashes, int, int]], head: int) -> GramIndex:
        """Gather (hashes of the words of a text, length of its runs, number of the name).

        Every run of ``head`` words or more is taken, a text shorter than its length as a whole.
        """
        gathered: dict[int, list[tuple[Hashes, Hashes]]] = {}
        begins = []
        for hashes, wanted, name in texts:
            length = min(wanted, len(hashes))
            if length < head:
                continue
            grams = gram_hashes(hashes, length)
            mark = np.full(len(grams), np.uint64(1) << np.uint64(name), np.uint64)
            gathered.setdefault(length, []).append((grams, mark))
            begins.append(gram_hashes(hashes, head)[: len(grams)])
        keys, marks = {}, {}
        for length in sorted(gathered):
            hashes = np.concatenate([h for h, _ in gathered[length]])
            bits = np.concatenate([m for _, m in gathered[length]])
            order = np.argsort(hashes, kind="stable")
            hashes, bits = hashes[order], bits[order]
            first = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]])
            keys[length], marks[length] = hashes[first], np.bitwise_or.reduceat(bits, first)
        return GramIndex(keys, marks, head, _table(begins))

    def find(self, hashes: Hashes) -> Found:
        """All runs of the index among the words of a text."""
        nothing = np.zeros(0, np.int64)
        if len(hashes) < self.head:
            return Found(nothing, nothing, np.zeros(0, np.uint64))
        sums = gram_sums(hashes)
        begins = gram_hashes_at(sums, np.arange(len(hashes) - self.head + 1), self.head)
        places = np.flatnonzero(self.heads[begins & np.uint64(len(self.heads) - 1)])
        starts, lengths, marks = [nothing], [nothing], [np.zeros(0, np.uint64)]
        for length, keys in self.keys.items():
            fit = places[places + length <= len(hashes)]
            if len(fit):
                grams = gram_hashes_at(sums, fit, length)
                at = np.minimum(np.searchsorted(keys, grams), len(keys) - 1)
                hit = keys[at] == grams
                starts.append(fit[hit])
                lengths.append(np.full(int(hit.sum()), length))
                marks.append(self.marks[length][at[hit]])
        return Found(np.concatenate(starts), np.concatenate(lengths), np.concatenate(marks))


def _table(begins: list[Hashes]) -> NDArray[np.bool_]:
    """A table of at least 16 places a run, so that few others of a text are found in it."""
    total = sum(map(len, begins))
    table = np.zeros(1 << max(16, (16 * total).bit_length()), np.bool_)
    for hashes in begins:
        table[hashes & np.uint64(len(table) - 1)] = True
    return table
