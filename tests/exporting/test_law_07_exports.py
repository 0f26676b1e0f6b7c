"""Law 7: an exported model answers as the trained one, or nothing is exported. Here: ONNX."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from modelwright import cli
from modelwright.errors import MachineError, ModelwrightError
from modelwright.exporting import format_named, formats
from modelwright.exporting import onnx as form
from modelwright.exporting.subject import Options
from tests.exporting import tiny_runs
from tests.exporting.exported import Artefacts, assert_same, raw_rows, run_as_the_card_says

KINDS = ["decoder", "encoder", "cnn", "rnn", "mlp"]


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    return Artefacts("onnx", tmp_path_factory.mktemp("onnx"))


def rewritten(folder, change):
    """Change the initializers of a graph, by their names."""
    model = onnx.load(folder / form.FILE)
    for tensor in model.graph.initializer:
        values = change(tensor.name, numpy_helper.to_array(tensor))
        if values is not None:
            tensor.CopyFrom(numpy_helper.from_array(np.array(values, order="C"), tensor.name))
    onnx.save(model, folder / form.FILE)


@pytest.mark.parametrize("kind", KINDS)
def test_exported_and_proved(exports, kind):
    made = exports.of(kind)
    outputs = 1 if kind == "decoder" else 2
    assert (made.proof.samples, made.proof.outputs) == (4, 4 * outputs * 2)  # alone and together
    assert 0 < made.proof.largest <= made.proof.tolerance == 1e-4
    model = onnx.load(made.folder / form.FILE)
    assert {o.domain: o.version for o in model.opset_import}[""] == form.OPSET
    for value in model.graph.input:
        axes = value.type.tensor_type.shape.dim
        assert axes[0].dim_param == "batch"
        assert kind not in ("decoder", "encoder") or axes[1].dim_param == "time"
    facts = json.loads((made.folder / "preprocessing.json").read_text())
    assert [i["name"] for i in facts["inputs"]] == [i.name for i in model.graph.input]
    assert [o["name"] for o in facts["outputs"]] == [o.name for o in model.graph.output]
    assert facts["labels"] == list(getattr(made.subject.codec, "labels", []))
    assert str(tiny_runs.SOURCE).encode() not in (made.folder / form.FILE).read_bytes()


@pytest.mark.parametrize("count", [1, 3, 200])
@pytest.mark.parametrize("kind", KINDS)
def test_any_batch(exports, kind, count):
    made = exports.of(kind)
    raw, answers = raw_rows(made, count)
    session = onnxruntime.InferenceSession(made.folder / form.FILE)
    logits, *shares = session.run(None, raw)
    assert_same(logits, answers)
    for found in shares:
        assert np.allclose(found.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("kind", ["encoder", "rnn"])
def test_a_stranger_runs_it(exports, kind):
    made = exports.of(kind)
    assert run_as_the_card_says(made.folder) in made.subject.codec.labels


@pytest.mark.parametrize(
    ("kind", "name", "where"),
    [
        ("mlp", "layers.1.weight", r"layers\.1"),
        ("rnn", "hidden_weight", "output"),  # of a scan: known by what comes of it
        ("cnn", "blocks.0.second.conv.weight", r"blocks\.0\.second"),
        ("encoder", "blocks.0.attention.out.weight", r"blocks\.0\.attention"),
        ("decoder", "blocks.0.attention.out.weight", r"blocks\.0\.attention"),
    ],
)
def test_a_transposed_weight_is_caught(exports, tmp_path, kind, name, where):
    made = exports.of(kind)
    folder = made.copy(tmp_path / "out")
    found = []

    def transposed(tensor, values):
        # A matrix may have been turned over by the exporter already.
        if tensor.endswith(name) or _is(made, name, values):
            found.append(tensor)
            return values.swapaxes(-1, -2)
        return None

    rewritten(folder, transposed)
    assert found
    with pytest.raises(
        ModelwrightError, match=rf"answers differently: example \d of train/test, .*{where}"
    ) as error:
        form.check(folder, made.subject, Options())
    assert "nothing was exported" in str(error.value) and "\n" not in str(error.value)


def _is(made, name, values):
    parameters = dict(made.subject.model.named_parameters())
    weight = parameters[name].detach().numpy()
    return any(np.array_equal(values, w) for w in (weight, weight.T))


@pytest.mark.parametrize("kind", ["cnn", "rnn", "mlp"])
def test_a_wrong_normalisation_is_caught(exports, tmp_path, kind):
    made = exports.of(kind)
    folder = made.copy(tmp_path / "out")
    mean = made.subject.codec.front().get_buffer("mean").numpy()

    def wrong(_, values):
        return values + 1 if values.shape == mean.shape and np.allclose(values, mean) else None

    rewritten(folder, wrong)
    with pytest.raises(ModelwrightError, match="answers differently: example 1 .*preprocessing:"):
        form.check(folder, made.subject, Options())


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_another_lower_casing_is_caught(exports, tmp_path, kind):
    made = exports.of(kind)
    folder = made.copy(tmp_path / "out")
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "normalizer": {"type": "Lowercase"}}))
    with pytest.raises(ModelwrightError, match=r"tokenizer differs: example \d of .*: token"):
        form.check(folder, made.subject, Options())


def test_other_labels_are_caught(exports, tmp_path):
    made = exports.of("mlp")
    folder = made.copy(tmp_path / "out")
    path = folder / "preprocessing.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "labels": facts["labels"][::-1]}))
    with pytest.raises(ModelwrightError, match=r"preprocessing\.json differs .* 'labels'"):
        form.check(folder, made.subject, Options())


def test_a_damaged_graph_is_named(exports, tmp_path):
    made = exports.of("mlp")
    folder = made.copy(tmp_path / "out")
    model = onnx.load(folder / form.FILE)
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, folder / form.FILE)
    with pytest.raises(ModelwrightError, match=r"model\.onnx is not valid"):
        form.check(folder, made.subject, Options())


def test_large_weights_have_a_file_of_their_own(exports, tmp_path, monkeypatch):
    subject = exports.of("mlp").subject
    monkeypatch.setattr(form, "WHOLE", 0)
    form.write(tmp_path, subject, Options())
    assert (tmp_path / "model.onnx.data").is_file()
    assert form.check(tmp_path, subject, Options()).samples == 4
    raw = subject.codec.front().raw(subject.examples[0])
    assert "layers.1" in form.layers(tmp_path / form.FILE, raw)
    assert {p.name for p in tmp_path.iterdir()} == {
        "model.onnx", "model.onnx.data", "preprocessing.json"
    }  # fmt: skip


def test_nothing_is_left_of_a_failure(exports, tmp_path, monkeypatch, capsys):
    real = form.write_beside

    def other(folder, graph):
        real(folder, graph)
        rewritten(folder, lambda _, values: values + 1 if values.shape == (16, 16) else None)

    monkeypatch.setattr(form, "write_beside", other)
    run = str(exports.of("mlp").run.path)
    assert cli.main(["export", run, str(tmp_path / "out"), "--to", "onnx"]) == 2
    assert "answers differently: example 1 of train/test" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_libraries_that_are_missing(exports, tmp_path, monkeypatch):
    monkeypatch.setattr(form, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"pip install 'modelwright\[onnx\]'"):
        form.write(tmp_path, exports.of("mlp").subject, Options())


@pytest.mark.parametrize("options", [Options(quantization="int8"), Options(dtype=np.float16)])
def test_options_of_other_formats(exports, tmp_path, options):
    with pytest.raises(ModelwrightError, match=r"^--(quantize|dtype): not for --to onnx"):
        form.write(tmp_path, exports.of("mlp").subject, options)


def test_the_formats():
    assert {"hub", "onnx", "torch-export"} <= set(formats())
    for name in formats():  # no shared part of the room is offered as one
        form = format_named(name)
        assert callable(form.write) and callable(form.check)
