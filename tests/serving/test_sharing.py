"""What requests share and do not share: beginnings, time, rounding; and tokens checked ahead."""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.serving import batch as batches
from modelwright.serving import waiting
from modelwright.serving.batch import Batch
from modelwright.serving.engine import Engine, Request, SamplingParams
from modelwright.serving.prefixes import BLOCK, Prefixes
from modelwright.serving.row import Row
from modelwright.serving.waiting import Waiting
from tests.serving.parts import mute, random_decoder


class Counted(torch.nn.Module):
    """A model that notes how many rows and tokens each of its passes reads."""

    def __init__(self, model) -> None:
        super().__init__()
        self.inner, self.config = model, model.config
        self.passes: list[tuple[int, int]] = []

    def new_cache(self, *given):
        return self.inner.new_cache(*given)

    def hidden(self, tokens, cache=None, counts=None):
        self.passes.append(tuple(tokens.shape))
        return self.inner.hidden(tokens, cache, counts)

    def head(self, hidden):
        return self.inner.head(hidden)


def wide(codec, **fields):
    model = random_decoder(codec, context=512, **fields)
    mute(model, codec)
    return model


def served(engine: Engine, requests: list[Request]) -> list:
    """Completions of requests that go through the worker, one after another."""
    done = []
    engine.start()
    try:
        for request in requests:
            handle = engine.submit(request)
            list(handle)
            done.append(handle.completion)
    finally:
        engine.stop()
    return done


def test_a_common_beginning_is_read_once(codec):
    model = Counted(wide(codec))
    pool = codec.tokens("The quick brown fox jumps over the lazy dog. " * 30)
    system, questions = pool[:200], [pool[200:230], pool[210:260], pool[200:230]]
    requests = [Request([*system, *q], SamplingParams(max_tokens=6)) for q in questions]
    wanted = Engine(model, codec).generate(requests)
    model.passes.clear()
    engine = Engine(model, codec)
    done = served(engine, requests)
    read = [count for _, count in model.passes if count > 1]
    shared = 200 // BLOCK * BLOCK
    again = 230 // BLOCK * BLOCK  # the third question is the first one
    assert read == [230, 250 - shared, 230 - again]
    assert [c.tokens for c in done] == [c.tokens for c in wanted]
    assert engine.prefixes.found == shared + again


def test_a_prompt_of_whole_blocks_still_reads_its_last_token(codec):
    model = Counted(wide(codec))
    prompt = codec.tokens("The quick brown fox. " * 40)[: 4 * BLOCK]
    request = Request(prompt, SamplingParams(max_tokens=4))
    first, second = served(Engine(model, codec), [request] * 2)
    assert first.tokens == second.tokens
    assert [count for _, count in model.passes if count > 1] == [4 * BLOCK, BLOCK]


def test_beginnings_of_other_clients_are_not_shared(codec):
    engine = Engine(wide(codec), codec)
    prompt = codec.tokens("The quick brown fox. " * 40)[:150]
    served(engine, [Request(prompt, SamplingParams(max_tokens=1), c) for c in ("a", "b", "a")])
    assert engine.prefixes.found == 150 // BLOCK * BLOCK  # of "a", the second time


def test_the_store_stays_within_its_bytes_and_forgets_the_oldest(codec):
    model = wide(codec)
    batch = Batch(model, 2, 512)
    one = sum(stored[0, :, :BLOCK].nbytes for stored in (*batch.cache.keys, *batch.cache.values))
    store = Prefixes(3 * one)
    params = SamplingParams(max_tokens=1)

    def row(start: int) -> Row:
        return Row(Request(list(range(start, start + 2 * BLOCK + 1)), params), 1, codec)

    for start in (0, 100):
        store.keep(row(start), batch.cache, 0)
    assert store.bytes == 3 * one
    for start, found in ((100, 2 * BLOCK), (0, 0)):
        again = row(start)
        store.restore(again, batch.cache, 0)
        assert again.cached == found  # the first block of 0 is gone, so its second says nothing


def test_a_long_prompt_is_read_between_the_tokens_of_others(codec, monkeypatch):
    monkeypatch.setattr(waiting, "PREFILL_TOKENS", 64)
    monkeypatch.setattr(batches, "PREFILL_TOKENS", 64)
    monkeypatch.setattr(batches, "BESIDE_TOKENS", 16)
    model = wide(codec)
    pool = codec.tokens("The quick brown fox jumps over the lazy dog. " * 30)
    short = Row(Request(pool[:5], SamplingParams(max_tokens=60)), 60, codec)
    long = Row(Request(pool[:200], SamplingParams(max_tokens=5)), 5, codec)
    late = Row(Request(pool[:9], SamplingParams(max_tokens=5)), 5, codec)
    batch = Batch(model, 3, 512)
    with torch.inference_mode():
        batch.join([short])
        batch.step()
        batch.join([long])
        for _ in range(3):
            batch.step()
        assert (long.cached, len(short.tokens)) == (48, 5)  # 16 a step, and a token for the other
        batch.join([late])
        batch.step()
        batch.step()
        assert late.tokens and not long.tokens  # who comes late need not wait for the long one
        while batch.rows:
            batch.step()
    alone = Engine(model, codec).generate([r.request for r in (short, long, late)])
    assert [c.tokens for c in alone] == [r.tokens for r in (short, long, late)]


