"""Data sets of speech: digits, strings of digits, sentences of one voice, orders with meaning."""

from __future__ import annotations

import io
import json
import wave
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.data.archive import gunzip, tar_members
from modelwright.data.orders import sentences
from modelwright.data.read_aloud import read_aloud
from modelwright.data.sound_rows import sound_rows
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.types import Array, Row

ORIGINS = {
    "fsdd": "https://github.com/Jakobovski/free-spoken-digit-dataset",
    "fsdd-strings": "https://github.com/Jakobovski/free-spoken-digit-dataset",
    "kathleen": "https://github.com/rhasspy/dataset-voice-kathleen (recordings, metadata.csv)",
    "coffee_slu": "https://github.com/Picovoice/speech-to-intent-benchmark (data)",
    "coffee-sentences": "https://github.com/Picovoice/speech-to-intent-benchmark (data)",
    "read-aloud": "https://github.com/computationalstylistics/100_english_novels (as a tar)",
}
FOLDERS = {
    "fsdd-strings": "fsdd",
    "coffee-sentences": "coffee_slu",
    "read-aloud": "english_novels",
}  # data sets that are made of another's files
TEST_TAKES = 5
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VALIDATION_TAKES = range(5, 9)  # takes of the train part whose strings are for choosing
SHORTEST, LONGEST = 2, 7  # digits of a string
PAUSE = 0.15  # seconds of silence between two digits, at most
TIMES = {"train": 4, "validation": 4, "test": 4}  # strings that a recording stands in
SEED = 20_101


def digits(folder: Path) -> Iterator[Row]:
    """The Free Spoken Digit Dataset: ``samples`` float32 (time,) in [-1, 1), ``rate`` in hertz.

    Names are digit_speaker_take.wav. The data set's own split: takes 0 to 4 of every digit and
    speaker are the test, the rest is for training.
    """
    if folder.is_file():
        found = tar_members(folder, suffix=".wav")
    elif packed := sorted(folder.glob("*.tar*")):
        found = tar_members(packed[0], suffix=".wav")
    else:
        found = ((p.name, gunzip(p)) for p in folder.rglob("*.wav"))
    recordings = sorted((Path(name).stem, content) for name, content in found)
    if not recordings:
        raise ModelwrightError(f"{folder}: no .wav recordings: get them from {ORIGINS['fsdd']}")
    for stem, content in recordings:
        label, _, rest = stem.partition("_")
        speaker, _, take = rest.rpartition("_")
        if not (label.isdecimal() and speaker and take.isdecimal()):
            raise ModelwrightError(f"{folder}: {stem}.wav is not named digit_speaker_take.wav")
        samples, rate = read_wave(content, f"{folder}: {stem}.wav")
        yield {
            "id": stem,
            "samples": samples,
            "rate": rate,
            "label": label,
            "speaker": speaker,
            "take": int(take),
            "split": "test" if int(take) < TEST_TAKES else "train",
        }


def read_wave(content: bytes, name: str) -> tuple[Array, int]:
    """Decode a 16-bit PCM wave file: samples float32 (time,), channels averaged, and hertz.

    Raises:
        ModelwrightError: It is damaged, or not 16-bit PCM.
    """
    try:
        with wave.open(io.BytesIO(content)) as stream:
            if stream.getsampwidth() != 2:
                raise ModelwrightError(f"{name}: not 16-bit PCM: convert it")
            channels, rate = stream.getnchannels(), stream.getframerate()
            raw = stream.readframes(stream.getnframes())
    except (wave.Error, EOFError) as error:
        raise CorruptError(f"{name}: damaged wave file ({error}): get it again") from error
    whole = len(raw) // (2 * channels) * 2 * channels
    values = np.frombuffer(raw[:whole], dtype="<i2").reshape(-1, channels)
    return values.mean(axis=1, dtype=np.float32) / np.float32(32768), rate


def digit_strings(recordings: Iterable[Row]) -> Iterator[Row]:
    """``samples``, ``rate`` and ``words`` ("seven one four") of digits of one speaker, joined.

    A pure function of the recordings, which are rows of FSDD. Test strings are made of test
    takes, validation strings of takes 5 to 8, train strings of the others: no recording stands in
    two parts. Each stands in as many strings of its part as ``TIMES`` says.
    """
    pools: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in recordings:
        part = row["split"]
        if part == "train" and row["take"] in VALIDATION_TAKES:
            part = "validation"
        pools[part, row["speaker"]].append(row)
    for (part, speaker), pool in sorted(pools.items()):
        rng = np.random.default_rng([SEED, *f"{part} {speaker}".encode()])
        number = 0
        for _ in range(TIMES[part]):
            order = [pool[i] for i in rng.permutation(len(pool))]
            while order:
                many = int(rng.integers(SHORTEST, LONGEST + 1))
                chosen, order = order[:many], order[many:]
                yield {
                    "id": f"{part}_{speaker}_{number}",
                    "samples": _joined(chosen, rng),
                    "rate": chosen[0]["rate"],
                    "words": " ".join(WORDS[int(row["label"])] for row in chosen),
                    "speaker": speaker,
                    "split": part,
                }
                number += 1


def _joined(rows: list[Row], rng: np.random.Generator) -> Array:
    parts: list[Array] = []
    for row in rows:
        pause = rng.uniform(0, PAUSE) * row["rate"]
        parts += [np.zeros(round(pause), np.float32), row["samples"]]
    return np.concatenate(parts)


def orders(folder: Path) -> Iterator[Row]:
    """Orders to a coffee machine: ``audio``, ``intent``, ``slots`` and ``text``, which spells both.

    Read from speech.tar and label.json (Picovoice, speech-to-intent benchmark).
    """
    packed, labels = folder / "speech.tar", folder / "label.json"
    for path in (packed, labels):
        if not path.is_file():
            raise ModelwrightError(f"{folder}: {path.name} is missing: put it there, as downloaded")
    try:
        known: dict[str, dict[str, Any]] = json.loads(labels.read_text("utf-8"))
        for name, content in sorted(tar_members(packed, suffix=".flac")):
            about = known.get(Path(name).name)
            if about is not None:
                yield {
                    "id": Path(name).stem,
                    "audio": content,
                    "intent": about["intent"],
                    "slots": dict(about["slots"]),
                }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptError(f"{labels}: not the labels of orders ({error}): get it again") from error


ROWS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "fsdd": digits,
    "fsdd-strings": lambda folder: digit_strings(digits(folder)),
    "kathleen": sound_rows,
    "coffee_slu": orders,
    "coffee-sentences": sentences,
    "read-aloud": read_aloud,
}
