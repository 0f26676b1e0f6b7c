"""The recurrent network: its formula, true last steps, and the order that a bag forgets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modelwright.errors import ModelwrightError
from modelwright.models import bag_of_frames, rnn


def test_the_formula_step_by_step() -> None:
    torch.manual_seed(0)
    model = rnn.Config(features=3, outputs=2, hidden=4).build()
    frames = torch.randn(1, 6, 3)
    w_hx, w_hh, b_h = (
        p.detach().numpy() for p in (model.input_weight, model.hidden_weight, model.hidden_bias)
    )
    h = np.zeros(4)
    for x in frames[0].numpy():
        h = 1 / (1 + np.exp(-(w_hx @ x + w_hh @ h + b_h)))
    z = model.output.weight.detach().numpy() @ h + model.output.bias.detach().numpy()
    logits = model(frames, torch.tensor([6])).detach().numpy()
    np.testing.assert_allclose(logits[0], z, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_it_computes_what_torchs_own_recurrent_layer_computes(activation: str) -> None:
    torch.manual_seed(0)
    model = rnn.Config(features=3, outputs=1, hidden=8, activation=activation).build()
    theirs = nn.RNN(3, 8, nonlinearity=activation, batch_first=True)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(model.input_weight)
        theirs.weight_hh_l0.copy_(model.hidden_weight)
        theirs.bias_ih_l0.copy_(model.hidden_bias)
        theirs.bias_hh_l0.zero_()
    frames, lengths = torch.randn(4, 7, 3), torch.tensor([7, 5, 2, 1])
    packed = nn.utils.rnn.pack_padded_sequence(frames, lengths, batch_first=True)
    last = theirs(packed)[1][0]
    torch.testing.assert_close(model(frames, lengths), model.output(last))


@pytest.mark.parametrize("room", [rnn, bag_of_frames])
@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    extra=st.integers(0, 4),
    rubbish=st.sampled_from([0.0, 1e30, -1e30]),
)
def test_law_4_what_lies_in_the_padding_changes_nothing(
    room: object, lengths: list[int], extra: int, rubbish: float
) -> None:
    torch.manual_seed(0)
    model = room.Config(features=3, outputs=2).build()  # type: ignore[attr-defined]
    total = max(lengths) + extra
    frames, counts = torch.randn(len(lengths), total, 3), torch.tensor(lengths)
    padding = torch.arange(total) >= counts[:, None]
    filled = frames.masked_fill(padding[:, :, None], rubbish)
    logits = model(filled, counts)
    logits.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert torch.equal(logits, model(frames, counts))
    for i, n in enumerate(lengths):
        alone = model(frames[i : i + 1, :n], counts[i : i + 1])
        torch.testing.assert_close(logits[i : i + 1], alone)


def test_order_matters_to_the_network_and_not_to_the_bag() -> None:
    torch.manual_seed(0)
    frames, lengths = torch.randn(2, 5, 3), torch.tensor([5, 5])
    bag = bag_of_frames.Config(features=3, outputs=2).build()
    torch.testing.assert_close(bag(frames, lengths), bag(frames.flip(1), lengths))
    net = rnn.Config(features=3, outputs=2).build()
    assert (net(frames, lengths) - net(frames.flip(1), lengths)).abs().max() > 1e-3


def test_parameters_start_uniform_below_one_over_the_root_of_hidden() -> None:
    torch.manual_seed(0)
    model = rnn.Config(features=128, outputs=1).build()
    for p in model.parameters():
        assert p.abs().max() <= 1 / math.sqrt(128)
    assert model.hidden_weight.std().item() == pytest.approx(1 / math.sqrt(3 * 128), rel=0.05)


def test_flops_grow_with_the_length() -> None:
    one, two = (rnn.Config(128, 1, mean_length=n).flops_per_item() for n in (10, 20))
    assert two - one == 6 * 10 * 128 * 256


@pytest.mark.parametrize(("labels", "outputs"), [(2, 1), (3, 3), (10, 10)])
def test_two_classes_have_one_output(labels: int, outputs: int) -> None:
    class Codec:
        features, mean_length = 5, 2.0

    Codec.labels = [str(i) for i in range(labels)]  # type: ignore[attr-defined]
    assert rnn.Config.data_fields(Codec)["outputs"] == outputs
    assert bag_of_frames.Config.data_fields(Codec)["outputs"] == outputs


def test_sizes_must_be_positive() -> None:
    with pytest.raises(ModelwrightError, match=r"model\.hidden: 0 is not positive"):
        rnn.Config(3, 1, hidden=0)
