"""Transcripts with times as the official client asks for them, of a real model and its codec."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from modelwright.data.hearing import questions
from modelwright.data.sounds import encode_wav
from modelwright.errors import ModelwrightError
from modelwright.models.conformer import Conformer
from modelwright.objectives.ctc import Objective
from modelwright.pipeline.answering.predicting import Predicting
from modelwright.serving.passes import PassEngine
from modelwright.tasks.task import make_task
from modelwright.types import Sound, Turn
from tests.serving.parts import running
from tests.serving.test_listening import RATE, SOUND, codec, near_sighted
from tests.serving.test_wholes import Fixed, client, request

FILE = ("a.wav", encode_wav(SOUND, RATE), "audio/wav")
SECONDS = len(SOUND) / RATE


def hearing(longest: float = 30.0) -> Predicting:
    heard = codec("words", "one two three four five")
    heard.longest = longest
    model: Conformer = near_sighted(heard)
    return Predicting(model, heard, Objective(heard), make_task("speech_recognition", {}))


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with running(hearing().server()) as served:
        yield served


def written(served: Any, **asked: Any) -> Any:
    with client(served) as c:
        return c.audio.transcriptions.create(model="tiny", file=FILE, **asked)


def in_order(found: list[Any], seconds: float = SECONDS) -> bool:
    times = [t for one in found for t in (one.start, one.end)]
    return times == sorted(times) and times[0] >= 0 and times[-1] <= seconds


def test_words_and_segments_have_times(server: Any) -> None:
    text = written(server).text
    assert len(text.split()) > 3
    told = written(server, response_format="verbose_json")
    assert (told.text, float(told.duration), told.words) == (text, SECONDS, None)
    assert told.segments and in_order(told.segments)
    assert " ".join(s.text.strip() for s in told.segments) == " ".join(text.split())
    assert [s.id for s in told.segments] == list(range(len(told.segments)))
    for segment in told.segments:
        assert segment.avg_logprob <= 0 <= segment.no_speech_prob <= 1
        assert segment.tokens and segment.temperature == 0 and segment.compression_ratio > 0
    both = written(
        server, response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert both.segments == told.segments
    assert [w.word for w in both.words] == text.split() and in_order(both.words)
    words = written(server, response_format="verbose_json", timestamp_granularities=["word"])
    assert (words.words, words.segments) == (both.words, None)


def test_subtitles_are_the_segments(server: Any) -> None:
    told = written(server, response_format="verbose_json")
    for kind, mark in (("srt", ","), ("vtt", ".")):
        said = written(server, response_format=kind)
        cues = re.findall(rf"\d\d:\d\d:(\d\d)\{mark}(\d{{3}}) --> .*\n(.+)\n", said)
        assert [cue[2] for cue in cues] == [segment.text for segment in told.segments]
        begins = [int(cue[0]) + int(cue[1]) / 1000 for cue in cues]
        assert begins == pytest.approx([segment.start for segment in told.segments], abs=1e-3)
        assert said.startswith("WEBVTT\n\n" if kind == "vtt" else "1\n")


def test_a_recording_in_pieces_is_timed_as_a_whole() -> None:
    """What is cut where it is quiet is one recording again, within a frame of each piece's own."""
    whole = hearing(longest=2.0)
    turns = (Turn("user", (Sound(SOUND, RATE),)),)
    (plain,) = whole.detailed([turns])
    (found,) = whole.detailed([turns], timestamps=True)
    assert found.turn == plain.turn
    pieces, at, begins = questions(turns, whole.codec), 0.0, []
    for piece in pieces:
        (one,) = whole.detailed([piece], timestamps=True)
        begins += [at + word["start"] for word in one.details["words"]]
        at += piece[0].sound.seconds
    mine = [word["start"] for word in found.details["words"]]
    assert max(min(abs(a - b) for b in begins) for a in mine) < 0.08


