"""The forecast of memory and time: against what autograd saves, what modules hold, and laws."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.models.decoder import Config
from modelwright.training import forecast
from modelwright.training.forecast import Rates, Work
from modelwright.training.optimizers import NAMES, build_optimizers
from modelwright.training.train import compute

SMALL = Config(vocabulary=97, depth=2, width=128, heads=4, kv_heads=2, context=61)
RATES = Rates({128: 50e9, 512: 100e9, 2048: 200e9}, 40e9, 20e9)


def saved_bytes(config: Config, precision: torch.dtype) -> int:
    """What the blocks save for their backward pass, parameters and copies of them aside."""
    torch.manual_seed(0)
    model = config.build()
    rows = 2
    positions = rows * config.context  # no product has this length by accident
    kept: dict[int, tuple[int, torch.Tensor]] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own and x.numel() % positions == 0:
            kept[storage.data_ptr()] = (storage.nbytes(), x)
        return x

    tokens = torch.zeros(rows, config.context, dtype=torch.long)
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x)
    with hooks, compute(precision, torch.device("cpu")):
        hidden = model.hidden(tokens)
    assert hidden.requires_grad
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "changes",
    [{}, {"kv_heads": 4}, {"feed_forward": "gated"}, {"shortcuts": True}, {"hidden": 256}],
    ids=str,
)
def test_the_activations_are_those_that_autograd_saves(
    precision: torch.dtype, changes: dict[str, object]
) -> None:
    config = dataclasses.replace(SMALL, **changes)
    deeper = dataclasses.replace(config, depth=4)
    real = (saved_bytes(deeper, precision) - saved_bytes(config, precision)) / 2 / 122
    work = Work(config, 2, precision=str(precision).removeprefix("torch."))
    assert forecast.activation_bytes(work)[0] == pytest.approx(real, rel=0.1)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "extra", [{}, {"value_embeddings": True, "shortcuts": True, "bigrams": 50}]
)
def test_parameters_are_counted_without_building(tied: bool, extra: dict[str, object]) -> None:
    config = dataclasses.replace(SMALL, tied=tied, depth=3, **extra)
    real = sum(p.numel() for p in config.build().parameters())
    assert forecast.parameter_count(config) == real


@pytest.mark.parametrize("name", NAMES)
def test_the_state_is_that_of_the_optimiser(name: str) -> None:
    model = SMALL.build()
    optimizers = build_optimizers(
        model,
        name,
        learning_rate=1e-3,
        matrix_learning_rate=0.02,
        momentum=0.9,
        weight_decay=0.0,
        precision=torch.float32,
    )
    model(torch.zeros(1, 8, dtype=torch.long)).sum().backward()
    optimizers.step()
    states = [v for m in optimizers.members for s in m.state.values() for v in s.values()]
    real = sum(v.numel() * v.element_size() for v in states if isinstance(v, torch.Tensor))
    said = forecast.memory(Work(SMALL, 1, optimizer=name)).optimizer
    assert said == pytest.approx(real, rel=0.02, abs=30_000)


shapes = st.builds(
    lambda depth, heads, vocabulary, context: Config(
        vocabulary=vocabulary,
        depth=depth,
        width=64 * heads,
        heads=heads,
        kv_heads=heads,
        context=context,
    ),
    st.integers(1, 48),
    st.integers(1, 32),
    st.integers(256, 100_000),
    st.sampled_from([64, 256, 1024, 4096]),
)
works = st.builds(
    Work,
    shapes,
    st.integers(1, 64),
    st.integers(1, 8),
    st.sampled_from(NAMES),
    st.sampled_from(["float32", "bfloat16"]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 64),
)


@given(works)
@settings(max_examples=100, deadline=None)
def test_more_of_anything_never_takes_less_memory(work: Work) -> None:
    total = forecast.memory(work).total
    assert math.isfinite(total)
    assert forecast.memory(dataclasses.replace(work, rows=work.rows + 1)).total >= total
    deeper = dataclasses.replace(work.config, depth=work.config.depth + 1)
    assert forecast.memory(dataclasses.replace(work, config=deeper)).total >= 0.99 * total
    once = forecast.memory(dataclasses.replace(work, recompute=False)).activations
    assert forecast.memory(dataclasses.replace(work, recompute=True)).activations <= max(
        once, forecast.memory(work).activations * 2
    )


@given(works, st.floats(1e6, 1e12))
@settings(max_examples=100, deadline=None)
def test_what_is_fitted_keeps_the_batch_and_fits_if_anything_does(work: Work, free: float) -> None:
    fitted = forecast.fit_to_memory(work, free)
    assert fitted.rows * fitted.accumulate == work.rows * work.accumulate
    assert fitted.accumulate >= work.accumulate
    least = dataclasses.replace(
        work, rows=1, accumulate=work.rows * work.accumulate, recompute=True
    )
    if forecast.memory(least, 0.0).total <= forecast.SAFE * free:
        assert forecast.memory(fitted, 0.0).total <= forecast.SAFE * free


def test_plenty_of_memory_changes_nothing() -> None:
    work = Work(SMALL, 8, 2)
    assert forecast.fit_to_memory(work, 1e12) == work


@given(works)
@settings(max_examples=60, deadline=None)
def test_time_grows_with_work_and_falls_with_speed(work: Work) -> None:
    one = forecast.step_seconds(work, RATES).total
    two = forecast.step_seconds(dataclasses.replace(work, accumulate=2 * work.accumulate), RATES)
    faster = Rates({k: 2 * v for k, v in RATES.products.items()}, 80e9, 40e9)
    assert 0 < one <= two.total <= 2 * one * 1.0001
    assert forecast.step_seconds(work, faster).total == pytest.approx(one / 2)


def test_the_speed_of_a_product_lies_between_those_measured() -> None:
    assert RATES.product(16, 16, 16) == 50e9
    assert RATES.product(512, 512, 512) == pytest.approx(100e9)
    assert 50e9 < RATES.product(256, 256, 256) < 100e9
    assert RATES.product(8192, 8192, 8192) == 200e9
    assert RATES.product(32, 8192, 8192) == 50e9


def test_the_machine_is_measured() -> None:
    rates = forecast.probe("float32", seconds=0.2)
    assert sorted(rates.products) == list(forecast.SIZES)
    assert min(rates.products.values()) > 1e8
    assert rates.bandwidth > 1e8
    assert rates.attention > 1e7
