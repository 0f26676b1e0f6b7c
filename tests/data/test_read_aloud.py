"""Sentences read by a synthesiser: alike each time, plain words alone, and a clear refusal."""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from modelwright.data import read_aloud
from modelwright.data.sound_rows import recording
from modelwright.data.sources import read_rows
from modelwright.errors import MachineError, ModelwrightError
from modelwright.types import Sound

TEXT = """CHAPTER 1

“It is a truth,” he said, “and no more.” She had 12 reasons not to go. No.

He turned sharply—and faced
her across the table. Quite so,
for there was nothing else in the world to do, as far off as one of them could see.
"""
SPOKEN = [
    "It is a truth, he said, and no more.",
    "He turned sharply-and faced her across the table.",
]
needs_program = pytest.mark.skipif(
    shutil.which(read_aloud.PROGRAM) is None, reason="the program espeak-ng is not installed"
)


def test_only_plain_sentences_are_read(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    assert list(read_aloud.sentences(tmp_path / "text.txt")) == SPOKEN


@needs_program
def test_sentences_are_read_alike_each_time(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    rows, again = (list(read_rows("read-aloud", path=file)) for _ in range(2))
    assert [row["text"] for row in rows] == SPOKEN
    for row, same in zip(rows, again, strict=True):
        sound = recording(row)
        assert isinstance(sound, Sound)
        assert 1 < sound.seconds < 8
        assert 0.05 < np.abs(sound.samples).max() <= 1
        assert row["audio"] == same["audio"]
        assert row["speaker"] in read_aloud.VOICES
    file.write_text("12. Too short. " * 9)
    with pytest.raises(ModelwrightError, match="no English sentence"):
        list(read_rows("read-aloud", path=file))


@needs_program
def test_novels_are_read_a_little_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("He did not know the way home. " * 20_000)
    rows = list(islice(read_rows("read-aloud", path=file), 3))
    assert len({row["audio"] for row in rows}) == 3  # another voice, speed or pitch


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="espeak-ng, which is not installed: install it"):
        list(read_rows("read-aloud", path=tmp_path / "text.txt"))
    (tmp_path / read_aloud.PROGRAM).write_text("#!/bin/false\n")
    (tmp_path / read_aloud.PROGRAM).chmod(0o755)
    with pytest.raises(ModelwrightError, match="does not read 'It is"):
        list(read_rows("read-aloud", path=tmp_path / "text.txt"))
