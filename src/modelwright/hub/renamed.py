"""Layouts of families whose tensors differ from the published ones by their names alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import torch

from modelwright.errors import ModelwrightError
from modelwright.hub.names import Entry
from modelwright.models.model import ModelConfig

Rules = Sequence[tuple[str, str]]


def tensor_names(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor of a model, in its order; nothing is computed."""
    with torch.device("meta"):
        return {name: tuple(t.shape) for name, t in config.build().state_dict().items()}


def renamed(config: ModelConfig, rules: Rules) -> Iterator[Entry]:
    """An entry for every tensor: the first rule whose pattern matches the whole name renames it.

    Args:
        config: whose tensors are named.
        rules: patterns of our names, and theirs, which may take in the groups of the pattern.

    Raises:
        ModelwrightError: no rule is about a name.
    """
    for name in tensor_names(config):
        for pattern, theirs in rules:
            if match := re.fullmatch(pattern, name):
                yield Entry(name, match.expand(theirs))
                break
        else:
            raise ModelwrightError(
                f"hub: {name} of this {config.family} has no name in these files; leave out the"
                " field of model that adds it"
            )
