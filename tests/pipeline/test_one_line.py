"""A file of data in place of a recipe: columns that are guessed, said, set, or asked for."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from modelwright.errors import ModelwrightError
from modelwright.pipeline.one_line import BUDGET, as_overrides, is_data, recipe_of

TEXTS = [f"it was a day like no other, number {i}" for i in range(40)]


def table(path: Path, **columns: Sequence[object]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def made(path: Path, *overrides: str) -> tuple[dict[str, object], str]:
    """Options of the task, and what was said."""
    said: list[str] = []
    recipe = recipe_of(path, overrides, said.append)
    return recipe.first.options, "\n".join(said)


def test_columns_are_found_by_name_and_by_content_and_said(tmp_path: Path) -> None:
    file = table(tmp_path / "a.csv", stars=["1", "2"] * 20, remark=TEXTS, number=list(range(40)))
    options, said = made(file, "task=sentiment")
    assert options == {"text": "remark", "label": "stars"}
    assert said.endswith("text: column 'remark'; label: column 'stars' (2 classes: 1, 2)")
    file = table(tmp_path / "b.csv", mood=["up", "down"] * 20, note=TEXTS)
    assert made(file, "task=sentiment")[0] == {"text": "note", "label": "mood"}


def test_what_could_be_several_columns_is_asked(tmp_path: Path) -> None:
    file = table(tmp_path / "a.csv", mood=["up", "down"] * 20, day=["a", "b"] * 20, note=TEXTS)
    with pytest.raises(ModelwrightError, match=r"which column is the label\? mood, day could all"):
        made(file, "task=sentiment")
    assert made(file, "task=sentiment", "label=day")[0]["label"] == "day"
    file = table(tmp_path / "b.csv", note=TEXTS, other=[t[::-1] for t in TEXTS])
    with pytest.raises(ModelwrightError, match=r"no column looks like the label.*note, other"):
        made(file, "task=sentiment")


def test_what_is_set_is_checked(tmp_path: Path) -> None:
    file = table(tmp_path / "a.csv", label=["x"] * 40, text=TEXTS)
    with pytest.raises(ModelwrightError, match=r"column 'label' has 1 class only"):
        made(file, "task=sentiment")
    with pytest.raises(ModelwrightError, match=r"label=lable: no such column; it has: label, text"):
        made(file, "task=sentiment", "label=lable")
    with pytest.raises(ModelwrightError, match=r"is data, not a recipe; say what.*task=NAME"):
        made(file)


def test_keys_go_to_the_task_or_to_the_recipe(tmp_path: Path) -> None:
    file = table(tmp_path / "Übung 1.csv", label=["x", "y"] * 20, text=TEXTS)
    given = as_overrides({"task": "sentiment", "budget": "2m", "seed": 7})
    recipe = recipe_of(file, [*given, "model.depth=1"], lambda _: None)
    assert (recipe.budget, recipe.seed, recipe.model["depth"]) == ("2m", 7, 1)
    assert recipe.data.source == str(file)
    assert recipe.name
    section = as_overrides({"task": "sentiment", "train": {"batch": 8}})
    assert recipe_of(file, section, lambda _: None).first.batch == 8
    plain = recipe_of(file, ["task=sentiment"], lambda _: None)
    assert plain.budget == BUDGET
    timed = recipe_of(file, ["task=sentiment", "train.epochs=1"], lambda _: None)
    assert timed.budget is None
    with pytest.raises(ModelwrightError, match="bugdet: unknown key"):
        recipe_of(file, ["task=sentiment", "bugdet=2m"], lambda _: None)


def test_two_columns_of_texts_are_a_translation(tmp_path: Path) -> None:
    file = table(tmp_path / "pairs.csv", german=TEXTS, english=[t.upper() for t in TEXTS])
    _, said = made(file, "task=translation")
    assert "reading source from column 'german' and target from 'english' (guessed)" in said


def test_a_recipe_is_no_data(tmp_path: Path) -> None:
    recipe = tmp_path / "a.yaml"
    recipe.write_text("name: a\n")
    assert not is_data(recipe)
    assert not is_data("quickstart")
    assert not is_data(tmp_path)
    assert is_data(table(tmp_path / "a.csv", text=TEXTS))


def test_a_folder_with_a_task_is_data(tmp_path: Path) -> None:
    texts = tmp_path / "My texts"
    texts.mkdir()
    (texts / "a.txt").write_text(TEXTS[0])
    assert not is_data(texts, ["train.steps=3"])
    assert is_data(texts, ["task=documents"])
    recipe = recipe_of(f"{texts}/", ["task=documents"], lambda _: None)
    assert (recipe.name, recipe.first.task) == ("My-texts", "documents")
    assert is_data(table(tmp_path / "games.pgn", e4=[]))
    assert is_data(table(tmp_path / "pictures.tar", x=[]))
    (texts / "a.txt").unlink()
    with pytest.raises(ModelwrightError, match="nothing readable in this folder"):
        recipe_of(texts, ["task=documents"], lambda _: None)


def test_the_class_beside_numbers_is_the_column_of_words(tmp_path: Path) -> None:
    numbers: dict[str, Sequence[object]] = {"width": ["1.5", "2"] * 20, "height": list(range(40))}
    file = table(tmp_path / "a.csv", **numbers, kind=["round", "flat"] * 20)
    options, said = made(file, "task=vector_classification")
    assert options == {"label": "kind"}
    assert said.endswith("label: column 'kind' (2 classes: flat, round)")
    file = table(tmp_path / "b.csv", **numbers, target=["0", "1"] * 20)
    assert made(file, "task=vector_classification")[0] == {"label": "target"}
    file = table(tmp_path / "c.csv", **numbers, outcome=["0", "1"] * 20)
    with pytest.raises(ModelwrightError, match=r"no column looks like the label, .*outcome; name"):
        made(file, "task=vector_classification")
    assert made(file, "task=vector_classification", "label=outcome")[0] == {"label": "outcome"}


def test_arrays_say_themselves_what_they_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 3)), y=np.arange(4) % 2)
    assert made(tmp_path / "a.npz", "task=vector_classification") == ({}, "")
    np.savez(tmp_path / "b.npz", x=np.zeros((4, 3)))
    with pytest.raises(ModelwrightError, match="no column looks like the label"):
        made(tmp_path / "b.npz", "task=vector_classification")


def test_reviews_of_hotels(data: Callable[[str], Path]) -> None:
    file = data("chnsenticorp") / "ChnSentiCorp_htl_all.csv.gz"
    options, said = made(file, "task=sentiment")
    assert options == {"text": "review", "label": "label"}
    assert said.endswith("label: column 'label' (2 classes: 0, 1)")
