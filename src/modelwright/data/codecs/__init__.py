"""Codecs: turns to arrays and back, one kind a file; found by module name."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from modelwright import extensions, rooms
from modelwright.errors import CorruptError, ModelwrightError, did_you_mean
from modelwright.options import checked
from modelwright.types import Codec, Example

__all__ = [
    "codec_class",
    "codec_options",
    "fit_codec",
    "kinds",
    "load_codec",
    "save_codec",
    "text_codec",
]

_PREFIX = "codec/"

_IS_CODEC = rooms.defines("Codec")


def _is_fitted(module: ModuleType) -> bool:
    """Whether a task may name the codec: others come with a published checkpoint."""
    return _IS_CODEC(module) and hasattr(module.Codec, "fit")


def kinds() -> list[str]:
    """The module names of all codecs that a task may name."""
    return rooms.members(sys.modules[__name__], _is_fitted)


def codec_class(kind: str) -> Any:
    """The ``Codec`` class of a kind: a module of this room, or a file of the user's own."""
    if extensions.is_reference(kind):
        return extensions.member(kind, "Codec", "a codec")
    module = rooms.member(sys.modules[__name__], kind, _IS_CODEC)
    if module is None:
        hint = did_you_mean(kind, kinds())
        raise ModelwrightError(f"codec: no codec {kind!r}{hint}; known: {', '.join(kinds())}")
    return module.Codec


def fit_codec(kind: str, examples: Iterable[Example], options: Mapping[str, Any]) -> Codec:
    """A codec fitted on ``examples``, which must be those of the train split (law 11)."""
    codec: Codec = codec_class(kind).fit(examples, **codec_options(kind, options))
    return codec


def codec_options(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the codec's fit, checked; a mistyped one is refused."""
    fit = codec_class(kind).fit
    return checked(f"codec {extensions.short(kind)}", fit, options, apart=("examples",))


def text_codec(codec: Any) -> Any:
    """The codec of its texts: itself, or the one around which it is made; None: it reads no text.

    Codecs around one of text have it as ``text``, which is a method of those of text themselves.
    """
    inner = getattr(codec, "text", None)
    return codec if callable(inner) else inner


def save_codec(codec: Codec) -> dict[str, bytes]:
    """The codec as documents of a checkpoint, under ``codec/``."""
    kind = extensions.own_name(type(codec))
    files = {_PREFIX + name: content for name, content in codec.save().items()}
    return {**files, _PREFIX + "kind.json": json.dumps({"kind": kind}).encode()}


def load_codec(documents: Mapping[str, bytes]) -> Codec:
    """The codec that ``save_codec`` wrote."""
    try:
        kind = json.loads(documents[_PREFIX + "kind.json"])["kind"]
    except (KeyError, ValueError) as error:
        raise CorruptError(
            f"checkpoint: codec/kind.json is missing or broken ({error}); take another checkpoint"
        ) from error
    files = {k.removeprefix(_PREFIX): v for k, v in documents.items() if k.startswith(_PREFIX)}
    codec: Codec = codec_class(kind).load(files)
    return codec
