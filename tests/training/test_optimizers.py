"""Optimisers: their formulas, and their state as tensors that come back exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modelwright.errors import CorruptError, ModelwrightError
from modelwright.models import fast_cnn
from modelwright.recipe import Stage
from modelwright.training import budget
from modelwright.training.optimizers import (
    NAMES,
    Muon,
    Optimizers,
    build_optimizers,
    inner_matrices,
    orthogonalise,
)
from tests.trainings import SETTINGS, raw


class Small(nn.Module):
    """An embedding, two block matrices of unlike shapes, a gain and a head, as in a decoder."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(7, 6)
        self.gain = nn.Parameter(torch.ones(6))
        self.up = nn.Linear(6, 10)
        self.down = nn.Linear(10, 6, bias=False)
        self.output = nn.Linear(6, 7, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) * self.gain
        logits: Tensor = self.output(x + self.down(torch.relu(self.up(x))))
        return logits


def made(name: str, model: nn.Module, **more: Any) -> Optimizers:
    settings = {"learning_rate": 0.1, "matrix_learning_rate": 0.02, "momentum": 0.9}
    return build_optimizers(
        model, name, **{**settings, "weight_decay": 0.0, **more}, precision=torch.float32
    )


def backward(model: nn.Module, step: int = 0) -> None:
    tokens = torch.tensor([[1, 2, 3, step % 7]])
    loss = nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten().flip(0))
    loss.backward()


