"""One tiny trained run of each family, for the tests of exports: real data, a few steps.

Nothing here needs a download: digits come with scikit-learn, text is this package's own source.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from modelwright import api
from modelwright.runs import Run

SOURCE = Path(__file__).resolve().parents[2] / "src" / "modelwright"
STAGE = {"threads": 1, "compile": False, "precision": "float32", "batch": 8}
SPLIT = {"by": "row", "validation": 0.1, "test": 0.2}


def run_of(kind: str, folder: Path, **model) -> Run:
    """A trained run in ``folder/kind``.

    ``kind`` is "decoder", "encoder" (text classification), "cnn" (8 x 8 grey images), "rnn" (rows
    of an image as frames, 3 to 8 of them) or "mlp"; ``model`` changes fields of the model.
    """
    recipe = RECIPES[kind](folder)
    recipe["model"] = {**recipe.get("model", {}), **model}
    return api.train({"name": f"tiny-{kind}", "seed": 1, **recipe}, out=folder / kind)


def decoder(folder):
    """Our own decoder on paragraphs of source, with grouped heads and all its extras."""
    rows = [{"id": f"{i}", "text": text} for i, text in enumerate(paragraphs()[:80])]
    return {
        "data": {"source": json_lines(folder / "text.jsonl", rows), "split": SPLIT},
        "codec": {"vocabulary": 300},
        "model": {"depth": 2, "width": 32, "heads": 2, "kv_heads": 1, "context": 48},
        "train": {**STAGE, "task": "documents", "steps": 8, "learning_rate": 0.02},
    }


def encoder(folder):
    """Is a line code or prose?"""
    lines = [line.strip() for text in paragraphs() for line in text.splitlines()]
    lines = [line for line in dict.fromkeys(lines) if len(line) > 12][:240]
    rows = [
        {"id": f"{i}", "text": line, "label": "code" if set("=()[]") & set(line) else "Prose"}
        for i, line in enumerate(lines)
    ]
    return {
        "data": {"source": json_lines(folder / "lines.jsonl", rows), "split": SPLIT},
        "codec": {"vocabulary": 300, "longest": 24},
        "model": {"depth": 2, "width": 32, "heads": 2},
        "train": {**STAGE, "task": "text_classification", "steps": 12, "learning_rate": 0.02},
    }


def cnn(folder):
    """Handwritten digits by convolutions with batch norms."""
    stage = {**STAGE, "task": "vector_classification", "objective": "classification"}
    return {
        "data": {"source": "digits", "split": SPLIT},
        "model": {"family": "fast_cnn", "widths": [8, 12, 16]},
        "train": {**stage, "batch": 32, "steps": 20, "learning_rate": 0.05, "optimizer": "sgd"},
    }


def mlp(folder):
    """The same digits by a perceptron."""
    stage = {**STAGE, "task": "vector_classification", "objective": "classification"}
    return {
        "data": {"source": "digits", "split": SPLIT},
        "model": {"family": "mlp", "hidden": [24, 16]},
        "train": {**stage, "steps": 20, "learning_rate": 0.01},
    }


def rnn(folder):
    """The same digits, read row by row: sequences of 3 to 8 frames."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = digits.images[:300].astype(np.float32)
    lengths = 3 + np.arange(len(x)) % 6
    path = folder / "frames.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, x=x, y=digits.target[:300], lengths=lengths)
    stage = {**STAGE, "task": "sequence_classification", "objective": "classification"}
    return {
        "data": {"source": str(path), "split": SPLIT},
        "model": {"family": "rnn", "hidden": 16},
        "train": {**stage, "steps": 12, "learning_rate": 0.02},
    }


RECIPES = {"decoder": decoder, "encoder": encoder, "cnn": cnn, "mlp": mlp, "rnn": rnn}


def paragraphs():
    """Paragraphs of this package's own source, always in the same order."""
    found = []
    for path in sorted((SOURCE / "hub").glob("*.py")):
        parts = path.read_text(encoding="utf-8").split("\n\n")
        found += [part.strip() for part in parts if len(part.strip()) > 60]
    return found


def json_lines(path, rows):
    """The path of a file with these rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
