"""What published decoders are made of: windows, caps, rotary scaling, experts, sizes."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.errors import ModelwrightError
from modelwright.models import decoder, gpt2, llama, mixture
from modelwright.models.causal import document_attention
from modelwright.models.rope import Rope

TINY = {"vocabulary": 60, "depth": 3, "width": 16, "heads": 4, "kv_heads": 2, "context": 64}
# Parameters as their publishers count them, a tied head once.
PUBLISHED = {
    gpt2: {
        "gpt2": 124_439_808,
        "gpt2-medium": 354_823_168,
        "gpt2-large": 774_030_080,
        "gpt2-xl": 1_557_611_200,
        "distilgpt2": 81_912_576,
    },
    llama: {
        "smollm2-135m": 134_515_008,
        "llama2-7b": 6_738_415_616,
        "llama3.2-1b": 1_235_814_400,
        "mistral-7b": 7_241_732_096,
        "qwen2.5-0.5b": 494_032_768,
        "qwen3-0.6b": 596_049_920,
        "gemma3-270m": 268_098_176,
    },
    mixture: {
        "mixtral-8x7b": 46_702_792_704,
        "qwen1.5-moe-a2.7b": 14_315_784_192,
        "qwen3-30b-a3b": 30_532_122_624,
    },
}


def stirred(config, seed: int = 1):
    torch.manual_seed(seed)
    model = config.build()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.2)
    return model


def by_hand(q, k, v, starts, *, scale, window, cap):
    """Attention as its formula has it, one mask over all rows."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    z = torch.einsum("ihd,jhd->hij", q, k) * scale
    z = cap * torch.tanh(z / cap) if cap else z
    seen = torch.zeros(len(q), len(q), dtype=torch.bool)
    for a, b in pairwise(starts.tolist()):
        for i in range(a, b):
            seen[i, max(a, i + 1 - window) if window else a : i + 1] = True
    return torch.einsum("hij,jhd->ihd", z.masked_fill(~seen, -math.inf).softmax(-1), v)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=5),
    st.integers(0, 24),
    st.sampled_from([0.0, 3.0]),
    st.integers(0, 2**31),
)
def test_attention_with_windows_and_caps_is_its_formula(lengths, window, cap, seed):
    generator = torch.Generator().manual_seed(seed)
    rows = sum(lengths)
    q = torch.randn(rows, 4, 6, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, rows, 2, 6, generator=generator, dtype=torch.float64)
    starts = torch.tensor([0, *lengths]).cumsum(0)
    found = document_attention(q, k, v, starts, 0.4, window=window, cap=cap)
    # Soft caps are taken in float32, as products in training are.
    bound = 1e-5 if cap else 1e-9
    torch.testing.assert_close(
        found,
        by_hand(q, k, v, starts, scale=0.4, window=window, cap=cap),
        rtol=bound,
        atol=bound,
    )


@pytest.mark.parametrize("windows", [(4,), (4, 0), (0, 6, 6)])
def test_a_window_ends_what_a_layer_sees(windows):
    """With one layer a token further back than the window changes nothing; a nearer one does."""
    model = stirred(llama.Config(**{**TINY, "depth": 1}, windows=windows)).eval()
    tokens = torch.arange(12)[None]
    base = model(tokens)[0, -1]
    reach = windows[0] or 12
    for back in range(1, 12):
        other = tokens.clone()
        other[0, 11 - back] = 50
        same = torch.equal(model(other)[0, -1], base)
        assert same == (back >= reach), back


@pytest.mark.parametrize(
    "config",
    [
        llama.Config(**TINY, windows=(4, 0), attention_softcap=5.0, softcap=9.0, sandwich=True),
        llama.Config(**TINY, windows=(4, 4, 0), rope_local=100.0, centred=True, qk_norm=True),
        mixture.Config(**TINY, windows=(5,), experts=5, chosen=2, shared_hidden=8),
    ],
    ids=["gemma2", "gemma3", "mixture"],
)
def test_a_cache_in_pieces_gives_what_one_pass_gives(config):
    model = stirred(config).eval()
    tokens = torch.randint(60, (2, 20), generator=torch.Generator().manual_seed(3))
    whole = model(tokens)
    cache = model.new_cache(2, 20)
    pieces = [model(tokens[:, a:b], cache) for a, b in ((0, 7), (7, 8), (8, 19), (19, 20))]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", [gpt2, llama, mixture])
def test_activations_that_are_computed_again_change_no_gradient(family):
    config = family.Config(**family.Config.specimen)
    model = stirred(config)
    tokens = torch.randint(300, (2, 9), generator=torch.Generator().manual_seed(3))

    def gradients():
        model.zero_grad()
        hidden = model.hidden(tokens[:, :-1]).flatten(0, 1)
        model.negative_log_likelihood(hidden, tokens[:, 1:].flatten()).backward()
        return [p.grad.clone() for p in model.parameters()]

    plain = gradients()
    model.recompute = True
    for one, other in zip(plain, gradients(), strict=True):
        torch.testing.assert_close(one, other)


