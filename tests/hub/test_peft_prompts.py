"""Learned prompts in PEFT's format: their library computes the same, and theirs is read here."""

from __future__ import annotations

import json

import pytest
import torch

from modelwright import api
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.hub.files import find
from modelwright.hub.loading import config_of, load
from modelwright.hub.peft_files import CONFIG, merge_adapter
from modelwright.pipeline.export import export
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from tests.hub import small

STAGE = {"steps": 4, "batch": 2, "threads": 1, "compile": False, "precision": "float32"}
KINDS = {"prompt": {"prompt": 6}, "prefix": {"prefix": 6}}
TOKENS = torch.randint(0, small.VOCABULARY, (2, 30), generator=torch.Generator().manual_seed(1))
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")  # of their library


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peft-prompts")
    small.gpt2(folder / "gpt2")
    small.gpt2(folder / "other", seed=5)
    rows = [{"id": f"{i}", "text": f"row {i} of some text. " * 9} for i in range(30)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def base(place):
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(place / "gpt2").eval()


def ours(place, folder, source="gpt2"):
    published = find(str(place / source))
    family, config = config_of(published)
    model = load(published, dtype=torch.float32).model
    merge_adapter(folder, model, family.layout(config))
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_their_library_computes_the_same(place, kind):
    made = {
        "name": kind,
        "data": {"source": str(place / "rows.jsonl"), "split": {"by": "row"}},
        "model": str(place / "gpt2"),
        "tune": {**STAGE, "task": "documents", "learning_rate": 0.5, "adapter": KINDS[kind]},
    }
    run = api.tune(made, out=place / "runs" / kind)
    export(run, place / kind, lambda _: None, to="peft")
    live = load_fitted(newest_checkpoint(run)).model.cpu()
    with torch.no_grad():
        mine = live(TOKENS)
        theirs = peft.PeftModel.from_pretrained(base(place), place / kind).eval()
        other = theirs(input_ids=TOKENS, use_cache=True).logits[:, -TOKENS.shape[1] :]
        plain = base(place)(TOKENS).logits
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
    assert float((mine - plain).abs().max()) > 1e-2
    with pytest.raises(ModelwrightError, match="trained on another base"):
        ours(place, place / kind, "other")


@pytest.mark.parametrize("kind", KINDS)
def test_theirs_is_read_here(place, tmp_path, kind):
    settings = {"num_virtual_tokens": 4, "task_type": "CAUSAL_LM"}
    chosen = {"prompt": peft.PromptTuningConfig, "prefix": peft.PrefixTuningConfig}[kind]
    torch.manual_seed(2)
    theirs = peft.get_peft_model(base(place), chosen(**settings)).eval()
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        mine = ours(place, tmp_path)(TOKENS)
        other = theirs(input_ids=TOKENS, use_cache=True).logits[:, -TOKENS.shape[1] :]
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
    said = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps({**said, "prefix_projection": True}))
    with pytest.raises(ModelwrightError, match="prefix_projection is not supported"):
        ours(place, tmp_path)
    wrong = {"prompt": "PREFIX_TUNING", "prefix": "PROMPT_TUNING"}[kind]
    (tmp_path / CONFIG).write_text(json.dumps({**said, "peft_type": wrong}))
    with pytest.raises(CorruptError, match="of another size"):
        ours(place, tmp_path)
