"""Repairs and rules, on made-up cases and on the real standard library."""

from __future__ import annotations

import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.data.clean import CleanRules, clean_rows, drop_reason, letters_share, repair
from modelwright.data.stdlib import stdlib_rows

PROSE = "It was the best of times, it was the worst of times.\n"


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("a\r\nb\rc", "a\nb\nc\n"),
        ("\ufeffa\x00b\x1b[0m\x85", "ab[0m\n"),
        ("cafe\u0301", "café\n"),
        ("a  \t\n\tb\u3000\n\n", "a\n\tb\n"),
        ("\n\n  a", "  a\n"),
        ("a\ud800b \U0001f600", "ab \U0001f600\n"),
        (" \n\t\n", ""),
    ],
)
def test_repair(raw, clean):
    assert repair(raw) == clean


@given(st.text(st.characters(), max_size=200))
def test_repair_reaches_a_normal_form(raw):
    once = repair(raw)
    assert repair(once) == once
    once.encode("utf-8")
    assert unicodedata.is_normalized("NFC", once)
    assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in once if c not in "\t\n")


def test_repair_is_linear_in_a_run_of_spaces():
    assert repair(" " * 1_000_000 + "x") == " " * 1_000_000 + "x\n"


VERSE = "".join(f"{a}月光，疑是{b}霜。\n" for a in "床前明山水云" for b in "地上海天风雪花鸟人")
CASES = {
    "empty": " \n",
    "too short": "Yes, indeed.",
    "over-long line": PROSE + "word " * 20_000,
    "embedded data": PROSE + "QUJDREVGR0g" * 60,
    "table of character codes": "".join(f"    '\\x{i:02x}': 0x{i:04x},\n" for i in range(99)),
    "too few letters": "".join(f"{i}, {i * i}, {i**3}\n" for i in range(30)),
    "repeated lines": "This line is said again.\n" * 5 + PROSE,
    "lines of one shape": "".join(
        f"    'name{'x' * i}': ('value{'y' * i}', None),\n" for i in range(60)
    ),
}


@pytest.mark.parametrize("reason", CASES)
def test_each_rule(reason):
    assert drop_reason(CASES[reason], CleanRules()) == reason


@pytest.mark.parametrize(
    "text",
    [
        PROSE,
        "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。\n",
        VERSE,
        "def f(x):\n    return {'a': [x ** 2 + 1, -x], 'b': (x, ~x)}\n",
        PROSE + "=" * 79 + "\n" + "-" * 79 + "\n",
        "secrets.token_bytes(16)\n\n>>> token_bytes(16)\nb'\\xebr\\x17D*t\\xae\\xd4\\xe3S\\xb6'\n",
    ],
)
def test_what_is_worth_learning_stays(text):
    assert drop_reason(repair(text), CleanRules()) is None


def test_letters_are_counted_without_escapes():
    assert letters_share(r"ab \xab 12") == 2 / 8


def test_rules_can_be_changed():
    assert drop_reason("Yes, indeed.", CleanRules(min_chars=5)) is None
    assert drop_reason(PROSE, CleanRules(min_chars=500)) == "too short"


def test_rows_without_text_pass():
    rows = [{"id": "1", "pixels": [1]}, {"id": "2", "text": "x"}]
    kept, dropped = clean_rows(rows)
    assert kept == rows[:1]
    assert [(d.id, d.reason, d.bytes) for d in dropped] == [("2", "too short", 1)]


def test_the_standard_library():
    """The tables go, and nothing that explains or computes goes with them."""
    rows = stdlib_rows()
    kept, dropped = clean_rows(rows)
    gone = {d.id: d.reason for d in dropped}
    assert gone["source:pydoc_data/topics.py"] == "lines of one shape"
    for table in ("encodings/cp1252.py", "encodings/cp437.py", "html/entities.py"):
        assert gone[f"source:{table}"] == "table of character codes"
    stay = {row["id"] for row in kept}
    for name in ("os", "bisect", "weakref", "asyncio/selector_events", "json/decoder", "locale"):
        assert f"source:{name}.py" in stay
    objects = Counter(i.partition(":")[0] for i in gone)
    assert objects["object"] < 5 and objects["topic"] == 0
    assert objects["source"] < 120
