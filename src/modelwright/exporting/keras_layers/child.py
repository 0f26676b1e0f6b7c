"""The process in which TensorFlow reads what was exported: the trained model's has PyTorch's Keras.

Run as a script by ``modelwright.data.child.Child``: frames of JSON in, frames of JSON out. Arrays
go through .npz files, without objects. It knows two works:

- "convert": a .keras file becomes a SavedModel;
- "replay": samples go through both, and for one of them the outputs of layers are kept.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # the trained model answers on the CPU too

import numpy as np

HEAD = struct.Struct("<I")


def convert(request: dict[str, Any]) -> dict[str, Any]:
    """Write the SavedModel of a .keras file."""
    import keras  # noqa: PLC0415 - after the backend is chosen

    model = keras.saving.load_model(request["model"], compile=False, safe_mode=True)
    model.export(request["saved"], format="tf_saved_model", verbose=False)
    return {}


def replay(request: dict[str, Any]) -> dict[str, Any]:
    """Answers of the .keras file and of the SavedModel, and what some layers make.

    ``given`` holds arrays named NUMBER.INPUT; ``made`` gets NUMBER.keras, NUMBER.saved, and
    layer.NAME where ``layers`` names them, for the sample ``inside``.
    """
    import keras  # noqa: PLC0415
    import tensorflow as tf  # noqa: PLC0415

    model = keras.saving.load_model(request["model"], compile=False, safe_mode=True)
    saved = tf.saved_model.load(request["saved"]) if request["saved"] else None
    found: dict[str, Any] = {}
    with np.load(request["given"], allow_pickle=False) as given:
        for number in range(request["samples"]):
            inputs: Any = {
                n.partition(".")[2]: tf.constant(given[n])
                for n in given.files
                if n.partition(".")[0] == str(number)
            }
            if len(inputs) == 1:
                (inputs,) = inputs.values()
            found[f"{number}.keras"] = model(inputs, training=False).numpy()
            if saved is not None:
                found[f"{number}.saved"] = saved.serve(inputs).numpy()
            if request["layers"] and number == request["inside"]:
                there = {layer.name for layer in model.layers}
                names = [name for name in request["layers"] if name in there]
                outputs = [model.get_layer(name).output for name in names]
                parts = keras.Model(model.inputs, outputs)(inputs, training=False)
                found |= {f"layer.{n}": p.numpy() for n, p in zip(names, parts, strict=True)}
    with Path(request["made"]).open("wb") as file:
        np.savez(file, **found)
    return {}


WORKS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "convert": convert,
    "replay": replay,
}


def serve() -> None:
    """Answer until the input ends."""
    inward, outward = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    _send(outward, _ready())
    while len(head := inward.read(HEAD.size)) == HEAD.size:
        request = json.loads(inward.read(HEAD.unpack(head)[0]))
        try:
            answer = WORKS[request["work"]](request)
        except Exception as error:  # whatever a library raises is an answer
            line = " ".join(str(error).split())[:400]
            answer = {"error": f"{type(error).__name__}: {line}"}
        _send(outward, json.dumps(answer).encode())


def _ready() -> bytes:
    """Nothing, or why there is nothing to work with."""
    try:
        import keras  # noqa: F401, PLC0415
        import tensorflow as tf  # noqa: PLC0415
    except ImportError as error:
        return f"{error}; pip install 'modelwright[keras]'".encode()
    threads = int(os.environ.get("OMP_NUM_THREADS", "0") or 0)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    return b""


def _send(outward: Any, content: bytes) -> None:
    outward.write(HEAD.pack(len(content)) + content)
    outward.flush()


if __name__ == "__main__":
    serve()
