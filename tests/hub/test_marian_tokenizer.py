"""Marian's pair of sentencepiece models gives the ids of transformers, and is written back."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports transformers

from modelwright import api
from modelwright.cli import main
from modelwright.data.codecs import load_codec, marian_text, save_codec, text_pairs
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.hub.files import Published
from modelwright.hub.tokenizer import codec_for, files_of, read_codec
from modelwright.models.bart import Config
from modelwright.types import Example, text_turn

pieces = pytest.importorskip("sentencepiece")
transformers = pytest.importorskip("transformers")

ROWS = 500
MODEL = {"model_type": "marian", "eos_token_id": 0, "decoder_start_token_id": 1}
ODD = (
    *("", " ", "  two  spaces ", "tab\there", "line\nline\n", "e\u0301 ﬁ ½ ①", "\u2581", "\u3000x"),
    *("Größe straße ß", "naïve café", "龘龘 x", "中文 and 😀😀", ">>deu<< hello", ">>xxx<<hello"),
    *(">> no code", "1234567890", "'s – \u201eGenau\u201c", "a\u200bb", "<<>>"),
)


@pytest.fixture(scope="module")
def sides(data: Callable[[str], Path]) -> dict[str, list[str]]:
    """English sources and their German targets."""
    found = {}
    for side, name in (("source", "train.en.gz"), ("target", "train.de.gz")):
        with gzip.open(data("multi30k") / name, "rt", encoding="utf-8") as stream:
            found[side] = [line.strip() for line in itertools.islice(stream, ROWS)]
    return found


@pytest.fixture(scope="module")
def folder(sides: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint's tokenizer as Helsinki-NLP publishes it, of models trained here."""
    made = tmp_path_factory.mktemp("marian")
    joint: dict[str, int] = {"</s>": 0, "<unk>": 1, ">>deu<<": 2}
    for side, lines in sides.items():
        (made / "lines.txt").write_text("\n".join(lines), encoding="utf-8")
        pieces.SentencePieceTrainer.train(
            input=str(made / "lines.txt"),
            model_prefix=str(made / side),
            vocab_size=700,
            character_coverage=0.995,
            minloglevel=2,
            num_threads=1,
        )
        (made / f"{side}.model").rename(made / f"{side}.spm")
        processor = pieces.SentencePieceProcessor(model_file=str(made / f"{side}.spm"))
        names = [processor.id_to_piece(i) for i in range(3, processor.get_piece_size())]
        for name in names[: -len(names) // 20]:  # rare pieces are missing, as in real ones
            joint.setdefault(name, len(joint))
    joint["<pad>"] = len(joint)
    (made / "vocab.json").write_text(json.dumps(joint), encoding="utf-8")
    (made / "tokenizer_config.json").write_text(
        json.dumps({"source_lang": "en", "target_lang": "de", "model_max_length": 512})
    )
    for rest in (*made.glob("*.vocab"), made / "lines.txt"):
        rest.unlink()
    return made


def published(folder: Path) -> Published:
    return Published(str(folder), folder, None, MODEL, {})


def rows(folder: Path) -> int:
    return len(json.loads((folder / "vocab.json").read_text(encoding="utf-8")))


def read(folder: Path) -> Any:
    return read_codec(published(folder), rows(folder))


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of punctuation that it does not use
        return transformers.MarianTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def ours(folder: Path) -> Any:
    return read(folder)


def test_ids_of_both_sides_are_those_of_transformers(
    ours: Any, theirs: Any, sides: dict[str, list[str]]
) -> None:
    unknown = theirs.unk_token_id
    seen = 0
    again: Any = load_codec(save_codec(ours))
    for text in (*sides["source"], *sides["target"], *ODD):
        source = theirs(text).input_ids
        target = theirs(text_target=text).input_ids
        for codec in (ours, again):
            assert [*codec.source_tokens(text), codec.end] == source, text
            assert [*codec.tokens(text), codec.end] == target, text
        seen += unknown in source or unknown in target
    assert seen > 10  # pieces that the vocabulary lacks, and characters that a model does
    assert ours.source_tokens("Ein Mann schläft") != ours.tokens("Ein Mann schläft")


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), max_size=24))
def test_ids_are_those_of_transformers_on_any_text(ours: Any, theirs: Any, text: str) -> None:
    assert [*ours.source_tokens(text), 0] == theirs(text).input_ids
    assert [*ours.tokens(text), 0] == theirs(text_target=text).input_ids


def test_texts_are_read_back_as_transformers_reads_them(
    ours: Any, theirs: Any, sides: dict[str, list[str]]
) -> None:
    for text in sides["target"][:200]:
        ids = ours.tokens(text)
        assert ours.text(ids) == theirs.decode(ids, skip_special_tokens=True)
        if theirs.unk_token_id not in ids:
            single = " ".join(text.split())  # as both models read spaces
            assert ours.text(ids) == single
            assert ours.spell(ids).decode() == f" {single}"


def test_special_tokens_that_are_typed_are_text(ours: Any) -> None:
    for text in ("</s>", "a </s> b", "<pad><unk>", "<s>"):
        assert not {0, ours.tokenizer.token_to_id("<pad>")} & {
            *ours.tokens(text),
            *ours.source_tokens(text),
        }


