"""What every model family offers, and the lookup by module name."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

from torch import nn

from modelwright import extensions, rooms
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.models.reading import Inputs
from modelwright.options import checked

_IS_FAMILY = rooms.defines("Config")
_EXACT = ("features", "channels")  # fields that must be what the data have, not only as large


@dataclass(frozen=True)
class ModelConfig(ABC):
    """The numbers that define a model; a family's ``Config`` extends it.

    ``build()`` makes the module with freshly initialised parameters, drawn from torch's global
    generator. ``data_fields`` gives the sizes that only the data knows (classes, features).
    ``specimen`` holds the fields of a tiny member, so that every family can be tested.
    """

    family: ClassVar[str]
    optimizer: ClassVar[str] = "adamw"  # used unless the recipe names one
    compiles: ClassVar[bool] = False  # whether the module names ``regions`` worth compiling
    # Times the speed that compiling still gives a bfloat16 step on a CPU, where kernels of ours
    # join the passes around the products already; 0 where none do.
    fused: ClassVar[float] = 0.0
    opaque: ClassVar[bool] = False  # whether torch's compiler cannot follow its forward
    specimen: ClassVar[dict[str, Any]]
    sizes: ClassVar[dict[str, dict[str, Any]]] = {}  # named members: name -> fields

    @abstractmethod
    def build(self) -> nn.Module:
        """The module, on the current default device, in float32."""

    @classmethod
    @abstractmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The fields that a fitted codec decides, e.g. the vocabulary."""

    def inputs(self, rows: int, *, short: bool = False) -> Inputs | None:  # noqa: ARG002
        """A made-up batch as ``forward`` reads it, one of ``models/reading.py``; None: not known.

        Its rows are as long as the model reads them, or a few positions long, if ``short``.
        """
        return None

    def stretched(self, context: int, kind: str) -> dict[str, Any]:  # noqa: ARG002
        """The fields that change where texts of ``context`` tokens are to be read from now on.

        ``kind`` is how rotary positions are stretched: "linear", "ntk" or "yarn" (``models/rope``).

        Raises:
            ModelwrightError: the family cannot read longer texts, or these are none.
        """
        raise ModelwrightError(
            f"context: the family {self.family} has no rotary positions to stretch"
        )

    @classmethod
    def of_size(cls, parameters: int, fixed: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG003
        """Shape fields for about ``parameters`` parameters; ``fixed`` are already decided."""
        return {}

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:  # noqa: ARG002
        """FLOPs of forward and backward for one position that is computed (a token, an image).

        ``learned`` is the share of the positions that reach the head: in fine-tuning most are
        given. ``length`` is the mean number of positions in a row, which attention looks back on
        (None: the whole context). Families that have neither ignore them.
        """
        return 6.0 * sum(p.numel() for p in self.build().parameters())

    def to_dict(self) -> dict[str, Any]:
        """The config as plain values, for a checkpoint; ``from_dict`` reads it."""
        return {"family": self.family, **dataclasses.asdict(self)}


def outputs_of(codec: Any, *, one_for_two: bool = False) -> int:
    """How many numbers a head gives an example: as the codec says, else one for each label.

    ``one_for_two``: a single logit where there are two labels, as families have it that use it.
    """
    known: int | None = getattr(codec, "outputs", None)
    if known is not None:
        return known
    labels = len(codec.labels)
    return 1 if one_for_two and labels == 2 else labels


def families() -> list[str]:
    """The module names of all model families."""
    return rooms.members(_room(), _IS_FAMILY)


def config_class(family: str) -> type[ModelConfig]:
    """The ``Config`` class of a family: a module of this room, or a file of the user's own."""
    if extensions.is_reference(family):
        own: type[ModelConfig] = extensions.member(family, "Config", "a model family")
        return own
    module = rooms.member(_room(), family, _IS_FAMILY)
    if module is None:
        hint = did_you_mean(family, families())
        raise ModelwrightError(
            f"model.family: no family {family!r}{hint}; known: {', '.join(families())}"
        )
    found: type[ModelConfig] = module.Config
    return found


def is_family(name: str) -> bool:
    """Whether a module of this room is a family; others are parts that families share."""
    return rooms.member(_room(), name, _IS_FAMILY) is not None


def _room() -> ModuleType:
    import modelwright.models as room  # noqa: PLC0415 - the room itself, of which this is a part

    return room


def from_dict(values: Mapping[str, Any]) -> ModelConfig:
    """The config of a checkpoint; unknown and mistyped fields are refused."""
    cls = config_class(str(values.get("family")))
    return cls(**checked_fields(cls, {k: v for k, v in values.items() if k != "family"}))


def checked_fields(cls: type[ModelConfig], values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a config as the types it declares.

    Raises:
        ModelwrightError: one is unknown (the nearest is named) or of a wrong type.
    """
    known = [f.name for f in dataclasses.fields(cls)]
    for name in values:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ModelwrightError(
                f"model.{name}: not a field of {extensions.short(cls.family)}{hint};"
                f" known: {', '.join(known)}"
            )
    return checked("model", cls, values, joint=".")


def of_named_size(cls: type[ModelConfig], given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``given``, a ``size`` among them replaced by what its name stands for.

    A field that is given beside the name wins over it.

    Raises:
        ModelwrightError: the family has no member of that name.
    """
    fields = {k: v for k, v in given.items() if k != "size"}
    return {**_of_name(cls, given.get("size")), **fields}


def _of_name(cls: type[ModelConfig], name: Any) -> dict[str, Any]:
    if name is None:
        return {}
    if name not in cls.sizes:
        known = ", ".join(cls.sizes) or "none"
        raise ModelwrightError(
            f"model.size: no {cls.family} is called {name!r}{did_you_mean(str(name), cls.sizes)};"
            f" known: {known}"
        )
    return dict(cls.sizes[name])


def fields_for(cls: type[ModelConfig], codec: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that the recipe gives, and those that the data decide through the codec.

    A named ``size`` gives way to both: it says the shape, the data the vocabulary and the like.

    Raises:
        ModelwrightError: the family does not read what this codec makes, or a size is given that
            is too small for the data.
    """
    try:
        needed = cls.data_fields(codec)
    except AttributeError as error:
        if error.obj is not codec:
            raise  # a mistake in the family's own code
        kind = extensions.short(extensions.own_name(type(codec)))
        raise ModelwrightError(
            f"model.family: a {extensions.short(cls.family)} cannot read what the {kind} codec of"
            " this task makes; leave model.family out to take the task's own"
        ) from None
    for name, size in needed.items():
        if name not in given or not isinstance(size, int):
            continue
        if given[name] < size or (name in _EXACT and given[name] != size):
            raise ModelwrightError(
                f"model.{name}: the data need {size}, not {given[name]}; leave it out"
            )
    fields = {k: v for k, v in given.items() if k != "size"}
    return {**_of_name(cls, given.get("size")), **needed, **fields}
