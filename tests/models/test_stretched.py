"""Contexts longer than those of training: frequencies, and models that read on."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from modelwright.errors import ModelwrightError
from modelwright.exporting.gguf import own_decoder
from modelwright.hub.llama import config_to
from modelwright.models import decoder, encoder, llama
from modelwright.models.rope import Rope, ntk_base

KINDS = ("linear", "ntk", "yarn")
OURS = decoder.Config(vocabulary=50, depth=2, width=32, heads=2, kv_heads=1, context=64)


def test_ntk_leaves_the_first_pair_and_slows_the_last_by_the_factor() -> None:
    for width, factor in ((32, 4.0), (64, 2.5), (128, 32.0)):
        plain = Rope(width, 10_000.0).frequencies().double()
        slow = Rope(width, ntk_base(10_000.0, factor, width)).frequencies().double()
        torch.testing.assert_close(slow[0], plain[0])
        torch.testing.assert_close(slow[-1] * factor, plain[-1], rtol=1e-5, atol=0)
        ratio = plain / slow
        assert (ratio.diff() > 0).all()


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_our_decoder_has_the_frequencies_of_the_published_formula(kind: str) -> None:
    config = dataclasses.replace(OURS, **OURS.stretched(256, kind))
    theirs = LlamaConfig(
        hidden_size=32,
        num_attention_heads=2,
        max_position_embeddings=256,
        rope_parameters={
            "rope_type": kind,
            "rope_theta": OURS.rope_base,
            "factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    )
    frequency, gain = ROPE_INIT_FUNCTIONS[kind](theirs, torch.device("cpu"))
    positions = torch.arange(256)
    cos, sin = config.build().rotary.tables(positions)
    angle = positions[:, None].float() * frequency
    torch.testing.assert_close(cos.squeeze(1), angle.cos() * gain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sin.squeeze(1), angle.sin() * gain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stretched_model_takes_the_weights_and_reads_on_with_a_cache(kind: str) -> None:
    torch.manual_seed(0)
    model = OURS.build().eval()
    config = dataclasses.replace(OURS, **OURS.stretched(128, kind))
    assert config.context == 128
    longer = config.build().eval()
    longer.load_state_dict(model.state_dict())
    with torch.no_grad():
        for p in longer.parameters():
            p.add_(torch.randn_like(p), alpha=0.1)
        tokens = torch.randint(50, (1, 100))
        whole = longer.hidden(tokens)
        cache = longer.new_cache(1, 128)
        parts = [longer.hidden(part, cache=cache) for part in torch.split(tokens, 17, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stretched_llama_is_written_as_the_hub_has_it(kind: str) -> None:
    config = llama.Config(vocabulary=50, depth=2, width=32, heads=2, kv_heads=1, context=64)
    longer = dataclasses.replace(config, **config.stretched(4 * config.context, kind))
    stored = config_to(longer)
    assert stored["max_position_embeddings"] == 4 * config.context
    scaling = stored["rope_scaling"] or {}
    assert scaling.get("rope_type", "default") == ("default" if kind == "ntk" else kind)
    assert (stored["rope_theta"] > config.rope_base) == (kind == "ntk")


def test_what_cannot_be_stretched_is_said() -> None:
    with pytest.raises(ModelwrightError, match="64 is not longer than the 64 of training"):
        OURS.stretched(64, "yarn")
    longer = dataclasses.replace(OURS, **OURS.stretched(128, "yarn"))
    with pytest.raises(ModelwrightError, match=r"are stretched already \(yarn\)"):
        longer.stretched(256, "yarn")
    plain = encoder.Config(**encoder.Config.specimen)
    with pytest.raises(
        ModelwrightError, match="the family encoder has no rotary positions to stretch"
    ):
        plain.stretched(1024, "yarn")
    with pytest.raises(ModelwrightError, match=r"rope_scaling: 'yarn' needs rope_context"):
        dataclasses.replace(OURS, rope_scaling="yarn")
    with pytest.raises(ModelwrightError, match=r"rope_scaling: 'ntk' is not"):
        dataclasses.replace(OURS, rope_scaling="ntk")


@pytest.mark.parametrize("kind", KINDS)
def test_a_stretched_decoder_is_the_same_function_as_a_published_family(kind: str) -> None:
    """Which is what is written as GGUF."""
    bare = dataclasses.replace(OURS, feed_forward="gated", softcap=0.0)
    config = dataclasses.replace(bare, **bare.stretched(256, kind))
    torch.manual_seed(0)
    model = config.build().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.1)
    shape, state = own_decoder.plain(config, model.state_dict())
    other = shape.build().eval()
    other.load_state_dict(dict(state))
    tokens = torch.randint(50, (1, 200))
    with torch.no_grad():
        torch.testing.assert_close(other(tokens), model(tokens), rtol=1e-3, atol=1e-3)
