"""What leaves is what was trained: files that transformers reads, and a planted error is caught."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

from modelwright import api, cli
from modelwright.errors import ModelwrightError
from modelwright.export_commands import size
from modelwright.exporting import hub
from modelwright.exporting.subject import Options
from modelwright.hub import writing
from modelwright.hub.card import Card, Source, render
from modelwright.hub.families import families, writer_of
from modelwright.hub.files import find
from modelwright.hub.loading import load
from modelwright.models.mlp import Config as MLPConfig
from modelwright.pipeline import export
from tests.hub import small

EPSILON = 1e-4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny published GPT-2, tuned for two steps, measured."""
    folder = tmp_path_factory.mktemp("export")
    small.gpt2(folder / "gpt2")
    rows = [
        {"id": f"o{i}", "kind": "object", "full_name": f"m.f{i}", "signature": f"f{i}(a, b={i})",
         "docstring": f"Return the {i}th of some values, or fail."}
        for i in range(40)
    ]  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    recipe = {
        "name": "tiny",
        "data": {"source": str(folder / "rows.jsonl"), "split": {"by": "row", "test": 0.3}},
        "model": str(folder / "gpt2"),
        "tune": {"task": "docstrings", "steps": 2, "batch": 4, "threads": 1, "compile": False,
                 "precision": "float32"},
        "evaluate": {"questions": 2, "answer_tokens": 4},
    }  # fmt: skip
    return api.run(recipe, out=folder / "run")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "tiny"
    assert cli.main(["export", str(run.path), str(out), "--to", "hub", "--license", "mit"]) == 0
    return out


def test_transformers_answers_the_same(run, exported):
    import transformers

    theirs = transformers.AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    ours = api.load(run)
    question = "What does `m.f3` do?"
    tokens = ours.answerer.engine.prompt(ours.fitted.task.question(question))
    assert tokenizer.encode(f"User: {question}\nAssistant:") == tokens
    ids = torch.tensor([tokens])
    with torch.no_grad():
        one, other = ours.fitted.model.cpu()(ids), theirs(ids).logits
        assert (one - other).abs().max() < EPSILON
        greedy = theirs.generate(
            ids, max_new_tokens=64, do_sample=False, attention_mask=torch.ones_like(ids)
        )[0, len(tokens) :].tolist()
    ends = [i for i, t in enumerate(greedy) if t == tokenizer.eos_token_id]
    greedy = greedy[: ends[0]] if ends else greedy
    assert ours(question, max_tokens=64) == ours.fitted.codec.text(greedy)


def test_what_is_written(exported, run):
    names = {p.name for p in exported.iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "README.md",
                     "tokenizer_config.json", "generation_config.json"}  # fmt: skip
    assert not exported.with_name("tiny.part").exists()
    loaded = load(find(str(exported)))
    for name, tensor in api.load(run).fitted.model.state_dict().items():
        assert tensor.cpu().equal(loaded.model.state_dict()[name])


