"""The document of the API: what it lets through is let through, and it names what is served."""

from __future__ import annotations

import json
from dataclasses import replace

import httpx
import jsonschema
import pytest

from modelwright.serving.engine import Engine
from modelwright.serving.openapi import EVENTS, naming
from modelwright.serving.passes import PassEngine
from tests.serving.parts import SlowModel, mute, random_decoder, running
from tests.serving.test_wholes import Fixed, request
from tests.serving.test_wholes import sound as sound_file


@pytest.fixture(scope="module")
def made(served):
    return httpx.get(f"{served.url}/openapi.json").json()


def property_of(made, path, name):
    schema = made["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    body = made["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return body["properties"][name]


def said_of(made, path, verb="post", kind="application/json"):
    """What checks an answer of a path, or with the kind EVENTS an event of one."""
    content = made["paths"][path][verb]["responses"]["200"]["content"][kind]["schema"]
    return jsonschema.Draft202012Validator({**content, "components": made["components"]})


def sound(made, path, answer, verb="post"):
    """Whether an answer is what the document says of its path; nothing in it is untold."""
    assert answer.status_code == 200, answer.text
    said_of(made, path, verb).validate(answer.json())


def streamed(http, made, path, body=None, **given):
    """The events of a stream, each of which is what the document says of them."""
    check, found = said_of(made, path, kind=EVENTS), []
    with http.stream("POST", path, json=body, **given) as response:
        assert response.headers["content-type"].startswith(EVENTS)
        for line in response.iter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                found.append(json.loads(line.removeprefix("data: ")))
                check.validate(found[-1])
                assert not check.is_valid({**found[-1], "other": 1})
    return found


def types_of(made, path):
    """The types of events that the document tells of."""
    schemas = made["components"]["schemas"]
    content = made["paths"][path]["post"]["responses"]["200"]["content"][EVENTS]["schema"]
    each = schemas[content["$ref"].rpartition("/")[2]]["anyOf"]
    kinds = [schemas[one["$ref"].rpartition("/")[2]]["properties"]["type"] for one in each]
    return {name for kind in kinds for name in kind.get("enum", [kind.get("const")])}


PLACE = {"type": "object", "properties": {}, "additionalProperties": False}
CALL = {"type": "function", "function": {"name": "now", "parameters": PLACE}}
SAID = [{"role": "user", "content": "Who?"}]


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/chat/completions", {"messages": SAID, "max_tokens": 3, "n": 2}),
     ("/v1/chat/completions", {"messages": SAID, "max_tokens": 3, "logprobs": True,
                               "top_logprobs": 2}),
     ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 3}),
     ("/v1/completions", {"prompt": "Who?", "max_tokens": 0, "echo": True, "logprobs": 2}),
     ("/v1/responses", {"input": "Who?", "max_output_tokens": 3, "top_logprobs": 1}),
     ("/v1/embeddings", {"input": "Who?"}),
     ("/v1/embeddings", {"input": ["Who?"], "encoding_format": "base64"})],
    ids=str,
)  # fmt: skip
def test_answers_of_text_are_as_the_document_says(made, served, path, body):
    sound(made, path, httpx.post(served.url + path, json={"model": "tiny", **body}, timeout=60))


def test_calls_are_as_the_document_says(codec):
    model = random_decoder(codec, context=1024)
    mute(model, codec)
    with (
        running(Engine(model, codec)) as other,
        httpx.Client(base_url=other.url, timeout=60) as http,
    ):
        made = http.get("/openapi.json").json()
        ask = {"model": "tiny", "tool_choice": "required"}
        chat = {**ask, "messages": SAID, "max_tokens": 120, "tools": [CALL]}
        answer = http.post("/v1/chat/completions", json=chat)
        sound(made, "/v1/chat/completions", answer)
        assert answer.json()["choices"][0]["message"]["tool_calls"]
        tool = {"type": "function", **CALL["function"]}
        items = {**ask, "input": "Who?", "max_output_tokens": 120, "tools": [tool]}
        answer = http.post("/v1/responses", json=items)
        sound(made, "/v1/responses", answer)
        assert answer.json()["output"][0]["type"] == "function_call"


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/chat/completions", {"messages": SAID, "max_tokens": 3, "n": 2}),
     ("/v1/chat/completions", {"messages": SAID, "max_tokens": 3, "logprobs": True,
                               "top_logprobs": 2, "stream_options": {"include_usage": True}}),
     ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 3}),
     ("/v1/completions", {"prompt": "Who?", "max_tokens": 2, "echo": True}),
     ("/v1/completions", {"prompt": "Who?", "max_tokens": 2, "logprobs": 2,
                          "stream_options": {"include_usage": True}})],
    ids=str,
)  # fmt: skip
def test_chunks_are_as_the_document_says(made, served, path, body):
    with httpx.Client(base_url=served.url, timeout=60) as http:
        found = streamed(http, made, path, {"model": "tiny", "stream": True, **body})
    ends = [c["finish_reason"] for event in found for c in event["choices"] if c["finish_reason"]]
    assert len(ends) == (2 if "n" in body or isinstance(body.get("prompt"), list) else 1)
    assert ("usage" in found[-1]) == ("stream_options" in body)


