"""``modelwright evaluate RUN --on FILE`` of a language model: bits per byte of any text."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelwright import api
from modelwright.errors import ModelwrightError
from modelwright.pipeline import graded, paired
from modelwright.runs import Run

TALES = [
    f"Tale {i}. There was a {word} who walked {i + 3} days to the sea, and saw nothing but sand. "
    * (3 + i)
    for i, word in enumerate(("cat", "fox", "hen", "dog", "cow", "ant", "bee", "owl"))
]


def trained(folder: Path, out: Path, seed: int) -> Run:
    return api.train(
        {
            "name": "tales",
            "seed": seed,
            "data": {"source": str(folder), "split": {"by": "group", "validation": 0, "test": 0.1}},
            "codec": {"vocabulary": 300},
            "model": {"family": "decoder", "depth": 1, "width": 32, "heads": 2, "context": 16},
            "train": {"task": "documents", "steps": 12, "batch": 4, "precision": "float32"},
        },
        out=out,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    folder = tmp_path_factory.mktemp("tales")
    for i, text in enumerate(TALES):
        (folder / f"{i}.txt").write_text(text)
    return trained(folder, folder.parent / "one", 1), trained(folder, folder.parent / "other", 2)


def test_the_test_part_costs_the_same_as_a_file(runs: tuple[Run, Run], tmp_path: Path) -> None:
    """One document was held out: as a file of the user's it costs to the last bit what it did."""
    measures = api.evaluate(runs[0])["measures"]
    own = {r["who"]: r["value"] for r in measures[-1]["rows"]}
    costs = []
    for i, text in enumerate(TALES):
        (tmp_path / f"mine-{i}.txt").write_text(text)
        (measure,) = api.evaluate(runs[0], on=tmp_path / f"mine-{i}.txt")["measures"]
        assert (measure["name"], measure["better"]) == ("bits per byte", "lower")
        costs.append({r["who"]: r["value"] for r in measure["rows"]})
    assert own in costs


def test_texts_are_sliced_and_two_models_compared_on_them(
    runs: tuple[Run, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "others"
    folder.mkdir()
    for i, text in enumerate((*TALES[:5], "x", "")):
        (folder / f"{i}.txt").write_text(text.replace("sea", "hills"))
    for run in runs:
        result = api.evaluate(run, on=folder)
        (measure,) = result["measures"]
        lines = graded.read(run, "on-others")
        assert len(lines) in (5, 6)  # of one letter only its end may be foretold
        least, most = (f(line["grade"] for line in lines) for f in (min, max))
        assert least <= measure["rows"][0]["value"] <= most
        assert "95 % interval" in measure["note"]
        assert [part["by"] for part in result["slices"]] == ["length"]
        assert result["worst"][0]["score"] == most
    assert "bits per byte of 7 texts" in capsys.readouterr().err
    (found,) = paired.compare(*runs)
    assert (found["stage"], found["measure"], found["better"]) == (
        "on-others",
        "bits per byte",
        "lower",
    )
    assert found["questions"] == len(lines)


def test_nothing_to_foretell(runs: tuple[Run, Run], tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    path.write_text("question,answer\nwhy?,so\n")
    with pytest.raises(ModelwrightError, match="no text in field 'text'"):
        api.evaluate(runs[0], on=path)
    (tmp_path / "blank.txt").write_text("  \n")
    with pytest.raises(ModelwrightError, match="blank"):
        api.evaluate(runs[0], on=tmp_path / "blank.txt")