def test_the_card(exported):
    text = (exported / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "mit" and front["library_name"] == "transformers"
    for part in ("## Data", "## Training", "## Evaluation", "## Limits", "## Cost", "## Files"):
        assert part in text
    assert "nearest training answer" in text and "40 rows" in text and "licence" in text
    assert str(exported.parent.parent) not in text  # a path of this machine is nobody's business


def test_a_folder_that_is_there(run, exported, capsys):
    assert cli.main(["export", str(run.path), str(exported), "--to", "hub"]) == 2
    assert "give a folder that is not there yet" in capsys.readouterr().err


def transposed(tensors):
    name = next(n for n in tensors if n.endswith("h.0.attn.c_proj.weight"))
    tensors[name] = tensors[name].t().contiguous()


def exchanged(tensors):
    one, other = (
        next(n for n in tensors if n.endswith(f"h.1.{x}.weight")) for x in ("ln_1", "ln_2")
    )
    tensors[one], tensors[other] = tensors[other] + 1, tensors[one]


def rounded(tensors):
    for name in list(tensors):
        tensors[name] = tensors[name].to(torch.bfloat16).float()


@pytest.mark.parametrize(
    ("plant", "where"),
    [(transposed, "blocks.0.attention"), (exchanged, "blocks.1."), (rounded, "embedding")],
)
def test_a_planted_error_is_caught(run, tmp_path, monkeypatch, plant, where):
    real = writing.save_file

    def wrong(tensors, path, metadata):
        plant(tensors)
        real(tensors, path, metadata)

    monkeypatch.setattr(writing, "save_file", wrong)
    with pytest.raises(
        ModelwrightError, match="answers differently: sample 1 of tune/test"
    ) as error:
        export.export(run, tmp_path / "out", lambda _: None, to="hub")
    assert where in str(error.value) and "nothing was exported" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_tensor_under_a_wrong_name_is_caught(run, tmp_path, monkeypatch):
    real = writing.save_file

    def wrong(tensors, path, metadata):
        real({k.replace("mlp.c_fc", "mlp.fc"): t for k, t in tensors.items()}, path, metadata)

    monkeypatch.setattr(writing, "save_file", wrong)
    with pytest.raises(ModelwrightError, match=r"mlp\.c_fc"):
        export.export(run, tmp_path / "out", lambda _: None, to="hub")
    assert not list(tmp_path.iterdir())


def test_another_tokenizer_is_caught(run, tmp_path, monkeypatch):
    real = hub.files_of

    def lower(codec, context):
        files = real(codec, context)
        document = json.loads(files["tokenizer.json"])
        document["normalizer"] = {"type": "Lowercase"}
        return {**files, "tokenizer.json": json.dumps(document).encode()}

    monkeypatch.setattr(hub, "files_of", lower)
    with pytest.raises(ModelwrightError, match="tokenizer differs: example 1 of tune/test: token"):
        export.export(run, tmp_path / "out", lambda _: None, to="hub")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_and_shards(run, tmp_path, dtype):
    import transformers

    out = tmp_path / "out"
    proof = export.export(
        run, out, lambda _: None, to="hub", options=Options(dtype, shard_bytes=40_000)
    )
    assert 0 < proof.largest <= proof.tolerance
    shards = sorted(out.glob("*.safetensors"))
    assert len(shards) > 1
    index = json.loads((out / "model.safetensors.index.json").read_text())
    stored = {name: t for shard in shards for name, t in load_file(shard).items()}
    assert {n: t.dtype for n, t in stored.items()} == dict.fromkeys(index["weight_map"], dtype)
    assert index["metadata"]["total_size"] == sum(t.numel() * 2 for t in stored.values())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert theirs.dtype == dtype


def test_a_model_from_nothing_goes_out_and_comes_back(tmp_path):
    """Our own decoder, trained here with a tokenizer of its own, begins another training."""
    rows = "".join(
        json.dumps({"id": f"{i}", "text": f"row {i} of text. " * 9}) + "\n" for i in range(30)
    )
    (tmp_path / "rows.jsonl").write_text(rows)
    stage = {"task": "documents", "steps": 2, "batch": 2, "threads": 1, "compile": False,
             "precision": "float32"}  # fmt: skip
    recipe = {
        "name": "own",
        "data": {"source": str(tmp_path / "rows.jsonl"), "split": {"by": "row"}},
        "codec": {"vocabulary": 300},
        "model": {"depth": 2, "width": 32, "heads": 2, "kv_heads": 1, "context": 32},
        "train": stage,
    }
    run = api.train(recipe, out=tmp_path / "run")
    export.export(run, tmp_path / "out", lambda _: None, to="hub")
    second = {**recipe, "codec": {}, "model": {"from": str(tmp_path / "out")}}
    again = api.train(second, out=tmp_path / "again")
    assert again.manifest["published"]["model_type"] == "modelwright-decoder"


def test_families_and_sizes():
    with pytest.raises(ModelwrightError, match="no published layout for a mlp"):
        writer_of(MLPConfig(**MLPConfig.specimen))
    assert "decoder" in families()
    assert size("40KB") == 40_000 and size("5GB") == 5 * 10**9
    with pytest.raises(ModelwrightError, match="write it like"):
        size("many")


def test_a_card_says_what_is_unknown():
    text = render(Card("x", ["a model"], sources=[Source("mine.csv")]))
    assert (
        "licence: not recorded" in text and "Not measured." in text and "license: unknown" in text
    )
