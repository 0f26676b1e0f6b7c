"""Recurrent networks over sequences of frames: plain, GRU and LSTM.

The plain one (Elman, Cognitive Science 14, 1990), one layer read forwards:

h_t = σ(W_hx x_t + W_hh h_{t-1} + b_h),  h_0 = 0,  logits = W_oh h_T + b_o at the last true step T.

GRU (arXiv:1406.1078) and LSTM (Neural Computation 9, 1997, with forget gates) put gates around
the state; several layers read each other's states, and of two directions the second begins at the
last true frame. All see true frames only: what lies in the padding changes nothing (law 4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.models import reading
from modelwright.models.activations import activation
from modelwright.models.model import ModelConfig, outputs_of

GATES = {"elman": 1, "gru": 3, "lstm": 4}  # matrices of a cell for each that the plain one has


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of a recurrent classifier.

    ``outputs`` is 1 for two classes (one logit, log p(second) / p(first)), else the number of
    classes. ``cell`` is "elman", "gru" or "lstm"; ``activation`` is the plain cell's. ``dropout``
    is the share of numbers zeroed in training between layers. ``mean_length`` is the mean number
    of frames of an example: only the FLOPs use it.
    """

    family: ClassVar[str] = "rnn"
    inputs = reading.frames
    specimen: ClassVar[dict[str, Any]] = {"features": 4, "outputs": 3, "hidden": 5}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "gru": {"cell": "gru"},
        "lstm": {"cell": "lstm"},
        "bilstm": {"cell": "lstm", "bidirectional": True},
        "bilstm-2": {"cell": "lstm", "bidirectional": True, "layers": 2},
    }
    features: PositiveInt
    outputs: PositiveInt
    hidden: PositiveInt = 128
    activation: str = "sigmoid"
    mean_length: PositiveFloat = 1.0
    cell: Literal["elman", "gru", "lstm"] = "elman"
    layers: PositiveInt = 1
    bidirectional: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def __post_init__(self) -> None:
        activation(self.activation)
        if self.cell == "elman" and not self.plain and self.activation not in ("tanh", "relu"):
            raise ModelwrightError(
                f"model.activation: {self.activation!r} with several layers or two directions;"
                " choose tanh or relu, or cell: gru or lstm"
            )
        if self.dropout and self.layers == 1:
            raise ModelwrightError(
                "model.dropout: acts between layers, and there is one; leave it out or raise"
                " model.layers"
            )
        for name in ("features", "outputs", "hidden"):
            if getattr(self, name) < 1:
                raise ModelwrightError(f"model.{name}: {getattr(self, name)} is not positive")

    @property
    def plain(self) -> bool:
        """Whether it is one plain layer, read forwards."""
        return self.cell == "elman" and self.layers == 1 and not self.bidirectional

    def build(self) -> Recurrent | Stacked:
        """The module with fresh parameters."""
        return Recurrent(self) if self.plain else Stacked(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The codec knows the width of a frame, the label set and how long sequences are."""
        return {
            "features": codec.features,
            "outputs": outputs_of(codec, one_for_two=True),
            "mean_length": codec.mean_length,
        }

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:  # noqa: ARG002
        """FLOPs of forward and backward for one sequence of ``mean_length`` frames."""
        directions = 1 + self.bidirectional
        read = self.features + (self.layers - 1) * directions * self.hidden
        step = directions * GATES[self.cell] * self.hidden * (read + self.layers * self.hidden)
        return 6.0 * (self.mean_length * step + directions * self.hidden * self.outputs)


class Recurrent(nn.Module):
    """Frames (B, T, features) of ``lengths`` (B,) to logits (B, outputs).

    Every parameter starts uniform in ±1/sqrt(hidden), torch's default for recurrent layers.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.input_weight = nn.Parameter(torch.empty(config.hidden, config.features))  # W_hx
        self.hidden_weight = nn.Parameter(torch.empty(config.hidden, config.hidden))  # W_hh
        self.hidden_bias = nn.Parameter(torch.empty(config.hidden))  # b_h
        self.output = nn.Linear(config.hidden, config.outputs)  # W_oh, b_o
        self.activation = activation(config.activation)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        bound = 1 / math.sqrt(self.config.hidden)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, outputs) after the last true frame, ``lengths`` >= 1.

        What lies beyond a row's length is never seen: its state stays as it was.
        """
        # W_hx x_t + b_h does not depend on the state: one product does it for all steps.
        driven = F.linear(frames, self.input_weight, self.hidden_bias)
        h = driven.new_zeros(len(frames), self.config.hidden)  # h_0
        for t, drive in enumerate(driven.unbind(1)):
            new = self.activation(drive + h @ self.hidden_weight.T)  # σ(W_hx x_t + b_h + W_hh h)
            h = torch.where((t < lengths)[:, None], new.to(h.dtype), h)
        logits: Tensor = self.output(h)
        return logits


class Stacked(nn.Module):
    """Gated cells, several layers or two directions, by PyTorch's recurrent layers.

    They are given the true frames alone, packed, and so never see padding. The logits are of the
    last layer's state after the last true frame, and of the backward direction's after the first.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        given: dict[str, Any] = {
            "input_size": config.features,
            "hidden_size": config.hidden,
            "num_layers": config.layers,
            "bidirectional": config.bidirectional,
            "dropout": config.dropout,
            "batch_first": True,
        }
        self.recurrent: nn.RNN | nn.GRU | nn.LSTM
        if config.cell == "elman":
            self.recurrent = nn.RNN(nonlinearity=config.activation, **given)
        else:
            self.recurrent = (nn.GRU if config.cell == "gru" else nn.LSTM)(**given)
        self.output = nn.Linear((1 + config.bidirectional) * config.hidden, config.outputs)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, outputs) of frames (B, T, features) of ``lengths`` (B,) >= 1."""
        packed = nn.utils.rnn.pack_padded_sequence(
            frames, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, state = self.recurrent(packed)
        last = state[0] if isinstance(state, tuple) else state  # an LSTM's state is (h, c)
        final = last.unflatten(0, (self.config.layers, -1))[-1]  # (directions, B, hidden)
        logits: Tensor = self.output(final.transpose(0, 1).flatten(1))
        return logits
