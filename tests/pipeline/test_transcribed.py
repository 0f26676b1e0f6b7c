"""Recordings and folders of them written down by a trained run, from the command line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from modelwright import api
from modelwright.cli import main
from modelwright.data.hearing import one_by_one
from modelwright.data.sounds import encode_wav
from modelwright.data.sources import read_rows
from modelwright.errors import ModelwrightError
from modelwright.pipeline.transcribed import Transcriber, Transcript
from modelwright.runs import Run
from modelwright.types import Row, Sound, Turn

RATE, LONGEST = 8000, 6.0  # of the codec; seconds of a piece


SPEAKER = "jackson"
SOURCE = """
from pathlib import Path
from modelwright.data.sources import read_rows

def rows():
    found = read_rows("fsdd-strings", path=Path({path!r}))
    return (row for row in found if row["speaker"] == {speaker!r} and row["split"] != "test")
"""


@pytest.fixture(scope="module")
def run(data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A recogniser of strings of digits that knows one speaker."""
    stage = {"batch": 16, "threads": 1, "compile": False, "precision": "float32", "steps": 150}
    place = tmp_path_factory.mktemp("transcribed")
    source = place / "speaker.py"
    source.write_text(SOURCE.format(path=str(data("fsdd")), speaker=SPEAKER))
    made = {
        "name": "ear",
        "data": {"source": str(source), "split": {"by": "row", "test": 0.1}},
        "codec": {"rate": RATE, "bands": 40, "units": "words", "longest": LONGEST},
        "model": {"family": "conformer", "depth": 1, "width": 64, "heads": 2, "kernel": 7},
        "train": {"task": "speech_recognition", "options": {"text": "words"},
                  "learning_rate": 0.003, **stage},
    }  # fmt: skip
    return api.train(made, out=place / "ear")


@pytest.fixture(scope="module")
def digits(data: Callable[[str], Path]) -> list[Row]:
    """Real strings of digits that the run has not seen, with what is said in each."""
    rows = read_rows("fsdd-strings", path=data("fsdd"))
    return list(islice((r for r in rows if r["speaker"] == SPEAKER and r["split"] == "test"), 8))


@pytest.fixture
def folder(digits: list[Row], tmp_path: Path) -> Path:
    """Three recordings, one of them below another folder and one as FLAC."""
    soundfile = pytest.importorskip("soundfile", exc_type=ImportError)
    place = tmp_path / "sounds"
    (place / "more").mkdir(parents=True)
    for number, name in enumerate(("one.wav", "more/two.wav")):
        (place / name).write_bytes(encode_wav(digits[number]["samples"], RATE))
    soundfile.write(place / "three.flac", digits[2]["samples"], RATE)
    return place


NAMES = ["more/two.wav", "one.wav", "three.flac"]


def told(capsys: pytest.CaptureFixture[str], code: int, *words: object) -> tuple[list[str], str]:
    """Lines of standard output of a command that ends so, and standard error."""
    assert main(["transcribe", *map(str, words)]) == code
    out, err = capsys.readouterr()
    return out.splitlines(), err


