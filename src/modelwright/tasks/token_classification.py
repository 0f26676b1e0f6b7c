"""Find the spans of a text and say what each is: entities, slots of a command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from modelwright.data.word_bounds import overlapping, word_bounds
from modelwright.errors import ModelwrightError
from modelwright.tasks import resampling
from modelwright.tasks.span_rows import listed, of_stretches, of_tags
from modelwright.tasks.task import Constant, Measured, Task
from modelwright.tasks.vector_classification import missing_column
from modelwright.types import Array, Example, Label, Policy, Row, Span, Turn, text_turn

# How columns are called; the first that a row has is read.
WORDS = ("words", "tokens")
TAGS = ("tags", "ner_tags", "labels", "slots")


class TokenClassification(Task):
    """Rows with words and their tags, or with a text and its spans.

    Args:
        text: the column of the text, where spans are given.
        spans: the column of the spans, a list of [begin, end, kind] in characters.
        words: the column of the words, where tags are given; empty looks for a customary name, and
            says so.
        tags: the column of a tag for every word: BIO, BIOES or BILOU; looked for in the same way.
        label: the column of a label of the whole text, such as the intent of a command, which is
            then learned beside; empty for none.
        names: the tags that numbers stand for, from 0 on, where the column of tags holds numbers.
    """

    codec = "tagged_text"
    objective = "token_classification"
    model = "encoder"
    measure = "span F1"
    specimen: ClassVar[Row] = {
        "id": "a",
        "words": ["play", "blue", "train", "by", "coltrane"],
        "tags": ["O", "B-album", "I-album", "O", "B-artist"],
    }

    def __init__(
        self,
        text: str = "text",
        spans: str = "spans",
        words: str = "",
        tags: str = "",
        label: str = "",
        *,
        names: Sequence[str] = (),
    ) -> None:
        self.text, self.spans, self.words, self.tags = text, spans, words, tags
        self.label, self.names = label, tuple(names)

    def columns(self, row: Row) -> tuple[str, str]:
        """The columns of words and tags: as named, else the first customary name in the row.

        A row with a text and its spans says what it is; then none is looked for.
        """
        words, tags = self.words or WORDS[0], self.tags or TAGS[0]
        if row.keys() >= {words, tags} or row.keys() >= {self.text, self.spans}:
            return words, tags
        there = [column for column in row if column != self.label]
        return (
            self.words or next((name for name in WORDS if name in there), words),
            self.tags or next((name for name in TAGS if name in there), tags),
        )

    def reads(self, row: Row) -> str:
        """The columns, where words and tags are read from others than "words" and "tags"."""
        words, tags = self.columns(row)
        plain = (words, tags) == (self.words or WORDS[0], self.tags or TAGS[0])
        if plain or not row.keys() >= {words, tags}:
            return ""
        return f"reading words from column {words!r} and tags from {tags!r} (guessed)"

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One example: the text is given, its spans are to be learned."""
        found = self._spans(row)
        if isinstance(found, str):
            return found
        text, spans = found
        parts: list[Label | Span] = []
        if self.label:
            if self.label not in row:
                raise missing_column(row, self.label, "holds the label of the whole", "label")
            if row[self.label] in (None, ""):
                return "no label"
            parts.append(Label(str(row[self.label])))
        answer = Turn("assistant", (*parts, *spans), learn=True)
        return iter([Example((text_turn("user", text), answer))])

    def _spans(self, row: Row) -> tuple[str, list[Span]] | str:
        where = f"row {row.get('id', '?')}"
        in_words, in_tags = self.columns(row)
        if in_words in row and in_tags in row:
            words, tags = listed(row, in_words, "words"), listed(row, in_tags, "tags")
            if len(words) != len(tags):
                return "not a tag for every word"
            if None in words or None in tags:
                return "a word or a tag is null"
            tags = [self._named(tag, in_tags, where) for tag in tags]
            text, spans = of_tags([str(word) for word in words], tags, where)
        elif self.text in row and self.spans in row:
            if not isinstance(row[self.text], str):
                raise ModelwrightError(
                    f"{where}: column {self.text!r} holds {str(row[self.text])[:40]!r}, not a"
                    " text; name the one that holds the text with train.options.text"
                )
            text = row[self.text]
            spans = of_stretches(text, listed(row, self.spans, "spans"), where)
        elif in_words in row or in_tags in row:
            column, option = (in_words, "words") if in_tags in row else (in_tags, "tags")
            raise missing_column(row, column, "is read", option)
        elif self.text in row:
            raise missing_column(row, self.spans, "holds the spans", "spans")
        else:
            raise missing_column(row, self.text, "holds the text", "text")
        if not len(word_bounds(text)):
            return "no text"
        return text, spans

    def _named(self, tag: Any, column: str, where: str) -> str:
        """A tag as it is written, or the one that a number stands for.

        Raises:
            ModelwrightError: a number has no name.
        """
        if not isinstance(tag, int):
            return str(tag)
        if 0 <= tag < len(self.names):
            return self.names[tag]
        known = f"which has {len(self.names)}" if self.names else "such as [O, B-PER, I-PER]"
        raise ModelwrightError(
            f"{where}: column {column!r} holds the number {tag}, not a tag such as B-PER; say what"
            f" the numbers mean, from 0 on, in train.options.names, {known}"
        )

    def grade(self, example: Example, answer: Turn) -> float:
        """F1 of the spans of one text, and of its label where there is one: 1 if all is right."""
        if example.answer.labels != answer.labels:
            return 0.0
        return float(resampling.f1(_counts(example, answer)[None].astype(float))[0])

    def measures(self, examples: Sequence[Example], policy: Policy) -> list[Measured]:
        """F1 of whole spans, kind and extent, by all spans together; with labels their accuracy.

        A span is right where another of the same kind, begin and end is meant
        (Tjong Kim Sang and De Meulder 2003; seqeval counts the same).
        """
        answers = policy.answer([e.given for e in examples])
        counts = np.stack([_counts(e, a) for e, a in zip(examples, answers, strict=True)])
        right, said, meant = counts.sum(axis=0).tolist()
        note = resampling.said(*resampling.interval(counts, resampling.f1))
        found = [
            Measured("span F1", _ratio(2 * right, said + meant), note=note),
            Measured("span precision", _ratio(right, said), note=f"{right:,} of {said:,} spans"),
            Measured("span recall", _ratio(right, meant), note=f"{right:,} of {meant:,} spans"),
        ]
        if any(e.answer.labels for e in examples):
            same = [e.answer.labels == a.labels for e, a in zip(examples, answers, strict=True)]
            whole = same & (counts[:, 0] == counts[:, 1]) & (counts[:, 0] == counts[:, 2])
            found.append(Measured("label accuracy", float(np.mean(same))))
            found.append(Measured("all right", float(np.mean(whole))))
        return found

    def baselines(self, train: Sequence[Example]) -> Mapping[str, Policy]:
        """Every word as it is most often meant in train, with the most common label."""
        return {"commonest tag of the word": _Commonest(train)}

    def kind(self, example: Example) -> str:
        """The label of the whole, where there is one."""
        return ", ".join(example.answer.labels)


