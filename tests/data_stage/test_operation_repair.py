"""Damaged text put right, and sound text left alone."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.data.operations import operation


def repaired(text: str, **settings: object) -> str:
    row = {"id": "1", "text": text, "attributes": {}}
    operation("repair", settings).begin()(row)
    return row["text"]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("donâ€™t panic â€” he said", "don’t panic — he said\n"),
        ("cafÃ© crÃ¨me\r\nplain", "café crème\nplain\n"),
        ("ＡＢＣ１２３，全角。", "ABC123，全角。\n"),
        ("e\u0301te\u0301\x00", "été\n"),
        ("naïve à la carte, Ärger, Ça va", "naïve à la carte, Ärger, Ça va\n"),
        ("ﬁne x²", "ﬁne x²\n"),
    ],
)
def test_repair(raw, clean):
    assert repaired(raw) == clean


def test_settings():
    assert repaired("donâ€™t", mojibake=False) == "donâ€™t\n"
    assert repaired("Ａ，！\u3000b", full_width="all") == "A,! b\n"
    assert repaired("Ａ，", full_width="keep") == "Ａ，\n"
    assert repaired("ﬁne x²，", form="NFKC") == "fine x2,\n"


def test_how_many_lines_were_wrong_is_told():
    row = {"id": "1", "text": "itâ€™s\nfine\nitâ€™s\n", "attributes": {}}
    assert operation("repair").begin()(row) is None
    assert row["attributes"] == {"repair.mojibake_lines": 2}
    assert operation("repair").begin()({"id": "2", "text": " \x00\n"}) == "empty"


@given(st.text(max_size=80))
def test_whatever_comes_in_is_valid_text_in_its_normal_form(text):
    out = repaired(text)
    out.encode("utf-8")
    assert unicodedata.is_normalized("NFC", out)


@pytest.mark.parametrize(
    "sound", ["C’est déjà l’été à Orléans — « voilà ».", "Der Bär läßt grüßen."]
)
def test_wrong_decoding_is_undone(sound):
    wrong = sound.encode("utf-8").decode("windows-1252", "replace")
    if "\ufffd" not in wrong:
        assert repaired(wrong) == repaired(sound)
    assert repaired(sound) == sound + "\n"


def test_chinese_and_real_prose_are_left_alone(data):
    text = data("tinyshakespeare/input.txt").read_text(encoding="utf-8")[:100_000].strip("\n")
    assert repaired(text) == "".join(f"{line.rstrip()}\n" for line in text.split("\n"))
    assert repaired("他说：“今天是２０２６年。”") == "他说：“今天是2026年。”\n"
