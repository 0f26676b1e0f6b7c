"""Text, JSON, tables: what is read is what was written, however it is packed and cut."""

from __future__ import annotations

import bz2
import csv
import io
import json
import lzma

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from modelwright.data import parts
from modelwright.data.lines import sniff
from tests.data_stage.reading import gz, rows_of, tar_of, texts_of

PACKED = {
    "": bytes,
    ".gz": gz,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
CHINESE = "秦川雄帝宅，函谷壮皇居。这是我们的中国，在这里的人有他们的国家。\n" * 20


@pytest.mark.parametrize("suffix", PACKED)
def test_jsonl_in_every_packing(tmp_path, suffix):
    lines = [json.dumps({"text": f"säge {i}", "n": i}) for i in range(1000)]
    (tmp_path / f"a.jsonl{suffix}").write_bytes(PACKED[suffix]("\n".join(lines).encode()))
    rows, bad = rows_of(tmp_path)
    assert not bad and [row["meta"]["n"] for row in rows] == list(range(1000))
    assert rows[6]["id"] == f"s/a.jsonl{suffix}:7" and rows[6]["license"] == "CC0"


def test_two_frames_of_zstandard_and_xz_are_one_stream(tmp_path):
    for suffix in (".xz", ".zst", ".gz", ".bz2"):
        file = tmp_path / f"a.txt{suffix}"
        file.write_bytes(PACKED[suffix](b"one ") + PACKED[suffix](b"two"))
        assert texts_of(file) == ["one two"]


@pytest.mark.parametrize("kind", ["text", "jsonl", "table", "pgn"])
def test_cutting_changes_no_row(tmp_path, monkeypatch, kind):
    contents = {
        "text": "".join(f"line {i}\n" + "\n" * (i % 7 == 0) for i in range(3000)),
        "jsonl": "".join(json.dumps({"text": f"t {i} " * (i % 9)}) + "\n" for i in range(2000)),
        "table": "text,n\n" + "".join(f'"a\n""b"" {i}",{i}\n' for i in range(2000)),
        "pgn": "".join(f'[Event "{i}"]\n[Site "x"]\n\n1. e4 e5 1-0\n\n' for i in range(900)),
    }
    suffix = {"text": "txt", "jsonl": "jsonl", "table": "csv", "pgn": "pgn"}[kind]
    file = tmp_path / f"a.{suffix}"
    file.write_text(contents[kind])
    settings = {"separator": ""} if kind == "text" else {}
    whole, bad = rows_of(file, **settings)
    monkeypatch.setattr(parts, "CUT_BYTES", 5000)
    cut, also = rows_of(file, **settings)
    assert not bad and not also and len(whole) > 400
    assert [r["id"] for r in cut] == [r["id"] for r in whole]
    assert cut == whole


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=30))
def test_csv_round_trip(tmp_path_factory, values):
    written = io.StringIO(newline="")
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(["text", "n"])
    values = [v.replace("\0", "").replace("\r", "") for v in values]
    writer.writerows([v, i] for i, v in enumerate(values))
    file = tmp_path_factory.mktemp("csv") / "a.csv"
    file.write_text(written.getvalue(), encoding="utf-8", newline="")
    rows, bad = rows_of(file, "table", delimiter=",", encoding="utf-8")
    assert not bad and [row["text"] for row in rows] == values


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_the_delimiter_is_found(tmp_path, delimiter):
    rows = [["text", "label"], ["a, b and c", "x"], ["d", "y"]]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    (tmp_path / "a.csv").write_text(text.getvalue())
    found, bad = rows_of(tmp_path)
    assert not bad and [(r["text"], r["label"]) for r in found] == [("a, b and c", "x"), ("d", "y")]


def test_columns_mean_what_the_settings_say(tmp_path):
    record = {"content": "x", "y": 3, "author": "Li", "key": "k1", "more": [1, None, 2.5]}
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    ((row,), bad) = rows_of(tmp_path, text="content", label="y", group="author", key="key")
    assert not bad
    assert (row["text"], row["label"], row["id"]) == ("x", "3", "s/a.jsonl:k1")
    assert row["groups"] == ["author=Li"]
    assert row["meta"] == {"author": "Li", "more": [1, None, 2.5]}


def test_json_lists_objects_and_nested_lists(tmp_path):
    (tmp_path / "a.json").write_text('[{"text": "one"}, {"text": ["two", "lines"]}]')
    assert texts_of(tmp_path / "a.json") == ["one", "two\nlines"]
    (tmp_path / "b.json").write_text('{\n "data": [{"text": "x"}]}')
    assert texts_of(tmp_path / "b.json", field="data") == ["x"]
    (tmp_path / "c.json").write_text('{"text": "a"}\n{"text": "b"}\n')
    assert texts_of(tmp_path / "c.json") == ["a", "b"]


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("gb18030", "gb18030"), ("utf-16", "utf-16"), ("utf-16-le", "utf-16-le"), ("utf-8-sig", "")],
)
def test_other_encodings_are_guessed_and_told(tmp_path, encoding, name):
    (tmp_path / "a.txt").write_bytes(CHINESE.encode(encoding))
    if encoding == "utf-16-le":  # without a mark only Latin text can be told by its zeros
        (tmp_path / "a.txt").write_bytes(("plain words\n" * 50).encode(encoding))
    ((row,), bad) = rows_of(tmp_path / "a.txt")
    assert not bad
    assert row["text"] in (CHINESE, "plain words\n" * 50)
    assert row["meta"].get("encoding", "") == name