class _Commonest(Constant):
    """A policy that looks each word up; neighbours of one kind are one span."""

    def __init__(self, train: Sequence[Example]) -> None:
        wholes = Counter(example.answer.labels for example in train)
        ((labels, _),) = wholes.most_common(1)
        super().__init__(Turn("assistant", tuple(map(Label, labels))))
        seen: dict[str, Counter[str]] = {}
        for example in train:
            text = _text(example.given)
            bounds = word_bounds(text)
            kinds = [""] * len(bounds)
            for span in example.answer.spans:
                first, last = overlapping(bounds, span.begin, span.end)
                kinds[first:last] = [span.label] * (last - first)
            for (begin, end), kind in zip(bounds.tolist(), kinds, strict=True):
                seen.setdefault(text[begin:end].lower(), Counter())[kind] += 1
        self.kinds = {word: count.most_common(1)[0][0] for word, count in seen.items()}

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:
        """The spans of each text."""
        return [Turn("assistant", (*self.said.parts, *self._spans(_text(g)))) for g in given]

    def _spans(self, text: str) -> list[Span]:
        spans: list[Span] = []
        going = ""
        for begin, end in word_bounds(text).tolist():
            kind = self.kinds.get(text[begin:end].lower(), "")
            if kind and kind == going:
                spans[-1] = Span(spans[-1].begin, end, kind)
            elif kind:
                spans.append(Span(begin, end, kind))
            going = kind
        return spans


def _text(given: Sequence[Turn]) -> str:
    return "".join(turn.text for turn in given)


def _counts(example: Example, answer: Turn) -> Array:
    """Right, said and meant spans of one text, int64 (3,)."""
    meant, said = (
        {(s.label, s.begin, s.end) for s in turn.spans} for turn in (example.answer, answer)
    )
    return np.array([len(meant & said), len(said), len(meant)])


def _ratio(one: int, all_of_them: int) -> float:
    return one / all_of_them if all_of_them else 1.0
