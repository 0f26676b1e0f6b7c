"""Repeated spans within a row, and lines repeated over a corpus."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.data import line_counts
from modelwright.data.operations import operation
from modelwright.data.operations.substrings import without_repeats
from modelwright.errors import ModelwrightError


def numbered(word: str, count: int) -> str:
    return " ".join(f"{word}{i}" for i in range(count))


def test_the_first_occurrence_stays():
    span, middle, end = numbered("s", 60), numbered("m", 20), numbered("e", 20)
    assert (
        without_repeats(f"{span}. {middle}. {span.upper()}! {end}", 50)
        == f"{span}. {middle}. {end}"
    )
    short = numbered("s", 49)
    assert without_repeats(f"{short} {middle} {short}", 50) == f"{short} {middle} {short}"


def test_chinese_spans():
    span = "".join(chr(0x4E00 + i) for i in range(60))
    assert without_repeats(f"{span}。中间的话。{span}。结尾", 50) == f"{span}。中间的话。结尾"


def test_a_run_of_one_word_keeps_its_first_span():
    assert without_repeats("a " * 500, 50).split() == ["a"] * 50


@given(st.lists(st.sampled_from("abc"), max_size=120), st.integers(5, 12))
def test_what_stays_is_every_first_occurrence(words, n):
    text = " ".join(words)
    left = without_repeats(text, n).split()
    runs = {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}
    if len(runs) == max(0, len(words) - n + 1):
        assert left == words, "nothing repeats, nothing goes"
    assert len(left) <= len(words)
    assert left[:n] == words[:n]
    assert not Counter(left) - Counter(words)


def test_a_real_text_said_twice(data):
    text = data("tinyshakespeare/input.txt").read_text(encoding="utf-8")[:50_000]
    row = {"id": "1", "text": text + "\n" + text, "attributes": {}}
    assert operation("substrings").begin()(row) is None
    assert row["text"].split() == text.split()
    assert row["attributes"]["substrings.share"] == pytest.approx(0.5, abs=0.01)
    alone = {"id": "1", "text": text, "attributes": {}}
    assert operation("substrings").begin()(alone) is None
    assert alone == {"id": "1", "text": text, "attributes": {}}
    thrice = {"id": "1", "text": "\n".join([text] * 10), "attributes": {}}
    assert operation("substrings").begin()(thrice) == "repeated text"


NOTICE = "We use cookies to give you the best of this site."


def test_lines_of_a_corpus(tmp_path):
    texts = [
        f"{NOTICE}\nPage {i} is about the number {i * i} and about nothing else.\nYes.\n"
        for i in range(30)
    ]
    texts[0] += f"{NOTICE}\n" * 50  # a single row has one vote
    lines = line_counts.count(texts, 20, tmp_path)
    assert lines.tolist() == [line_counts.line_hash(NOTICE)]
    assert len(line_counts.count(texts, 30, tmp_path)) == 0
    assert list(tmp_path.iterdir()) == []
    line_counts.save(lines, tmp_path / "lines.npy")
    step = operation("substrings", {"lines": str(tmp_path / "lines.npy")}).begin()
    row = {"id": "1", "text": texts[3], "attributes": {}}
    assert step(row) is None
    assert row["text"] == texts[3].removeprefix(NOTICE + "\n")


@given(
    st.lists(
        st.lists(st.sampled_from([f"line number {i} of the corpus" for i in range(5)]), max_size=5),
        max_size=8,
    ),
    st.integers(0, 4),
)
def test_counts_are_exact(tmp_path_factory, rows, more_than):
    texts = ["\n".join(row) for row in rows]
    times = Counter(line for row in rows for line in set(row))
    found = line_counts.count(texts, more_than, tmp_path_factory.mktemp("work"))
    assert set(found.tolist()) == {
        line_counts.line_hash(x) for x, t in times.items() if t > more_than
    }
    assert np.all(np.diff(found) > 0)


def test_spreading_over_files_changes_nothing(tmp_path, monkeypatch):
    texts = [f"this is the line with number {i % 700}" for i in range(2000)]
    once = line_counts.count(texts, 2, tmp_path)
    monkeypatch.setattr(line_counts, "_HELD", 7)
    assert line_counts.count(texts, 2, tmp_path).tolist() == once.tolist()
    assert len(once) == 600  # 2000 = 2 x 700 + 600


def test_wrong_settings_are_refused(tmp_path):
    with pytest.raises(ModelwrightError, match="words must be 0 or at least 5"):
        operation("substrings", {"words": 3})
    with pytest.raises(ModelwrightError, match=r"step substrings: lines: .*absent.npy"):
        operation("substrings", {"lines": str(tmp_path / "absent.npy")}).begin()
    np.save(tmp_path / "floats.npy", np.zeros(3))
    with pytest.raises(ModelwrightError, match="holds no hashes of lines"):
        operation("substrings", {"lines": str(tmp_path / "floats.npy")}).begin()
