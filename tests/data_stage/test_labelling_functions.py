"""Labelling functions: rules that vote or abstain, from Python, YAML and a user's file."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.data.labelling.functions import (
    LabellingFunction,
    apply_functions,
    figures,
    keywords,
    length,
    pattern,
    read_functions,
)
from modelwright.data.labelling.votes import MISSING, Votes
from modelwright.errors import ModelwrightError

LABELS = ["pos", "neg"]


def row(text: str, name: str = "1") -> dict:
    return {"id": name, "text": text}


@pytest.mark.parametrize(
    ("words", "text", "hit"),
    [
        (["superb"], "A SUPERB film", True),
        (["superb"], "superbly made", False),
        (["good"], "no-good", True),
        (["c++"], "I like C++ a lot", True),
        (["好看"], "这部电影真好看啊", True),
        (["好看"], "这部电影难看", False),
        (["two words"], "just two words.", True),
    ],
)
def test_keywords_are_whole_words_but_chinese_has_no_word_borders(words, text, hit):
    assert keywords("pos", words).decide(row(text)) == ("pos" if hit else None)


def test_a_row_without_the_column_is_one_to_abstain_on():
    for rule in (keywords("pos", ["a"]), pattern("pos", "a")):
        assert rule.decide({"id": "1"}) is None
    assert length("pos", longer=3).decide({"id": "1", "text": None}) is None


def test_lengths_are_open_at_both_ends():
    rule = length("pos", longer=2, shorter=5)
    assert [rule.decide(row("x" * n)) for n in range(7)] == [None] * 3 + ["pos"] * 2 + [None] * 2


def test_yaml_rules_and_a_python_file_give_the_same_votes(tmp_path):
    (tmp_path / "rules.yaml").write_text(
        "- {label: pos, keywords: [superb, great], name: praise}\n"
        "- {label: neg, pattern: 'waste of', name: waste}\n"
        "- {label: neg, longer: 40, name: long}\n"
    )
    (tmp_path / "rules.py").write_text(
        "import re\n"
        "def label_praise(row):\n"
        "    return 'pos' if re.search(r'\\b(superb|great)\\b', row['text']) else None\n"
        "def label_waste(row):\n    return 'neg' if 'waste of' in row['text'] else None\n"
        "def label_long(row):\n    return 'neg' if len(row['text']) > 40 else None\n"
        "def helper(row):\n    return 'never asked'\n"
    )
    rows = [row(t, str(i)) for i, t in enumerate(["a great film", "a waste of time", "z" * 50, ""])]
    votes = [
        apply_functions(read_functions(tmp_path / name), rows, LABELS)
        for name in ("rules.yaml", "rules.py")
    ]
    assert votes[0].voters == votes[1].voters == ["praise", "waste", "long"]
    assert votes[0].given.tolist() == votes[1].given.tolist()
    assert votes[0].given.tolist() == [[0, -1, -1], [-1, 1, -1], [-1, -1, 1], [-1, -1, -1]]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.yaml", "- {label: pos, keyword: [x]}", "did you mean 'keywords'"),
        ("a.yaml", "- {label: pos, pattern: '('}", "cannot be read"),
        ("a.yaml", "- {label: pos, pattern: 'a', longer: 3}", "exactly one"),
        ("a.yaml", "- {label: pos, longer: true}", "whole numbers"),
        ("a.yaml", "- {label: pos, keywords: []}", "at least one keyword"),
        ("a.yaml", "label: pos", "a list of rules"),
        ("a.yaml", "- [", "not readable YAML"),
        ("a.yaml", "[]", "no labelling functions"),
        ("a.yaml", "- {label: a, pattern: x}\n- {label: b, pattern: x}", "two rules"),
        ("a.py", "def other(row): pass", "label_"),
        ("a.py", "1/0", "ZeroDivisionError"),
    ],
)
def test_a_bad_file_of_functions_is_one_line(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(ModelwrightError, match=said) as told:
        read_functions(tmp_path / name)
    assert name in str(told.value) or "labelling function" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_function_that_fails_or_invents_a_label_is_named_with_the_row():
    def breaks(row):
        return row["absent"]

    for decide, said in ((breaks, "KeyError"), (lambda row: "posi", "did you mean 'pos'")):
        with pytest.raises(ModelwrightError, match=said) as told:
            apply_functions([LabellingFunction("mine", decide)], [row("x", "r7")], LABELS)
        assert "'mine'" in str(told.value) and "'r7'" in str(told.value)


def test_the_table_of_a_known_case():
    votes = Votes(list("abcd"), ["f", "g"], LABELS, np.array([[0, 0], [0, 1], [0, -1], [-1, -1]]))
    f, g = figures(votes, np.array([0, 1, 1, 0]))
    assert (f.coverage, f.overlaps, f.conflicts, f.accuracy) == (0.75, 0.5, 0.25, 1 / 3)
    assert (g.coverage, g.overlaps, g.conflicts, g.accuracy) == (0.5, 0.5, 0.25, 1.0)


@given(st.lists(st.lists(st.integers(-1, 2), min_size=3, max_size=3), max_size=30))
def test_conflicts_are_overlaps_and_overlaps_are_coverage(table):
    array = np.array(table, dtype=np.int64).reshape(len(table), 3)
    votes = Votes([str(i) for i in range(len(table))], list("fgh"), list("abc"), array)
    for i, line in enumerate(figures(votes)):
        assert 0 <= line.conflicts <= line.overlaps <= line.coverage <= 1
        voted = sum(r[i] != MISSING for r in table)
        assert line.coverage == pytest.approx(voted / max(len(table), 1))
        assert line.accuracy is None
