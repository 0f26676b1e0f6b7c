"""Law 6: adapter = merged = exported = served. The base is frozen, small checkpoints hold the rest.

A decoder, a classifier of text and a convolutional network are tuned by adapters for a few steps.
"""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from modelwright import api, checkpoint
from modelwright.errors import CorruptError, Interrupted
from modelwright.models import lora
from modelwright.pipeline.export import export, subject_of
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from modelwright.training.train import Trainer
from tests.exporting import tiny_runs

BOUND = 1e-5  # of logits: adapter and merged, float32
ADAPTERS = {
    "decoder": {"rank": 4, "dora": True},
    "encoder": {"rank": 4, "rslora": True, "alpha": 8, "trained": ["output"], "lora_plus": 8},
    "cnn": {"rank": 4, "dropout": 0.1},
}


def recipe_of(kind, folder):
    made = tiny_runs.RECIPES[kind](folder)
    tune = {k: v for k, v in made["train"].items() if k not in ("optimizer", "learning_rate")}
    tune |= {"adapter": ADAPTERS[kind], "learning_rate": 0.02, "accumulate": 2, "save_every": 4}
    return {"name": f"adapted-{kind}", "seed": 1, **made, "tune": tune}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder, known = tmp_path_factory.mktemp("law-6"), {}

    def run_of(kind):
        if kind not in known:
            known[kind] = api.train(recipe_of(kind, folder / "data"), out=folder / kind)
            known[kind] = api.tune(recipe_of(kind, folder / "data"), out=folder / kind)
        return known[kind]

    return run_of


def logits(fitted, subject):
    fitted.model.cpu()
    with torch.no_grad():
        return [fitted.model(**b.inputs) for b in subject.batches]


@pytest.mark.parametrize("kind", ADAPTERS)
def test_live_is_merged_and_the_base_is_as_it_was(runs, kind):
    run = runs(kind)
    point = newest_checkpoint(run, "tune")
    live, merged = load_fitted(point, merged=False), load_fitted(point)
    base = load_fitted(newest_checkpoint(run, "train"))
    assert list(lora.layers(live.model)) and not list(lora.layers(merged.model))
    subject = subject_of(run, merged)
    one, other, before = (logits(f, subject) for f in (live, merged, base))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=BOUND, atol=BOUND)
    assert max(float((a - b).abs().max()) for a, b in zip(one, before, strict=True)) > 100 * BOUND
    kept, now = base.model.state_dict(), live.model.state_dict()
    frozen = [n for n in kept if not n.startswith("output.") or kind != "encoder"]
    assert all(torch.equal(kept[n].cpu(), now[n].cpu()) for n in frozen)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_checkpoint_holds_the_adapter_alone(runs, kind):
    found = checkpoint.load(newest_checkpoint(runs(kind), "tune"))
    assert all(
        n.rpartition(".")[2] in lora.PARTS or (kind == "encoder" and n.startswith("output."))
        for n in found.tensors["model"]
    )
    trained = {n.rpartition(":")[0] for n in found.tensors["optimizer"]}
    assert trained == set(found.tensors["model"])


def test_served_answers_greedily_as_the_live_adapter(runs):
    run = runs("decoder")
    point = newest_checkpoint(run, "tune")
    prompts = ("def ", "import os", "return")
    answers = []
    for fitted in (load_fitted(point, merged=False), load_fitted(point)):
        model = api.Model(fitted)
        answers.append([model.complete(p, max_tokens=24, temperature=0.0) for p in prompts])
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("kind", "form"), [("decoder", "hub"), ("encoder", "torch-export"), ("cnn", "torch-export")]
)
def test_exported_answers_alike(runs, kind, form, tmp_path):
    proof = export(runs(kind), tmp_path / "out", lambda _: None, to=form)
    assert proof.outputs and proof.largest <= proof.tolerance


def test_another_base_is_refused_by_its_fingerprint(runs, tmp_path):
    run = runs("decoder")
    shutil.copytree(run.path, tmp_path / "run")
    tuned = newest_checkpoint(run, "tune")
    copy = tmp_path / "run" / tuned.relative_to(run.path)
    base = json.loads((tuned / "adapter.json").read_text())["base"]["checkpoint"]
    folder = tmp_path / "run" / "checkpoints" / base
    found = checkpoint.load(folder)
    step = found.step
    shutil.rmtree(folder)
    found.tensors["model"]["blocks.0.attention.query.weight"][0, 0] += 1e-3
    checkpoint.save(folder.parent, step, found.tensors, found.documents)
    with pytest.raises(CorruptError, match="trained on another base"):
        load_fitted(copy)
    shutil.rmtree(folder)
    with pytest.raises(CorruptError, match="the base of an adapter is gone"):
        load_fitted(copy)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_stopped_and_continued_is_the_same(runs, kind, tmp_path, monkeypatch):
    """Bit by bit, at a step between two checkpoints, in a run of its own."""
    undisturbed = checkpoint.load(newest_checkpoint(runs(kind), "tune"))
    recipe, out = recipe_of(kind, tmp_path / "data"), tmp_path / "run"
    api.train(recipe, out=out)
    step = Trainer.step

    def stopping(self, number):
        if number == 5:
            raise Interrupted("stopped by the test", 130)
        return step(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stopping)
        with pytest.raises(Interrupted):
            api.tune(recipe, out=out)
    run = api.tune(recipe, out=out)
    again = checkpoint.load(newest_checkpoint(run, "tune"))
    assert again.step == undisturbed.step
    for group, tensors in undisturbed.tensors.items():
        assert again.tensors[group].keys() == tensors.keys()
        assert all(torch.equal(again.tensors[group][n], t) for n, t in tensors.items()), group
