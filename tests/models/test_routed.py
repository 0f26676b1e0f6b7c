"""Adapters by row: in a mixed batch a row gets the tokens it has alone, and as merged (law 5)."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.codecs.text import Codec
from modelwright.errors import ModelwrightError
from modelwright.models import lora, routed
from modelwright.models.llama import Config as Llama
from modelwright.models.quantized import quantize
from modelwright.serving.engine import Engine, Request, RequestError
from modelwright.serving.sampling import SamplingParams
from modelwright.types import Example, text_turn
from tests.serving.parts import mute, random_decoder

KINDS = {
    "one": {"rank": 4},
    "rs": {"rank": 2, "rslora": True, "targets": ["query", "down"]},
    "dora": {"rank": 4, "dora": True},
}
NAMES = ["", *KINDS]


@pytest.fixture(scope="module")
def codec():
    return Codec.fit(
        [Example((text_turn("document", "The quick brown fox. " * 9),))], vocabulary=270
    )


def adapted(model, seed, **fields):
    """A twin with a random adapter in it."""
    twin = routed.twin(model)
    lora.adapt(twin, lora.Adapter(**fields))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, layer in lora.layers(twin):
            layer.lora_a.normal_(std=0.3, generator=generator)
            layer.lora_b.normal_(std=0.3, generator=generator)
    return twin


@pytest.fixture(scope="module", params=["decoder", "llama"])
def served(request, codec):
    """An engine with adapters, and an engine of each adapter merged by itself."""
    if request.param == "decoder":
        model = random_decoder(codec)
    else:
        torch.manual_seed(1)
        shape = {"width": 32, "depth": 2, "heads": 4, "kv_heads": 2, "hidden": 48, "context": 96}
        model = Llama(vocabulary=codec.vocabulary, **shape).build().eval()
    plain = copy.deepcopy(model)
    alone = {"": plain}
    engine = Engine(model, codec, max_batch=6)
    for seed, (name, fields) in enumerate(KINDS.items()):
        twin = adapted(model, seed, **fields)
        alone[name] = copy.deepcopy(twin)
        lora.fold(alone[name])
        engine.adapters[name] = routed.route(model, twin)
    for one in (model, *alone.values()):
        mute(one, codec)
    return engine, {name: Engine(one, codec) for name, one in alone.items()}


def asked(tokens, name, seed, length):
    params = SamplingParams(max_tokens=length, temperature=0.8 if seed else 0.0, seed=seed)
    return Request(tokens, params, adapter=name)


ROWS = st.lists(
    st.tuples(
        st.lists(st.integers(3, 60), min_size=1, max_size=40),
        st.sampled_from(NAMES),
        st.integers(0, 3),
        st.integers(1, 8),
    ),
    min_size=1,
    max_size=9,
)


@given(ROWS)
@settings(max_examples=12, deadline=None)
def test_a_row_in_a_mixed_batch_is_the_row_alone_and_as_merged(served, rows):
    engine, alone = served
    together = engine.generate([asked(*row) for row in rows])
    for row, found in zip(rows, together, strict=True):
        tokens, name, seed, length = row
        (merged,) = alone[name].generate([asked(tokens, "", seed, length)])
        assert found.tokens == merged.tokens, name
        (one,) = engine.generate([asked(*row)])
        assert found.tokens == one.tokens, name


def test_adapters_differ_and_the_base_is_as_it_was(served):
    engine, alone = served
    prompt = list(range(5, 25))
    found = {n: engine.generate([asked(prompt, n, 0, 8)])[0].tokens for n in NAMES}
    assert len({tuple(tokens) for tokens in found.values()}) >= len(NAMES) - 1
    names = [name for name, _ in engine.model.named_parameters()]
    assert names == [name for name, _ in alone[""].model.named_parameters()]
    for one, other in zip(engine.model.parameters(), alone[""].model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_beginning_is_kept_for_one_adapter_alone(served):
    engine, alone = served
    prompt = [7] * 70
    engine.start()
    try:
        for name in ["one", "", "one", "dora"]:
            handle = engine.submit(asked(prompt, name, 0, 4))
            assert list(handle) is not None
            (wanted,) = alone[name].generate([asked(prompt, "", 0, 4)])
            assert handle.completion.tokens == wanted.tokens
        assert engine.prefixes.found == 64  # of the second "one"
    finally:
        engine.stop()


def test_an_adapter_that_is_taken_out_ends_what_it_began(served):
    engine, alone = served
    engine.start()
    try:
        handle = engine.submit(asked([5, 6], "rs", 0, 30))
        kept = engine.adapters.pop("rs")
        with pytest.raises(RequestError, match="no adapter 'rs'"):
            engine.submit(asked([5, 6], "rs", 0, 30))
        assert list(handle) is not None
        (wanted,) = alone["rs"].generate([asked([5, 6], "", 0, 30)])
        assert handle.completion.tokens == wanted.tokens
    finally:
        engine.stop()
        engine.adapters["rs"] = kept


def test_what_rows_share_is_refused(codec):
    model = random_decoder(codec)
    twin = adapted(model, 0, rank=2, targets=["output"])
    with pytest.raises(ModelwrightError, match="changes output"):
        routed.route(model, twin)
    twin = adapted(model, 0, rank=2)
    with pytest.raises(ModelwrightError, match="changes norm"):
        routed.route(model, twin, whole=["norm.weight"])
    wide = random_decoder(codec, width=64)
    twin = adapted(wide, 0, rank=2)
    quantize(wide, "int8")
    with pytest.raises(ModelwrightError, match="few bits"):
        routed.route(wide, twin)
