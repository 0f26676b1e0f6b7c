"""Answers that one pass of the model gives: labels, numbers, tags; with the codec of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from modelwright.errors import ModelwrightError
from modelwright.models.attention import mean_rows
from modelwright.types import (
    Answer,
    Array,
    Codec,
    Columns,
    Example,
    Objective,
    Turn,
    ragged_column,
    stack,
)

AT_ONCE = 64  # questions in one pass


class _Decoding(Protocol):
    def decode(self, outputs: Tensor) -> list[Turn]: ...


class Predictor:
    """A policy that answers with what the codec reads from the model's outputs.

    An objective that asks the model in another way than ``model(**inputs)`` offers
    ``predict(model, batch)``, which gives outputs (B, ...) as its codec's ``decode`` reads them.
    """

    def __init__(self, model: nn.Module, codec: Codec, objective: Objective) -> None:
        self.model, self.codec, self.objective = model, codec, objective

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:
        """One answer for each question."""
        parts = (given[i : i + AT_ONCE] for i in range(0, len(given), AT_ONCE))
        return [turn for part in parts for turn in self.answer_columns(self._columns(part))]

    def detailed(self, given: Sequence[Sequence[Turn]]) -> list[Answer]:
        """One answer for each question, with what its codec's ``details`` says of it."""
        found = []
        for first in range(0, len(given), AT_ONCE):
            columns = self._columns(given[first : first + AT_ONCE])
            outputs = self._outputs(columns)
            turns = self._decoded(outputs, columns)
            details = getattr(self.codec, "details", None)
            known = details(outputs) if details else [{}] * len(turns)
            found += [Answer(turn, more) for turn, more in zip(turns, known, strict=True)]
        return found

    def timed(self, given: Sequence[Sequence[Turn]]) -> list[Answer]:
        """One answer for each recording, with the times of its words: the codec's ``timed``.

        Each is heard alone, so that no frame is padding.
        """
        codec: Any = self.codec
        found = []
        for turns in given:
            columns = self._columns([turns])
            seconds = float(ragged_column(columns, "samples").lengths[0]) / codec.rate
            found.append(codec.timed(self._outputs(columns), seconds))
        return found

    def answer_columns(self, columns: Columns) -> list[Turn]:
        """One answer for each stored example."""
        return self._decoded(self._outputs(columns), columns)

    def weighed(self, columns: Columns) -> tuple[list[Turn], Array | None]:
        """One answer for each stored example, and the probabilities of all labels (B, labels).

        None instead, where the codec does not choose among labels.
        """
        outputs = self._outputs(columns)
        known = getattr(self.codec, "probabilities", None)
        weights = None if known is None else cast(Array, known(outputs).cpu().numpy())
        return self._decoded(outputs, columns), weights

    def _decoded(self, outputs: Tensor, columns: Columns) -> list[Turn]:
        """What the codec reads; its ``spelled`` adds what stands in the examples, such as words."""
        turns = cast(_Decoding, self.codec).decode(outputs)
        spelled = getattr(self.codec, "spelled", None)
        return turns if spelled is None else cast(list[Turn], spelled(turns, columns))

    def vectors(self, given: Sequence[Sequence[Turn]]) -> tuple[list[list[float]], int]:
        """The outputs themselves, a list of numbers for each text, and the tokens of all."""
        found: list[list[float]] = []
        count = 0
        for first in range(0, len(given), AT_ONCE):
            columns = self._columns(given[first : first + AT_ONCE])
            found += self._outputs(columns).tolist()
            count += len(ragged_column(columns, "tokens").values)
        return found, count

    def embed(self, given: Sequence[Sequence[Turn]]) -> tuple[list[list[float]], int]:
        """A vector of length 1 for each text, the mean of its stream, and the tokens of all.

        Raises:
            ModelwrightError: the model does not read packed documents of tokens.
        """
        found: list[list[float]] = []
        count = 0
        device = next(self.model.parameters()).device
        for first in range(0, len(given), AT_ONCE):
            columns = self._columns(given[first : first + AT_ONCE])
            with torch.inference_mode():
                inputs = self.objective.collate(columns, torch.Generator()).to(device).inputs
                if not {"tokens", "starts"} <= inputs.keys():
                    raise ModelwrightError("this model reads no tokens, so it has no vectors")
                tokens, starts = inputs["tokens"].flatten(), inputs["starts"]
                stream: Tensor = cast(Any, self.model).hidden(tokens, starts)
                means = normalize(mean_rows(stream.float(), starts), dim=1)
            found += means.tolist()
            count += len(tokens)
        return found, count

    def _columns(self, given: Sequence[Sequence[Turn]]) -> Columns:
        encoded = [self.codec.encode(Example(tuple(turns))) for turns in given]
        return stack(encoded, self.codec.ragged)

    def _outputs(self, columns: Columns) -> Tensor:
        device = next(self.model.parameters()).device
        generator = torch.Generator().manual_seed(0)
        with torch.inference_mode():
            batch = self.objective.collate(columns, generator).to(device)
            if hasattr(self.objective, "predict"):
                outputs: Tensor = self.objective.predict(self.model, batch)
            else:
                outputs = self.model(**batch.inputs)
            return outputs
