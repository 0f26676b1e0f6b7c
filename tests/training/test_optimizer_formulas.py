"""Every optimiser beside its paper's formulas, written out entry by entry in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from modelwright.training.optimizers import BETAS, NAMES, build_optimizers
from modelwright.training.optimizers.adafactor import Adafactor
from modelwright.training.optimizers.lion import Lion
from modelwright.training.optimizers.muon import FIRST_MOMENTUM, Muon
from modelwright.training.optimizers.schedule_free import ScheduleFreeAdamW

Values = NDArray[np.float64]
RATE, DECAY, MOMENTUM = 0.05, 0.1, 0.9


class Pair(nn.Module):
    """A matrix, whose weights decay, and a vector, whose do not."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.matrix = nn.Parameter(torch.randn(3, 4, generator=generator, dtype=torch.float64))
        self.vector = nn.Parameter(torch.randn(5, generator=generator, dtype=torch.float64))


Reference = Callable[[list[float], list[list[float]], list[float], float], list[float]]


def sgd(w: list[float], gradients: list[list[float]], rates: list[float], decay: float):
    v = [0.0] * len(w)
    for g, rate in zip(gradients, rates, strict=True):
        for i in range(len(w)):
            v[i] = MOMENTUM * v[i] + g[i] + decay * w[i]
            w[i] -= rate * v[i]
    return w


def adam_of(betas: tuple[float, float], decoupled: bool) -> Reference:
    b1, b2 = betas

    def adam(w: list[float], gradients: list[list[float]], rates: list[float], decay: float):
        m, v = [0.0] * len(w), [0.0] * len(w)
        for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), 1):
            for i in range(len(w)):
                d = g[i] if decoupled else g[i] + decay * w[i]
                m[i] = b1 * m[i] + (1 - b1) * d
                v[i] = b2 * v[i] + (1 - b2) * d * d
                step = (m[i] / (1 - b1**t)) / (math.sqrt(v[i] / (1 - b2**t)) + 1e-8)
                w[i] -= rate * (step + (decay * w[i] if decoupled else 0.0))
        return w

    return adam


def lion(w: list[float], gradients: list[list[float]], rates: list[float], decay: float):
    m = [0.0] * len(w)
    for g, rate in zip(gradients, rates, strict=True):
        for i in range(len(w)):
            c = 0.9 * m[i] + 0.1 * g[i]
            w[i] -= rate * ((c > 0) - (c < 0) + decay * w[i])
            m[i] = 0.99 * m[i] + 0.01 * g[i]
    return w


def free(w: list[float], gradients: list[list[float]], rates: list[float], decay: float):
    """x and y of algorithm 1, all three sequences kept apart; ``gradients`` are those at y."""
    x, y, z, v, weights = list(w), list(w), list(w), [0.0] * len(w), 0.0
    b1, b2 = BETAS
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        weights += rate**2
        c = rate**2 / weights
        for i in range(len(w)):
            v[i] = b2 * v[i] + (1 - b2) * g[i] ** 2
            d = g[i] / (math.sqrt(v[i] / (1 - b2**t)) + 1e-8)
            z[i] = z[i] - rate * d - rate * decay * y[i]
            x[i] = (1 - c) * x[i] + c * z[i]
            y[i] = (1 - b1) * z[i] + b1 * x[i]
    return x, y


FLAT: dict[str, Reference] = {
    "sgd": sgd,
    "adam": adam_of((0.9, 0.999), False),
    "adamw": adam_of(BETAS, True),
    "lion": lion,
    "schedule_free": lambda *given: free(*given)[1],
}


def trained(name: str, seed: int, rates: list[float], missing: int = -1) -> tuple[Pair, list]:
    """A pair after the optimiser's steps on random gradients, and these; one may be missing."""
    model = Pair(seed)
    optimizers = build_optimizers(
        model, name, learning_rate=RATE, matrix_learning_rate=RATE, momentum=MOMENTUM,
        weight_decay=DECAY, precision=torch.float64,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed + 1)
    given = []
    for step, rate in enumerate(rates):
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        if step == missing:
            model.vector.grad = None
        given.append([None if p.grad is None else p.grad.clone() for p in model.parameters()])
        optimizers.set_rate(rate)
        optimizers.step()
    with optimizers.evaluation():
        model.evaluated = [p.detach().clone() for p in model.parameters()]
    return model, given


some_rates = st.lists(st.floats(0.1, 2.0), min_size=1, max_size=6)


@pytest.mark.parametrize("name", FLAT)
@given(seed=st.integers(0, 999), multipliers=some_rates)
@settings(max_examples=20, deadline=None)
def test_entry_by_entry(name: str, seed: int, multipliers: list[float]) -> None:
    model, gradients = trained(name, seed, multipliers)
    start = list(Pair(seed).parameters())
    for i, p in enumerate(model.parameters()):
        values = start[i].flatten().tolist()
        given = [step[i].flatten().tolist() for step in gradients]
        rest = ([RATE * m for m in multipliers], DECAY if p.ndim == 2 else 0.0)
        found = p.detach().flatten().numpy()
        np.testing.assert_allclose(found, FLAT[name](list(values), given, *rest), rtol=1e-10)
        if name == "schedule_free":
            found = model.evaluated[i].flatten().numpy()
            np.testing.assert_allclose(found, free(values, given, *rest)[0], rtol=1e-9)


