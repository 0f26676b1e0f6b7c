"""Optimisers: Muon's orthogonal updates, groups, and state that can be saved and taken back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modelwright.errors import CorruptError, ModelwrightError
from modelwright.models.decoder import Config
from modelwright.training.optimizers import NAMES, Optimizers, build_optimizers, orthogonalise

TINY = Config(vocabulary=300, depth=1, width=32, heads=2, kv_heads=1, context=16)


def optimizers_for(model: nn.Module, name: str) -> Optimizers:
    return build_optimizers(
        model,
        name,
        learning_rate=0.01,
        matrix_learning_rate=0.02,
        momentum=0.9,
        weight_decay=0.1,
        precision=torch.float32,
    )


def one_step(model: nn.Module, optimizers: Optimizers, seed: int) -> None:
    torch.manual_seed(seed)
    tokens = torch.randint(0, 300, (2, 9))
    hidden = model.hidden(tokens[:, :-1]).flatten(0, 1)
    model.negative_log_likelihood(hidden, tokens[:, 1:].flatten()).backward()
    optimizers.step()


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 24), st.integers(2, 24), st.integers(0, 1000))
def test_orthogonalised_singular_values_are_near_one(rows: int, columns: int, seed: int) -> None:
    torch.manual_seed(seed)
    update = torch.randn(2, rows, columns)
    singular = torch.linalg.svdvals(orthogonalise(update, iterations=12))
    wanted = torch.linalg.svdvals(update)
    clear = wanted > 0.05 * wanted.amax(dim=-1, keepdim=True)  # tiny ones take more iterations
    assert ((singular > 0.6) & (singular < 1.3))[clear].all()


def test_orthogonalising_keeps_the_singular_vectors() -> None:
    torch.manual_seed(0)
    update = torch.randn(1, 6, 4)
    left, _, right = torch.linalg.svd(update, full_matrices=False)
    inside = left.mT @ orthogonalise(update) @ right.mT
    off_diagonal = inside - torch.diag_embed(inside.diagonal(dim1=-2, dim2=-1))
    assert off_diagonal.abs().max() < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_every_optimiser_changes_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    model = TINY.build()
    optimizers = optimizers_for(model, name)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for seed in range(4):  # projections into the stream start at zero: gradients need some steps
        one_step(model, optimizers, seed)
    unchanged = [n for n, p in model.named_parameters() if torch.equal(p, before[n])]
    assert unchanged == []
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_state_taken_back_continues_bit_for_bit(name: str) -> None:
    torch.manual_seed(0)
    model = TINY.build()
    optimizers = optimizers_for(model, name)
    for seed in range(3):
        one_step(model, optimizers, seed)
    again = TINY.build()
    again.load_state_dict(model.state_dict())
    resumed = optimizers_for(again, name)
    resumed.load_state({k: v.clone() for k, v in optimizers.state().items()})
    for seed in range(3, 6):
        one_step(model, optimizers, seed)
        one_step(again, resumed, seed)
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_muon_takes_the_matrices_of_the_blocks_only() -> None:
    model = TINY.build()
    adamw, muon = optimizers_for(model, "muon").members
    names = {id(p): n for n, p in model.named_parameters()}
    matrices = {names[id(p)] for g in muon.param_groups for p in g["params"]}
    rest = {names[id(p)] for g in adamw.param_groups for p in g["params"]}
    assert matrices == {n for n, p in model.named_parameters() if p.ndim == 2} - {
        "embedding.weight",
        "output.weight",
    }
    assert matrices | rest == set(names.values())


def test_the_rate_scales_every_group() -> None:
    optimizers = optimizers_for(TINY.build(), "muon")
    optimizers.set_rate(0.25)
    assert [g["lr"] for g in optimizers.groups] == [0.0025, 0.005]


def test_state_of_another_model_is_refused() -> None:
    optimizers = optimizers_for(TINY.build(), "adamw")
    with pytest.raises(CorruptError, match="nowhere"):
        optimizers.load_state({"nowhere:exp_avg": torch.zeros(1)})


def test_a_mistyped_name_is_refused() -> None:
    with pytest.raises(ModelwrightError, match="did you mean 'muon'"):
        optimizers_for(TINY.build(), "moun")
