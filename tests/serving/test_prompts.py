"""Prompts as ids of tokens: what is read, said back, counted, and refused by name."""

from __future__ import annotations

import sys

import httpx
import openai
import pytest

from modelwright.serving.engine_process import remote
from modelwright.serving.passes import PassEngine
from tests.serving.parts import running
from tests.serving.test_engine_process import PROGRAM
from tests.serving.test_wholes import Fixed, request

TEXTS = ["The quick brown fox", "Naïve café, 🦊"]
ASK = {"model": "tiny", "max_tokens": 6, "temperature": 0}


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_a_prompt_of_tokens_is_continued_as_its_text_is(client, codec):
    ids = [codec.tokens(text) for text in TEXTS]
    wanted = client.completions.create(**ASK, prompt=TEXTS, echo=True)
    several = client.completions.create(**ASK, prompt=ids, echo=True)
    assert [c.text for c in several.choices] == [c.text for c in wanted.choices]
    assert several.usage.prompt_tokens == wanted.usage.prompt_tokens == sum(map(len, ids))
    one = client.completions.create(**ASK, prompt=ids[1])
    assert TEXTS[1] + one.choices[0].text == wanted.choices[1].text
    pieces = client.completions.create(**ASK, prompt=ids[1], stream=True)
    assert "".join(p.choices[0].text for p in pieces) == one.choices[0].text


def test_texts_and_tokens_may_stand_beside_each_other(served, codec):
    body = {**ASK, "prompt": [TEXTS[0], codec.tokens(TEXTS[0])]}
    one, other = httpx.post(f"{served.url}/v1/completions", json=body).json()["choices"]
    assert one["text"] == other["text"]


def test_tokens_are_read_as_they_are(client, codec):
    """Another cut of the same text is another prompt: nothing is spelled and cut again."""
    apart = [token for letter in "quick" for token in codec.tokens(letter)]
    assert len(apart) > len(codec.tokens("quick"))
    done = client.completions.create(**ASK, prompt=apart, echo=True, logprobs=0)
    assert done.usage.prompt_tokens == len(apart)
    assert done.choices[0].logprobs.tokens[: len(apart)] == list("quick")


def test_vectors_of_tokens_are_those_of_their_text(client, codec):
    ids = [codec.tokens(text) for text in TEXTS]
    given = {"model": "tiny", "encoding_format": "float"}
    wanted = client.embeddings.create(**given, input=TEXTS)
    several = client.embeddings.create(**given, input=ids)
    assert [d.embedding for d in several.data] == [d.embedding for d in wanted.data]
    assert several.usage == wanted.usage
    (one,) = client.embeddings.create(**given, input=ids[1]).data
    assert one.embedding == wanted.data[1].embedding


@pytest.mark.parametrize(
    ("path", "given", "param"),
    [("completions", [1, 300], "prompt"), ("completions", [[1], [2, 10**8]], "prompt"),
     ("completions", [1, -1], "prompt[0][1]"), ("completions", [1, 2.5], "prompt[0][1]"),
     ("completions", [1, True], "prompt[0][1]"), ("completions", [1, "a"], "prompt[0][1]"),
     ("completions", [[]], "prompt[0]"), ("completions", [[1]] * 17, "prompt"),
     ("completions", [{}], "prompt[0]"), ("completions", [], "prompt"),
     ("completions", 5, "prompt"), ("completions", [True], "prompt[0]"),
     ("embeddings", [300], "input"), ("embeddings", [[1], [300]], "input"),
     ("embeddings", [[1, -1]], "input[0][1]"), ("embeddings", [""], "input[0]"),
     ("embeddings", [1] * 200, "input")],
    ids=str,
)  # fmt: skip
def test_tokens_that_there_are_not_are_400_and_named(served, codec, path, given, param):
    assert codec.vocabulary == 300
    name = "prompt" if path == "completions" else "input"
    answer = httpx.post(f"{served.url}/v1/{path}", json={"model": "tiny", name: given}, timeout=30)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), error
    assert error["type"] == "invalid_request_error"


def test_what_reads_texts_refuses_tokens():
    with running(PassEngine(Fixed(), request)) as served:
        body = {**ASK, "prompt": [1, 2]}
        error = httpx.post(f"{served.url}/v1/completions", json=body).json()["error"]
        assert (error["param"], error["code"]) == ("prompt", "unsupported_parameter")


def test_tokens_cross_to_an_engine_in_a_process_of_its_own(tmp_path, served, codec):
    ids = codec.tokens(TEXTS[1])
    described = tmp_path / "engine.json"
    described.write_text('{"kind": "text"}')
    with running(remote([sys.executable, PROGRAM, str(described)])) as other:
        found = [
            [
                httpx.post(f"{url}/v1/completions", json={**ASK, "echo": True, "prompt": ids}),
                httpx.post(f"{url}/v1/embeddings", json={"model": "tiny", "input": [ids]}),
            ]
            for url in (served.url, other.url)
        ]
        (a, b), (c, d) = ([one.json() for one in both] for both in found)
        assert a["choices"] == c["choices"]
        # The other process computes with one thread, this one with several: sums round apart.
        here, there = (one["data"][0]["embedding"] for one in (b, d))
        assert here == pytest.approx(there, rel=1e-4, abs=1e-6) and len(here) == 32
        wrong = httpx.post(f"{other.url}/v1/completions", json={**ASK, "prompt": [300]})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "prompt")
