"""Names, folders and data sets: what is found, and what is said when it is not."""

from __future__ import annotations

import gzip
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from modelwright.data.sources import data_root, read_idx, read_rows, require_columns
from modelwright.errors import CorruptError, MachineError, ModelwrightError


def refused(source: str, *said: str, path: Path | None = None) -> None:
    with pytest.raises(ModelwrightError) as caught:
        list(read_rows(source, path=path))
    assert "\n" not in str(caught.value)
    for words in said:
        assert words in str(caught.value)


def test_a_folder_of_texts(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.md").write_text("Two.")
    (tmp_path / "one.txt").write_text("One.")
    (tmp_path / ".hidden.txt").write_text("No.")
    rows = list(read_rows(str(tmp_path)))
    assert [(r["id"], r["text"], r["group"]) for r in rows] == [
        ("b/two.md", "Two.", "b/two.md"),
        ("one.txt", "One.", "one.txt"),
    ]


def test_a_folder_of_tables_beside_a_readme(tmp_path):
    (tmp_path / "README.md").write_text("About.")
    for part in "ab":
        (tmp_path / f"{part}.jsonl").write_text('{"text": "x"}\n')
    assert [r["id"] for r in read_rows(str(tmp_path))] == ["a.jsonl:1", "b.jsonl:1"]


def test_missing_and_mistaken_paths(tmp_path):
    (tmp_path / "corpus.txt").write_text("x")
    refused(str(tmp_path / "corpsu.txt"), "no such file", "did you mean 'corpus.txt'?")
    refused("python-stdlb", "did you mean 'python-stdlib'?")
    refused("minst", "did you mean 'mnist'?", path=tmp_path)
    (tmp_path / "table.csv").mkdir()
    refused(str(tmp_path / "table.csv"), "is a folder", "name a file in it")
    (tmp_path / "book.pdf").write_text("x")
    refused(str(tmp_path / "book.pdf"), "cannot be read; readable: .txt")
    os.mkfifo(tmp_path / "pipe.txt")
    refused(str(tmp_path / "pipe.txt"), "not a regular file")


def test_empty_sources(tmp_path):
    (tmp_path / "empty.txt").touch()
    refused(str(tmp_path / "empty.txt"), "empty.txt: the file is empty")
    (tmp_path / "blank.txt").write_text(" \n\n")
    refused(str(tmp_path / "blank.txt"), "the source is empty, its 1 texts are blank")
    (tmp_path / "folder").mkdir()
    refused(str(tmp_path / "folder"), "nothing readable", "no files")
    (tmp_path / "folder" / "x.pdf").touch()
    refused(str(tmp_path / "folder"), "nothing readable", ".pdf")
    (tmp_path / "folder" / "x.txt").touch()
    refused(str(tmp_path / "folder"), "the source is empty")


def test_a_folder_of_several_kinds_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("a\n1\n")
    (tmp_path / "b.jsonl").write_text("{}")
    refused(str(tmp_path), "mixes .csv, .jsonl")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that cannot be read")
def test_an_unreadable_file(tmp_path):
    for name in ("a.txt", "a.csv", "a.npz"):
        (tmp_path / name).symlink_to("/proc/self/mem")
        with pytest.raises(ModelwrightError, match=name):
            list(read_rows(str(tmp_path / name)))


def test_an_id_met_twice_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": 1, "text": "x"}\n{"id": 1, "text": "y"}\n')
    refused(str(tmp_path / "a.jsonl"), "two rows have the id '1'")


def test_columns_are_required():
    rows = [{"id": "1", "text": "x", "label": "a"}, {"id": "2", "text": "x"}]
    require_columns(rows, ["text"], "a.csv")
    with pytest.raises(ModelwrightError, match=r"a.csv: no column 'lable' \(did you mean 'label'"):
        require_columns(rows, ["lable"], "a.csv")
    with pytest.raises(ModelwrightError, match=r"a\.csv: row '2' has no 'label'"):
        require_columns(rows, ["label"], "a.csv")


def test_the_data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELWRIGHT_DATA", str(tmp_path))
    assert data_root() == tmp_path
    refused("mnist", "mnist does not exist", "MODELWRIGHT_DATA=DIR")
    monkeypatch.setenv("MODELWRIGHT_DATA", str(tmp_path / "none"))
    refused("mnist", "no such folder: correct or unset it")
    monkeypatch.delenv("MODELWRIGHT_DATA")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert data_root() is None
    refused("fsdd", "no data folder is known", "https://", "MODELWRIGHT_DATA=DIR")
    (tmp_path / "shared" / "data").mkdir(parents=True)
    assert data_root() == Path("..", "shared", "data")


def test_digits():
    pytest.importorskip("sklearn", reason="scikit-learn is an extra")
    rows = list(read_rows("digits"))
    assert len(rows) == 1797
    assert {r["label"] for r in rows} == set("0123456789")
    pixels = np.stack([r["pixels"] for r in rows])
    assert pixels.shape == (1797, 8, 8) and pixels.dtype == np.uint8
    assert pixels.max() == 255 and len(np.unique(pixels)) == 17


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MachineError, match=r"pip install 'modelwright\[digits\]'"):
        list(read_rows("digits"))


