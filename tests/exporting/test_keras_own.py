"""A user's own .keras model: trained, evaluated, resumed and saved again by our one loop."""

from __future__ import annotations

import json
import random
import zipfile

import numpy as np
import pytest
import torch

from modelwright import api, checkpoint, recipe
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.exporting.keras_layers import tensorflow
from modelwright.hub import keras_file
from modelwright.models import keras as room
from modelwright.pipeline.export import export
from modelwright.pipeline.fit import _Job
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from tests.exporting import tiny_runs

STAGE = {**tiny_runs.STAGE, "task": "vector_classification", "objective": "classification"}


def saved(path, shape, *layers, seed=0):
    """A Sequential model of Keras with fresh weights, saved as its users save it."""
    keras = room.library(torch_backend=True)
    random.seed(seed)  # of which Keras draws the seeds of initialisers
    with room.quiet():
        model = keras.Sequential([keras.Input(shape), *(make(keras.layers) for make in layers)])
        model.compile("adam", "sparse_categorical_crossentropy")
        model.save(path)
    return path


def convolutional(path, shape=(8, 8), classes=10, seed=0):
    """What a textbook has: convolution, batch norm, pooling, dropout, softmax."""
    return saved(
        path,
        shape,
        lambda k: k.Reshape((*shape, 1)),
        lambda k: k.Conv2D(6, 3, strides=2, padding="same", activation="relu"),
        lambda k: k.BatchNormalization(momentum=0.8),
        lambda k: k.MaxPooling2D(),
        lambda k: k.Flatten(),
        lambda k: k.Dropout(0.2),
        lambda k: k.Dense(12, activation="relu"),
        lambda k: k.Dense(classes, activation="softmax"),
        seed=seed,
    )


def made(model, *, source="digits", stage=None, **data):
    return {
        "name": "own",
        "data": {"source": source, "split": tiny_runs.SPLIT, **data},
        "model": str(model),
        "train": {**STAGE, "steps": 4, "learning_rate": 0.01, **(stage or {})},
        "evaluate": {"baselines": False},
    }


def weights(run):
    return checkpoint.load(newest_checkpoint(run), groups=["model"]).tensors["model"]


def plain(values):
    """Without the numbers that Keras gives objects of one process."""
    if isinstance(values, dict):
        return {k: plain(v) for k, v in values.items() if k != "shared_object_id"}
    return [plain(v) for v in values] if isinstance(values, list) else values


def said(line):
    del line


def test_trained_evaluated_and_saved_again(data, tmp_path):
    """MNIST's own digits through a model of Keras, back out as a model of Keras."""
    path = convolutional(tmp_path / "mine.keras", (28, 28))
    stage = {"steps": 100, "batch": 64, "learning_rate": 0.01}
    place = str(data("mnist"))
    values = made(path, source="mnist", stage=stage, path=place, limit=2000)
    run = api.run(values, out=tmp_path / "run")
    (row,) = run.read_json("evaluation.json")["measures"][0]["rows"]
    assert row["value"] > 0.5  # of ten digits
    assert run.manifest["published"]["model_type"] == "keras"
    out = tmp_path / "out"
    proof = export(run, out, said, to="keras")
    assert proof.largest < 1e-5
    fitted = load_fitted(newest_checkpoint(run))
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(out / "own.keras") as after:
        one, other = (plain(json.loads(z.read("config.json"))["config"]) for z in (before, after))
    assert one == other  # the architecture is the user's, to the letter
    columns = {"features": np.load(run.path / "data/train/test/features.npy")[:50],
               "label": np.zeros(50)}  # fmt: skip
    scaled = fitted.codec.tensors(columns)["features"]
    found = tensorflow.replay(out / "own.keras", None, [{"x": scaled.numpy()}])["0.keras"]
    probabilities = fitted.codec.probabilities(fitted.model(scaled)).numpy()
    np.testing.assert_allclose(found, probabilities, atol=1e-6)
    facts = json.loads((out / "keras.json").read_text())
    assert facts["output"] == "probabilities of the labels"


