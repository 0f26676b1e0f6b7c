"""Pictures with boxes: COCO's folders, YOLO's folders, and what their notes get wrong."""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.box_notes import EMPTY, LOST, ORPHAN
from modelwright.data.pictures import encode_png, measured
from modelwright.data.sources import read_rows
from modelwright.data.waterfall import Note, whole_rows
from modelwright.errors import ModelwrightError
from modelwright.tasks.object_detection import ObjectDetection
from modelwright.types import Example

WIDE, HIGH = 80, 60
CLASSES = ("cat", "dog", "traffic light")
Boxes = Sequence[tuple[str, float, float, float, float]]  # label, x0, y0, x1, y1


def png(seed: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    return encode_png(rng.integers(0, 256, (HIGH, WIDE, 3), dtype=np.uint8))


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def coco(pictures: Mapping[str, Boxes], **changed: Any) -> str:
    numbers = {name: i for i, name in enumerate(pictures, start=1)}
    return json.dumps({
        "images": [{"id": i, "file_name": name} for name, i in numbers.items()],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=7)],
        "annotations": [
            {
                "image_id": numbers[name],
                "category_id": 7 + CLASSES.index(label),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
            }
            for name, boxes in pictures.items()
            for label, x0, y0, x1, y1 in boxes
        ],
        **changed,
    })  # fmt: skip


def voc(boxes: Boxes) -> str:
    things = "".join(
        f"<object><name>{label}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax>"
        f"<ymax>{y1}</ymax></bndbox></object>"
        for label, x0, y0, x1, y1 in boxes
    )
    return f"<annotation>{things}</annotation>"


def yolo(boxes: Boxes) -> str:
    lines = (
        f"{CLASSES.index(label)} {(x0 + x1) / 2 / WIDE} {(y0 + y1) / 2 / HIGH} {(x1 - x0) / WIDE}"
        f" {(y1 - y0) / HIGH}\n"
        for label, x0, y0, x1, y1 in boxes
    )
    return "".join(lines)


NAMES = "names: [cat, dog, traffic light]\n"
ONE: Boxes = [("dog", 8.0, 6.0, 40.0, 30.0)]


# COCO ---------------------------------------------------------------------------------------


def test_the_folders_of_coco_are_read_with_their_parts(tmp_path: Path) -> None:
    notes = "annotations/instances_"
    captions = json.dumps({"images": [{"id": 1}], "annotations": [{"caption": "a dog"}]})
    folder = write(
        tmp_path,
        {
            "train2017/000001.png": png(1),
            "train2017/000002.png": png(2),
            "val2017/000003.png": png(3),
            f"{notes}train2017.json": coco({"000001.png": ONE, "000002.png": []}),
            f"{notes}val2017.json": coco({"000003.png": ONE}),
            "annotations/captions_train2017.json": captions,
            "annotations/person_keypoints_val2017.json": coco({"000003.png": []}),
        },
    )
    rows = list(read_rows(str(folder)))
    assert [(r["id"], r["split"], len(r["boxes"])) for r in rows] == [
        ("train2017/000001.png", "train", 1),
        ("train2017/000002.png", "train", 0),
        ("val2017/000003.png", "validation", 1),
    ]
    assert rows[0]["boxes"] == [{"label": "dog", "x0": 8.0, "y0": 6.0, "x1": 40.0, "y1": 30.0}]


def test_pictures_of_one_folder_have_the_part_that_their_notes_name(tmp_path: Path) -> None:
    files = {f"images/{n}.png": png(i) for i, n in enumerate("abc")}
    parts = {"a": "train", "b": "val", "c": "test"}
    files |= {f"instances_{p}2017.json": coco({f"{n}.png": ONE}) for n, p in parts.items()}
    rows = read_rows(str(write(tmp_path, files)))
    assert [r["split"] for r in rows] == ["train", "validation", "test"]


@pytest.mark.parametrize("packed", [False, True])
def test_what_notes_and_files_do_not_share_is_counted_by_name(tmp_path: Path, packed: bool) -> None:
    about = json.loads(coco({"a.png": ONE, "b.png": ONE, "gone.png": ONE}))
    about["annotations"].append({"image_id": 99, "category_id": 7, "bbox": [1, 2, 3, 4]})
    source = write(
        tmp_path / "set",
        {
            "images/a.png": png(1),
            "images/b.png": png(2),
            "images/c.png": png(3),
            "images/phone.heic": b"....",
            "labels.json": json.dumps(about),
        },
    )
    if packed:
        with tarfile.open(tmp_path / "set.tar", "w") as archive:
            archive.add(source, ".")
        source = tmp_path / "set.tar"
    kept, dropped = whole_rows(read_rows(str(source)))
    assert [row["boxes"] is None for row in kept] == [False, False, True]
    assert ObjectDetection().examples(kept[2]) == "no boxes given"
    assert {one.id: one.reason for one in dropped} == {
        "labels.json: annotation 4": ORPHAN,
        "gone.png": LOST,
        "images/phone.heic": "files in .heic are not read, convert them to .jpg or .png",
    }


