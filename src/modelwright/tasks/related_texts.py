"""What tasks of texts that belong together share: rows to pairs or triplets, and finding again."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from modelwright.data.sources import ROW_COLUMNS
from modelwright.errors import ModelwrightError
from modelwright.tasks import ranking, resampling
from modelwright.tasks.task import Measured, Task
from modelwright.tasks.vector_classification import missing_column
from modelwright.types import Example, Policy, Row, Turn, text_turn

MOST = 5000  # queries that are measured
_AT_ONCE = 256  # of them, since every one has a score for every text


class Scored:
    """A policy that says no vectors, but how near texts are to each other."""

    def __init__(self, of: Callable[[Sequence[str], Sequence[str]], ranking.Floats]) -> None:
        self.of = of

    def similar(self, queries: Sequence[str], passages: Sequence[str]) -> ranking.Floats:
        """How near every text is to every query, (queries, texts)."""
        return self.of(queries, passages)

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:
        """Nothing: what it knows are scores."""
        return [text_turn("assistant", "") for _ in given]


class RelatedTexts(Task):
    """Rows with a text and another that belongs to it, and perhaps some that do not.

    ``sides`` names the two options that name their columns; ``customary`` are pairs of columns that
    are looked for in this order where the options name none.
    """

    codec = "texts"
    objective = "contrastive"
    model = "encoder"
    measure = f"nDCG@{ranking.DEEP}"
    sides: ClassVar[tuple[str, str]]
    customary: ClassVar[tuple[tuple[str, str], ...]]

    @abstractmethod
    def __init__(self, first: str, second: str, negatives: str) -> None:
        self.named, self.negatives = (first, second), negatives

    def columns(self, row: Row) -> tuple[str, str]:
        """The two columns: as the options say, else the first customary pair, else the only two.

        Raises:
            ModelwrightError: the row lacks one that is named, or nothing can be guessed.
        """
        for side, column in zip(self.sides, self.named, strict=True):
            if column and column not in row:
                raise missing_column(row, column, f"holds the {side}", side)
        first, second = self.named
        for one, other in self.customary:
            if row.keys() >= {first or one, second or other}:
                return first or one, second or other
        taken = (*ROW_COLUMNS, first, second, self.negatives)
        left = [c for c, value in row.items() if c not in taken and isinstance(value, str)]
        if len(left) == (not first) + (not second):
            return first or left.pop(0), second or left.pop(0)
        one, other = self.sides
        known = ", ".join(column for column in row if column not in ROW_COLUMNS)
        raise ModelwrightError(
            f"row {row.get('id', '?')}: which columns hold the {one} and the {other} cannot be"
            f" guessed; it has: {known}; name them with train.options.{one} and"
            f" train.options.{other}"
        )

    def reads(self, row: Row) -> str:
        """The columns, where one of them was guessed."""
        if "qas" in row:
            return "questions and the passages that answer them, as SQuAD has them (guessed)"
        if all(self.named):
            return ""
        (one, other), (first, second) = self.sides, self.columns(row)
        beside = f", texts that do not belong from {self.negatives!r}" * (self.negatives in row)
        both = f"{one} from column {first!r} and {other} from column {second!r}"
        return f"reading {both}{beside} (guessed)"

    def examples(self, row: Row) -> Iterator[Example] | str:
        """A text is given, and others that do not belong to it; the one that does is learned."""
        if "qas" in row and not any(self.named):
            if row["qas"] is None:
                return "no questions"
            found = _asked(row)
        else:
            first, second = (_text(row, column) for column in self.columns(row))
            found = [(first, second)]
        kept = [(a, b) for a, b in found if a.strip() and b.strip()]
        if not kept:
            return "an empty text"
        others = _others(row, self.negatives)
        negatives = tuple(text_turn("document", text) for text in others if text.strip())
        return iter(
            [
                Example((text_turn("user", a), *negatives, text_turn("assistant", b, learn=True)))
                for a, b in kept
            ]
        )

    def measures(self, examples: Sequence[Example], policy: Policy) -> list[Measured]:
        """How well each text finds what belongs to it among all texts of ``examples``."""
        passages: dict[str, int] = {}
        meant: dict[str, dict[int, None]] = {}
        for example in examples:
            for turn in (*example.given[1:], example.answer):
                passages.setdefault(turn.text, len(passages))
            of = meant.setdefault(example.given[0].text, {})
            of[passages[example.answer.text]] = None
        queries = list(meant)[:: -(-len(meant) // MOST)]
        similar: Any = getattr(policy, "similar", None)
        if similar is None:
            raise ModelwrightError("retrieval: this policy has neither vectors nor scores")
        scores = similar(queries, list(passages))
        found = []
        for at in range(0, len(queries), _AT_ONCE):
            some = queries[at : at + _AT_ONCE]
            block = np.asarray(scores[at : at + _AT_ONCE], dtype=np.float64)
            found += ranking.ranks(block, [list(meant[query]) for query in some])
        said = []
        for name, values in ranking.measured(found).items():
            counts = np.stack([values, np.ones(len(values))], axis=1)
            note = resampling.said(*resampling.interval(counts, resampling.ratio))
            note += f"; {len(queries):,} queries, {len(passages):,} texts"
            said.append(Measured(name, float(values.mean()), note=note))
        return said

    def baselines(self, train: Sequence[Example]) -> Mapping[str, Policy]:  # noqa: ARG002
        """BM25 and TF-IDF, which need no training."""
        return {"BM25": Scored(ranking.bm25), "TF-IDF": Scored(ranking.tf_idf)}


def _asked(row: Row) -> list[tuple[str, str]]:
    """The questions of a paragraph, as SQuAD has them, each with the paragraph."""
    where = f"row {row.get('id', '?')}"
    if "context" not in row:
        raise ModelwrightError(
            f"{where}: has questions in 'qas' and no column 'context' with the passage that"
            " answers them; complete or remove it"
        )
    questions = row["qas"]
    asked = questions if isinstance(questions, list | tuple) else [questions]
    found = []
    for one in asked:
        question = one.get("question") if isinstance(one, Mapping) else one
        if (one is not None and not isinstance(one, Mapping)) or (
            question is not None and not isinstance(question, str)
        ):
            raise ModelwrightError(
                f"{where}: {str(one)[:40]!r} in column 'qas' is no question; write"
                ' {"question": "..."}, or name the columns that are meant'
            )
        found.append((question or "", _text(row, "context")))
    return found


def _others(row: Row, column: str) -> list[str]:
    """The texts that do not belong: one, a list, or none."""
    found = row.get(column)
    if found is None or isinstance(found, str):
        return [found or ""]
    if not isinstance(found, list | tuple) or not all(
        text is None or isinstance(text, str) for text in found
    ):
        raise ModelwrightError(
            f"row {row.get('id', '?')}: column {column!r} holds {str(found)[:40]!r}, neither a text"
            " nor a list of texts; name another column with train.options.negatives"
        )
    return [text or "" for text in found]


def _text(row: Row, column: str) -> str:
    value = row[column]
    if value is None or isinstance(value, str):
        return value or ""
    raise ModelwrightError(
        f"row {row.get('id', '?')}: column {column!r} holds {str(value)[:40]!r}, not a text; name"
        " another column"
    )