def test_training_begins_with_its_weights(tmp_path):
    path = convolutional(tmp_path / "mine.keras")
    stage = {"steps": 1, "learning_rate": 1e-30, "optimizer": "sgd"}
    run = api.train(made(path, stage=stage), out=tmp_path / "run")
    keras = room.library()
    with room.quiet():
        before = keras.saving.load_model(path, compile=False)
    for name, variable in room.named_variables(before):
        if variable.trainable:  # the statistics of batch norms have seen a batch
            now = weights(run)[f"weights.{name}"]
            torch.testing.assert_close(now, variable.value.detach(), rtol=0, atol=1e-25)


def test_an_interrupted_training_ends_as_one_that_was_not(tmp_path, monkeypatch):
    """Law 1, dropout and batch norms included."""
    path = convolutional(tmp_path / "mine.keras")
    values = made(path, stage={"save_every": 2})
    whole = weights(api.train(values, out=tmp_path / "whole"))
    real = _Job._save

    def save(job, trainer, step, totals):
        if step > 2:
            raise KeyboardInterrupt
        real(job, trainer, step, totals)

    with monkeypatch.context() as patch:
        patch.setattr(_Job, "_save", save)
        with pytest.raises(BaseException, match="continue with"):
            api.train(values, out=tmp_path / "run")
    again = weights(api.train(tmp_path / "run"))
    assert all(tensor.equal(whole[name]) for name, tensor in again.items())


def test_tuned_alone_and_asked(tmp_path):
    values = made(convolutional(tmp_path / "mine.keras"))
    run = api.run({**values, "tune": values.pop("train")}, out=tmp_path / "run")
    pixels = np.load(run.path / "data/tune/test/features.npy")[0]
    found = api.load(run).probabilities(json.dumps(pixels.tolist()))
    assert sorted(found) == [str(i) for i in range(10)]
    assert sum(found.values()) == pytest.approx(1)


def test_another_file_in_the_same_place_is_noticed(tmp_path):
    path = convolutional(tmp_path / "mine.keras")
    api.train(made(path), out=tmp_path / "run")
    convolutional(path, seed=1)
    api.train(tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints" / "train-before-1").is_dir()


@pytest.mark.parametrize("kind", ["masked", "grouped"])
def test_padding_changes_nothing(tmp_path, kind):
    """Law 4: a layer that knows masks is given one; else rows of one length go together."""
    inner = {
        "masked": lambda k: k.Bidirectional(k.LSTM(5)),
        "grouped": lambda k: k.GlobalMaxPooling1D(),
    }[kind]
    path = saved(tmp_path / "mine.keras", (None, 3), inner, lambda k: k.Dense(2, name="output"))
    found = keras_file.find(str(path)).architecture
    config = room.Config(architecture=found, reads="frames", shape=(3,), outputs=2)
    model = config.build().eval()
    assert model.masks == (kind == "masked")
    frames, lengths = torch.randn(3, 6, 3), torch.tensor([4, 6, 2])
    with torch.inference_mode():
        together = model(frames, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = model(frames[row : row + 1, :length], lengths[row : row + 1])
            torch.testing.assert_close(together[row : row + 1], alone)


def test_frames_through_a_recurrent_model(tmp_path):
    """A GRU over frames of several lengths, trained and exported."""
    values = tiny_runs.rnn(tmp_path / "rnn")
    path = saved(tmp_path / "mine.keras", (None, 8), lambda k: k.GRU(6), lambda k: k.Dense(10))
    run = api.train({"name": "own", **values, "model": str(path)}, out=tmp_path / "run")
    assert export(run, tmp_path / "out", said, to="keras").largest < 1e-5


def edited(path, change):
    """The file with another config.json."""
    with zipfile.ZipFile(path) as archive:
        parts = {i.filename: archive.read(i) for i in archive.infolist()}
    config = json.loads(parts["config.json"])
    change(config)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**parts, "config.json": json.dumps(config)}.items():
            archive.writestr(name, content)
    return path


def layer(config, **fields):
    config["config"]["layers"][2].update(fields)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda c: layer(c, class_name="Lambda"), "holds Lambda, which is no plain layer"),
        (lambda c: layer(c, class_name="TorchModuleWrapper"), "holds TorchModuleWrapper"),
        (lambda c: layer(c, module="os", class_name="system"), "holds system"),
        (lambda c: layer(c, registered_name="mine>Layer"), "holds mine>Layer"),
        (lambda c: c.update(class_name="Mine"), "no Sequential or Functional model"),
        (
            lambda c: c["config"]["layers"][2]["config"].update(
                activation={"class_name": "__lambda__", "config": {"value": ["", None, None]}}
            ),
            "holds __lambda__",
        ),
    ],
)
def test_what_could_run_code_is_refused(tmp_path, change, why):
    path = edited(convolutional(tmp_path / "mine.keras"), change)
    with pytest.raises(ModelwrightError, match=f"mine.keras: .*{why}"):
        api.train(made(path), out=tmp_path / "run")


