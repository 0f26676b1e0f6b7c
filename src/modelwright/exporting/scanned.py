"""Recurrent networks as a graph of any length: their steps as one scan over time.

The trained modules walk through time in Python, or hand packed rows to PyTorch, neither of which
a graph holds. The same equations with the same parameters stand here, step by step; a row's state
stays as it was once the row has ended, and the backward direction begins at its last true frame.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan

from modelwright.models.rnn import Recurrent, Stacked

State = tuple[Tensor, ...]  # (h,), or (h, c) of an LSTM: (B, hidden) each
Cell = Callable[[State, Tensor], State]  # from a state and what the frame drives


class Scanned(nn.Module):
    """Answers as the trained module it is made from: frames (B, T, features), lengths (B,)."""

    def __init__(self, model: Recurrent | Stacked) -> None:
        super().__init__()
        self.trained = model

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, outputs)."""
        if isinstance(self.trained, Recurrent):
            state, _ = _plain(self.trained, frames, lengths)
        else:
            state = _stacked(self.trained, frames, lengths)
        logits: Tensor = self.trained.output(state)
        return logits


def _plain(model: Recurrent, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    hidden_weight = model.hidden_weight

    def cell(state: State, drive: Tensor) -> State:
        return (model.activation(drive + state[0] @ hidden_weight.T),)

    driven = F.linear(frames, model.input_weight, model.hidden_bias)
    return _through(cell, driven, lengths, model.config.hidden, 1)


def _stacked(model: Stacked, frames: Tensor, lengths: Tensor) -> Tensor:
    """The last layer's states after the last true frame, both directions behind one another."""
    steps = torch.arange(frames.shape[1], device=frames.device)
    mirrored = (lengths[:, None] - 1 - steps).clamp(min=0)  # (B, T): frame t from the end
    x, ends = frames, list[Tensor]()
    for layer in range(model.config.layers):
        ends, outputs = [], []
        for suffix in ("", "_reverse")[: 1 + model.config.bidirectional]:
            turned = mirrored[..., None].expand(-1, -1, x.shape[2])
            read = x.gather(1, turned) if suffix else x
            state, states = _layer(model, read, lengths, f"_l{layer}{suffix}")
            back = mirrored[..., None].expand(-1, -1, states.shape[2])
            ends.append(state)
            outputs.append(states.gather(1, back) if suffix else states)
        x = torch.cat(outputs, dim=2)
    return torch.cat(ends, dim=1)


def _layer(model: Stacked, x: Tensor, lengths: Tensor, suffix: str) -> tuple[Tensor, Tensor]:
    parameter = model.recurrent.get_parameter
    weight, bias = parameter(f"weight_hh{suffix}"), parameter(f"bias_hh{suffix}")
    driven = F.linear(x, parameter(f"weight_ih{suffix}"), parameter(f"bias_ih{suffix}"))
    kind = model.config.cell
    relu = kind == "elman" and model.config.activation == "relu"

    def elman(state: State, drive: Tensor) -> State:
        new = drive + F.linear(state[0], weight, bias)
        return (torch.relu(new) if relu else torch.tanh(new),)

    def gru(state: State, drive: Tensor) -> State:
        (h,) = state
        r, z, n = drive.chunk(3, dim=1)
        hr, hz, hn = F.linear(h, weight, bias).chunk(3, dim=1)
        z = torch.sigmoid(z + hz)
        return ((1 - z) * torch.tanh(n + torch.sigmoid(r + hr) * hn) + z * h,)

    def lstm(state: State, drive: Tensor) -> State:
        h, c = state
        i, f, g, o = (drive + F.linear(h, weight, bias)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    cell: Cell = {"elman": elman, "gru": gru, "lstm": lstm}[kind]
    return _through(cell, driven, lengths, model.config.hidden, 2 if kind == "lstm" else 1)


def _through(
    cell: Cell, driven: Tensor, lengths: Tensor, hidden: int, parts: int
) -> tuple[Tensor, Tensor]:
    """The state (B, hidden) after every row's last true frame, and all states (B, T, hidden)."""
    drives = driven.transpose(0, 1)
    numbers = torch.arange(driven.shape[1], device=driven.device)
    zeros = tuple(driven.new_zeros(driven.shape[0], hidden) for _ in range(parts))

    def step(state: State, now: tuple[Tensor, Tensor]) -> tuple[State, Tensor]:
        drive, number = now
        true = (number < lengths)[:, None]
        new = cell(state, drive)
        kept = tuple(torch.where(true, n, s) for n, s in zip(new, state, strict=True))
        return kept, kept[0].clone()

    state, states = cast(tuple[State, Tensor], scan(step, zeros, (drives, numbers)))
    return state[0], states.transpose(0, 1)