def test_sniffing():
    assert sniff(b"plain") == "utf-8"
    assert sniff("déjà vu".encode()) == "utf-8"
    assert sniff(("Wörter " * 500).encode()[:-3] + b"\xc3") == "utf-8"  # cut within a character
    assert sniff(b"abc\xff" + b"x" * 4000) == "utf-8"  # one broken byte is an accident
    assert sniff((CHINESE * 3).encode("gbk")) == "gb18030"


def test_documents_of_a_text_file(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("one\n<|end|>\ntwo\nlines\n<|end|>\n")
    rows, _ = rows_of(file, separator="<|end|>")
    assert [(r["id"], r["text"]) for r in rows] == [("s/1", "one\n"), ("s/3", "two\nlines\n")]
    assert {tuple(r["groups"]) for r in rows} == {("s",)}  # one file keeps together
    long = "\n\n".join("x" * 90 for _ in range(100))
    file.write_text(long)
    rows, _ = rows_of(file, longest=1000)
    assert len(rows) > 5 and "".join(r["text"] for r in rows) == long


def test_members_of_archives(tmp_path):
    members = {"pos/1.txt": b"good", "train/neg/2.txt.gz": gz(b"bad"), "x.bin": b"no"}
    (tmp_path / "a.tar.gz").write_bytes(gz(tar_of(members)))
    rows, bad = rows_of(tmp_path / "a.tar.gz", labels=True)
    assert not bad
    assert [(r["id"], r["text"], r["label"]) for r in rows] == [
        ("s/pos/1.txt", "good", "pos"),
        ("s/train/neg/2.txt.gz", "bad", "neg"),
    ]
    assert rows[1]["meta"]["split"] == "train" and rows[0]["groups"] != rows[1]["groups"]


def test_a_plain_tar_is_cut_between_members(tmp_path, monkeypatch):
    members = {f"{i}.txt": f"text {i} ".encode() * 100 for i in range(50)}
    (tmp_path / "a.tar").write_bytes(tar_of(members))
    whole = rows_of(tmp_path / "a.tar")
    monkeypatch.setattr(parts, "CUT_BYTES", 5000)
    assert len(parts.cut_lines(tmp_path / "a.tar")) > 5
    assert rows_of(tmp_path / "a.tar") == whole and len(whole[0]) == 50


def test_parquet_and_arrow(tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from modelwright.data.readers import arrow, parquet

    table = pa.table({"text": [f"t{i}" for i in range(500)], "label": list(range(500))})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=50)
    with pa.ipc.new_file(str(tmp_path / "b.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=50)
    with pa.ipc.new_stream(str(tmp_path / "c.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=50)
    for module in (arrow, parquet):
        monkeypatch.setattr(module, "CUT_BYTES", 1500)
    for name in ("a.parquet", "b.arrow", "c.arrow"):
        rows, bad = rows_of(tmp_path / name)
        assert not bad and [r["text"] for r in rows] == table["text"].to_pylist(), name
        assert rows[-1]["id"] == "s/500" and rows[-1]["label"] == "499"
    assert len(parquet.Reader().cut(tmp_path / "a.parquet")) > 1
    assert len(arrow.Reader().cut(tmp_path / "b.arrow")) > 1


def test_pictures_in_parquet_as_the_hub_stores_them(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    png = b"\x89PNG\r\n\x1a\n" + bytes(20)
    column = pa.array([{"bytes": png, "path": "a.png"}, {"bytes": None, "path": "b.png"}])
    pq.write_table(pa.table({"image": column, "label": [3, 4]}), tmp_path / "a.parquet")
    ((row,), (bad,)) = rows_of(tmp_path, media="image")
    assert (row["modality"], row["mime"], row["media"]) == ("image", "image/png", png)
    assert bad.reason == "column 'image' holds no bytes"


def test_real_texts(data):
    rows, bad = rows_of(data("english_novels"))
    assert not bad and len({r["groups"][0] for r in rows}) == 57
    assert sum(len(r["text"].encode()) for r in rows) > 40_000_000
    rows, bad = rows_of(data("chnsenticorp"), text="review")
    assert len(rows) + len(bad) == 7766 and sum(r["label"] == "1" for r in rows) == 5322
    rows, bad = rows_of(data("tatoeba_en_zh"), header=("en", "zh"), text="en")
    assert not bad and len(rows) == 18085 and rows[0]["meta"] == {"zh": "嗨。"}
    assert len(texts_of(data("gsm8k"), text="question")) == 7473
    assert len(texts_of(data("imdb"))) == 25000
    rows, bad = rows_of(data("chinese_poetry"), text="paragraphs")
    assert len(rows) > 30_015 and all("no column" in b.reason for b in bad)
