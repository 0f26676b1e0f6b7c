"""Spans from tags and stretches, and how they are scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.sources import read_rows
from modelwright.errors import ModelwrightError
from modelwright.tasks.span_rows import of_stretches, of_tags
from modelwright.tasks.task import Constant, make_task
from modelwright.tasks.token_classification import TokenClassification
from modelwright.types import Example, Span, Turn


def only(row: dict[str, object], **options: str) -> Example:
    (example,) = TokenClassification(**options).examples({"id": "r1", **row})
    assert isinstance(example, Example)
    return example


def plain(spans: Sequence[Span]) -> list[tuple[str, str]]:
    return [(span.label, span.text) for span in spans]


@pytest.mark.parametrize(
    ("tags", "meant"),
    [
        ("O B-x I-x O B-y", [("x", "b c"), ("y", "e")]),
        ("B-x B-x I-x O O", [("x", "a"), ("x", "b c")]),
        ("S-x O B-y I-y E-y", [("x", "a"), ("y", "c d e")]),  # BIOES
        ("U-x O B-y I-y L-y", [("x", "a"), ("y", "c d e")]),  # BILOU
        ("O I-x I-x I-y O", [("x", "b c"), ("y", "d")]),  # as conlleval reads it
    ],
)
def test_tags_of_every_scheme_are_the_same_spans(tags: str, meant: list[tuple[str, str]]) -> None:
    text, spans = of_tags(["a", "b", "c", "d", "e"], tags.split(), "row r1")
    assert text == "a b c d e"
    assert plain(spans) == meant


@given(st.lists(st.sampled_from(["O", "B-x", "I-x", "B-y", "I-y"]), min_size=1, max_size=12))
def test_spans_never_overlap_and_their_words_are_the_texts(tags: list[str]) -> None:
    text, spans = of_tags([f"w{i}" for i in range(len(tags))], tags, "row")
    assert all(text[span.begin : span.end] == span.text for span in spans)
    assert of_stretches(text, [(s.begin, s.end, s.label) for s in spans], "row") == spans


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"words": ["a"], "tags": ["X-y"]}, "tag 'X-y' of the word 'a' is none; write O, B-KIND"),
        ({"words": ["a"], "tags": ["B-"]}, "tag 'B-' of the word 'a' is none"),
        ({"words": "a b", "tags": ["O"]}, "column 'words' holds 'a b', not a list"),
        ({"text": "ab", "spans": [[0, 3, "x"]]}, "span 0 to 3 is not within a text of 2"),
        ({"text": "abc", "spans": [[0, 2, "x"], [1, 3, "y"]]}, "spans 0 to 2 and 1 to 3 overlap"),
        ({"text": "abc", "spans": [[0, "2", "x"]]}, r"write \[begin, end, kind\]"),
        ({"text": 3, "spans": []}, "column 'text' holds '3', not a text"),
        ({"words": ["a"]}, "no column 'tags'"),
        ({"tokens": ["a"]}, "no column 'tags'"),
        ({"tokens": ["a"], "ner_tags": [3]}, "column 'ner_tags' holds the number 3, not a tag"),
        ({"text": "a"}, "no column 'spans'"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(row: dict[str, object], message: str) -> None:
    with pytest.raises(ModelwrightError, match=f"^row r1: .*{message}"):
        only(row)


def test_rows_that_give_nothing_say_why() -> None:
    task = TokenClassification(label="intent")
    assert task.examples({"words": ["a", "b"], "tags": ["O"]}) == "not a tag for every word"
    assert task.examples({"words": ["a"], "tags": [None]}) == "a word or a tag is null"
    assert task.examples({"words": [None], "tags": ["O"]}) == "a word or a tag is null"
    assert task.examples({"text": "  ", "spans": [], "intent": "x"}) == "no text"
    assert task.examples({"text": "a", "spans": [], "intent": ""}) == "no label"


@pytest.mark.parametrize("words", ["words", "tokens"])
@pytest.mark.parametrize("tags", ["tags", "ner_tags", "labels", "slots"])
def test_columns_are_guessed_by_customary_names_and_said(words: str, tags: str) -> None:
    row: dict[str, object] = {words: ["a", "b"], tags: ["O", "B-x"]}
    assert plain(only(row).answer.spans) == [("x", "b")]
    said = f"reading words from column '{words}' and tags from '{tags}' (guessed)"
    assert TokenClassification().reads(row) == said * ((words, tags) != ("words", "tags"))
    assert not TokenClassification(words=words, tags=tags).reads(row)


def test_a_text_with_its_spans_is_not_taken_for_words_with_tags() -> None:
    row: dict[str, object] = {"text": "a b", "spans": [[2, 3, "y"]], "tokens": ["a"], "labels": []}
    assert plain(only(row).answer.spans) == [("y", "b")]
    assert not TokenClassification().reads(row)
    whole: dict[str, object] = {"words": ["a"], "slots": ["B-x"], "labels": "z"}
    assert plain(only(whole, label="labels").answer.spans) == [("x", "a")]


def test_numbers_are_tags_where_they_are_named() -> None:
    names = ["O", "B-x", "I-x"]
    row = {"id": "r1", "tokens": ["a", "b", "c"], "ner_tags": [0, 1, 2]}
    task = make_task("token_classification", {"names": names})
    (example,) = task.examples(row)
    assert isinstance(example, Example)
    assert plain(example.answer.spans) == [("x", "b c")]
    row["ner_tags"] = [0, 1, 3]
    with pytest.raises(ModelwrightError, match=r"holds the number 3.*train\.options\.names.* 3$"):
        task.examples(row)


def test_spans_are_scored_as_by_seqeval() -> None:
    """The example of seqeval's own page: F1 0.50."""
    rows = [
        ("O O O B-MISC I-MISC I-MISC O", "O O B-MISC I-MISC I-MISC I-MISC O"),
        ("B-PER I-PER O", "B-PER I-PER O"),
    ]
    examples, answers = [], []
    for meant, said in rows:
        words = [f"w{i}" for i in range(len(meant.split()))]
        examples.append(only({"words": words, "tags": meant.split()}))
        answers.append(only({"words": words, "tags": said.split()}).answer)

    class Said:
        def answer(self, given: object) -> list[Turn]:
            return answers

    found = {m.name: m.value for m in TokenClassification().measures(examples, Said())}
    assert found == {"span F1": 0.5, "span precision": 0.5, "span recall": 0.5}


