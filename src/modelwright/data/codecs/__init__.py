"""Codecs: turns to arrays and back, one kind a file; found by module name."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterable, Mapping
from typing import Any

from modelwright import extensions
from modelwright.errors import CorruptError, ModelwrightError, did_you_mean
from modelwright.options import checked
from modelwright.types import Codec, Example

__all__ = ["codec_class", "codec_options", "fit_codec", "kinds", "load_codec", "save_codec"]

_PREFIX = "codec/"
_COMES_ALONG = {"published_text"}  # with a published checkpoint; no task names it


def kinds() -> list[str]:
    """The module names of all codecs that a task may name."""
    return sorted({m.name for m in pkgutil.iter_modules(__path__)} - _COMES_ALONG)


def codec_class(kind: str) -> Any:
    """The ``Codec`` class of a kind: a module of this room, or a file of the user's own."""
    if extensions.is_reference(kind):
        return extensions.member(kind, "Codec", "a codec")
    if kind not in kinds() and kind not in _COMES_ALONG:
        hint = did_you_mean(kind, kinds())
        raise ModelwrightError(f"codec: no codec {kind!r}{hint}; known: {', '.join(kinds())}")
    return importlib.import_module(f"{__name__}.{kind}").Codec


def fit_codec(kind: str, examples: Iterable[Example], options: Mapping[str, Any]) -> Codec:
    """A codec fitted on ``examples``, which must be those of the train split (law 11)."""
    codec: Codec = codec_class(kind).fit(examples, **codec_options(kind, options))
    return codec


def codec_options(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the codec's fit, checked; a mistyped one is refused."""
    fit = codec_class(kind).fit
    return checked(f"codec {extensions.short(kind)}", fit, options, apart=("examples",))


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
