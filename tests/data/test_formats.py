"""Each file format: what it gives, and one clear line for each way it can be wrong."""

from __future__ import annotations

import gzip
import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from modelwright.data.formats import PIECE_CHARS
from modelwright.data.sources import read_rows
from modelwright.errors import CorruptError, MachineError, ModelwrightError


def rows_of(path: Path) -> list[dict]:
    return [dict(row) for row in read_rows(str(path))]


def refused(path: Path, *said: str, error: type[ModelwrightError] = ModelwrightError) -> None:
    with pytest.raises(error) as caught:
        rows_of(path)
    message = str(caught.value)
    assert "\n" not in message
    for words in (path.name, *said):
        assert words in message, message


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_small_text_file_is_one_row(tmp_path):
    (row,) = rows_of(write(tmp_path / "a.txt", "Good day.\n"))
    assert row == {"id": "a.txt", "text": "Good day.\n", "group": "a.txt"}


def test_a_byte_order_mark_is_accepted_and_left_out(tmp_path):
    (row,) = rows_of(write(tmp_path / "a.txt", b"\xef\xbb\xbf" + "Grüße".encode()))
    assert row["text"] == "Grüße"
    (row,) = rows_of(write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text": "x"}\n'))
    assert row["text"] == "x"


@pytest.mark.parametrize("gap", ["\n\n", "\n", " "])
def test_a_large_text_file_is_cut_and_loses_nothing(tmp_path, gap):
    whole = "".join(f"Sentence number {i} ends here.{gap}" for i in range(3000))
    rows = rows_of(write(tmp_path / "corpus.txt", whole))
    assert "".join(row["text"] for row in rows) == whole
    if gap == " ":  # a single line cannot be cut
        assert len(rows) == 1
    else:
        assert len(rows) > 4
        assert all(len(row["text"]) < 2 * PIECE_CHARS + 100 for row in rows)
        lines = whole.splitlines()
        for row in rows:  # an id says on which line the piece begins
            begins = int(row["id"].rpartition(":")[2]) - 1
            assert row["text"].startswith(lines[begins])


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.jsonl", "a.csv", "a.json"])
def test_another_encoding_is_refused_with_its_place(tmp_path, name):
    content = b'{"text":"one"}\n{"text":"two"}\n{"text":"caf\xe9"}\n'
    refused(write(tmp_path / name, content), f"byte {content.index(0xE9)}, line 3", "0xe9", "iconv")


def test_utf_16_is_named(tmp_path):
    refused(write(tmp_path / "a.txt", "Good day".encode("utf-16")), "byte 0, line 1", "-f UTF-16")
    refused(write(tmp_path / "b.txt", "Good day".encode("utf-16-le")), "byte 1", "UTF-16")


def test_json_lines_keep_their_columns_and_ids(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "x", "group": 7}\n\n{"id": "k", "n": [1]}\n')
    assert rows_of(path) == [
        {"id": "a.jsonl:1", "text": "x", "group": "7"},
        {"id": "k", "n": [1], "group": "k"},
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": "x"', "column 13: not readable JSON"),
        ("{text: 1}", "column 2: not readable JSON"),
        ('["x"]', "is a JSON list"),
        ("3", "is a JSON number"),
        ('{"n": ' + "9" * 5000 + "}", "not readable JSON"),
        ("[" * 200_000, "not readable JSON"),
    ],
)
def test_a_bad_json_line_is_named(tmp_path, line, said):
    refused(write(tmp_path / "a.jsonl", f'{{"text": "x"}}\n{line}\n'), "line 2", said)


def test_json_is_a_list_of_objects(tmp_path):
    assert [r["a"] for r in rows_of(write(tmp_path / "a.json", '[{"a": 1}, {"a": 2}]'))] == [1, 2]
    refused(write(tmp_path / "b.json", '{"a": 1}'), "a JSON object", "list of objects")
    refused(write(tmp_path / "c.json", '[{"a": 1},\n{"a": }]'), "line 2, column 7")


