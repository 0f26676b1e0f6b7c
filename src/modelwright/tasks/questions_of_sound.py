"""Recordings that are asked about: the path of a file, or its bytes as a data URL."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modelwright.data import sounds
from modelwright.data.pictures import Undecodable
from modelwright.errors import ModelwrightError
from modelwright.types import Sound, Turn

RATE = 16_000  # to which a long recording is brought while it is read; the codec has its own
SHORT = 600.0  # seconds of one that is kept at its own rate, as those of training are
LARGEST = 4 << 30  # bytes of a file that a question may name
_DATA_URL = re.compile(r"data:audio/[\w.+-]+(?:;[\w=.+-]+)*;base64,")


def request(text: str) -> Sequence[Turn]:
    """The turns of a recording as a data URL.

    Raises:
        ModelwrightError: it is none, or holds no sound.
    """
    text = text.strip()
    match = _DATA_URL.match(text)
    if match is None:
        raise ModelwrightError(
            "question: a recording is meant, as data:audio/wav;base64,... or as the path of a file"
        )
    try:
        content = base64.b64decode(text[match.end() :], validate=True)
    except ValueError as error:
        raise ModelwrightError(f"question: no base64 ({error}); encode it again") from error
    return (Turn("user", (sound_of(content, "question"),)),)


def question(text: str) -> Sequence[Turn]:
    """The turns of what ``request`` reads, or of the path of a recording.

    Raises:
        ModelwrightError: there is no such file, or it holds no sound.
    """
    name = text.strip()
    if name.startswith("data:"):
        return request(name)
    return of_file(Path(name).expanduser(), name)


def of_file(path: Path, name: str, rate: int = RATE) -> Sequence[Turn]:
    """The turns of a recording that lies at a path; ``name`` is how messages call it.

    ``rate`` is that of ``sound_of``.

    Raises:
        ModelwrightError: there is no such file, or it holds no sound.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ModelwrightError(f"{name}: is larger than {LARGEST >> 30} GiB; cut it")
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelwrightError(
            f"{name[:200]}: cannot be read ({reason}); give the path of a recording"
        ) from error
    return (Turn("user", (sound_of(content, name, rate),)),)


def sound_of(content: bytes, name: str, rate: int = RATE) -> Sound:
    """The bytes of a sound file of any rate and number of channels, as one channel.

    A recording longer than SHORT is brought to ``rate`` while it is read.

    Raises:
        ModelwrightError: it cannot be decoded, or is too long.
    """
    try:
        try:
            samples, own = sounds.decode(content, seconds=SHORT)
        except Undecodable as error:
            if "limit" not in str(error):
                raise
            return Sound(sounds.at_rate(content, rate), rate)
        return Sound(sounds.mono(samples).astype(np.float32), own)
    except Undecodable as error:
        raise ModelwrightError(
            f"{name}: {error}; give a whole recording of at most"
            f" {sounds.LONG_SECONDS / 3600:g} h as WAV, or {sounds.SECONDS / 3600:g} h as FLAC,"
            " Ogg or MP3"
        ) from error
