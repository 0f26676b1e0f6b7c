"""The codecs of a vocoder and of texts to be spoken: scales, spellings, voices, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modelwright.data.codecs import spoken_text, waveforms
from modelwright.errors import ModelwrightError
from modelwright.types import Example, Label, Part, Sound, Text, Turn, stack

RNG = np.random.default_rng(0)


def sound(seconds: float = 0.5, rate: int = 16_000) -> Sound:
    return Sound(RNG.standard_normal(round(seconds * rate)).astype(np.float32) / 8, rate)


def recorded(of: Sound) -> Example:
    return Example((Turn("user", (of,)), Turn("assistant", (of,), learn=True)))


def spoken(text: str, *voice: str, of: Sound | None = None) -> Example:
    given: tuple[Part, ...] = (Text(text), *map(Label, voice))
    return Example((Turn("user", given), Turn("assistant", (of or sound(),), learn=True)))


def test_frames_are_scaled_by_the_train_split() -> None:
    examples = [recorded(sound()) for _ in range(4)]
    codec = waveforms.Codec.fit(examples)
    tensors = codec.tensors(stack([codec.encode(e) for e in examples], codec.ragged))
    from modelwright.data.spectrograms import log_mel

    frames = codec.standardised(log_mel(tensors["samples"], codec.settings)).flatten(0, 1)
    torch.testing.assert_close(frames.mean(0), torch.zeros(80), rtol=0, atol=1e-3)
    torch.testing.assert_close(frames.std(0), torch.ones(80), rtol=0, atol=0.02)


def test_recordings_end_where_outputs_are_no_longer_numbers() -> None:
    codec = waveforms.Codec.fit([recorded(sound())])
    outputs = torch.full((2, 6), 0.5)
    outputs[1, 4:] = torch.nan
    found = [turn.sound for turn in codec.decode(outputs)]
    assert [len(f.samples) for f in found] == [6, 4]
    assert found[0].rate == 16_000


def test_several_rates_are_refused_unless_one_is_chosen() -> None:
    examples = [recorded(sound(rate=8000)), recorded(sound())]
    with pytest.raises(ModelwrightError, match=r"codec.rate: .* 8000, 16000 samples a second"):
        waveforms.Codec.fit(examples)
    codec = waveforms.Codec.fit(examples, rate=8000)
    assert codec.settings.highest == 4000.0
    assert len(codec.encode(examples[1])["samples"]) == 4096  # half a second, in whole frames


def test_letters_have_an_edge_and_as_many_frames_as_there_are() -> None:
    examples = [spoken("ab ba"), spoken("b a")]
    codec = spoken_text.Codec.fit(examples)
    encoded = codec.encode(examples[0])
    assert codec.spelling.tokens == ("", " ", "a", "b")
    assert encoded["letters"].tolist() == [0, 2, 3, 1, 3, 2, 0]
    assert encoded["durations"].sum() * 256 == len(encoded["samples"])
    assert encoded["durations"].min() >= 1
    assert codec.labels == []
    assert int(encoded["label"]) == -1
    tensors = codec.tensors(stack([codec.encode(e) for e in examples], codec.ragged))
    assert tensors["letters"][1].tolist() == [0, 3, 1, 2, 0, -1, -1]
    frames = int(tensors["durations"][1].sum())
    assert not tensors["frames"][1, frames:].any()


def test_a_question_has_no_frames() -> None:
    codec = spoken_text.Codec.fit([spoken("ab")])
    encoded = codec.encode(Example((Turn("user", (Text("ba"),)),)))
    assert len(encoded["samples"]) == 0
    assert not encoded["durations"].any()
    assert codec.tensors(stack([encoded], codec.ragged))["frames"].shape == (1, 0, 80)
    assert codec.example(encoded).turns == (Turn("user", (Text("ba"),)),)


def test_voices_are_labels_where_there_are_several() -> None:
    examples = [spoken("a", "ann"), spoken("a", "bob")]
    codec = spoken_text.Codec.fit(examples)
    assert codec.labels == ["ann", "bob"]
    encoded = codec.encode(examples[1])
    assert int(encoded["label"]) == 1
    assert codec.example(encoded).given[0].parts == (Text("a"), Label("bob"))
    with pytest.raises(ModelwrightError, match=r"label 'bib' .*did you mean 'bob'"):
        codec.encode(spoken("a", "bib"))
    assert spoken_text.Codec.fit(examples[:1]).labels == []


def test_what_cannot_be_spoken_or_aligned_is_said() -> None:
    codec = spoken_text.Codec.fit([spoken("ab")])
    with pytest.raises(ModelwrightError, match="'é' is not in the train split"):
        codec.encode(spoken("aé"))
    assert codec.problem(spoken("aé")) == "transcript has a character that train has not"
    assert codec.problem(spoken("ab" * 100)) == "recording too short for its text"
    assert codec.problem(spoken("ab")) == ""
    with pytest.raises(ModelwrightError, match="fewer frames than its text has characters"):
        spoken_text.Codec.fit([spoken("ab" * 100)])


def test_frames_go_to_nats_and_back() -> None:
    codec = spoken_text.Codec.fit([spoken("ab")])
    frames = torch.randn(2, 3, 80)
    again = codec.waves.standardised(codec.log_mel(frames))
    torch.testing.assert_close(again, frames, rtol=1e-4, atol=1e-5)
