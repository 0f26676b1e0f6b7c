"""Every family that has a counterpart in Keras, in each of its forms: random weights, real data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from modelwright.data.codecs import fit_codec
from modelwright.exporting import keras
from modelwright.exporting.keras_layers import families
from modelwright.exporting.subject import Options, Subject
from modelwright.models import inception
from modelwright.models.model import config_class
from modelwright.objectives import make_objective
from modelwright.types import Example, Frames, Image, Label, Text, Turn
from tests.exporting.tiny_runs import paragraphs

DIGITS = load_digits()
FORMS = [
    ("mlp", "vectors", {"hidden": (5, 6), "activation": "gelu_tanh"}),
    ("fast_cnn", "images", {"widths": (4, 8), "stem_stride": 2, "norm": "group"}),
    ("fast_cnn", "pictures", {"widths": (4, 6)}),
    ("resnet", "images", {"depths": (1, 1), "widths": (4, 6), "stem_width": 4, "bottleneck": True}),
    ("resnet", "images", {"depths": (1, 1), "widths": (4, 4), "stem_width": 4, "stem": "large",
                          "norm": "group"}),
    ("convnext", "images", {"depths": (1, 1), "widths": (4, 8), "patch": 2, "scale": 0.5}),
    ("inception", "large", {"width": 0.02, "auxiliary": True}),
    ("vit", "images", {"patch": 4, "width": 8, "depth": 1, "heads": 2}),
    ("vit", "images", {"patch": 2, "width": 8, "depth": 1, "heads": 2, "pool": "mean"}),
    ("bag_of_frames", "frames", {}),
    ("rnn", "frames", {"hidden": 4}),
    ("rnn", "frames", {"hidden": 4, "cell": "gru", "layers": 2}),
    ("rnn", "frames", {"hidden": 4, "cell": "elman", "activation": "relu", "bidirectional": True}),
    ("bert", "text", {"depth": 1, "width": 8, "heads": 2}),
    ("bert", "text", {"depth": 1, "width": 8, "heads": 2, "first_position": 2, "types": 1,
                      "eps": 1e-5, "activation": "gelu_tanh"}),
    ("bert", "text", {"depth": 1, "width": 8, "heads": 1, "types": 0, "pooling": "relu"}),
    ("encoder", "text", {"depth": 1, "width": 8, "heads": 2, "hidden": 12}),
]  # fmt: skip


def rows(kind):
    """Twelve labelled examples of real data."""
    if kind == "text":
        parts = [Text(text[: 20 + 9 * i]) for i, text in enumerate(paragraphs()[:12])]
    elif kind == "frames":
        parts = [Frames(x[: 2 + i % 7]) for i, x in enumerate(DIGITS.images[:12])]
    elif kind == "vectors":
        parts = [Frames(x.reshape(1, -1) * 0.37) for x in DIGITS.images[:12]]
    elif kind == "large":
        parts = [Image(np.kron(x.astype(np.uint8), np.ones((10, 10), np.uint8)))
                 for x in DIGITS.images[:12]]  # fmt: skip
    else:
        parts = [Image(x.astype(np.uint8)) for x in DIGITS.images[:12]]
    labels = [Label("abc"[i % 3]) for i in range(12)]
    return [
        Example((Turn("user", (part,)), Turn("assistant", (label,), learn=True)))
        for part, label in zip(parts, labels, strict=True)
    ]


def subject(family, kind, fields):
    """A model with random weights, statistics of batch norms and gains included."""
    examples = rows(kind)
    names = {"text": "labelled_text", "frames": "frames", "pictures": "images"}
    options = {"vocabulary": 300, "longest": 24} if kind == "text" else {}
    codec = fit_codec(names.get(kind, "vectors"), examples, options)
    cls = config_class(family)
    torch.manual_seed(3)
    config = cls(**{**cls.data_fields(codec), **fields})
    model = config.build().eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape), alpha=0.3)
    objective = make_objective("classification", codec, {})
    return Subject(model, config, codec, objective, None, tuple(examples[:3]), (), "rows")


@pytest.mark.parametrize(("family", "kind", "fields"), FORMS)
def test_every_form_answers_alike(tmp_path, monkeypatch, family, kind, fields):
    monkeypatch.setattr(inception, "LEAST_AUXILIARY", 75)  # it is not run
    given = subject(family, kind, fields)
    keras.write(tmp_path, given, Options())
    assert keras.check(tmp_path, given, Options()).largest < 1e-5


def test_every_counterpart_is_tested_here():
    import pkgutil

    known = {m.name for m in pkgutil.iter_modules(families.__path__)}
    assert known - {"keras"} == {family for family, *_ in FORMS}
