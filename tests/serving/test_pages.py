"""A cache takes memory for what is in it, not for what it could hold."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.errors import ModelwrightError
from modelwright.serving.batch import Batch
from modelwright.serving.engine import Engine, Request, SamplingParams
from modelwright.serving.pages import Pages
from modelwright.serving.row import Row
from modelwright.serving.waiting import Waiting
from tests.serving.parts import SlowModel, mute, random_decoder, wait_for

MEGABYTE = 1 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is given back under Linux only")


def resident() -> int:
    """Bytes of this process that are in memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) << 10


def batch_of(codec, rows: int, context: int) -> Batch:
    """A batch whose cache would take hundreds of megabytes, if it were full."""
    model = random_decoder(codec, width=64, context=context)
    mute(model, codec)
    return Batch(model, rows, context)


def whole(batch: Batch) -> int:
    return sum(kept.nbytes for kept in (*batch.cache.keys, *batch.cache.values))


@linux
@torch.inference_mode()
def test_short_requests_do_not_take_the_memory_of_long_ones(codec):
    before = resident()
    batch = batch_of(codec, 64, 32768)
    assert whole(batch) > 1000 * MEGABYTE
    params = SamplingParams(max_tokens=8)
    batch.join([Row(Request([5] * 20, params), 8, codec) for _ in range(64)])
    while batch.rows:
        batch.step()
    assert resident() - before < 60 * MEGABYTE


@linux
@torch.inference_mode()
def test_a_long_row_gives_its_memory_back_when_it_leaves(codec):
    batch = batch_of(codec, 2, 65536)
    stored = (*batch.cache.keys, *batch.cache.values)
    params = SamplingParams(max_tokens=8)
    long, short = (Row(Request([5] * 20, params), 8, codec) for _ in range(2))
    batch.join([long, short])
    batch.step()
    kept = [s[1, :, : short.cached].clone() for s in stored]
    before = resident()
    for one in stored:
        one[0] = 1.0
    long.cached = 65536
    filled = resident() - before
    assert filled > 15 * MEGABYTE
    batch.leave([long])
    assert resident() - before < filled // 10
    for one, former in zip(stored, kept, strict=True):  # who moves into the slot is as before
        assert torch.equal(one[0, :, : short.cached], former)


@settings(max_examples=40, deadline=None)
@given(
    slots=st.integers(1, 9),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 700), st.integers(1, 9)),
    kind=st.sampled_from([torch.float32, torch.bfloat16, torch.int64]),
    data=st.data(),
)
def test_a_slot_that_is_freed_leaves_its_neighbours_alone(slots, shape, kind, data):
    pages = Pages()
    heads, capacity, width = shape
    made = pages.tensor(torch.zeros(slots, heads, 1, width, dtype=kind), capacity)
    assert made.shape == (slots, heads, capacity, width)
    assert not made.any()
    values = torch.arange(1, slots + 1, dtype=kind)[:, None, None, None]
    made[:] = values
    gone = data.draw(st.sets(st.integers(0, slots - 1)))
    pages.free(sorted(gone))
    for slot in set(range(slots)) - gone:
        assert bool((made[slot] == values[slot]).all())
    made[:] = values  # all of it can be written again
    assert bool((made == values).all())


def test_rows_that_do_not_fit_together_wait_and_keep_their_turn(codec):
    def row(prompt: int, most: int) -> Row:
        return Row(Request([1] * prompt, SamplingParams(max_tokens=most)), most, codec)

    rows = [row(10, 20), row(5, 60), row(1, 4)]
    line = Waiting(rows)
    assert line.group(9, 40) == rows[:1]
    assert line.group(9, 64) == []  # the second is next; the third does not overtake it
    assert line.group(9, 70) == rows[1:]


def test_an_engine_begins_what_its_cache_can_hold(codec):
    model = random_decoder(codec)
    mute(model, codec)
    slow = SlowModel(model)
    engine = Engine(slow, codec, max_batch=8, cache_tokens=100)
    params = SamplingParams(max_tokens=20)
    engine.start()
    try:
        handles = [engine.submit(Request([1] * 10, params)) for _ in range(5)]
        slow.release(1)
        wait_for(lambda: engine.running)
        assert (engine.running, engine.waiting) == (3, 2)
        slow.release()
        for handle in handles:
            list(handle)
    finally:
        slow.release()
        engine.stop()
    (alone,) = Engine(model, codec).generate([Request([1] * 10, params)])
    assert [h.completion.tokens for h in handles] == [alone.tokens] * 5
    with pytest.raises(ModelwrightError, match="cache_tokens"):
        Engine(model, codec, cache_tokens=95)
