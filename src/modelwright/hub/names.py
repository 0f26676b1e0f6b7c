"""How the tensors of one of our models are stored in a published checkpoint.

A mapping is a list of entries, one for every tensor of ours. Most are a name; some are stored
transposed, several of ours may be joined in one of theirs, and some of theirs are stored twice
(tied) or not needed at all. Reading and writing go by the same list, so what is read can be
written back as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from modelwright.models.model import ModelConfig


@dataclass(frozen=True)
class Entry:
    """One tensor of ours in their file.

    Attributes:
        ours: its name in ``state_dict`` of our module.
        theirs: the name of the stored tensor.
        transposed: stored with its two dimensions exchanged (GPT-2's Conv1D).
        part: where several of ours are joined in one of theirs along ``axis``: (first, size) of
            this one, in the stored layout.
        axis: the dimension along which ``part`` counts.
        shape: the stored shape where it differs from ours by dimensions of size 1; None: as ours.
        offset: added to the stored values (Gemma's norms store gain - 1: offset 1).
        also: other names that it may be stored under; ``theirs`` is the one that is written.
    """

    ours: str
    theirs: str
    transposed: bool = False
    part: tuple[int, int] | None = None
    axis: int = 0
    shape: tuple[int, ...] | None = None
    offset: float = 0.0
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """All tensors of a checkpoint.

    Attributes:
        entries: one for every tensor of ours.
        passed: patterns (``fnmatch``) of stored tensors that are rightly not read: buffers,
            heads of another task, weights that are tied. They are listed when passed over.
        prefixes: a prefix that all stored names may carry or lack ("transformer.", "bert.").
        heads: patterns of ours that belong to the head, which a recipe's ``head: new`` replaces.
        kept: patterns among ``heads`` of what is read with a new head too, where it is stored:
            layers before the last that were trained for other tasks as well.
    """

    entries: Sequence[Entry]
    passed: Sequence[str] = ()
    prefixes: Sequence[str] = ("",)
    heads: Sequence[str] = ("output.*", "head.*", "transform.*", "transform_norm.*")
    kept: Sequence[str] = ()


class Family(Protocol):
    """A module ``hub/NAME.py``: one family of published checkpoints.

    Attributes:
        model_types: ``model_type`` of the config.json files that it reads.
        architectures: the class names that it can stand for, such as "GPT2LMHeadModel"; the
            first is what is written.
    """

    model_types: Sequence[str]
    architectures: Sequence[str]

    def config_from(self, stored: Mapping[str, Any]) -> ModelConfig:
        """Our config of their config.json; refuses by field what it cannot honour."""
        ...

    def config_to(self, config: ModelConfig) -> dict[str, Any]:
        """Their config.json of our config."""
        ...

    def layout(self, config: ModelConfig) -> Layout:
        """Where every tensor lies."""
        ...
