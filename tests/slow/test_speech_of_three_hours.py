"""Three hours of sound within memory; by hand: pytest tests/slow/test_speech_of_three_hours.py."""

from __future__ import annotations

import resource
from pathlib import Path

import torch

from modelwright.data.codecs import fit_codec
from modelwright.models.conformer import Config
from modelwright.objectives.ctc import Objective
from modelwright.tasks.task import make_task
from modelwright.types import Example, stack
from tests.tasks.test_speech import eight_bits


def test_three_hours_are_answered_within_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    eight_bits(path, 3 * 3600, 8000)
    task = make_task("speech_recognition", {})
    (first,) = task.examples(dict(task.specimen))
    codec = fit_codec("speech", [first], {"rate": 8000, "bands": 20, "longest": 20.0})
    model = Config(**{**Config.specimen, **Config.data_fields(codec)}).build().eval()
    columns = stack([codec.encode(Example(tuple(task.question(str(path)))))], codec.ragged)
    objective = Objective(codec)
    with torch.inference_mode():
        batch = objective.collate(columns, torch.Generator())
        scores = objective.predict(model, batch)
    assert scores.shape[1] >= 3 * 3600 * 50
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 5 << 20  # KiB
