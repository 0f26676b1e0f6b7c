"""Images with labels and boxes, recordings with transcripts and speakers."""

from __future__ import annotations

import io
import json
import wave

import pytest

from modelwright.data import tree
from modelwright.data.tree import label_of, part_of
from tests.data_stage.reading import rows_of, tar_of

PNG = b"\x89PNG\r\n\x1a\n" + bytes(30)


def sound(seconds: float = 0.01) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as stream:
        stream.setparams((1, 2, 8000, 0, "NONE", ""))
        stream.writeframes(bytes(int(16000 * seconds)))
    return out.getvalue()


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_blood_cells_with_their_boxes(data):
    rows, bad = rows_of(data("bccd"))
    assert not bad and len(rows) == 364
    assert sum(len(r["meta"]["boxes"]) for r in rows) == 4888
    splits = [r["meta"]["split"] for r in rows]
    assert [splits.count(s) for s in ("train", "validation", "test")] == [205, 87, 72]
    first = rows[1]["meta"]["boxes"][0]
    assert first == {"label": "WBC", "x0": 68.0, "y0": 315.0, "x1": 286.0, "y1": 480.0}
    assert {b["label"] for r in rows for b in r["meta"]["boxes"]} == {"RBC", "WBC", "Platelets"}


def test_flowers_in_class_folders(data):
    rows, bad = rows_of(data("flowers12"))
    assert not bad and len(rows) == 960 and len({r["label"] for r in rows}) == 12
    assert sum(r["meta"]["split"] == "test" for r in rows) == 240


def test_recordings_of_digits(data):
    rows, bad = rows_of(data("fsdd"))
    assert not bad and len(rows) == 2500
    assert {r["label"] for r in rows} == set("0123456789")
    assert len({r["groups"][0] for r in rows}) == 5
    assert sum(r["meta"]["take"] < 5 for r in rows) == 250


def test_recordings_with_transcripts_and_with_intents(data):
    rows, bad = rows_of(data("kathleen"))
    assert not bad and len(rows) == 320
    assert rows[0]["text"] == "Not at this particular case, Tom, apologized Whittemore."
    assert all(r["text"] and r["label"] is None and r["mime"] == "audio/flac" for r in rows)
    rows, bad = rows_of(data("coffee_slu"))
    assert not bad and len(rows) == 40
    assert all(r["meta"]["intent"] == "orderDrink" and r["meta"]["slots"] for r in rows)


def test_the_layout_of_imagenet_cut_into_ranges(tmp_path, monkeypatch):
    names = [f"{p}/n{c}/{i}.JPEG" for p in ("train", "val") for c in range(3) for i in range(9)]
    write(tmp_path, {name: b"\xff\xd8\xff" + name.encode() for name in names})
    whole, bad = rows_of(tmp_path)
    monkeypatch.setattr(tree, "CUT_BYTES", 100)
    cut, _ = rows_of(tmp_path)
    assert cut == whole and not bad and [r["id"] for r in whole] == sorted(f"s/{n}" for n in names)
    assert whole[0]["label"] == "n0" and whole[-1]["meta"]["split"] == "validation"


def test_coco(tmp_path):
    about = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 7, "bbox": [1, 2, 10, 20]}],
    }
    write(tmp_path, {"annotations/x.json": json.dumps(about).encode()})
    write(tmp_path, {"images/a.png": PNG, "images/b.png": PNG})
    (a, b), bad = rows_of(tmp_path)
    assert a["meta"]["boxes"] == [{"label": "cat", "x0": 1.0, "y0": 2.0, "x1": 11.0, "y1": 22.0}]
    assert b["meta"]["boxes"] == [] and not bad


@pytest.mark.parametrize("note", ["a.json", "a.xml"])
def test_broken_annotations_are_told_and_pictures_read(tmp_path, note):
    broken = {"a.json": b'{"images": [{}], "annotations": []}', "a.xml": b"<annotation><object>"}
    write(tmp_path, {note: broken[note], "cat/a.png": PNG})
    (row,), (bad,) = rows_of(tmp_path)
    assert row["label"] == "cat" and "broken annotation" in bad.reason and note in bad.where


def test_what_is_no_picture_is_bad(tmp_path):
    write(tmp_path, {"cat/a.jpg": b"GIF? no", "cat/b.jpg": b"\xff\xd8\xff", "cat/c.png": b""})
    (row,), bad = rows_of(tmp_path)
    assert row["id"] == "s/cat/b.jpg"
    assert [b.reason for b in bad] == ["not an image of a known format"] * 2


def test_links_out_of_a_folder_are_refused(tmp_path):
    write(tmp_path, {"in/cat/a.png": PNG, "secret.png": PNG})
    (tmp_path / "in" / "cat" / "b.png").symlink_to(tmp_path / "secret.png")
    (row,), (bad,) = rows_of(tmp_path / "in")
    assert row["id"] == "s/cat/a.png" and "link that leads out" in bad.reason


def test_ljspeech(tmp_path):
    said = 'LJ001-0001|Printing, in 1900|Printing, in nineteen hundred\nLJ001-0002|A "b|A "b\n'
    write(tmp_path, {"LJ/metadata.csv": said.encode()})
    write(tmp_path, {f"LJ/wavs/LJ001-000{i}.wav": sound() for i in (1, 2)})
    rows, bad = rows_of(tmp_path / "LJ")
    assert not bad
    assert [r["text"] for r in rows] == ["Printing, in nineteen hundred", 'A "b']
    assert rows[0]["label"] is None and rows[0]["mime"] == "audio/wav"


def test_speech_commands(tmp_path):
    files = {f"{word}/0a7c2a8d_nohash_0.wav": sound() for word in ("yes", "no")}
    files |= {"testing_list.txt": b"yes/0a7c2a8d_nohash_0.wav\n"}
    (tmp_path / "a.tar").write_bytes(tar_of(files))
    rows, bad = rows_of(tmp_path / "a.tar", "audio")
    assert not bad and [r["label"] for r in rows] == ["yes", "no"]
    assert [r["meta"].get("split") for r in rows] == ["test", None]
    assert rows[0]["groups"] == ["speaker=0a7c2a8d"]


def test_librispeech(tmp_path):
    write(tmp_path, {"84/121/84-121-0000.flac": b"fLaC" + bytes(40)})
    write(tmp_path, {"84/121/84-121.trans.txt": b"84-121-0000 GO DO YOU HEAR\n"})
    ((row,), bad) = rows_of(tmp_path)
    assert (row["text"], row["groups"], row["label"], bad) == (
        "GO DO YOU HEAR",
        ["speaker=84"],
        None,
        [],
    )


def test_folders_that_name_no_label():
    assert label_of("train/n01/a.jpg") == "n01" and label_of("a.jpg") is None
    assert label_of("JPEGImages/a.jpg") is None and label_of("train/a.jpg") is None
    assert part_of("x/val/cat/a.jpg") == "validation" and part_of("train.jpg") is None