def test_experts_are_the_formula_taken_token_by_token():
    config = mixture.Config(**TINY, experts=6, chosen=2, expert_hidden=12, shared_hidden=10)
    block = stirred(config).blocks[0].feed_forward
    x = torch.randn(17, 16)
    p = block.router(x).softmax(-1)
    expected = []
    for row, probable in zip(x, p, strict=True):
        best = probable.argsort(descending=True)[:2]
        total = probable[best].sum()
        made = sum(probable[e] / total * block.experts[int(e)](row) for e in best)
        expected.append(made + torch.sigmoid(block.shared_gate(row)) * block.shared(row))
    torch.testing.assert_close(block(x), torch.stack(expected), rtol=1e-5, atol=1e-5)


def test_the_balancing_loss_is_least_when_all_experts_are_even():
    config = mixture.Config(**TINY, experts=4, chosen=2, balance=0.5)
    model = mixture.Mixture(config)
    even = (torch.full((4,), 10.0), torch.full((4,), 5.0))  # 20 tokens
    model._routed = [even, even]
    assert model.imbalance() == pytest.approx(2.0)
    model._routed = [(torch.tensor([20.0, 20.0, 0, 0]), torch.tensor([9.0, 9.0, 1.0, 1.0]))]
    assert model.imbalance() == pytest.approx(4 * 2 * 0.45)


def test_the_balancing_loss_is_of_training_alone():
    model = stirred(mixture.Config(**TINY, experts=4, chosen=2, balance=0.5))
    tokens = torch.arange(12)[None]

    def loss():
        return model.negative_log_likelihood(model.hidden(tokens)[0], tokens[0])

    trained = loss().detach()
    model.eval()
    with torch.no_grad():
        assert trained > loss() + 0.5 * 12  # at least 1 of the term for each of 12 targets


def test_training_with_the_balancing_loss_evens_the_experts_out():
    def unevenness(balance: float) -> float:
        torch.manual_seed(0)
        config = mixture.Config(**{**TINY, "depth": 1}, experts=4, chosen=1, balance=balance)
        model = config.build()
        with torch.no_grad():
            model.blocks[0].feed_forward.router.weight.mul_(30)  # one expert begins as favourite
        tokens = torch.randint(60, (4, 33), generator=torch.Generator().manual_seed(0))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(40):
            hidden = model.hidden(tokens[:, :-1]).flatten(0, 1)
            loss = model.negative_log_likelihood(hidden, tokens[:, 1:].flatten()) / 128
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.hidden(tokens[:, :-1])
        return float(model._routed[0][0].max())

    assert unevenness(1.0) < unevenness(0.0)


@pytest.mark.parametrize("scaling", ["llama3", "yarn"])
def test_stretched_rotations_keep_the_fast_pairs_and_slow_the_slow_ones(scaling):
    high = 32.0 if scaling == "yarn" else 4.0
    plain = Rope(64, 1e4).frequencies()
    slow = Rope(64, 1e4, scaling, 8.0, 1024, 1.0, high).frequencies()
    assert torch.equal(slow[0], plain[0])
    assert slow[-1] == pytest.approx(float(plain[-1]) / 8)
    assert (slow <= plain).all()
    assert (slow >= plain / 8 * 0.999).all()


@pytest.mark.parametrize(
    ("family", "name"), [(f, name) for f, found in PUBLISHED.items() for name in found]
)
def test_named_sizes_have_the_published_number_of_parameters(family, name):
    fields = family.Config.sizes[name]
    counts = []
    for depth in (1, 2):  # layers are alike: a second one tells what each of them holds
        with torch.device("meta"):
            model = family.Config(**{**fields, "depth": depth}).build()
        counts.append(sum(p.numel() for p in model.parameters()))
    found = counts[0] + (fields["depth"] - 1) * (counts[1] - counts[0])
    assert found == PUBLISHED[family][name]


def test_every_named_size_is_counted():
    for family, found in PUBLISHED.items():
        assert found.keys() == family.Config.sizes.keys()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 18}, "width: 18 is not a multiple of heads=4"),
        ({"head_width": 3}, "head_width: 3 is odd"),
        ({"kv_heads": 3}, "kv_heads: 3 does not divide heads=4"),
        ({"activation": "selu"}, "activation: 'selu' is none of silu"),
        ({"rope_scaling": "dynamic"}, "rope_scaling: 'dynamic' is none of none"),
        ({"rope_scaling": "yarn"}, "'yarn' needs rope_context"),
        ({"windows": ()}, "windows: give at least one number"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ModelwrightError, match=message):
        llama.Config(**{**TINY, **fields})


def test_more_experts_than_there_are_cannot_be_chosen():
    with pytest.raises(ModelwrightError, match="chosen: 5 of model.experts = 4"):
        mixture.Config(**TINY, experts=4, chosen=5)


@pytest.mark.parametrize(("heads", "found"), [(2, 1), (3, 3), (6, 3), (8, 4)])
def test_heads_alone_decide_those_of_keys_and_values(heads, found):
    shape = {"vocabulary": 9, "width": 48 * heads, "heads": heads}
    assert decoder.Config(**shape).kv_heads == found
    sized = decoder.Config.of_size(3_000_000, {"heads": heads})
    assert (sized["heads"], sized["kv_heads"]) == (heads, found)
