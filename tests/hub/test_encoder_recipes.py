"""Published encoders of text are tuned to classify, answer, and are read by transformers again."""

from __future__ import annotations

import json
import lzma
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports transformers

from modelwright import api
from modelwright.errors import ModelwrightError
from modelwright.hub.files import find
from modelwright.hub.loading import load
from modelwright.pipeline.export import export
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from tests.hub import small

transformers = pytest.importorskip("transformers")

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
STAGE = {"steps": 2, "batch": 4, "threads": 1, "compile": False, "precision": "float32"}
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SHAPE |= {"intermediate_size": 48, "max_position_embeddings": 96, "vocab_size": 300}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "BertForPreTraining": ("Bert", SHAPE),
    "BertForMaskedLM": ("Bert", SHAPE),
    "BertModel": ("Bert", SHAPE),
    "RobertaForMaskedLM": ("Roberta", {**SHAPE, "pad_token_id": 0}),
    "DistilBertForMaskedLM": (
        "DistilBert",
        {
            **{"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48},
            **{"max_position_embeddings": 96, "vocab_size": 300},
        },
    ),
}


@pytest.fixture(scope="module")
def reviews(
    data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """Real reviews with their labels, as JSON lines."""
    with lzma.open(data("imdb") / "train.jsonl.xz", "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in islice(stream, 40)]
    texts = [row["text"][:300] for row in rows]
    path = tmp_path_factory.mktemp("reviews") / "rows.jsonl"
    path.write_text(
        "".join(
            json.dumps({"id": str(i), "text": text, "label": ("bad", "good")[i % 2]}) + "\n"
            for i, text in enumerate(texts)
        )
    )
    return path, texts


def published(folder: Path, kind: str, texts: list[str]) -> None:
    """A tiny encoder with a tokenizer of word pieces, saved by transformers."""
    made = Tokenizer(models.WordPiece(unk_token=SPECIAL[1]))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    made.train_from_iterator(texts, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    name, fields = KINDS[kind]
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, f"{name}Config")(**fields))
    small.quietly(model.save_pretrained, folder)
    names = {f"{t[1:-1].lower()}_token": t for t in SPECIAL}
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names).save_pretrained(folder)


def recipe(rows: Path, model: Path, **fields: Any) -> dict[str, Any]:
    return {
        "name": "reviews",
        "data": {"source": str(rows), "split": {"by": "row", "validation": 0.1, "test": 0.2}},
        "codec": {"longest": 64},
        "model": {"from": str(model), "head": "new", **fields},
        "tune": {"task": "text_classification", **STAGE},
        "evaluate": {"baselines": False},
    }


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_with_a_new_head(
    kind: str, reviews: tuple[Path, list[str]], tmp_path: Path
) -> None:
    rows, texts = reviews
    published(tmp_path / "encoder", kind, texts)
    run = api.run(recipe(rows, tmp_path / "encoder"), out=tmp_path / "run")
    names = [measure["name"] for measure in run.read_json("evaluation.json")["measures"]]
    assert names == ["test accuracy", "test calibration error"]
    assert export(run, tmp_path / "out", lambda _: None, to="hub").samples == 4
    model = small.quietly(
        transformers.AutoModelForSequenceClassification.from_pretrained, tmp_path / "out"
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert model.config.id2label == {0: "bad", 1: "good"}
    asked = api.load(run)
    for text in texts[:3]:
        tokens = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        given = {k: tokens[k] for k in ("input_ids", "attention_mask")}
        with torch.no_grad():
            found = model(**given).logits[0].softmax(0)
        theirs = {model.config.id2label[i]: float(p) for i, p in enumerate(found)}
        assert asked.probabilities(text) == pytest.approx(theirs, abs=1e-5)


def test_a_new_head_keeps_the_pooler_that_was_trained(
    reviews: tuple[Path, list[str]], tmp_path: Path
) -> None:
    rows, texts = reviews
    for kind, kept in (("BertForPreTraining", True), ("BertForMaskedLM", False)):
        place = tmp_path / kind
        published(place, kind, texts)
        values = recipe(rows, place)
        values["tune"] |= {"learning_rate": 1e-30, "optimizer": "sgd", "steps": 1}
        run = api.tune(values, out=tmp_path / f"run-{kind}")
        ours = load_fitted(newest_checkpoint(run)).model.state_dict()
        theirs = getattr(transformers, kind).from_pretrained(place).state_dict()
        words = "bert.embeddings.word_embeddings.weight"
        assert torch.equal(ours["embedding.weight"], theirs[words])
        if kept:
            assert torch.equal(ours["transform.weight"], theirs["bert.pooler.dense.weight"])
        assert float(ours["transform.weight"].std()) > 0


def test_the_labels_of_a_kept_head(reviews: tuple[Path, list[str]], tmp_path: Path) -> None:
    """A published classifier goes on with its own numbering; other labels are refused by name."""
    rows, texts = reviews
    place = tmp_path / "classifier"
    published(place, "BertModel", texts)
    for names in (("good", "bad"), ("fine", "bad")):
        named = dict(enumerate(names))
        config = transformers.BertConfig(
            **SHAPE, id2label=named, label2id={n: i for i, n in named.items()}
        )
        model = transformers.BertForSequenceClassification(config)
        small.quietly(model.save_pretrained, place)
        values = recipe(rows, place)
        del values["model"]["head"]
        if names[0] == "fine":
            with pytest.raises(ModelwrightError, match="knows no label 'good'.*head: new"):
                api.tune(values, out=tmp_path / "refused")
            continue
        run = api.tune(values, out=tmp_path / "kept")
        assert load_fitted(newest_checkpoint(run)).codec.labels == list(names)  # type: ignore[attr-defined]


def test_the_rest_of_the_file_must_be_known(
    reviews: tuple[Path, list[str]], tmp_path: Path
) -> None:
    place = tmp_path / "encoder"
    published(place, "BertForPreTraining", reviews[1])
    small.edit_weights(place, lambda t: t.update({"bert.other.weight": torch.zeros(2)}))
    with pytest.raises(ModelwrightError, match=r"bert\.other\.weight is in the file and unknown"):
        load(find(str(place)), new_head=True)
