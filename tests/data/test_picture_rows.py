"""Folders, tars and tables of pictures as rows."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from modelwright.data.inputs import input_hashes
from modelwright.data.pictures import encode_png
from modelwright.data.sources import read_rows
from modelwright.errors import ModelwrightError


def png(seed: int) -> bytes:
    return encode_png(np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8))


def tree(folder: Path, *names: str) -> Path:
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(i))
    return folder


def test_a_folder_a_class_is_read_in_order(tmp_path: Path) -> None:
    tree(tmp_path, "train/cat/a.png", "train/dog/b.png", "val/cat/c.png", ".hidden/x/y.png")
    (tmp_path / "README.md").write_text("about")
    rows = list(read_rows(str(tmp_path)))
    assert [(r["id"], r["label"], r["split"]) for r in rows] == [
        ("train/cat/a.png", "cat", "train"),
        ("train/dog/b.png", "dog", "train"),
        ("val/cat/c.png", "cat", "validation"),
    ]
    assert rows[0]["image"] == png(0)


def test_folders_without_parts_name_no_split(tmp_path: Path) -> None:
    rows = list(read_rows(str(tree(tmp_path, "cat/a.png", "dog/b.png"))))
    assert [r.get("split") for r in rows] == [None, None]
    plain = list(read_rows(str(tree(tmp_path / "flat", "images/a.png"))))
    assert "label" not in plain[0]


def test_a_class_without_pictures_is_named(tmp_path: Path) -> None:
    tree(tmp_path, "train/cat/a.png", "train/dog/b.png")
    (tmp_path / "train" / "cow").mkdir()
    with pytest.raises(ModelwrightError, match=r"train/cow holds no picture"):
        list(read_rows(str(tmp_path)))


def test_a_tar_is_read_like_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "pictures.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for i, name in enumerate(("train/cat/a.png", "test/dog/b.jpg", "train/notes.txt")):
            member = tarfile.TarInfo(name)
            member.size = len(png(i))
            archive.addfile(member, io.BytesIO(png(i)))
    rows = list(read_rows(str(path)))
    assert [(r["id"], r["label"], r["split"]) for r in rows] == [
        ("train/cat/a.png", "cat", "train"),
        ("test/dog/b.jpg", "dog", "test"),
    ]
    empty = tmp_path / "none.tar"
    with tarfile.open(empty, "w"):
        pass
    with pytest.raises(ModelwrightError, match=r"none\.tar: no picture in it"):
        list(read_rows(str(empty)))


@pytest.mark.parametrize("whole", [True, False])
def test_a_table_names_the_files(tmp_path: Path, whole: bool) -> None:
    tree(tmp_path, "files/a.png", "files/b.png")
    table = tmp_path / "labels.csv"
    table.write_text("path,label\nfiles/a.png,cat\nfiles/b.png,dog\n")
    rows = list(read_rows(str(tmp_path if whole else table)))
    assert [(r["image"], r["label"]) for r in rows] == [(png(0), "cat"), (png(1), "dog")]
    before = input_hashes(str(table))
    (tmp_path / "files" / "b.png").write_bytes(png(9))
    assert input_hashes(str(table)) != before


def test_a_file_that_is_not_there_is_named_with_its_row(tmp_path: Path) -> None:
    tree(tmp_path, "a.png")
    table = tmp_path / "labels.csv"
    table.write_text("path,label\na.png,cat\nb.png,dog\n")
    with pytest.raises(
        ModelwrightError, match=r"labels\.csv: row labels\.csv:3: path 'b\.png': cannot be read"
    ):
        list(read_rows(str(table)))


def test_a_table_of_texts_is_left_as_it_is(tmp_path: Path) -> None:
    table = tmp_path / "texts.csv"
    table.write_text("text,label\nsee photo.jpg,cat\nno-such.png,dog\n")
    rows = list(read_rows(str(table)))
    assert all("image" not in row for row in rows)
