"""Rows of recordings as the tasks of speech see them: examples, reasons, questions, voices."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.data.sounds import encode_wav
from modelwright.errors import ModelwrightError
from modelwright.tasks.speech_synthesis import LONGEST, SpeechSynthesis, named_voice
from modelwright.tasks.vocoder import GriffinLim, Vocoder
from modelwright.types import Label, Sound, Text, Turn

HUM = (np.sin(np.arange(8000) / 9) / 2).astype(np.float32)


def row(**more: Any) -> dict[str, Any]:
    return {"id": "r", "audio": encode_wav(HUM, 16_000), "text": "A “hum”, it’s  Rising.", **more}


def reason(task: Any, **more: Any) -> str:
    found = task.examples(row(**more))
    assert isinstance(found, str)
    return found


def test_a_text_is_given_and_its_recording_is_made() -> None:
    (example,) = SpeechSynthesis(voice="who").examples(row(who="ann"))
    assert example.given == (Turn("user", (Text('a "hum", it\'s rising.'), Label("ann"))),)
    assert np.allclose(example.answer.sound.samples, HUM, atol=1e-4)


def test_a_vocoder_is_given_what_it_makes_and_needs_no_text() -> None:
    (example,) = Vocoder().examples(row(text=None))
    assert example.given[0].sound is example.answer.sound


@pytest.mark.parametrize("task", [SpeechSynthesis(longest=1.0), Vocoder(longest=1.0)])
def test_what_is_left_out_and_why(task: Any) -> None:
    assert reason(task, audio=None) == "no recording"
    assert reason(task, audio=row()["audio"][:2000]) == "recording cannot be decoded"
    assert reason(task, audio=encode_wav(np.tile(HUM, 3), 16_000)) == "recording too long"
    assert reason(task, audio=encode_wav(0 * HUM, 16_000)) == "silence"


def test_what_only_one_of_them_leaves_out() -> None:
    assert reason(SpeechSynthesis(), text=" ") == "no text"
    assert reason(Vocoder(), audio=encode_wav(HUM[:900], 16_000)) == "recording too short"
    with pytest.raises(ModelwrightError, match="row r: no column 'who'.*names the voice"):
        SpeechSynthesis(voice="who").examples(row())


def test_questions_are_texts_or_a_voice_and_a_text() -> None:
    assert SpeechSynthesis().question("Ann: go!") == (Turn("user", (Text("ann: go!"),)),)
    voices = SpeechSynthesis(voice="who")
    voices.knows(SimpleNamespace(labels=["Ann", "Ann Lee", "bob: the second"]))
    for asked, parts in (
        ("Ann: Go!", (Text("go!"), Label("Ann"))),
        (" Ann Lee : Go!", (Text("go!"), Label("Ann Lee"))),
        ("bob: the second: Go!", (Text("go!"), Label("bob: the second"))),
        ("Ann: bob: Go!", (Text("bob: go!"), Label("Ann"))),
        ("Go!", (Text("go!"),)),
        ("9:30 is early", (Text("9:30 is early"),)),
        ("Note: Ann: go", (Text("note: ann: go"),)),
        ("ann: go", (Text("ann: go"),)),
        (": Ann: go", (Text("ann: go"),)),
    ):
        (turn,) = voices.question(asked)
        assert turn.parts == parts, asked
    (turn,) = SpeechSynthesis(voice="who").question("9:30 is early")
    assert turn.parts == (Text("9:30 is early"),)
    for text in ("", "a" * (LONGEST + 1)):
        with pytest.raises(ModelwrightError, match=f"{len(text)} characters to speak"):
            SpeechSynthesis().question(text)


@given(text=st.text("ab:9 ", min_size=1), voices=st.lists(st.text("ab9:", min_size=1), max_size=3))
def test_a_voice_is_one_that_is_known_and_no_other_text_is_lost(
    text: str, voices: list[str]
) -> None:
    voice, rest = named_voice(text, voices)
    assert voice in {"", *voices}
    if voice:
        assert text.strip().startswith(voice)
        assert rest == text.strip()[len(voice) :].lstrip()[1:]
    elif not voices:
        assert rest == text.strip()
    else:
        assert rest.strip() == text.strip().removeprefix(":").strip()


def test_a_vocoder_is_asked_with_a_file_and_none_over_a_network(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encode_wav(HUM, 16_000))
    (turn,) = Vocoder().question(str(tmp_path / "a.wav"))
    assert len(turn.sound.samples) == 8000
    with pytest.raises(ModelwrightError):
        Vocoder().request(str(tmp_path / "a.wav"))


def test_griffin_lim_answers_with_as_many_whole_frames() -> None:
    (answer,) = GriffinLim(3).answer([(Turn("user", (Sound(HUM, 16_000),)),)])
    assert len(answer.sound.samples) == 8192
    assert answer.sound.rate == 16_000
    assert 0.05 < float(np.abs(answer.sound.samples).max()) <= 1


def test_measures_say_how_long_it_took() -> None:
    task = Vocoder()
    examples = list(task.examples(row()))
    distortion, factor = task.measures(examples, GriffinLim(3))
    assert distortion.better == factor.better == "lower"
    assert distortion.value > 0
    assert factor.value > 0
    assert "threads" in factor.note
