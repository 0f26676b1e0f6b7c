"""Folders, tars and tables of pictures as rows."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from modelwright.data.inputs import input_hashes
from modelwright.data.pictures import encode_png
from modelwright.data.sources import read_rows
from modelwright.data.table_files import LOST
from modelwright.data.waterfall import whole_rows
from modelwright.errors import ModelwrightError
from modelwright.tasks.task import make_task


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


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("there", ["b.png", "a.png"])
def test_files_that_are_not_there_leave_by_row_and_path(
    tmp_path: Path, kind: str, there: str
) -> None:
    tree(tmp_path, there)
    table = tmp_path / f"labels.{kind}"
    rows = [{"path": f"{n}.png", "label": n} for n in "abc"]
    lines = {
        "csv": ["path,label", *(f"{row['path']},{row['label']}" for row in rows)],
        "jsonl": [json.dumps(row) for row in rows],
    }
    table.write_text("\n".join(lines[kind]) + "\n")
    kept, dropped = whole_rows(read_rows(str(table)))
    assert [(row["path"], row["image"]) for row in kept] == [(there, png(0))]
    lost = sorted({"a.png", "b.png", "c.png"} - {there})
    assert [one.id.partition(": ")[2] for one in dropped] == [f"path {name!r}" for name in lost]
    first = {"csv": 2, "jsonl": 1}[kind]
    assert dropped[-1].id.startswith(f"labels.{kind}:{first + 2}: ")
    assert {one.reason for one in dropped} == {LOST}
    (hashed,) = (name for name in input_hashes(str(table)) if "pictures" in name)
    assert hashed == "1 pictures"


def test_a_table_of_which_no_file_is_there_is_refused_by_row_and_path(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("path,label\na.png,cat\nb.png,dog\n")
    row = next(iter(read_rows(str(table))))
    with pytest.raises(
        ModelwrightError,
        match=r"^row labels\.csv:2: column 'path' names 'a\.png', which is no file",
    ):
        make_task("image_classification", {}).examples(row)


def test_a_table_of_texts_is_left_as_it_is(tmp_path: Path) -> None:
    table = tmp_path / "texts.csv"
    table.write_text("text,label\nsee photo.jpg,cat\nno-such.png,dog\n")
    rows = list(read_rows(str(table)))
    assert all("image" not in row for row in rows)


UNREAD = {
    "cat/phone.HEIC": "files in .heic are not read, convert them to .jpg or .png",
    "cat/film.mp4": "files in .mp4 are not read, convert them to .jpg or .png",
    "dog/drawing.svg": "files in .svg are not read, convert them to .jpg or .png",
    "dog/nameless": "files without an ending are not read",
}
BESIDE = ("cat/a.txt", "cat/a.json", "dog/Thumbs.db", "dog/.DS_Store", "LICENSE", "credits.txt")


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_not_read_is_counted_by_name_and_notes_are_no_complaint(
    tmp_path: Path, packed: bool
) -> None:
    names = ("cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png")
    source = tree(tmp_path / "pictures", *names)
    for name in (*UNREAD, *BESIDE):
        (source / name).write_bytes(b"{}")
    if packed:
        with tarfile.open(tmp_path / "pictures.tar", "w") as archive:
            archive.add(source, ".")
        source = tmp_path / "pictures.tar"
    kept, dropped = whole_rows(read_rows(str(source)))
    assert sorted(row["id"] for row in kept) == sorted(names)
    assert {one.id: one.reason for one in dropped} == UNREAD


def test_a_class_of_files_that_are_not_read_says_so(tmp_path: Path) -> None:
    tree(tmp_path, "cat/a.png", "dog/b.heic")
    with pytest.raises(ModelwrightError, match=r"dog holds no picture \(files in \.heic are not"):
        list(read_rows(str(tmp_path)))
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(tmp_path / "dog" / "b.heic", "b.heic")
    with pytest.raises(ModelwrightError, match=r"no picture in it; .*b\.heic: files in \.heic"):
        list(read_rows(str(tmp_path / "x.tar")))


def test_texts_with_a_few_figures_are_texts(tmp_path: Path) -> None:
    tree(tmp_path, "figures/a.png")
    for name in ("one.md", "two.md"):
        (tmp_path / name).write_text("Some words of a handbook.")
    assert [row["text"] for row in read_rows(str(tmp_path))] == ["Some words of a handbook."] * 2


def test_a_json_that_names_pictures_is_their_table(tmp_path: Path) -> None:
    tree(tmp_path, "files/a.png", "files/b.png")
    (tmp_path / "about.json").write_text('{"by": "us"}')
    table = [{"path": f"files/{n}.png", "label": n} for n in "ab"]
    (tmp_path / "labels.json").write_text(json.dumps(table))
    assert [row["label"] for row in read_rows(str(tmp_path))] == ["a", "b"]
