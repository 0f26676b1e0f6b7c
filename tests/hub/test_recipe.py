"""A recipe begins with published weights: in one line, pinned, and resumed exactly."""

from __future__ import annotations

import json

import pytest
import torch

from modelwright import api, checkpoint, recipe
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.hub.files import find
from modelwright.hub.loading import load
from modelwright.pipeline.fit import _Job
from modelwright.pipeline.fitted import newest_checkpoint
from tests.hub import small

STAGE = {"steps": 4, "batch": 2, "threads": 1, "compile": False, "precision": "float32"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    small.gpt2(folder / "gpt2")
    rows = [{"id": f"{i}", "text": f"row {i} of some text. " * 9} for i in range(30)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def made(place, **parts):
    return {
        "name": "begun",
        "data": {"source": str(place / "rows.jsonl"), "split": {"by": "row"}},
        "model": str(place / "gpt2"),
        "train": {"task": "documents", **STAGE},
        **parts,
    }


def weights(run, stage):
    found = checkpoint.load(newest_checkpoint(run, stage), groups=["model"])
    return found.tensors["model"]


def test_ways_to_write_it(place):
    for value in (
        "hub:me/tiny",
        {"from": "hub:me/tiny@v1"},
        "./gpt2",
        {"from": "/a/b", "head": "new"},
    ):
        read = recipe.parse(made(place, model=value))
        assert read.published == (value if isinstance(value, str) else value["from"])
    only = {k: v for k, v in made(place).items() if k != "train"}
    tuned = recipe.parse({**only, "tune": {"task": "documents", **STAGE}})
    assert list(tuned.stages) == ["tune"] and tuned.first is tuned.tune


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("gpt2", "'gpt2' is no published checkpoint.*hub:OWNER/NAME"),
        ({"from": "hub:a/b", "parameters": "5M"}, "model.parameters: hub:a/b decides it"),
        ({"from": "hub:a/b", "family": "decoder"}, "model.family: hub:a/b decides it"),
    ],
)
def test_what_is_refused(place, model, why):
    with pytest.raises(ModelwrightError, match=why):
        recipe.parse(made(place, model=model))


def test_a_recipe_without_train_needs_weights(place):
    only = {k: v for k, v in made(place, model={}).items() if k != "train"}
    with pytest.raises(ModelwrightError, match="train: is missing"):
        recipe.parse({**only, "tune": {"task": "documents"}})


def test_an_unknown_field_of_the_checkpoint(place, tmp_path):
    values = made(place, model={"from": str(place / "gpt2"), "dropuot": 0.1})
    with pytest.raises(
        ModelwrightError, match="dropuot: not a field of gpt2.*did you mean 'dropout'"
    ):
        api.train(values, out=tmp_path / "run")


def test_training_begins_with_the_published_weights(place, tmp_path):
    """With a rate of nearly nothing, what was trained is what was published."""
    stage = {"task": "documents", **STAGE, "steps": 1, "learning_rate": 1e-30, "optimizer": "sgd"}
    run = api.train(made(place, train=stage), out=tmp_path / "run")
    published = load(find(str(place / "gpt2"))).model.state_dict()
    for name, tensor in weights(run, "train").items():
        assert torch.allclose(tensor, published[name], rtol=0, atol=1e-25), name
    record = run.manifest["published"]
    assert record["model_type"] == "gpt2" and len(record["files"]["model.safetensors"]) == 64
    shown = run.read_json("resolved.json")
    assert shown["recipe"]["model"]["width"] == 32
    assert shown["reasons"]["model.width"] == f"of {place / 'gpt2'}"


