"""The memory of a step: what is read off tensors without numbers is what real ones take."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright import recipe
from modelwright.models import lora
from modelwright.models.lora import Adapter
from modelwright.models.model import ModelConfig, config_class
from modelwright.models.narrow import held_in
from modelwright.pipeline import trace
from modelwright.pipeline.memory import Forecast, Step, change_of, derive_memory, peak
from modelwright.training.budget import Derived
from modelwright.training.forecast import SAFE
from modelwright.training.optimizers import NAMES, build_optimizers

FAMILIES = ("decoder", "gpt2", "bert", "resnet", "whisper", "mlp", "llama")


def specimen(family: str) -> ModelConfig:
    cls = config_class(family)
    return cls(**cls.specimen)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_counted_without_numbers_is_what_real_tensors_take(
    family: str, precision: str
) -> None:
    config = specimen(family)
    inputs = trace.inputs_for(config, 3)
    assert inputs is not None
    found = trace.traced(config, inputs, precision)
    assert found is not None
    model = config.build().train()
    real = trace._traced(model, inputs, trace._bounds(inputs), precision, learning=True)
    assert found.passes == pytest.approx(real.passes, rel=0.02)
    assert found.gradients == real.gradients
    assert found.again == pytest.approx(real.again, rel=0.02)
    assert found.shapes == real.shapes


def test_what_autograd_saves_is_in_it() -> None:
    config = config_class("mlp")(features=64, classes=8, hidden=(256, 256))
    inputs = trace.inputs_for(config, 1000)
    assert inputs is not None
    found = trace.traced(config, inputs, "float32")
    assert found is not None
    # The input, each layer before and after its activation, and the loss's own.
    assert found.passes > 4 * 1000 * (64 + 2 * 256)
    assert found.passes < 4 * 1000 * (64 + 6 * 256 + 4 * 8)


@pytest.mark.parametrize("name", NAMES)
def test_the_state_is_that_of_the_optimiser(name: str) -> None:
    config = specimen("gpt2")
    model: Any = config.build()
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
    said = peak(model, Step(1, optimizer=name), None)
    assert said is not None
    assert said.optimizer == pytest.approx(real, rel=0.02, abs=30_000)


FORECASTS = {name: Forecast(specimen(name), program=0.0) for name in ("decoder", "whisper", "mlp")}
steps = st.builds(
    Step,
    st.sampled_from([1, 2, 4, 6]),
    st.sampled_from([1, 2, 3]),
    st.sampled_from(["sgd", "adamw"]),
    st.sampled_from(["float32", "bfloat16"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 2, 8]),
)


@given(st.sampled_from(sorted(FORECASTS)), steps, st.floats(1e4, 1e8))
@settings(max_examples=60, deadline=None)
def test_what_is_fitted_keeps_the_batch_and_fits_if_anything_does(
    family: str, wanted: Step, free: float
) -> None:
    forecast = FORECASTS[family]
    fitted, need = forecast.fitted(wanted, free)
    assert need is not None and need == forecast.memory(fitted)
    assert fitted.rows * fitted.accumulate == wanted.rows * wanted.accumulate
    assert fitted.accumulate >= wanted.accumulate
    rows = wanted.rows * wanted.accumulate
    least = Step(**{**vars(wanted), "rows": 1, "accumulate": rows})
    smallest = forecast.memory(least)
    assert smallest is not None
    if smallest.total <= SAFE * free:
        assert need.total <= SAFE * free


def test_recomputing_holds_less_where_a_family_can() -> None:
    config = config_class("decoder")(vocabulary=97, depth=8, width=64, heads=4, kv_heads=4)
    forecast = Forecast(config)
    kept, again = (forecast.memory(Step(8, recompute=r)) for r in (False, True))
    assert kept is not None and again is not None
    assert again.activations < 0.5 * kept.activations


@pytest.mark.parametrize("family", ["decoder", "resnet"])
def test_memory_decides_micro_batches_and_recomputation(family: str) -> None:
    fields = {
        "decoder": {"vocabulary": 8192, "depth": 8, "width": 512, "heads": 8, "context": 1024},
        "resnet": {"classes": 10, "image": (224, 224)},
    }[family]
    cls = config_class(family)
    config = cls(**{**fields, **({"kv_heads": 8} if family == "decoder" else {})})
    made = recipe.parse({"name": "t", "data": {"source": "x"}, "train": {"task": "documents"}})
    assert made.train is not None
    values = {"train.batch": 16, "train.optimizer": "adamw", "train.precision": "float32"}
    quarter = Forecast(config, program=0.0).memory(Step(4, 4, "adamw", "float32"))
    assert quarter is not None
    seen = []
    for free in (64e9, 1.001 * quarter.total / SAFE, 1e6):
        found = Derived(values=dict(values))
        length = getattr(config, "context", 1)
        flops = 16 * length * config.flops_per_item()
        seen.append(
            derive_memory(
                made.train,
                "train",
                config,
                length=length,
                flops=flops,
                free=free,
                derived=found,
            )
        )
        assert 16 % seen[-1]["accumulate"] == 0
        assert "GiB forecast" in found.reasons["train.accumulate"]
    assert seen[0] == {"accumulate": 1, "recompute": False}
    assert 1 < seen[1]["accumulate"] <= 4
    # Batch norm wants two rows at least.
    alone = family == "decoder"
    assert seen[-1] == {"accumulate": 16 if alone else 8, "recompute": alone}


ADAPTED: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4},
    "nf4": {"rank": 4, "quantize": "nf4"},
    "int8": {"rank": 4, "quantize": "int8"},
    "whole": {"rank": 4, "trained": ["norm"]},
}


@pytest.mark.parametrize("kind", ADAPTED)
def test_what_is_frozen_has_no_gradient_and_no_state(kind: str) -> None:
    """Weights, gradients and state are those of a real model after a real step."""
    config = specimen("decoder")
    change = functools.partial(lora.adapt, adapter=Adapter(**ADAPTED[kind]))
    said = peak(trace.meta(config, change), Step(1, optimizer="adamw"), None)
    assert said is not None
    model: Any = config.build()
    change(model)
    optimizers = build_optimizers(
        model,
        "adamw",
        learning_rate=1e-3,
        matrix_learning_rate=0.02,
        momentum=0.9,
        weight_decay=0.0,
        precision=torch.float32,
    )
    model(torch.zeros(1, 8, dtype=torch.long)).sum().backward()
    learned = [p for p in model.parameters() if p.requires_grad]
    assert said.gradients == sum(4 * p.numel() for p in learned)
    optimizers.step()
    states = [v for m in optimizers.members for s in m.state.values() for v in s.values()]
    real = sum(v.numel() * v.element_size() for v in states if isinstance(v, torch.Tensor))
    assert said.optimizer == pytest.approx(real, rel=0.02, abs=2000)
    tensors = [*model.parameters(), *(b for m in held_in(model).values() for b in m.held[:3])]
    assert said.parameters == sum(t.numel() * t.element_size() for t in tensors)


def test_fewer_bits_and_fewer_gradients_take_less() -> None:
    config = config_class("decoder")(vocabulary=97, depth=4, width=128, heads=4, kv_heads=4)
    names: tuple[str | None, ...] = (None, "lora", "int8", "nf4")
    found = []
    for name in names:
        adapter = Adapter(**ADAPTED[name]) if name else None
        change = functools.partial(lora.adapt, adapter=adapter) if adapter else None
        memory = Forecast(config, program=0.0, change=change).memory(Step(2, optimizer="adamw"))
        assert memory is not None
        found.append(memory.total)
    assert found == sorted(found, reverse=True)


def test_frozen_parameters_are_those_of_the_recipe() -> None:
    stage = recipe.Stage(task="documents", freeze=["embedding", "blocks"])
    config = specimen("decoder")
    change = change_of(stage)
    assert change is not None and change_of(recipe.Stage(task="documents")) is None
    step = Step(1, optimizer="adamw")
    whole, part = (peak(trace.meta(config, c), step, None) for c in (None, change))
    assert whole is not None and part is not None
    assert part.gradients < 0.5 * whole.gradients and part.parameters == whole.parameters
    assert part.optimizer < 0.5 * whole.optimizer
