"""Law 5: cached decoding = full forward; a request in a full batch = the same request alone.

Every model family with a cache is found and put to the test in several shapes.
"""

from __future__ import annotations

import dataclasses
import importlib
from inspect import signature

import pytest
import torch

from modelwright.data.codecs.text import Codec
from modelwright.models.model import config_class, families
from modelwright.serving.engine import Engine, Request, SamplingParams
from modelwright.types import Example, text_turn

VOCABULARY, CONTEXT = 290, 48
COMMON = {"vocabulary": VOCABULARY, "context": CONTEXT, "width": 32, "heads": 4}
VARIANTS: dict[str, list] = {
    "depth": [1, 3],
    "kv_heads": [1, 2, 4],
    "feed_forward": ["gated", "relu2"],
    "tied": [True],
    "softcap": [0.0],
}


def _caches_one_text(member: object) -> bool:
    """Encoder-decoders cache what they read as well: they have a test of their own below."""
    made = getattr(member, "new_cache", None)
    return (
        made is not None
        and "capacity" in (known := signature(made).parameters)
        and ("batch" in known)
    )


def cached_families() -> list[str]:
    modules = {name: importlib.import_module(f"modelwright.models.{name}") for name in families()}
    return [
        name
        for name, module in modules.items()
        if any(_caches_one_text(member) for member in vars(module).values())
    ]


def configs() -> list:
    """Each family's base shape and all that differ from it in one field."""
    found = []
    for family in cached_families():
        cls = config_class(family)
        known = {f.name for f in dataclasses.fields(cls)}
        shape = {**cls.specimen, **COMMON, "depth": 2, "kv_heads": 2}
        needed = {f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING}
        needed.add("architecture")  # of a model of another library
        base = {k: v for k, v in shape.items() if k in known and (k in COMMON or k in needed)}
        base |= {k: shape[k] for k in ("depth", "kv_heads") if k in known}
        changes = [{}] + [{k: v} for k, vs in VARIANTS.items() if k in known for v in vs]
        for change in changes:
            name = "-".join([family, *(f"{k}={v}" for k, v in change.items())])
            found.append(pytest.param(cls(**{**base, **change}), id=name))
    return found


def random_model(config):
    model = config.build().eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.3 if p.dim() > 1 else 1.0, generator=generator)
    return model


def random_prompts(count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(7)
    lengths = [1 + (7 * i) % (CONTEXT - 16) for i in range(count)]
    return [torch.randint(VOCABULARY, (n,), generator=generator).tolist() for n in lengths]


@pytest.fixture(scope="module")
def codec() -> Codec:
    text = "The quick brown fox jumps over the lazy dog, again and again and again. " * 4
    fitted = Codec.fit([Example((text_turn("document", text),))], vocabulary=VOCABULARY)
    assert fitted.vocabulary == VOCABULARY
    return fitted


def test_a_family_with_a_cache_exists():
    assert "decoder" in cached_families()


@pytest.mark.parametrize("config", configs())
@torch.inference_mode()
def test_logits_with_a_cache_are_those_of_the_full_forward(config):
    model, prompts = random_model(config), random_prompts(5)
    counts = torch.tensor([len(p) for p in prompts])
    padded = torch.full((5, int(counts.max())), 1)
    for i, prompt in enumerate(prompts):
        padded[i, : len(prompt)] = torch.tensor(prompt)
    cache = model.new_cache(5, CONTEXT)
    read = model(padded, cache=cache, counts=counts)
    rows = [torch.tensor(p) for p in prompts]
    for i, row in enumerate(rows):
        torch.testing.assert_close(read[i, : len(row)], model(row[None])[0], atol=1e-4, rtol=1e-4)
    generator = torch.Generator().manual_seed(9)
    for _ in range(12):
        following = torch.randint(VOCABULARY, (5, 1), generator=generator)
        rows = [torch.cat([row, token]) for row, token in zip(rows, following, strict=True)]
        step = model(following, cache=cache)[:, 0]
        full = torch.stack([model(row[None])[0, -1] for row in rows])
        torch.testing.assert_close(step, full, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("config", configs())
def test_greedy_tokens_with_a_cache_are_those_of_the_full_forward(config, codec):
    model = random_model(config)
    for prompt in random_prompts(3):
        (done,) = Engine(model, codec).generate([Request(prompt, SamplingParams(max_tokens=12))])
        tokens = list(prompt)
        with torch.inference_mode():
            while len(tokens) - len(prompt) < 12:
                token = int(model(torch.tensor([tokens]))[0, -1].argmax())
                if token in codec.special:
                    break
                tokens.append(token)
        assert done.tokens == tokens[len(prompt) :]


@pytest.mark.parametrize("config", configs())
@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "seeded"])
def test_a_request_in_a_full_batch_is_the_same_request_alone(config, codec, temperature):
    model = random_model(config)
    requests = [
        Request(prompt, SamplingParams(max_tokens=4 + i, temperature=temperature, seed=i))
        for i, prompt in enumerate(random_prompts(10))
    ]
    together = Engine(model, codec, max_batch=4).generate(requests)
    for request, done in zip(requests, together, strict=True):
        (alone,) = Engine(model, codec).generate([request])
        assert done.tokens == alone.tokens
        assert (done.text, done.finish_reason) == (alone.text, alone.finish_reason)
    assert len({tuple(done.tokens) for done in together}) > 1  # not all ended at once


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_an_encoder_decoder_with_a_cache_is_its_full_forward(family: str):
    """Fed whole, and in pieces of 1 to 4 tokens after sources of different lengths."""
    cls = config_class(family)
    model = random_model(cls(**{**cls.specimen, "vocabulary": VOCABULARY}))
    generator = torch.Generator().manual_seed(9)
    sources = torch.randint(VOCABULARY, (12,), generator=generator)
    bounds = torch.tensor([0, 4, 12])  # one of 4 tokens, one of 8
    targets = torch.randint(VOCABULARY, (2, 10), generator=generator)
    with torch.no_grad():
        whole = model(targets, sources, source_starts=bounds)
        cache = model.new_cache(sources, 10, bounds)
        pieces = [model(part, None, cache) for part in targets.split([1, 4, 2, 3], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-4, atol=1e-4)
    assert whole.std() > 0.01  # there was something to compare
