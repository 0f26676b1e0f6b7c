"""A recogniser of real recordings: its report plays what was asked and marks what differs."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright import api
from modelwright.data.sounds import decode
from modelwright.data.sources import read_rows
from modelwright.pipeline import heard, predicted
from modelwright.pipeline.asked import key_of
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from modelwright.recipe import parse
from modelwright.runs import Run
from modelwright.types import Example, Sound

pytest.importorskip("jiwer")

STAGE = {"batch": 8, "threads": 1, "compile": False, "precision": "float32"}


@pytest.fixture(scope="module")
def ear(data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = {
        "name": "ear",
        "data": {"source": "kathleen", "path": str(data("kathleen")), "limit": 40,
                 "split": {"by": "row", "test": 0.2}},
        "codec": {"bands": 20},
        "model": {"family": "conformer", "depth": 1, "width": 16, "heads": 2, "kernel": 7},
        "train": {"task": "speech_recognition", "steps": 2, **STAGE},
    }  # fmt: skip
    return api.run(made, out=tmp_path_factory.mktemp("heard") / "ear")


def evaluation(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.path / "evaluation.json").read_text())
    return found


def test_each_answer_stands_beside_the_recording_that_was_asked(ear: Run) -> None:
    found = evaluation(ear)
    page = (ear.path / "report.html").read_text()
    examples = {key_of(e.given): e for e in stored(ear)}
    assert found["examples"] and found["worst"]
    for shown in (*found["examples"], *found["worst"]):
        content = (ear.path / "samples" / shown["sounds"]["recording"]).read_bytes()
        samples, rate = decode(content)
        asked = examples[shown["key"]]
        (sound,) = asked.given[0].parts
        assert asked.answer.text == shown["reference"]
        assert isinstance(sound, Sound) and rate == sound.rate == 16_000
        np.testing.assert_allclose(samples[:, 0], sound.samples, atol=2**-15)
        assert base64.b64encode(content).decode() in page
        assert " ".join(meant for meant, _ in shown["compared"] if meant) == shown["reference"]
    assert page.count("<audio controls") == len(found["examples"]) + len(found["worst"])
    assert "<del" in page  # two steps teach nothing


def stored(run: Run) -> list[Example]:
    return predicted.stored(run, "train", "test", load_fitted(newest_checkpoint(run)))


def test_a_file_that_is_measured_leaves_no_recordings(
    ear: Run, data: Callable[[str], Path]
) -> None:
    before = sorted((ear.path / "samples").iterdir())
    api.evaluate(ear.path, str(own_folder(data, ear.path.parent)))
    assert sorted((ear.path / "samples").iterdir()) == before


def own_folder(data: Callable[[str], Path], folder: Path) -> Path:
    """Two recordings of Kathleen with their texts, as files."""
    place = folder / "own"
    place.mkdir()
    rows = list(islice(read_rows("kathleen", path=data("kathleen")), 2))
    for row in rows:
        name = Path(row["id"]).name
        (place / name).write_bytes(row["audio"])
        (place / name).with_suffix(".txt").write_text(row["text"])
    return place


def test_what_is_kept_is_bounded_and_said(tmp_path: Path) -> None:
    values = {"name": "x", "data": {"source": "fsdd"}, "train": {"task": "speech_recognition"}}
    run = Run(tmp_path, parse(values, "test"))
    high = Sound(np.sin(np.arange(48_000 * 61) / 9).astype(np.float32), 48_000)
    names = heard.kept(run, {"recording": high})
    assert list(names) == ["recording, its first 60 s"]
    content = (tmp_path / "samples" / names["recording, its first 60 s"]).read_bytes()
    samples, rate = decode(content)
    assert (rate, len(samples)) == (16_000, 60 * 16_000)
    assert len(content) < 2 << 20  # what the report takes in
    low = Sound(np.zeros(800, np.float32), 8000)
    (name,) = heard.kept(run, {"recording": low}).values()
    assert decode((tmp_path / "samples" / name).read_bytes())[1] == 8000
    assert heard.kept(run, {"a": low, "b": low}) == {"a": name, "b": name}