SCHEMES = st.sampled_from(["O", *(f"{mark}-{kind}" for mark in "BIES" for kind in "xy")])


def chunks(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Spans of words by conlleval's published rules, in which a word is judged by its neighbours.

    A word begins a span if it is B or S, or else is tagged and follows O, an end (E, S) or another
    kind; the span goes on to the last word before the next that begins one or is O.
    """
    found = []
    for i, tag in enumerate(tags):
        before = tags[i - 1] if i else "O"
        if tag == "O" or not (tag[0] in "BS" or before[0] in "OES" or before[2:] != tag[2:]):
            continue
        end = i + 1
        while end < len(tags) and tags[end][0] in "IE" and tags[end][2:] == tag[2:]:
            if tags[end - 1][0] in "ES":
                break
            end += 1
        found.append((tag[2:], i, end))
    return found


def test_the_rules_are_those_that_conlleval_states() -> None:
    """What the script of CoNLL-2000 counts of tags that no scheme allows."""
    assert chunks(["I-x", "I-x", "O", "I-x", "B-x"]) == [("x", 0, 2), ("x", 3, 4), ("x", 4, 5)]
    assert chunks(["B-x", "I-y", "E-y", "I-y"]) == [("x", 0, 1), ("y", 1, 3), ("y", 3, 4)]
    assert chunks(["S-x", "E-x", "E-x"]) == [("x", 0, 1), ("x", 1, 2), ("x", 2, 3)]


@given(st.lists(SCHEMES, min_size=1, max_size=12))
@settings(max_examples=300, deadline=None)
def test_tags_mean_the_spans_that_conlleval_finds(tags: list[str]) -> None:
    """In any order, also such as no scheme allows; L and U of BILOU are E and S."""
    words = [f"w{i}" for i in range(len(tags))]
    for said in (tags, [tag.replace("E-", "L-").replace("S-", "U-") for tag in tags]):
        text, spans = of_tags(words, said, "row")
        numbers = [(text[: s.begin].count(" "), text[: s.end].count(" ") + 1) for s in spans]
        assert [(s.label, *of) for s, of in zip(spans, numbers, strict=True)] == chunks(tags)


@given(st.lists(st.lists(st.tuples(SCHEMES, SCHEMES), min_size=1, max_size=8), min_size=1))
@settings(max_examples=200, deadline=None)
def test_the_f1_of_spans_is_that_of_conlleval(texts: list[list[tuple[str, str]]]) -> None:
    """2 right / (said + meant), of all texts together."""
    examples, answers = [], []
    right = total = 0
    for text in texts:
        words = [f"w{i}" for i in range(len(text))]
        meant, said = [m for m, _ in text], [s for _, s in text]
        examples.append(only({"words": words, "tags": meant}))
        answers.append(only({"words": words, "tags": said}).answer)
        right += len(set(chunks(meant)) & set(chunks(said)))
        total += len(chunks(meant)) + len(chunks(said))

    class Said:
        def answer(self, given: object) -> list[Turn]:
            return answers

    found = {m.name: m.value for m in TokenClassification().measures(examples, Said())}
    assert found["span F1"] == pytest.approx(2 * right / total if total else 1)


def test_slots_and_intents_of_real_commands(data: Callable[[str], Path]) -> None:
    rows = list(islice(read_rows("snips_nlu", path=data("snips_nlu")), 300))
    task = TokenClassification(label="intent")
    examples = [example for row in rows for example in task.examples(row)]
    assert len(examples) == 300
    assert all(isinstance(e, Example) for e in examples)
    assert len({label for e in examples for label in e.answer.labels}) == 7
    (policy,) = task.baselines(examples).values()
    found = {m.name: m.value for m in task.measures(examples, policy)}
    nothing = {m.name: m.value for m in task.measures(examples, Constant(Turn("assistant", ())))}
    assert 0.5 < found["span F1"] < 1
    assert found["label accuracy"] == pytest.approx(1 / 7, abs=0.01)  # of the commonest intent
    assert nothing["span F1"] == nothing["label accuracy"] == 0
