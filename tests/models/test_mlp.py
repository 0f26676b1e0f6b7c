"""The perceptron: its formula, its start, and its refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.errors import ModelwrightError
from modelwright.models.mlp import Config

FUNCTIONS = {
    "relu": lambda z: np.maximum(z, 0),
    "tanh": np.tanh,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@settings(max_examples=25, deadline=None)
@given(
    hidden=st.lists(st.integers(1, 9), max_size=3),
    sizes=st.tuples(st.integers(1, 7), st.integers(1, 5)),
    seed=st.integers(0, 2**31),
)
def test_the_formula(name: str, hidden: list[int], sizes: tuple[int, int], seed: int) -> None:
    torch.manual_seed(seed)
    model = Config(sizes[0], sizes[1], tuple(hidden), activation=name).build()
    x = torch.randn(3, sizes[0])
    a = x.numpy().astype(np.float64)
    for i, layer in enumerate(model.layers):
        z = a @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        a = FUNCTIONS[name](z) if i < len(hidden) else z
    np.testing.assert_allclose(model(x).detach().numpy(), a, rtol=1e-4, atol=1e-5)


def test_images_are_flattened_row_by_row() -> None:
    model = Config(12, 2).build()
    images = torch.randn(5, 3, 4)
    assert torch.equal(model(images), model(images.reshape(5, 12)))


def test_the_textbook_network_has_the_textbook_parameters() -> None:
    config = Config(784, 10)
    count = 784 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10
    assert sum(p.numel() for p in config.build().parameters()) == count == 109_386
    assert config.flops_per_item() == 6 * (784 * 128 + 128 * 64 + 64 * 10)


def test_parameters_start_uniform_below_one_over_the_root_of_fan_in() -> None:
    torch.manual_seed(0)
    first = Config(784, 10).build().layers[0]
    for p in (first.weight, first.bias):
        assert p.abs().max() <= 1 / math.sqrt(784)
        assert p.std().item() == pytest.approx(1 / math.sqrt(3 * 784), rel=0.15)


def test_widths_from_yaml_are_a_tuple_and_must_be_positive() -> None:
    assert Config(4, 2, [3, 3]) == Config(4, 2, (3, 3))  # type: ignore[arg-type]
    with pytest.raises(ModelwrightError, match=r"model\.hidden: 0 is not a positive width"):
        Config(4, 2, (3, 0))
    with pytest.raises(ModelwrightError, match=r"no activation 'rely' \(did you mean 'relu'\?\)"):
        Config(4, 2, activation="rely")