def test_clients_take_turns(codec):
    def row(client: str) -> Row:
        return Row(Request([1], SamplingParams(), client), 1, codec)

    rows = [row(c) for c in "aaaabab"]
    line = Waiting(rows)
    assert len(line) == 7
    line.drop([rows[1]])
    order = [r.request.client for r in line.group(3)] + [r.request.client for r in line.group(9)]
    assert "".join(order) == "ababaa"
    assert len(line) == 0 and list(line) == []


REPEATING = "one two three four five six seven eight nine ten. " * 8


@settings(max_examples=12, deadline=None, derandomize=True)  # rounding may flip one in 1e5 tokens
@given(
    starts=st.lists(st.integers(0, 60), min_size=1, max_size=4),
    temperature=st.sampled_from([0.0, 0.9]),
    penalty=st.sampled_from([0.0, 0.7]),
)
def test_drafts_change_no_token(codec, starts, temperature, penalty):
    model = wide(codec)
    pool = codec.tokens(REPEATING)
    requests = [
        Request(
            pool[s : s + 80],
            SamplingParams(
                max_tokens=30, temperature=temperature, seed=s, presence_penalty=penalty, logprobs=1
            ),
        )
        for s in starts
    ]
    plain = Engine(model, codec, max_batch=3).generate(requests)
    ahead = Engine(model, codec, max_batch=3, drafts=5).generate(requests)
    assert [c.tokens for c in plain] == [c.tokens for c in ahead]
    assert [c.text for c in plain] == [c.text for c in ahead]
    for one, other in zip(plain, ahead, strict=True):
        assert [s.spelled for s in one.scores] == [s.spelled for s in other.scores]


def test_drafts_save_passes_where_the_answer_repeats(codec):
    pool = codec.tokens(REPEATING)
    following = dict(pairwise(pool[:41]))

    class Copying(Counted):
        """Says the text on, whatever was read: nearly every draft holds."""

        def hidden(self, tokens, cache=None, counts=None):
            stream = super().hidden(tokens, cache, counts)
            stream[..., 0] = tokens
            return stream

        def head(self, hidden):
            logits = torch.zeros_like(super().head(hidden))
            for row, token in zip(logits, hidden[:, 0].long().tolist(), strict=True):
                row[following.get(token, pool[0])] = 9.0
            return logits

    model = Copying(wide(codec))
    passes, answers = [], []
    for drafts in (0, 4):
        model.passes.clear()
        request = Request(pool[:60], SamplingParams(max_tokens=25))
        answers += Engine(model, codec, drafts=drafts).generate([request])
        passes.append(len(model.passes))
    assert answers[0].tokens == answers[1].tokens
    assert passes[0] == 25
    assert passes[1] <= 12


# What ends an answer, and what keeps it from its end.
endings = st.sampled_from(
    [{}, {"ignore_eos": True}, {"min_tokens": 5, "stop": ("e",)},
     {"min_tokens": 3, "stop_token_ids": tuple(range(0, 256, 5))}]
)  # fmt: skip
mixes = st.lists(
    st.tuples(
        st.integers(0, 3),  # which beginning
        st.integers(1, 60),  # tokens of its own
        st.integers(1, 24),  # tokens of the answer
        st.sampled_from([0.0, 0.8]),
        endings,
        st.booleans(),  # given up on its way
    ),
    min_size=2,
    max_size=9,
)


@settings(max_examples=20, deadline=None)
@given(mixes)
def test_law_5_holds_bit_for_bit_in_reproducible_mode(codec, mix):
    """Log-probabilities are compared as they are: alone, in a batch, with and without sharing."""
    model = wide(codec)
    pool = codec.tokens("The quick brown fox jumps over the lazy dog. " * 30)
    requests = [
        Request(
            [*pool[begin : begin + 20 * (begin + 1)], *pool[i : i + own]],
            SamplingParams(max_tokens=most, temperature=heat, seed=i, logprobs=2, **ends),
        )
        for i, (begin, own, most, heat, ends, _) in enumerate(mix)
    ]
    engine = Engine(model, codec, max_batch=4, reproducible=True, drafts=4)
    engine.start()
    try:
        handles = [engine.submit(request) for request in requests]
        for handle, (*_, given_up) in zip(handles, mix, strict=True):
            if given_up:
                handle.cancel()
        for handle in handles:
            list(handle)
    finally:
        engine.stop()
    for request, handle in zip(requests, handles, strict=True):
        (alone,) = Engine(model, codec, reproducible=True, drafts=4).generate([request])
        got = handle.completion
        assert got.tokens == alone.tokens[: len(got.tokens)]
        assert got.scores == alone.scores[: len(got.scores)]
        if got.finish_reason != "cancelled":
            assert (got.tokens, got.text) == (alone.tokens, alone.text)
