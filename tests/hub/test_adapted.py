"""Models of ``transformers`` that no family here holds: the same logits, tuned, asked, exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from modelwright import api, cli
from modelwright.errors import ModelwrightError
from modelwright.exporting.subject import Options
from modelwright.models.adapted import Config, config_for
from modelwright.pipeline.export import export
from tests.hub import small

transformers = pytest.importorskip("transformers")


def saved(folder: Path, kind: str, vocabulary: int, **fields: Any) -> Path:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        kind,
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        **fields,
    )
    auto = transformers.AutoModelForCausalLM
    if kind == "electra":
        auto = transformers.AutoModelForSequenceClassification
    small.quietly(auto.from_config(config).save_pretrained, folder)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=small.bpe(small.own_text()), eos_token=small.END, bos_token=small.END
    )
    fast.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["gpt_neox", "phi", "olmo"])
def test_packed_padded_and_cached_agree(tmp_path: Path, kind: str) -> None:
    folder = saved(tmp_path / kind, kind, 300)
    config = config_for(json.loads((folder / "config.json").read_text()))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    model = config.build().eval()
    model.inner.load_state_dict(theirs.state_dict())  # type: ignore[union-attr]
    tokens = torch.randint(300, (1, 12), generator=torch.Generator().manual_seed(1))
    starts = torch.tensor([0, 5, 12])
    with torch.inference_mode():
        whole = model(tokens, starts=starts)[0]
        alone = [theirs(tokens[:, a:b]).logits[0] for a, b in ((0, 5), (5, 12))]
        torch.testing.assert_close(whole, torch.cat(alone), atol=1e-5, rtol=1e-5)
        cache = model.new_cache(2, 16)  # type: ignore[operator]
        rows = torch.zeros(2, 7, dtype=torch.long)
        rows[0, :5], rows[1] = tokens[0, :5], tokens[0, 5:]
        first = model(rows, cache=cache, counts=torch.tensor([5, 7]))
        torch.testing.assert_close(first[0, :5], alone[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(first[1], alone[1], atol=1e-5, rtol=1e-5)
        more = model(torch.tensor([[3], [4]]), cache=cache)
        again = theirs(torch.cat((tokens[:, :5], torch.tensor([[3]])), 1)).logits[0, -1]
        torch.testing.assert_close(more[0, 0], again, atol=1e-5, rtol=1e-5)


def recipe_for(tmp_path: Path, folder: Path) -> dict[str, Any]:
    rows = "".join(
        json.dumps({"id": f"{i}", "text": f"row {i} of a text. " * 4}) + "\n" for i in range(40)
    )
    (tmp_path / "rows.jsonl").write_text(rows)
    return {
        "name": "adapted",
        "data": {"source": str(tmp_path / "rows.jsonl"), "split": {"by": "row"}},
        "model": {"from": str(folder), "through": "transformers"},
        "train": {
            "task": "documents",
            "steps": 3,
            "batch": 2,
            "threads": 1,
            "compile": False,
            "precision": "float32",
        },
    }


def test_tuned_asked_and_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved(tmp_path / "neox", "gpt_neox", small.VOCABULARY)
    recipe = recipe_for(tmp_path, folder)
    run = api.train(recipe, out=tmp_path / "run")
    assert run.manifest["published"]["model_type"] == "adapted"
    code = cli.main(["ask", str(run.path), "row 1", "--max-tokens", "5"])
    assert code == 0 and capsys.readouterr().out.strip()
    export(run, tmp_path / "out", lambda _: None, to="hub", options=Options())
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert type(again).__name__ == "GPTNeoXForCausalLM"


def test_an_encoder_with_a_new_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved(tmp_path / "electra", "electra", small.VOCABULARY, embedding_size=32)
    rows = [
        {"id": str(i), "text": f"a text, number {i}", "label": ("even", "odd", "third")[i % 3]}
        for i in range(60)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    recipe = recipe_for(tmp_path, folder)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    recipe["model"]["head"] = "new"
    recipe["train"] = {**recipe["train"], "task": "text_classification"}
    run = api.train(recipe, out=tmp_path / "run")
    assert cli.main(["ask", str(run.path), "a text"]) == 0
    assert capsys.readouterr().out.split()[0] in ("even", "odd", "third")
    export(run, tmp_path / "out", lambda _: None, to="hub", options=Options())
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert again.config.num_labels == 3


def test_without_the_word_it_is_refused_and_the_word_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path / "neox", "gpt_neox", small.VOCABULARY)
    recipe = recipe_for(tmp_path, folder)
    del recipe["model"]["through"]
    with pytest.raises(ModelwrightError, match="through: transformers"):
        api.train(recipe, out=tmp_path / "run")


def test_code_of_its_own_is_never_run() -> None:
    config = {"model_type": "gpt_neox", "vocab_size": 10, "auto_map": {"AutoModel": "x.Y"}}
    with pytest.raises(ModelwrightError, match="auto_map"):
        Config(architecture=json.dumps(config), vocabulary=10).build()
    unknown = {"model_type": "nobody", "vocab_size": 10}
    with pytest.raises(ModelwrightError, match="knows no model_type 'nobody'; install"):
        Config(architecture=json.dumps(unknown), vocabulary=10).build()