def test_it_is_the_codec_of_pairs(folder: Path, sides: dict[str, list[str]], theirs: Any) -> None:
    config = Config(
        vocabulary=rows(folder), start=rows(folder) - 1, end=0, padding=rows(folder) - 1
    )
    codec: Any = codec_for(
        published(folder), rows(folder), "text_pairs", [], {"longest": 64}, config=config
    )
    assert isinstance(codec.text, marian_text.Codec)
    source, target = sides["source"][3], sides["target"][3]
    example = Example((text_turn("user", source), text_turn("assistant", target, learn=True)))
    wanted = theirs(source, text_target=target)
    again: Any = load_codec(save_codec(codec))
    for one in (codec, again):
        encoded = one.encode(example)
        assert encoded["source"].tolist() == wanted.input_ids
        assert encoded["tokens"].tolist() == [config.start, *wanted.labels]
        assert one.prompt(example.turns[:1]) == wanted.input_ids
    assert isinstance(text_pairs.Codec.load(codec.save()).text, marian_text.Codec)


def test_it_is_written_back_for_transformers(
    folder: Path, theirs: Any, sides: dict[str, list[str]], tmp_path: Path
) -> None:
    config = Config(
        vocabulary=rows(folder), start=rows(folder) - 1, end=0, padding=rows(folder) - 1
    )
    codec = codec_for(published(folder), rows(folder), "text_pairs", [], {}, config=config)
    files = files_of(codec, 512)
    for name in marian_text.ORIGINALS:
        assert files[name] == (folder / name).read_bytes()
    assert "tokenizer.json" not in files  # transformers would take it for the tokenizer
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "config.json").write_text(json.dumps(MODEL))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert type(again).__name__ == "MarianTokenizer"
    for source, target in zip(sides["source"][:50], sides["target"][:50], strict=True):
        pair = again(source, text_target=target)
        assert pair == theirs(source, text_target=target)
    assert json.loads(files["generation_config.json"])["decoder_start_token_id"] == config.start
    assert read(tmp_path).tokens(sides["target"][0]) == codec.tokens(sides["target"][0])  # type: ignore[attr-defined]


def test_bad_files_are_named(folder: Path, tmp_path: Path) -> None:
    def changed(name: str, content: bytes | None) -> Path:
        place = tmp_path / f"{name}-{content is None}-{len(content or b'')}"
        shutil.copytree(folder, place)
        if content is None:
            (place / name).unlink()
        else:
            (place / name).write_bytes(content)
        return place

    whole = (folder / "target.spm").read_bytes()
    with pytest.raises(ModelwrightError, match=r"target\.spm is missing"):
        read(changed("target.spm", None))
    for broken in (whole[:-5], b"", b"x" * 9):
        with pytest.raises(CorruptError, match=r"target\.spm: no whole sentencepiece model"):
            read(changed("target.spm", broken))
    for words, said in (
        (b'{"<unk>": 1, "<pad>": 2}', "has no </s>"),
        (b'{"</s>": 0, "<unk>": 0, "<pad>": 2}', "an id of its own"),
        (b'{"</s>": "0"}', "an id of its own"),
    ):
        with pytest.raises(CorruptError, match=said):
            read_codec(published(changed("vocab.json", words)), 10)
    with pytest.raises(ModelwrightError, match="share a vocabulary"):
        read_codec(published(changed("target_vocab.json", b"{}")), rows(folder))
    with pytest.raises(ModelwrightError, match="the model only 5 rows"):
        read_codec(published(folder), 5)


def test_a_checkpoint_is_tuned_and_goes_back(
    folder: Path, sides: dict[str, list[str]], tmp_path: Path
) -> None:
    """From Helsinki's files through a training of ours to what transformers answers with."""
    start, size = rows(folder) - 1, 24
    torch.manual_seed(0)
    config = transformers.MarianConfig(
        vocab_size=rows(folder), d_model=size, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=48,
        decoder_ffn_dim=48, max_position_embeddings=64, pad_token_id=start, eos_token_id=0,
        decoder_start_token_id=start, forced_eos_token_id=None, static_position_embeddings=True,
        scale_embedding=True, activation_function="swish",
    )  # fmt: skip
    published_at = tmp_path / "opus"
    transformers.MarianMTModel(config).save_pretrained(published_at)
    for file in folder.iterdir():
        shutil.copy(file, published_at)
    table = tmp_path / "pairs.tsv"
    pairs = zip(sides["source"][:80], sides["target"][:80], strict=True)
    table.write_text("english\tgerman\n" + "".join(f"{a}\t{b}\n" for a, b in pairs))
    recipe = {
        "name": "marian",
        "data": {"source": str(table), "split": {"by": "row"}},
        "model": str(published_at),
        "codec": {"longest": 60},
        "train": {"task": "translation", "steps": 3, "batch": 8, "threads": 1,
                  "precision": "float32", "learning_rate": 1e-3,
                  "options": {"source": "english", "target": "german"}},
        "evaluate": {"answer_tokens": 8},
    }  # fmt: skip
    ours = api.load(api.train(recipe, out=tmp_path / "run"))
    hub = tmp_path / "hub"
    assert main(["export", str(tmp_path / "run"), str(hub), "--to", "hub"]) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = transformers.AutoTokenizer.from_pretrained(hub)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(hub)
    assert type(model).__name__ == "MarianMTModel"
    before = dict(transformers.MarianMTModel.from_pretrained(published_at).named_parameters())
    assert any(not torch.equal(p, before[n]) for n, p in model.named_parameters())
    for question in sides["source"][80:84]:
        said = model.generate(**tokenizer(question, return_tensors="pt"), num_beams=1,
                              max_new_tokens=20)  # fmt: skip
        answer = tokenizer.decode(said[0], skip_special_tokens=True)
        assert answer
        assert ours(question, max_tokens=20) == answer
