"""Steps of DPO as our loop takes them, against the formula over transformers' model of one pair."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.training.ours import Numbers, build_trainer
from benchmarks.tuning.ours import pair_columns
from benchmarks.tuning.work import BETAS, Pair, in_turn
from modelwright.hub.files import find
from modelwright.hub.loading import config_of, load, plan_of
from modelwright.objectives import preference
from modelwright.pipeline.fitted import Fitted
from modelwright.pipeline.references import log_probabilities
from modelwright.training.examples import Shuffled
from modelwright.types import Array, Columns

VOCABULARY, STEPS, SIZE, RATE, BETA = 97, 4, 3, 3e-3, 0.1
Gradients = dict[str, Tensor]


class Taken(NamedTuple):
    """What one step found: the mean loss, and the gradient before the update, clipped."""

    loss: float
    gradients: Gradients


@pytest.fixture(scope="module")
def rows() -> list[Pair]:
    """Answers of many lengths, one of a single token among them; low numbers are chosen."""
    rng = np.random.default_rng(0)

    def tokens(most: int, low: int, high: int) -> Any:
        return rng.integers(low, high, rng.integers(1, most)).astype(np.int64)

    half = VOCABULARY // 2
    found = [
        Pair(tokens(9, 0, VOCABULARY), tokens(20, 0, half), tokens(20, half, VOCABULARY))
        for _ in range(STEPS * SIZE)
    ]
    return [*found[:-1], Pair(found[-1].prompt, found[-1].chosen[:1], found[-1].rejected)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama, saved by transformers."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    folder = tmp_path_factory.mktemp("base")
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def by_formula(model: Any, pair: Pair) -> Tensor:
    """log p(y | x) of the chosen and the rejected answer, (2,), each text read alone."""
    found = []
    for answer in (pair.chosen, pair.rejected):
        row = torch.from_numpy(np.concatenate([pair.prompt, answer]))[None]
        log_p = model(input_ids=row).logits[0, :-1].log_softmax(-1)
        each = log_p.gather(1, row[0, 1:, None])[:, 0]
        found.append(each[len(pair.prompt) - 1 :].sum())
    return torch.stack(found)


def theirs(base: Path, rows: list[Pair]) -> tuple[Array, list[Taken], Gradients]:
    """Reference, steps and weights of a loop over single pairs (arXiv:2305.18290, equation 7)."""
    from transformers import LlamaForCausalLM

    model: Any = LlamaForCausalLM.from_pretrained(base).train()
    with torch.no_grad():
        reference = [by_formula(model, pair) for pair in rows]
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS, weight_decay=0.0)
    steps = []
    for first in range(0, len(rows), SIZE):
        optimizer.zero_grad()
        total = 0.0
        for pair, q in zip(rows[first:][:SIZE], reference[first:][:SIZE], strict=True):
            chosen, rejected = by_formula(model, pair) - q
            loss = -F.logsigmoid(BETA * (chosen - rejected)) / SIZE
            torch.autograd.backward(loss)
            total += loss.item()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        steps.append(Taken(total, {n: p.grad.clone() for n, p in model.named_parameters()}))
        optimizer.step()
    return torch.stack(reference).numpy(), steps, model.state_dict()


def ours(base: Path, rows: list[Pair]) -> tuple[Array, list[Taken], Gradients]:
    """The same by our parts, tensors by the names that the published files give them."""
    published = find(str(base))
    model = load(published).model
    plan = plan_of(published, config_of(published)[1], model, new_head=False)
    names = {entry.ours: entry.theirs for entry, _ in plan.reads}
    fitted: Any = Fitted.__new__(Fitted)
    fitted.model = model
    fitted.objective = objective = preference.Objective(Numbers(VOCABULARY), beta=BETA)
    columns: Columns = pair_columns(rows)
    reference = log_probabilities(fitted, columns, torch.float32)
    columns = preference.of_reference(columns, reference)
    examples = Shuffled(columns, SIZE, seed=1)
    settings = {"optimizer": "adamw", "learning_rate": RATE, "precision": "float32", "steps": STEPS}
    trainer = build_trainer(model, objective, examples, settings, 1)
    gradients: list[Gradients] = []
    update = trainer.optimizers.step

    def noted() -> None:
        found = dict(model.named_parameters())
        gradients.append({names[n]: p.grad.clone() for n, p in found.items() if p.grad is not None})
        update()

    trainer.optimizers.step = noted  # type: ignore[method-assign]
    model.train()
    losses = [trainer.step(step).loss for step in range(STEPS)]
    steps = [Taken(*pair) for pair in zip(losses, gradients, strict=True)]
    return reference, steps, {names[n]: t for n, t in model.state_dict().items() if n in names}


def apart(found: Gradients, wanted: Gradients) -> float:
    """The norm of the difference as a share, of the tensor where it is largest."""
    assert found.keys() == wanted.keys()
    return max(float((found[n] - wanted[n]).norm() / wanted[n].norm()) for n in wanted)


def test_steps_are_those_of_the_formula(base: Path, rows: list[Pair]) -> None:
    ordered = in_turn(rows, SIZE, 1)
    our_q, our_steps, our_weights = ours(base, rows)
    q, steps, weights = theirs(base, ordered)
    places = [next(i for i, row in enumerate(rows) if row is pair) for pair in ordered]
    np.testing.assert_allclose(our_q[places], q, atol=1e-4)
    assert our_steps[0].loss == pytest.approx(math.log(2), abs=1e-6)
    assert [s.loss for s in our_steps] == pytest.approx([s.loss for s in steps], abs=1e-4)
    assert abs(our_steps[-1].loss - math.log(2)) > 1e-2  # the steps before it did something
    assert apart(our_steps[0].gradients, steps[0].gradients) < 1e-4
    assert apart(our_weights, weights) < 1e-4


def test_pairs_are_given_to_peers_in_our_order_and_none_twice() -> None:
    one = np.zeros(1, np.int64)
    rows = [Pair(one + i, one, one) for i in range(11)]
    given = in_turn(rows, 4, 5)
    columns = pair_columns(rows)
    steps = Shuffled(columns, 4, seed=5)
    read = [int(n) for step in range(2) for part in steps.rows(step) for n in part]
    assert [int(pair.prompt[0]) for pair in given] == read
    assert len(set(read)) == 8
