"""What a model answered while it learned: ``samples/STAGE.jsonl``, a line a prompt and step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelwright.data.pictures import encode_png, resized
from modelwright.files import make_folder, replace_file
from modelwright.reporting.drawings import LARGEST
from modelwright.runs import Run
from modelwright.types import Array


def keep(run: Run, stage: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Add the samples of one step.

    A resumed run says again what it had said after its checkpoint, so lines of later steps, of the
    same step and prompt, and halves of lines leave.
    """
    path = _path(run, stage)
    make_folder(path.parent)
    now = {(record["step"], record["prompt"]) for record in records}
    last = max(step for step, _ in now)
    lines = _lines(path)
    places = [_place(line) for line in lines]
    kept = [
        line
        for line, at in zip(lines, places, strict=True)
        if at is not None and at[0] <= last and at not in now
    ]
    kept += [json.dumps(record, ensure_ascii=False) for record in records]
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def keep_picture(run: Run, stage: str, record: Mapping[str, Any], pixels: Array) -> Path:
    """Write a picture, uint8 (H, W[, 3]), as ``record["image"]``, and the line that names it.

    It is halved until the report can take it in.
    """
    while len(content := encode_png(pixels)) > LARGEST:
        pixels = resized(pixels, pixels.shape[1] // 2, pixels.shape[0] // 2)
    path = run.path / "samples" / str(record["image"])
    make_folder(path.parent)
    replace_file(path, content)
    keep(run, stage, [record])
    return path


def kept_at(run: Run, stage: str, step: int) -> bool:
    """Whether there are samples of a step."""
    found = map(_place, _lines(_path(run, stage)))
    return any(at is not None and at[0] == step for at in found)


def _path(run: Run, stage: str) -> Path:
    return run.path / "samples" / f"{stage}.jsonl"


def _lines(path: Path) -> list[str]:
    """The lines of a file, if it is there; not by ``splitlines``, which also cuts within a text."""
    return path.read_text(encoding="utf-8").split("\n") if path.exists() else []


def _place(line: str) -> tuple[int, str] | None:
    """Step and prompt of a line; None where it is not whole."""
    try:
        record = json.loads(line)
        return int(record["step"]), str(record["prompt"])
    except (ValueError, KeyError, TypeError):
        return None