def test_a_damaged_file(tmp_path):
    path = convolutional(tmp_path / "mine.keras")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CorruptError, match="is no whole .keras file"):
        keras_file.find(str(path))
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    with pytest.raises(CorruptError, match="HDF5 of older versions"):
        keras_file.find(str(path))


def test_weights_in_another_file(tmp_path):
    """HDF5 can point to files beside it, which could be anybody's."""
    import h5py

    path = convolutional(tmp_path / "mine.keras")
    with zipfile.ZipFile(path) as archive:
        parts = {i.filename: archive.read(i) for i in archive.infolist()}
    (tmp_path / "w.h5").write_bytes(parts["model.weights.h5"])
    with h5py.File(tmp_path / "w.h5", "a") as file:
        del file["layers/dense/vars/0"]
        file["layers/dense/vars/0"] = h5py.ExternalLink("/etc/hostname", "/x")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            here = (tmp_path / "w.h5").read_bytes() if name.endswith(".h5") else content
            archive.writestr(name, here)
    found = keras_file.find(str(path))
    config = room.Config(architecture=found.architecture, shape=(8, 8), outputs=10)
    with pytest.raises(CorruptError, match="lies in another file"):
        found.fill(config.build())


@pytest.mark.parametrize(
    ("shape", "classes", "why"),
    [
        ((9, 9), 10, r"reads rows of shape \(9, 9\), the data have \(8, 8\)"),
        ((8, 8), 4, r"gives \(4,\), the data have 10 labels"),
    ],
)
def test_a_model_of_other_shapes(tmp_path, shape, classes, why):
    path = convolutional(tmp_path / "mine.keras", shape, classes)
    with pytest.raises(ModelwrightError, match=f"mine.keras: {why}"):
        api.train(made(path), out=tmp_path / "run")


def test_a_regularizer_is_not_left_out_silently(tmp_path):
    path = saved(tmp_path / "mine.keras", (8, 8), lambda k: k.Flatten(),
                 lambda k: k.Dense(10, kernel_regularizer="l2", name="last"))  # fmt: skip
    with pytest.raises(ModelwrightError, match="last has a kernel_regularizer.*weight_decay"):
        api.train(made(path), out=tmp_path / "run")


def test_what_a_recipe_may_say_beside_it(tmp_path):
    values = made(tmp_path / "mine.keras")
    with pytest.raises(ModelwrightError, match="model.hidden: .*mine.keras decides it"):
        recipe.parse({**values, "model": {"from": "mine.keras", "hidden": 3}})
    with pytest.raises(ModelwrightError, match="model.family: keras is what a file says"):
        api.train({**values, "model": {"family": "keras"}}, out=tmp_path / "family")
    with pytest.raises(ModelwrightError, match="no such file; save the model with"):
        api.train(values, out=tmp_path / "run")


def test_the_last_nonlinearity_in_each_form(tmp_path):
    """Logits while training, whether a layer holds the softmax or is one."""
    x = torch.randn(4, 3)
    for number, layers in enumerate(
        [
            [lambda k: k.Dense(2, activation="softmax")],
            [lambda k: k.Dense(2), lambda k: k.Softmax()],
            [lambda k: k.Dense(2), lambda k: k.Activation("softmax")],
            [lambda k: k.Dense(1, activation="sigmoid")],
        ]
    ):
        path = saved(tmp_path / f"{number}.keras", (3,), *layers)
        found = keras_file.find(str(path))
        codec = type("Codec", (), {"shape": (3,), "labels": ["a", "b"]})
        config = room.config_for(found.architecture, codec, "mine")
        assert config.output == ("sigmoid" if number == 3 else "softmax")
        model = config.build()
        found.fill(model)
        with room.quiet():
            own = room.library().saving.load_model(path, compile=False)
        torch.testing.assert_close(room.activated(config, model(x)), own(x))
