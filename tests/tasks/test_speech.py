"""Tasks of speech: recordings of every kind in, one line where none can be heard."""

from __future__ import annotations

import base64
import io
import struct
import tarfile
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.data.codecs import fit_codec
from modelwright.data.read_matter import spelled_sentences
from modelwright.data.sounds import encode_wav
from modelwright.data.spelling import Spelling
from modelwright.data.spoken import WORDS, digit_strings, digits, orders
from modelwright.errors import ModelwrightError
from modelwright.tasks.speech_understanding import pairs, written
from modelwright.tasks.task import make_task
from modelwright.tasks.transcripts import error_rates, normalised
from modelwright.types import Example, Turn, text_turn

RATE = 16_000
TONE = (np.sin(np.arange(RATE, dtype=np.float32) / 6) / 2).astype(np.float32)

soundfile = pytest.importorskip("soundfile", exc_type=ImportError)


def wav(samples: np.ndarray, rate: int, width: int = 2, channels: int = 1) -> bytes:
    """PCM of 1 or 2 bytes a value."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        if width == 1:
            file.writeframes((samples * 127 + 128).astype(np.uint8).tobytes())
        else:
            file.writeframes((samples * 32767).astype("<i2").tobytes())
    return out.getvalue()


def through(kind: str, subtype: str | None = None) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, TONE, RATE, format=kind, subtype=subtype)
    return out.getvalue()


FORMS: dict[str, Callable[[], bytes]] = {
    "stereo": lambda: wav(np.repeat(TONE, 2), RATE, channels=2),
    "8 bits": lambda: wav(TONE, RATE, width=1),
    "96 kHz": lambda: wav(np.repeat(TONE, 6), 96_000),
    "float": lambda: through("WAV", "FLOAT"),
    "FLAC": lambda: through("FLAC"),
    "Ogg": lambda: through("OGG", "VORBIS"),
    "MP3": lambda: through("MP3"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_recording_of_any_kind_is_heard(form: str, tmp_path: Path) -> None:
    """One second of the same tone, whatever the file: as a row, as a path, and as a data URL."""
    content = FORMS[form]()
    task = make_task("speech_recognition", {})
    (example,) = task.examples({"id": "a", "audio": content, "text": "Aah!"})
    codec = fit_codec("speech", [example], {})
    samples = codec.encode(example)["samples"]
    assert samples.dtype == np.int16
    assert abs(len(samples) - RATE) <= 2600  # an MP3 has silence around it
    assert abs(np.abs(samples).max() / 2**15 - 0.5) < 0.15
    assert example.answer.text == "aah"
    path = tmp_path / "tone"
    path.write_bytes(content)
    url = f"data:audio/wav;base64,{base64.b64encode(content).decode()}"
    for turns in (task.question(str(path)), task.question(url), task.request(url)):
        asked = codec.encode(Example(tuple(turns)))
        assert np.array_equal(asked["samples"], samples)  # as in training, to the bit
        assert len(asked["letters"]) == 0


def mp4() -> bytes:
    return struct.pack(">I", 24) + b"ftypM4A \0\0\0\0M4A mp42" + bytes(500)


BROKEN: dict[str, tuple[bytes, str]] = {
    "truncated": (wav(TONE, RATE)[:9000], "ends before its header says"),
    "empty": (wav(TONE[:0], RATE), "holds no sound"),
    "text": (b"this is no recording at all", "cannot be decoded"),
    "MP4": (mp4(), "cannot be decoded"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_heard_is_one_line(kind: str, tmp_path: Path) -> None:
    content, why = BROKEN[kind]
    task = make_task("speech_recognition", {})
    assert (
        task.examples({"id": "a", "audio": content, "text": "x"}) == "recording cannot be decoded"
    )
    path = tmp_path / "broken.wav"
    path.write_bytes(content)
    with pytest.raises(ModelwrightError, match=why) as caught:
        task.question(str(path))
    assert "\n" not in str(caught.value)
    assert "broken.wav" in str(caught.value)
    with pytest.raises(ModelwrightError, match="a recording is meant"):
        task.request(str(path))  # over a network no file is read


def test_silence_is_heard_and_a_missing_transcript_is_a_reason() -> None:
    task = make_task("speech_recognition", {})
    (example,) = task.examples({"id": "a", "samples": np.zeros(900), "rate": 8000, "text": "hm"})
    codec = fit_codec("speech", [example], {"rate": 8000, "bands": 20})
    from modelwright.types import stack

    frames = codec.tensors(stack([codec.encode(example)], codec.ragged))["frames"]
    assert frames.isfinite().all()
    for text in (None, "", "  ?! "):
        row = {"id": "a", "samples": np.zeros(900), "rate": 8000, "text": text}
        assert task.examples(row) == "no transcript"
    with pytest.raises(ModelwrightError, match="^row a: "):
        task.examples({"id": "a", "samples": np.zeros(9), "rate": 8000})


def test_strange_characters_and_long_recordings_are_reasons() -> None:
    task = make_task("speech_recognition", {})

    def example(text: str, seconds: float = 0.5) -> Example:
        row = {"id": "a", "samples": np.zeros(round(8000 * seconds)), "rate": 8000, "text": text}
        (found,) = task.examples(row)
        return found

    codec = fit_codec("speech", [example("abc")], {"rate": 8000, "bands": 20, "longest": 2.0})
    assert codec.problem(example("cab")) == ""
    assert codec.problem(example("cäb")) == "transcript has a character that train has not"
    assert codec.problem(example("cab", 2.5)) == "longer than codec.longest, 2 s"
    with pytest.raises(ModelwrightError, match="'ä' is not in the train split"):
        codec.encode(example("cäb"))


def test_a_language_model_is_of_other_texts_too(tmp_path: Path) -> None:
    (tmp_path / "read.txt").write_text("“Bacca,” cab said.\n\nA 7 CAB’s ‘bac’; A  cab? Ça!")
    spelling = Spelling.of(["abc's id"], "characters")
    spelled = list(spelled_sentences(str(tmp_path / "read.txt"), spelling))
    assert [spelling.read(s) for s in spelled] == ["bacca cab said", "a cab's bac a cab", "a"]
    assert list(spelled_sentences(str(tmp_path / "read.txt"), spelling, 10)) == spelled
    upper = Spelling(("", "A", "B", "|"), space="|", fold="upper")
    found = list(spelled_sentences(str(tmp_path / "read.txt"), upper))
    assert upper.read(found[1]).lower() == "a ab ba a ab"

    (example,) = make_task("speech_recognition", {}).examples(
        {"id": "a", "samples": np.zeros(4000), "rate": 8000, "text": "ab c"}
    )
    options = {"rate": 8000, "bands": 20, "beams": 4, "language_weight": 1.0, "language_order": 3}
    alone = fit_codec("speech", [example], options)
    (tmp_path / "more.txt").write_text("A cab, bac. " * 20)
    texts = {"language_texts": str(tmp_path / "more.txt")}
    more = fit_codec("speech", [example], {**options, **texts})
    letters = {c: n for n, c in enumerate(alone.spelling.tokens)}  # type: ignore[attr-defined]
    a, b, c = (letters[x] for x in "abc")
    after = [codec.language.distribution(bytes([c, a])) for codec in (alone, more)]  # type: ignore[attr-defined]
    assert after[1][b] > 1.5 * after[0][b]  # "cab", which the transcript has not
    again = type(more).load(more.save())
    assert np.array_equal(again.language.distribution(bytes([c, a])), after[1])  # type: ignore[attr-defined]
    for wrong in ({"beams": 4}, {**options, "units": "words"}):
        with pytest.raises(ModelwrightError, match=r"codec\.language_texts"):
            fit_codec("speech", [example], {**wrong, **texts})
    with pytest.raises(ModelwrightError, match="x.txt"):
        fit_codec("speech", [example], {**options, "language_texts": str(tmp_path / "x.txt")})


def eight_bits(path: Path, seconds: int, rate: int, channels: int = 1) -> None:
    """A long WAV of 8 bits, written a minute at a time."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(1)
        file.setframerate(rate)
        for _ in range(seconds // 60):
            file.writeframes(bytes([128, 130] * (rate * channels * 30)))


def test_long_recordings_are_read_minute_by_minute(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    eight_bits(path, 11 * 60, 2000, channels=2)
    (turn,) = make_task("speech_recognition", {}).question(str(path))
    assert turn.sound.seconds == 11 * 60
    assert turn.sound.rate == 16_000
    eight_bits(path, 5 * 3600, 100)
    with pytest.raises(ModelwrightError, match="longer than the limit; give a whole recording"):
        make_task("speech_recognition", {}).question(str(path))


def test_error_rates_are_those_of_jiwer_and_tell_what_was_mistaken() -> None:
    pytest.importorskip("jiwer", exc_type=ImportError)
    words, letters, exact = error_rates(["one two three", "four"], ["one too three", "four five"])
    assert words.value == pytest.approx(2 / 4)
    assert (words.better, letters.better, exact.value) == ("lower", "lower", 0.0)
    assert "1 substituted, 0 left out, 1 put in, of 4" in words.note
    assert "two as too (1)" in words.note
    assert "four [- > five] / one [two > too] three" in words.note


def test_texts_are_compared_without_case_and_punctuation() -> None:
    assert normalised("  Don’t — STOP, “now”! ") == "don't stop now"
    assert normalised("Don't Stop.", lower=False, punctuation=True) == "Don't Stop."


def test_words_and_letters_are_spelled_and_read() -> None:
    words = Spelling.of(["two one", "one"], "words")
    assert words.read(words.spelled("one two one")) == "one two one"
    assert words.problem("one three") == "transcript has a word that train has not"
    letters = Spelling.of(["cafe\u0301 au lait"], "characters")
    assert letters.read(letters.spelled("lait  café")) == "lait café"


def test_what_a_request_wants_is_a_line_and_back() -> None:
    line = written("orderDrink", {"size": "Small", "coffeeDrink": "latte"})
    assert line == "orderDrink; coffeeDrink: latte; size: small"
    assert pairs(line) == {("", "orderDrink"), ("size", "small"), ("coffeeDrink", "latte")}
    task = make_task("speech_understanding", {})
    example = Example((Turn("user", ()), text_turn("assistant", line, learn=True)))
    worse = text_turn("assistant", "orderDrink; size: large")
    assert 0 < task.grade(example, worse) < task.grade(example, example.answer) == 1


def test_orders_have_intent_and_slots(data: Callable[[str], Path]) -> None:
    rows = list(orders(data("coffee_slu")))
    assert len(rows) == 40
    found: Any = make_task("speech_understanding", {}).examples(rows[0])
    (example,) = found
    assert example.answer.text.startswith("orderDrink; ")


def test_no_recording_stands_in_strings_of_two_parts(data: Callable[[str], Path]) -> None:
    rows = list(digits(data("fsdd")))
    some = ("0", "3", "7")
    speaker = [r for r in rows if r["speaker"] == rows[0]["speaker"] and r["label"] in some]
    strings = list(digit_strings(speaker))
    again = list(digit_strings(speaker))
    assert [s["id"] for s in strings] == [s["id"] for s in again]
    assert all(
        np.array_equal(a["samples"], b["samples"]) for a, b in zip(strings, again, strict=True)
    )
    heads = {row["samples"][:200].tobytes(): row for row in speaker}
    parts: dict[str, set[str]] = {}
    for string in strings[::4]:
        assert set(string["words"].split()) <= set(WORDS)
        held = string["samples"].tobytes()
        for head, row in heads.items():
            if head in held:
                parts.setdefault(row["id"], set()).add(string["split"])
    assert parts
    assert all(len(found) == 1 for found in parts.values())


def test_a_folder_of_recordings_with_transcripts_is_a_source(tmp_path: Path) -> None:
    from modelwright.data.sources import read_rows

    (tmp_path / "wavs").mkdir()
    for name in ("a", "b"):
        (tmp_path / "wavs" / f"{name}.wav").write_bytes(encode_wav(TONE, RATE))
    (tmp_path / "metadata.csv").write_text("a|Hello, there\nb|Good day\n")
    task = make_task("speech_recognition", {})
    found = [next(iter(task.examples(row))) for row in read_rows(str(tmp_path))]
    assert [e.answer.text for e in found] == ["hello there", "good day"]
    packed = tmp_path / "both.tar"
    with tarfile.open(packed, "w") as archive:
        archive.add(tmp_path / "wavs", "wavs")
    assert len(list(read_rows(str(packed)))) == 2


def test_a_task_may_be_named_with_a_hyphen() -> None:
    from modelwright import recipe

    values = {"name": "a", "data": {"source": "kathleen"}, "train": {"task": "speech-recognition"}}
    made = recipe.parse(values)
    assert made.train is not None
    assert made.train.task == "speech_recognition"
    assert made.family == "conformer"
