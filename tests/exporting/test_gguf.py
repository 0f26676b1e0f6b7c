"""GGUF: written, read back, planted errors caught, and answered from by llama.cpp itself.

llama.cpp's programs are looked for on PATH and in MODELWRIGHT_LLAMA_CPP; without them, what only
they can show is skipped.
"""

from __future__ import annotations

import dataclasses
import json
import shlex

import numpy as np
import pytest
import torch

from modelwright import api
from modelwright.data.codecs import text
from modelwright.data.corpus.build import build
from modelwright.data.corpus.spec import read
from modelwright.data.corpus.tokens import corpus_tokenizer
from modelwright.data.tokenizing.fast import pattern_of
from modelwright.data.tokenizing.train import SPLITS
from modelwright.errors import MachineError, ModelwrightError
from modelwright.exporting import format_named, formats
from modelwright.exporting.gguf import files, graphs, tools, vocabulary
from modelwright.exporting.subject import Options
from modelwright.hub.files import find
from modelwright.hub.loading import load
from modelwright.hub.tokenizer import read_codec
from modelwright.models import decoder, llama, mixture, mlp
from modelwright.pipeline.export import export
from tests.data_stage.corpora import make_sources
from tests.exporting import tiny_runs
from tests.exporting.gguf_subjects import (
    CONFIGS,
    LLAMA,
    codec_of,
    pieces_codec,
    real_texts,
    subject_of,
)
from tests.hub import small

gguf = format_named("gguf")
ODD = [
    "",
    " ",
    "\n\n  x",
    "don't DON'T 12345 １２３ x<|end|>y",
    "\u3000中\r\n\t文。 ，",
    "é e\u0301 🙂",
]
NARROW = ("f32", "f16", "bf16", "q8_0")


@pytest.fixture(scope="module")
def texts(data):
    return [*real_texts(data, "en", 40), *real_texts(data, "zh", 40)]


@pytest.fixture(scope="module")
def codec(texts):
    return codec_of(texts)


@pytest.fixture
def alone(monkeypatch):
    """A machine without llama.cpp."""
    monkeypatch.setattr(tools, "tool", lambda name: None)


def llama_cpp(program="llama-server"):
    if tools.tool(program) is None:
        pytest.skip(f"no {program} on PATH or in {tools.PLACE}")


def written(folder, subject, kind="f32"):
    """The file of a model."""
    gguf.write(folder, subject, Options(quantization=kind))
    return folder / f"model-{kind}.gguf"


