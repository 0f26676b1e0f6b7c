"""Answer a question about a passage with words of the passage (extractive)."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from modelwright.data.overlap import is_mark, lowered, weights
from modelwright.data.stored_text import with_words
from modelwright.data.word_bounds import word_bounds
from modelwright.errors import ModelwrightError
from modelwright.tasks import resampling
from modelwright.tasks.squad_scores import best_f1, exact
from modelwright.tasks.task import Measured, Task
from modelwright.tasks.vector_classification import missing_column
from modelwright.types import Example, Policy, Row, Span, Turn, text_turn

LONGEST = 8  # words of an answer of the baseline
# How columns are called, by option; the first that a row has is read.
CUSTOMARY = {
    "context": ("context", "passage", "paragraph"),
    "question": ("question", "query"),
    "answers": ("answers", "answer"),
}


class QuestionAnswering(Task):
    """Rows with a passage and a question, or a passage and several, as SQuAD has them.

    Answers are ``{"text": ..., "answer_start": ...}``, or a list of them, or plain texts, which are
    looked for in the passage; an empty list means that the passage does not say.

    Args:
        context: the column of the passage; empty looks for a customary name, and says so.
        question: the column of the question, looked for in the same way.
        answers: the column of the answer or answers, looked for in the same way.
    """

    codec = "passages"
    objective = "positions"
    model = "encoder"
    measure = "answer F1"
    specimen: ClassVar[Row] = {
        "id": "a",
        "context": "The bridge was closed on Monday after a crack was found in one of its cables.",
        "question": "When was the bridge closed?",
        "answers": {"text": ["Monday"], "answer_start": [25]},
    }

    def __init__(self, context: str = "", question: str = "", answers: str = "") -> None:
        self.named = {"context": context, "question": question, "answers": answers}

    def columns(self, row: Row) -> dict[str, str]:
        """The column of each option: as it is named, else the first customary name in the row.

        Where the row has ``qas``, that is where questions and answers are.

        Raises:
            ModelwrightError: the row lacks one.
        """
        found: dict[str, str] = {}
        for option, names in CUSTOMARY.items():
            if option == "context" or "qas" not in row:
                named = self.named[option]
                column = named or next((name for name in names if name in row), option)
                if column not in row:
                    raise missing_column(row, column, f"holds the {option}", option)
                found[option] = column
        return found

    def reads(self, row: Row) -> str:
        """The columns, where one of them was guessed: neither named nor called like its option."""
        found = self.columns(row)
        if all(column == (self.named[option] or option) for option, column in found.items()):
            return ""
        said = " and ".join(f"{option} from column {name!r}" for option, name in found.items())
        return f"reading {said} (guessed)"

    def examples(self, row: Row) -> Iterator[Example] | str:
        """An example for every question whose answer the passage has: passage, question, spans."""
        columns = self.columns(row)
        passage = row[columns["context"]]
        where = f"row {row.get('id', '?')}"
        if passage is not None and not isinstance(passage, str):
            raise ModelwrightError(
                f"{where}: column {columns['context']!r} holds {str(passage)[:40]!r}, not a text;"
                " name the one that holds the passage with train.options.context"
            )
        several = row["qas"] if "qas" in row else [{o: row[c] for o, c in columns.items()}]
        if several is None:
            return "no questions"
        if not isinstance(several, list | tuple):
            raise ModelwrightError(
                f"{where}: column 'qas' holds {str(several)[:40]!r}, not a list of questions;"
                " repair or remove the row"
            )
        if not passage or not passage.strip():
            return "no passage"
        found = [e for one in several if (e := _example(passage, one, where)) is not None]
        return iter(found) if found else "no question with an answer in the passage"

    def grade(self, example: Example, answer: Turn) -> float:
        """F1 of the answer's words, 0 to 1."""
        return best_f1(_references(example), _said(example, answer))

    def measures(self, examples: Sequence[Example], policy: Policy) -> list[Measured]:
        """F1 and exact match, means over the questions."""
        answers = policy.answer([e.given for e in examples])
        texts = [_said(e, a) for e, a in zip(examples, answers, strict=True)]
        found = []
        for name, grade in (("answer F1", best_f1), ("exact match", exact)):
            values = [grade(_references(e), t) for e, t in zip(examples, texts, strict=True)]
            counts = np.stack([values, np.ones(len(values))], axis=1)
            note = resampling.said(*resampling.interval(counts, resampling.ratio))
            found.append(Measured(name, statistics.fmean(values), note=note))
        return found

    def baselines(self, train: Sequence[Example]) -> Mapping[str, Policy]:  # noqa: ARG002
        """The sliding window."""
        return {"sliding window": SlidingWindow()}

    def kind(self, example: Example) -> str:
        """Whether the passage has the answer, where that is asked."""
        return "" if example.answer.spans else "no answer"

    def question(self, text: str) -> Sequence[Turn]:
        """A passage and, on the last line, the question."""
        passage, _, asked = text.rstrip().rpartition("\n")
        if not passage.strip() or not asked.strip():
            raise ModelwrightError(
                "a passage and a question are needed: write the passage, and the question on a"
                " line of its own after it"
            )
        return (text_turn("document", passage.rstrip()), text_turn("user", asked.strip()))


