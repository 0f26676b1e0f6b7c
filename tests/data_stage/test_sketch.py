"""The kernel and plain Python agree on every text; the sketch says what a row is."""

from __future__ import annotations

import hashlib
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.corpus.sketch import Sketcher, exact_key, load, wanted
from modelwright.data.dedup import content_key
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.kernels import shingles
from tests.data_stage.tiny import SETTINGS, row

CHARACTERS = st.one_of(
    st.text(st.characters(exclude_categories=[])),  # lone surrogates too
    st.text(st.sampled_from("aZé\u0301İıΣσςßǅ 　\n\t\x1c\x85一龍가힣カ々𠮷\U0002fa1d_9٣\0-·")),
    st.text(st.sampled_from("aB 一"), min_size=60, max_size=200),
)


def both(ask, patch=pytest.MonkeyPatch):
    fast = ask()
    with patch.context() as context:
        context.setattr(shingles, "_kernel", lambda: None)
        return fast, ask()


@pytest.fixture(autouse=True, scope="module")
def _compiled():
    if not shingles.native():
        pytest.skip("no C++ compiler here; the plain road is all there is")


@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(CHARACTERS, min_size=1, max_size=6),
    words=st.sampled_from([1, 2, 5, 13]),
    whole=st.booleans(),
    seed=st.integers(0, 3),
)
def test_the_kernel_and_plain_python_give_the_same(texts, words, whole, seed):
    fast, slow = both(lambda: shingles.sketch(texts, 37, words=words, seed=seed))
    np.testing.assert_array_equal(fast[0], slow[0])
    np.testing.assert_array_equal(fast[1], slow[1])
    fast, slow = both(lambda: shingles.sets(texts, words, whole=whole))
    np.testing.assert_array_equal(fast[1], slow[1])
    np.testing.assert_array_equal(fast[0], slow[0])


def test_every_code_point_is_classed_alike():
    """One text with every character of Unicode between two letters, as words of their own."""
    everything = [f"a{chr(c)}b {chr(c)}" for c in range(0x110000)]
    texts = [" x ".join(everything[i : i + 4096]) for i in range(0, len(everything), 4096)]
    fast, slow = both(lambda: shingles.sketch(texts, 8, words=3))
    np.testing.assert_array_equal(fast[0], slow[0])
    np.testing.assert_array_equal(fast[1], slow[1])


@settings(max_examples=200, deadline=None)
@given(st.text(), st.text())
def test_the_exact_hash_is_that_of_composed_text_with_white_space_collapsed(a, b):
    exact, _ = shingles.sketch([a, b], 1)
    for text, found in zip((a, b), exact, strict=True):
        said = " ".join(unicodedata.normalize("NFC", text).split()).encode()
        assert found.astype("<u8").tobytes() == hashlib.blake2b(said, digest_size=16).digest()
        assert found.astype("<u8").tobytes() == content_key({"text": text})


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "猫", "坐"]), min_size=1, max_size=40)
)
def test_distinct_ngrams_are_counted_as_strings_are(words):
    text = " ".join(words)
    found = re.findall("[猫坐]|[a-z]+", text)
    grams = {tuple(found[i : i + 5]) for i in range(max(1, len(found) - 4))}
    assert len(shingles.sets([text])[0]) == len(grams)


@settings(max_examples=100, deadline=None)
@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)))
def test_common_values(a, b):
    first, second = (np.array(sorted(x), np.uint64) for x in (a, b))
    for found in both(lambda: shingles.common(first, second)):
        assert found == len(a & b)


def test_minima_of_ready_sets_are_those_of_the_texts():
    texts = [" ".join(f"w{i * j % 97}" for j in range(400)) for i in range(1, 9)] + ["", "!!", "a"]
    for found in both(lambda: shingles.minima(*shingles.sets(texts), 126, seed=4)):
        np.testing.assert_array_equal(found, shingles.sketch(texts, 126, seed=4)[1])


def test_case_form_and_white_space_do_not_count():
    one, two = "Ｔhe Straße of ΟΔΟΣ\u3000cafe\u0301 İ end", "ｔhe straße of οδος café i END"
    values, offsets = shingles.sets([one, two])
    np.testing.assert_array_equal(*np.split(values, [offsets[1]]))
    exact, _ = shingles.sketch(["a  b\n", " a b", "A b"], 1)
    assert (exact[0] == exact[1]).all()
    assert (exact[0] != exact[2]).any()


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"0 words.*1\.\.64"):
        shingles.sets(["a"], 0)
    with pytest.raises(ModelwrightError, match=r"threshold 0\.3.*0\.5 to 1"):
        wanted({"deduplicate": {"threshold": 0.3}})


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.75, 0.8, 0.9])
def test_bands_find_what_is_at_the_threshold(threshold):
    bands, rows = wanted({"deduplicate": {"threshold": threshold}}).bands
    assert 1 - (1 - threshold**rows) ** bands > 0.98
    assert bands * rows <= shingles.MOST_MINIMA


def test_a_sketch_of_many_kinds_of_rows(tmp_path):
    rows = [
        row("s/1", "one two three four five six", groups=["g", "h", "g"]),
        row("s/2", None, media=b"\x89PNG", modality="image"),
        row("s/3", "the same words", media=b"\x89PNG", modality="audio"),
        row("s/4", "e4 e5 Nf3", modality="game", parents=["s/1"]),
        row("s/5", "One  two three four five SIX"),
        row("s/6", None, modality="table", meta={"a": 1}, label="x"),
    ]
    sketcher = Sketcher(SETTINGS)
    for one in rows:
        sketcher.add(one)
    assert sketcher.save(tmp_path) == {"rows": 6, "texts": 3, "links": 3}
    exact, keys, owners = (load(tmp_path, n) for n in ("exact", "keys", "key_rows"))
    assert len(keys) == 6 + 2 * 25  # every row's exact key, and bands of texts only
    assert (keys[1:] >= keys[:-1]).all()
    assert (exact[1] == exact[2]).all()  # media count by their bytes
    assert len(np.unique(exact[:, 0])) == 5
    for i in range(6):
        assert i in owners[keys == exact_key(exact[i : i + 1, 0])]
    near = [set(keys[owners == i].tolist()) for i in (0, 4)]
    assert len(near[0] & near[1]) == 25  # case and white space change no band
    assert len(load(tmp_path, "links")) == 3
    assert len(load(tmp_path, "sides")) == 0


def test_an_empty_sketch(tmp_path):
    assert Sketcher(SETTINGS).save(tmp_path)["rows"] == 0
    assert len(load(tmp_path, "keys")) == 0


def test_a_damaged_sketch_is_said_to_be_one(tmp_path):
    Sketcher(SETTINGS).save(tmp_path)
    (tmp_path / "sketch-keys.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(CorruptError, match=r"sketch-keys\.npy: missing or damaged"):
        load(tmp_path, "keys")


def test_what_the_split_goes_by_must_be_there():
    time = SETTINGS | {"split": {"by": "time", "column": "date"}}
    with pytest.raises(ModelwrightError, match=r"row 'a' has no 'date'.*did you mean 'dates'"):
        Sketcher(time).add(row("a", "x", meta={"dates": "2020"}))
    with pytest.raises(ModelwrightError, match=r"'soon' is neither a number nor a date"):
        Sketcher(time).add(row("a", "x", meta={"date": "soon"}))
    with pytest.raises(ModelwrightError, match=r"split 'trian'.*did you mean 'train'"):
        Sketcher(SETTINGS | {"split": {"by": "given"}}).add(row("a", "x", meta={"split": "trian"}))
