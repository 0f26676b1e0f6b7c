"""What is drawn and wanted, the errors by hand, and voices that are left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from modelwright.data.codecs.spoken_text import Codec
from modelwright.objectives.speech_flow_matching import Objective
from modelwright.types import Columns, Example, Label, Part, Sound, Text, Turn, stack

RNG = np.random.default_rng(5)
OPTIONS = {"size": 64, "hop": 16, "bands": 8}


def spoken(text: str, length: int, *voice: str) -> Example:
    sound = Sound((RNG.standard_normal(length) / 8).astype(np.float32), 16_000)
    given: tuple[Part, ...] = (Text(text), *map(Label, voice))
    return Example((Turn("user", given), Turn("assistant", (sound,), learn=True)))


EXAMPLES = [spoken("ab", 160, "ann"), spoken("b a", 320, "bob"), spoken("aab b", 240, "ann")]
CODEC = Codec.fit(EXAMPLES, **OPTIONS)
COLUMNS: Columns = stack([CODEC.encode(e) for e in EXAMPLES], CODEC.ragged)


class Known(nn.Module):
    """Says what it was told to."""

    def __init__(self, *parts: Tensor) -> None:
        super().__init__()
        self.made = torch.cat(parts, dim=-1)

    def forward(self, **inputs: Tensor) -> Tensor:
        return self.made


def test_frames_lie_between_noise_and_speech() -> None:
    batch = Objective(CODEC).collate(COLUMNS, torch.Generator().manual_seed(1))
    clean, velocity = batch.targets["clean"], batch.targets["velocity"]
    share = 1 - batch.inputs["times"].view(-1, 1, 1) / 1000
    noise = clean - velocity
    torch.testing.assert_close(
        batch.inputs["frames"], (1 - share) * noise + share * clean, rtol=1e-4, atol=1e-5
    )
    lengths = batch.inputs["durations"].sum(1)
    assert lengths.tolist() == [10, 20, 15]
    for row, length in enumerate(lengths.tolist()):
        assert not batch.inputs["frames"][row, length:].any()
        drawn = noise[row, :length]
        assert abs(float(drawn.mean())) < 0.5
        assert 0.7 < float(drawn.std()) < 1.3
    assert batch.targets["lasting"].gt(0).sum(1).tolist() == [10, 20, 15]


def test_the_errors_by_hand() -> None:
    made = Objective(CODEC, mean_weight=2.0, duration_weight=0.5)
    batch = made.collate(COLUMNS, torch.Generator().manual_seed(1))
    clean, velocity = batch.targets["clean"], batch.targets["velocity"]
    lasting = batch.targets["lasting"][..., None].clamp(min=1).float().log()
    right = made.errors(Known(velocity, clean, lasting), batch)
    assert [float(e) for e in right.values()] == [0, 0, 0]
    wrong = made.errors(Known(velocity + 3, clean - 1, lasting + 2), batch)
    assert float(wrong["velocity"]) == pytest.approx(3 * 9)
    assert float(wrong["mean"]) == pytest.approx(3 * 2)
    apart = np.exp(-2) + 2 - 1  # e^2 times as long
    assert float(wrong["duration"]) == pytest.approx(3 * 0.5 * apart)
    total = made.loss(Known(velocity + 3, clean - 1, lasting + 2), batch)
    assert float(total) == pytest.approx(27 + 6 + 1.5 * apart)


def test_a_character_counts_once_however_long_it_is() -> None:
    made = Objective(CODEC, mean_weight=0.0, duration_weight=1.0)
    batch = made.collate(COLUMNS, torch.Generator().manual_seed(1))
    paced = torch.zeros(*batch.targets["lasting"].shape, 1)
    found = made.errors(Known(batch.targets["velocity"], batch.targets["clean"], paced), batch)[
        "duration"
    ]
    stored = [torch.from_numpy(np.asarray(COLUMNS["durations"][i])) for i in range(3)]
    meant = sum(float((d - d.log() - 1).mean()) for d in stored)
    assert float(found) == pytest.approx(meant, rel=1e-5)


def test_voices_are_left_out_now_and_then() -> None:
    every = Objective(CODEC, label_dropout=0.0)
    none = Objective(CODEC, label_dropout=1.0)
    generator = torch.Generator()
    assert every.collate(COLUMNS, generator).inputs["labels"].tolist() == [0, 1, 0]
    assert none.collate(COLUMNS, generator).inputs["labels"].tolist() == [-1, -1, -1]
    plain = Codec.fit([spoken("ab", 160)], **OPTIONS)
    columns = stack([plain.encode(spoken("ba", 160))], plain.ragged)
    assert "labels" not in Objective(plain).collate(columns, generator).inputs


def test_what_a_row_draws_is_its_own() -> None:
    made = Objective(CODEC)
    batch = made.collate(COLUMNS, torch.Generator().manual_seed(7))
    from modelwright.types import take

    alone = made.collate(take(COLUMNS, np.array([2])), torch.Generator().manual_seed(7))
    assert torch.equal(alone.inputs["times"], batch.inputs["times"][2:])
    torch.testing.assert_close(alone.inputs["frames"][0], batch.inputs["frames"][2, :15])