class SlidingWindow:
    """An answer by counts alone, after Richardson et al. 2013, which knows nothing of language.

    Candidates are the runs of words, LONGEST at most, that no mark and no word of the question
    interrupts. For a candidate S is its words and those of the question, and the score

        max over windows of |S| words that hold the candidate of the sum of ic(w), w in S,

    where ic(w) = log(1 + 1 / C(w)) and C(w) counts w in the passage. As longer candidates would
    always win, the candidate's own words are not summed.
    """

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:
        """The best candidate of each."""
        return [self._one(*(turn.text for turn in turns[-2:])) for turns in given]

    def _one(self, passage: str, question: str) -> Turn:
        bounds = word_bounds(passage)
        words = lowered(passage, bounds)
        asked = set(lowered(question, word_bounds(question)))
        total = np.append(0.0, np.cumsum(weights(words, asked)))
        best, chosen = -1.0, (0, min(1, len(words)))
        for a, b in _candidates(words, asked):
            size = min(len(asked) + b - a, len(words))
            begins = np.arange(max(0, b - size), min(a, len(words) - size) + 1)
            score = float((total[begins + size] - total[begins]).max()) if len(begins) else 0.0
            if score > best:
                best, chosen = score, (a, b)
        if not len(words):
            return Turn("assistant", ())
        span = Span(int(bounds[chosen[0], 0]), int(bounds[chosen[1] - 1, 1]))
        return with_words(Turn("assistant", (span,)), passage)


def _candidates(words: Sequence[str], asked: set[str]) -> Iterator[tuple[int, int]]:
    begin = 0
    for at in range(len(words) + 1):
        if at < len(words) and words[at] not in asked and not is_mark(words[at]):
            if at - begin == LONGEST:
                yield begin, at
                begin = at
            continue
        if at > begin:
            yield begin, at
        begin = at + 1


def _example(passage: str, one: Any, where: str) -> Example | None:
    """A question as an example; None where it is empty or the passage has none of its answers."""
    if one is None:
        return None
    if not isinstance(one, Mapping):
        raise ModelwrightError(
            f"{where}: {str(one)[:40]!r} in 'qas' is no question with answers; write"
            ' {"question": "...", "answers": [...]}'
        )
    asked, answers = one.get("question"), one.get("answers", one.get("answer", []))
    if asked is None or answers is None:
        return None
    if not isinstance(asked, str):
        raise ModelwrightError(
            f"{where}: question {str(asked)[:40]!r} is not a text; name the column of the question"
            " with train.options.question"
        )
    wanted = _answers(answers, where)
    spans = tuple(dict.fromkeys(s for t, at in wanted if (s := _span(passage, t, at)) is not None))
    if not asked.strip() or (wanted and not spans):
        return None
    given = (text_turn("document", passage), text_turn("user", asked))
    return Example((*given, Turn("assistant", spans, learn=True)))


def _answers(found: Any, where: str) -> list[tuple[str, int | None]]:
    """Answers as texts and where they begin, in any of the customary forms.

    Without a number for its beginning an answer is looked for. One that is null is an empty text,
    which no passage has: it must not pass for "the passage does not say".
    """
    if isinstance(found, str):
        return [(found, None)] if found else []
    if found is None:
        return [("", None)]
    if isinstance(found, Mapping):
        texts, starts = (
            list(value) if isinstance(value, list | tuple) else [value]
            for value in (found.get("text"), found.get("answer_start"))
        )
        if all(text is None or isinstance(text, str) for text in texts):
            starts += [None] * (len(texts) - len(starts))
            return [
                (text or "", start if isinstance(start, int) else None)
                for text, start in zip(texts, starts, strict=False)
            ]
    elif isinstance(found, list | tuple) and not any(isinstance(o, list | tuple) for o in found):
        return [answer for one in found for answer in _answers(one, where)]
    raise ModelwrightError(
        f"{where}: answers {str(found)[:40]!r} are none; write"
        ' {"text": ["..."], "answer_start": [0]}, a list of texts, or name the column with'
        " train.options.answers"
    )


def _span(passage: str, text: str, begin: int | None) -> Span | None:
    """Where an answer stands, nearest to where it is said to begin; None: it does not."""
    if not text.strip():
        return None
    near = 0 if begin is None else begin
    places: list[int] = []
    at = passage.find(text)
    while at >= 0 and len(places) < 1000:
        places.append(at)
        at = passage.find(text, at + 1)
    if not places:
        return None
    at = min(places, key=lambda place: abs(place - near))
    return Span(at, at + len(text), text=text)


def _references(example: Example) -> list[str]:
    passage = example.given[0].text
    return [passage[span.begin : span.end] for span in example.answer.spans]


def _said(example: Example, answer: Turn) -> str:
    passage = example.given[0].text
    return next((passage[span.begin : span.end] for span in answer.spans), "")
