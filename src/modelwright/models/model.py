"""What every model family offers, and the lookup by module name."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from modelwright.errors import ModelwrightError, did_you_mean

# Shared parts in this room.
_NOT_FAMILIES = {"model", "layers", "activations", "attention", "likelihood"}


@dataclass(frozen=True)
class ModelConfig:
    """The numbers that define a model; a family's ``Config`` extends it.

    ``build()`` makes the module with freshly initialised parameters, drawn from torch's global
    generator. ``data_fields`` gives the sizes that only the data knows (classes, features).
    ``specimen`` holds the fields of a tiny member, so that every family can be tested.
    """

    family: ClassVar[str]
    specimen: ClassVar[dict[str, Any]]

    def build(self) -> nn.Module:
        """The module, on the current default device, in float32."""
        raise NotImplementedError(f"{type(self).__name__} does not build a model")

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The fields that a fitted codec decides, e.g. the vocabulary."""
        raise NotImplementedError(f"{cls.__name__} does not say what a codec decides")

    @classmethod
    def of_size(cls, parameters: int, fixed: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG003
        """Shape fields for about ``parameters`` parameters; ``fixed`` are already decided."""
        return {}

    def flops_per_item(self) -> float:
        """FLOPs of forward and backward for one item of the loss (a token, an image)."""
        return 6.0 * sum(p.numel() for p in self.build().parameters())

    def to_dict(self) -> dict[str, Any]:
        """The config as plain values, for a checkpoint; ``from_dict`` reads it."""
        return {"family": self.family, **dataclasses.asdict(self)}


def families() -> list[str]:
    """The module names of all model families."""
    import modelwright.models as room  # noqa: PLC0415 - the room itself, for its path

    names = (m.name for m in pkgutil.iter_modules(room.__path__))
    return sorted(n for n in names if n not in _NOT_FAMILIES)


def config_class(family: str) -> type[ModelConfig]:
    """The ``Config`` class of a family: a closed set, the modules of this room."""
    if family not in families():
        hint = did_you_mean(family, families())
        raise ModelwrightError(
            f"model.family: no family {family!r}{hint}; known: {', '.join(families())}"
        )
    module = importlib.import_module(f"modelwright.models.{family}")
    found: type[ModelConfig] = module.Config
    return found


def from_dict(values: Mapping[str, Any]) -> ModelConfig:
    """The config of a checkpoint; unknown fields are refused."""
    cls = config_class(str(values.get("family")))
    given = {k: v for k, v in values.items() if k != "family"}
    known = {f.name for f in dataclasses.fields(cls)}
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ModelwrightError(f"model.{name}: not a field of {cls.family}{hint}")
    return cls(**given)
