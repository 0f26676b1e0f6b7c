"""The comparison of speech: both train the same shape on the same recordings."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import run, speech
from benchmarks.speech import librosa_pipeline, shapes
from modelwright.errors import MachineError
from modelwright.models.conformer import Config


def test_the_peer_has_our_shape() -> None:
    letters = len(librosa_pipeline.ALPHABET) + 1
    ours = Config(
        features=shapes.BANDS,
        outputs=letters,
        depth=shapes.DEPTH,
        width=shapes.WIDTH,
        heads=shapes.HEADS,
        kernel=shapes.KERNEL,
    ).build()
    peer = librosa_pipeline.Recogniser()
    many = [sum(p.numel() for p in model.parameters()) for model in (ours, peer)]
    assert abs(many[1] / many[0] - 1) < 0.001  # a bias of the keys more, in the peer
    frames, lengths = torch.randn(2, 41, shapes.BANDS), torch.tensor([41, 30])
    scores, left = peer(frames, lengths)
    assert scores.shape == (2, 11, letters)
    assert torch.equal(left, ours.frame_counts(lengths))


def test_masks_of_the_peer_are_as_large_as_ours_may_be() -> None:
    frames = librosa_pipeline.masked(torch.ones(400, shapes.BANDS))
    bands, spans = (frames == 0).all(0).sum(), (frames == 0).all(1).sum()
    assert bands <= shapes.FREQUENCY_MASKS * shapes.FREQUENCY * shapes.BANDS
    assert spans <= shapes.TIME_MASKS * shapes.TIME * 400


def test_the_peer_reads_the_files_that_ours_learns_from(
    data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELWRIGHT_DATA", str(data("kathleen").parent))
    files = shapes.unpacked(tmp_path)
    assert len(files) == 320
    assert all(path.is_file() and text for path, text in files)


def test_without_recordings_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MODELWRIGHT_DATA", str(tmp_path))
    rows = speech.questions(quick=True)
    assert [row.question for row in rows] == list(speech.PARTS)
    assert not any(row.holds for row in rows)
    assert all("kathleen/ is not in MODELWRIGHT_DATA" in str(row.peer) for row in rows)
    with pytest.raises(MachineError):
        shapes.recordings()


def test_every_requirement_is_pinned() -> None:
    lines = (run.FOLDER / "speech" / "requirements.txt").read_text().splitlines()
    named = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in named)
