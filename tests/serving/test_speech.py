"""Speech by a known flow: deterministic, alike alone and in a batch, at the pace asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modelwright.data.codecs.spoken_text import Codec
from modelwright.data.codecs.waveforms import Codec as Waves
from modelwright.errors import ModelwrightError
from modelwright.models.speech_flow import Config
from modelwright.models.vocos import Config as Vocos
from modelwright.serving.speech import Speaking, SpeechMaker, by_model, by_rule, pieces, whole
from modelwright.types import Example, Sound, Text, Turn, text_turn

RNG = np.random.default_rng(2)
OPTIONS = {"size": 64, "hop": 16, "bands": 8}


def spoken(text: str) -> Example:
    sound = Sound((RNG.standard_normal(800) / 8).astype(np.float32), 16_000)
    return Example((Turn("user", (Text(text),)), Turn("assistant", (sound,), learn=True)))


CODEC = Codec.fit([spoken("hear us"), spoken("a sea")], **OPTIONS)
ASKED = [[text_turn("user", t)] for t in ("sea", "hear a sea", "us")]


def maker(codec: Codec = CODEC, **settings: object) -> SpeechMaker:
    torch.manual_seed(0)
    fields = {**Config.specimen, **Config.data_fields(codec)}
    model = Config(**fields).build()  # type: ignore[arg-type]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.1)
        model.pace.bias += 1.5
    vocoder = by_rule(codec.settings, 2)
    return SpeechMaker(model, codec, vocoder, Speaking(**settings))  # type: ignore[arg-type]


def samples(turns: list[Turn]) -> list[np.ndarray]:
    return [turn.sound.samples for turn in turns]


def test_a_seed_speaks_alike_and_another_otherwise() -> None:
    speaking = maker(steps=2)
    one, same, other = (samples(speaking.changed(seed=s).answer(ASKED)) for s in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[0], other[0])
    assert all(len(a) % 16 == 0 and len(a) > 0 for a in one)


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_a_text_is_spoken_alike_beside_others(sampler: str) -> None:
    speaking = maker(steps=3, sampler=sampler)
    together, lengths = speaking.spectra(ASKED)
    for i, question in enumerate(ASKED):
        alone, length = speaking.spectra([question])
        assert int(length[0]) == int(lengths[i])
        torch.testing.assert_close(together[i, : int(length[0])], alone[0], rtol=1e-4, atol=1e-4)


def test_whole_durations_are_in_all_as_long() -> None:
    lasting = torch.tensor([[1.4, 1.4, 1.4, 0.2, 0.0], [2.6, 1.2, 3.0, 7.3, 1.0]])
    # Ends at 1.4, 2.8, 4.2, 4.4; and at 2.6, 3.8, 6.8, 14.1, 15.1.
    assert whole(lasting).tolist() == [[1, 2, 1, 1, 0], [3, 1, 3, 7, 1]]


def test_a_faster_pace_is_shorter() -> None:
    long = maker(steps=0).spectra(ASKED)[1]
    short = maker(steps=0, pace=2.0).spectra(ASKED)[1]
    assert (short < 0.7 * long).all()
    letters = torch.tensor([len(q[0].text) + 2 for q in ASKED])
    assert (maker(steps=0, pace=10.0).spectra(ASKED)[1] >= letters).all()


def test_without_steps_or_noise_there_is_nothing_to_draw() -> None:
    for settings in ({"steps": 0}, {"steps": 2, "temperature": 0.0}):
        speaking = maker(**settings)
        one, other = (speaking.changed(seed=s).spectra(ASKED)[0] for s in (1, 2))
        assert torch.equal(one, other)


def test_a_model_as_vocoder_ends_where_the_speech_ends() -> None:
    waves = Waves.fit([spoken("a")], **OPTIONS)
    torch.manual_seed(0)
    model = Vocos(**{**Vocos.specimen, **Vocos.data_fields(waves)}).build()  # type: ignore[arg-type]
    speaking = maker(steps=1)
    speaking.vocoder = by_model(model, waves)
    lengths = speaking.spectra(ASKED)[1] * 16
    assert [len(s) for s in samples(speaking.answer(ASKED))] == lengths.tolist()
    assert model.training  # as it was


LONG = "see us hear a sea, a sea as rare as here is. her ears hear us as we hear her here. aha!"


def test_a_long_text_is_spoken_sentence_by_sentence() -> None:
    codec = Codec.fit([spoken(LONG[:44]), spoken(LONG[45:])], **OPTIONS)
    speaking = maker(codec, steps=2)
    first, second = pieces([text_turn("user", LONG)])
    assert [first[0].text, second[0].text] == [LONG[:44], LONG[45:]]  # "aha!" is too short alone
    assert pieces([text_turn("user", "no. 1 of 2.")]) == [[text_turn("user", "no. 1 of 2.")]]
    heard: list[tuple[int, np.ndarray]] = []
    (followed,) = speaking.answer([second], lambda n, turn: heard.append((n, turn.sound.samples)))
    assert len(heard) == 1 and np.array_equal(heard.pop()[1], followed.sound.samples)
    question = [text_turn("user", LONG)]
    (followed,) = speaking.answer([question], lambda n, t: heard.append((n, t.sound.samples)))
    assert [n for n, _ in heard] == [0, 1]
    assert np.array_equal(np.concatenate([s for _, s in heard]), followed.sound.samples)
    (whole_at_once,) = speaking.answer([question])
    np.testing.assert_allclose(whole_at_once.sound.samples, followed.sound.samples, atol=1e-3)
    assert len(speaking.spectrum(question)) * 16 == len(followed.sound.samples)


def test_a_character_that_was_never_heard_is_refused() -> None:
    with pytest.raises(ModelwrightError, match="'z' is not in the train split"):
        maker().answer([[text_turn("user", "zoo")]])