def test_notes_on_pictures_that_are_all_gone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    folder = write(tmp_path, {"labels.json": coco({"a.png": ONE})})
    with pytest.raises(ModelwrightError, match=r"no picture in it; .*; a\.png: notes on a picture"):
        list(read_rows(str(folder)))


# YOLO ---------------------------------------------------------------------------------------

LAYOUTS = {
    "images and labels": ("images/{}/{}.png", "labels/{}/{}.txt", "data.yaml", NAMES),
    "by part": ("{}/images/{}.png", "{}/labels/{}.txt", "data.yaml", NAMES),
    "numbered": (
        "images/{}/{}.png",
        "labels/{}/{}.txt",
        "set.yml",
        "names: {0: cat, 1: dog, 2: traffic light}\n",
    ),
    "side by side": ("{}/{}.png", "{}/{}.txt", "classes.txt", "\n".join(CLASSES) + "\n"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_folders_of_yolo_are_read_with_their_parts(
    tmp_path: Path, layout: str, packed: bool
) -> None:
    picture, label, about, names = LAYOUTS[layout]
    files: dict[str, str | bytes] = {about: names}
    for part in ("train", "val"):
        for stem in ("one", "two"):  # the names of one part may be those of another
            files[picture.format(part, stem)] = png(len(files))
            files[label.format(part, stem)] = yolo(ONE) if stem == "one" else ""
    source = write(tmp_path / "set", files)
    if packed:
        with tarfile.open(tmp_path / "set.tar", "w") as archive:
            archive.add(source, ".")
        source = tmp_path / "set.tar"
    rows = list(read_rows(str(source)))
    assert sorted((r["split"], len(r["boxes"])) for r in rows) == [
        *(("train", 0), ("train", 1)),
        *(("validation", 0), ("validation", 1)),
    ]
    (box,) = next(r["boxes"] for r in rows if r["boxes"])
    assert box.pop("label") == "dog"
    assert list(box.values()) == pytest.approx([8, 6, 40, 30])


def test_a_picture_without_a_label_file_shows_nothing_and_is_counted(tmp_path: Path) -> None:
    files = {"images/a.png": png(1), "images/b.png": png(2), "labels/a.txt": yolo(ONE)}
    files |= {"images/other/c.png": png(3), "labels/gone.txt": yolo(ONE)}
    kept, dropped = whole_rows(read_rows(str(write(tmp_path, files))))
    assert [row["boxes"] and row["boxes"][0]["label"] for row in kept] == ["1", [], None]
    assert [row.get("note") for row in kept] == [None, Note(EMPTY), None]
    assert [(one.id, one.reason) for one in dropped] == [("labels/gone.txt", LOST)]


BAD = {
    "0 0.5 0.5 0.1": "line 2: 4 fields; a class and centre x, centre y, width and height",
    "0 0.1 0.1 0.2 0.2 0.3 0.3": "line 2: 7 fields; a class",
    "0 0.5 1.2 0.1 0.1": r"line 2: centre y 1\.2 is not in 0\.\.1",
    "0 40 30 20 10": r"line 2: centre x 40 is not in 0\.\.1",
    "0 0.5 0.5 0.1 nan": r"line 2: height nan is not in 0\.\.1",
    "0 0.5 0.5 0.1 wide": "line 2: height 'wide' is no number",
    "0.0 0.5 0.5 0.1 0.1": r"line 2: class '0\.0' is no number",
    "3 0.5 0.5 0.1 0.1": r"line 2: class 3, and data\.yaml names 0 to 2",
}


@pytest.mark.parametrize("line", BAD)
def test_a_bad_line_of_yolo_is_refused_by_file_and_line(tmp_path: Path, line: str) -> None:
    files = {"images/a.png": png(), "labels/a.txt": f"{yolo(ONE)}{line}\n", "data.yaml": NAMES}
    folder = write(tmp_path / "set", files)
    with pytest.raises(ModelwrightError, match=rf"^set: labels/a\.txt: {BAD[line]}") as caught:
        list(read_rows(str(folder)))
    assert "\n" not in str(caught.value)


def test_classes_that_cannot_be_told_are_refused(tmp_path: Path) -> None:
    files = {"images/a.png": png(), "labels/a.txt": yolo(ONE)}
    for i, (names, why) in enumerate({
        "names: {1: cat, 2: dog}\n": r"data\.yaml: names: the classes are not numbered 0, 1, 2",
        "names: [cat, dog\n": r"data\.yaml: broken YAML",
    }.items()):  # fmt: skip
        folder = write(tmp_path / str(i), {**files, "data.yaml": names})
        with pytest.raises(ModelwrightError, match=why):
            list(read_rows(str(folder)))
    two = write(tmp_path / "two", {**files, "classes.txt": "cat\n", "data.yaml": NAMES})
    with pytest.raises(
        ModelwrightError, match=r"data\.yaml: names other classes than classes\.txt"
    ):
        list(read_rows(str(two)))


def test_labels_that_are_words_are_no_boxes(tmp_path: Path) -> None:
    files = {"images/a.png": png(), "labels/a.txt": "a cat on a mat\n"}
    (row,) = read_rows(str(write(tmp_path, files)))
    assert "boxes" not in row


# All three ----------------------------------------------------------------------------------

sides = st.tuples(st.floats(0, 0.6), st.floats(0.05, 0.4))
boxes_of = st.lists(st.tuples(st.sampled_from(CLASSES), sides, sides), max_size=5)


@settings(max_examples=25, deadline=None)
@given(st.lists(boxes_of, min_size=1, max_size=3))
def test_yolo_coco_and_voc_of_the_same_boxes_are_the_same_rows(
    drawn: list[list[tuple[str, tuple[float, float], tuple[float, float]]]],
) -> None:
    pictures: dict[str, Boxes] = {
        f"p{i}": [
            (label, x * WIDE, y * HIGH, (x + w) * WIDE, (y + h) * HIGH)
            for label, (x, w), (y, h) in boxes
        ]
        for i, boxes in enumerate(drawn)
    }
    if not any(pictures.values()):  # a set without any box is none of VOC's or YOLO's
        pictures["p0"] = ONE
    plain = {f"images/{name}.png": png(i) for i, name in enumerate(pictures)}
    notes = {
        "yolo": {f"labels/{n}.txt": yolo(b) for n, b in pictures.items()} | {"data.yaml": NAMES},
        "coco": {"all.json": coco({f"{n}.png": b for n, b in pictures.items()})},
        "voc": {f"annotations/{n}.xml": voc(b) for n, b in pictures.items()},
    }
    found = {}
    with tempfile.TemporaryDirectory() as root:
        for kind, files in notes.items():
            folder = write(Path(root) / kind, {**plain, **files})
            found[kind] = list(read_rows(str(folder)))
    for kind, rows in found.items():
        assert [r["id"] for r in rows] == sorted(plain), kind
        for row, name in zip(rows, pictures, strict=True):
            meant, said = pictures[name], row["boxes"]
            assert [b["label"] for b in said] == [label for label, *_ in meant]
            sides_ = np.array([[b[c] for c in ("x0", "y0", "x1", "y1")] for b in said])
            assert np.allclose(sides_, np.array([b[1:] for b in meant]), atol=1e-9)
            (example,) = ObjectDetection().examples(row)
            assert isinstance(example, Example)


def test_the_blood_cells_written_as_yolo_are_the_same(
    tmp_path: Path, data: Callable[[str], Path]
) -> None:

    kinds = ("Platelets", "RBC", "WBC")
    whole, dropped = whole_rows(read_rows("bccd", path=data("bccd")))
    assert (len(whole), dropped) == (364, [])
    for row in whole[:40]:
        height, width, _ = measured(row["image"])
        name = Path(row["id"]).stem
        lines = [
            f"{kinds.index(b['label'])} {(b['x0'] + b['x1']) / 2 / width:.6f}"
            f" {(b['y0'] + b['y1']) / 2 / height:.6f} {(b['x1'] - b['x0']) / width:.6f}"
            f" {(b['y1'] - b['y0']) / height:.6f}"
            for b in row["boxes"]
        ]
        folder = {"validation": "val"}.get(row["split"], row["split"])
        write(
            tmp_path,
            {
                f"images/{folder}/{name}.jpg": row["image"],
                f"labels/{folder}/{name}.txt": "\n".join(lines),
            },
        )
    (tmp_path / "data.yaml").write_text(f"names: {list(kinds)}\n")
    found = {Path(row["id"]).stem: row for row in read_rows(str(tmp_path))}
    for row in whole[:40]:
        other = found[Path(row["id"]).stem]
        assert other["split"] == row["split"] and other["image"] == row["image"]
        for one, two in zip(row["boxes"], other["boxes"], strict=True):
            assert one["label"] == two["label"]
            assert all(abs(one[c] - two[c]) < 0.01 for c in ("x0", "y0", "x1", "y1"))