def test_csv_and_tsv(tmp_path):
    rows = rows_of(write(tmp_path / "a.csv", 'text,label\n"two, or\nthree",x\nb,y\n'))
    assert [(r["id"], r["text"], r["label"]) for r in rows] == [
        ("a.csv:3", "two, or\nthree", "x"),
        ("a.csv:4", "b", "y"),
    ]
    assert rows_of(write(tmp_path / "a.tsv", "text\tlabel\na, b\tx\n"))[0]["text"] == "a, b"


@pytest.mark.parametrize("by", [";", "\t"])
def test_csv_as_spreadsheets_write_it(tmp_path, by):
    text = by.join(("text", "size")) + "\n" + by.join(("a, b", "1,5")) + "\n"
    (row,) = rows_of(write(tmp_path / "a.csv", text))
    assert (row["text"], row["size"]) == ("a, b", "1,5")
    (row,) = rows_of(write(tmp_path / "b.csv", "note; more,size\nx,1\n"))
    assert row["note; more"] == "x"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2\n1,2,3\n", "line 3 has 3 fields, the header has 2"),
        ("a,b\n1\n", "line 2 has 1 fields"),
        ("a,a\n1,2\n", "names column 'a' 2 times"),
        ("a,\n1,2\n", "none empty"),
        ('a,b\n1,"2\n', "check its quotes"),
        ("a,b\n", "holds no rows"),
    ],
)
def test_bad_csv(tmp_path, content, said):
    refused(write(tmp_path / "a.csv", content), said)


def test_what_stands_most_often_between_the_columns_parts_them(tmp_path):
    (row,) = rows_of(write(tmp_path / "a.csv", "text;label;a,b\nx, y;z;1\n"))
    assert (row["text"], row["label"], row["a,b"]) == ("x, y", "z", "1")
    (row,) = rows_of(write(tmp_path / "b.csv", '"a;b;c;d",label\nx,y\n'))
    assert (row["a;b;c;d"], row["label"]) == ("x", "y")


def test_a_quote_that_is_left_open_is_said_with_the_line_of_its_row(tmp_path):
    file = write(tmp_path / "a.csv", 'a,b\n1,2\n"3,4\n5,6\n"7",8\n')
    refused(file, "line 5 cannot be read", "in a row that begins on line 3): check its quotes")


def test_the_encoding_that_is_named_is_the_likely_one(tmp_path):
    for name, text, encoding in (
        ("GB18030", "这是一个句子", "gb18030"),
        ("LATIN1", "caf\u00e9 und \u00fcber", "latin-1"),
        ("UTF-16", "text", "utf-16"),
    ):
        file = write(tmp_path / f"{encoding}.csv", f"text,label\n{text},a\n".encode(encoding))
        refused(file, f"re-encode it, for example: iconv -f {name} -t UTF-8")


def test_gzip_is_unpacked_and_damage_is_found(tmp_path):
    packed = gzip.compress(b'{"text": "one"}\n' * 1000)
    path = write(tmp_path / "a.jsonl.gz", packed)
    assert len(rows_of(path)) == 1000
    refused(write(path, packed[:-20]), "damaged", error=CorruptError)
    refused(write(tmp_path / "b.txt.gz", b"plain"), "damaged", error=CorruptError)


def test_npz_rows(tmp_path):
    path = tmp_path / "a.npz"
    x = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    np.savez(path, x=x, y=np.array([1, 0, 1]), names=np.array(["cat", "dog"]), lengths=[2, 1, 2])
    rows = rows_of(path)
    assert [r["label"] for r in rows] == ["dog", "cat", "dog"]
    assert [r["y"] for r in rows] == [1, 0, 1]
    np.testing.assert_array_equal(rows[1]["x"], x[1, :1])
    np.savez(path, x=x, y=np.array(["p", "q", "p"]))
    assert [r["label"] for r in rows_of(path)] == ["p", "q", "p"]


