"""Law 6 with a base in few bits: adapter = merged = exported = served, on the rounded weights.

A decoder is tuned over NF4, a classifier of text over 8 bits, for a few steps.
"""

from __future__ import annotations

import pytest
import torch

from modelwright import api, checkpoint
from modelwright.errors import Interrupted, ModelwrightError
from modelwright.models import lora, narrow
from modelwright.pipeline.export import export, subject_of
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from modelwright.training.train import Trainer
from tests.exporting import tiny_runs

BOUND = 1e-5  # of logits: adapter and merged, float32
ADAPTERS = {
    "decoder": {"rank": 4, "quantize": "nf4"},
    "encoder": {"rank": 4, "quantize": "int8", "dora": True, "trained": ["output"]},
}


def recipe_of(kind, folder):
    made = tiny_runs.RECIPES[kind](folder)
    tune = {k: v for k, v in made["train"].items() if k not in ("optimizer", "learning_rate")}
    tune |= {"adapter": ADAPTERS[kind], "learning_rate": 0.02, "accumulate": 2, "save_every": 4}
    return {"name": f"quantized-{kind}", "seed": 1, **made, "tune": tune}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder, known = tmp_path_factory.mktemp("law-6-quantized"), {}

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
def test_live_is_merged_and_the_base_takes_few_bytes(runs, kind):
    run = runs(kind)
    point = newest_checkpoint(run, "tune")
    live, merged = load_fitted(point, merged=False), load_fitted(point)
    held = narrow.held_in(live.model)
    assert held and not narrow.held_in(merged.model)
    base = load_fitted(newest_checkpoint(run, "train"))
    assert set(merged.model.state_dict()) == set(base.model.state_dict())
    for name, matrix in held.items():
        whole = base.model.get_submodule(name).weight.detach().cpu()
        assert torch.equal(matrix.unpacked().cpu(), narrow.Narrow(whole, matrix.kind).unpacked())
    subject = subject_of(run, merged)
    one, other, before = (logits(f, subject) for f in (live, merged, base))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=BOUND, atol=BOUND)
    assert max(float((a - b).abs().max()) for a, b in zip(one, before, strict=True)) > 100 * BOUND


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_checkpoint_holds_the_adapter_alone(runs, kind):
    found = checkpoint.load(newest_checkpoint(runs(kind), "tune"))
    assert all(
        n.rpartition(".")[2] in lora.PARTS or (kind == "encoder" and n.startswith("output."))
        for n in found.tensors["model"]
    )


def test_served_answers_greedily_as_the_live_adapter(runs):
    point = newest_checkpoint(runs("decoder"), "tune")
    prompts = ("def ", "import os", "return")
    answers = []
    for fitted in (load_fitted(point, merged=False), load_fitted(point)):
        model = api.Model(fitted)
        answers.append([model.complete(p, max_tokens=24, temperature=0.0) for p in prompts])
    assert answers[0] == answers[1]


@pytest.mark.parametrize(("kind", "form"), [("decoder", "hub"), ("encoder", "torch-export")])
def test_exported_answers_alike(runs, kind, form, tmp_path):
    proof = export(runs(kind), tmp_path / "out", lambda _: None, to=form)
    assert proof.outputs and proof.largest <= proof.tolerance


def test_an_adapter_alone_says_how_its_base_was_held(runs, tmp_path):
    """Its check merges it into the stored base, which is rounded first."""
    proof = export(runs("decoder"), tmp_path / "out", lambda _: None, to="peft")
    assert proof.outputs and proof.largest <= proof.tolerance
    weights = (tmp_path / "out" / "adapter_model.safetensors").read_bytes()
    assert b'"base_quantized":"nf4"' in weights[:4000]


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
    again = checkpoint.load(newest_checkpoint(api.tune(recipe, out=out), "tune"))
    assert again.step == undisturbed.step
    for group, tensors in undisturbed.tensors.items():
        assert again.tensors[group].keys() == tensors.keys()
        assert all(torch.equal(again.tensors[group][n], t) for n, t in tensors.items()), group


def test_an_unknown_kind_is_refused_with_the_nearest(tmp_path):
    made = recipe_of("decoder", tmp_path)
    made["tune"]["adapter"] = {"quantize": "nf5"}
    with pytest.raises(ModelwrightError, match=r"quantize.*did you mean 'nf4'"):
        api.train(made, out=tmp_path / "run")
