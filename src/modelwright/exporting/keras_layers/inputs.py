"""What goes into an exported model: raw numbers, pixels, frames or tokens, and how it is said.

The codec's scaling is a layer of the model. Sequences are padded on the right with anything, and
``lengths`` says how much of each row is true.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from tokenizers import Tokenizer as HubTokenizer
from tokenizers.processors import TemplateProcessing

from modelwright.data.codecs import frames, images, labelled_text, published_text, vectors
from modelwright.errors import ModelwrightError
from modelwright.types import Array

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
    if isinstance(codec, vectors.Codec):
        kind = "uint8" if codec.bytes_only else "float32"
        return _numbers(keras, codec, kind, (codec.mean, codec.deviation))
    if isinstance(codec, images.Codec):
        mean, deviation = (values.numpy() for values in codec.scale)
        return _numbers(keras, codec, "uint8", (mean, deviation))
    if isinstance(codec, frames.Codec):
        return _frames(keras, codec)
    if isinstance(codec, labelled_text.Codec):
        return _tokens(keras)
    raise ModelwrightError(
        "--to keras: writes classifiers of numbers, images, frames and texts; this model writes "
        "text; take --to hub or onnx"
    )


def _scaled(keras: Any, x: Tensor, mean: Array, deviation: Array) -> Tensor:
    """(x - mean) / deviation; numbers shared by a whole row are single ones."""
    axes = tuple(range(len(x.shape) - mean.ndim, len(x.shape))) or None
    variance = np.square(deviation.astype(np.float64))
    scale = keras.layers.Normalization(
        axis=axes, mean=mean.tolist(), variance=variance.tolist(), name=SCALED
    )
    return scale(x)


def _numbers(keras: Any, codec: Any, kind: str, scale: tuple[Array, Array]) -> Inputs:
    x = keras.Input(codec.shape, dtype=kind, name="features")
    scaled = _scaled(keras, x, *scale)
    given = {"features": scaled, "image": scaled}
    if len(codec.shape) == 2:
        given["image"] = keras.layers.Reshape((*codec.shape, 1))(scaled)
    (about,) = (read.about for read in codec.front().reads)
    fact = {"dtype": kind, "shape": [None, *codec.shape], "is": about}
    return Inputs({"features": x}, given, {"features": fact})


def _true(keras: Any, like: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Positions (B, T) and which of them are true, for tokens or frames."""
    ops = keras.ops
    first = ops.take(like, 0, axis=-1) if len(like.shape) > 2 else like
    positions = ops.cumsum(ops.cast(ops.ones_like(first), "int32"), axis=1) - 1
    return positions, ops.less(positions, ops.expand_dims(lengths, -1))


def _frames(keras: Any, codec: frames.Codec) -> Inputs:
    x = keras.Input((None, codec.features), dtype="float32", name="frames")
    lengths = keras.Input((), dtype="int32", name="lengths")
    _, seen = _true(keras, x, lengths)
    scaled = _scaled(keras, x, codec.mean, codec.deviation)
    facts = {
        "frames": {
            "dtype": "float32",
            "shape": [None, None, codec.features],
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
    if not isinstance(codec, labelled_text.Codec):
        return None
    inner = cast(Any, codec.text)
    written = inner.save()["tokenizer.json"]
    made = HubTokenizer.from_str(written.decode())
    if not (isinstance(inner, published_text.Codec) and inner.after):
        before = list(inner.before) if isinstance(inner, published_text.Codec) else []
        named = [(str(made.id_to_token(i)), i) for i in (*before, inner.end)]
        names = [name for name, _ in named]
        single = " ".join([*names[:-1], "$A", names[-1]])
        made.post_processor = TemplateProcessing(single=single, special_tokens=named)
    made.no_padding()
    made.enable_truncation(codec.longest)
    content: str = made.to_str()
    return content.encode()


def same_tokens(read: HubTokenizer, text: str, meant: Array, where: str) -> Array:
    """The ids that a written tokenizer gives a text, which must be ``meant``.

    Raises:
        ModelwrightError: they differ; names the example and the token.
    """
    ids = np.array(read.encode(text).ids, dtype=np.int64)
    if not np.array_equal(ids, meant):
        both = range(min(len(ids), len(meant)))
        at = next((i for i in both if ids[i] != meant[i]), len(both))
        one, other = (str(a[at]) if at < len(a) else "nothing" for a in (ids, meant))
        raise ModelwrightError(
            f"export: the written tokenizer differs: {where}: token {at + 1} is {one}, {other} is "
            "meant; nothing was exported"
        )
    return ids


def facts_json(facts: dict[str, Any]) -> bytes:
    """A JSON file that people read too."""
    return json.dumps(facts, indent=2, ensure_ascii=False).encode() + b"\n"
