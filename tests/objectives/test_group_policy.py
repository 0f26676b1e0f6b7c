"""GRPO and RLOO against their formulas, written down in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from modelwright.data.codecs import fit_codec
from modelwright.models.model import config_class
from modelwright.objectives import make_objective
from modelwright.objectives.answers import token_log_probabilities
from modelwright.objectives.group_policy import Objective
from modelwright.types import Array, Columns, stack, take
from tests.variations import examples_of

ROWS = 6


@pytest.fixture(scope="module")
def codec() -> Any:
    return fit_codec("text", examples_of("rewarded_answers", ROWS)[1], {"vocabulary": 300})


@pytest.fixture(scope="module")
def model(codec: Any) -> nn.Module:
    cls = config_class("decoder")
    torch.manual_seed(0)
    made = cls(**{**cls.specimen, **cls.data_fields(codec)}).build()
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn_like(p), alpha=0.1)
    return made


def of(codec: Any, **options: Any) -> Objective:
    made = make_objective("group_policy", codec, options)
    assert isinstance(made, Objective)
    return made


def now(model: nn.Module, columns: Columns, temperature: float) -> list[Array]:
    """log p of the drawn tokens of every row, one text at a time, from all logits."""
    found = []
    for row in range(ROWS):
        tokens = torch.from_numpy(np.array(columns["tokens"][row]).astype(np.int64))
        with torch.no_grad():
            log_p = (model(tokens[None])[0] / temperature).log_softmax(-1).numpy()
        places = np.flatnonzero(np.array(columns["learn"][row])[1:])
        found.append(log_p[places, tokens.numpy()[places + 1]].astype(np.float64))
    return found


@pytest.fixture(scope="module")
def drawn(codec: Any, model: nn.Module) -> Columns:
    """Answers as the loop stores them, of a policy a little off the model."""
    rng = np.random.default_rng(0)
    encoded: list[dict[str, Any]] = [dict(codec.encode(e)) for e in examples_of("chat", ROWS)[1]]
    temperature = 0.8
    plain = stack(encoded, codec.ragged)
    for row, log_p in zip(encoded, now(model, plain, temperature), strict=True):
        row["old"] = (log_p + rng.normal(0, 0.3, len(log_p))).astype(np.float32)
        row["reference"] = (log_p + rng.normal(0, 0.3, len(log_p))).astype(np.float32)
        row["advantage"] = np.float32(rng.normal())
        row["temperature"] = np.float32(temperature)
    return stack(encoded, (*codec.ragged, "old", "reference"))


def expected(kind: str, l: list[Array], columns: Columns, kl: float) -> float:  # noqa: E741
    """The formulas of the module's docstring, an answer at a time."""
    total = 0.0
    for row, ours in enumerate(l):
        old, q = (np.asarray(columns[n][row], np.float64) for n in ("old", "reference"))
        a = float(np.asarray(columns["advantage"])[row])
        if kind == "rloo":
            p = np.exp((ours - old).sum())
            total -= min(p * a, np.clip(p, 0.8, 1.2) * a)
            continue
        p = np.exp(ours - old)
        gain = np.minimum(p * a, np.clip(p, 0.8, 1.2) * a)
        apart = np.exp(q - ours) - (q - ours) - 1
        total += (-gain + kl * apart).mean()
    return total


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_the_loss_is_its_formula(kind: str, codec: Any, model: nn.Module, drawn: Columns) -> None:
    objective = of(codec, loss=kind, kl=0.3)
    batch = objective.collate(drawn, torch.Generator())
    assert batch.count == ROWS
    found = objective.loss(model, batch).item()
    assert found == pytest.approx(expected(kind, now(model, drawn, 0.8), drawn, 0.3), rel=1e-4)


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_law_2_micro_batches_are_one_batch(
    kind: str, codec: Any, model: nn.Module, drawn: Columns
) -> None:
    objective = of(codec, loss=kind, kl=0.3)

    def loss(*rows: int) -> float:
        some = objective.collate(take(drawn, np.array(rows)), torch.Generator())
        return objective.loss(model, some).item()

    whole = loss(*range(ROWS))
    assert loss(0, 5) + loss(1, 2, 3) + loss(4) == pytest.approx(whole, rel=1e-4)


def test_answers_of_the_model_as_it_is_have_the_gradient_of_reinforce(
    codec: Any, model: nn.Module, drawn: Columns
) -> None:
    """With old = now and no reference, the gradient is that of - A log p, a mean over tokens."""
    old = np.concatenate(now(model, drawn, 0.8)).astype(np.float32)
    column: Any = drawn["old"]
    columns = {**drawn, "old": type(column)(old, column.offsets)}
    objective = of(codec)
    batch = objective.collate(columns, torch.Generator())
    model.zero_grad()
    torch.autograd.backward(objective.loss(model, batch))
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    t = batch.targets
    log_p = token_log_probabilities(model, batch.inputs, t, 0.8)
    torch.autograd.backward(-(t["advantage"] * t["share"] * log_p).sum())
    wanted = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_advantages_compare_the_answers_of_a_question(codec: Any) -> None:
    rewards = np.array([[1.0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1]])
    grpo = of(codec).advantages(rewards, np.zeros_like(rewards))
    spread = rewards.std(1, ddof=1)
    np.testing.assert_allclose(grpo[0, 0], 0.75 / (spread[0] + 1e-4))
    np.testing.assert_array_equal(grpo[1], 0)
    apart = np.arange(12.0).reshape(3, 4)
    rloo = of(codec, loss="rloo", kl=0.1).advantages(rewards, apart)
    r = rewards - 0.1 * apart
    for row in range(3):
        for i in range(4):
            assert rloo[row, i] == pytest.approx(r[row, i] - np.delete(r[row], i).mean())


def test_stored_answers_cost_their_likelihood(codec: Any, model: nn.Module) -> None:
    columns = stack([codec.encode(e) for e in examples_of("chat", ROWS)[1]], codec.ragged)
    batches = [
        make_objective(name, codec, {}).collate(columns, torch.Generator())
        for name in ("group_policy", "next_token")
    ]
    losses = [
        make_objective(name, codec, {}).loss(model, batch).item()
        for name, batch in zip(("group_policy", "next_token"), batches, strict=True)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert batches[0].count == batches[1].count
