"""What makes the steps of a small model quick changes no bit of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright import runtime
from modelwright.data.codecs.vectors import Codec
from modelwright.training.observe.means import Means
from modelwright.training.optimizers.sgd import SGD
from modelwright.training.thread_count import candidates, chosen, line_every, measured
from modelwright.training.train import Record
from modelwright.types import take


@given(seed=st.integers(0, 2**63 - 1))
@settings(max_examples=20, deadline=None)
def test_seeding_is_that_of_torch(seed: int) -> None:
    torch.manual_seed(seed)
    theirs = torch.rand(3)
    runtime.seed_torch(seed, torch.device("cpu"))
    assert torch.equal(torch.rand(3), theirs)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_update_is_the_step_of_torch(momentum: float) -> None:
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(5, 3)), torch.nn.Parameter(torch.randn(3))]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    members = [
        SGD([{"params": part, "weight_decay": 0.1}], 0.05, momentum) for part in (ours, theirs)
    ]
    for _ in range(4):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        members[0].update()
        members[1].step()
        assert all(map(torch.equal, ours, theirs))
        assert all(p.grad is None for p in ours)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_batch_of_vectors_is_the_formula_bit_for_bit(kind: type) -> None:
    rng = np.random.default_rng(0)
    stored = (255 * rng.random((9, 4, 3))).astype(kind)
    mean, deviation = rng.random((4, 3), np.float32), 1 + rng.random((4, 3), np.float32)
    codec = Codec(["a", "b"], (4, 3), mean, deviation, bytes_only=kind is np.uint8)
    columns = {"features": stored, "label": np.arange(9) % 2}
    before, rows = stored.copy(), np.array([7, 0, 7, 2])
    found = codec.tensors(take(columns, rows))["features"].numpy()
    expected = (stored[rows].astype(np.float32) - mean) / deviation
    assert found.tobytes() == expected.tobytes()
    codec.tensors(columns)
    assert np.array_equal(stored, before)  # what is stored is not scaled in place


# -- one line for several steps ---------------------------------------------------------------

RECORDS = st.lists(
    st.tuples(st.floats(0.01, 10), st.integers(1, 64), st.sampled_from(["", "", "", "skipped"])),
    min_size=1,
    max_size=30,
)


def records(values: list[tuple[float, int, str]]) -> list[Record]:
    return [
        Record(
            step=i + 1,
            loss=loss,
            items=items,
            bytes=2 * items,
            computed=items,
            rate=0.1,
            gradient_norm=loss,
            seconds=0.001,
            skipped=mark == "skipped",
        )
        for i, (loss, items, mark) in enumerate(values)
    ]


def told(means: Means, some: list[Record], total: int) -> list[tuple[Record, int]]:
    return [line for r in some for line in means.add(r, last=r.step == total)]


@given(values=RECORDS, every=st.integers(1, 9), data=st.data())
@settings(max_examples=60, deadline=None)
def test_nothing_is_lost_and_a_resumed_run_tells_the_same(
    values: list[tuple[float, int, str]], every: int, data: st.DataObject
) -> None:
    steps = records(values)
    lines = told(Means(every, {}), steps, len(steps))
    assert sum(count for _, count in lines) == len(steps)
    for name in ("items", "bytes", "computed"):
        assert sum(getattr(r, name) for r, _ in lines) == sum(getattr(r, name) for r in steps)
    cost = sum(r.loss * r.items for r, _ in lines)
    assert math.isclose(cost, sum(r.loss * r.items for r in steps), rel_tol=1e-9)
    assert lines[-1][0].step == len(steps)
    at = data.draw(st.integers(0, len(steps)))
    totals: dict[str, float] = {}
    first = told(Means(every, totals), steps[:at], len(steps))
    saved = dict(totals)  # as a checkpoint holds it
    assert first + told(Means(every, saved), steps[at:], len(steps)) == lines


def test_a_line_of_one_step_is_that_step() -> None:
    steps = records([(1 / 3, 7, ""), (0.1, 3, "")])
    assert told(Means(1, {}), steps, 2) == [(steps[0], 1), (steps[1], 1)]


# -- threads ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "best"),
    [({1: 1.0}, 1), ({1: 1.0, 2: 0.97}, 1), ({1: 1.0, 2: 0.6, 4: 0.59}, 2), ({1: 1.0, 4: 0.3}, 4)],
)
def test_more_threads_must_gain(seconds: dict[int, float], best: int) -> None:
    threads, reason = chosen(seconds)
    assert threads == best
    assert all(f"with {n}" in reason for n in seconds)


def test_every_number_of_threads_is_measured_and_the_setting_given_back() -> None:
    before, seen = torch.get_num_threads(), set()
    found = measured(lambda: seen.add(torch.get_num_threads()), [1, 2])
    assert seen == set(found) == {1, 2}
    assert torch.get_num_threads() == before


def test_candidates_end_with_all_cores() -> None:
    assert [candidates(n) for n in (1, 2, 3, 4, 6)] == [
        [1],
        [1, 2],
        [1, 2, 3],
        [1, 2, 4],
        [1, 2, 4, 6],
    ]


def test_a_line_takes_twenty_milliseconds() -> None:
    assert [line_every(s)[0] for s in (0.001, 0.0009, 0.015, 1.0)] == [20, 22, 1, 1]
