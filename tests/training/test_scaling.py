"""The law of loss: its optimum, the fit that finds it again, and the committed sweep."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.training.scaling import OURS, PUBLISHED, Law, flops_per_token, nearest

RESULTS = Path(__file__).parents[2] / "benchmarks" / "scaling" / "results.json"
laws = st.builds(
    lambda e, a, x, b, y: Law(e, a, x, b, y, 0.01, (1e5, 1e7), (1e5, 1e8), "drawn"),
    st.floats(0.5, 4),
    st.floats(5, 1000),
    st.floats(0.15, 0.8),
    st.floats(5, 5000),
    st.floats(0.15, 0.8),
)


@given(laws, st.floats(1e12, 1e22), st.floats(0.5, 2))
@settings(max_examples=200, deadline=None)
def test_the_closed_form_is_the_least_loss(law: Law, flops: float, factor: float) -> None:
    size, tokens = law.best(flops)
    assert 6 * size * tokens == pytest.approx(flops)
    beside = law.loss(size * factor, tokens / factor)
    assert law.loss(size, tokens) <= beside * (1 + 1e-12)
    assert law.best_size(tokens) == pytest.approx(size, rel=1e-6)


@given(laws, st.floats(1e10, 1e20), st.floats(1.01, 100))
@settings(max_examples=50, deadline=None)
def test_more_computing_means_more_of_both(law: Law, flops: float, more: float) -> None:
    for best in (law.best, lambda c: law.best_decoder(c, 4096, 256)):
        (n, d), (bigger, longer) = best(flops), best(flops * more)
        assert bigger >= n
        assert longer >= 0.9 * d  # sizes are tried in steps of 5 %
        assert law.loss(bigger, longer) <= law.loss(n, d) * (1 + 1e-9)


@given(laws, st.floats(1e13, 1e18))
@settings(max_examples=50, deadline=None)
def test_what_a_head_costs_is_counted(law: Law, flops: float) -> None:
    size, tokens = law.best_decoder(flops, 4096, 256)
    assert size * flops_per_token(size, 4096, 256) / size * tokens == pytest.approx(flops)
    assert law.loss(size, tokens) >= law.loss(*law.best(flops)) * (1 - 1e-9)


def test_the_law_that_extrapolates_least_is_taken() -> None:
    assert nearest(1e6, 1e6) is OURS
    assert nearest(7e9, 1e12) is PUBLISHED
    assert OURS.reach(OURS.sizes[0], OURS.tokens[0]) == 1
    assert PUBLISHED.reach(1.6e11, 1e11) == pytest.approx(10)


def test_the_published_law_gives_the_published_balance() -> None:
    """About 20 tokens a parameter at 1e21 to 1e24 FLOPs (arXiv:2404.10102)."""
    for flops in (1e21, 1e22, 1e24):
        size, tokens = PUBLISHED.best(flops)
        assert 15 < tokens / size < 35


def test_the_fit_finds_a_law_again() -> None:
    pytest.importorskip("scipy")
    from benchmarks.scaling.fit import fitted

    true = Law(2.5, 60.0, 0.4, 300.0, 0.4, 0, (1e5, 1e7), (1e5, 1e7), "made")
    runs = [
        {"matrix_parameters": n, "tokens": d, "loss": true.loss(n, d)}
        for n in (1e5, 5e5, 2e6, 8e6)
        for d in (2e5, 1e6, 4e6, 1.6e7)
    ]
    log_a, log_b, log_e, a, b = fitted(runs, [(4.0, 6.0, 0.8, 0.3, 0.3)])
    found = Law(math.exp(log_e), math.exp(log_a), a, math.exp(log_b), b, 0, (1, 1), (1, 1), "")
    for run in runs:
        assert found.loss(run["matrix_parameters"], run["tokens"]) == pytest.approx(
            run["loss"], rel=0.002
        )


def test_our_law_is_that_of_the_committed_sweep() -> None:
    runs = json.loads(RESULTS.read_text(encoding="utf-8"))["runs"]
    misses = [abs(OURS.loss(r["matrix_parameters"], r["tokens"]) / r["loss"] - 1) for r in runs]
    assert f"{len(runs)} runs" in OURS.source
    assert sum(misses) / len(misses) < 0.03
    assert OURS.sizes == (
        min(r["matrix_parameters"] for r in runs),
        max(r["matrix_parameters"] for r in runs),
    )
    assert OURS.tokens == (min(r["tokens"] for r in runs), max(r["tokens"] for r in runs))