def rewritten(path, change):
    """The file again, with its settings and tensors as ``change`` leaves them."""
    import gguf as library

    found = files.read(path)
    settings, tensors = dict(found.settings), dict(found.tensors)
    change(settings, tensors)
    path.unlink()
    writer = library.GGUFWriter(path, settings.pop("general.architecture"))
    for name, value in settings.items():
        if not name.startswith("GGUF."):
            files._add(writer, name, value)
    for name, value in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(value.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# Read back ---------------------------------------------------------------------------------------


def test_the_command_line_offers_what_there_is():
    assert "gguf" in formats()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", CONFIGS)
def test_every_graph_is_read_back(name, codec, texts, tmp_path):
    subject = subject_of(CONFIGS[name], codec, [texts[0], texts[-1]])
    written(tmp_path, subject)
    proof = gguf.check(tmp_path, subject, Options())
    assert proof.samples == 2
    assert proof.outputs > 100
    assert proof.largest < 1e-6
    assert "llama.cpp itself was not asked" in proof.remark


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("kind", NARROW)
def test_the_narrower_the_further_and_the_smaller(kind, codec, texts, tmp_path):
    subject = subject_of(CONFIGS["qwen3"], codec, texts[:1])
    path = written(tmp_path, subject, kind)
    proof = gguf.check(tmp_path, subject, Options(quantization=kind))
    assert proof.largest <= files.KINDS[kind].outputs
    matrices = sum(p.numel() for p in subject.model.parameters() if p.ndim > 1)
    bits = {"f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5}[kind]
    assert path.stat().st_size == pytest.approx(matrices * bits / 8, abs=25_000)


@pytest.mark.usefixtures("alone")
def test_the_dtype_says_it_too(codec, texts, tmp_path):
    subject = subject_of(CONFIGS["llama"], codec, texts[:1])
    gguf.write(tmp_path, subject, Options(dtype=torch.float16))
    assert (tmp_path / "model-f16.gguf").is_file()
    with pytest.raises(ModelwrightError, match="--dtype: --quantize q8_0 says it already"):
        gguf.write(tmp_path, subject, Options(dtype=torch.float16, quantization="q8_0"))
    with pytest.raises(ModelwrightError, match="'int4' is none of f32, f16, bf16, q8_0, q4_K_M"):
        gguf.write(tmp_path, subject, Options(quantization="int4"))


# Planted errors ----------------------------------------------------------------------------------


def transposed(settings, tensors):
    tensors["blk.1.attn_output.weight"] = tensors["blk.1.attn_output.weight"].T


def unpaired(settings, tensors):
    """Rows of a head in the order of halves, as our file has them."""
    weight = tensors["blk.0.attn_q.weight"]
    cut = weight.view(LLAMA["heads"], -1, 2, weight.shape[1])
    tensors["blk.0.attn_q.weight"] = cut.transpose(1, 2).reshape(weight.shape)


def swapped(settings, tensors):
    one, other = "blk.0.ffn_up.weight", "blk.0.ffn_gate.weight"
    tensors[one], tensors[other] = tensors[other], tensors[one]


def other_epsilon(settings, tensors):
    settings["llama.attention.layer_norm_rms_epsilon"] = 1e-5


def other_base(settings, tensors):
    settings["llama.rope.freq_base"] = 500_000.0


def lower_case(settings, tensors):
    """Tokens as a tokenizer that lowers its text would have learned them."""
    tokens = settings[vocabulary.TOKENS]
    upper, lower = tokens.index("S"), tokens.index("s")
    tokens[upper], tokens[lower] = "s", "S"


def other_words(settings, tensors):
    settings[vocabulary.PRE] = "qwen2"


def other_end(settings, tensors):
    settings["tokenizer.ggml.eos_token_id"] += 1


def begun(settings, tensors):
    settings["tokenizer.ggml.add_bos_token"] = True


def lost(settings, tensors):
    del tensors["output_norm.weight"]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (transposed, "blk.1.attn_output.weight is not the trained tensor"),
        (unpaired, "blk.0.attn_q.weight is not the trained tensor"),
        (swapped, "blk.0.ffn_(gate|up).weight is not the trained tensor"),
        (other_epsilon, "llama.attention.layer_norm_rms_epsilon is .*1e-06 is meant"),
        (other_base, "llama.rope.freq_base is 500000.0, 10000.0 is meant"),
        (lower_case, "tokenizer.ggml.tokens.* is 's', 'S' is meant"),
        (other_words, "tokenizer.ggml.pre is 'qwen2', 'gpt-2' is meant"),
        (other_end, "tokenizer.ggml.eos_token_id is"),
        (begun, "tokenizer.ggml.add_bos_token is True, False is meant"),
        (lost, "output_norm.weight is missing from the written file"),
    ],
)
def test_planted_errors_are_named(change, message, codec, texts, tmp_path):
    subject = subject_of(CONFIGS["llama"], codec, texts[:1])
    path = written(tmp_path, subject)
    rewritten(path, lambda settings, tensors: None)
    gguf.check(tmp_path, subject, Options())  # writing it again changes nothing
    rewritten(path, change)
    with pytest.raises(ModelwrightError, match=message):
        gguf.check(tmp_path, subject, Options())


@pytest.mark.usefixtures("alone")
def test_a_cut_file_is_no_file(codec, texts, tmp_path):
    subject = subject_of(CONFIGS["llama"], codec, texts[:1])
    path = written(tmp_path, subject)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ModelwrightError, match="cannot be read back as gguf"):
        gguf.check(tmp_path, subject, Options())