def test_a_folder_is_written_down_line_by_line(
    run: Run, folder: Path, digits: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    lines, err = told(capsys, 0, run.path, folder)
    assert [line.split("\t")[0] for line in lines] == [str(folder / name) for name in NAMES]
    asked = api.load(run)
    assert [line.split("\t")[1] for line in lines] == [asked(folder / name) for name in NAMES]
    said = [digits[number]["words"] for number in (1, 0, 2)]
    heard = [line.split("\t")[1] for line in lines]
    assert sum(a == b for a, b in zip(said, heard, strict=True)) >= 2  # it has learned to hear
    assert re.search(r"transcribe: [\d.]+ s of sound in [\d.]+ s, [\d.]+ a second\n$", err)


def joined(digits: list[Row]) -> np.ndarray:
    """All strings with half a second of silence between."""
    quiet = np.zeros(RATE // 2, np.float32)
    return np.concatenate([part for row in digits for part in (row["samples"], quiet)])


def test_a_long_recording_is_cut_where_it_is_quiet(
    run: Run, digits: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = joined(digits)
    path = tmp_path / "long.wav"
    path.write_bytes(encode_wav(samples, RATE))
    whole = len(samples) / RATE
    assert whole > 3 * LONGEST
    (line,), err = told(capsys, 0, run.path, path, "--format", "json")
    found = json.loads(line)
    assert found["path"] == str(path) and found["duration"] == whole
    assert f"transcribe: {whole:.1f} s of sound" in err
    assert [word["word"] for word in found["words"]] == found["text"].split()
    assert len(found["words"]) > 0.8 * sum(len(row["words"].split()) for row in digits)
    times = [time for word in found["words"] for time in (word["start"], word["end"])]
    assert times == sorted(times) and whole - 2 * LONGEST < times[-1] <= whole
    pieces = list(one_by_one((Turn("user", (Sound(samples, RATE),)),), api.load(run).fitted.codec))
    assert len(pieces) > 3
    again = np.concatenate([piece[0].sound.samples for piece in pieces])
    np.testing.assert_allclose(again, samples, atol=2**-15)  # nothing is lost, nothing twice
    model = api.load(run)
    assert found["text"].split() == [word for p in pieces for word in str(model(p)).split()]


def test_progress_is_told_piece_by_piece(run: Run, digits: list[Row], tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(encode_wav(joined(digits), RATE))
    heard: list[tuple[float, float]] = []
    found = Transcriber(api.load(run).fitted, "x").transcript(path, lambda *at: heard.append(at))
    assert len(heard) > 3 and heard == sorted(heard)
    assert heard[-1] == (found.seconds, found.seconds)


def test_subtitles_lie_beside_their_recordings(
    run: Run, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, _ = told(capsys, 0, run.path, folder, "--format", "srt")
    made = [folder / Path(name).with_suffix(".srt") for name in NAMES]
    assert lines == list(map(str, made))
    text = made[1].read_text()
    cues = re.findall(r"(\d+)\n(\S+) --> (\S+)\n(.+)\n", text)
    assert cues and [int(cue[0]) for cue in cues] == list(range(1, len(cues) + 1))
    said = api.load(run)(folder / "one.wav")
    assert " ".join(cue[3] for cue in cues) == said
    kept = made[1].stat().st_mtime_ns
    lines, err = told(capsys, 0, run.path, folder / "one.wav", "--format", "srt", "--words")
    assert lines == [] and f"{made[1]}: is there and is kept; --force" in err
    assert made[1].stat().st_mtime_ns == kept
    told(capsys, 0, run.path, folder / "one.wav", "--format", "srt", "--words", "--force")
    assert re.findall(r"-->.*\n(.+)\n", made[1].read_text()) == said.split()


def test_files_are_written_where_they_are_wanted(
    run: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made"
    told(capsys, 0, run.path, folder, "--out", out)
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.*")) == [
        "more/two.txt", "one.txt", "three.txt",
    ]  # fmt: skip
    assert (out / "one.txt").read_text() == f"{api.load(run)(folder / 'one.wav')}\n"
    told(capsys, 0, run.path, folder / "one.wav", "--out", out, "--format", "vtt")
    assert (out / "one.vtt").read_text().startswith("WEBVTT\n\n00:00:0")
    told(capsys, 0, run.path, folder / "one.wav", "--out", out, "--format", "json")
    assert json.loads((out / "one.json").read_text())["words"]
    _, err = told(capsys, 2, run.path, folder, "--out", out / "one.txt")
    assert "one.txt is a file; name a folder" in err
    shutil.copy(folder / "one.wav", folder / "three.wav")
    _, err = told(capsys, 2, run.path, folder, "--out", tmp_path / "other")
    assert "three.flac and" in err and "would both be written there" in err
    assert not (tmp_path / "other").exists()


def test_one_bad_file_does_not_end_the_others(
    run: Run, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bad.wav").write_bytes((folder / "one.wav").read_bytes()[:900])
    (folder / "clip.m4a").write_bytes(b"\0\0\0\x18ftypM4A ")
    missing = folder / "none.wav"
    lines, err = told(capsys, 1, run.path, missing, folder)
    assert [Path(line.split("\t")[0]).name for line in lines] == [
        "two.wav",
        "one.wav",
        "three.flac",
    ]
    problems = [line for line in err.splitlines() if line.startswith("modelwright: ")]
    assert len(problems) == 3 and "Traceback" not in err
    assert f"{missing}: cannot be read" in problems[0]
    assert "bad.wav: ends before its header says" in problems[1]
    assert "clip.m4a: files in .m4a are not read" in problems[2]
    assert err.splitlines()[-1].endswith("; 3 could not be read")
    assert told(capsys, 2, run.path, missing)[0] == []
    (folder / "empty").mkdir()
    _, err = told(capsys, 1, run.path, folder / "empty", folder / "one.wav")
    assert "empty: no recording in it; readable: .wav" in err


def test_other_runs_and_wishes_are_refused(
    data: Callable[[str], Path], run: Run, folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    _, err = told(capsys, 2, run.path, folder, "--words")
    assert "--words: is for subtitles, not for text" in err
    names = {
        "name": "names",
        "data": {"source": "fsdd", "path": str(data("fsdd")), "limit": 300,
                 "split": {"by": "row", "test": 0.1}},
        "codec": {"rate": RATE, "bands": 20},
        "model": {"family": "conformer", "depth": 1, "width": 16, "heads": 2, "kernel": 7},
        "train": {"task": "sound_classification", "steps": 1, "batch": 4, "compile": False},
    }  # fmt: skip
    other = api.train(names, out=tmp_path / "names")
    _, err = told(capsys, 2, other.path, folder)
    (line,) = [line for line in err.splitlines() if line.startswith("modelwright: ")]
    assert "its task is sound_classification, which writes down no recordings" in line


def test_times_are_not_invented(run: Run) -> None:
    fitted = api.load(run).fitted
    fitted.codec.times = False  # type: ignore[attr-defined] - as those that give no frames
    asked = Transcriber(fitted, "x")
    asked.check("json", by_word=False)
    with pytest.raises(ModelwrightError, match="--format vtt: .* does not say when words are said"):
        asked.check("vtt", by_word=False)
    assert "words" not in Transcript("a.wav", "yes", 1.0).facts
