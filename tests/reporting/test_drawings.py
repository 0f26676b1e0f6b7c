"""Pictures of a run in its page: put into it whole, or left out with the reason."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from modelwright.data.pictures import encode_png
from modelwright.data.sounds import encode_wav
from modelwright.reporting.drawings import LARGEST, drawings
from modelwright.reporting.record import read_record
from modelwright.reporting.report import render

PICTURE = encode_png(np.zeros((4, 4), np.uint8))
SAID = "<b>a row each of 0, 1</b>"


def draw(run: Path, steps: int, name: str = "train-{}.png", content: bytes = PICTURE) -> None:
    folder = run / "samples"
    folder.mkdir(exist_ok=True)
    lines = [{"step": s, "prompt": SAID, "image": name.format(s)} for s in range(steps)]
    (folder / "train.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for s in range(steps):
        (folder / Path(name.format(s)).name).write_bytes(content)


def test_the_first_and_the_last_are_shown(run: Path) -> None:
    draw(run, 20)
    (found,) = drawings(read_record(run))
    steps = [int(at) for at, _ in found.pictures]
    assert (steps[0], steps[-1], len(steps), found.left_out) == (0, 19, 6, 14)
    page = render(read_record(run))
    assert page.count(base64.b64encode(PICTURE).decode()) == 6
    assert SAID not in page
    assert "&lt;b&gt;a row each" in page


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("../secret.png", PICTURE, "no name of a picture"),
        ("a.svg", PICTURE, "no name of a picture"),
        ("evil.png", b"<script>", "is no PNG"),
        ("large.png", PICTURE + b"\0" * LARGEST, "is no PNG of at most 2 MiB"),
    ],
)
def test_what_is_no_picture_of_the_run_is_left_out_and_said(
    run: Path, name: str, content: bytes, said: str
) -> None:
    draw(run, 1, name, content)
    page = render(read_record(run))
    assert "data:image/png" not in page
    assert said in page


def test_the_last_recording_can_be_played(run: Path) -> None:
    draw(run, 2)
    sound = encode_wav(np.zeros(40), 8000)
    path = run / "samples" / "train.jsonl"
    lines = [json.loads(line) | {"sound": "train-1.wav"} for line in path.read_text().splitlines()]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (run / "samples" / "train-1.wav").write_bytes(sound)
    page = render(read_record(run))
    assert page.count(f"data:audio/wav;base64,{base64.b64encode(sound).decode()}") == 1
    assert "media-src data:" in page
    (run / "samples" / "train-1.wav").write_bytes(PICTURE)
    page = render(read_record(run))
    assert "data:audio" not in page
    assert "is no WAV of at most 2 MiB" in page


def test_a_picture_that_is_gone_is_said(run: Path) -> None:
    draw(run, 1)
    (run / "samples" / "train-0.png").unlink()
    assert "samples/train-0.png cannot be read" in render(read_record(run))
