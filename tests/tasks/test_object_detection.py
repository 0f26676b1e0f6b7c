"""From notes of Pascal VOC and COCO to boxes: rows, reasons, measures, a run, and its answers."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modelwright import api
from modelwright.cli import main
from modelwright.data.codecs import fit_codec
from modelwright.data.pictures import encode_png
from modelwright.data.sources import read_rows
from modelwright.errors import EXIT_USAGE, ModelwrightError
from modelwright.runs import Run
from modelwright.tasks.box_scores import Usual, average_precision, f1, overlap
from modelwright.tasks.object_detection import ObjectDetection
from modelwright.types import Box, Example, Image, Row, Turn

STAGE = {"batch": 4, "threads": 1, "compile": False, "precision": "float32"}
SMALL = {"family": "detector", "depths": [1, 1, 1, 1], "widths": [4, 4, 6, 8], "stem_width": 4,
         "width": 8, "layers": 1}  # fmt: skip


def scene(seed: int, height: int = 60, width: int = 80) -> tuple[bytes, list[tuple[Any, ...]]]:
    """A picture with a red and perhaps a blue rectangle, and (label, left, top, right, bottom)."""
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 90, np.uint8)
    found: list[tuple[Any, ...]] = []
    for label, channel in (("red", 0), ("blue", 2))[: 1 + seed % 2]:
        left, top, wide, tall = (int(n) for n in rng.integers([0, 0, 12, 12], [40, 30, 30, 25]))
        pixels[top : top + tall, left : left + wide] = 0
        pixels[top : top + tall, left : left + wide, channel] = 255
        found.append((label, left, top, left + wide, top + tall))
    return encode_png(pixels), found


def xml(boxes: list[tuple[Any, ...]]) -> str:
    things = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin>"
        f"<xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for name, a, b, c, d in boxes
    )
    return f"<annotation>{things}</annotation>"


def voc(folder: Path, count: int = 12) -> Path:
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    stems = [f"p{i:02d}" for i in range(count)]
    for i, stem in enumerate(stems):
        content, boxes = scene(i)
        (folder / "JPEGImages" / f"{stem}.png").write_bytes(content)
        (folder / "Annotations" / f"{stem}.xml").write_text(xml(boxes))
    parts = {"train": stems[:8], "val": stems[8:10], "test": stems[10:], "trainval": stems[:10]}
    for part, of in parts.items():
        (folder / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(of) + "\n")
    return folder


def coco(folder: Path, **changed: Any) -> Path:
    (folder / "images").mkdir(parents=True)
    content, _ = scene(1)
    for name in ("a.png", "b.png"):
        (folder / "images" / name).write_bytes(content)
    note = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": [
            {"image_id": 1, "category_id": 7, "bbox": [1, 2, 10, 20]},
            {"image_id": 1, "category_id": 7, "bbox": [0, 0, 80, 60], "iscrowd": 1},
        ],
    }
    (folder / "notes.json").write_text(json.dumps({**note, **changed}))
    return folder


# Rows ---------------------------------------------------------------------------------------


def test_pascal_voc_in_a_folder_and_in_a_tar_is_the_same(tmp_path: Path) -> None:
    folder = voc(tmp_path / "V")
    rows = list(read_rows(str(folder)))
    assert [r["split"] for r in rows] == ["train"] * 8 + ["validation"] * 2 + ["test"] * 2
    label, *sides = scene(1)[1][0]
    assert rows[1]["boxes"][0] == box(label, *sides)
    assert rows[0]["image"] == scene(0)[0]
    with tarfile.open(tmp_path / "v.tar", "w") as archive:
        archive.add(folder, arcname=".")
    packed = list(read_rows(str(tmp_path / "v.tar")))
    assert [(r["boxes"], r["split"]) for r in packed] == [(r["boxes"], r["split"]) for r in rows]


def test_coco_without_crowds(tmp_path: Path) -> None:
    one, other = read_rows(str(coco(tmp_path / "C")))
    assert one["boxes"] == [{"label": "cat", "x0": 1.0, "y0": 2.0, "x1": 11.0, "y1": 22.0}]
    assert other["boxes"] == []
    (example,) = ObjectDetection().examples(other)
    assert isinstance(example, Example)
    assert example.answer.boxes == ()


def test_a_class_that_does_not_exist_is_refused_by_file(tmp_path: Path) -> None:
    wrong = [{"image_id": 1, "category_id": 9, "bbox": [1, 2, 3, 4]}]
    folder = coco(tmp_path / "C", annotations=wrong)
    with pytest.raises(ModelwrightError, match=r"C: notes\.json: .*no category 9 among") as caught:
        list(read_rows(str(folder)))
    assert "\n" not in str(caught.value)


def test_a_broken_note_is_refused_by_file(tmp_path: Path) -> None:
    folder = voc(tmp_path / "V")
    (folder / "Annotations" / "p03.xml").write_text("<annotation><object></annotation>")
    with pytest.raises(ModelwrightError, match=r"V: Annotations/p03\.xml: broken annotation"):
        list(read_rows(str(folder)))


def test_names_that_notes_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    folder = voc(tmp_path / "V")
    (folder / "more").mkdir()
    shutil.copy(folder / "JPEGImages" / "p00.png", folder / "more" / "p00.png")
    with pytest.raises(ModelwrightError, match=r"JPEGImages/p00\.png and more/p00\.png have one"):
        list(read_rows(str(folder)))


def box(label: str = "red", x0: float = 1, y0: float = 2, x1: float = 30, y1: float = 40) -> Row:
    return {"label": label, "x0": x0, "y0": y0, "x1": x1, "y1": y1}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"boxes": [box(), box(x1=1)]}, "a box without area"),
        ({"boxes": [box(y0=40, y1=2)]}, "a box without area"),
        ({"boxes": [box(x0=80, x1=90)]}, "a box outside the image"),
        ({"boxes": [box(x0=-9, x1=0.5)]}, "a box outside the image"),
        ({"boxes": [box(x1=float("nan"))]}, "a box that is not finite"),
        ({"boxes": [box(label="")]}, "a box without a class"),
        ({"boxes": None}, "no boxes given"),
        ({"boxes": [], "image": scene(0)[0][:90]}, "image cannot be decoded"),
        ({"boxes": [], "image": b"", "problem": "not an image"}, "not an image"),
    ],
)
def test_rows_that_leave_with_a_reason(row: Row, why: str) -> None:
    assert ObjectDetection().examples({"id": "r", "image": scene(0)[0], **row}) == why


def test_a_box_over_the_edge_is_cut_there() -> None:
    row = {"id": "r", "image": scene(0)[0], "boxes": [box(x0=-5, x1=99)]}
    (example,) = ObjectDetection().examples(row)
    assert isinstance(example, Example)
    assert example.answer.boxes == (Box("red", 0, 2, 80, 40),)


def test_only_what_is_looked_for_is_an_object() -> None:
    """All else is background, also where it could not be an object at all."""
    boxes = [
        {"label": name, "x0": 1, "y0": 1, "x1": end, "y1": 9}
        for name, end in (("cell", 9), ("dust", 5), ("speck", 1))
    ]
    row: Row = {"id": "a", "pixels": np.zeros((10, 10, 3), np.uint8), "boxes": boxes}
    for classes, left in ((["dust"], ["dust"]), ("cell", ["cell"]), (["other"], []),
                          (["dust", "cell"], ["cell", "dust"])):  # fmt: skip
        found = ObjectDetection(classes=classes).examples(row)
        assert not isinstance(found, str)
        (example,) = found
        assert [box.label for box in example.answer.boxes] == left
    assert ObjectDetection().examples(row) == "a box without area"
    for nothing in ([], [""], ""):
        with pytest.raises(ModelwrightError, match="names no class"):
            ObjectDetection(classes=nothing)


def test_boxes_of_another_form_are_refused() -> None:
    row = {"id": "r", "image": scene(0)[0], "boxes": [[1, 2, 3, 4]]}
    with pytest.raises(ModelwrightError, match=r"row r: column 'boxes' holds .* is meant"):
        ObjectDetection().examples(row)


# Codec --------------------------------------------------------------------------------------


def example(label: str = "red") -> Example:
    turns = (
        Turn("user", (Image(np.zeros((60, 80, 3), np.uint8)),)),
        Turn("assistant", (Box(label, 8, 6, 40, 36),), learn=True),
    )
    return Example(turns)


def test_one_class_is_enough_and_boxes_go_to_the_models_size_and_back() -> None:
    codec = fit_codec("boxes", [example()], {"size": [30, 160]})
    encoded = codec.encode(example())
    assert encoded["boxes"].tolist() == [[16, 3, 80, 18]]
    assert encoded["features"].shape == (30, 160, 3)
    assert codec.example(encoded).answer.boxes == example().answer.boxes


def test_an_unknown_class_no_box_at_all_and_two_sizes_are_refused() -> None:
    codec = fit_codec("boxes", [example()], {})
    with pytest.raises(ModelwrightError, match=r"class 'rod' of a box .* \(did you mean 'red'\?\)"):
        codec.encode(example("rod"))
    empty = Example((example().turns[0], Turn("assistant", (), learn=True)))
    (unknown,) = ObjectDetection().examples(
        {"id": "b.png", "image": scene(0)[0], "boxes": [box("rod")]}
    )
    assert isinstance(unknown, Example)
    with pytest.raises(ModelwrightError, match=r"^b\.png: class 'rod' of a box is not in the"):
        codec.encode(unknown)
    with pytest.raises(ModelwrightError, match="no picture of the train split has a box"):
        fit_codec("boxes", [empty], {})
    other = Example((Turn("user", (Image(np.zeros((9, 9, 3), np.uint8)),)), example().turns[1]))
    with pytest.raises(ModelwrightError, match="pictures of two sizes"):
        fit_codec("boxes", [example(), other], {})


# Measures -----------------------------------------------------------------------------------

ONE, TWO = Box("a", 0, 0, 10, 10), Box("b", 20, 20, 40, 40)


def test_average_precision_of_known_answers() -> None:
    meant = [[ONE, TWO], [ONE], []]
    perfect = average_precision(meant, meant)
    assert (perfect.half, perfect.mean) == (1, 1)
    assert average_precision(meant, [[], [], []]).by_class == {"a": 0, "b": 0}
    # Overlap 0.8: right at 7 of the 10 overlaps from 0.5 to 0.95 (0.5, 0.55, ..., 0.8)
    loose = Box("a", 0, 0, 10, 8, 0.9)
    found = average_precision([[ONE]], [[loose]])
    assert found.half == pytest.approx(1)
    assert found.mean == pytest.approx(0.7)
    # A false alarm above the only right one halves the precision at every recall.
    alarm = Box("a", 50, 50, 60, 60, 0.95)
    assert average_precision([[ONE]], [[loose, alarm]]).half == pytest.approx(0.5)


def test_f1_counts_each_box_once() -> None:
    assert f1([ONE, TWO], [ONE, TWO]) == 1
    assert f1([], []) == 1
    assert f1([ONE], []) == f1([], [ONE]) == 0
    assert f1([ONE], [ONE, ONE]) == pytest.approx(2 / 3)
    assert f1([ONE], [Box("b", 0, 0, 10, 10)]) == 0
    assert f1([ONE], [ONE, Box("a", 0, 0, 10, 10, 0.1)]) == 1  # not shown
    assert overlap(ONE, Box("a", 5, 0, 15, 10)) == pytest.approx(1 / 3)


def test_the_baseline_says_the_common_boxes_at_every_size() -> None:
    usual = Usual([example(), example()])
    big = Turn("user", (Image(np.zeros((120, 160, 3), np.uint8)),))
    (answer,) = usual.answer([[big]])
    assert answer.boxes == (Box("red", 16, 12, 80, 72),)


# A run --------------------------------------------------------------------------------------


def recipe(source: Path, **train: Any) -> dict[str, Any]:
    augment = [{"box_flip": {"vertical": 0.5}}, "mosaic", "box_scale"]
    return {
        "name": "boxes",
        "data": {"source": str(source), "split": {"by": "given"}},
        "codec": {"size": [64, 96]},
        "model": SMALL,
        "train": {"task": "object_detection", "augment": augment, "save_every": 3,
                  "learning_rate": 0.01, "steps": 6, **STAGE, **train},
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("boxes")
    return api.train(recipe(voc(folder / "V")), out=folder / "run")


def weights(run: Run) -> dict[str, torch.Tensor]:
    return dict(api.load(run).fitted.model.state_dict())


def test_labels_are_drawn_before_anything_is_learned(run: Run) -> None:
    sheet = (run.path / "data" / "train" / "labels.png").read_bytes()
    assert sheet.startswith(b"\x89PNG")
    assert len(sheet) > 2000


def test_a_training_that_was_cut_off_is_the_one_that_was_not(run: Run, tmp_path: Path) -> None:
    straight = weights(run)
    cut = tmp_path / "cut"
    shutil.copytree(run.path, cut)
    shutil.rmtree(cut / "checkpoints" / "train" / "step-00000006")
    again = weights(api.train(str(cut)))
    assert all(torch.equal(straight[name], again[name]) for name in straight)


def test_it_is_measured_beside_what_is_trivial(run: Run) -> None:
    found = {m["name"]: m for m in api.evaluate(run)["measures"]}
    assert {"test mAP@0.5", "test mAP@[.5:.95]", "test F1 at IoU 0.5"} <= set(found)
    assert [r["who"] for r in found["test mAP@0.5"]["rows"]] == ["ours", "commonest boxes"]
    assert (run.path / "samples" / "hardest-train.png").read_bytes().startswith(b"\x89PNG")
    assert all(0 <= r["value"] <= 1 for m in found.values() for r in m["rows"])


def test_a_picture_is_asked_and_boxes_are_in_its_own_pixels(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    small.write_bytes(encode_png(pixels))
    large.write_bytes(encode_png(pixels.repeat(4, axis=0).repeat(4, axis=1)))
    model = api.load(run)
    model.fitted.objective.least = 0.0
    answers = [
        model.answerer.answer([model.fitted.task.question(str(path))])[0].boxes
        for path in (small, large)
    ]
    assert answers[0]
    assert all(0 <= b.left <= b.right <= 50 and 0 <= b.top <= b.bottom <= 40 for b in answers[0])
    assert max(b.right for b in answers[1]) > 50
    assert main(["ask", str(run.path), str(small)]) == 0
    assert capsys.readouterr().out.strip()


def test_a_picture_with_an_impossible_box_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = voc(tmp_path / "V")
    (folder / "Annotations" / "p02.xml").write_text(xml([("red", 5, 5, 5, 9)]))
    values = tmp_path / "r.yaml"
    values.write_text(json.dumps(recipe(folder)))
    assert main(["prepare", str(values), "--out", str(tmp_path / "run")]) == 0
    said = "".join(capsys.readouterr())
    assert "1 rows dropped, a box without area: JPEGImages/p02.png" in said


def test_classes_are_counted_and_a_mistyped_one_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = tmp_path / "r.yaml"
    made = recipe(voc(tmp_path / "V"))
    values.write_text(json.dumps(made))
    assert main(["prepare", str(values), "--out", str(tmp_path / "run")]) == 0
    said = "".join(capsys.readouterr())
    assert re.search(r"train: boxes of 8 pictures: \d+ \w+, \d+ \w+", said)
    made["train"]["options"] = {"classes": ["red", "bleu"]}
    values.write_text(json.dumps(made))
    assert main(["prepare", str(values), "--out", str(tmp_path / "other")]) == EXIT_USAGE
    assert "no box is of class 'bleu' (did you mean 'blue'?)" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_part_without_any_box_is_refused(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A precision of 0 would say nothing of a model."""
    folder = voc(tmp_path / "V")
    for stem in (folder / "ImageSets" / "Main" / f"{part}.txt").read_text().split():
        (folder / "Annotations" / f"{stem}.xml").write_text(xml([]))
    values = tmp_path / "r.yaml"
    values.write_text(json.dumps(recipe(folder)))
    assert main(["prepare", str(values), "--out", str(tmp_path / "run")]) == EXIT_USAGE
    assert f"pictures of {part} has a box to be found" in capsys.readouterr().err


def test_the_blood_cells(data: Callable[[str], Path]) -> None:
    rows = list(read_rows("bccd", path=data("bccd")))
    assert len(rows) == 364
    assert [sum(r["split"] == p for r in rows) for p in ("train", "validation", "test")] == [
        205,
        87,
        72,
    ]
    reasons = [r["id"] for r in rows if ObjectDetection().examples(r) == "a box without area"]
    assert {name[-9:-4] for name in reasons} == {"00338", "00343"}
