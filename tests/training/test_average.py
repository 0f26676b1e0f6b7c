"""The running average of parameters: its formula, its swap, its state."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modelwright.errors import CorruptError
from modelwright.training.average import Average
from modelwright.training.optimizers import build_optimizers


def moved(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator, dtype=p.dtype))


def model_of(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)).double()


@given(decay=st.floats(0.1, 0.9999), updates=st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_entry_by_entry(decay: float, updates: int) -> None:
    model = model_of()
    average = Average(model, decay)
    expected: list[list[float]] = [[] for _ in model.parameters()]
    for n in range(updates):
        moved(model, n)
        average.update()
        d = min(decay, n / (9 + n))
        for i, p in enumerate(model.parameters()):
            now = p.flatten().tolist()
            old = expected[i] or now
            expected[i] = [d * e + (1 - d) * w for e, w in zip(old, now, strict=True)]
    for (_, found), e in zip(average.pairs, expected, strict=True):
        torch.testing.assert_close(found.flatten(), torch.tensor(e, dtype=torch.float64))


def test_it_lags_and_then_settles() -> None:
    model = model_of()
    average = Average(model, 0.9)
    for _ in range(400):
        average.update()
    for p, e in average.pairs:
        torch.testing.assert_close(e, p.detach())
    moved(model, 1)
    average.update()
    for p, e in average.pairs:
        assert not torch.allclose(e, p)


def test_applied_swaps_exactly_and_back() -> None:
    model = model_of()
    average = Average(model, 0.5)
    before = [p.detach().clone() for p in model.parameters()]
    with average.applied():  # there is none yet
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    for n in range(3):
        moved(model, n)
        average.update()
    before = [p.detach().clone() for p in model.parameters()]
    places = [p.data_ptr() for p in model.parameters()]
    with pytest.raises(KeyError), average.applied():
        for p, e in average.pairs:
            assert torch.equal(p, e)
            assert not torch.equal(p, before[0]) or p.shape != before[0].shape
        raise KeyError("an error in a validation")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    assert [p.data_ptr() for p in model.parameters()] == places  # what holds a view still sees it


def test_frozen_parameters_are_left_out() -> None:
    model = model_of()
    model[0].weight.requires_grad_(False)
    average = Average(model, 0.5)
    average.update()
    assert not [name for name in average.state() if name.startswith("0.weight")]


def test_running_statistics_are_averaged_with_the_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    found = build_optimizers(
        model, "sgd", learning_rate=0.5, matrix_learning_rate=0.1, momentum=0.0, weight_decay=0.0,
        precision=torch.float32, ema=0.9,
    )  # fmt: skip
    means = []
    for _ in range(5):
        model(torch.randn(8, 3)).square().sum().backward()
        found.step()
        means.append(model[1].running_mean.clone())
    expected = means[0]
    for n, mean in enumerate(means):
        d = min(0.9, n / (9 + n))
        expected = d * expected + (1 - d) * mean
    with found.evaluation():
        torch.testing.assert_close(model[1].running_mean, expected)
        used = model[1].running_mean.clone()
        saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        groups = {g: {n: t.clone() for n, t in s.items()} for g, s in found.saved().items()}
    assert torch.equal(model[1].running_mean, means[-1])
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    other.load_state_dict(saved)
    again = build_optimizers(
        other, "sgd", learning_rate=0.5, matrix_learning_rate=0.1, momentum=0.0, weight_decay=0.0,
        precision=torch.float32, ema=0.9,
    )  # fmt: skip
    again.restore(groups)
    assert torch.equal(other[1].running_mean, means[-1])  # what trains on is what trained
    with again.evaluation():
        assert torch.equal(other[1].running_mean, used)


def test_state_comes_back_exactly() -> None:
    model, other = model_of(), model_of(5)
    ours, theirs = Average(model, 0.9), Average(other, 0.9)
    for n in range(4):
        moved(model, n)
        ours.update()
    other.load_state_dict(model.state_dict())
    theirs.load_state({k: v.clone() for k, v in ours.state().items()})
    for n in range(4, 7):
        for m, average in ((model, ours), (other, theirs)):
            moved(m, n)
            average.update()
    assert ours.updates == theirs.updates == 7
    for (_, a), (_, b) in zip(ours.pairs, theirs.pairs, strict=True):
        assert torch.equal(a, b)


def test_an_average_of_another_model_is_refused() -> None:
    average = Average(model_of(), 0.9)
    with pytest.raises(CorruptError, match=r"average of other parameters \(1.bias:average\)"):
        average.load_state(Average(nn.Sequential(nn.Linear(3, 4)), 0.9).state())
    with pytest.raises(CorruptError, match="another shape"):
        average.load_state(Average(nn.Sequential(nn.Linear(2, 4), nn.LayerNorm(4)), 0.9).state())
