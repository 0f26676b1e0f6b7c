"""What is trained when: freezing, gradual unfreezing, rates by layer and of adapters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from modelwright import api, checkpoint
from modelwright.errors import Interrupted, ModelwrightError
from modelwright.models.lora import Adapter, adapt
from modelwright.models.model import config_class
from modelwright.pipeline.fitted import newest_checkpoint
from modelwright.recipe import parse
from modelwright.training.optimizers import Muon, build_optimizers
from modelwright.training.train import Trainer
from modelwright.training.tuning import Freezing, rates
from tests.exporting import tiny_runs


def built(family, **fields):
    torch.manual_seed(1)
    cls = config_class(family)
    return cls(**{**cls.specimen, **fields}).build()


def trained(model):
    return {n for n, p in model.named_parameters() if p.requires_grad}


def test_what_is_trained_is_a_function_of_the_step():
    model = built("encoder")
    every = trained(model)
    plan = Freezing(model, ["embedding*", "blocks"], {3: ["blocks.1"], 6: ["blocks"]})
    head = {n for n in every if not n.startswith(("embedding", "blocks"))}
    last = {n for n in every if n.startswith("blocks.1.")}
    blocks = {n for n in every if n.startswith("blocks.")}
    expected = {
        0: head,
        2: head,
        3: head | last,
        5: head | last,
        6: head | blocks,
        9: head | blocks,
    }
    for order in (list(expected), [9, 0, 5, 3, 6, 2]):
        for step in order:
            plan.at(step)
            assert trained(model) == expected[step]
    plan.ever()
    assert trained(model) == head | blocks
    plan.at(0)
    assert trained(model) == head


def test_frozen_norms_keep_their_statistics():
    model = built("fast_cnn")
    plan = Freezing(model, ["stem", "blocks"], {4: ["blocks"]})
    model.train()
    plan.at(0)
    norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert norms and not any(m.training for m in norms.values())
    plan.at(4)
    assert {n for n, m in norms.items() if m.training} == {n for n in norms if "blocks" in n}
    model.eval()
    assert not any(m.training for m in norms.values())


@pytest.mark.parametrize(
    ("freeze", "unfreeze", "why"),
    [
        (["blocs"], {}, "freeze: 'blocs' means nothing here"),
        (["*"], {}, "nothing is left to train"),
        (["blocks"], {5: ["output"]}, r"unfreeze.5: output\.weight is not frozen"),
    ],
)
def test_what_cannot_be_is_refused(freeze, unfreeze, why):
    with pytest.raises(ModelwrightError, match=why):
        Freezing(built("encoder"), freeze, unfreeze)


def test_rates_fall_from_layer_to_layer():
    found = rates(built("encoder", depth=3), layer_decay=0.5)
    assert found["blocks.2.attention.query.weight"] == 0.5
    assert found["blocks.0.attention.query.weight"] == 0.125
    assert found["embedding.weight"] == 0.0625
    assert "output.weight" not in found and "norm.gain" not in found
    llama = rates(built("llama"), layer_decay=0.5)  # which makes its head first
    assert "output.weight" not in llama and llama["embedding.weight"] < 0.5


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon", "lion"])
def test_the_optimiser_has_these_rates(optimizer):
    model = built("encoder")
    times = rates(model, layer_decay=0.5)
    made = build_optimizers(
        model,
        optimizer,
        learning_rate=0.1,
        matrix_learning_rate=0.2,
        momentum=0.9,
        weight_decay=0.1,
        precision=torch.float32,
        rates=times,
    )
    names = made.names
    for member in made.members:
        base = 0.2 if isinstance(member, Muon) else 0.1
        for group in member.param_groups:
            for p in group["params"]:
                assert group["lr"] == pytest.approx(base * times.get(names[id(p)], 1.0))
    listed = [names[id(p)] for g in made.groups for p in g["params"]]
    assert sorted(listed) == sorted(trained(model))


def test_lora_plus_is_for_b_alone():
    model = built("decoder")
    adapt(model, Adapter(rank=2))
    found = rates(model, lora_plus=16)
    assert found and set(found.values()) == {16} and all(n.endswith("lora_b") for n in found)


def recipe_of(folder, **stage):
    made = tiny_runs.encoder(folder)
    made["train"] |= {"steps": 8, "save_every": 2, **stage}
    return {"name": "frozen", "seed": 1, **made}


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_gradual_unfreezing_continues_exactly(tmp_path, monkeypatch, optimizer):
    """Stopped before and after a layer begins to be trained."""
    stage = {
        "optimizer": optimizer,
        "freeze": ["embedding", "blocks"],
        "unfreeze": {4: ["blocks.1"], 6: ["blocks.0"]},
        "layer_decay": 0.8,
    }
    recipe = recipe_of(tmp_path / "data", **stage)
    whole = checkpoint.load(newest_checkpoint(api.train(recipe, out=tmp_path / "whole")))
    step = Trainer.step
    for stop in (3, 7):

        def stopping(self, number, stop=stop):
            if number == stop:
                raise Interrupted("stopped by the test", 130)
            return step(self, number)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "step", stopping)
            with pytest.raises(Interrupted):
                api.train(recipe, out=tmp_path / "stopped")
    again = checkpoint.load(newest_checkpoint(api.train(recipe, out=tmp_path / "stopped")))
    for group, tensors in whole.tensors.items():
        assert again.tensors[group].keys() == tensors.keys()
        assert all(torch.equal(again.tensors[group][n], t) for n, t in tensors.items()), group


@pytest.mark.parametrize(
    ("stage", "why"),
    [
        ({"adapter": {}}, "random weights are no base"),
        ({"freeze": ["a"], "unfreeze": {0: ["a"]}}, "whole numbers from 1 on"),
        ({"unfreeze": {3: ["a"]}}, "nothing is frozen"),
        ({"adapter": {}, "freeze": ["a"]}, "freezes all other parameters"),
        ({"adapter": {"rnak": 3}}, "did you mean 'rank'"),
    ],
)
def test_recipes_that_make_no_sense(tmp_path, stage, why):
    with pytest.raises(ModelwrightError, match=why):
        parse(recipe_of(tmp_path, **stage))
