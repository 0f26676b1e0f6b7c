"""GRU, LSTM, layers and directions: their formulas, and padding that changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modelwright.errors import ModelwrightError
from modelwright.models import rnn

SHAPES: dict[str, dict[str, Any]] = {
    "gru": {"cell": "gru"},
    "lstm": {"cell": "lstm"},
    "bilstm-2": {"cell": "lstm", "bidirectional": True, "layers": 2},
    "bigru": {"cell": "gru", "bidirectional": True},
    "elman-2": {"layers": 2, "activation": "tanh"},
    "bielman": {"bidirectional": True, "activation": "relu"},
}
every_shape = pytest.mark.parametrize("name", SHAPES)


def built(name: str, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    return rnn.Config(features=3, outputs=2, hidden=4, **SHAPES[name], **more).build().eval()


@every_shape
@settings(max_examples=12, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    extra=st.integers(0, 3),
    rubbish=st.sampled_from([0.0, 1e30, float("nan")]),
)
def test_law_4_what_lies_in_the_padding_changes_nothing(
    name: str, lengths: list[int], extra: int, rubbish: float
) -> None:
    model = built(name)
    total = max(lengths) + extra
    frames, counts = torch.randn(len(lengths), total, 3), torch.tensor(lengths)
    padding = torch.arange(total) >= counts[:, None]
    filled = frames.masked_fill(padding[:, :, None], rubbish)
    logits = model(filled, counts)
    logits.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert torch.equal(logits, model(frames, counts))
    for i, n in enumerate(lengths):
        alone = model(frames[i : i + 1, :n], counts[i : i + 1])
        torch.testing.assert_close(logits[i : i + 1], alone)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def test_the_lstm_step_by_step() -> None:
    model = built("lstm")
    parts = [p.detach().numpy() for p in model.recurrent.parameters()]
    w_x, w_h, b_x, b_h = parts
    frames = torch.randn(1, 5, 3)
    h, c = np.zeros(4), np.zeros(4)
    for x in frames[0].numpy():
        i, f, g, o = np.split(w_x @ x + b_x + w_h @ h + b_h, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    logits = model(frames, torch.tensor([5])).detach().numpy()[0]
    wanted = model.output.weight.detach().numpy() @ h + model.output.bias.detach().numpy()
    np.testing.assert_allclose(logits, wanted, rtol=1e-5, atol=1e-6)


def test_the_gru_step_by_step() -> None:
    model = built("gru")
    w_x, w_h, b_x, b_h = (p.detach().numpy() for p in model.recurrent.parameters())
    frames = torch.randn(1, 5, 3)
    h = np.zeros(4)
    for x in frames[0].numpy():
        (r_x, z_x, n_x), (r_h, z_h, n_h) = np.split(w_x @ x + b_x, 3), np.split(w_h @ h + b_h, 3)
        r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
        h = (1 - z) * np.tanh(n_x + r * n_h) + z * h
    logits = model(frames, torch.tensor([5])).detach().numpy()[0]
    wanted = model.output.weight.detach().numpy() @ h + model.output.bias.detach().numpy()
    np.testing.assert_allclose(logits, wanted, rtol=1e-5, atol=1e-6)


def test_the_second_direction_reads_from_the_last_true_frame() -> None:
    """With the weights of one direction in both, a row and its mirror exchange their halves."""
    model = built("bigru")
    with torch.no_grad():
        for name, p in model.recurrent.named_parameters():
            if name.endswith("_reverse"):
                p.copy_(getattr(model.recurrent, name.removesuffix("_reverse")))
        model.output.weight[:, 4:] = model.output.weight[:, :4]
    frames = torch.randn(1, 6, 3)
    mirrored = frames.clone()
    mirrored[:, :4] = frames[:, :4].flip(1)
    torch.testing.assert_close(model(frames, torch.tensor([4])), model(mirrored, torch.tensor([4])))


@every_shape
def test_flops_are_six_for_each_weight_and_frame(name: str) -> None:
    fields = {"features": 3, "outputs": 2, "hidden": 4, **SHAPES[name]}
    one, ten = (rnn.Config(**fields, mean_length=n).flops_per_item() for n in (1.0, 11.0))
    model = rnn.Config(**fields).build()
    weights = sum(p.numel() for n, p in model.recurrent.named_parameters() if "weight" in n)
    assert ten - one == pytest.approx(60 * weights)


def test_dropout_acts_between_layers_in_training_alone() -> None:
    model = built("bilstm-2", dropout=0.5)
    frames, lengths = torch.randn(2, 5, 3), torch.tensor([5, 2])
    assert torch.equal(model(frames, lengths), model(frames, lengths))
    model.train()
    assert not torch.equal(model(frames, lengths), model(frames, lengths))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"layers": 2}, r"model\.activation: 'sigmoid' with several layers"),
        ({"bidirectional": True}, r"model\.activation: 'sigmoid'"),
        ({"cell": "gru", "dropout": 0.1}, r"model\.dropout: acts between layers"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelwrightError, match=said):
        rnn.Config(features=3, outputs=2, **fields)
