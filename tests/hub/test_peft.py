"""Adapters in PEFT's format: theirs reads ours, ours reads theirs, another base is refused."""

from __future__ import annotations

import json

import pytest
import torch

from modelwright import api
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.hub.files import find
from modelwright.hub.loading import config_of, load
from modelwright.hub.peft_files import CONFIG, WEIGHTS, merge_adapter, put_adapter
from modelwright.models import routed
from modelwright.pipeline.export import export
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from tests.hub import small

STAGE = {"steps": 4, "batch": 2, "threads": 1, "compile": False, "precision": "float32"}
KINDS = {
    "lora": {"rank": 4},
    "rslora": {"rank": 4, "rslora": True, "targets": ["attention.*"]},
    "dora": {"rank": 2, "dora": True, "alpha": 5},
    "embedding": {"rank": 4, "targets": ["position_embedding", "up"], "trained": ["norm"]},
}
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")  # of their library


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peft")
    small.gpt2(folder / "gpt2")
    small.gpt2(folder / "other", seed=5)
    rows = [{"id": f"{i}", "text": f"row {i} of some text. " * 9} for i in range(30)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


@pytest.fixture(scope="module")
def tuned(place):
    known = {}

    def run_of(kind):
        if kind not in known:
            stage = {**STAGE, "task": "documents", "learning_rate": 0.05, "adapter": KINDS[kind]}
            made = {
                "name": kind,
                "data": {"source": str(place / "rows.jsonl"), "split": {"by": "row"}},
                "model": str(place / "gpt2"),
                "tune": stage,
            }
            run = api.tune(made, out=place / "runs" / kind)
            export(run, place / kind, lambda _: None, to="peft")
            known[kind] = run
        return known[kind]

    return run_of


def theirs(place, folder=None, base="gpt2"):
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(place / base).eval()
    return peft.PeftModel.from_pretrained(model, folder).eval() if folder else model


TOKENS = torch.randint(0, small.VOCABULARY, (2, 40), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_their_library_computes_the_same(place, tuned, kind):
    run = tuned(kind)
    ours = load_fitted(newest_checkpoint(run)).model
    with torch.no_grad():
        mine, other = ours(TOKENS), theirs(place, place / kind)(TOKENS).logits
        base = theirs(place)(TOKENS).logits
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
    assert float((mine - base).abs().max()) > 1e-2
    prompt = TOKENS[:1, :5]
    said = theirs(place, place / kind).generate(
        input_ids=prompt, max_new_tokens=40, do_sample=False, pad_token_id=0
    )
    tokens = prompt
    with torch.no_grad():
        while tokens.shape[1] < said.shape[1]:
            tokens = torch.cat([tokens, ours(tokens)[:, -1:].argmax(-1)], 1)
    assert torch.equal(said, tokens)


def test_embeddings_and_what_is_trained_whole(place, tuned):
    run = tuned("embedding")
    with torch.no_grad():
        mine = load_fitted(newest_checkpoint(run)).model(TOKENS)
        other = theirs(place, place / "embedding")(TOKENS).logits
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dora", [False, True])
def test_theirs_is_read_here(place, tmp_path, dora):
    settings = peft.LoraConfig(
        r=3,
        lora_alpha=7,
        target_modules=["c_attn", "c_fc"],
        rank_pattern={"c_fc": 5},
        alpha_pattern={"c_fc": 2},
        use_dora=dora,
        fan_in_fan_out=True,
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(2)
    model = peft.get_peft_model(theirs(place), settings).eval()
    model.save_pretrained(tmp_path)
    published = find(str(place / "gpt2"))
    family, config = config_of(published)
    ours = load(published, dtype=torch.float32).model
    merge_adapter(tmp_path, ours, family.layout(config))
    with torch.no_grad():
        mine, other = ours(TOKENS), model(TOKENS).logits
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_one_of_several_rows_has_an_adapter_of_theirs(place, tuned, kind):
    """Read from PEFT's folder, beside the base: the row's numbers are those of the merged model."""
    run = tuned(kind)
    merged = load_fitted(newest_checkpoint(run)).model
    published = find(str(place / "gpt2"))
    family, config = config_of(published)
    base = load(published, dtype=torch.float32).model
    adapted = routed.twin(base)
    before = torch.get_rng_state()
    put_adapter(place / kind, adapted, family.layout(config))
    assert torch.equal(before, torch.get_rng_state())

    def logits():  # as an engine asks: rows are told apart where a cache stands behind them
        return base.head(base.hidden(TOKENS, cache=base.new_cache(2, 64)))

    with torch.no_grad():
        plain = logits()
        adapter = routed.route(base, adapted)
        with routed.routed([None, adapter]):
            rows = logits()
        torch.testing.assert_close(rows[0], plain[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(rows[1], merged(TOKENS)[1], rtol=1e-4, atol=1e-4)
        assert float((rows[1] - plain[1]).abs().max()) > 1e-2
        assert torch.equal(logits(), plain)


def test_what_rows_cannot_share_is_refused(place, tuned, tmp_path):
    published, tuned_whole = find(str(place / "gpt2")), place / "embedding"
    tuned("embedding")
    tuned("lora")
    family, config = config_of(published)
    layout, model = family.layout(config), load(published, dtype=torch.float32).model
    with pytest.raises(ModelwrightError, match=r"changes norm.*serve that run by itself"):
        put_adapter(tuned_whole, routed.twin(model), layout)
    said = json.loads((place / "lora" / CONFIG).read_text())
    for name, change, why in (("prompt", {"peft_type": "PROMPT_TUNING"}, "PROMPT_TUNING"),):
        (tmp_path / name).mkdir()
        (tmp_path / name / CONFIG).write_text(json.dumps({**said, **change}))
        (tmp_path / name / WEIGHTS).write_bytes((place / "lora" / WEIGHTS).read_bytes())
        with pytest.raises(ModelwrightError, match=why):
            put_adapter(tmp_path / name, routed.twin(model), layout)
    other = load(find(str(place / "other")), dtype=torch.float32).model
    with pytest.raises(ModelwrightError, match="trained on another base"):
        put_adapter(place / "lora", other, layout)


def test_another_base_is_refused(place, tuned):
    tuned("lora")
    published = find(str(place / "other"))
    family, config = config_of(published)
    other = load(published, dtype=torch.float32).model
    with pytest.raises(ModelwrightError, match="trained on another base"):
        merge_adapter(place / "lora", other, family.layout(config))


def test_what_is_no_adapter_is_refused(place, tuned, tmp_path):
    tuned("lora")
    published = find(str(place / "gpt2"))
    family, config = config_of(published)
    model, layout = load(published, dtype=torch.float32).model, family.layout(config)
    with pytest.raises(ModelwrightError, match="no adapter of PEFT"):
        merge_adapter(tmp_path, model, layout)
    said = json.loads((place / "lora" / CONFIG).read_text())
    (tmp_path / WEIGHTS).write_bytes((place / "lora" / WEIGHTS).read_bytes())
    (tmp_path / CONFIG).write_text(json.dumps({**said, "peft_type": "IA3"}))
    with pytest.raises(ModelwrightError, match="'IA3' is not supported"):
        merge_adapter(tmp_path, model, layout)
    (tmp_path / CONFIG).write_text(json.dumps(said))
    (tmp_path / WEIGHTS).write_bytes((place / "lora" / WEIGHTS).read_bytes()[:-9])
    with pytest.raises(CorruptError, match="damaged"):
        merge_adapter(tmp_path, model, layout)


def test_a_recipe_begins_with_a_published_adapter(place, tuned, tmp_path):
    """The start of the second training is the end of the first, and another base is refused."""
    first = load_fitted(newest_checkpoint(tuned("lora"))).model.state_dict()
    made = {
        "name": "on",
        "data": {"source": str(place / "rows.jsonl"), "split": {"by": "row"}},
        "model": {"from": str(place / "gpt2"), "adapter_from": str(place / "lora")},
        "tune": {**STAGE, "task": "documents", "adapter": {"rank": 2}, "learning_rate": 0.01},
    }
    run = api.tune(made, out=tmp_path / "run")
    live = load_fitted(newest_checkpoint(run), merged=False).model.state_dict()
    assert all(torch.equal(live[n], t) for n, t in first.items())
    wrong = {**made, "model": {**made["model"], "from": str(place / "other")}}
    with pytest.raises(ModelwrightError, match="trained on another base"):
        api.tune(wrong, out=tmp_path / "wrong")
