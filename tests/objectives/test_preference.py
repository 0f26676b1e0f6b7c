"""The losses of preferred answers, against their formulas in numpy, and TRL where it is there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from modelwright.data.codecs import fit_codec
from modelwright.errors import ModelwrightError
from modelwright.models.model import config_class
from modelwright.objectives import make_objective
from modelwright.objectives.preference import REFERENCE, Answers, Objective, of_reference
from modelwright.types import Array, Columns, Example, stack, text_turn
from tests.variations import examples_of

KINDS = ("dpo", "ipo", "simpo", "orpo", "kto")
ROWS = 5


@pytest.fixture(scope="module")
def codec() -> Any:
    return fit_codec("text", examples_of("preferences", ROWS)[1], {"vocabulary": 300})


@pytest.fixture(scope="module")
def columns(codec: Any) -> Columns:
    examples = examples_of("preferences", ROWS)[1]
    found = stack([codec.encode(e) for e in examples], codec.ragged)
    reference = np.random.default_rng(1).normal(-30, 5, (ROWS, 2)).astype(np.float32)
    return of_reference(found, reference)


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
    made = make_objective("preference", codec, options)
    assert isinstance(made, Objective)
    return made


def by_hand(model: Any, columns: Columns) -> tuple[Array, Array]:
    """log p of both answers of every row, one text at a time, from all logits; and their tokens."""
    values = np.zeros((ROWS, 2))
    lengths = np.zeros((ROWS, 2))
    for side, (name, marks) in enumerate((("tokens", "learn"), ("rejected", "rejected_learn"))):
        for row in range(ROWS):
            tokens = torch.from_numpy(np.array(columns[name][row]).astype(np.int64))
            learn = np.array(columns[marks][row])
            with torch.no_grad():
                log_p = model(tokens[None])[0].log_softmax(-1)
            places = np.flatnonzero(learn[1:])
            values[row, side] = sum(float(log_p[i, tokens[i + 1]]) for i in places)
            lengths[row, side] = len(places)
    return values, lengths


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def expected(kind: str, ours: Array, q: Array, lengths: Array) -> float:
    """The formulas of the module's docstring at their customary settings, summed over the rows."""
    c, r = ours.T
    h = (ours - q)[:, 0] - (ours - q)[:, 1]
    each, ratio = ours / lengths, (ours - q) / lengths
    if kind == "dpo":
        costs = -0.9 * np.log(sigmoid(0.1 * h)) - 0.1 * np.log(sigmoid(-0.1 * h))
    elif kind == "ipo":
        costs = (ratio[:, 0] - ratio[:, 1] - 1 / 0.2) ** 2
    elif kind == "simpo":
        costs = -np.log(sigmoid(2.0 * each[:, 0] - 2.0 * each[:, 1] - 1.0))
    elif kind == "orpo":
        p = np.exp(each)
        odds = np.log(p / (1 - p))
        costs = -each[:, 0] - 0.1 * np.log(sigmoid(odds[:, 0] - odds[:, 1]))
    else:
        good, bad = (1 - sigmoid(0.1 * (c - q[:, 0]))), sigmoid(0.1 * (r - q[:, 1]))
        costs = good + 2 * bad
    return float(costs.sum())


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_is_its_formula(kind: str, codec: Any, columns: Columns, model: nn.Module) -> None:
    options = {"dpo": {"label_smoothing": 0.1}, "kto": {"bad": 2.0}}.get(kind, {})
    objective = of(codec, loss=kind, **options)
    ours, lengths = by_hand(model, columns)
    found = objective.loss(model, objective.collate(columns, torch.Generator()))
    q = np.asarray(columns[REFERENCE], dtype=np.float64)
    assert found.item() == pytest.approx(expected(kind, ours, q, lengths), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_against_the_gradient_tells_the_answers_further_apart(
    kind: str, codec: Any, columns: Columns, model: nn.Module
) -> None:
    objective = of(codec, loss=kind)
    batch = objective.collate(columns, torch.Generator())
    model.zero_grad()
    torch.autograd.backward(objective.loss(model, batch))
    before = objective.rewards(model, batch).detach()
    with torch.no_grad():
        steps = [(p, 1e-4 * p.grad) for p in model.parameters() if p.grad is not None]
        for p, step in steps:
            p.sub_(step)
        after = objective.rewards(model, batch)
        for p, step in steps:
            p.add_(step)
    model.zero_grad()
    lead = (after - before)[:, 0] - (after - before)[:, 1]
    assert float(lead.mean()) > 0


def test_the_odds_ratio_is_that_of_trl(codec: Any) -> None:
    orpo = pytest.importorskip("trl.experimental.orpo.orpo_trainer", reason="TRL is not installed")
    rng = np.random.default_rng(0)
    each = torch.from_numpy(-rng.exponential(1.0, (64, 2)).astype(np.float32) - 1e-3)
    trainer = SimpleNamespace(beta=0.1, accelerator=SimpleNamespace(device="cpu"))
    losses, *_ = orpo.ORPOTrainer.odds_ratio_loss(trainer, each[:, 0], each[:, 1])
    ones = torch.ones_like(each)
    ours = of(codec, loss="orpo")._orpo(Answers(each, torch.zeros_like(each), ones))
    torch.testing.assert_close(ours, -each[:, 0] - losses)


def test_single_answers_are_for_kto_alone(codec: Any, model: nn.Module) -> None:
    asked, answer = text_turn("user", "Shall I?"), text_turn("assistant", "Please do.", learn=True)
    nothing = text_turn("assistant", "")
    good, bad = Example((asked, answer), nothing), Example((asked,), answer)
    columns = stack([codec.encode(good), codec.encode(bad)], codec.ragged)
    assert [codec.example({k: c[i] for k, c in columns.items()}) for i in (0, 1)] == [good, bad]
    objective = of(codec, loss="kto")
    batch = objective.collate(columns, torch.Generator())
    assert batch.count == 2
    ratio = objective.answers(model, batch).ratio.detach()
    value = torch.sigmoid(0.1 * ratio)
    want = (1 - value[0, 0]) + value[1, 1]
    torch.testing.assert_close(objective.loss(model, batch), want)
    with pytest.raises(ModelwrightError, match=r"dpo compares two answers, and a row has one only"):
        of(codec).collate(columns, torch.Generator())


def test_a_mistyped_loss_is_refused(codec: Any) -> None:
    with pytest.raises(ModelwrightError, match="loss"):
        of(codec, loss="dop")
