"""Law 7 for PyTorch's exported programs: equal to the trained model, or nothing is exported."""

from __future__ import annotations

import json
import shutil
import zipfile

import pytest
import torch

from modelwright.errors import ModelwrightError
from modelwright.exporting import torch_export as form
from modelwright.exporting.subject import Options
from modelwright.kernels.attention import Grid
from modelwright.pipeline.export import export
from tests.exporting import tiny_runs
from tests.exporting.exported import Artefacts, assert_same, raw_rows, run_as_the_card_says

KINDS = ["decoder", "encoder", "cnn", "rnn", "mlp"]


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    return Artefacts("torch-export", tmp_path_factory.mktemp("torch"))


def rewritten(path, change):
    """The archive with some of its files changed: ``change(name, content)``."""
    other = path.with_suffix(".new")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for entry in old.infolist():
            new.writestr(entry, change(entry.filename, old.read(entry)), zipfile.ZIP_STORED)
    shutil.move(other, path)


def with_weight(path, name, change):
    """Change the float32 numbers of one tensor, by its name in the program."""
    with zipfile.ZipFile(path) as archive:
        configs = [n for n in archive.namelist() if n.endswith("_config.json")]
        entries = {}
        for config in configs:
            for tensor, entry in json.loads(archive.read(config))["config"].items():
                folder = config.rpartition("/")[0]
                entries[tensor] = f"{folder}/{entry['path_name']}"
    (file,) = [place for tensor, place in entries.items() if tensor.endswith(name)]

    def edit(entry, content):
        if entry != file:
            return content
        numbers = torch.frombuffer(bytearray(content), dtype=torch.float32)
        return change(numbers).contiguous().numpy().tobytes()

    rewritten(path, edit)


@pytest.mark.parametrize("kind", KINDS)
def test_exported_and_proved(exports, kind):
    made = exports.of(kind)
    outputs = 1 if kind == "decoder" else 2
    assert (made.proof.samples, made.proof.outputs) == (4, 4 * outputs * 2)
    assert 0 <= made.proof.largest <= made.proof.tolerance == 1e-4
    place = str(tiny_runs.SOURCE).encode()
    with zipfile.ZipFile(made.folder / form.FILE) as archive:
        assert not [n for n in archive.namelist() if place in archive.read(n)]


@pytest.mark.parametrize("kind", KINDS)
def test_any_batch(exports, kind):
    made = exports.of(kind)
    module = torch.export.load(made.folder / form.FILE).module()
    for count in (1, 2, 200):
        raw, answers = raw_rows(made, count)
        with torch.inference_mode():
            logits, *_ = module(*(torch.from_numpy(a) for a in raw.values()))
        assert_same(logits.numpy(), answers)


@pytest.mark.parametrize("kind", ["decoder", "mlp"])
def test_a_stranger_runs_it(exports, kind):
    made = exports.of(kind)
    said = run_as_the_card_says(made.folder)
    assert said if kind == "decoder" else said in made.subject.codec.labels


@pytest.mark.parametrize(
    ("kind", "name", "where"),
    [
        ("mlp", "layers.1.weight", r"layers\.1"),
        ("rnn", "hidden_weight", "output"),
        ("encoder", "blocks.0.attention.out.weight", r"blocks\.0\.attention\.out"),
        ("decoder", "blocks.0.attention.out.weight", r"blocks\.0\.attention\.out"),
    ],
)
def test_a_transposed_weight_is_caught(exports, tmp_path, kind, name, where):
    made = exports.of(kind)
    folder = made.copy(tmp_path / "out")
    side = made.subject.model.get_parameter(name).shape[0]
    with_weight(folder / form.FILE, name, lambda x: x.view(side, side).T)
    with pytest.raises(
        ModelwrightError, match=rf"answers differently: example \d of train/test, {where}:"
    ):
        form.check(folder, made.subject, Options())


@pytest.mark.parametrize("kind", ["cnn", "rnn"])
def test_a_wrong_normalisation_is_caught(exports, tmp_path, kind):
    made = exports.of(kind)
    folder = made.copy(tmp_path / "out")
    with_weight(folder / form.FILE, "front.deviation", lambda x: x * 1.01)
    with pytest.raises(ModelwrightError, match="example 1 of train/test, preprocessing: differs"):
        form.check(folder, made.subject, Options())


def test_another_lower_casing_is_caught(exports, tmp_path):
    made = exports.of("encoder")
    folder = made.copy(tmp_path / "out")
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "normalizer": {"type": "Lowercase"}}))
    with pytest.raises(ModelwrightError, match=r"tokenizer differs: example \d of .*: token"):
        form.check(folder, made.subject, Options())


def test_a_forgotten_mask_is_caught(exports, tmp_path, monkeypatch):
    real = Grid.seen

    def forgetful(grid, **given):
        return real(Grid(torch.ones_like(grid.kept)), **given)

    monkeypatch.setattr(Grid, "seen", forgetful)
    with pytest.raises(ModelwrightError, match="example . of .* in a batch with others: differs"):
        export(exports.of("encoder").run, tmp_path / "out", lambda _: None, to="torch-export")
    assert not list(tmp_path.iterdir())


def test_a_pickle_is_not_followed(exports, tmp_path):
    made = exports.of("mlp")
    folder = made.copy(tmp_path / "out")

    def pickled(name, content):
        if not name.endswith("weights_config.json"):
            return content
        return content.replace(b'"use_pickle": false', b'"use_pickle": true')

    rewritten(folder / form.FILE, pickled)
    with pytest.raises(ModelwrightError, match="weights_config.json holds a pickle"):
        form.check(folder, made.subject, Options())


def test_options_of_other_formats(exports, tmp_path):
    with pytest.raises(ModelwrightError, match="^--dtype: not for --to torch-export"):
        form.write(tmp_path, exports.of("mlp").subject, Options(dtype=torch.bfloat16))
