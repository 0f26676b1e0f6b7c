"""Recordings between files and arrays: decoded whole or refused, measured, written."""

from __future__ import annotations

import io
import struct
import wave
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modelwright.data.pictures import Undecodable
from modelwright.errors import MachineError, ModelwrightError

if TYPE_CHECKING:
    from modelwright.types import Array

SECONDS = 3600.0  # a longer recording is taken for a bomb
LONG_SECONDS = 4 * 3600.0  # of one that is read minute by minute
FRAME_SECONDS = 0.020  # silence is judged in pieces of this length
SILENT_BELOW = -40.0  # dB below the loudest piece of the recording
FLOOR = -70.0  # dB below full scale: quieter is silent whatever the rest is
CLIPPED = 0.999  # of full scale
CLIPPED_RUN = 3  # samples in a row at full scale: fewer are a peak
WAV_HEAD = 44  # bytes before the samples in what is written here
_OPEN = 0x7FFF0000  # a length from here on was given by a writer to a pipe, which knew none


def decode(content: bytes, *, seconds: float = SECONDS) -> tuple[NDArray[np.float32], int]:
    """The samples (n, channels) in [-1, 1] and how many there are a second.

    PCM in WAV is read by Python itself; FLAC, Ogg, MP3 and the rest by libsndfile.

    Raises:
        Undecodable: damaged, cut short, empty, or longer than ``seconds``.
        MachineError: soundfile is needed and not installed.
    """
    if content[:4] == b"RIFF":
        content = _closed(content)
        try:
            return _pcm(content, seconds)
        except (wave.Error, EOFError):  # another coding than PCM
            pass
    return _sound_file(content, seconds)


def at_rate(content: bytes, wanted: int, *, seconds: float = LONG_SECONDS) -> NDArray[np.float32]:
    """The mean of the channels (n,) at ``wanted`` samples a second, read a minute at a time.

    So three hours of stereo at 96 kHz take no more memory than what is returned.

    Raises:
        Undecodable: as ``decode``.
        MachineError: as ``decode``.
    """
    return np.concatenate([
        resampled(mono(block), rate, wanted) for block, rate in minutes(content, seconds)
    ])  # fmt: skip


