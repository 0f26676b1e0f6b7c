"""Packed matrices: what they hold and give; a token in one call is the token of the modules."""

from __future__ import annotations

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.kernels import quantized as kernel
from modelwright.models import bert, decoder, gpt2, llama, mixture
from modelwright.models.attention import Cache
from modelwright.models.model import ModelConfig
from modelwright.models.quantized import KINDS, PackedLinear, laid_out, layout, observed, quantize

needs_kernel = pytest.mark.skipif(not kernel.available(), reason="needs AVX-512 VNNI")
WIDE: dict[str, Any] = {"vocabulary": 96, "depth": 3, "width": 128, "heads": 4, "context": 64}
FAMILIES: dict[str, ModelConfig] = {
    "llama": llama.Config(**WIDE, kv_heads=2, hidden=192),
    "llama-tied-biases": llama.Config(
        **WIDE, kv_heads=4, hidden=160, tied=True, qkv_bias=True, activation="gelu"
    ),
    "llama-norms-windows": llama.Config(
        **WIDE, kv_heads=1, hidden=192, qk_norm=True, centred=True, windows=(0, 5), rope_local=100.0
    ),
    "gpt2": gpt2.Config(**WIDE),
    "decoder": decoder.Config(**WIDE, kv_heads=2),
    "decoder-all": decoder.Config(
        **WIDE, kv_heads=4, feed_forward="gated", value_embeddings=True, shortcuts=True, bigrams=64
    ),
}
STEPLESS: dict[str, ModelConfig] = {
    "sandwich": llama.Config(**WIDE, kv_heads=2, hidden=192, sandwich=True),
    "capped": llama.Config(**WIDE, kv_heads=2, hidden=192, attention_softcap=20.0),
    "narrow-heads": llama.Config(**{**WIDE, "heads": 8}, kv_heads=8, hidden=192),
    "odd-hidden": llama.Config(**WIDE, kv_heads=2, hidden=100),
    "mixture": mixture.Config(**WIDE, kv_heads=2, hidden=64, experts=4, chosen=2),
}


def _filled(config: ModelConfig) -> nn.Module:
    """A model of which no part is zero."""
    torch.manual_seed(3)
    model = config.build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    outputs=st.integers(1, 70),
    inputs=st.integers(1, 150),
    rows=st.integers(1, 21) | st.just(197),
    seed=st.integers(0, 1000),
)
def test_a_product_is_that_of_the_stored_numbers(
    kind: str, outputs: int, inputs: int, rows: int, seed: int
) -> None:
    """Kernel and PyTorch agree; a row alone gives the bits it gives among others."""
    drawn = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=drawn)
    x = torch.randn(rows, inputs, generator=drawn) * 10 ** torch.randn(rows, 1, generator=drawn)
    packed = kernel.pack(weight, kind)
    assert packed.data.numel() == packed.nbytes
    stored = kernel.unpack(packed)
    assert stored.shape == weight.shape
    off = {"int4": 0.13, "int8": 0.02, "bfloat16": 0.004}[kind]
    assert (stored - weight).norm() <= off * weight.norm()
    numbers = torch.randint(outputs, (5,), generator=drawn)
    assert torch.equal(kernel.unpack(packed, numbers), stored[numbers])
    mapped = kernel.product(x, packed)
    wide = torch.nn.functional.pad(x, (0, -inputs % kernel.GROUP))
    plain = kernel._plain_product(wide, packed)
    bound = x.abs().amax(1, keepdim=True) * stored.abs().sum(1)  # of any rounding of a sum
    assert ((mapped - plain).abs() <= 1e-5 * bound + 1e-6).all()
    alone = torch.cat([kernel.product(row[None], packed) for row in x])
    assert torch.equal(alone, mapped)


@settings(max_examples=30, deadline=None)
@given(kind=st.sampled_from(KINDS), at=st.integers(0, 69), what=st.sampled_from(["nan", "inf"]))
def test_what_is_no_number_is_not_made_one(kind: str, at: int, what: str) -> None:
    packed = kernel.pack(torch.randn(20, 70), kind)
    x = torch.randn(3, 70)
    x[1, at] = float(what)
    out = kernel.product(x, packed)
    assert not bool(out[1].isfinite().any())
    assert bool(out[[0, 2]].isfinite().all())


