"""The gradient noise scale: the source's equations, and gradients whose noise is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.training.noise_scale import NoiseScale, measured_noise_scale, noise_scale
from tests.trainings import Setting, raw


@given(
    small=st.integers(1, 50), parts=st.integers(2, 20),
    small_norm=st.floats(0, 100), big_norm=st.floats(0, 100),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_equal_parts_give_the_two_equations(
    small: int, parts: int, small_norm: float, big_norm: float
) -> None:
    """|G|^2 and S of appendix A.1, from |G_small|^2 and |G_big|^2."""
    big = small * parts
    found = noise_scale([small_norm] * parts, [small] * parts, big_norm)
    signal = (big * big_norm - small * small_norm) / (big - small)
    noise = (small_norm - big_norm) / (1 / small - 1 / big)
    assert found.signal == pytest.approx(signal, rel=1e-9, abs=1e-9)
    assert found.noise == pytest.approx(noise, rel=1e-9, abs=1e-9)


def test_known_noise_is_found_with_parts_of_unlike_size() -> None:
    """Gradients G + e with e of variance 4 in each of 10 entries: S = 40, |G|^2 = 10."""
    rng = np.random.default_rng(0)
    counts = [3, 8, 21]
    signals, noises = [], []
    for _ in range(4000):
        means = [1 + 2 * rng.standard_normal((n, 10)).mean(axis=0) for n in counts]
        whole = sum(n * m for n, m in zip(counts, means, strict=True)) / sum(counts)
        found = noise_scale([float(m @ m) for m in means], counts, float(whole @ whole))
        signals.append(found.signal)
        noises.append(found.noise)
    assert np.mean(signals) == pytest.approx(10, rel=0.03)
    assert np.mean(noises) == pytest.approx(40, rel=0.03)


def test_without_a_signal_the_scale_is_infinite() -> None:
    assert NoiseScale(signal=2.0, noise=6.0).items == 3.0
    assert NoiseScale(signal=2.0, noise=-6.0).items == 0.0
    assert NoiseScale(signal=-1.0, noise=6.0).items == float("inf")


@pytest.mark.parametrize("counts", [[], [4]])
def test_one_micro_batch_says_nothing(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="two micro-batches"):
        noise_scale([1.0] * len(counts), counts, 1.0)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_is_that_of_the_trainers_own_gradients(accumulate: int) -> None:
    trainer = replace(Setting("documents"), accumulate=accumulate, clip=0.0).trainer()
    before = {n: raw(p) for n, p in trainer.model.named_parameters()}
    random = torch.get_rng_state()
    found = measured_noise_scale(trainer, 2)
    assert found is not None
    assert torch.equal(torch.get_rng_state(), random)
    assert {n: raw(p) for n, p in trainer.model.named_parameters()} == before
    assert all(p.grad is None for p in trainer.model.parameters())
    # The whole gradient again, from the loop's own backward: |G|^2 + S / B.
    batches = [trainer.objective.collate(c, torch.Generator()) for c in trainer.examples(2)]
    count = sum(batch.count for batch in batches)
    for batch in batches:
        trainer.backward(batch, count)
    whole = sum(float(p.grad.double().square().sum()) for p in trainer.model.parameters())
    assert found.signal + found.noise / count == pytest.approx(whole, rel=1e-5)


def test_a_step_of_one_example_has_no_noise_to_measure() -> None:
    assert measured_noise_scale(replace(Setting("documents"), batch=1).trainer(), 0) is None
