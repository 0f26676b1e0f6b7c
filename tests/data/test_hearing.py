"""What a recogniser hears: loudness and microphones taken away where that is asked."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from modelwright.data.hearing import Ear
from modelwright.types import Example, Sound, Turn

RATE = 8000
VOICE = np.random.default_rng(3).normal(0, 1, 6000) * np.sin(np.arange(6000) / 900) ** 2 / 8


def example(samples: np.ndarray) -> Example:
    return Example((Turn("user", (Sound(samples.astype(np.float32), RATE),)),))


def ear(*, centred: bool) -> Ear:
    some = [example(VOICE), example(VOICE[::-1].copy())]
    return Ear.fit(some, rate=RATE, bands=16, highest=None, centred=centred)


def frames(found: Ear, samples: np.ndarray) -> np.ndarray:
    return found.frames(found.heard(example(samples)))


@pytest.mark.parametrize("centred", [False, True])
def test_how_loud_a_voice_is_changes_nothing_where_that_is_asked(centred: bool) -> None:
    found = ear(centred=centred)
    quiet = np.abs(frames(found, VOICE / 8) - frames(found, VOICE)).mean()
    assert quiet < 0.05 if centred else quiet > 1


def test_a_microphone_changes_little_where_that_is_asked() -> None:
    dull = VOICE + 0.9 * np.concatenate(([0.0], VOICE[:-1]))  # less of what is high
    far = {c: np.abs(frames(ear(centred=c), dull) - frames(ear(centred=c), VOICE)).mean()
           for c in (False, True)}  # fmt: skip
    assert far[True] < 0.5 * far[False]


def test_bands_have_mean_0_and_deviation_1_over_train() -> None:
    found = ear(centred=True)
    both = np.concatenate([frames(found, VOICE), frames(found, VOICE[::-1].copy())])
    assert np.abs(both.mean(axis=0)).max() < 1e-3
    assert np.allclose(both.std(axis=0), 1, atol=1e-3)


def test_a_batch_is_its_recordings_and_silence_is_finite() -> None:
    found = ear(centred=True)
    rows = [found.heard(example(v)) for v in (VOICE, VOICE[:2500], np.zeros(900))]
    lengths = torch.tensor([len(row) for row in rows])
    padded = torch.zeros(3, int(lengths.max()), dtype=torch.int16)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = torch.from_numpy(row)
    made = found.front(padded, lengths)
    assert made["frames"].isfinite().all()
    for row, got, count in zip(rows, made["frames"], made["lengths"], strict=True):
        torch.testing.assert_close(got[:count], torch.from_numpy(found.frames(row)))
        assert not got[count:].any()


def test_it_is_saved_and_what_was_saved_without_it_is_read() -> None:
    found = ear(centred=True)
    again = Ear.load(found.save())
    assert again.settings == found.settings
    assert np.array_equal(frames(again, VOICE), frames(found, VOICE))
    plain = ear(centred=False)
    files = plain.save()
    facts = json.loads(files["hearing.json"])
    del facts["settings"]["centred"]
    older = Ear.load({**files, "hearing.json": json.dumps(facts).encode()})
    assert np.array_equal(frames(older, VOICE), frames(plain, VOICE))
