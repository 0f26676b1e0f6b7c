"""What every model family promises. A new file in models/ is found here by itself."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.extensions import short
from modelwright.models.model import ModelConfig, config_class, families, from_dict
from tests.own_code import FAMILIES

every_family = pytest.mark.parametrize("family", [*families(), *FAMILIES], ids=short)


def specimen(family: str) -> ModelConfig:
    cls = config_class(family)
    return cls(**cls.specimen)


def built(config: ModelConfig, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return config.build()


def inputs(config: ModelConfig) -> dict[str, Tensor]:
    """Two rows, as the family says that it reads them."""
    torch.manual_seed(1)
    found = config.inputs(2, short=True)
    assert found is not None, f"{config.family}: say what it reads, as models/reading.py does"
    return found.tensors


def stirred(model: nn.Module) -> nn.Module:
    """Every parameter moved off its start: projections that start at zero block gradients."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.1)
    return model


@every_family
def test_the_gradient_reaches_every_parameter(family: str) -> None:
    config = specimen(family)
    model = stirred(built(config))
    outputs = model(**inputs(config))
    assert outputs.isfinite().all()
    weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(3))
    (outputs * weights).sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, f"{name} has no gradient"
        assert p.grad.isfinite().all(), name
        assert p.grad.abs().max() > 0, f"the gradient of {name} is zero"


@every_family
def test_the_seed_decides_the_parameters(family: str) -> None:
    config = specimen(family)
    one, same, other = (built(config, seed).state_dict() for seed in (7, 7, 8))
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)


@every_family
def test_two_forward_passes_agree_bit_for_bit(family: str) -> None:
    config = specimen(family)
    model = stirred(built(config)).eval()
    given = inputs(config)
    assert torch.equal(model(**given), model(**given))


@every_family
def test_rows_of_a_batch_do_not_see_each_other(family: str) -> None:
    config = specimen(family)
    model = stirred(built(config)).eval()
    given = inputs(config)
    both = model(**given)
    for row in range(2):
        alone = model(**{k: v[row : row + 1] for k, v in given.items()})
        torch.testing.assert_close(both[row : row + 1], alone, rtol=1e-4, atol=1e-5)


@every_family
def test_parameters_survive_a_file(family: str) -> None:
    config = specimen(family)
    model = stirred(built(config)).eval()
    stored = save({k: v.contiguous() for k, v in model.state_dict().items()})
    other = built(config, seed=9).eval()
    other.load_state_dict(load(stored))
    given = inputs(config)
    assert torch.equal(model(**given), other(**given))


@every_family
def test_the_config_survives_json(family: str) -> None:
    config = specimen(family)
    assert config.family == family
    assert from_dict(json.loads(json.dumps(config.to_dict()))) == config


@every_family
def test_a_mistyped_field_is_refused_with_the_right_one(family: str) -> None:
    values = specimen(family).to_dict()
    right = next(k for k in values if k != "family")
    values[right + "z"] = values.pop(right)
    with pytest.raises(ModelwrightError, match=rf"model\.{right}z: .*did you mean '{right}'\?"):
        from_dict(values)


def test_an_unknown_family_is_refused_with_the_nearest() -> None:
    with pytest.raises(ModelwrightError, match="no family 'decodr'.*'decoder'"):
        from_dict({"family": "decodr"})


@every_family
def test_flops_are_those_of_the_matrices_at_least(family: str) -> None:
    config = specimen(family)
    model = built(config)
    looked_up = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    named = {n: p for n, p in model.named_parameters() if "embedding" not in n}
    matrices = sum(p.numel() for p in named.values() if p.ndim == 2 and id(p) not in looked_up)
    assert config.flops_per_item() >= 6 * matrices
    assert config.flops_per_item() > 0  # a detector has convolutions alone


@every_family
def test_a_size_can_be_asked_for(family: str) -> None:
    cls = config_class(family)
    fixed = {k: v for k, v in cls.specimen.items() if k in ("vocabulary", "features", "outputs")}
    fields = cls.of_size(3_000_000, fixed)
    config = cls(**{**cls.specimen, **fields})
    if fields:
        # An item of some families is many positions: a second of sound, a page.
        counted = getattr(config, "matrix_parameters", lambda: config.flops_per_item() / 6)()
        assert 0.5 < counted / 3_000_000 < 3
