"""Rows of recordings: real ones, folders and tars with their transcripts, and bad input."""

from __future__ import annotations

import io
import itertools
import shutil
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from modelwright.data import sounds
from modelwright.data.inputs import input_hashes
from modelwright.data.media_types import sniff_mime
from modelwright.data.pictures import Undecodable
from modelwright.data.sound_rows import recording, sound_rows
from modelwright.data.sounds import encode_wav, resampled
from modelwright.data.sources import read_rows
from modelwright.data.waterfall import whole_rows
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.serving.media import kind_of
from modelwright.tasks.task import make_task
from modelwright.types import Sound
from tests.data.faulty_recordings import FAULTS, HUM, folder_with_faults


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


def test_a_forgotten_transcript_and_a_forgotten_recording_are_reasons(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.wav").write_bytes(encode_wav(HUM, 8000))
    (tmp_path / "metadata.csv").write_text("id|text\na|one hum\nb|\nz|nobody hums\n")
    rows = list(read_rows(str(tmp_path)))
    assert [(r["id"], r["text"]) for r in rows] == [
        ("a.wav", "one hum"),
        ("b.wav", ""),
        ("c.wav", ""),
        ("transcript z", "nobody hums"),
    ]
    task = make_task("speech_recognition", {})
    assert [task.examples(r) for r in rows[1:]] == [
        "no transcript", "no transcript", "transcript without a recording"
    ]  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
def test_what_cannot_be_read_is_a_row_with_its_problem(tmp_path: Path, packed: bool) -> None:
    folder = folder_with_faults(tmp_path / "sounds")
    if packed:
        with tarfile.open(tmp_path / "sounds.tar", "w") as tar:
            for path in sorted(folder.iterdir(), reverse=True):
                tar.add(path, path.name)
        folder = tmp_path / "sounds.tar"
    rows = {str(row["id"]): row for row in read_rows(str(folder))}
    assert {name: row["problem"] for name, row in rows.items() if "problem" in row} == FAULTS
    assert sum("problem" not in row for row in rows.values()) == 6
    assert rows["phone.m4a"]["text"] == "from afar"
    task = make_task("speech_recognition", {})
    for name in ("empty.wav", "phone.m4a", "transcript gone"):
        assert task.examples(rows[name]) == FAULTS[name]


def test_a_column_called_problem_is_a_users_own(tmp_path: Path) -> None:
    table = tmp_path / "sums.jsonl"
    table.write_text('{"problem": "2 + 2", "text": "four"}\n{"problem": "1", "text": "one"}\n')
    kept, dropped = whole_rows(read_rows(str(table)))
    assert (len(kept), dropped) == (2, [])


def test_a_folder_of_files_that_are_not_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0 ftypM4A ")
    (tmp_path / "metadata.csv").write_text("a|said\n")
    with pytest.raises(ModelwrightError, match=r"no recording in it; .*a\.m4a: files in \.m4a are"):
        list(read_rows(str(tmp_path)))
    with pytest.raises(ModelwrightError, match=r"of a kind that is not read; convert its files"):
        recording({"id": "r", "path": "a.m4a"}, "path")


def mpeg(version: int, layer: int, protected: int, rate: int, sampling: int) -> bytes:
    second = 0xE0 | version << 3 | layer << 1 | protected
    return bytes((0xFF, second, rate << 4 | sampling << 2, 0)) + bytes(60)


def test_every_frame_of_mpeg_is_a_recording_and_no_other_is() -> None:
    for head in itertools.product(range(4), range(4), range(2), range(16), range(4)):
        version, layer, _, rate, sampling = head
        valid = version != 1 and layer != 0 and rate != 15 and sampling != 3
        content = mpeg(*head)
        assert (sniff_mime(content) == "audio/mpeg") == valid, content[:3].hex()
        assert kind_of(content) == ("audio" if valid else "image")
    for first in (b"\xff\xf2", b"\xff\xfa", b"\xff\xe3", b"\xff\xfb", b"\xff\xf3"):
        assert sniff_mime(first + b"\x40\xc4") == "audio/mpeg"
    assert sniff_mime(b"\xff\xf1\x50\x80") == "application/octet-stream"  # AAC, not MPEG's MP3
    assert sniff_mime(b"\xff\xd8\xff\xe0") == "image/jpeg"
    assert sniff_mime(b"\xff") == sniff_mime(b"") == "application/octet-stream"


def test_an_mp3_with_checksums_is_read(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    written = io.BytesIO()
    soundfile.write(written, np.resize(HUM, 16_000), 16_000, format="MP3")
    content = written.getvalue()
    at = next(i for i in range(len(content)) if sniff_mime(content[i:]) == "audio/mpeg")
    checked = bytearray(content[at:])
    assert checked[1] & 1  # written without a checksum
    (tmp_path / "a.mp3").write_bytes(bytes(checked))
    (row,) = sound_rows(tmp_path)
    assert isinstance(recording(row), Sound)
    checked[1] &= 0xFE  # said to have one, which decoders do not look at
    (tmp_path / "a.mp3").write_bytes(bytes(checked))
    (row,) = sound_rows(tmp_path)
    assert "problem" not in row and sniff_mime(bytes(checked)) == "audio/mpeg"


def test_a_speaker_keeps_together(tmp_path: Path) -> None:
    for name in ("3_ann_0", "3_ann_1", "4_bob_0"):
        (tmp_path / f"{name}.wav").write_bytes(encode_wav(HUM, 8000))
    rows = list(read_rows(str(tmp_path)))
    assert [r["speaker"] for r in rows] == ["ann", "ann", "bob"]
    assert [r["group"] for r in rows] == ["speaker=ann", "speaker=ann", "speaker=bob"]


def test_what_is_no_recording_is_named(tmp_path: Path, data: Callable[[str], Path]) -> None:
    (tmp_path / "a.wav").write_bytes(b"not a sound")
    with pytest.raises(ModelwrightError, match=r"no recording in it; .*a\.wav: not a recording"):
        list(sound_rows(tmp_path))
    (tmp_path / "b.wav").write_bytes(encode_wav(HUM, 8000))
    (tmp_path / "said.json").write_text("{")
    with pytest.raises(CorruptError, match=r"said\.json: broken transcripts"):
        list(sound_rows(tmp_path))
    (tmp_path / "said.json").unlink()
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
    kept, dropped = whole_rows(read_rows(str(table)))
    assert [row["text"] for row in kept] == ["one"]
    assert [one.id for one in dropped] == ["said.jsonl:2: path 'clips/b.wav'"]


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
