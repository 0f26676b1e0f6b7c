"""Counts of a text: the compiled kernel against Python, and both against what can be seen."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelwright.kernels.text_stats import (
    TextStats,
    gram_hashes,
    native,
    plain_stats,
    plain_words,
    text_stats,
    words,
)

needs_kernel = pytest.mark.skipif(not native(), reason="no C++ compiler here")

PIECES = (
    "the", "The", "BE", "with", "a", "of", "word", "well-known", "don’t", "x_1", "42", "1st", "é",
    "e\u0301", "\u0301", "的", "是", "中国", "〇", "々", "カナ", "ひら", "한국", "слово", "كلمة",
    "ไทย", ".", "...", "....", "…", "!", "?", "。", "！？", "\"", "'", "”", "」", ")", "#", "{",
    "}", "•", "- ", "* ", "-", "lorem", "Lorem Ipsum", "ipsum", " ", "  ", "\n", "\n\n", "\t",
    "\u3000", "\x85", "\u2028", "\r", "\x00", "\ud800", "\U0001f600", "\U000e0100", "\U0010ffff",
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)
FEW = st.lists(st.sampled_from(["a ", "b ", "中", "\n", "a b "]), max_size=120).map("".join)


@needs_kernel
@given(TEXTS | FEW | st.text(st.characters(), max_size=200))
@example("lorem ipsum")
@example("a" * 70_000)
@example("\ud800")
def test_the_kernel_counts_what_python_counts(text):
    assert text_stats(text) == plain_stats(text)
    assert text_stats(text, grams=False) == plain_stats(text, grams=False)
    for mine, other in zip(words(text), plain_words(text), strict=True):
        np.testing.assert_array_equal(mine, other)


@needs_kernel
@pytest.mark.parametrize("name", ["english_novels/novels.tar.xz", "chinese_poetry/poetry.tar.xz"])
def test_the_kernel_counts_what_python_counts_in_real_text(data, name):
    with tarfile.open(data(name)) as archive:
        member = next(m for m in archive if m.isfile() and m.size > 100_000)
        stored = archive.extractfile(member)
        assert stored is not None
        text = stored.read().decode("utf-8")[:150_000]
    assert text_stats(text) == plain_stats(text)
    np.testing.assert_array_equal(words(text)[0], plain_words(text)[0])


def test_without_a_compiler_it_is_the_same(tmp_path: Path):
    program = (
        "import json; from modelwright.kernels.text_stats import *;"
        "t = 'The cat sat. 中国的人。\\nThe cat sat. 中国的人。\\n';"
        "print(json.dumps([native(), text_stats(t), gram_hashes(words(t)[0], 3).tolist()]))"
    )
    told = []
    for kernels in ("0", "1"):
        environment = os.environ | {"MODELWRIGHT_KERNELS": kernels}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=environment, check=True, capture_output=True)
        told.append(json.loads(done.stdout))
    assert told[0][0] is False
    assert told[0][1:] == told[1][1:]


def counted(text: str, **fields: int) -> None:
    stats = text_stats(text)
    assert {name: getattr(stats, name) for name in fields} == fields


def test_words_in_scripts_with_and_without_spaces():
    counted("It's a well-known fact, isn't it?", words=6, signs=0, stop_words=0)
    counted("中国人的语言", words=6, unspaced=6, word_chars=6, chinese_stop_words=1, han=6)
    counted("한국어 문장", words=2, hangul=5)
    counted("русский язык", words=2, cyrillic=11)
    counted("= 12 | a", words=2, signs=2, alpha_words=1)
    counted("GPT模型", words=3, latin=3, han=2)


def test_lines_paragraphs_and_sentences():
    text = "Said once.\nSaid twice!\n\n  Said twice!\n• a thing\n- another\n-- none\nwait...\n"
    counted(text, lines=7, repeated_lines=1, repeated_line_chars=11, paragraphs=2)
    counted(text, bullet_lines=2, ellipsis_lines=1, ended_lines=4, short_lines=7, sentences=4)
    counted("A.\nB.\n\nC\n\nA.\nB.", repeated_paragraphs=1, repeated_paragraph_chars=4)
    counted("好。好！」他说", sentences=2)
    counted('3.14 e.g. he said "yes." and left', sentences=2)


def test_grams_by_hand():
    counted("a b a b a b", top_2=6, top_3=6, top_4=8)  # a b three times; aba, bab; abab twice
    ten = "one two three four five six seven eight nine ten"
    letters = len(ten.replace(" ", ""))
    counted(f"{ten} {ten}", **{f"repeated_{n}": letters for n in range(5, 11)})
    counted(f"{ten} {ten[4:]}", repeated_9=letters - 3, repeated_10=0)


@given(FEW)
def test_grams_against_the_definition(text):
    """Top n-grams straight from their definition, without following them from length to length."""
    found = re.findall("[ab]|中", text)
    for n in (2, 3, 4):
        times = Counter(tuple(found[i : i + n]) for i in range(len(found) - n + 1))
        most = max(times.values(), default=0)
        assert getattr(text_stats(text), f"top_{n}") == (most * n if most > 1 else 0)


@given(TEXTS, st.integers(1, 15))
def test_gram_hashes_tell_runs_of_words_apart(text, n):
    hashes, starts, ends = words(text)
    grams = gram_hashes(hashes, n)
    assert len(grams) == max(0, len(hashes) - n + 1)
    runs = [tuple(hashes[i : i + n].tolist()) for i in range(len(grams))]
    assert len(set(grams.tolist())) == len(set(runs))
    assert np.all(starts < ends) and np.all(ends[:-1] <= starts[1:])


def test_words_are_hashed_in_lower_case():
    assert words("The CAT")[0].tolist() == words("the cat")[0].tolist()
    assert len(TextStats._fields) == len(set(TextStats._fields))
