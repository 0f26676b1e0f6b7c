"""Answer a question in free words, with a passage to read or without one (closed book)."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from modelwright.data.codecs import questions
from modelwright.data.nearest import NearestAnswer
from modelwright.errors import ModelwrightError
from modelwright.tasks import resampling
from modelwright.tasks.question_answering import CUSTOMARY
from modelwright.tasks.squad_scores import best_f1, exact
from modelwright.tasks.task import Measured, Task
from modelwright.tasks.text_pairs import Made, TextPairs
from modelwright.tasks.vector_classification import missing_column
from modelwright.types import Example, Policy, Row, Turn, text_turn

_NO_QUESTION, _NO_ANSWER = "no question", "no answer"


class GenerativeQuestionAnswering(TextPairs):
    """Rows with a question, its answers and perhaps a passage, or a passage and several questions.

    Answers are a text, a list of texts, or as SQuAD has them: the first is learned, all are right.
    An empty list means that the passage does not say; the empty answer is learned then.

    Args:
        context: the column of the passage; empty looks for a customary name, and may find none.
        question: the column of the question, looked for in the same way; it must be there.
        answers: the column of the answer or answers, looked for in the same way.
    """

    codec = "questions"
    measure = "answer F1"
    specimen: ClassVar[Row] = {
        "id": "a",
        "context": "The bridge was closed on Monday after a crack was found in one of its cables.",
        "question": "When was the bridge closed?",
        "answers": {"text": ["Monday", "on Monday"], "answer_start": [25, 22]},
    }

    def __init__(self, context: str = "", question: str = "", answers: str = "") -> None:
        super().__init__(question, answers)
        self.named = {"context": context, "question": question, "answers": answers}

    def columns(self, row: Row) -> tuple[str, str]:
        """The columns of the question and of its answers: as named, else of a customary name.

        Raises:
            ModelwrightError: the row lacks one.
        """
        found = {option: self._column(row, option) for option in ("question", "answers")}
        for option, column in found.items():
            if column not in row:
                raise missing_column(row, column, f"holds the {option}", option)
        return found["question"], found["answers"]

    def _column(self, row: Row, option: str) -> str:
        """The column of an option, or how it should be called where the row has none."""
        customary = (name for name in CUSTOMARY[option] if name in row)
        return self.named[option] or next(customary, option)

    def reads(self, row: Row) -> str:
        """The columns, where one of them was guessed; and that there is no passage."""
        found = {"context": self._column(row, "context")}
        if "qas" not in row:
            found["question"], found["answers"] = self.columns(row)
        there = {option: column for option, column in found.items() if column in row}
        if "context" not in there:
            said = " and ".join(f"{option} from column {name!r}" for option, name in there.items())
            return f"reading {said}, without a passage: no column 'context'"
        if all(column == (self.named[option] or option) for option, column in there.items()):
            return ""
        said = " and ".join(f"{option} from column {name!r}" for option, name in there.items())
        return f"reading {said} (guessed)"

    def answered(self, row: Row, answer: Turn) -> Row:
        """The row with another answer.

        Raises:
            ModelwrightError: the row has several questions.
        """
        if "qas" in row:
            raise ModelwrightError(
                f"row {row.get('id', '?')}: has several questions in 'qas', and so no place for"
                " one answer; give a row for each question"
            )
        return super().answered(row, answer)

    def examples(self, row: Row) -> Iterator[Example] | str:
        """An example for every question that has an answer: passage, question, answer."""
        where, passage = f"row {row.get('id', '?')}", self._passage(row)
        if "qas" not in row:
            asked, answers = self.columns(row)
            found = _example(passage, row[asked], row[answers], where)
            return found if isinstance(found, str) else iter([found])
        if row["qas"] is None:
            return "no questions"
        if not isinstance(row["qas"], list | tuple):
            raise ModelwrightError(
                f"{where}: column 'qas' holds {str(row['qas'])[:40]!r}, not a list of questions;"
                " repair or remove the row"
            )
        every: list[Example] = []
        for one in row["qas"]:
            if not isinstance(one, Mapping):
                raise ModelwrightError(
                    f"{where}: {str(one)[:40]!r} in 'qas' is no question with answers; write"
                    ' {"question": "...", "answers": [...]}'
                )
            answers = one.get("answers", one.get("answer"))
            found = _example(passage, one.get("question"), answers, where)
            every += [] if isinstance(found, str) else [found]
        return iter(every) if every else "no question with an answer"

    def _passage(self, row: Row) -> str:
        column = self._column(row, "context")
        if column not in row:
            if self.named["context"]:
                raise missing_column(row, column, "holds the passage", "context")
            return ""
        value = row[column]
        if value is not None and not isinstance(value, str):
            raise ModelwrightError(
                f"row {row.get('id', '?')}: column {column!r} holds {str(value)[:40]!r}, not a"
                " text; name the one that holds the passage with train.options.context"
            )
        return (value or "").strip()

    def grade(self, example: Example, answer: Turn) -> float:
        """F1 of the answer's words against the nearest of the right answers, 0 to 1."""
        return best_f1(_references(example), answer.text)

    def scores(self, references: Sequence[str], answers: Sequence[str]) -> list[Measured]:
        """F1 and exact match, where each question has one right answer."""
        return _scores([[text] if text else [] for text in references], answers)

    def measures(self, examples: Sequence[Example], policy: Policy) -> list[Measured]:
        """F1 and exact match against all right answers, means over the questions."""
        answers = policy.answer([e.given for e in examples])
        return _scores([_references(e) for e in examples], [a.text for a in answers])

    def trivial(self) -> Mapping[str, Callable[[str], str]]:
        """None: without the training answers there is nothing to say."""
        return {}

    def baselines(self, train: Sequence[Example]) -> Mapping[str, Policy]:
        """The most common answer, and that to the nearest question, whatever their passages say."""
        nearest = NearestAnswer().fit(
            [e.given[-1].text for e in train], [e.answer.text for e in train]
        )
        # Under the name that written answers have it by, in place of one that compares passages.
        return {**Task.baselines(self, train), "nearest training answer": Made(nearest.answer)}

    def kind(self, example: Example) -> str:
        """Whether the passage has an answer, where that is asked."""
        return "" if _references(example) else _NO_ANSWER

    def question(self, text: str) -> Sequence[Turn]:
        """A question, or a passage and, on the last line, the question."""
        if not text.strip():
            raise ModelwrightError(
                "a question is needed: write it, or a passage and the question on a line of its"
                " own after it"
            )
        return questions.asked(text)


