"""What goes into an exported model: raw numbers, pixels, frames or tokens, and how it is said.

The codec's scaling is a layer of the model. Sequences are padded on the right with anything, and
``lengths`` says how much of each row is true.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer as HubTokenizer
from tokenizers.processors import TemplateProcessing

from modelwright.data.codecs import text_codec
from modelwright.errors import ModelwrightError

SCALED = "scaled"  # the layer that does what the codec does to numbers
Tensor = Any  # of Keras


@dataclass(frozen=True)
class Inputs:
    """The inputs of a model by name, what they become for its first layer, and what they mean."""

    tensors: dict[str, Tensor]
    given: dict[str, Tensor]
    facts: dict[str, Any]

    @property
    def of_model(self) -> Any:
        """One input alone, or several by name."""
        (first, *more) = self.tensors.values()
        return self.tensors if more else first


def inputs_of(keras: Any, codec: Any) -> Inputs:
    """The inputs for what a codec makes of examples.

    Raises:
        ModelwrightError: the codec makes what is not written so far.
    """
    if hasattr(codec, "probabilities"):
        reads = reads_of(codec)
        if reads == ["features"]:
            return _numbers(keras, codec.front())
        if reads == ["frames", "lengths"]:
            return _frames(keras, codec.front())
        if reads == ["tokens"]:
            return _tokens(keras)
    raise ModelwrightError(
        "--to keras: writes classifiers of numbers, images, frames and texts; this model writes "
        "text; take --to hub or onnx"
    )


def reads_of(codec: Any) -> list[str]:
    """The names of the raw inputs that a codec's front reads; of a codec of text, "tokens"."""
    if hasattr(codec, "front"):
        return [read.name for read in codec.front().reads]
    return ["tokens"] if text_codec(codec) is not None else []


def _scaled(keras: Any, x: Tensor, front: Any) -> Tensor:
    """(x - mean) / deviation; numbers shared by a whole row are single ones."""
    mean, deviation = (front.get_buffer(name).numpy() for name in ("mean", "deviation"))
    axes = tuple(range(len(x.shape) - mean.ndim, len(x.shape))) or None
    variance = np.square(deviation.astype(np.float64))
    scale = keras.layers.Normalization(
        axis=axes, mean=mean.tolist(), variance=variance.tolist(), name=SCALED
    )
    return scale(x)


def _numbers(keras: Any, front: Any) -> Inputs:
    (read,) = front.reads
    kind, shape = str(read.dtype).removeprefix("torch."), read.shape[1:]
    x = keras.Input(shape, dtype=kind, name="features")
    scaled = _scaled(keras, x, front)
    given = {"features": scaled, "image": scaled}
    if len(shape) == 2:
        given["image"] = keras.layers.Reshape((*shape, 1))(scaled)
    fact = {"dtype": kind, "shape": [None, *shape], "is": read.about}
    return Inputs({"features": x}, given, {"features": fact})


def _true(keras: Any, like: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Positions (B, T) and which of them are true, for tokens or frames."""
    ops = keras.ops
    first = ops.take(like, 0, axis=-1) if len(like.shape) > 2 else like
    positions = ops.cumsum(ops.cast(ops.ones_like(first), "int32"), axis=1) - 1
    return positions, ops.less(positions, ops.expand_dims(lengths, -1))


def _frames(keras: Any, front: Any) -> Inputs:
    features = front.reads[0].shape[2]
    x = keras.Input((None, features), dtype="float32", name="frames")
    lengths = keras.Input((), dtype="int32", name="lengths")
    _, seen = _true(keras, x, lengths)
    scaled = _scaled(keras, x, front)
    facts = {
        "frames": {
            "dtype": "float32",
            "shape": [None, None, features],
            "is": "raw frames, padded on the right with anything",
        },
        "lengths": {"dtype": "int32", "shape": [None], "is": "true frames of each row"},
    }
    given = {"frames": scaled, "lengths": lengths, "seen": seen}
    return Inputs({"frames": x, "lengths": lengths}, given, facts)


def _tokens(keras: Any) -> Inputs:
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    lengths = keras.Input((), dtype="int32", name="lengths")
    positions, seen = _true(keras, tokens, lengths)
    facts = {
        "tokens": {
            "dtype": "int32",
            "shape": [None, None],
            "is": "ids of tokenizer.json, padded on the right with any id",
        },
        "lengths": {"dtype": "int32", "shape": [None], "is": "true tokens of each row"},
    }
    given = {"tokens": tokens, "lengths": lengths, "positions": positions, "seen": seen}
    return Inputs({"tokens": tokens, "lengths": lengths}, given, facts)


# Tokenizers --------------------------------------------------------------------------------------


def tokenizer_of(codec: Any) -> bytes | None:
    """A tokenizer.json whose ids are those that the model reads, ended and cut; None without text.

    Whoever reads it with the library ``tokenizers`` needs to know nothing more.
    """
    inner = text_codec(codec)
    if inner is None:
        return None
    written = inner.save()["tokenizer.json"]
    made = HubTokenizer.from_str(written.decode())
    if not inner.after:
        named = [(str(made.id_to_token(i)), i) for i in (*inner.before, inner.end)]
        names = [name for name, _ in named]
        single = " ".join([*names[:-1], "$A", names[-1]])
        made.post_processor = TemplateProcessing(single=single, special_tokens=named)
    made.no_padding()
    made.enable_truncation(codec.longest)
    content: str = made.to_str()
    return content.encode()


def facts_json(facts: dict[str, Any]) -> bytes:
    """A JSON file that people read too."""
    return json.dumps(facts, indent=2, ensure_ascii=False).encode() + b"\n"
