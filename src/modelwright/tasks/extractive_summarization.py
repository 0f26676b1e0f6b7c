"""Say in short what a text says, by choosing some of its sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np

from modelwright.data.codecs.sentences import CHOSEN
from modelwright.errors import ModelwrightError
from modelwright.tasks import resampling
from modelwright.tasks.grading import sentences
from modelwright.tasks.scores import KINDS, rouge_f1
from modelwright.tasks.summarization import Summarization as Abstractive
from modelwright.tasks.task import Measured, Task
from modelwright.types import Example, Policy, Row, Span, Text, Turn


class ExtractiveSummarization(Task):
    """Rows with a text and its summary, or several summaries.

    A sentence is as good as the ROUGE of it alone against the nearest summary, the mean of ROUGE-1
    and ROUGE-2; the best ones are to be chosen.

    Args:
        source: the column of the text, or of a list of its sentences; left out, it is guessed.
        target: the column of the summary, or of a list of summaries.
        take: how many sentences a summary has.
    """

    codec = "sentences"
    objective = "positions"
    model = "encoder"
    measure = "ROUGE-L"
    specimen: ClassVar[Row] = Abstractive.specimen

    def __init__(self, source: str = "", target: str = "", take: int = 1) -> None:
        if take < 1:
            raise ModelwrightError(f"task extractive_summarization: take {take} is below 1")
        self.pairs, self.take = Abstractive(source, target), take

    def reads(self, row: Row) -> str:
        """The two columns, if one of them was guessed."""
        return self.pairs.reads(row)

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One example: the sentences are given, each with its score, and the summaries."""
        source, target = self.pairs.columns(row)
        given = _several(row, source, "source")
        given = [s for text in given for s in sentences(text)] if len(given) == 1 else given
        wanted = [text for text in _several(row, target, "target") if text.strip()]
        if not any(text.strip() for text in given):
            return "no source"
        if not wanted:
            return "no target"
        parts = _spaced(given)
        values = [max(_goodness(summary, part) for summary in wanted) for part in parts]
        order = np.argsort(-np.array(values), kind="stable")  # of equals the first
        best = set(order[: self.take].tolist())
        spans, at = [], 0
        for number, (part, value) in enumerate(zip(parts, values, strict=True)):
            kind = CHOSEN if number in best else ""
            spans.append(Span(at, at + len(part), kind, value, part))
            at += len(part)
        turns = (
            Turn("user", tuple(map(Text, parts))),
            Turn("assistant", (*map(Text, wanted), *spans), learn=True),
        )
        return iter([Example(turns)])

    def grade(self, example: Example, answer: Turn) -> float:
        """The F1 of ROUGE-L against the nearest summary, 0 to 1."""
        return _best(example, answer)["rougeL"]

    def measures(self, examples: Sequence[Example], policy: Policy) -> list[Measured]:
        """The means of ROUGE-1, ROUGE-2 and ROUGE-L, each against the nearest of the summaries."""
        answers = policy.answer([e.given for e in examples])
        each = [_best(e, a) for e, a in zip(examples, answers, strict=True)]
        found = []
        for kind, name in KINDS.items():
            counts = np.array([[scores[kind], 1.0] for scores in each])
            note = resampling.said(*resampling.interval(counts, resampling.ratio))
            found.append(Measured(name, float(counts[:, 0].mean()), note=note))
        return found

    def baselines(self, train: Sequence[Example]) -> Mapping[str, Policy]:  # noqa: ARG002
        """The first sentences, and as many at random."""
        name = "first sentence" if self.take == 1 else f"first {self.take} sentences"
        rng = np.random.default_rng(0)
        return {
            name: _Chosen(lambda number: list(range(min(self.take, number)))),
            "at random": _Chosen(
                lambda number: sorted(
                    rng.choice(number, min(self.take, number), replace=False).tolist()
                )
            ),
        }

    def question(self, text: str) -> Sequence[Turn]:
        """The sentences of a typed text."""
        return (Turn("user", tuple(map(Text, _spaced(sentences(text))))),)


class _Chosen:
    """A policy that chooses sentences by how many there are."""

    def __init__(self, choose: Callable[[int], list[int]]) -> None:
        self.choose = choose

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:
        """The chosen sentences of each text."""
        return [self._one([p for t in turns for p in t.parts]) for turns in given]

    def _one(self, parts: Sequence[object]) -> Turn:
        texts = [part.text for part in parts if isinstance(part, Text)]
        at = np.cumsum([0, *map(len, texts)]).tolist()
        chosen = self.choose(len(texts))
        return Turn("assistant", tuple(Span(at[i], at[i + 1], text=texts[i]) for i in chosen))


def _several(row: Row, column: str, name: str) -> list[str]:
    value = row[column]
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return list(value)
    raise ModelwrightError(
        f"row {row.get('id', '?')}: column {column!r} holds {str(value)[:40]!r}, not a text or a"
        f" list of texts; name the one that holds the {name} with train.options.{name}"
    )


def _spaced(texts: Sequence[str]) -> list[str]:
    """Sentences such that they stand one after another as a text, a space after each."""
    return [f"{text.strip()} " for text in texts if text.strip()]


def _goodness(summary: str, sentence: str) -> float:
    scores = rouge_f1(summary, sentence, ("rouge1", "rouge2"))
    return (scores["rouge1"] + scores["rouge2"]) / 2


def _best(example: Example, answer: Turn) -> dict[str, float]:
    """Each ROUGE of an answer's text, or of what it chooses, against the nearest summary."""
    whole = example.given[0].text
    texts = [part.text for part in answer.parts if isinstance(part, Text)]
    said = texts[0] if texts else "".join(whole[s.begin : s.end] for s in answer.spans).strip()
    references = [part.text for part in example.answer.parts if isinstance(part, Text)]
    each = [rouge_f1(reference, said) for reference in references]
    return {kind: max(scores[kind] for scores in each) for kind in KINDS}