def _example(passage: str, question: Any, answers: Any, where: str) -> Example | str:
    """A question as an example, or the reason why it is none."""
    if question is None:
        return _NO_QUESTION
    if not isinstance(question, str):
        raise ModelwrightError(
            f"{where}: question {str(question)[:40]!r} is not a text; name the column of the"
            " question with train.options.question"
        )
    asked = " ".join(question.split())  # of a typed text only the last line is the question
    if not asked:
        return _NO_QUESTION
    right = _right(answers, where)
    if right is None or not (right or passage):
        return _NO_ANSWER
    given = [text_turn("document", passage)] if passage else []
    learned = text_turn("assistant", right[0] if right else "", learn=True)
    return Example((*given, text_turn("user", asked), learned), accepted=tuple(right))


def _right(answers: Any, where: str) -> list[str] | None:
    """The texts of the answers, each once; none where a list is empty, None where they lack."""
    several = answers if isinstance(answers, list | tuple) else [answers]
    texts: list[Any] = []
    for one in several:
        text = one.get("text") if isinstance(one, Mapping) else one
        texts += text if isinstance(text, list | tuple) else [text]
    if any(text is not None and not isinstance(text, str) for text in texts):
        raise ModelwrightError(
            f"{where}: answers {str(answers)[:40]!r} are none; write a text, a list of texts or"
            ' {"text": ["..."]}, or name the column with train.options.answers'
        )
    found = list(dict.fromkeys(text.strip() for text in texts if text and text.strip()))
    return found if found or not texts else None


def _references(example: Example) -> list[str]:
    """All right answers; the learned one is among them, also where its end was cut."""
    return [text for text in dict.fromkeys((example.answer.text, *example.accepted)) if text]


def _scores(references: Sequence[Sequence[str]], answers: Sequence[str]) -> list[Measured]:
    found = []
    for name, grade in (("answer F1", best_f1), ("exact match", exact)):
        values = [grade(r, a) for r, a in zip(references, answers, strict=True)]
        counts = np.stack([values, np.ones(len(values))], axis=1)
        note = resampling.said(*resampling.interval(counts, resampling.ratio))
        found.append(Measured(name, statistics.fmean(values), note=note))
    return found
