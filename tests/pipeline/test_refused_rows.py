"""Rows that the fitted codec cannot learn from leave with a reason, and are counted (law 10)."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import modelwright as mw
from modelwright.data.pictures import encode_png
from modelwright.data.sounds import encode_wav
from modelwright.data.sources import read_rows
from modelwright.errors import ModelwrightError
from tests.data.faulty_recordings import FAULTS, folder_with_faults

RATE = 8000


def test_unknown_characters_and_long_recordings_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for number in range(24):
        text = "ab ba" if number % 2 else "ba ab a"
        seconds = 2.0 if number == 3 else 0.4
        (folder / f"r{number}.wav").write_bytes(
            encode_wav(rng.normal(0, 0.1, round(RATE * seconds)), RATE)
        )
        lines.append(f"r{number}|{text if number != 5 else ''}")
    (folder / "metadata.csv").write_text("\n".join(lines))
    values = {
        "name": "refused",
        "data": {"source": str(folder), "split": {"by": "row", "validation": 0.2, "test": 0.2}},
        "codec": {"rate": RATE, "bands": 10, "longest": 1.0},
        "model": {"family": "conformer", "width": 8, "heads": 2, "depth": 1},
        "train": {
            "task": "speech_recognition", "steps": 1, "batch": 2, "threads": 1,
            "precision": "float32",
        },
    }  # fmt: skip
    run = mw.train(values, out=tmp_path / "run")
    steps = json.loads((run.path / "data" / "waterfall.json").read_text())
    reasons: dict[str, int] = {}
    for step in steps:
        assert step["rows_in"] == step["rows_out"] + sum(step["dropped"].values())
        reasons |= step["dropped"]
    assert reasons.get("no transcript") == 1
    assert reasons.get("longer than codec.longest, 1 s") == 1


def steps_of(run: Any) -> dict[str, dict[str, Any]]:
    steps = json.loads((run.path / "data" / "waterfall.json").read_text())
    return {step["step"]: step for step in steps}


def vocoder(source: Path, **data: Any) -> dict[str, Any]:
    return {
        "name": "voc",
        "data": {"source": str(source), "split": {"by": "row", "test": 0.2}, **data},
        "codec": {"rate": RATE, "size": 64, "hop": 32, "bands": 8},
        "train": {"task": "vocoder", "steps": 1},
    }


def test_what_could_not_be_read_leaves_at_once_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_with_faults(tmp_path / "sounds")
    run = mw.prepare(vocoder(folder), out=tmp_path / "run")
    collect = steps_of(run)["collect"]
    assert (collect["rows_in"], collect["rows_out"]) == (13, 6)
    assert collect["dropped"] == dict(Counter(FAULTS.values()))
    assert collect["examples"]["not a recording of a known format"] == ["empty.wav", "text.mp3"]
    assert steps_of(run)["split"]["dropped"] == {}  # none of them was taken for a copy of another
    told = capsys.readouterr().err
    reason = "transcript without a recording: transcript gone, transcript gone2"
    assert f"prepare: collect: 2 rows dropped, {reason}" in told
    assert "convert them to .wav or .flac: phone.m4a" in told


def test_what_is_put_beside_leaves_for_its_problems_too(tmp_path: Path) -> None:
    folder = folder_with_faults(tmp_path / "sounds")
    source = tmp_path / "rows.py"
    source.write_text(
        "import numpy as np\n"
        "def rows():\n"
        "    for i in range(9):\n"
        "        sound = np.sin(np.arange(3000) / (i + 3)).astype('f4')\n"
        "        yield {'id': str(i), 'samples': sound, 'rate': 8000}\n"
    )
    made = vocoder(source, also={"source": str(folder)})
    also = steps_of(mw.prepare(made, out=tmp_path / "run"))["also"]
    assert (also["rows_in"], also["rows_out"]) == (13, 6)
    assert also["dropped"] == dict(Counter(FAULTS.values()))
    assert len(list(read_rows(str(folder)))) == 13


def test_a_run_is_measured_on_a_folder_with_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_with_faults(tmp_path / "sounds")
    values = vocoder(folder)
    values["model"] = {"family": "vocos", "width": 8, "depth": 1}
    values["train"] |= {"options": {"iterations": 1}, "batch": 2, "threads": 1, "compile": False,
                        "objective_options": {"crop": 8, "sizes": [64]}}  # fmt: skip
    run = mw.train(values, out=tmp_path / "run")
    capsys.readouterr()
    mw.evaluate(run, str(folder))
    told = capsys.readouterr().err
    assert f"2 rows of {folder} left out, not a recording of a known format" in told
    assert f"2 rows of {folder} left out, transcript without a recording" in told


def test_a_class_that_would_vanish_is_refused(tmp_path: Path) -> None:
    """All of its files are damaged: the model would not know that it exists."""
    rng = np.random.default_rng(0)
    for name in "abc":
        (tmp_path / "kinds" / name).mkdir(parents=True)
        for i in range(12):
            picture = encode_png(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
            content = f"no picture {i}".encode() if name == "c" else picture
            (tmp_path / "kinds" / name / f"{i}.png").write_bytes(content)
    values = {
        "name": "kinds",
        "data": {"source": str(tmp_path / "kinds")},
        "codec": {"size": 8},
        "train": {"task": "image_classification", "steps": 1},
    }
    with pytest.raises(ModelwrightError, match="all 12 rows of class 'c' were dropped"):
        mw.train(values, out=tmp_path / "run")


def test_pictures_that_leave_are_counted_by_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    rng = np.random.default_rng(0)
    for number in range(24):
        path = folder / ("dark", "light")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 100, (8, 8), dtype=np.uint8) + 150 * (number % 2)
        path.write_bytes(encode_png(noise.astype(np.uint8)))
    (folder / "dark" / "phone.heic").write_bytes(b"....ftypheic")
    (folder / "dark" / "notes.txt").write_text("taken in June")
    heat = io.BytesIO()
    Image.fromarray(np.full((8, 8), 36.6, np.float32)).save(heat, "TIFF")
    (folder / "light" / "heat.tif").write_bytes(heat.getvalue())
    values = {
        "name": "pictures",
        "data": {"source": str(folder), "split": {"by": "row", "validation": 0.2, "test": 0.2}},
        "train": {"task": "image_classification"},
    }
    steps = steps_of(mw.prepare(values, out=tmp_path / "run"))
    why = "files in .heic are not read, convert them to .jpg or .png"
    assert steps["collect"]["dropped"] == {why: 1}
    assert steps["collect"]["examples"] == {why: ["dark/phone.heic"]}
    gone = {k: v for step in steps.values() for k, v in step["examples"].items() if "float" in k}
    assert list(gone.values()) == [["light/heat.tif"]]
    said = capsys.readouterr()
    assert f"1 rows dropped, {why}: dark/phone.heic" in said.out + said.err
