"""A folder of recordings in which some cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modelwright.data.sounds import encode_wav

HUM = np.sin(np.arange(4000) / 9).astype(np.float32) / 2  # at 8 kHz


def folder_with_faults(folder: Path) -> Path:
    """Six recordings, one of 0 bytes, one that is text, files that are not read, a line of none."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    for i in range(6):
        hum = HUM + rng.normal(0, 0.01, len(HUM)).astype(np.float32)
        (folder / f"r{i}.wav").write_bytes(encode_wav(hum, 8000))
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.mp3").write_bytes(b"no sound at all")
    (folder / "phone.m4a").write_bytes(b"\0\0\0 ftypM4A ")
    (folder / "film.MP4").write_bytes(b"\0\0\0 ftypisom")
    (folder / "other.aiff").write_bytes(b"FORM\0\0\0\0AIFF")
    said = "\n".join(f"r{i}.wav|hum number {'abcdef'[i]}" for i in range(6))
    lines = f"{said}\nempty|nothing\nphone.m4a|from afar\ngone.m4a|lost\ngone2|lost as well\n"
    (folder / "metadata.csv").write_text(f"id|text\n{lines}")
    return folder


FAULTS = {
    "empty.wav": "not a recording of a known format",
    "text.mp3": "not a recording of a known format",
    "film.MP4": "files in .mp4 are not read, convert them to .wav or .flac",
    "other.aiff": "files in .aiff are not read, convert them to .wav or .flac",
    "phone.m4a": "files in .m4a are not read, convert them to .wav or .flac",
    "transcript gone": "transcript without a recording",
    "transcript gone2": "transcript without a recording",
}
