"""Compiling the blocks changes no name and no result, and is done once for all lengths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modelwright.kernels import attention
from modelwright.models import mlp
from modelwright.models.decoder import Config, Decoder
from modelwright.objectives.next_token import Objective
from modelwright.training.compiled import can_compile, compile_regions, uncompiled
from modelwright.types import Columns, Ragged

CPU = torch.device("cpu")
VOCABULARY = 50
# What the compiler itself warns of (deprecated calls inside PyTorch) is none of our business.
pytestmark = [
    pytest.mark.skipif(not can_compile(CPU), reason="nothing can be compiled here"),
    pytest.mark.filterwarnings("ignore"),
]


class Letters:
    ragged = ("tokens", "learn")
    end = 0
    token_bytes = np.ones(VOCABULARY, dtype=np.int64)


OBJECTIVE = Objective(Letters())  # type: ignore[arg-type]


def decoder() -> Decoder:
    torch.manual_seed(0)
    shape = {"depth": 2, "width": 64, "heads": 2, "kv_heads": 1, "context": 64}
    model = Config(vocabulary=VOCABULARY, value_embeddings=True, shortcuts=True, **shape).build()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return model


def rows(lengths: list[int]) -> Columns:
    rng = np.random.default_rng(0)
    values = [rng.integers(1, VOCABULARY, n).astype(np.uint16) for n in lengths]
    learn = [np.ones(n, dtype=np.bool_) for n in lengths]
    return {"tokens": Ragged.of(values), "learn": Ragged.of(learn)}


def step(model: Decoder, lengths: list[int], dtype: torch.dtype) -> tuple[float, torch.Tensor]:
    """Loss and whole gradient."""
    batch = OBJECTIVE.collate(rows(lengths), torch.Generator())
    model.zero_grad()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        loss = OBJECTIVE.loss(model, batch) / batch.count
    loss.backward()
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return loss.item(), torch.cat(grads)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_compiled_is_as_written(dtype: torch.dtype, close: float) -> None:
    torch._dynamo.reset()
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    plain, compiled = decoder(), decoder()
    assert compile_regions(compiled, lengths_vary=True)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for lengths in ([20, 31, 5], [7, 9], [40, 3, 11, 2]):
        wanted, gradient = step(plain, lengths, dtype)
        loss, found = step(compiled, lengths, dtype)
        assert loss == pytest.approx(wanted, rel=close)
        assert (found - gradient).norm() <= close * gradient.norm()
        assert step(compiled, lengths, dtype)[0] == loss  # and the same every time
    compiles = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    with uncompiled(), torch.no_grad():
        compiled.hidden(torch.randint(VOCABULARY, (3, 13)))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiles
    if dtype == torch.bfloat16 and attention.available():
        # The two kinds of norm, a block with and one without value embeddings: not one graph for
        # each length. Where attention is PyTorch's it cuts every block in parts.
        assert compiles - before <= 4


def test_a_model_that_names_nothing_is_left_alone() -> None:
    model = mlp.Config(features=4, classes=2).build()
    assert not compile_regions(model, lengths_vary=False)
