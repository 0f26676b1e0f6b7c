"""Law 5 in reproducible mode, bit for bit, for 200 random mixes of requests: by hand.

`pytest tests/slow/test_law_5_mixes.py -s`; MODELWRIGHT_SCALE (1) multiplies how many there are.
Every mix has common beginnings, drafts, draws, penalties, ends, adapters, other clients, and
requests that are given up while they wait, are read or are written. What is compared are tokens,
texts and log-probabilities, as they are, with those of the same request alone in an engine of its
own.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from queue import SimpleQueue

import torch

from modelwright.models.routed import route
from modelwright.serving.engine import Engine, Handle, Request, SamplingParams
from modelwright.serving.row import Event, Row
from tests.models.test_routed import KINDS, adapted
from tests.serving.conftest import codec  # noqa: F401 - a fixture
from tests.serving.parts import mute, random_decoder

MIXES = max(1, int(200 * float(os.environ.get("MODELWRIGHT_SCALE", "1"))))
TEXT = "The quick brown fox jumps over the lazy dog. One, two, three, four, five. " * 30


@dataclass
class Counts:
    """What the mixes were made of, to be told."""

    requests: int = 0
    given_up: int = 0
    cut: int = 0  # of these, within their answers
    shared: int = 0  # tokens that were not read again
    drafted: int = 0  # tokens looked up ahead
    adapted: int = 0  # requests with an adapter


def mix(draw: random.Random, pool: list[int]) -> list[Request]:
    """Two to a dozen requests, most of which begin alike."""
    beginnings = [pool[: draw.randrange(30, 160)] for _ in range(2)]
    found = []
    for _ in range(draw.randrange(2, 13)):
        at = draw.randrange(200)
        own = pool[at : at + draw.randrange(1, 90)]
        params = SamplingParams(
            max_tokens=draw.randrange(1, 40),
            temperature=draw.choice([0.0, 0.0, 0.7, 1.3]),
            seed=draw.randrange(1 << 40),
            top_p=draw.choice([1.0, 0.9]),
            presence_penalty=draw.choice([0.0, 0.0, 0.8]),
            logprobs=draw.choice([None, 0, 3]),
            min_tokens=draw.choice([0, 0, 5, 20]),
            ignore_eos=draw.choice([False, False, True]),
            stop_token_ids=tuple(draw.sample(pool, draw.choice([0, 0, 9]))),
            stop=draw.choice([(), (), ("e",)]),
        )
        begun = draw.choice([*beginnings, []])
        client, adapter = draw.choice(["", "anna"]), draw.choice(["", "", *KINDS])
        found.append(Request([*begun, *own], params, client, adapter))
    return found


def submitted(engine: Engine, request: Request, after: int | None) -> Handle:
    """A request that is given up after so many pieces of text, or before it has begun."""
    events: SimpleQueue[Event] = SimpleQueue()
    found: list[Handle] = []

    def listen(event: Event) -> None:
        events.put(event)
        if found and events.qsize() == after:
            found[0].cancel()

    handle = engine.submit(request, listen)
    handle._events = events
    found.append(handle)
    if after == 0:
        handle.cancel()
    return handle


def answered(engine: Engine, requests: list[Request], draw: random.Random) -> list[Handle]:
    """All of them at once; nothing is read before all are there."""
    after = [draw.choice([None, None, None, 0, draw.randrange(1, 12)]) for _ in requests]
    handles = [submitted(engine, *pair) for pair in zip(requests, after, strict=True)]
    for handle in handles:
        list(handle)
    return handles


def same(alone: object, got: object) -> bool:
    """Whether what has come of an answer is how the whole one begins."""
    return list(got) == list(alone)[: len(list(got))]  # type: ignore[call-overload]


def test_law_5_for_random_mixes(codec, monkeypatch):  # noqa: F811
    torch.set_num_threads(1)
    model = random_decoder(codec, context=512)
    mute(model, codec)
    twins = {name: adapted(model, seed, **kind) for seed, (name, kind) in enumerate(KINDS.items())}
    adapters = {name: route(model, twin) for name, twin in twins.items()}
    pool, counts = codec.tokens(TEXT), Counts()
    drafted = Row.draft

    def counted(row: Row, most: int) -> list[int]:
        found = drafted(row, most)
        counts.drafted += len(found)
        return found

    monkeypatch.setattr(Row, "draft", counted)
    for number in range(MIXES):
        draw = random.Random(number)
        requests = mix(draw, pool)
        given = {"reproducible": True, "drafts": draw.choice([0, 3, 5])}
        engine = Engine(model, codec, max_batch=draw.choice([1, 3, 8]), **given)
        engine.adapters = adapters
        engine.start()
        try:
            handles = answered(engine, requests, draw)
        finally:
            engine.stop()
        counts.requests += len(requests)
        counts.shared += engine.prefixes.found
        for request, handle in zip(requests, handles, strict=True):
            one = Engine(model, codec, **given)
            one.adapters = adapters
            (alone,) = one.generate([request])
            counts.adapted += bool(request.adapter)
            got = handle.completion
            if got.finish_reason == "cancelled":
                counts.given_up += 1
                counts.cut += bool(got.tokens)
                assert same(alone.tokens, got.tokens), number
                assert same(alone.scores, got.scores), number
            else:
                found = (got.tokens, got.text, got.scores, got.finish_reason)
                wanted = (alone.tokens, alone.text, alone.scores, alone.finish_reason)
                assert found == wanted, number
    print(f"\n{MIXES} mixes held: {counts}")
    assert counts.drafted and counts.adapted
    assert MIXES < 20 or (counts.shared and counts.cut)