def test_what_is_not_finite_or_too_large_is_refused(codec, texts, tmp_path):
    subject = subject_of(CONFIGS["llama"], codec, texts[:1])
    weight = subject.model.state_dict()["blocks.0.attention.out.weight"]
    weight[0, 0] = 1e5
    with pytest.raises(ModelwrightError, match=r"blk.0.attn_output.weight has values too large"):
        written(tmp_path, subject, "f16")
    weight[0, 0] = float("nan")
    with pytest.raises(ModelwrightError, match=r"blk.0.attn_output.weight holds values"):
        written(tmp_path, subject, "bf16")


# What has no graph or no tokenizer ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (decoder.Config(vocabulary=300), r"feed_forward: gated, softcap: 0.0}, with model.family"),
        (
            decoder.Config(vocabulary=300, feed_forward="gated", softcap=0.0, bigrams=64),
            r"model.bigrams 64: .*train with model: {bigrams: 0}",
        ),
        (llama.Config(**LLAMA, windows=(16,)), "model.windows 16: .*nearest, llama, has 0"),
        (llama.Config(**LLAMA, qk_norm=True, softcap=30.0), "model.softcap 30.0: .*qwen3"),
        (
            dataclasses.replace(CONFIGS["gemma3"], windows=(8, 16, 0)),
            r"model.windows \[8, 16\]: .*windows of one width",
        ),
        (
            dataclasses.replace(CONFIGS["gemma2"], query_width=16),
            "model.query_width 16: .*32 in a gemma2 of 2 layers",
        ),
        (
            mixture.Config(**LLAMA, dense_layers=(0,)),
            r"model.dense_layers \(0,\): .*nearest, llama",
        ),
        (mlp.Config(**mlp.Config.specimen), "no graph for a model of the family mlp"),
    ],
)
def test_what_no_graph_has_is_refused_by_name(config, message, codec):
    with pytest.raises(ModelwrightError, match=message):
        tensors = {} if isinstance(config, mlp.Config) else config.build().state_dict()
        graphs.graph_of(gguf.plain(config, tensors)[0])


def test_our_own_words_are_refused_with_the_way_out(texts, tmp_path):
    subject = subject_of(CONFIGS["llama"], codec_of(texts, "own"), texts[:1])
    with pytest.raises(ModelwrightError, match="train with codec.split: gpt2, llama3 or qwen2"):
        gguf.write(tmp_path, subject, Options())


def test_a_tokenizer_that_changes_texts_is_refused(codec):
    from tokenizers import Tokenizer, normalizers

    made = Tokenizer.from_str(codec.tokenizer.to_str())
    made.normalizer = normalizers.Lowercase()
    with pytest.raises(ModelwrightError, match=r"it changes texts \(Lowercase\)"):
        vocabulary.settings_of(text.Codec(made))


@pytest.mark.usefixtures("alone")
def test_without_the_quantiser_it_says_what_to_install(codec, texts, tmp_path):
    subject = subject_of(CONFIGS["llama"], codec, texts[:1])
    with pytest.raises(MachineError, match="needs llama.cpp's llama-quantize on PATH or in"):
        written(tmp_path, subject, "q4_K_M")
    assert not list(tmp_path.iterdir())