def test_bad_npz(tmp_path):
    path = tmp_path / "a.npz"
    x = np.zeros((3, 2))
    np.savez(path, x=np.array([{}, 1, 2], dtype=object))
    refused(path, "pickled objects", "refused")
    np.savez(path, X=x)
    refused(path, "no array 'x'", "it holds: X")
    np.savez(path, x=x, y=np.zeros(2))
    refused(path, "'y' has 2 rows, 'x' has 3")
    np.savez(path, x=x, y=np.array([0, 1, 2]), names=np.array(["a", "b"]))
    refused(path, "y[2] is 2", "0 to 1")
    np.savez(path, x=np.float64(3))
    refused(path, "single value")
    np.savez(path, x=x)
    raw = path.read_bytes()
    refused(write(path, raw[:-30]), "damaged", error=CorruptError)
    refused(write(path, b"not a zip"), "damaged", error=CorruptError)


def test_an_npz_that_would_unpack_to_too_much_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr("modelwright.data.formats.MAX_ARRAY_BYTES", 1000)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros((1000, 10)))
    refused(path, "more than 1000")


def test_an_npz_with_something_else_inside(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("x.npy", b"\x93NUMPY\x01\x00garbage")
    refused(path)


def test_parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="Parquet is an extra")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"text": ["one", "two"], "n": [1, None]}), path)
    rows = rows_of(path)
    assert [(r["id"], r["text"], r["n"]) for r in rows] == [
        ("a.parquet:0", "one", 1),
        ("a.parquet:1", "two", None),
    ]
    refused(write(path, path.read_bytes()[:-9]), "not a readable Parquet", error=CorruptError)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = write(tmp_path / "a.parquet", b"PAR1")
    refused(path, "pip install 'modelwright[tables]'", error=MachineError)


def test_sequences_in_a_folder_a_label(tmp_path):
    for label, name in (("yes", "a"), ("no", "b")):
        (tmp_path / label).mkdir()
        np.save(tmp_path / label / f"{name}.npy", np.ones((3, 2)))
    write(tmp_path / "no" / "c.csv", "f1,f2\n1,2\n3,4.5\n")
    write(tmp_path / "README.md", "About these.")
    rows = rows_of(tmp_path)
    assert [(r["id"], r["label"]) for r in rows] == [
        ("no/b.npy", "no"),
        ("no/c.csv", "no"),
        ("yes/a.npy", "yes"),
    ]
    assert all(r["frames"].dtype == np.float32 for r in rows)
    np.testing.assert_array_equal(rows[1]["frames"], [[1, 2], [3, 4.5]])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("1,2\n3\n", "line 2 has 1 numbers"),
        ("1,2\n3,x\n", "line 2"),
        ("1,2\n3,nan\n", "frame 1 holds NaN"),
        ("", "shape (0, 0)"),
    ],
)
def test_bad_number_tables(tmp_path, content, said):
    (tmp_path / "yes").mkdir()
    write(tmp_path / "yes" / "a.csv", content)
    with pytest.raises(ModelwrightError, match=r"yes/a\.csv") as caught:
        rows_of(tmp_path)
    assert said in str(caught.value)


def test_bad_arrays_in_a_folder(tmp_path):
    (tmp_path / "yes").mkdir()
    path = tmp_path / "yes" / "a.npy"
    for array in (np.zeros(3), np.zeros((0, 2)), np.array([["a"]])):
        np.save(path, array)
        with pytest.raises(ModelwrightError, match=r"yes/a.npy: holds .*\(time, features\)"):
            rows_of(tmp_path)
    np.save(path, np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(ModelwrightError, match=r"yes/a.npy: not a plain .npy array"):
        rows_of(tmp_path)
    buffer = io.BytesIO()
    np.save(buffer, np.ones((30, 4)))
    write(path, buffer.getvalue()[:-50])
    with pytest.raises(ModelwrightError, match=r"yes/a.npy: not a plain .npy array"):
        rows_of(tmp_path)


def test_lone_surrogates_of_json_get_through_reading(tmp_path):
    path = write(tmp_path / "a.jsonl", json.dumps({"text": "a\ud800b"}))
    assert rows_of(path)[0]["text"] == "a\ud800b"  # cleaning repairs it