def test_columns_of_a_large_matrix_are_multiplied() -> None:
    """They lie apart, and the copy in one piece must last as long as the product."""
    weight, wide = torch.randn(4, 2048), torch.randn(5000, 4096)
    packed = kernel.pack(weight, "bfloat16")
    out = kernel.product(wide[:, :2048], packed)
    assert torch.equal(out[-3:], kernel.product(wide[-3:, :2048].contiguous(), packed))


def test_scales_of_int4_follow_importance() -> None:
    """What is multiplied with much is kept better, on the whole."""
    drawn = torch.Generator().manual_seed(0)
    weight = torch.randn(256, 256, generator=drawn)
    importance = torch.rand(256, generator=drawn) ** 4

    def cost(packed: kernel.Packed) -> float:
        return float(((kernel.unpack(packed) - weight).square() * importance).sum())

    assert cost(kernel.pack(weight, "int4", importance)) < 0.97 * cost(kernel.pack(weight, "int4"))


def _decoded(model: nn.Module, prompts: list[list[int]], count: int) -> Tensor:
    """Streams (count, rows, width) of the same tokens after prompts, read one by one together."""
    held = cast(Any, model)
    found = []
    with torch.inference_mode():
        cache = held.new_cache(len(prompts), 40)
        counts = torch.tensor([len(p) for p in prompts])
        padded = torch.zeros(len(prompts), int(counts.max()), dtype=torch.long)
        for i, prompt in enumerate(prompts):
            padded[i, : len(prompt)] = torch.tensor(prompt)
        held.hidden(padded, cache=cache, counts=counts)
        for at in range(count):
            tokens = torch.arange(len(prompts))[:, None] * 17 + 5 * at
            found.append(held.hidden(tokens, cache=cache)[:, 0])
    return torch.stack(found)


PROMPTS = [[5, 9, 2, 7, 7, 1, 30], [8], [11, 12, 13, 3]]


@needs_kernel
@pytest.mark.parametrize(
    ("kind", "cache"), [*((kind, "float32") for kind in KINDS), ("bfloat16", "bfloat16")]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_token_in_one_call_is_that_of_the_modules(
    family: str, kind: str, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of different lengths, windows and rotations included."""
    model = _filled(FAMILIES[family])
    quantize(model, kind)
    if cache == "bfloat16":  # a cache is of the type of the first parameter
        next(model.parameters()).data = next(model.parameters()).data.bfloat16()
    stepped = _decoded(model, PROMPTS, 12)
    assert cast(Any, model).stepping._steps is not None
    monkeypatch.setattr(cast(Any, model).stepping, "_offered", False)
    plain = _decoded(model, PROMPTS, 12)
    # A number that falls on the other side of a rounding to int8 is worth a part in 250.
    off = float((stepped - plain).norm() / plain.norm())
    assert off < (2e-3 if (kind, cache) == ("bfloat16", "float32") else 1e-2)


@needs_kernel
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_together_are_rows_alone(family: str) -> None:
    """Decoded streams are the same bits in every company."""
    model = _filled(FAMILIES[family])
    quantize(model, "int8")

    def goes_on(rows: list[int]) -> Tensor:
        held = cast(Any, model)
        with torch.inference_mode():
            cache = held.new_cache(len(rows), 20)
            tokens = torch.tensor([[3, 1, 4], [2, 7, 1], [6, 6, 6], [9, 8, 7], [1, 2, 3]])[rows]
            for at in range(3):
                stream = held.hidden(tokens[:, at : at + 1], cache=cache)
        return cast(Tensor, stream)

    together = goes_on([0, 1, 2, 3, 4])
    for row in range(5):
        assert torch.equal(goes_on([row])[0], together[row])


@needs_kernel
def test_a_copy_of_a_model_that_has_answered_answers_alike() -> None:
    """What was written down for the kernel points into the model that was copied."""
    model = cast(Any, _filled(FAMILIES["llama"]))
    quantize(model, "int8")
    token = torch.tensor([[3]])
    with torch.inference_mode():
        said = model.hidden(token, cache=model.new_cache(1, 32))
        again = copy.deepcopy(model)
        del model
        assert torch.equal(again.hidden(token, cache=again.new_cache(1, 32)), said)


@needs_kernel
def test_another_cache_at_the_same_place_is_read_by_its_own_shape() -> None:
    """Memory that one cache gives back is often the next one's."""
    model = cast(Any, _filled(FAMILIES["llama"]))
    quantize(model, "int8")
    token = torch.tensor([[3], [5]])
    with torch.inference_mode():
        first = model.new_cache(2, 32)
        model.hidden(token, cache=first)

        def there(x: Tensor) -> Tensor:
            return x.zero_().view(1, x.shape[1], 2 * x.shape[2], x.shape[3])

        keys, values = ([there(x) for x in xs] for xs in (first.keys, first.values))
        second, fresh = Cache(keys, values, torch.zeros(1).long()), model.new_cache(1, 64)
        for at in range(3):
            one = model.hidden(token[:1] + at, cache=second)
            assert torch.equal(one, model.hidden(token[:1] + at, cache=fresh))
    for ours, theirs in zip(second.keys, fresh.keys, strict=True):
        assert torch.equal(ours, theirs)


@needs_kernel
def test_threads_that_share_a_model_step_one_after_another() -> None:
    """A server makes vectors of short texts while others are answered."""
    model = _filled(FAMILIES["gpt2"])
    quantize(model, "int8")
    alone = [_decoded(model, [PROMPTS[i % 3]], 20) for i in range(6)]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(4):
            found = pool.map(lambda i: _decoded(model, [PROMPTS[i % 3]], 20), range(6))
            assert all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))