def minutes(
    content: bytes, seconds: float = LONG_SECONDS
) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Samples (n, channels) in [-1, 1] of a minute at a time, and how many there are a second.

    Raises:
        Undecodable: as ``decode``.
        MachineError: as ``decode``.
    """
    if content[:4] == b"RIFF":
        content = _closed(content)
        try:
            with wave.open(io.BytesIO(content)) as file:
                rate, channels, width = (
                    file.getframerate(),
                    file.getnchannels(),
                    file.getsampwidth(),
                )
                _check_length(file.getnframes(), rate, channels, seconds)
                while raw := file.readframes(60 * rate):
                    yield _values(raw, width, channels), rate
            return
        except (wave.Error, EOFError):  # another coding than PCM
            pass
    found, rate = _sound_file(content, min(seconds, SECONDS))
    for first in range(0, len(found), 60 * rate):
        yield found[first : first + 60 * rate], rate


def _closed(content: bytes) -> bytes:
    """A WAV with its lengths, where its writer left them open.

    Raises:
        Undecodable: its data ends before its header says; decoders fill in silently.
    """
    at = 12
    while at + 8 <= len(content):
        name, size = content[at : at + 4], struct.unpack_from("<I", content, at + 4)[0]
        if name == b"data":
            (whole,) = struct.unpack_from("<I", content, 4)
            if size >= _OPEN or (size == 0 and whole != len(content) - 8):
                rest = content[at + 8 :]
                known = [struct.pack("<I", n) for n in (len(content) - 8, len(rest))]
                return b"".join((content[:4], known[0], content[8 : at + 4], known[1], rest))
            if at + 8 + size > len(content):
                raise Undecodable("ends before its header says")
            return content
        at += 8 + size + size % 2
    raise Undecodable("a WAV without sound")


def _pcm(content: bytes, seconds: float) -> tuple[NDArray[np.float32], int]:
    with wave.open(io.BytesIO(content)) as file:
        rate, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
        _check_length(file.getnframes(), rate, channels, seconds)
        raw = file.readframes(file.getnframes())
    return _values(raw, width, channels), rate


def _values(raw: bytes, width: int, channels: int) -> NDArray[np.float32]:
    """PCM of ``width`` bytes a value as samples (n, channels) in [-1, 1]."""
    raw = raw[: len(raw) // (width * channels) * width * channels]
    if width == 1:  # unsigned, unlike the others
        samples = (np.frombuffer(raw, np.uint8) - 128.0) / 128
    elif width == 3:
        low = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(low), 4), np.uint8)
        wide[:, 1:] = low
        samples = wide.view("<i4")[:, 0] / 2.0**31
    else:
        scale = 2.0 ** (8 * width - 1)
        samples = np.frombuffer(raw, f"<i{width}") / scale
    return samples.astype(np.float32).reshape(-1, channels)


def _sound_file(content: bytes, seconds: float) -> tuple[NDArray[np.float32], int]:
    try:
        import soundfile  # noqa: PLC0415
    except ImportError as error:
        raise MachineError(
            "sounds other than PCM in WAV need soundfile: pip install 'modelwright[data]'"
        ) from error
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            announced = file.frames
            _check_length(announced, file.samplerate, file.channels, seconds)
            # An MP3 may announce nearly any length; reading stops at what was announced.
            found = np.asarray(file.read(dtype="float32", always_2d=True), dtype=np.float32)
            rate, coding = int(file.samplerate), str(file.format)
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
        raise Undecodable(f"cannot be decoded ({type(error).__name__})") from error
    if len(found) < announced and coding != "MPEG":
        raise Undecodable("ends before its header says")
    if not np.isfinite(found).all():
        raise Undecodable("holds NaN or infinity")
    return found, rate


def _check_length(frames: int, rate: int, channels: int, seconds: float) -> None:
    if frames <= 0 or rate <= 0 or channels <= 0:
        raise Undecodable("holds no sound")
    if frames / rate > seconds or channels > 64:
        raise Undecodable("longer than the limit")


def encode_wav(samples: Array, rate: int) -> bytes:
    """The samples (n,) or (n, channels) in [-1, 1] as WAV in 16 bits, rounded and clipped."""
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim not in (1, 2) or not values.size:
        raise ModelwrightError(f"sound: samples of shape {values.shape}, (n, channels) is meant")
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1 if values.ndim == 1 else values.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        whole = np.clip(np.rint(values * 2**15), -(2**15), 2**15 - 1).astype("<i2")
        file.writeframes(whole.tobytes())
    return out.getvalue()


def opened_wav(content: bytes) -> bytes:
    """What ``encode_wav`` wrote with its length left open, so that samples may be put behind it.

    Both lengths are the largest there are, which players take for "until it ends".
    """
    largest = b"\xff\xff\xff\xff"
    return content[:4] + largest + content[8 : WAV_HEAD - 4] + largest + content[WAV_HEAD:]


def mono(samples: Array) -> Array:
    """The mean of the channels, (n,)."""
    return np.asarray(samples.mean(axis=1) if samples.ndim == 2 else samples)


def resampled(samples: Array, rate: int, wanted: int) -> Array:
    """The samples (n,) at another rate, round(n wanted / rate) of them, float32.

    By the spectrum of the whole recording, cut off or extended with zeros: exact for what lies
    below half the lower rate.
    """
    if rate == wanted or not len(samples):
        return np.asarray(samples, np.float32)
    length = max(1, round(len(samples) * wanted / rate))
    kept = np.fft.rfft(samples)[: length // 2 + 1] * (length / len(samples))
    return np.fft.irfft(kept, n=length).astype(np.float32)


def silent_share(samples: Array, rate: int) -> float:
    """The share of pieces of 20 ms that are 40 dB below the loudest one, or -70 dB full scale."""
    size = max(1, round(FRAME_SECONDS * rate))
    sound = mono(samples).astype(np.float64)
    whole = (
        sound[: len(sound) // size * size].reshape(-1, size) if len(sound) >= size else sound[None]
    )
    level = 10 * np.log10(np.maximum(np.square(whole).mean(axis=1), 1e-12))
    threshold = max(float(level.max()) + SILENT_BELOW, FLOOR)
    return float((level < threshold).mean())


def clipped_share(samples: Array) -> float:
    """The share of samples that stand at full scale for three or more in a row, any channel."""
    columns = samples if samples.ndim == 2 else samples[:, None]
    full = np.abs(columns) >= CLIPPED
    if not full.any():
        return 0.0
    count = 0
    for channel in full.T:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], channel.astype(np.int8), [0]])))
        runs = edges[1::2] - edges[::2]
        count += int(runs[runs >= CLIPPED_RUN].sum())
    return count / full.size


def level(samples: Array) -> float:
    """Root mean square in dB of full scale, -120 for silence."""
    power = float(np.square(np.asarray(samples, dtype=np.float64)).mean())
    return 10 * float(np.log10(max(power, 1e-12)))