def test_silence_has_no_words(server: Any) -> None:
    class Silent(Fixed):
        def facts(self) -> dict[str, Any]:
            return {"inputs": ["audio"], "times": True}

    with running(PassEngine(Silent(inputs=("audio",)), request)) as served:
        assert written(served, response_format="verbose_json").segments == []
        assert written(served, response_format="srt") == ""
        assert written(served, response_format="vtt") == "WEBVTT\n"


def refused(served: Any, **asked: Any) -> tuple[str | None, str | None]:
    with pytest.raises(openai.BadRequestError) as error:
        written(served, **asked)
    return error.value.param, error.value.code


def test_what_cannot_be_honoured_is_refused_by_name(server: Any) -> None:
    for asked, why in (
        ({"prompt": "Names: Ann"}, ("prompt", "unsupported_parameter")),
        ({"temperature": 0.4}, ("temperature", "unsupported_parameter")),
        ({"include": ["logprobs"]}, ("include", "unsupported_parameter")),
        (
            {"chunking_strategy": {"type": "server_vad"}},
            ("chunking_strategy", "unsupported_parameter"),
        ),
        ({"timestamp_granularities": ["word"]}, ("timestamp_granularities", "unsupported_value")),
        ({"stream": True, "response_format": "srt"}, ("response_format", "unsupported_value")),
        ({"response_format": "diarized_json"}, ("response_format", "invalid_value")),
        ({"language": "no such language"}, ("language", "invalid_value")),
        (
            {"response_format": "verbose_json", "timestamp_granularities": ["letter"]},
            ("timestamp_granularities[0]", "invalid_value"),
        ),
    ):
        assert refused(server, **asked) == why, asked  # type: ignore[arg-type]


def test_what_is_harmless_is_taken(server: Any) -> None:
    text = written(server).text
    harmless = {"prompt": "", "temperature": 0, "language": "de", "chunking_strategy": "auto"}
    assert written(server, **harmless).text == text
    told = written(server, response_format="verbose_json", language="de")
    assert told.language == "de"
    assert written(server, response_format="verbose_json").language == ""
    assert written(server, response_format="text", language="pt-BR").strip() == text.strip()
    with client(server) as c:
        events = list(c.audio.transcriptions.create(model="tiny", file=FILE, stream=True))
    assert events[-1].text == text
    form = {"model": "tiny", "response_format": "verbose_json", "timestamp_granularities": "word"}
    path = f"{server.url}/v1/audio/transcriptions"
    plain = httpx.post(path, data=form, files={"file": FILE}).json()  # without the brackets
    assert "words" in plain and "segments" not in plain
    missing = httpx.post(path, data={"model": "tiny"}, files={"other": FILE}).json()
    assert missing["error"]["param"] == "file"


def test_a_model_without_times_says_so() -> None:
    class Whisper(Fixed):
        def facts(self) -> dict[str, Any]:
            return {"inputs": ["audio"], "language": "de"}

    with running(PassEngine(Whisper(inputs=("audio",)), request)) as served:
        for kind in ("srt", "vtt"):
            assert refused(served, response_format=kind) == ("response_format", "unsupported_value")
        for wanted in ("word", "segment"):
            found = refused(
                served, response_format="verbose_json", timestamp_granularities=[wanted]
            )
            assert found == ("timestamp_granularities", "unsupported_value")
        told = written(served, response_format="verbose_json")
        assert (told.segments, told.language) == ([], "de")
        assert written(served, language="de").text
        assert refused(served, language="en") == ("language", "unsupported_value")


def test_the_card_says_whether_there_are_times(server: Any) -> None:
    (card,) = httpx.get(f"{server.url}/v1/models").json()["data"]
    assert card["predicts"]["times"] is True
    assert written(server, response_format="verbose_json", language="EN").language == "EN"
    policy = hearing()
    policy.codec.times = False  # type: ignore[attr-defined]
    assert "times" not in policy.facts()
    with pytest.raises(ModelwrightError, match="does not say when words are said"):
        policy.detailed([(Turn("user", (Sound(SOUND, RATE),)),)], timestamps=True)
