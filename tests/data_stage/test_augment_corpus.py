"""Augmentation as a stage of a corpus, and its contact sheet."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.data import pictures, sounds
from modelwright.data.archive import tar_members
from modelwright.data.augment.sheet import contact_sheet
from modelwright.data.corpus import records
from modelwright.data.corpus.augment import ROWS, augment, lines_of, plan_augment
from modelwright.data.corpus.unit import CORPUS, Unit
from modelwright.errors import ModelwrightError

pytest.importorskip("pyarrow")


def row(key: str, modality: str, split: str = "train", **more: Any) -> dict[str, Any]:
    blank: dict[str, Any] = dict.fromkeys(records.FINAL)
    return blank | {
        "id": key, "source": "s", "groups": ["g"], "parents": [], "modality": modality,
        "license": "CC0", "meta": "{}", "split": split,
    } | more  # fmt: skip


@pytest.fixture(scope="module")
def rows(data: Callable[[str], Path]) -> list[dict[str, Any]]:
    """Texts, real images and a real recording, a game, and rows of the other splits."""
    found = [
        row(
            f"t/{i}",
            "text",
            split,
            text=f"The {word} fox jumps over the lazy dog, again.",
            label="x",
        )
        for i, (word, split) in enumerate(
            [("quick", "train"), ("brown", "train"), ("old", "validation"), ("red", "test")]
        )
    ]
    for name, content in islice(tar_members(data("flowers12/flowers12.tar"), suffix=".jpg"), 3):
        found.append(row(name, "image", media=content, mime="image/jpeg", label="bluebell"))
    for name, content in islice(tar_members(data("kathleen/audio.tar"), suffix=".flac"), 1):
        found.append(row(name, "audio", media=content, mime="audio/flac", text="said"))
    meta = json.dumps({"game": "othello", "moves": ["f5", "d6", "c3"], "result": "1-0"})
    found.append(row("o", "game", meta=meta, text="f5 d6 c3"))
    found.append(row("c", "game", meta=json.dumps({"game": "chess", "moves": ["e4"]})))
    return found


LINES: list[Any] = [
    {"typos": {"rate": 0.3}}, "flip", {"crop": {"padding": 8}}, {"speed": {"slowest": 0.9}},
    "game_symmetry", {"copies": 2},
]  # fmt: skip


def augmented(folder: Path, rows: list[dict[str, Any]], lines: list[Any], seed: int = 1) -> Any:
    write = folder / "stages" / "write" / "u"
    write.mkdir(parents=True)
    with records.Writer(write / ROWS, records.FINAL) as writer:
        for one in rows:
            writer.add([one[name] for name in records.FINAL], 100)
    (unit,) = plan_augment([Unit("write", "u", "", {})], lines, seed=seed)
    out = folder / "out"
    out.mkdir()
    facts = augment(json.loads(json.dumps(unit.arguments)) | {CORPUS: str(folder)}, out)
    return facts, list(records.rows(out / ROWS)), (out / ROWS).read_bytes()


def test_train_alone_gets_views_that_name_their_origin(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    facts, made, content = augmented(tmp_path / "a", rows, LINES)
    origins = {one["id"]: one for one in rows}
    assert facts["in"]["rows"] == 8
    assert facts["made"]["rows"] + facts["unchanged"] == 16
    assert facts["made"]["rows"] == len(made) == len({view["id"] for view in made})
    assert {view["modality"] for view in made} == {"text", "image", "audio", "game"}
    for view in made:
        (parent,) = view["parents"]
        origin = origins[parent]
        assert view["id"] in (f"{parent}~1", f"{parent}~2")
        assert view["split"] == origin["split"] == "train"
        for same in ("label", "groups", "source", "license", "modality"):
            assert view[same] == origin[same]
        assert any(view[k] != origin[k] for k in ("text", "media", "meta"))
        if view["modality"] == "image":
            shape = pictures.decode(origin["media"])[0].shape
            assert pictures.decode(view["media"])[0].shape == shape
        if view["modality"] == "audio":
            assert sounds.decode(view["media"])[1] == 16000
        if view["modality"] == "game":
            assert json.loads(view["meta"])["moves"] == view["text"].split() != ["f5", "d6", "c3"]
    assert augmented(tmp_path / "b", rows, LINES)[2] == content
    assert augmented(tmp_path / "c", rows, LINES, seed=2)[2] != content


def test_the_view_of_a_row_does_not_depend_on_its_neighbours(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    together = {v["id"]: v for v in augmented(tmp_path / "a", rows, LINES)[1]}
    alone = augmented(tmp_path / "b", rows[1:2], LINES)[1]
    assert alone == [together[v["id"]] for v in alone]
    assert alone


def test_wrong_lines_are_found_when_planning() -> None:
    units = [Unit("write", "u", "", {})]
    assert plan_augment(units, []) == []
    assert lines_of([{"copies": 3}, "flip"]) == (3, ["flip"])
    for lines, said in (
        (["mixup"], "Mixup changes batches"),
        (["spec_augment"], "put it under train.augment"),
        ([{"copies": 0}, "flip"], "copies: 0"),
        ([{"copies": 2}], "no transform to make views with"),
        (["flap"], "did you mean 'flip'"),
    ):
        with pytest.raises(ModelwrightError, match=said):
            plan_augment(units, lines)


def test_settings_and_code_are_in_the_arguments() -> None:
    units = [Unit("write", "u", "", {})]
    one, two = (plan_augment(units, [{"crop": {"padding": n}}])[0] for n in (2, 3))
    assert one.arguments != two.arguments
    assert set(one.arguments["code"]) == {"crop"}
    assert one.reads == ("write/u:rows-00000.parquet",)


# -- the contact sheet ------------------------------------------------------------------------


def test_sheets(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    """Originals on the left as they are, views beside them; the same bytes every time."""
    for modality, lines in (
        ("image", ["flip", {"crop": {"padding": 20}}, {"rand_augment": {"magnitude": 15}}]),
        ("audio", [{"speed": {}}, {"noise": {"least": 5, "most": 10}}]),
    ):
        chosen = [one for one in rows if one["modality"] == modality]
        path = contact_sheet(chosen, lines, tmp_path / modality, views=3)
        assert path.suffix == ".png"
        sheet, kind = pictures.decode(path.read_bytes())
        assert kind == "PNG"
        assert sheet.shape[1] > 4 * 60
        assert len(np.unique(sheet)) > 50
        content = path.read_bytes()
        assert contact_sheet(chosen, lines, tmp_path / modality, views=3).read_bytes() == content
    texts = [*(one for one in rows if one["modality"] == "text")]
    texts[0] = {**texts[0], "text": "<script>alert('x')</script> and more words to change"}
    page = contact_sheet(texts, [{"typos": {"rate": 0.2}}], tmp_path / "text.png")
    assert page.suffix == ".html"
    content_ = page.read_text(encoding="utf-8")
    assert "<script>" not in content_
    assert content_.count("<tr>") == 1 + len(texts)


def test_the_first_view_on_the_sheet_is_the_one_in_the_corpus(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    chosen = [one for one in rows if one["modality"] == "text"][:1]
    _, made, _ = augmented(tmp_path / "a", chosen, [{"typos": {"rate": 0.3}}], seed=5)
    page = contact_sheet(chosen, [{"typos": {"rate": 0.3}}], tmp_path / "x", views=1, seed=5)
    import html

    assert html.escape(made[0]["text"]) in page.read_text(encoding="utf-8")


def test_rows_that_cannot_be_shown_are_refused(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    for chosen in ([], rows, rows[-1:]):
        with pytest.raises(ModelwrightError, match="rows of one modality"):
            contact_sheet(chosen, ["flip"], tmp_path / "x")


def test_a_sheet_of_small_grey_images(tmp_path: Path) -> None:
    grey = pictures.encode_png(np.random.default_rng(1).integers(0, 256, (28, 28), dtype=np.uint8))
    path = contact_sheet([row("a", "image", media=grey)], ["flip"], tmp_path / "g.png", views=2)
    assert pictures.decode(io.BytesIO(path.read_bytes()).getvalue())[0].ndim == 3
