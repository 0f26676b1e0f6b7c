"""Conformer: padding is never seen, streaming looks ahead a chunk at most, both heads."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from modelwright.errors import ModelwrightError
from modelwright.models.conformer import Config

FIELDS = {"features": 6, "outputs": 5, "depth": 2, "width": 16, "heads": 2, "kernel": 5}


@pytest.mark.parametrize("head", ["frames", "sequence"])
@pytest.mark.parametrize("stride", [2, 4])
def test_padding_is_never_seen(head: str, stride: int) -> None:
    torch.manual_seed(0)
    model = Config(**FIELDS, head=head, stride=stride).build().eval()
    frames = torch.randn(1, 21, 6)
    alone = model(frames, torch.tensor([21]))
    rubbish = torch.cat((frames, torch.zeros(1, 30, 6)), dim=1)
    padded = model(rubbish, torch.tensor([21]))
    if head == "frames":
        count = int(model.frame_counts(torch.tensor([21]))[0])
        assert count == alone.shape[1] == -(-21 // stride)
        padded = padded[:, :count]
    torch.testing.assert_close(padded, alone, rtol=1e-4, atol=1e-5)


def test_in_chunks_the_future_changes_nothing() -> None:
    torch.manual_seed(0)
    model = Config(**FIELDS, chunk=4, stride=4).build().eval()
    frames = torch.randn(1, 64, 6)
    other = frames.clone()
    other[:, 40:] = torch.randn(1, 24, 6)
    one, two = (model(x, torch.tensor([64])) for x in (frames, other))
    # Two chunks of 16 frames, and 3 frames that the reading convolutions look ahead.
    torch.testing.assert_close(one[:, :8], two[:, :8], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(one[:, 12:], two[:, 12:])
    whole = Config(**FIELDS, stride=4).build().eval()
    assert not torch.allclose(*(whole(x, torch.tensor([64]))[:, :8] for x in (frames, other)))


def test_flops_grow_with_length_and_are_those_of_the_products() -> None:
    config = Config(features=40, outputs=12, depth=2, width=64, heads=2, mean_length=400.0)
    model = config.build()
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(1, 400, 40), torch.tensor([400])).sum().backward()
    assert 0.7 < config.flops_per_item() / counter.get_total_flops() < 1.4


def test_impossible_shapes_are_one_line() -> None:
    with pytest.raises(ModelwrightError, match=r"model\.width: 18 is not an even multiple"):
        Config(**{**FIELDS, "width": 18})
    with pytest.raises(ModelwrightError, match=r"model\.kernel: 4 has no middle"):
        Config(**{**FIELDS, "kernel": 4})
