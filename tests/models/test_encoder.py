"""The encoder: its formula in plain PyTorch, packed documents, both directions, and dropout."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modelwright.errors import ModelwrightError
from modelwright.models import encoder
from tests.trainings import Setting

SHAPE = {"vocabulary": 50, "classes": 3, "depth": 2, "width": 32, "heads": 2, "context": 16}


def stirred(dropout: float = 0.0, bigrams: int = 0) -> encoder.Encoder:
    """An encoder off its start, where the blocks do nothing and the head says nothing."""
    torch.manual_seed(0)
    model = encoder.Config(**SHAPE, dropout=dropout, bigrams=bigrams).build()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.2)
    return model


def packed(lengths: Sequence[int], seed: int = 2) -> tuple[Tensor, Tensor]:
    """Random tokens of documents of these lengths, and where they start."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(50, (sum(lengths),), generator=generator)
    return tokens, torch.tensor([0, *lengths]).cumsum(0)


def plain(model: encoder.Encoder, tokens: Tensor) -> Tensor:
    """The logits (classes,) of one document, written out with PyTorch's own operations."""
    p = dict(model.named_parameters())
    width, heads = 32, 2
    d = width // heads

    def norm(x: Tensor, gain: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * gain

    def turned(x: Tensor) -> Tensor:  # (heads, T, d): complex numbers rotated by p base^(-2i/d)
        position = torch.arange(x.shape[1], dtype=x.dtype)
        rate = 10_000.0 ** (-torch.arange(0, d, 2, dtype=x.dtype) / d)
        angle = position[:, None] * rate
        z = torch.complex(*x.chunk(2, -1)) * torch.polar(torch.ones_like(angle), angle)
        return torch.cat((z.real, z.imag), -1)

    def split(x: Tensor) -> Tensor:
        return x.view(-1, heads, d).transpose(0, 1)

    x = norm(p["embedding.weight"][tokens], p["embedding_norm.gain"])
    for i in range(2):
        at = f"blocks.{i}"
        h = norm(x, p[f"{at}.attention_norm.gain"])
        q, k, v = (split(h @ p[f"{at}.attention.{n}.weight"].T) for n in ("query", "key", "value"))
        q = turned(norm(q, p[f"{at}.attention.query_norm.gain"]))
        k = turned(norm(k, p[f"{at}.attention.key_norm.gain"]))
        mixed = F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
        x = x + mixed.transpose(0, 1).reshape(-1, width) @ p[f"{at}.attention.out.weight"].T
        h = norm(x, p[f"{at}.feed_norm.gain"])
        up = (h @ p[f"{at}.feed_forward.up.weight"].T).relu().square()
        x = x + up @ p[f"{at}.feed_forward.down.weight"].T
    mean = norm(x, p["norm.gain"]).mean(0)
    return mean @ p["output.weight"].T + p["output.bias"]


def test_logits_and_gradients_are_those_of_a_plain_implementation() -> None:
    model = stirred().double()
    tokens, starts = packed([5, 1, 16, 3])
    weights = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    ours = model(tokens, starts)
    (ours * weights).sum().backward()
    gradients = {n: p.grad for n, p in model.named_parameters()}
    model.zero_grad()
    theirs = torch.stack([plain(model, t) for t in tokens.split([5, 1, 16, 3])])
    (theirs * weights).sum().backward()
    # Rotations are float32 in ours, whatever the rest is: 1e-7 of them is noise.
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    for name, p in model.named_parameters():
        torch.testing.assert_close(gradients[name], p.grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("bigrams", [0, 40])
@given(
    lengths=st.lists(st.integers(1, 16), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
    precision=st.sampled_from([torch.float32, torch.bfloat16]),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_law_3_a_packed_document_is_the_document_alone(
    lengths: list[int], seed: int, precision: torch.dtype, bigrams: int
) -> None:
    model = stirred(bigrams=bigrams)
    tokens, starts = packed(lengths, seed)
    with torch.no_grad(), torch.autocast("cpu", precision, enabled=precision != torch.float32):
        together = model(tokens, starts).float()
        alone = [model(t, torch.tensor([0, len(t)])).float() for t in tokens.split(lengths)]
    coarse = precision == torch.bfloat16
    torch.testing.assert_close(
        together, torch.cat(alone), rtol=0.05 if coarse else 1e-4, atol=0.05 if coarse else 1e-5
    )


def test_pairs_are_of_neighbours_in_a_document() -> None:
    """One row for each pair, the first token's with none before it; zero tables change nothing."""
    model = stirred(bigrams=1 << 20)
    tokens, starts = packed([4, 3])
    tokens = torch.tensor([1, 2, 1, 2, 2, 1, 2])  # pairs: -1, 12, 21, 12; -2, 21, 12
    model(tokens, starts).sum().backward()
    assert model.bigram_embedding is not None
    touched = model.bigram_embedding.weight.grad.abs().sum(1).nonzero().flatten()
    assert len(touched) == 4
    with torch.no_grad():
        model.bigram_embedding.weight.zero_()
    without = stirred()
    without.load_state_dict(
        {k: v for k, v in model.state_dict().items() if not k.startswith("bigram")}
    )
    torch.testing.assert_close(model(tokens, starts), without(tokens, starts))


def test_the_next_document_gets_no_gradient() -> None:
    model = stirred()
    tokens, starts = packed([4, 6])
    tokens = torch.arange(10)
    model(tokens, starts)[0].sum().backward()
    touched = model.embedding.weight.grad.abs().sum(1) > 0
    assert touched.nonzero().flatten().tolist() == [0, 1, 2, 3]


def test_a_late_token_changes_an_early_row() -> None:
    model = stirred()
    tokens, starts = packed([7])
    other = tokens.clone()
    other[-1] = (other[-1] + 1) % 50
    with torch.no_grad():
        one, two = model.hidden(tokens, starts), model.hidden(other, starts)
    assert (one[0] - two[0]).abs().max() > 1e-3


def test_the_order_of_the_words_matters() -> None:
    model = stirred()
    tokens, starts = torch.tensor([3, 9, 27, 31]), torch.tensor([0, 4])
    with torch.no_grad():
        assert not torch.allclose(model(tokens, starts), model(tokens.flip(0), starts), atol=1e-3)


def test_it_begins_as_a_bag_of_words_that_says_nothing() -> None:
    model = encoder.Config(**SHAPE).build().eval()
    tokens, starts = packed([6, 2])
    with torch.no_grad():
        assert model(tokens, starts).abs().max() == 0
        hidden = model.hidden(tokens, starts)
        again = model.hidden(tokens.flip(0), torch.tensor([0, 8])).flip(0)
    torch.testing.assert_close(hidden, again)  # a token's row is its own: blocks are the identity


def test_dropout_works_in_training_and_nowhere_else() -> None:
    model = stirred(dropout=0.5)
    tokens, starts = packed([8, 5])
    with torch.no_grad():
        assert not torch.equal(model(tokens, starts), model(tokens, starts))
        torch.manual_seed(4)
        one = model(tokens, starts)
        torch.manual_seed(4)
        assert torch.equal(one, model(tokens, starts))
        model.eval()
        quiet = model(tokens, starts)
        assert torch.equal(quiet, model(tokens, starts))
        torch.testing.assert_close(quiet, stirred().eval()(tokens, starts))


def test_a_step_with_dropout_depends_on_its_number_alone() -> None:
    setting = Setting("text_classification", model_fields={"dropout": 0.3})
    whole = setting.trained(0, 4)
    trainer = setting.trainer()
    parts = setting.go(trainer, 0, 2)
    torch.rand(7)  # what others draw between two steps does not matter
    assert [*parts, *setting.go(trainer, 2, 4)] == whole
    assert setting.trainer().objective.packs


def test_parameters_are_those_of_its_shape() -> None:
    config = encoder.Config(**SHAPE)
    blocks = 2 * (4 * 32 * 32 + 2 * 32 * 128 + 2 * 32 + 2 * 16)
    total = 50 * 32 + blocks + 2 * 32 + 32 * 3 + 3
    assert sum(p.numel() for p in config.build().parameters()) == total
    matrices = 2 * (4 * 32 * 32 + 2 * 32 * 128)
    assert config.flops_per_item(0, 8) == 6 * matrices + 12 * 2 * 32 * 8
    assert config.flops_per_item(0, 99) == config.flops_per_item(0)  # no longer than the context
    assert math.isclose(config.flops_per_item(1, 8) - config.flops_per_item(0, 8), 6 * 32 * 3)


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ModelwrightError, match=r"model\.width: 30 is not an even multiple"):
        encoder.Config(vocabulary=5, classes=2, width=30, heads=4)
