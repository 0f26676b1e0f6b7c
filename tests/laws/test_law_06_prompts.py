"""Law 6 of learned prompts: trained = loaded = served = in PEFT, and the base is as it was."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright import api, checkpoint
from modelwright.errors import Interrupted, ModelwrightError
from modelwright.models import lora, prompts
from modelwright.models.lora import Adapter
from modelwright.models.model import config_class
from modelwright.pipeline.export import export
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from modelwright.training.train import Trainer
from tests.exporting import tiny_runs

FAMILIES = ("decoder", "gpt2", "llama", "mixture")
KINDS = ({"prompt": 5}, {"prefix": 5})


def recipe_of(adapter, folder):
    made = tiny_runs.RECIPES["decoder"](folder)
    tune = {k: v for k, v in made["train"].items() if k not in ("optimizer", "learning_rate")}
    tune |= {"adapter": adapter, "learning_rate": 0.05, "accumulate": 2, "save_every": 4}
    return {"name": "prompted", "seed": 1, **made, "tune": tune}


@pytest.fixture(scope="module", params=KINDS, ids=["prompt", "prefix"])
def tuned(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prompted")
    recipe = recipe_of(request.param, folder / "data")
    return api.tune(recipe, out=folder / "run"), recipe, request.param


def model_of(family, adapter):
    cls = config_class(family)
    torch.manual_seed(0)
    model = cls(**cls.specimen).build()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    lora.adapt(model, Adapter(**adapter))
    for name, p in model.named_parameters():
        if name.rpartition(".")[2] in prompts.PARTS:
            torch.nn.init.normal_(p)
    return model.eval()


@pytest.mark.parametrize("adapter", KINDS, ids=["prompt", "prefix"])
@pytest.mark.parametrize("family", FAMILIES)
def test_documents_read_whole_are_those_of_a_cache_in_chunks(family, adapter):
    model = model_of(family, adapter)

    @given(st.lists(st.integers(1, 7), min_size=1, max_size=3), st.integers(1, 6))
    @settings(max_examples=6, deadline=None)
    def law(lengths, chunk):
        tokens = torch.randint(model.config.vocabulary, (1, sum(lengths)))
        starts = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])
        with torch.no_grad():
            whole = model(tokens, starts=starts)
            for a, b in pairwise(starts.tolist()):
                ids = torch.cat([torch.tensor([model.virtual]), tokens[:, a:b]], 1)
                cache = model.new_cache(1, ids.shape[1])
                said = torch.cat([model(part, cache) for part in ids.split(chunk, 1)], 1)
                mine = said[:, len(model.virtual) :]
                torch.testing.assert_close(mine, whole[:, a:b], rtol=1e-3, atol=1e-4)

    law()


@pytest.mark.parametrize("adapter", KINDS, ids=["prompt", "prefix"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_prompt_alone_learns_and_comes_out_again(family, adapter):
    model = model_of(family, adapter)
    names = set(lora.adapter_names(model, []))
    model(torch.randint(model.config.vocabulary, (2, 9))).square().sum().backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()} == names
    fresh = config_class(family)(**config_class(family).specimen).build()
    plain = lora.plain(model)
    assert type(plain) is type(fresh) and set(plain.state_dict()) == set(fresh.state_dict())
    assert [type(m) for m in plain.modules()] == [type(m) for m in fresh.modules()]


def test_a_checkpoint_holds_the_prompt_alone_and_it_matters(tuned):
    run, _, adapter = tuned
    found = checkpoint.load(newest_checkpoint(run, "tune"))
    assert {n.rpartition(".")[2] for n in found.tensors["model"]} <= set(prompts.PARTS)
    live = load_fitted(found.path).model.cpu()
    base = load_fitted(newest_checkpoint(run, "train")).model.cpu()
    tokens = torch.randint(300, (1, 20))
    with torch.no_grad():
        assert float((live(tokens) - base(tokens)).abs().max()) > 1e-3
    assert len(live.virtual) == 5 and load_fitted(found.path).config.context == 48 - 5
    assert all(torch.equal(t.cpu(), live.state_dict()[n]) for n, t in base.state_dict().items())
    assert adapter


def test_served_answers_are_those_of_reading_all_anew(tuned):
    run, _, _ = tuned
    model = api.load(run)
    live, codec = model.fitted.model.cpu(), model.fitted.codec
    told = model.complete("import os", max_tokens=8, temperature=0.0)
    engine = model.answerer.engine
    ids = engine.prompt([codec.example(codec.encode(e)).turns[0] for e in examples(codec)])
    tokens = torch.tensor([ids[len(live.virtual) :]])
    with torch.no_grad():
        for _ in range(8):
            tokens = torch.cat([tokens, live(tokens)[:, -1:].argmax(-1)], 1)
    said = codec.spell(tokens[0, len(ids) - len(live.virtual) :].tolist())
    assert said.decode(errors="replace").startswith(told) or told in said.decode(errors="replace")


def examples(codec):
    from modelwright.types import Example, text_turn

    return [Example((text_turn("document", "import os"),))]


def test_exported_to_peft_and_refused_elsewhere(tuned, tmp_path):
    run, _, _ = tuned
    proof = export(run, tmp_path / "peft", lambda _: None, to="peft")
    assert proof.outputs and proof.largest <= proof.tolerance
    with pytest.raises(ModelwrightError, match="export them with --to peft"):
        export(run, tmp_path / "hub", lambda _: None, to="hub")


def test_measured_on_the_test_part(tuned):
    run, _, _ = tuned
    assert api.evaluate(run)["measures"]


def test_stopped_and_continued_is_the_same(tuned, tmp_path, monkeypatch):
    run, recipe, _ = tuned
    undisturbed = checkpoint.load(newest_checkpoint(run, "tune"))
    step, out = Trainer.step, tmp_path / "run"
    api.train(recipe, out=out)

    def stopping(self, number):
        if number == 5:
            raise Interrupted("stopped by the test", 130)
        return step(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stopping)
        with pytest.raises(Interrupted):
            api.tune(recipe, out=out)
    again = checkpoint.load(newest_checkpoint(api.tune(recipe, out=out), "tune"))
    for group, tensors in undisturbed.tensors.items():
        assert all(torch.equal(again.tensors[group][n], t) for n, t in tensors.items()), group


@pytest.mark.parametrize(
    ("adapter", "why"),
    [
        ({"prompt": 4, "prefix": 4}, "give one"),
        ({"prompt": 4, "rank": 8}, "rank is of low-rank matrices"),
        ({"prefix": 30}, "virtual tokens leave too little of a context of 48"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, adapter, why):
    with pytest.raises(ModelwrightError, match=why):
        api.tune(recipe_of(adapter, tmp_path / "data"), out=tmp_path / "run")


def test_models_of_no_text_are_refused():
    cls = config_class("mlp")
    with pytest.raises(ModelwrightError, match="no place for learned prompts"):
        lora.adapt(cls(**cls.specimen).build(), Adapter(prompt=3))
