"""When the words of a transcript are said: its letters aligned with the frames that gave them.

A model of ``ctc`` gives every frame log-probabilities of all letters and of the blank. A walk
goes through the states blank, l1, blank, l2, ... blank of a transcript, one state a frame: it
stays, goes on by one, or passes over the blank between two letters that differ (Graves et al.
2006). The likeliest walk (Viterbi) says in which frames each letter lies; of the likeliest path of
all it is that path itself. Such letters are peaks, a frame or two long, so a word begins at the
peak of its first letter and ends at that of its last one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from modelwright.data.scripts import IDEOGRAPHS
from modelwright.data.spelling import Spelling
from modelwright.errors import ModelwrightError
from modelwright.types import Array

BEHIND = 300.0  # nats: walks so far behind the best one to the same frame are left
NEVER = -1e4  # log-probability of what cannot be
# Seconds without a letter that end a segment. An alphabet of words gives one peak a word, so these
# gaps hold most of the words themselves.
PAUSES = {"characters": 0.6, "words": 1.2}
LONGEST = 15.0  # seconds of a segment, where it can be divided
_ALONE = re.compile(f"[{IDEOGRAPHS}]")  # written without spaces: each is a word


@dataclass(frozen=True)
class Word:
    """A word, when it begins and ends in seconds, and which of the letters it is of."""

    word: str
    start: float
    end: float
    first: int
    last: int  # the one after the last

    @property
    def details(self) -> dict[str, Any]:
        """As plain values."""
        return {"word": self.word, "start": self.start, "end": self.end}


def letter_frames(scores: Array, letters: Sequence[int], blank: int) -> Array:
    """The first frame and the one after the last of each letter, int64 (letters, 2).

    Args:
        scores: log-probabilities (frames, vocabulary), at least as many as the letters need.
        letters: of a transcript, without blanks.
        blank: the number that stands for none.

    Raises:
        ModelwrightError: there are too few frames for so many letters.
    """
    if not len(letters):
        return np.zeros((0, 2), np.int64)
    lattice = _Lattice.of(letters, blank)
    if len(scores) <= lattice.least[1]:
        raise ModelwrightError(
            f"alignment: {len(letters)} letters need {lattice.least[1] + 1} frames, there are"
            f" {len(scores)}; give the frames that the letters were read from"
        )
    path = lattice.walk(np.maximum(np.asarray(scores, np.float64), NEVER))
    return _spans(path, 2 * np.arange(len(letters)) + 1)


def path_frames(path: Array, blank: int) -> tuple[list[int], Array]:
    """The letters of a path (frames,) and their frames, as ``letter_frames`` gives them."""
    begins = np.flatnonzero(np.diff(path, prepend=-1) != 0)
    spans = np.stack((begins, np.append(begins[1:], len(path))), axis=1)
    spoken = path[begins] != blank
    return path[begins][spoken].tolist(), spans[spoken].astype(np.int64)


def _spans(path: Array, states: Array) -> Array:
    """Where each of some states begins and ends in a path that only goes on."""
    sides = [np.searchsorted(path, states, side) for side in ("left", "right")]
    return np.stack(sides, axis=1).astype(np.int64)


@dataclass(frozen=True)
class _Lattice:
    """The states of a transcript.

    ``symbols`` (S,) is what each state says, ``skips`` (S,) whether it may be come to from two
    states before, ``least`` (S,) how many further frames a walk needs from there to its end.
    """

    symbols: Array
    skips: Array
    least: Array

    @classmethod
    def of(cls, letters: Sequence[int], blank: int) -> _Lattice:
        """The states of letters, with blanks around and between them."""
        said = np.asarray(letters, np.int64)
        symbols = np.full(2 * len(said) + 1, blank)
        symbols[1::2] = said
        differ = said[1:] != said[:-1]
        skips = np.zeros(len(symbols), np.bool_)
        skips[3::2] = differ
        steps = np.where(differ, 1, 2)  # from a letter to the next; over a blank if it is the same
        behind = np.append(steps[::-1].cumsum()[::-1], 0)
        least = np.zeros(len(symbols), np.int64)
        least[1::2], least[:-1:2] = behind, behind + 1
        return cls(symbols, skips, least)

    def walk(self, scores: Array) -> Array:
        """The states (T,) of the likeliest walk, for log-probabilities (T, vocabulary).

        Only states from which the end can be reached are looked at, and of these the stretch
        without those at its ends that are BEHIND the best.
        """
        best = np.where(self.least[:2] < len(scores), scores[0, self.symbols[:2]], -np.inf)
        low, lows, moves = 0, [0], [np.zeros(2, np.uint8)]
        for t in range(1, len(scores)):
            high = min(low + len(best) + 2, len(self.symbols))
            came = np.full((3, high - low), -np.inf)
            for by in range(3):  # states that were gone on by
                came[by, by : by + len(best)] = best[: high - low - by]
            came[2, ~self.skips[low:high]] = -np.inf
            move = came.argmax(0)
            reached = came.max(0) + scores[t, self.symbols[low:high]]
            reached[self.least[low:high] > len(scores) - 1 - t] = -np.inf
            kept = np.flatnonzero(reached >= reached.max() - BEHIND)
            first, last = kept[0], kept[-1] + 1
            low, best = low + int(first), reached[first:last]
            lows.append(low)
            moves.append(move[first:last].astype(np.uint8))
        path = np.zeros(len(scores), np.int64)
        path[-1] = low + int(best.argmax())
        for t in range(len(scores) - 1, 0, -1):
            path[t - 1] = path[t] - moves[t][path[t] - lows[t]]
        return path


def words_of(
    letters: Sequence[int], frames: Array, spelling: Spelling, seconds_a_frame: float
) -> list[Word]:
    """The words of letters with their times; together they are what ``spelling`` reads of them.

    A word ends at a space. An ideograph is one of its own, as is every token of an alphabet of
    words.
    """
    known, found = spelling.numbers, list[Word]()
    begun: list[int] = []  # numbers of the letters of a word that is not ended

    def end() -> None:
        if begun:
            text = "".join(spelling.tokens[letters[i]] for i in begun)
            times = frames[begun[0], 0], frames[begun[-1], 1]
            start, stop = (float(n * seconds_a_frame) for n in times)
            found.append(Word(text, start, stop, begun[0], begun[-1] + 1))
            begun.clear()

    for i, letter in enumerate(letters):
        token = spelling.tokens[letter]
        if token not in known:
            continue
        alone = spelling.units == "words" or _ALONE.match(token)
        if alone or token == spelling.space:
            end()
        if token != spelling.space:
            begun.append(i)
        if alone:
            end()
    end()
    return found


def divided(words: Sequence[Word], pause: float) -> list[list[Word]]:
    """The words in segments: each ends at a pause, or within the LONGEST at its widest gap."""
    left, found = [list(words)] if words else [], list[list[Word]]()
    while left:
        some = left.pop()
        gaps = [b.start - a.end for a, b in pairwise(some)]
        widest = max(range(len(gaps)), key=gaps.__getitem__, default=None)
        long = some[-1].end - some[0].start > LONGEST
        if widest is not None and (long or gaps[widest] >= pause):
            left += [some[widest + 1 :], some[: widest + 1]]
        else:
            found.append(some)
    return found


def details(
    scores: Array, letters: Sequence[int], frames: Array, spelling: Spelling, seconds: float
) -> dict[str, Any]:
    """``words`` and ``segments`` of a recording of so many seconds, as plain values.

    The frames are spread evenly over the recording, so a time is right to a frame. A segment has
    its ``text``, its letters as ``tokens``, ``avg_logprob``, the mean log-probability of its
    frames, and ``no_speech_prob``, the probability that all of them are blank.
    """
    each = seconds / max(1, len(scores))
    path = np.full(len(scores), spelling.blank)
    for letter, (begin, end) in zip(letters, frames.tolist(), strict=True):
        path[begin:end] = letter
    likely, blank = scores[np.arange(len(scores)), path], scores[:, spelling.blank]
    words, segments = words_of(letters, frames, spelling, each), []
    for some in divided(words, PAUSES[spelling.units]):
        first, last = some[0].first, some[-1].last
        begin, end = frames[first, 0], frames[last - 1, 1]
        tokens = list(letters[first:last])
        segments.append({
            "start": some[0].start,
            "end": some[-1].end,
            "text": spelling.read(tokens),
            "tokens": tokens,
            "avg_logprob": float(likely[begin:end].mean()),
            "no_speech_prob": float(np.exp(blank[begin:end].sum())),
        })  # fmt: skip
    return {"words": [word.details for word in words], "segments": segments}