def test_a_stream_of_calls_and_one_that_fails_are_as_the_document_says(codec):
    """Every type of event that is told of is sent, and none other."""
    model = random_decoder(codec, context=1024)
    mute(model, codec)
    slow = SlowModel(model)
    with (
        running(Engine(slow, codec)) as other,
        httpx.Client(base_url=other.url, timeout=60) as http,
    ):
        made = http.get("/openapi.json").json()
        slow.release()
        chat = {"model": "tiny", "messages": SAID, "stream": True}
        calls = {**chat, "max_tokens": 120, "tool_choice": "required", "tools": [CALL]}
        found = streamed(http, made, "/v1/chat/completions", calls)
        assert any("tool_calls" in c["delta"] for event in found for c in event["choices"])
        text = {"model": "tiny", "input": "Who?", "stream": True, "max_output_tokens": 3}
        seen = streamed(http, made, "/v1/responses", {**text, "top_logprobs": 1})
        tool = {"type": "function", **CALL["function"]}
        calls = {**text, "max_output_tokens": 120, "tools": [tool], "tool_choice": "required"}
        seen += streamed(http, made, "/v1/responses", calls)
        other.service.limits = replace(other.service.limits, total_seconds=0.2)
        slow.open = False
        while slow.gate.acquire(blocking=False):  # what is left over of the steps let through
            pass
        assert "error" in streamed(http, made, "/v1/chat/completions", chat)[-1]
        slow.release(1)
        seen += streamed(http, made, "/v1/responses", text)
        assert seen[-1]["type"] == "error"
        slow.release()
        ends = {"response.completed", "response.incomplete"}
        assert {one["type"] for one in seen} | ends == types_of(made, "/v1/responses")


@pytest.mark.parametrize("path", ["/health", "/ready", "/v1/models", "/v1/models/tiny"])
def test_what_tells_of_the_server_is_as_the_document_says(made, served, path):
    sound(made, path.replace("tiny", "{name}"), httpx.get(served.url + path), "get")


@pytest.mark.parametrize("kind", ["labels", "pictures", "recordings"])
def test_whole_answers_are_as_the_document_says(kind):
    inputs = ("audio",) if kind == "recordings" else ("text",)
    policy = Fixed(".png" if kind == "pictures" else "", inputs)
    with (
        running(PassEngine(policy, request)) as other,
        httpx.Client(base_url=other.url, timeout=60) as http,
    ):
        made = http.get("/openapi.json").json()
        sound(made, "/v1/models", http.get("/v1/models"), "get")
        file = {"file": ("a.wav", sound_file())} if kind == "recordings" else None
        if file:
            sound(made, "/predict", http.post("/predict", files=file))
            path = "/v1/audio/transcriptions"
            for form in ("json", "verbose_json"):
                given = {"model": "tiny", "response_format": form}
                sound(made, path, http.post(path, files=file, data=given))
            given = {"model": "tiny", "stream": "true"}
            found = streamed(http, made, path, files=file, data=given)
            assert found[-1]["type"] == "transcript.text.done"
        else:
            sound(made, "/predict", http.post("/predict", json={"inputs": ["a", "b"]}))
        if kind == "pictures":
            path = "/v1/images/generations"
            sound(made, path, http.post(path, json={"prompt": "a", "n": 2}))
            found = streamed(http, made, path, {"prompt": "a", "stream": True})
            assert found[-1]["type"] == "image_generation.completed"


@pytest.mark.parametrize(
    ("path", "name", "most"),
    [("/v1/completions", "prompt", 16), ("/v1/embeddings", "input", 64),
     ("/v1/responses", "input", 256), ("/v1/completions", "stop", 4)],
)  # fmt: skip
def test_one_text_and_a_list_are_both_told_of(made, path, name, most):
    kinds = {kind["type"]: kind for kind in property_of(made, path, name)["anyOf"]}
    assert kinds["array"]["maxItems"] == most and "maxLength" in kinds["string"]


def test_models_are_told_by_name(made, served):
    assert property_of(made, "/v1/chat/completions", "model")["enum"] == ["tiny"]
    (named,) = made["paths"]["/v1/models/{name}"]["get"]["parameters"]
    assert named["schema"]["enum"] == ["tiny"]
    later = naming(made, ["tiny", "tiny:a"])
    assert property_of(later, "/v1/embeddings", "model")["enum"] == ["tiny", "tiny:a"]
    assert property_of(made, "/v1/embeddings", "model")["enum"] == ["tiny"]
    served.service.adapters["b"] = 1
    try:
        now = httpx.get(f"{served.url}/openapi.json").json()
        assert property_of(now, "/v1/completions", "model")["enum"] == ["tiny", "tiny:b"]
    finally:
        del served.service.adapters["b"]


def test_tools_are_told_of_in_the_shape_of_each_path(made):
    schemas = made["components"]["schemas"]
    for path, fields in (("/v1/chat/completions", {"type", "function"}),
                         ("/v1/responses", {"type", "name", "description", "parameters",
                                            "strict"})):  # fmt: skip
        (kind,) = (k for k in property_of(made, path, "tools")["anyOf"] if k["type"] == "array")
        tool = schemas[kind["items"]["$ref"].rpartition("/")[2]]
        assert tool["properties"].keys() == fields
        word, _, _ = property_of(made, path, "tool_choice")["anyOf"]
        assert word["enum"] == ["none", "auto", "required"]
    (items,) = (k for k in property_of(made, "/v1/responses", "input")["anyOf"] if "items" in k)
    told = [schemas[one["$ref"].rpartition("/")[2]] for one in items["items"]["anyOf"]]
    assert [set(one["required"]) for one in told] == [
        {"role", "content"},
        {"type", "call_id", "name", "arguments"},
        {"type", "call_id", "output"},
    ]
