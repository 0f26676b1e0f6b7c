"""Texts that hold parts of named evaluation sets leave, or lose these parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from modelwright.data import evaluation_sets
from modelwright.data.grams import folded_words
from modelwright.data.operations.operation import Step, WorkRow
from modelwright.errors import ModelwrightError


@dataclass(frozen=True)
class Operation:
    """Settings of the step ``decontaminate``.

    After GPT-3 (Brown et al. 2020, arXiv:2005.14165, appendix C): runs of ``n`` words, in lower
    case and without punctuation, that also stand in an evaluation set. A Chinese character is a
    word. A paraphrase or a translation is not found.

    Attributes:
        sets: name -> file or folder of an evaluation set (``data/evaluation_sets.py:texts_of``).
        n: words of a run.
        shortest: texts of the sets with fewer than ``n`` words, but at least so many, are looked
            for as a whole; shorter ones, and single answers, are not looked for.
        action: "drop" the row, "cut" the runs out of it, or "mark" it in its attributes only.
        share: (drop) rows with at most this share of words in such runs stay, 0..1.
        margin: (cut) words that go with a run on either side.
        least: (cut) a row with fewer words left leaves.
    """

    sets: dict[str, str] = field(default_factory=dict)
    n: int = 13
    shortest: int = 8
    action: Literal["drop", "cut", "mark"] = "drop"
    share: float = 0.0
    margin: int = 20
    least: int = 50

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.n <= 1000:
            raise ModelwrightError("step decontaminate: 1 <= shortest <= n <= 1000 must hold")
        if not 0 <= self.share <= 1 or self.margin < 0 or self.least < 0:
            raise ModelwrightError(
                "step decontaminate: share must be in 0..1, margin and least at least 0"
            )

    def assets(self) -> dict[str, str]:
        """The hash of the sets' files."""
        return {"sets": evaluation_sets.mark(self.sets, self.n, self.shortest)}

    def begin(self) -> Step:
        """Returns the step; the index is made, or read from the cache where it was made before.

        Raises:
            ModelwrightError: there is no set, or one cannot be read.
        """
        if not self.sets:
            raise ModelwrightError(
                "step decontaminate: sets: name at least one, such as {gsm8k: eval/gsm8k.jsonl}"
            )
        index = evaluation_sets.index(self.sets, self.n, self.shortest)
        names = tuple(self.sets)

        def step(row: WorkRow) -> str | None:
            text = row.get("text")
            if not isinstance(text, str):
                return None
            hashes, starts, ends = folded_words(text)
            found = index.find(hashes)
            if not len(found.starts):
                return None
            inside = found.covered(len(hashes))
            share = float(inside.mean())
            bits = int(np.bitwise_or.reduce(found.marks))
            attributes = row.setdefault("attributes", {})
            attributes["decontaminate.sets"] = [n for i, n in enumerate(names) if bits >> i & 1]
            attributes["decontaminate.share"] = round(share, 5)
            if self.action == "drop":
                return "in an evaluation set" if share > self.share else None
            if self.action == "mark":
                return None
            gone = _widened(inside, self.margin)
            if int((~gone).sum()) < self.least:
                return "in an evaluation set"
            row["text"] = without_words(text, gone, starts, ends)
            return None

        return step


def _widened(inside: NDArray[np.bool_], margin: int) -> NDArray[np.bool_]:
    """Every run of True made longer by ``margin`` at both ends."""
    edges = np.diff(np.r_[0, inside.view(np.int8), 0])
    wide = np.zeros(len(inside) + 1, np.int64)
    np.add.at(wide, np.maximum(0, np.flatnonzero(edges == 1) - margin), 1)
    np.add.at(wide, np.minimum(len(inside), np.flatnonzero(edges == -1) + margin), -1)
    widened: NDArray[np.bool_] = np.cumsum(wide[:-1]) > 0
    return widened


def without_words(
    text: str, gone: NDArray[np.bool_], starts: NDArray[np.uint32], ends: NDArray[np.uint32]
) -> str:
    """The text without the words of ``gone`` and what stands between them.

    What was before and after such a run comes to stand on lines of its own.
    """
    edges = np.diff(np.r_[0, gone.view(np.int8), 0])
    pieces, at = [], 0
    for first, last in zip(
        np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True
    ):
        pieces.append(text[at : int(starts[first])].rstrip())
        at = int(ends[last - 1])
    pieces.append(text[at:].lstrip(" \t,.;:!?\"')]}，。；：！？、”’）」』"))
    return "\n".join(piece for piece in pieces if piece.strip())
