"""Law 7 for Keras and TensorFlow: what is written answers as what was trained, or is refused."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from modelwright.data.codecs import vectors
from modelwright.errors import MachineError, ModelwrightError
from modelwright.exporting import keras
from modelwright.exporting.keras_layers.families import encoder
from modelwright.exporting.subject import Options
from modelwright.pipeline.export import export, subject_of
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from tests.exporting import tiny_runs

MODELS = {"mlp": {"hidden": [16, 16]}, "cnn": {}, "rnn": {"size": "bilstm-2"}, "encoder": {}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {kind: tiny_runs.run_of(kind, folder, **more) for kind, more in MODELS.items()}


def subject(run):
    return subject_of(run, load_fitted(newest_checkpoint(run)))


def changed(given, name, change):
    """The subject with another value of one parameter."""
    model = copy.deepcopy(given.model)
    with torch.no_grad():
        parameter = model.get_parameter(name)
        parameter.copy_(change(parameter.clone()))
    return replace(given, model=model)


def said(*arguments):
    del arguments


@pytest.mark.parametrize("kind", MODELS)
def test_exported_and_proved(runs, tmp_path, kind):
    out = tmp_path / "out"
    loaded = "tensorflow" in sys.modules
    proof = export(runs[kind], out, said, to="keras")
    assert ("tensorflow" in sys.modules) == loaded  # it has a process of its own
    assert (proof.samples, proof.outputs) == (4, 10)  # alone and together, both files
    assert 0 < proof.largest < proof.tolerance == 1e-4
    files = {"README.md", "model.keras", "saved_model", "keras.json"}
    files |= {"tokenizer.json"} if kind == "encoder" else set()
    assert {p.name for p in out.iterdir()} == files
    facts = json.loads((out / "keras.json").read_text())
    assert facts["labels"] == subject(runs[kind]).codec.labels
    assert "model.keras" in (out / "README.md").read_text()


def test_a_stranger_needs_no_package_of_ours(runs, tmp_path):
    """The lines of the cards run where TensorFlow is alone, and give the labels that ours gives."""
    lines, kinds = [], ("mlp", "rnn", "encoder")
    for kind in kinds:
        out = tmp_path / kind
        export(runs[kind], out, said, to="keras")
        (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
        lines += [f"os.chdir({str(out)!r})", code]
    given = subject(runs["mlp"])
    pixels = np.stack([given.codec.encode(e)["features"] for e in given.examples])
    np.save(tmp_path / "x.npy", pixels)
    program = [
        "import os, sys; os.environ['KERAS_BACKEND'] = 'tensorflow'",
        *lines,
        f"os.chdir({str(tmp_path)!r}); model = keras.saving.load_model('mlp/model.keras')",
        "print(model.predict(np.load('x.npy'), verbose=0).argmax(1).tolist())",
        "assert not [m for m in sys.modules if m.startswith(('torch', 'modelwright'))]",
    ]
    done = subprocess.run(
        [sys.executable, "-P", "-c", "\n".join(program)],
        capture_output=True,
        text=True,
        check=True,
    )
    with torch.inference_mode():
        logits = torch.cat([given.model(**b.inputs) for b in given.batches])
    assert json.loads(done.stdout.splitlines()[-1]) == logits.argmax(1).tolist()


def test_a_transposed_weight_is_named(runs, tmp_path):
    given = subject(runs["mlp"])
    keras.write(tmp_path, changed(given, "layers.1.weight", torch.t), Options())
    with pytest.raises(ModelwrightError, match=r"sample 1 of train/test, layers\.1: differs by"):
        keras.check(tmp_path, given, Options())


def test_a_turned_kernel_is_named(runs, tmp_path):
    given = subject(runs["cnn"])
    wrong = changed(given, "blocks.0.second.conv.weight", lambda w: w.transpose(2, 3))
    keras.write(tmp_path, wrong, Options())
    with pytest.raises(ModelwrightError, match=r"blocks\.0\.second\.conv: differs by"):
        keras.check(tmp_path, given, Options())


def test_a_wrong_normalisation_constant_is_named(runs, tmp_path):
    given = subject(runs["mlp"])
    c = given.codec
    wrong = vectors.Codec(c.labels, c.shape, c.mean, c.deviation * 1.01, bytes_only=c.bytes_only)
    keras.write(tmp_path, replace(given, codec=wrong), Options())
    with pytest.raises(ModelwrightError, match=r"model\.keras answers.*the scaled input: differs"):
        keras.check(tmp_path, given, Options())


def test_other_lower_casing_is_named(runs, tmp_path):
    given = subject(runs["encoder"])
    keras.write(tmp_path, given, Options())
    path = tmp_path / "tokenizer.json"
    written = json.loads(path.read_text())
    path.write_text(json.dumps({**written, "normalizer": {"type": "Lowercase"}}))
    with pytest.raises(ModelwrightError, match=r"tokenizer differs: example \d of train/test: t"):
        keras.check(tmp_path, given, Options())


def test_a_seen_padding_is_caught(runs, tmp_path, monkeypatch):
    """Answers of single samples agree; those of a padded batch do not."""
    given = subject(runs["encoder"])
    monkeypatch.setattr(encoder, "FAR", 0.0)
    keras.write(tmp_path, given, Options())
    with pytest.raises(ModelwrightError, match="all samples of train/test in one padded batch"):
        keras.check(tmp_path, given, Options())


def test_nothing_is_left_of_a_wrong_export(runs, tmp_path, monkeypatch):
    real = keras.write

    def write(folder, given, options):
        real(folder, changed(given, "layers.2.bias", lambda b: b + 0.01), options)

    monkeypatch.setattr(keras, "write", write)
    with pytest.raises(ModelwrightError, match=r"layers\.2: differs by .* nothing was exported"):
        export(runs["mlp"], tmp_path / "out", said, to="keras")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (Options(dtype=torch.float16), "--dtype: --to keras writes float32"),
        (Options(quantization="q8_0"), "--quantize: not for --to keras"),
    ],
)
def test_options_that_are_not_its_own(runs, tmp_path, options, why):
    with pytest.raises(ModelwrightError, match=why):
        keras.write(tmp_path, subject(runs["mlp"]), options)


def test_a_family_without_a_counterpart(tmp_path, runs):
    given = subject(runs["mlp"])
    from modelwright.models import decoder

    config = decoder.Config(**decoder.Config.specimen)
    with pytest.raises(ModelwrightError, match="a decoder has no counterpart.*fast_cnn.*rnn"):
        keras.write(tmp_path, replace(given, config=config), Options())


def test_without_the_libraries(tmp_path, runs, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MachineError, match=re.escape("pip install 'modelwright[keras]'")):
        keras.write(tmp_path, subject(runs["mlp"]), Options())
