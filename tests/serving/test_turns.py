"""Answers that come whole wait for their turn: who leaves or waits too long is never begun."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from modelwright.serving.engine import Engine
from modelwright.serving.engine_process import remote
from modelwright.serving.limits import Limits
from modelwright.serving.passes import PassEngine
from modelwright.types import text_turn
from tests.serving.parts import Gated, Served, running, wait_for
from tests.serving.test_engine_process import PROGRAM

CANCELLED = "modelwright_requests_cancelled_total"


@contextmanager
def gated(folder, kind: str, **limits: float) -> Iterator[tuple[Served, Gated]]:
    """A server whose policy answers when it is opened, here or in a process of its own."""
    policy = Gated(folder)
    if kind == "here":
        engine = PassEngine(policy, lambda typed: (text_turn("user", typed),), max_waiting=3)
    else:
        described = folder / "engine.json"
        described.write_text(json.dumps({"kind": "gated", "folder": str(folder)}))
        engine = remote([sys.executable, PROGRAM, str(described)])
    try:
        with running(engine, limits=Limits(**limits)) as served:
            yield served, policy
    finally:
        policy.open()
        engine.stop()


def ask(served: Served, text: str, timeout: float = 60) -> httpx.Response:
    body = {"inputs": [text]}
    return httpx.post(f"{served.url}/predict", json=body, timeout=timeout)


@pytest.fixture(params=["here", "in a process of its own"])
def kind(request) -> str:
    return request.param


def test_who_waits_too_long_for_a_turn_is_told_and_never_begun(tmp_path, kind):
    with gated(tmp_path, kind, queue_seconds=0.5) as (served, policy), ThreadPoolExecutor() as pool:
        first = pool.submit(ask, served, "first")
        wait_for(lambda: policy.asked == ["first"])
        late = ask(served, "late")
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert "did not begin within 0.5 seconds" in late.json()["error"]["message"]
        assert not first.done()  # it was begun in time, so it may take longer than that
        policy.open()
        assert first.result().json()["data"][0]["said"] == "first"
        assert ask(served, "third").status_code == 200
        assert policy.asked == ["first", "third"]


def test_who_leaves_before_the_turn_is_never_begun_and_frees_the_place(tmp_path, kind):
    with gated(tmp_path, kind) as (served, policy), ThreadPoolExecutor() as pool:
        first = pool.submit(ask, served, "first")
        wait_for(lambda: policy.asked == ["first"])
        for count in range(1, 6):  # more than may wait
            with pytest.raises(httpx.ReadTimeout):
                ask(served, "left", timeout=0.3)
            line = f"{CANCELLED} {count}"
            wait_for(lambda line=line: line in httpx.get(f"{served.url}/metrics").text)
        waiting = [pool.submit(ask, served, "stays") for _ in range(2)]
        wait_for(lambda: served.engine.waiting == 2)
        full = ask(served, "full")
        assert (full.status_code, full.json()["error"]["code"]) == (429, "queue_full")
        policy.open()
        assert [one.result().status_code for one in (first, *waiting)] == [200] * 3
        assert policy.asked == ["first", "stays", "stays"]


@pytest.mark.parametrize("queue", [0.0, 0.3, 5.0])
def test_an_answer_that_is_begun_has_its_whole_time(tmp_path, queue):
    limits = {"queue_seconds": queue, "total_seconds": 1.0}
    with gated(tmp_path, "here", **limits) as (served, policy):
        late = ask(served, "first")
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert "was not done within 1 seconds" in late.json()["error"]["message"]
        policy.open()
        assert ask(served, "second").status_code == 200


def test_vectors_wait_no_longer_than_others(model, codec, monkeypatch, tmp_path):
    engine, begun, opened = Engine(model, codec), [], tmp_path / "open"
    embed = engine.embed

    def slow(texts):
        begun.append(texts)
        wait_for(opened.exists, 60)
        return embed(texts)

    monkeypatch.setattr(engine, "embed", slow)
    with (
        running(engine, limits=Limits(queue_seconds=0.3)) as served,
        ThreadPoolExecutor() as pool,
    ):

        def vectors(text: str) -> httpx.Response:
            body = {"model": "tiny", "input": text}
            return httpx.post(f"{served.url}/v1/embeddings", json=body, timeout=60)

        first = pool.submit(vectors, "first")
        wait_for(lambda: begun)
        late = vectors("late")
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        opened.touch()
        assert first.result().status_code == vectors("third").status_code == 200
        assert begun == [["first"], ["third"]]


def test_a_turn_that_comes_is_not_cancelled_any_more(tmp_path):
    """What is begun is finished; what waits can be given up at any time, and its place is free."""
    policy = Gated(tmp_path)
    engine = PassEngine(policy, lambda typed: (text_turn("user", typed),), max_waiting=2)
    engine.start()
    try:
        told: list[float] = []
        first = engine.ask([engine.question("first")], begun=lambda: told.append(time.monotonic()))
        wait_for(lambda: policy.asked == ["first"])
        assert told and first.running() and not first.cancel()
        second = engine.ask([engine.question("second")])
        assert engine.waiting == 1
        assert second.cancel() and engine.waiting == 0
        policy.open()
        assert first.result(30)[0].turn.text == "first"
    finally:
        policy.open()
        engine.stop()
    assert policy.asked == ["first"]
