"""Spectrogram: padding is never seen, and what moves along the bands is found again."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from modelwright.errors import ModelwrightError
from modelwright.models.spectrogram import Config, Spectrogram


def model_of(bands: int = 6, widths: tuple[int, ...] = (2, 4, 4)) -> Spectrogram:
    torch.manual_seed(0)
    return Config(features=bands, outputs=5, widths=widths, hidden=8).build().eval()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 2**16))
def test_padding_is_never_seen(length: int, more: int, seed: int) -> None:
    model = model_of()
    frames = torch.randn(1, length, 6, generator=torch.Generator().manual_seed(seed))
    lengths = torch.tensor([length])
    alone = model(frames, lengths)
    padded = model(torch.cat((frames, torch.zeros(1, more, 6)), dim=1), lengths)
    torch.testing.assert_close(padded, alone, rtol=1e-4, atol=1e-5)


def test_planes_are_the_same_some_bands_higher() -> None:
    """Two halvings of bands: a pattern 4 bands higher makes the same planes one place higher."""
    model = model_of(bands=48, widths=(3, 4))
    frames = torch.zeros(1, 16, 48)
    frames[:, 4:12, 20:28] = torch.randn(1, 8, 8)
    low, high = frames[:, None], frames.roll(4, dims=2)[:, None]
    for plane, length in zip(model.planes, (8, 8), strict=True):
        true = torch.ones(1, 1, length, 1)
        low, high = plane(low, true), plane(high, true)
    torch.testing.assert_close(high[..., 3:10], low[..., 2:9], rtol=1e-4, atol=1e-5)
    assert low[..., 2:9].std() > 0.01


def test_flops_are_those_of_the_products() -> None:
    config = Config(features=40, outputs=10, mean_length=64.0)
    with FlopCounterMode(display=False) as counter:
        config.build()(torch.randn(1, 64, 40), torch.tensor([64])).sum().backward()
    assert 0.9 < config.flops_per_item() / counter.get_total_flops() < 1.2


def test_no_convolution_is_one_line() -> None:
    with pytest.raises(ModelwrightError, match=r"model\.widths: one convolution at least"):
        Config(features=4, outputs=3, widths=())