@given(seed=st.integers(0, 999), multipliers=some_rates)
@settings(max_examples=20, deadline=None)
def test_adafactor_entry_by_entry(seed: int, multipliers: list[float]) -> None:
    model, gradients = trained("adafactor", seed, multipliers)
    w, vector = (p.detach().numpy().copy() for p in Pair(seed).parameters())
    rows, columns = np.zeros(3), np.zeros(4)  # sums, as algorithm 4 has them
    second = np.zeros(5)
    for t, (step, m) in enumerate(zip(gradients, multipliers, strict=True), 1):
        b = 1 - t**-0.8
        g = step[0].numpy()
        for i in range(3):
            rows[i] = b * rows[i] + (1 - b) * sum(g[i, j] ** 2 + 1e-30 for j in range(4))
        for j in range(4):
            columns[j] = b * columns[j] + (1 - b) * sum(g[i, j] ** 2 + 1e-30 for i in range(3))
        v = np.array([[rows[i] * columns[j] / rows.sum() for j in range(4)] for i in range(3)])
        w = w - RATE * m * (clipped(g / np.sqrt(v)) + DECAY * w)
        g = step[1].numpy()
        second = b * second + (1 - b) * (g**2 + 1e-30)
        vector = vector - RATE * m * clipped(g / np.sqrt(second))
    np.testing.assert_allclose(model.matrix.detach().numpy(), w, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(model.vector.detach().numpy(), vector, rtol=1e-10, atol=1e-12)


def clipped(update: Values) -> Values:
    return update / max(1.0, math.sqrt((update**2).mean()))


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_without_a_gradient_waits(name: str) -> None:
    """As a layer that a step did not use: its value and its own count of steps stay."""
    model, gradients = trained(name, 3, [1.0, 0.5, 1.0], missing=0)
    assert gradients[0][1] is None
    start = Pair(3).vector.detach()
    assert torch.isfinite(model.vector).all()
    assert not torch.equal(model.vector, start)
    if name in FLAT:
        steps = [step[1].tolist() for step in gradients[1:]]
        expected = FLAT[name](start.tolist(), steps, [RATE * 0.5, RATE], 0.0)
        np.testing.assert_allclose(model.vector.detach().numpy(), expected, rtol=1e-10)


def test_averages_are_those_of_equal_weights_at_a_constant_rate() -> None:
    """c = 1 / t: x is the plain mean of all z."""
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = ScheduleFreeAdamW([weight], lr=0.1)
    seen = []
    for g in (1.0, -3.0, 0.5, 2.0):
        weight.grad = torch.tensor([g], dtype=torch.float64)
        optimizer.step()
        seen.append(float(optimizer.state[weight]["z"]))
    ((_, average),) = optimizer.averages()
    assert float(average) == pytest.approx(sum(seen) / 4, rel=1e-12)


def test_momentum_warms_up() -> None:
    weight = nn.Parameter(torch.zeros(2, 2))
    muon = Muon([weight], lr=0.1, momentum=0.95, momentum_warmup=4, orthogonalise=lambda u: u)
    expected = torch.zeros(2, 2)
    for step in range(6):
        weight.grad = torch.full((2, 2), float(step + 1))
        momentum = FIRST_MOMENTUM + min(1.0, step / 4) * (0.95 - FIRST_MOMENTUM)
        expected = momentum * expected + (1 - momentum) * weight.grad
        muon.step()
        torch.testing.assert_close(muon.state[weight]["momentum"], expected)


@pytest.mark.parametrize("kind", [Adafactor, Lion, ScheduleFreeAdamW])
def test_a_closure_is_refused(kind: type[torch.optim.Optimizer]) -> None:
    with pytest.raises(ValueError, match="takes no closure"):
        kind([nn.Parameter(torch.ones(2, 2))], lr=0.1).step(closure=lambda: 0.0)


# -- and it learns ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_it_lowers_a_quadratic_and_a_perceptron(name: str) -> None:
    rate = 0.05
    torch.manual_seed(0)
    inputs = torch.randn(64, 6)
    for model in (nn.Linear(6, 3), nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))):
        targets = torch.stack([inputs[:, 0], inputs[:, 1] * 2, inputs[:, :2].sum(1)], 1)
        optimizers = build_optimizers(
            model, name, learning_rate=rate, matrix_learning_rate=rate, momentum=0.9,
            weight_decay=0.0, precision=torch.float32,
        )  # fmt: skip
        losses = []
        for step in range(150):
            optimizers.set_rate(1 - step / 150)
            loss = nn.functional.mse_loss(model(inputs), targets)
            loss.backward()
            optimizers.step()
            losses.append(float(loss.detach()))
        with optimizers.evaluation():
            last = float(nn.functional.mse_loss(model(inputs), targets).detach())
        assert last < 0.1 * losses[0], losses[::30]
