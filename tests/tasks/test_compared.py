"""Transcripts compared word by word: the fewest differences, always the same ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.data.scripts import apart, units
from modelwright.tasks.task import make_task
from modelwright.tasks.transcripts import LONGEST, compared

TEXTS = st.lists(st.sampled_from(["a", "b", "c", "貓", "在"]), max_size=8).map(" ".join)


@given(TEXTS, TEXTS)
def test_it_is_both_texts_with_the_fewest_differences(reference: str, answer: str) -> None:
    found = compared(reference, answer)
    assert [meant for meant, _ in found if meant] == reference.split()
    assert [said for _, said in found if said] == answer.split()
    assert ("", "") not in found
    jiwer = pytest.importorskip("jiwer")
    if reference and answer:
        counted = jiwer.process_words(reference, answer)
        fewest = counted.substitutions + counted.deletions + counted.insertions
        assert sum(meant != said for meant, said in found) == fewest
        assert sum(meant == said for meant, said in found) >= counted.hits


def test_of_as_few_differences_most_words_are_right() -> None:
    assert compared("a b c d", "a x d e e") == [
        ("a", "a"), ("b", ""), ("c", "x"), ("d", "d"), ("", "e"), ("", "e"),
    ]  # fmt: skip
    assert compared("one two", "") == [("one", ""), ("two", "")]
    assert compared("", "one") == [("", "one")]
    assert compared("", "") == []


def test_scripts_without_spaces_are_compared_by_characters() -> None:
    assert compared("貓在這裡", "狗在裡") == [("貓", "狗"), ("在", "在"), ("這", ""), ("裡", "裡")]
    assert units("ที่นี่") == ["ที่", "นี่"]  # marks above stay with their letter
    assert units("ab貓c d") == ["ab", "貓", "c", "d"]
    assert not apart("貓", "在") and apart("貓", "c") and apart("c", "d")


def test_very_long_texts_are_not_compared() -> None:
    assert compared("a " * (LONGEST + 1), "a") == []
    assert len(compared("a " * LONGEST, "b")) == LONGEST


def test_a_recogniser_compares_as_it_counts_errors() -> None:
    task = make_task("speech_recognition", {})
    assert task.compared("The cat, sat!", "the CAT sit") == [
        ("the", "the"), ("cat", "cat"), ("sat", "sit"),
    ]  # fmt: skip
    assert make_task("sentiment", {}).compared("good", "bad") == []