def test_train_then_tune_answers_and_is_measured(place, tmp_path):
    values = made(
        place,
        tune={"task": "documents", **STAGE},
        evaluate={"questions": 2, "answer_tokens": 4},
    )
    run = api.run(values, out=tmp_path / "run")
    assert [m["name"] for m in run.read_json("evaluation.json")["measures"]]
    assert isinstance(api.load(run).complete("row", max_tokens=3), str)
    assert api.load(run).fitted.codec.tokenizer.id_to_token(0) == small.END
    resolved = run.stage("train")["resolved"]
    assert resolved["optimizer"] == "adamw" and resolved["learning_rate"] == 5e-5


def test_an_interrupted_training_ends_as_one_that_was_not(place, tmp_path, monkeypatch):
    """Law 1: killed after the second step, or before the first checkpoint, and gone on with."""
    stage = {"task": "documents", **STAGE, "save_every": 2, "learning_rate": 1e-2}
    whole = weights(api.train(made(place, train=stage), out=tmp_path / "whole"), "train")
    for name, stop in (("late", 2), ("early", 0)):
        real = _Job._save

        def save(job, trainer, step, totals, *, real=real, stop=stop):
            if step > stop:
                raise KeyboardInterrupt
            real(job, trainer, step, totals)

        with monkeypatch.context() as patch:
            patch.setattr(_Job, "_save", save)
            with pytest.raises(BaseException, match="continue with"):
                api.train(made(place, train=stage), out=tmp_path / name)
        again = weights(api.train(tmp_path / name), "train")
        assert all(tensor.equal(whole[key]) for key, tensor in again.items()), name


def test_other_weights_in_the_same_place_are_noticed(place, tmp_path):
    folder = tmp_path / "gpt2"
    small.gpt2(folder)
    values = made(place, model=str(folder))
    first = weights(api.train(values, out=tmp_path / "run"), "train")
    small.edit_weights(folder, lambda t: t.update({k: v + 0.1 for k, v in t.items()}))
    second = weights(api.train(tmp_path / "run"), "train")
    assert not all(tensor.equal(first[k]) for k, tensor in second.items())
    assert (tmp_path / "run" / "checkpoints" / "train-before-1").is_dir()


def test_weights_that_are_damaged_afterwards(place, tmp_path):
    folder = tmp_path / "gpt2"
    small.gpt2(folder)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1])
    with pytest.raises(CorruptError, match="is cut short"):
        api.train(made(place, model=str(folder)), out=tmp_path / "run")


def test_a_corpus_of_other_tokens_is_read_as_rows(place):
    from modelwright.pipeline.corpora import tokens_of

    assert tokens_of(recipe.parse(made(place))) is None


def test_a_classifier_of_a_language_model_needs_a_new_head(place, tmp_path):
    """BERT for masked words, tuned to labels: refused with the option, and trained with it."""
    import transformers
    from tokenizers.implementations import BertWordPieceTokenizer

    folder = tmp_path / "bert"
    words = BertWordPieceTokenizer()
    words.train_from_iterator(small.own_text(), vocab_size=300, show_progress=False)
    transformers.BertTokenizer(vocab=words.get_vocab()).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    small.quietly(transformers.BertForMaskedLM(config).save_pretrained, folder)
    rows = [{"id": f"{i}", "text": f"good film {i}" if i % 2 else f"bad film {i}",
             "label": "pos" if i % 2 else "neg"} for i in range(40)]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    values = {
        "name": "labels",
        "data": {"source": str(tmp_path / "rows.jsonl"), "split": {"by": "row"}},
        "codec": {"longest": 32},
        "model": str(folder),
        "tune": {"task": "text_classification", **STAGE},
        "evaluate": {"baselines": False},
    }
    with pytest.raises(ModelwrightError, match="head: new"):
        api.tune(values, out=tmp_path / "refused")
    run = api.run({**values, "model": {"from": str(folder), "head": "new"}}, out=tmp_path / "run")
    kept = load(find(str(folder))).model.state_dict()["embedding.weight"]
    assert (weights(run, "tune")["embedding.weight"] - kept).abs().max() < 1e-2
    assert sorted(api.load(run).probabilities("a good film")) == ["neg", "pos"]
