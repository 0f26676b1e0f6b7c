"""Drawing tokens: the stated probabilities, the cuts, and independence of the batch."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.errors import ModelwrightError
from modelwright.serving.sampling import SamplingParams, check_finite, sample


def draws(logits: list[float], params: SamplingParams, count: int) -> list[int]:
    generator = params.generator()
    row = torch.tensor([logits])
    return [sample(row, [params], [generator])[0] for _ in range(count)]


def test_temperature_draws_with_the_softmax_probabilities():
    logits, temperature, count = [2.0, 1.0, 0.0, -1.0], 0.7, 4000
    drawn = draws(logits, SamplingParams(temperature=temperature, seed=1), count)
    wanted = torch.softmax(torch.tensor(logits) / temperature, 0)
    for token, p in enumerate(wanted.tolist()):
        deviation = math.sqrt(count * p * (1 - p))
        assert abs(drawn.count(token) - count * p) < 4 * deviation


def test_top_k_and_top_p_keep_the_likeliest_only():
    probabilities = [0.1, 0.5, 0.15, 0.25]
    logits = [math.log(p) for p in probabilities]

    def kept(**cut):
        return set(draws(logits, SamplingParams(temperature=1.0, seed=3, **cut), 400))

    assert kept() == {0, 1, 2, 3}
    assert kept(top_k=2) == {1, 3}
    assert kept(top_p=0.5) == {1}
    assert kept(top_p=0.76) == {1, 3, 2}
    assert kept(top_k=2, top_p=0.6) == {1}  # 0.5 / 0.75 is above 0.6
    assert kept(top_k=9) == {0, 1, 2, 3}


def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest():
    logits = [math.log(p) for p in (0.1, 0.5, 0.15, 0.25)]

    def kept(**cut):
        return set(draws(logits, SamplingParams(temperature=1.0, seed=3, **cut), 400))

    assert kept(min_p=0.49) == {1, 3}
    assert kept(min_p=0.29) == {1, 2, 3}
    assert kept(min_p=1.0) == {1}
    assert kept(min_p=0.29, top_k=2) == {1, 3}


def test_greedy_and_a_tiny_temperature_take_the_likeliest():
    logits = [0.0, 3.0, 2.9, -50.0]
    assert draws(logits, SamplingParams(), 3) == [1, 1, 1]
    assert draws(logits, SamplingParams(temperature=1e-6, seed=0), 20) == [1] * 20


rows = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 5.0]),
    top_p=st.floats(0.01, 1.0),
    top_k=st.integers(0, 12),
    min_p=st.floats(0.0, 1.0),
    seed=st.integers(-(2**63), 2**63 - 1),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(rows, min_size=1, max_size=6), st.integers(0, 2**32))
def test_a_row_draws_the_same_alone_and_in_a_batch(params, seed):
    logits = 3 * torch.randn(len(params), 11, generator=torch.Generator().manual_seed(seed))
    before = torch.get_rng_state()
    together = sample(logits, params, [p.generator() for p in params])
    alone = [sample(logits[i : i + 1], [p], [p.generator()])[0] for i, p in enumerate(params)]
    assert together == alone
    assert torch.equal(before, torch.get_rng_state())  # law 12


def test_without_a_seed_requests_differ():
    flat = [0.0] * 200
    assert draws(flat, SamplingParams(temperature=1.0), 8) != draws(
        flat, SamplingParams(temperature=1.0), 8
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_tokens", 0), ("temperature", -0.1), ("temperature", math.nan), ("top_p", 0.0),
     ("top_p", 1.1), ("top_k", -1), ("stop", ("a", "")), ("min_p", 1.5), ("logprobs", 21),
     ("frequency_penalty", 2.1), ("presence_penalty", -3.0), ("repetition_penalty", 0.0)],
)  # fmt: skip
def test_a_parameter_out_of_range_is_named(field, value):
    with pytest.raises(ModelwrightError, match=f"^{field}: "):
        SamplingParams(**{field: value})


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_weights_are_an_error_not_a_token(bad):
    with pytest.raises(ModelwrightError, match="not finite"):
        check_finite(torch.tensor([[0.0, bad]]))
