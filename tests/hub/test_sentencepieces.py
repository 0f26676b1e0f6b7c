"""A lone sentencepiece model gives the ids of sentencepiece itself, and of transformers."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports transformers

from modelwright.errors import CorruptError, ModelwrightError
from modelwright.hub.files import Published
from modelwright.hub.sentencepieces import converted, read_model
from modelwright.hub.tokenizer import read_codec

pieces = pytest.importorskip("sentencepiece")

ODD = (
    *("", " ", "  two  spaces ", " lead", "tab\there", "line\nline\n\nend\n", "e\u0301 ﬁ ½ ①"),
    *("\u3000全角\u3000空格", "😀 龘龘 x", "\u2581", "1234567890", "a\u200bb"),
)
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "T5Tokenizer": (
        "spiece",
        {
            **{"model_type": "unigram", "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
            "vocab_size": 1800,
        },
    ),
    "LlamaTokenizer": (
        "tokenizer",
        {
            **{"model_type": "bpe", "byte_fallback": True, "split_digits": True},
            **{"normalization_rule_name": "identity", "remove_extra_whitespaces": False},
            "vocab_size": 2000,
        },
    ),
    "GemmaTokenizer": (
        "tokenizer",
        {
            **{"model_type": "bpe", "byte_fallback": True, "add_dummy_prefix": False},
            **{"normalization_rule_name": "identity", "remove_extra_whitespaces": False},
            **{"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "bos_piece": "<bos>"},
            **{"eos_piece": "<eos>", "user_defined_symbols": ["\n\n", "<start_of_turn>"]},
            "vocab_size": 2000,
        },
    ),
}


@pytest.fixture(scope="module")
def texts(data: Callable[[str], Path]) -> list[str]:
    """Real English and Chinese."""
    with gzip.open(data("chnsenticorp") / "ChnSentiCorp_htl_all.csv.gz", "rt") as stream:
        chinese = [row["review"] for row in islice(csv.DictReader(stream), 150)]
    english = (data("tinyshakespeare") / "input.txt").read_text().split("\n\n")[:300]
    return [*english, *chinese]


@pytest.fixture(scope="module", params=KINDS)
def trained(
    request: pytest.FixtureRequest, texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """The class, and the model that sentencepiece has trained for it."""
    name, options = KINDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    lines = folder / "lines.txt"
    lines.write_text("\n".join(t.replace("\n", " ") for t in texts), encoding="utf-8")
    pieces.SentencePieceTrainer.train(
        input=str(lines),
        model_prefix=str(folder / name),
        minloglevel=2,
        num_threads=1,
        character_coverage=0.985,
        **options,
    )
    return request.param, folder / f"{name}.model"


def test_ids_are_those_of_sentencepiece(trained: tuple[str, Path], texts: list[str]) -> None:
    kind, path = trained
    theirs = pieces.SentencePieceProcessor(model_file=str(path))
    ours = converted(path, {"tokenizer_class": kind}, "")
    for text in (*texts, *ODD):
        assert ours.encode(text, add_special_tokens=False).ids == theirs.encode(text), text[:60]
    assert [ours.id_to_token(i) for i in range(theirs.get_piece_size())] == [
        theirs.id_to_piece(i) for i in range(theirs.get_piece_size())
    ]


def test_ids_are_those_of_transformers(trained: tuple[str, Path], texts: list[str]) -> None:
    transformers = pytest.importorskip("transformers")
    kind, path = trained
    config = {"tokenizer_class": kind, "add_bos_token": kind != "T5Tokenizer"}
    (path.parent / "tokenizer_config.json").write_text(json.dumps(config))
    theirs = getattr(transformers, kind).from_pretrained(path.parent)
    ours = converted(path, config, "")
    for text in texts:
        assert ours.encode(text).ids == theirs(text)["input_ids"], text[:60]
    assert len(theirs) - (kind == "GemmaTokenizer") == ours.get_vocab_size()  # it adds <mask>


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), max_size=30))
def test_ids_are_those_of_sentencepiece_on_any_text(trained: tuple[str, Path], text: str) -> None:
    kind, path = trained
    theirs = pieces.SentencePieceProcessor(model_file=str(path))
    ours = converted(path, {"tokenizer_class": kind}, "")
    assert ours.encode(text, add_special_tokens=False).ids == theirs.encode(text)


def test_it_is_the_codec_of_a_checkpoint(trained: tuple[str, Path], texts: list[str]) -> None:
    kind, path = trained
    model_type = {"T5Tokenizer": "t5", "LlamaTokenizer": "llama", "GemmaTokenizer": "gemma"}[kind]
    (path.parent / "tokenizer_config.json").unlink(missing_ok=True)
    published = Published(str(path.parent), path.parent, None, {"model_type": model_type}, {})
    codec = read_codec(published, 3000)
    theirs = pieces.SentencePieceProcessor(model_file=str(path))
    assert codec.end == theirs.eos_id()
    assert codec.before == ([] if kind == "T5Tokenizer" else [theirs.bos_id()])
    if kind == "T5Tokenizer":
        assert codec.tokenizer.token_to_id("<extra_id_0>") == theirs.get_piece_size() + 99
    for text in texts[:20]:
        assert codec.tokens(text) == theirs.encode(text)
    control = {codec.end, *codec.before, codec.tokenizer.token_to_id("<extra_id_0>")}
    assert not control & set(codec.tokens("<s> a </s> <eos><bos> <extra_id_0> <pad>"))
    again = type(codec).load(codec.save())
    assert again.tokens(texts[0]) == codec.tokens(texts[0])


def test_what_is_not_converted_is_said(trained: tuple[str, Path], tmp_path: Path) -> None:
    kind, path = trained
    with pytest.raises(ModelwrightError, match="of a XLMRobertaTokenizer, which is not converted"):
        converted(path, {"tokenizer_class": "XLMRobertaTokenizerFast"}, "xlm-roberta")
    content = path.read_bytes()
    for broken in (content[:-5], b"x", b"", b"\x0a\x05ab", b"\xff" * 40):
        bad = tmp_path / "tokenizer.model"
        bad.write_bytes(broken)
        with pytest.raises(CorruptError, match=r"tokenizer\.model: no whole sentencepiece model"):
            read_model(bad)
        with pytest.raises(CorruptError, match="get the file again"):
            converted(bad, {"tokenizer_class": kind}, "")
