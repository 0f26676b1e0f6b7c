"""Rows of recordings: real ones, folders and tars with their transcripts, and bad input."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from modelwright.data import sounds
from modelwright.data.inputs import input_hashes
from modelwright.data.pictures import Undecodable
from modelwright.data.sound_rows import recording, sound_rows
from modelwright.data.sounds import encode_wav, resampled
from modelwright.data.sources import read_rows
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.tasks.task import make_task
from modelwright.types import Sound

HUM = np.sin(np.arange(4000) / 9).astype(np.float32) / 2


def test_kathleen_reads_sentences(data: Callable[[str], Path]) -> None:
    rows = list(read_rows("kathleen", path=data("kathleen")))
    assert len(rows) == 320
    assert rows[0]["text"].startswith("Not at this particular case, Tom")
    sound = recording(rows[0])
    assert isinstance(sound, Sound)
    assert sound.rate == 16_000
    assert 3 < sound.seconds < 4
    assert sound.samples.dtype == np.float32
    assert 0.05 < np.abs(sound.samples).max() <= 1
    packed = list(read_rows(str(data("kathleen") / "audio.tar")))
    assert [r["text"] for r in packed] == [r["text"] for r in rows]


def test_a_folder_of_recordings_is_a_source(tmp_path: Path) -> None:
    stereo = np.stack((HUM, -HUM), axis=1)
    for name, samples in (("a", HUM), ("b", stereo)):
        (tmp_path / f"{name}.wav").write_bytes(encode_wav(samples, 8000))
    (tmp_path / "metadata.csv").write_text("id|text\na|one hum\nb|two\n")
    rows = list(read_rows(str(tmp_path)))
    assert [(r["id"], r["text"], r["group"]) for r in rows] == [
        ("a.wav", "one hum", "a.wav"),
        ("b.wav", "two", "b.wav"),
    ]
    one, two = map(recording, rows)
    assert isinstance(one, Sound)
    assert isinstance(two, Sound)
    assert np.allclose(one.samples, HUM, atol=1e-4)
    assert np.allclose(two.samples, 0, atol=1e-4)  # the mean of the channels


def test_a_forgotten_transcript_is_a_reason_and_a_forgotten_recording_nothing(
    tmp_path: Path,
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.wav").write_bytes(encode_wav(HUM, 8000))
    (tmp_path / "metadata.csv").write_text("id|text\na|one hum\nb|\nz|nobody hums\n")
    rows = list(read_rows(str(tmp_path)))
    assert [(r["id"], r["text"]) for r in rows] == [
        ("a.wav", "one hum"),
        ("b.wav", ""),
        ("c.wav", ""),
    ]
    task = make_task("speech_recognition", {})
    assert [task.examples(r) for r in rows[1:]] == ["no transcript", "no transcript"]


def test_a_speaker_keeps_together(tmp_path: Path) -> None:
    for name in ("3_ann_0", "3_ann_1", "4_bob_0"):
        (tmp_path / f"{name}.wav").write_bytes(encode_wav(HUM, 8000))
    rows = list(read_rows(str(tmp_path)))
    assert [r["speaker"] for r in rows] == ["ann", "ann", "bob"]
    assert [r["group"] for r in rows] == ["speaker=ann", "speaker=ann", "speaker=bob"]


def test_what_is_no_recording_is_named(tmp_path: Path, data: Callable[[str], Path]) -> None:
    (tmp_path / "a.wav").write_bytes(b"not a sound")
    with pytest.raises(CorruptError, match=r"a\.wav: not a recording"):
        list(sound_rows(tmp_path))
    with pytest.raises(ModelwrightError, match="no recording in it"):
        list(sound_rows(data("tinyshakespeare")))
    shutil.copy(data("kathleen") / "metadata.csv", tmp_path)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"id": "r", "audio": None}, "no recording"),
        ({"id": "r", "audio": encode_wav(HUM, 8000)[:900]}, "recording cannot be decoded"),
        ({"id": "r", "audio": b"RIFF\x00\x00\x00\x00WAVE"}, "recording cannot be decoded"),
        ({"id": "r", "audio": encode_wav(np.resize(HUM, 80_000), 8000)}, "recording too long"),
    ],
)
def test_why_a_row_has_no_recording(row: dict[str, object], reason: str) -> None:
    assert recording(row, seconds=9.0) == reason


def test_columns_are_named() -> None:
    with pytest.raises(ModelwrightError, match=r"row r: no column 'audio'.*it has: sounds"):
        recording({"id": "r", "sounds": b""})
    with pytest.raises(ModelwrightError, match="column 'note' holds no bytes"):
        recording({"id": "r", "note": "a hum"}, "note")
    with pytest.raises(ModelwrightError, match=r"column 'path' names 'a\.wav', which is no file"):
        recording({"id": "r", "path": "a.wav"}, "path")
    found = recording({"id": "r", "samples": HUM, "rate": 8000})
    assert isinstance(found, Sound)
    assert found.rate == 8000


def test_a_table_names_recordings(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for name, size in (("a", 4000), ("b", 2000)):
        (tmp_path / "clips" / f"{name}.wav").write_bytes(encode_wav(HUM[:size], 8000))
    table = tmp_path / "said.jsonl"
    table.write_text(
        '{"path": "clips/a.wav", "text": "one"}\n{"path": "clips/b.wav", "text": "two"}\n'
    )
    rows = list(read_rows(str(table)))
    found = [recording(row) for row in rows]
    assert [len(sound.samples) for sound in found if isinstance(sound, Sound)] == [4000, 2000]
    assert [row["text"] for row in rows] == ["one", "two"]
    before = input_hashes(str(table))
    assert "2 recordings" in before
    (tmp_path / "clips" / "b.wav").write_bytes(encode_wav(HUM, 8000))
    assert input_hashes(str(table)) != before
    with pytest.raises(ModelwrightError, match=r"'path' holds names of files; leave train\.opt"):
        recording(rows[0], "path")
    (tmp_path / "clips" / "b.wav").unlink()
    with pytest.raises(ModelwrightError, match=r"row said\.jsonl:2: path 'clips/b\.wav': cannot"):
        list(read_rows(str(table)))


def test_another_rate_is_the_same_sound() -> None:
    at = np.arange(8000) / 8000
    tone = (np.sin(2 * np.pi * 440 * at) * np.hanning(8000)).astype(np.float32)
    faster = resampled(tone, 8000, 16_000)
    assert faster.shape == (16_000,)
    assert np.allclose(faster[::2], tone, atol=1e-4)
    assert np.allclose(resampled(faster, 16_000, 8000), tone, atol=1e-4)
    assert resampled(tone, 8000, 8000) is not None


def test_a_wav_from_a_pipe_says_no_length() -> None:
    samples = np.linspace(-0.5, 0.5, 1000, dtype=np.float32)
    content = sounds.encode_wav(samples, 16_000)
    expected, _ = sounds.decode(content)
    for riff, data in ((0xFFFFFFFF, 0xFFFFFFFF), (0, 0), (0x7FFFF024, 0x7FFFF000)):
        head = bytearray(content)
        head[4:8], head[40:44] = struct.pack("<I", riff), struct.pack("<I", data)
        found, rate = sounds.decode(bytes(head))
        assert rate == 16_000 and np.array_equal(found, expected)
        assert np.array_equal(sounds.at_rate(bytes(head), 16_000), expected[:, 0])
    assert np.array_equal(sounds.decode(sounds.opened_wav(content))[0], expected)
    empty = bytearray(content[:44])
    empty[4:8], empty[40:44] = struct.pack("<I", 36), struct.pack("<I", 0)
    with pytest.raises(Undecodable, match="holds no sound"):
        sounds.decode(bytes(empty))
    with pytest.raises(Undecodable, match="ends before"):
        sounds.decode(content[:-100])
