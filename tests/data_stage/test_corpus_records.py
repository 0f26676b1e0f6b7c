"""Tables and tallies: what is written is read, the same rows are the same bytes, sums add up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.corpus import records
from modelwright.data.corpus.tally import Histograms, Ids, Samples, id_hash, lower_edges, summed
from modelwright.errors import CorruptError

TEXTS = st.text(st.characters(exclude_categories=()), max_size=30)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.text(max_size=10),
            "groups": st.lists(TEXTS, max_size=3),
            "text": st.none() | TEXTS,
            "media": st.none() | st.binary(max_size=20),
            "meta": st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5)),
        }
    ),
    max_size=20,
)


def write(path: Path, rows: list[dict[str, Any]]) -> bytes:
    with records.Writer(path, records.RECORD) as writer:
        for row in rows:
            writer.add(records.record_values(row), 50)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    return content


@settings(max_examples=40, deadline=None)
@given(rows=ROWS)
def test_what_is_written_is_read(rows: list[dict[str, Any]], tmp_path_factory: Any):
    path = tmp_path_factory.mktemp("t") / "records.parquet"
    content = write(path, rows)
    found = list(records.rows(path))
    assert len(found) == len(rows)
    for row, back in zip(rows, found, strict=True):
        assert back["media"] == row["media"]
        assert back["groups"] == [encoded(group) for group in row["groups"]]
        assert back["text"] == (row["text"] if row["text"] is None else encoded(row["text"]))
    assert write(path, rows) == content


def encoded(text: str) -> str:
    """The text with U+FFFD for lone halves of pairs."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def test_row_groups_stay_small(tmp_path: Path):
    path = tmp_path / "records.parquet"
    text = "a line of some words " * 500_000  # 10 MB
    with records.Writer(path, records.RECORD) as writer:
        for number in range(12):
            writer.add(records.record_values({"id": str(number), "text": text}), len(text))
    stored = pq.ParquetFile(path)
    sizes = [stored.metadata.row_group(i).num_rows for i in range(stored.num_row_groups)]
    assert sizes == [4, 4, 4]
    assert 4 * len(text) < 64 << 20
    assert [name for name, _ in records.texts(path)] == [str(n) for n in range(12)]


@pytest.mark.parametrize("damage", ["cut", "flipped", "no table", "gone"])
def test_damage_is_told_with_the_file(tmp_path: Path, damage: str):
    path = tmp_path / "records.parquet"
    rng = np.random.default_rng(1)
    rows = [{"id": str(i), "text": rng.bytes(40).hex()} for i in range(200)]
    content = bytearray(write(path, rows))
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
    elif damage == "no table":
        content = bytearray(b"a note")
    path.write_bytes(content)
    if damage == "gone":
        path.unlink()
    with pytest.raises(CorruptError, match=r"records\.parquet: (damaged|missing)"):
        list(records.rows(path))


@settings(deadline=None)
@given(st.lists(st.text(max_size=8)), st.randoms())
def test_the_checksum_knows_no_order_but_every_row(ids: list[str], chance: Any):
    whole, parts = Ids(), [Ids(), Ids()]
    for id_ in ids:
        whole.add(id_hash(id_))
    mixed = ids[:]
    chance.shuffle(mixed)
    for number, id_ in enumerate(mixed):
        parts[number % 2].add(id_hash(id_))
    assert summed(part.facts() for part in parts) == whole.facts()
    if ids:  # one row lost and another doubled
        other = Ids()
        for id_ in [*ids[1:], ids[0] + "'"]:
            other.add(id_hash(id_))
        assert other.facts() != whole.facts()
        assert other.rows == whole.rows


NUMBERS = st.floats(-1e9, 1e9, allow_nan=False)


@settings(deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=200), st.integers(0, 200))
def test_histograms_of_parts_add_up(values: list[float], cut: int):
    def bins(part: list[float]) -> dict[str, int]:
        made = Histograms()
        for value in part:
            made.add("a.b", value)
        found = made.facts()
        return found["a.b"]["bins"] if found else {}

    whole, first, rest = bins(values), bins(values[:cut]), bins(values[cut:])
    assert whole == {k: first.get(k, 0) + rest.get(k, 0) for k in whole}
    assert sum(whole.values()) == len(values)


@settings(deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=50))
def test_a_value_is_not_below_its_bin(values: list[float]):
    array = np.array(values)
    edges = lower_edges(array)
    assert (edges <= array + 1e-3 * np.abs(array) + 1e-9).all()
    inner = (array >= 0) & (array <= 1)
    assert (array[inner] - edges[inner] < 0.02 + 1e-6).all()


def test_a_histogram_counts_words_and_leaves_lists_out():
    made = Histograms()
    for value in ("en", "zh", "en", [1, 2], float("nan"), True):
        made.add("x.y", value)
    found = made.facts()["x.y"]
    assert found["values"] == {"en": 2, "zh": 1}
    assert found["bins"] == {"1": 1}
    json.dumps(found, allow_nan=False)


@settings(deadline=None)
@given(st.permutations(list(range(30))))
def test_samples_are_the_same_in_any_order(order: list[int]):
    made = Samples()
    for number in order:
        key = id_hash(str(number)) / 2**64
        if made.wants("kept", key):
            made.add("kept", key, number, {"id": str(number)})
    keys = sorted(id_hash(str(number)) / 2**64 for number in order)
    assert [sample["key"] for sample in made.facts()] == keys[:4]
