"""Spacing, punctuation and characters of Chinese texts."""

from __future__ import annotations

import csv
import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.data.operations import operation
from modelwright.data.operations.chinese import traditional_share
from modelwright.errors import ModelwrightError


def changed(text: str, **settings: object) -> str:
    row = {"id": "1", "text": text, "attributes": {}}
    operation("chinese", settings).begin()(row)
    return row["text"]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("我 们 的 国 家 ， 很 大 。", "我们的国家，很大。"),
        ("使用 Python 写 程序", "使用 Python 写程序"),
        ("春眠不觉晓\u3000处处闻啼鸟", "春眠不觉晓\u3000处处闻啼鸟"),
        ("第一行 \n 第二行", "第一行 \n 第二行"),
        ("no ideographs here , at all", "no ideographs here , at all"),
    ],
)
def test_spacing(raw, clean):
    assert changed(raw) == clean
    assert changed(raw, spacing=False) == raw


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("今天很好,明天也好.", "今天很好，明天也好。"),
        ("你好!他说(很大声):真的?", "你好！他说（很大声）：真的？"),
        ("等等...然后", "等等……然后"),
        ("版本3.5,时间:10:30", "版本3.5,时间:10:30"),
        ("用 f(x) 和 file.txt 好", "用 f(x) 和 file.txt 好"),
        ("Hello, world.", "Hello, world."),
    ],
)
def test_punctuation(raw, clean):
    assert changed(raw, punctuation="full") == clean
    assert changed(raw, punctuation="keep") == raw


@given(st.text(st.sampled_from("中国 ,.!?()（）a1\n"), max_size=60))
def test_applied_twice_it_changes_nothing_more(text):
    once = changed(text, punctuation="full")
    assert changed(once, punctuation="full") == once
    assert len(once) <= len(text)


def test_a_table_of_characters(tmp_path):
    table = tmp_path / "table.txt"
    table.write_text("# traditional, simplified\n國\t国\n後\t后 後\n來\t来\n", "utf-8")
    assert changed("後來的國家 ok", table=str(table)) == "后来的国家 ok"
    table.write_text("國\n", "utf-8")
    with pytest.raises(ModelwrightError, match=r"line 1: not a character and its simplified"):
        changed("國", table=str(table))
    with pytest.raises(ModelwrightError, match="step chinese: table: .*absent"):
        changed("國", table=str(tmp_path / "absent"))


def test_traditional_and_simplified():
    old, new = "後來這個國家發生戰爭", "后来这个国家发生战争"
    assert traditional_share(old) == 1 and traditional_share(new) == 0
    assert traditional_share("山水人中") == 0.5
    for keep, text, reason in (
        ("simplified", old, "traditional characters"),
        ("simplified", new, None),
        ("traditional", new, "simplified characters"),
        ("traditional", old, None),
        ("traditional", "山水人中", None),
    ):
        row = {"id": "1", "text": text, "attributes": {}}
        assert operation("chinese", {"keep": keep}).begin()(row) == reason


def test_reviews_from_the_mainland_are_simplified(data):
    content = gzip.decompress(data("chnsenticorp/ChnSentiCorp_htl_all.csv.gz").read_bytes())
    texts = [line[1] for line in csv.reader(io.StringIO(content.decode("utf-8"))) if len(line) > 1]
    old = sum(traditional_share(text) > 0.5 for text in texts)
    print(f"{old} of {len(texts)} reviews are traditional")
    assert len(texts) > 7000 and old < 0.01 * len(texts)
