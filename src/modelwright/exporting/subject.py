"""What is exported, and the stored samples by which the result is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from modelwright.errors import ModelwrightError
from modelwright.hub.peft_files import Tuned
from modelwright.models.model import ModelConfig
from modelwright.types import Batch, Codec, Example, Objective


@dataclass(frozen=True)
class Subject:
    """A trained model with all that an artefact must bring along, and what it is compared on.

    Attributes:
        model: in evaluation mode on the CPU, float32.
        config: of the model.
        codec: of the model: an artefact repeats what it does before ``forward``.
        objective: makes batches and judges them.
        model_type: of the published checkpoint that training began from, or None.
        examples: a few held-out examples as they were stored, uncut; pictures as their files.
        batches: what the model reads of the same part: an example each, or a window of a stream.
        part: where they come from: "tune/test".
        tuned: the adapter apart from its base, where the stage trained one.
    """

    model: nn.Module
    config: ModelConfig
    codec: Codec
    objective: Objective
    model_type: str | None
    examples: tuple[Example, ...]
    batches: tuple[Batch, ...]
    part: str
    tuned: Tuned | None = None

    def name(self, number: int) -> str:
        """Batch ``number`` as messages name it."""
        return f"sample {number + 1} of {self.part}"

    def example_name(self, number: int) -> str:
        """Example ``number`` as messages name it."""
        return f"example {number + 1} of {self.part}"

    @property
    def settings(self) -> Mapping[str, Any]:
        """The names of the labels as published configs write them; empty without labels."""
        labels = getattr(self.codec, "labels", None)
        if labels is None:
            return {}
        return {
            "id2label": {str(i): name for i, name in enumerate(labels)},
            "label2id": {name: i for i, name in enumerate(labels)},
        }


@dataclass(frozen=True)
class Options:
    """What a user may choose of an artefact; a format refuses what it cannot do.

    Attributes:
        dtype: of the weights; None: as they are, float32.
        shard_bytes: of a weight file at most.
        quantization: of the weights, by the format's own name; None: none.
    """

    dtype: torch.dtype | None = None
    shard_bytes: int = 5 * 10**9
    quantization: str | None = None


def same_tokens(
    ids: Sequence[int], meant: Sequence[int], where: str, who: str = "the written tokenizer"
) -> None:
    """Check the tokens that an artefact gives a text.

    Args:
        ids: what it gives.
        meant: what the trained model reads.
        where: the example in messages.
        who: gives them.

    Raises:
        ModelwrightError: they differ; names the example and the token.
    """
    if list(ids) == list(meant):
        return
    least = min(len(ids), len(meant))
    at = next((i for i in range(least) if ids[i] != meant[i]), least)
    raise ModelwrightError(
        f"export: {who} differs: {where}: token {at + 1} is "
        f"{ids[at] if at < len(ids) else 'missing'}, "
        f"{meant[at] if at < len(meant) else 'nothing'} is meant; nothing was exported"
    )
