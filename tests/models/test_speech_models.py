"""The vocoder and the model of speech: ends of rows, spreading, voices, what a start gives."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from modelwright.data.spectrograms import synthesised
from modelwright.models.speech_flow import Config as Speech
from modelwright.models.speech_flow import SpeechFlow
from modelwright.models.vocos import Config as Vocos


def speech(**fields: object) -> SpeechFlow:
    torch.manual_seed(0)
    given: dict[str, object] = {**Speech.specimen, "classes": 0, **fields}
    model = Speech(**given).build().eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.1)
    return model


LETTERS = torch.tensor([[0, 3, 1, 0, -1], [0, 2, 2, 1, 0]])
DURATIONS = torch.tensor([[1, 2, 3, 1, 0], [2, 1, 1, 4, 2]])


def test_a_vocoder_s_row_ends_with_its_frames() -> None:
    torch.manual_seed(0)
    model = Vocos(**Vocos.specimen).build().eval()  # type: ignore[arg-type]
    frames = torch.randn(2, 9, 6)
    made = model(frames, torch.tensor([9, 5]))
    assert made.shape == (2, 36)
    assert not made[1, 20:].any()
    alone = model(frames[1:, :5], torch.tensor([5]))
    torch.testing.assert_close(made[1:, :20], alone)
    garbage = frames.clone()
    garbage[1, 5:] = 100.0  # beyond the end nothing is looked at
    assert torch.equal(model(garbage, torch.tensor([9, 5])), made)


def test_a_traced_vocoder_leaves_nothing_to_the_next() -> None:
    """What an export makes without numbers must not be kept for models that do compute."""
    with FakeTensorMode():
        synthesised(torch.ones(1, 9, 8, dtype=torch.cfloat), size=14, hop=4)
    made = synthesised(torch.ones(1, 9, 8, dtype=torch.cfloat), size=14, hop=4)
    assert type(made) is torch.Tensor
    assert made.any()


def test_an_untrained_vocoder_is_quiet() -> None:
    torch.manual_seed(0)
    model = Vocos(80).build()
    made = model(torch.randn(1, 20, 80), torch.tensor([20]))
    assert 0 < float(made.detach().abs().max()) < 0.5


def test_characters_are_spread_over_their_frames() -> None:
    model = speech()
    meant, paces = model.read(LETTERS)
    assert not meant[0, 4].any()
    spread = model.spread(meant, DURATIONS, 10)
    assert spread.which.tolist() == [
        [0, 1, 1, 2, 2, 2, 3, 4, 4, 4],
        [0, 0, 1, 2, 3, 3, 3, 3, 4, 4],
    ]
    assert spread.there[..., 0].tolist() == [[True] * 7 + [False] * 3, [True] * 10]
    assert not spread.mean[0, 7:].any()
    made = model(LETTERS, DURATIONS, torch.randn(2, 10, 6), torch.tensor([3.0, 500.0]))
    torch.testing.assert_close(made[1, :, -1], paces[1, spread.which[1]])
    torch.testing.assert_close(made[..., 6:12], spread.mean)


def test_a_row_is_spoken_alike_beside_a_longer_one() -> None:
    model = speech()
    frames, times = torch.randn(2, 10, 6), torch.tensor([3.0, 500.0])
    both = model(LETTERS, DURATIONS, frames, times)
    alone = model(LETTERS[:1, :4], DURATIONS[:1, :4], frames[:1, :7], times[:1])
    torch.testing.assert_close(both[:1, :7], alone)


def test_voices_change_what_is_said() -> None:
    model = speech(classes=2)
    given = (LETTERS, DURATIONS, torch.randn(2, 10, 6), torch.tensor([3.0, 500.0]))
    one, other, none = (model(*given, torch.tensor([v, v])) for v in (0, 1, -1))
    assert not torch.allclose(one, other)
    assert torch.equal(none, model(*given))


def test_durations_teach_the_reading_nothing() -> None:
    model = speech()
    model.read(LETTERS)[1].sum().backward()
    assert model.letter_embedding.weight.grad is None
    assert model.pace.weight.grad is not None
