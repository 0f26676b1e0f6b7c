"""Name all the classes that hold for a text: none, one or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from modelwright.tasks import resampling
from modelwright.tasks.columns import Role
from modelwright.tasks.task import Measured
from modelwright.tasks.text_classification import TextClassification
from modelwright.types import Example, Policy, Row, Turn


class MultilabelClassification(TextClassification):
    """Rows with a text and a list of labels, or labels in one text with a separator between.

    Args:
        text: the column that holds the text.
        label: the column that holds the labels.
        pair: the column of a second text, where the classes are of the two.
        separator: between labels that stand in one text.
    """

    codec = "multilabelled_text"
    objective = "multilabel"
    measure = "F1 of labels"
    roles: ClassVar[Mapping[str, Role]] = {
        "text": TextClassification.roles["text"],
        "label": Role("any", ("labels", "label", "classes", "categories", "tags", "topics")),
    }
    specimen: ClassVar[Row] = {
        "id": "a",
        "text": "The parser crashes on empty files since the last release.",
        "label": ["bug", "parser"],
    }

    def __init__(
        self, text: str = "text", label: str = "label", pair: str = "", separator: str = ","
    ) -> None:
        super().__init__(text, label, pair)
        self.separator = separator

    def _labels(self, row: Row) -> tuple[str, ...] | str:
        """The labels of a row; an empty list and an empty text mean that none holds."""
        found = row[self.label]
        if found is None:
            return "no labels"
        if hasattr(found, "tolist"):
            found = found.tolist()
        if not isinstance(found, list | tuple):
            found = [name.strip() for name in str(found).split(self.separator)]
        return tuple(dict.fromkeys(str(name) for name in found if str(name)))

    def grade(self, example: Example, answer: Turn) -> float:
        """F1 of the labels of one text."""
        return float(resampling.f1(_counts(example, answer)[None])[0])

    def measures(self, examples: Sequence[Example], policy: Policy) -> list[Measured]:
        """F1 of all labels together (micro), its mean over the labels (macro), and all right."""
        answers = policy.answer([e.given for e in examples])
        pairs = list(zip(examples, answers, strict=True))
        counts = np.stack([_counts(e, a) for e, a in pairs])
        names = sorted({name for e, a in pairs for name in (*e.answer.labels, *a.labels)})
        each = [np.stack([_counts(e, a, {name}) for e, a in pairs]).sum(axis=0) for name in names]
        same = [set(e.answer.labels) == set(a.labels) for e, a in pairs]
        note = resampling.said(*resampling.interval(counts, resampling.f1))
        macro = float(resampling.f1(np.array(each)).mean()) if each else 1.0
        return [
            Measured("F1 of labels", float(resampling.f1(counts.sum(axis=0)[None])[0]), note=note),
            Measured("macro-F1", macro),
            Measured("all labels right", float(np.mean(same))),
        ]


def _counts(
    example: Example, answer: Turn, only: set[str] | None = None
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Right, said and meant labels of one text, (3,); ``only``: of these names."""
    meant, said = (
        set(turn.labels) if only is None else set(turn.labels) & only
        for turn in (example.answer, answer)
    )
    return np.array([len(meant & said), len(said), len(meant)], dtype=np.float64)