def test_mnist(data):
    rows = list(read_rows("mnist", path=data("mnist")))
    assert Counter(r["split"] for r in rows) == {"train": 60_000, "test": 10_000}
    assert rows[0]["pixels"].shape == (28, 28) and rows[0]["pixels"].dtype == np.uint8
    assert "".join(r["label"] for r in rows[:10]) == "5041921314"  # as everyone knows it
    assert rows[60_000]["id"] == "test:0" and rows[60_000]["label"] == "7"
    assert abs(np.mean([r["pixels"].mean() for r in rows[:60_000]]) / 255 - 0.1307) < 1e-3


def test_damaged_mnist(data, tmp_path):
    names = sorted(p.name for p in data("mnist").glob("*.gz"))
    for name in names:
        shutil.copyfile(data("mnist") / name, tmp_path / name)
    victim = tmp_path / "train-labels-idx1-ubyte.gz"
    raw = gzip.decompress(victim.read_bytes())
    victim.write_bytes(victim.read_bytes()[:1000])
    refused("mnist", victim.name, "damaged", path=tmp_path)
    victim.write_bytes(gzip.compress(raw[:-5]))
    refused("mnist", victim.name, "59995", "60000", path=tmp_path)
    victim.unlink()
    refused("mnist", f"{victim.name} is missing", path=tmp_path)


def test_idx_files(tmp_path):
    path = tmp_path / "a-ubyte"
    path.write_bytes(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6]))
    np.testing.assert_array_equal(read_idx(path, 2), [[1, 2, 3], [4, 5, 6]])
    with pytest.raises(CorruptError, match="not an idx file of 3"):
        read_idx(path, 3)


def test_fsdd(data):
    rows = list(read_rows("fsdd", path=data("fsdd")))
    assert len(rows) == 2500
    assert all(
        r["samples"].dtype == np.float32 and r["samples"].ndim == 1 and r["rate"] == 8000
        for r in rows
    )
    assert 0.1 < max(float(np.abs(r["samples"]).max()) for r in rows) <= 1
    seconds = sum(len(r["samples"]) / r["rate"] for r in rows)
    assert round(seconds / 60, 1) == 19.0  # as its index says
    speakers = {r["speaker"] for r in rows}
    assert Counter(r["split"] for r in rows)["test"] == len(speakers) * 10 * 5
    assert all((r["take"] < 5) == (r["split"] == "test") for r in rows)


def test_recordings_that_are_not_what_they_should_be(tmp_path):
    refused("fsdd", "no .wav recordings", path=tmp_path)
    (tmp_path / "7_anna_3.wav").write_bytes(b"RIFF")
    refused("fsdd", "7_anna_3.wav", "damaged", path=tmp_path)
    (tmp_path / "7_anna_3.wav").rename(tmp_path / "seven.wav")
    refused("fsdd", "seven.wav is not named digit_speaker_take.wav", path=tmp_path)