@given(
    rows=st.integers(2, 80), columns=st.integers(2, 80), seed=st.integers(0, 999),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_orthogonal_updates_have_singular_values_near_one(
    rows: int, columns: int, seed: int, scale: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Well conditioned, as a mean of gradients is: the iteration lifts what is not far below.
    q, _ = torch.linalg.qr(
        torch.randn(2, max(rows, columns), min(rows, columns), generator=generator)
    )
    spread = torch.linspace(0.3, 1.0, min(rows, columns))
    other, _ = torch.linalg.qr(torch.randn(len(spread), len(spread), generator=generator))
    update = scale * (q * spread) @ other
    update = update if rows >= columns else update.mT
    found = torch.linalg.svdvals(orthogonalise(update))
    assert found.min() > 0.6
    assert found.max() < 1.3


def test_orthogonal_updates_keep_the_singular_vectors() -> None:
    generator = torch.Generator().manual_seed(1)
    update = torch.randn(1, 24, 24, generator=generator).double()
    u, s, v = torch.linalg.svd(update)
    found = u.mT @ orthogonalise(update) @ v.mT
    off = found - torch.diag_embed(found.diagonal(dim1=-2, dim2=-1))
    assert off.abs().max() < 1e-5
    assert (found.diagonal(dim1=-2, dim2=-1)[s > 0.05 * s.max()] > 0.5).all()


def test_matrices_are_treated_alike_alone_and_together() -> None:
    generator = torch.Generator().manual_seed(2)
    update = torch.randn(3, 8, 20, generator=generator)
    together = orthogonalise(update)
    for i in range(3):
        torch.testing.assert_close(together[i], orthogonalise(update[i : i + 1])[0])


def newton_schulz(update: torch.Tensor, iterations: int) -> torch.Tensor:
    x = update / (torch.linalg.matrix_norm(update, keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


@given(
    rows=st.integers(1, 12), times=st.integers(1, 5), iterations=st.integers(0, 8),
    seed=st.integers(0, 999), tall=st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_oblong_matrices_go_the_shorter_way_to_the_same_end(
    rows: int, times: int, iterations: int, seed: int, tall: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    update = torch.randn(2, rows, rows * times, generator=generator).double()
    expected = newton_schulz(update, iterations)
    found = orthogonalise(update.mT if tall else update, iterations)
    torch.testing.assert_close(found.mT if tall else found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("shape", [(64, 256), (256, 64), (64, 64)])
def test_bfloat16_keeps_the_singular_values_in_bounds(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(4)
    u, _, v = torch.linalg.svd(torch.randn(4, *shape, generator=generator), full_matrices=False)
    update = u * torch.logspace(0, -3, u.shape[-1]) @ v
    found = torch.linalg.svdvals(orthogonalise(update.bfloat16()).float())
    assert 1.0 < found.max() < 1.3


def test_muon_by_hand() -> None:
    """Two steps of the formula in its docstring, in plain tensor arithmetic."""
    torch.manual_seed(3)
    weight = nn.Parameter(torch.randn(12, 4))
    expected, momentum = weight.detach().clone(), torch.zeros(12, 4)
    optimizer = Muon([weight], lr=0.1, momentum=0.8, weight_decay=0.5)
    for _ in range(2):
        weight.grad = torch.randn(12, 4)
        momentum = 0.8 * momentum + 0.2 * weight.grad
        nesterov = 0.2 * weight.grad + 0.8 * momentum
        update = orthogonalise(nesterov[None])[0]
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * (12 / 4) ** 0.5 * update
        optimizer.step()
    torch.testing.assert_close(weight.detach(), expected)


def test_muon_takes_filters_as_matrices() -> None:
    torch.manual_seed(4)
    start, gradient = torch.randn(12, 4, 3, 3), torch.randn(12, 4, 3, 3)
    filters = nn.Parameter(start.clone().contiguous(memory_format=torch.channels_last))
    matrix = nn.Parameter(start.flatten(1).clone())
    filters.grad, matrix.grad = gradient.clone(), gradient.flatten(1).clone()
    optimizer = Muon([filters, matrix], lr=0.1, momentum=0.8, weight_decay=0.5)
    optimizer.step()
    assert not torch.equal(filters, start)
    torch.testing.assert_close(filters.detach().flatten(1), matrix.detach())


def test_muon_of_a_convolutional_network_leaves_both_ends_to_adamw() -> None:
    config = fast_cnn.Config(classes=3, image=(8, 8), widths=(4, 6, 8))
    model = config.build()
    muon = made("muon", model).members[1]
    chosen = {id(p) for group in muon.param_groups for p in group["params"]}
    inside = {n for n, p in model.named_parameters() if id(p) in chosen}
    assert inside == {f"blocks.{i}.{n}.conv.weight" for i in (0, 1) for n in ("first", "second")}
    depthwise = {"mix.weight": nn.Parameter(torch.ones(6, 1, 7, 7))}
    assert inner_matrices(depthwise) == []  # each filter has one plane of its own


def test_muon_leaves_embedding_head_and_gains_to_adamw() -> None:
    model = Small()
    muon = made("muon", model).members[1]
    chosen = {id(p) for group in muon.param_groups for p in group["params"]}
    assert chosen == {id(model.up.weight), id(model.down.weight)}
    with pytest.raises(ModelwrightError, match="'muon' needs a model with matrices"):
        made("muon", nn.LayerNorm(4))


@pytest.mark.parametrize("name", NAMES)
def test_state_comes_back_exactly(name: str) -> None:
    model, other = Small(), Small()
    ours, theirs = made(name, model), made(name, other)
    for step in range(3):
        backward(model, step)
        ours.step()
    with ours.evaluation():  # as a stage saves: the weights to use, and the state
        other.load_state_dict(model.state_dict())
        theirs.load_state(ours.state())
    assert {k: raw(v) for k, v in theirs.state().items()} == {
        k: raw(v) for k, v in ours.state().items()
    }
    for m, optimizers in ((model, ours), (other, theirs)):
        backward(m, 9)
        optimizers.step()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_loading_copies(name: str) -> None:
    model, other = Small(), Small()
    ours, theirs = made(name, model), made(name, other)
    backward(model)
    ours.step()
    given = ours.state()
    before = {k: raw(v) for k, v in given.items()}
    theirs.load_state(given)
    backward(other)
    theirs.step()
    assert {k: raw(v) for k, v in given.items()} == before


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_moves_and_gradients_are_dropped(name: str) -> None:
    model = Small()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizers = made(name, model)
    backward(model)
    optimizers.step()
    for n, p in model.named_parameters():
        assert not torch.equal(p, before[n]), n
        assert p.grad is None


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_pulls_matrices_only(name: str) -> None:
    model, plain = Small(), Small()
    for m, decay in ((model, 0.5), (plain, 0.0)):
        optimizers = made(name, m, weight_decay=decay)
        backward(m)
        optimizers.step()
    decayed = {
        n
        for (n, p), q in zip(model.named_parameters(), plain.parameters(), strict=True)
        if not torch.equal(p, q)
    }
    assert decayed
    assert all(dict(model.named_parameters())[n].ndim == 2 for n in decayed)


@pytest.mark.parametrize("name", NAMES)
def test_the_rate_scales_the_step(name: str) -> None:
    moved = []
    for rate in (1.0, 0.5):
        model = Small()
        before = model.up.weight.detach().clone()
        optimizers = made(name, model)
        optimizers.set_rate(rate)
        backward(model)
        optimizers.step()
        moved.append((model.up.weight - before).norm().item())
    assert moved[1] == pytest.approx(0.5 * moved[0], rel=1e-3)


def test_state_of_another_model_is_refused() -> None:
    optimizers = made("adamw", Small())
    with pytest.raises(CorruptError, match="unknown parameters .*nobody"):
        optimizers.load_state({"nobody:exp_avg": torch.zeros(1)})


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("name", NAMES)
def test_evaluation_swaps_exactly_and_back(name: str, ema: float) -> None:
    model = Small()
    optimizers = made(name, model, ema=ema)
    for step in range(3):
        backward(model, step)
        optimizers.step()
    before = {n: raw(p) for n, p in model.named_parameters()}
    state = {n: raw(t) for n, t in optimizers.state().items()}
    with optimizers.evaluation():
        used = {n: raw(p) for n, p in model.named_parameters()}
        assert {n: raw(t) for n, t in optimizers.state().items()} == state
        with optimizers.evaluation():
            assert {n: raw(p) for n, p in model.named_parameters()} == used
        assert {n: raw(p) for n, p in model.named_parameters()} == used
    assert {n: raw(p) for n, p in model.named_parameters()} == before
    assert (used == before) == (name != "schedule_free" and not ema)
    with pytest.raises(KeyError), optimizers.evaluation():
        raise KeyError("an error in a validation")
    assert {n: raw(p) for n, p in model.named_parameters()} == before


def test_the_state_holds_no_second_copy_where_the_model_is_the_training_one() -> None:
    model = Small()
    optimizers = made("adamw", model)
    backward(model)
    optimizers.step()
    assert not [key for key in optimizers.state() if key.endswith(":training")]


def test_scalar_parameters_keep_their_state_beside_them() -> None:
    """A parameter without dimensions is no counter: its averages go where it is."""
    model = nn.Linear(2, 2)
    model.scale = nn.Parameter(torch.tensor(0.5))
    for name in NAMES:
        ours, theirs = made(name, model), made(name, model)
        loss = (model(torch.ones(1, 2)) * model.scale).sum()
        loss.backward()
        ours.step()
        theirs.load_state(ours.state())
        assert {k: raw(v) for k, v in theirs.state().items()} == {
            k: raw(v) for k, v in ours.state().items()
        }


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_the_customary_ones_are_one_kernel(name: str) -> None:
    assert all(group["fused"] for group in made(name, Small()).groups)


def test_cut_matrices_are_refused_where_the_whole_is_needed() -> None:
    class Cut:
        sharded = True

    with pytest.raises(ModelwrightError, match="'adafactor' needs whole matrices"):
        made("adafactor", Small(), placement=Cut())


def test_muon_collects_cut_matrices() -> None:
    """A placement that keeps the transpose here: wholes go in and parts come out."""

    class Turned:
        sharded = True

        def whole(self, parameter: nn.Parameter, part: Tensor) -> Tensor:
            return part.mT

        def part(self, parameter: nn.Parameter, whole: Tensor) -> Tensor:
            return whole.mT

    torch.manual_seed(4)
    whole, part = nn.Parameter(torch.randn(9, 4)), nn.Parameter(torch.zeros(4, 9))
    with torch.no_grad():
        part.copy_(whole.mT)
    plain, cut = Muon([whole], lr=0.1), Muon([part], lr=0.1, placement=Turned())
    for _ in range(3):
        whole.grad = torch.randn(9, 4)
        part.grad = whole.grad.mT.contiguous()
        plain.step()
        cut.step()
    torch.testing.assert_close(part.detach().mT, whole.detach())


def test_a_missing_average_is_refused() -> None:
    saved = made("adamw", Small()).saved()
    with pytest.raises(CorruptError, match="no average; it was saved without `ema`"):
        made("adamw", Small(), ema=0.9).restore(saved)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ModelwrightError, match=r"no optimiser 'adm' \(did you mean 'adam'\?\)"):
        made("adm", Small())
    with pytest.raises(ValueError, match="takes no closure"):
        Muon([nn.Parameter(torch.ones(2, 2))], lr=0.1).step(closure=lambda: 0.0)


def test_recipes_know_the_same_names() -> None:
    assert set(SETTINGS["optimizer"]) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_optimiser_has_rates_and_a_schedule_with_reasons(name: str) -> None:
    stage = Stage(task="documents", optimizer=name)
    derived = budget.Derived()
    budget.derive_rates(stage, "train", "adamw", derived)
    assert derived.values["train.learning_rate"] > 0
    constant = derived.values["train.schedule"] == "constant"
    assert constant == (name == "schedule_free")  # its average stands for a falling rate
    assert all(derived.reasons.values())


def test_one_cycle_is_derived_with_equal_halves() -> None:
    derived = budget.Derived()
    stage = Stage(task="documents", schedule="one_cycle")
    budget.derive_rates(stage, "train", "adamw", derived)
    up, end = derived.values["train.warmup"], derived.values["train.decay"]
    assert up == pytest.approx((1 - end) / 2)


def test_two_averages_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="schedule_free makes an average of its own"):
        Stage(task="documents", optimizer="schedule_free", ema=0.99)
    assert Stage(task="documents", optimizer="schedule_free", ema=0).ema == 0
