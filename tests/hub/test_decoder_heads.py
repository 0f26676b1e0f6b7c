"""A head for labels on a published decoder: theirs computes the same, and a recipe tunes it."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from modelwright import api
from modelwright.hub.files import find
from modelwright.hub.loading import load
from modelwright.pipeline.export import export
from tests.exporting import tiny_runs
from tests.hub import small

pytestmark = pytest.mark.filterwarnings("ignore")  # of their library
FIELDS = {
    "vocab_size": small.VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A small published decoder with its tokenizer."""
    folder = tmp_path_factory.mktemp("heads")
    small.gpt2(folder / "gpt2")  # whose tokenizer it takes
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**FIELDS))
    small.quietly(model.save_pretrained, folder / "llama")
    for file in (folder / "gpt2").glob("*token*"):
        (folder / "llama" / file.name).write_bytes(file.read_bytes())
    for name in ("vocab.json", "merges.txt"):
        if (folder / "gpt2" / name).exists():
            (folder / "llama" / name).write_bytes((folder / "gpt2" / name).read_bytes())
    return folder


def test_their_classifier_is_read_and_computes_the_same(tmp_path):
    torch.manual_seed(1)
    config = transformers.LlamaConfig(**FIELDS, num_labels=3, pad_token_id=0)
    theirs = transformers.LlamaForSequenceClassification(config).eval()
    small.quietly(theirs.save_pretrained, tmp_path)
    ours = load(find(str(tmp_path)), dtype=torch.float32).model
    lengths = (5, 9, 1)
    tokens = torch.randint(1, small.VOCABULARY, (sum(lengths),))
    starts = torch.tensor([0, 5, 14, 15])
    with torch.no_grad():
        mine = ours(tokens, starts=starts)
        other = torch.cat([theirs(part[None]).logits for part in tokens.split(lengths)])
    assert mine.shape == (3, 3)
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("adapter", [None, {"rank": 2, "quantize": "nf4"}], ids=["whole", "qlora"])
def test_a_recipe_gives_a_decoder_a_new_head(place, tmp_path, adapter):
    made = tiny_runs.RECIPES["encoder"](tmp_path / "data")
    tune = {**made["train"], "adapter": adapter, "steps": 6}
    recipe = {
        "name": "headed",
        "data": made["data"],
        "model": {"from": str(place / "llama"), "head": "new"},
        "tune": {k: v for k, v in tune.items() if v is not None},
    }
    run = api.tune(recipe, out=tmp_path / "run")
    model = api.load(run)
    assert set(model.probabilities("x = 1")) == {"code", "Prose"}
    proof = export(run, tmp_path / "out", lambda _: None, to="hub")
    assert proof.outputs and proof.largest <= proof.tolerance
    stored = json.loads((tmp_path / "out" / "config.json").read_text())
    assert stored["architectures"] == ["LlamaForSequenceClassification"]
    assert set(stored["id2label"].values()) == {"code", "Prose"}
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    live = model.fitted.model.cpu()
    tokens = torch.randint(1, small.VOCABULARY, (1, 9))
    with torch.no_grad():
        said = theirs.eval()(tokens).logits
        torch.testing.assert_close(live(tokens), said, rtol=1e-4, atol=1e-4)