def test_tools_are_found_in_the_folder_that_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv(tools.PLACE, str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert tools.tool("llama-server") is None
    (tmp_path / "build" / "bin").mkdir(parents=True)
    made = tmp_path / "build" / "bin" / "llama-server"
    made.write_text("#!/bin/sh\necho broken: error >&2\nexit 3\n")
    assert tools.tool("llama-server") is None  # cannot be executed
    made.chmod(0o755)
    assert tools.tool("llama-server") == made.resolve()


def test_a_server_that_ends_is_told_of(codec, texts, tmp_path, monkeypatch):
    shell = tmp_path / "llama-server"
    shell.write_text("#!/bin/sh\necho error: out of everything >&2\nexit 3\n")
    shell.chmod(0o755)
    monkeypatch.setattr(tools, "tool", lambda name: shell)
    subject = subject_of(CONFIGS["llama"], codec, texts[:1])
    folder = tmp_path / "made"
    folder.mkdir()
    written(folder, subject)
    with pytest.raises(ModelwrightError, match="does not load the file: error: out of everything"):
        gguf.check(folder, subject, Options())


@pytest.mark.parametrize("split", SPLITS)
def test_words_are_cut_as_asked(split, texts):
    codec = codec_of(texts, split)
    document = json.loads(codec.tokenizer.to_str())
    assert pattern_of(document["pre_tokenizer"]) == SPLITS[split]
    for one in texts:
        assert codec.text(codec.tokens(one)) == one
        assert codec.tokens(one) == codec.tokenizer.encode(one).ids
    with pytest.raises(ModelwrightError, match=r"tokenizer.split: no split 'gtp2' \(did you mean"):
        codec_of(texts, "gtp2")


def test_the_tokenizer_of_a_corpus_cuts_as_asked(tmp_path):
    spec = make_sources(tmp_path / "sources", (shlex,))
    asked = spec.read_text().replace("{vocabulary: 400}", "{vocabulary: 400, split: llama3}")
    spec.write_text(asked)
    build(read(spec), tmp_path / "made", say=lambda _: None)
    codec = text.Codec.of_file(corpus_tokenizer(tmp_path / "made"))
    assert vocabulary.settings_of(codec)[vocabulary.PRE] == "smaug-bpe"
    spec.write_text(asked.replace("llama3", "lama3"))
    with pytest.raises(ModelwrightError, match="tokenizer: split: Input should be"):
        read(spec)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("prefix", [True, False])
def test_pieces_and_scores_are_read_back(prefix, texts, tmp_path):
    codec = pieces_codec(texts[:44], prefix=prefix)
    config = dataclasses.replace(CONFIGS["llama"], vocabulary=codec.vocabulary)
    subject = subject_of(config, codec, [texts[0], texts[-1]])
    path = written(tmp_path, subject)
    assert gguf.check(tmp_path, subject, Options()).samples == 2
    tokenizer = vocabulary.tokenizer_of(files.read(path).settings)
    for one in texts:
        assert tokenizer.encode(one, add_special_tokens=False).ids == codec.tokens(one)


def test_merges_that_no_score_can_say_are_refused(texts):
    with pytest.raises(ModelwrightError, match="no merge makes"):
        vocabulary.settings_of(pieces_codec(texts[:44], prefix=True, lost=True))


# llama.cpp ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_llama_cpp_answers_the_same(name, codec, texts, tmp_path):
    llama_cpp()
    subject = subject_of(CONFIGS[name], codec, [texts[0], texts[-1]])
    written(tmp_path, subject)
    proof = gguf.check(tmp_path, subject, Options())
    assert "the same ids of 2 texts" in proof.remark
    same, steps = proof.remark.split(" greedy")[0].split("; ")[1].split(" of ")
    assert same == steps
    assert int(steps) > 64


@pytest.mark.parametrize("kind", [*NARROW[1:], "q4_K_M"])
def test_llama_cpp_reads_every_kind(kind, codec, texts, tmp_path):
    llama_cpp("llama-quantize")
    llama_cpp()
    subject = subject_of(CONFIGS["decoder"], codec, [texts[0], texts[-1]])
    path = written(tmp_path, subject, kind)
    assert list(tmp_path.iterdir()) == [path]
    proof = gguf.check(tmp_path, subject, Options(quantization=kind))
    assert proof.remark.startswith("llama.cpp: the same ids")


@pytest.mark.parametrize("split", ["gpt2", "llama3", "qwen2"])
def test_llama_cpp_cuts_real_text_alike(split, texts, tmp_path):
    llama_cpp()
    codec = codec_of(texts, split)
    subject = subject_of(CONFIGS["llama"], codec, texts[:1])
    with tools.Server(tools.tool("llama-server"), written(tmp_path, subject), 192) as server:
        for one in [*texts, *ODD]:
            assert server.tokens(one) == codec.tokens(one)


@pytest.mark.parametrize("prefix", [True, False])
def test_llama_cpp_joins_pieces_alike(prefix, texts, tmp_path):
    llama_cpp()
    codec = pieces_codec(texts[:44], prefix=prefix)
    config = dataclasses.replace(CONFIGS["llama"], vocabulary=codec.vocabulary)
    subject = subject_of(config, codec, [texts[0], texts[-1]])
    written(tmp_path, subject)
    assert "the same ids of 2 texts" in gguf.check(tmp_path, subject, Options()).remark
    path = tmp_path / "model-f32.gguf"
    with tools.Server(tools.tool("llama-server"), path, 192) as server:
        for one in [*texts, *ODD]:
            assert server.tokens(one) == codec.tokens(one), one


def test_a_published_gpt2_answers_as_in_transformers(texts, tmp_path):
    """A checkpoint that transformers saved, loaded here, exported, and asked of llama.cpp."""
    llama_cpp()
    theirs = small.gpt2(tmp_path / "hub")
    found = find(str(tmp_path / "hub"))
    loaded = load(found, dtype=torch.float32)
    codec = read_codec(found, loaded.config.vocabulary)
    other = subject_of(loaded.config, codec, [texts[0], texts[-1]])
    subject = dataclasses.replace(other, model=loaded.model.eval())
    path = written(tmp_path, other)
    with pytest.raises(ModelwrightError, match="is not the trained tensor"):
        gguf.check(tmp_path, subject, Options())
    path.unlink()
    written(tmp_path, subject)
    assert "the same ids of 2 texts" in gguf.check(tmp_path, subject, Options()).remark
    prompt = codec.tokens(texts[0])[:60]
    with tools.Server(tools.tool("llama-server"), path, 128) as server:
        steps = server.greedy(prompt, 64, 1, codec.spell)
    meant = theirs.generate(torch.tensor([prompt]), max_new_tokens=64, do_sample=False)
    assert [s.token for s in steps] == meant[0, 60 : 60 + len(steps)].tolist()
    assert len(steps) == 64 or steps[-1].token == codec.end


def test_when_the_server_says_no_more_of_a_token():
    whole = "a文é🙂".encode()
    cut = [whole[:i] for i in range(len(whole) + 1)]
    whole_characters = {0, 1, 4, 6, 10}
    assert [i for i, text in enumerate(cut) if not tools._unfinished(text)] == sorted(
        whole_characters
    )


def test_llama_cpp_catches_a_wrong_rotation(codec, texts, tmp_path, monkeypatch):
    """The mistake of a converter, made alike in writing and in reading back."""
    llama_cpp()
    monkeypatch.setattr(graphs, "_PAIRED", ())
    subject = subject_of(CONFIGS["llama"], codec, texts[:1])
    written(tmp_path, subject)
    with pytest.raises(ModelwrightError, match=r"llama.cpp answers differently: example 1 of"):
        gguf.check(tmp_path, subject, Options())


# A run -------------------------------------------------------------------------------------------


def trained(folder, split):
    """A tiny llama, trained on this package's source."""
    rows = [{"id": f"{i}", "text": one} for i, one in enumerate(tiny_runs.paragraphs()[:80])]
    recipe = {
        "name": "tiny",
        "seed": 1,
        "data": {
            "source": tiny_runs.json_lines(folder / "text.jsonl", rows),
            "split": tiny_runs.SPLIT,
        },
        "codec": {"vocabulary": 300, "split": split},
        "model": {
            "family": "llama",
            "depth": 2,
            "width": 32,
            "heads": 2,
            "kv_heads": 1,
            "context": 48,
        },
        "train": {**tiny_runs.STAGE, "task": "documents", "steps": 3, "learning_rate": 0.02},
    }
    return api.train(recipe, out=folder / split)


def test_a_run_is_exported_with_its_card(tmp_path):
    run = trained(tmp_path, "gpt2")
    proof = export(run, tmp_path / "out", print, to="gguf", options=Options(quantization="f16"))
    assert proof.samples == 4
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"README.md", "model-f16.gguf"}
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "llama-server -m" in card


def test_of_a_run_that_does_not_fit_nothing_is_left(tmp_path):
    run = trained(tmp_path, "own")
    with pytest.raises(ModelwrightError, match=r"codec\.split"):
        export(run, tmp_path / "out", print, to="gguf")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.part").exists()