@pytest.mark.parametrize("family", STEPLESS)
def test_models_without_steps_go_on_by_their_modules(family: str) -> None:
    """A part that no step does is no obstacle."""
    model = _filled(STEPLESS[family])
    quantize(model, "int8")
    assert torch.isfinite(_decoded(model, PROMPTS, 3)).all()
    assert cast(Any, model).stepping._steps is None


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_logits_are_near(family: str) -> None:
    """Nothing is left out and nothing is stored for the wrong place."""
    config = FAMILIES[family]
    model, packed = _filled(config), _filled(config)
    quantize(packed, "int8")
    tokens = torch.randint(96, (2, 20), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        one, other = model(tokens), packed(tokens)
    assert ((one - other).norm() / one.norm()).item() < 0.03
    left = [n for n, m in packed.named_modules() if type(m) is nn.Linear]
    assert not left


@pytest.mark.parametrize("family", FAMILIES)
def test_a_layout_is_laid_out_again(family: str) -> None:
    """From plain values and tensors."""
    model = _filled(FAMILIES[family])
    quantize(model, "int4")
    stored = json.loads(json.dumps(layout(model)))
    again = FAMILIES[family].build()
    laid_out(again, stored)
    again.load_state_dict(model.state_dict(), assign=True)
    tokens = torch.randint(96, (1, 9), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(again.eval()(tokens), model(tokens))


def test_what_is_not_there_is_refused() -> None:
    """One line each."""
    with pytest.raises(ModelwrightError, match="int4"):
        quantize(_filled(FAMILIES["llama"]), "int3")
    with pytest.raises(ModelwrightError, match="no linear maps"):
        quantize(nn.Sequential(nn.ReLU()), "int4")
    model = _filled(FAMILIES["llama"])
    quantize(model, "int4")
    stored = layout(model)
    stored["matrices"]["blocks.0.attention.query"][0] += 1
    with pytest.raises(ModelwrightError, match=r"blocks\.0\.attention\.query \(129 x 128\)"):
        laid_out(FAMILIES["llama"].build(), stored)


def test_a_classifier_keeps_its_own_head() -> None:
    """Its embedding is tied to a head only where it guesses tokens."""
    shape = {"vocabulary": 96, "depth": 2, "width": 64, "heads": 2}
    model = _filled(bert.Config(**shape, classes=5, dropout=0.0, head_dropout=0.0))
    tokens = torch.randint(0, 96, (3, 20))
    with torch.inference_mode():
        whole = model(tokens)
        quantize(model, "int8")
        found = model(tokens)
    assert found.shape == whole.shape == (3, 5)
    torch.testing.assert_close(found, whole, atol=0.05, rtol=0.05)


def test_importance_is_the_mean_square_of_inputs() -> None:
    """Of every linear map by its name."""
    linear = nn.Sequential(nn.Linear(3, 2))
    x = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]])
    with observed(linear) as means:
        linear(x)
    assert torch.equal(means["0"], torch.tensor([5.0, 0.0, 2.0]))
    assert isinstance(linear[0], nn.Linear)
    assert PackedLinear(kernel.pack(linear[0].weight, "int8")).weight.shape == (2, 3)
