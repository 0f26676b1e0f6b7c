"""Which module of this room knows a ``model_type``, and which writes a model of ours."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Sequence
from typing import cast

from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.extensions import short
from modelwright.hub.names import Family
from modelwright.models.model import ModelConfig

_STATE_FILES = ("torchvision", "timm")  # names of tensors without a layout of folders
_OWN_PICTURES = "own_pictures"  # what of pictures no other layout has


@functools.cache
def families() -> dict[str, Family]:
    """Module name -> module, of all families of published checkpoints: those with model_types."""
    import modelwright.hub as room  # noqa: PLC0415 - the room itself, for its path

    found = {}
    for name in sorted(m.name for m in pkgutil.iter_modules(room.__path__)):
        module = importlib.import_module(f"modelwright.hub.{name}")
        if isinstance(getattr(module, "model_types", None), Sequence):
            found[name] = cast(Family, module)
    return found


def supported() -> list[str]:
    """All that ``model_type`` of a config.json may be."""
    kinds = {kind for family in families().values() for kind in family.model_types}
    return sorted(kinds - {"adapted"})  # which no file says


def family_of(model_type: str, where: str) -> Family:
    """The family that reads a ``model_type``.

    Raises:
        ModelwrightError: there is none; the nearest and all that there are are named.
    """
    for family in families().values():
        if model_type in family.model_types:
            return family
    known = supported()
    raise ModelwrightError(
        f"{where}: model_type {model_type!r} is not supported{did_you_mean(model_type, known)}; "
        f"supported: {', '.join(known)}; others may do with `through: transformers` under model"
    )


def writer_of(config: ModelConfig, model_type: str | None = None) -> Family:
    """The family that writes a model of ours.

    Args:
        config: of the model.
        model_type: of the checkpoint that it came from, if it came from one.

    Raises:
        ModelwrightError: there is none for this family of models.
    """
    if model_type is not None and model_type not in _STATE_FILES:
        return family_of(model_type, "export")
    own = families()[_OWN_PICTURES]
    found = families().get(config.family)
    if found is not None and (config.family not in own.architectures or _has(found, config)):
        return found
    if config.family in own.architectures:
        return own
    for name in _STATE_FILES:  # which this house alone reads as a folder
        if config.family in families()[name].architectures:
            return families()[name]
    raise ModelwrightError(
        f"export: there is no published layout for a {short(config.family)}; "
        f"there is one for: {', '.join(families())}"
    )


def _has(family: Family, config: ModelConfig) -> bool:
    """Whether the layout of a family has this member."""
    try:
        family.layout(config)
    except ModelwrightError:
        return False
    return True
