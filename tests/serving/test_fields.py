"""Fields of requests that are not acted on, and those of other servers that are."""

from __future__ import annotations

import codecs
import json
import typing

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import (
    completion_create_params,
    embedding_create_params,
    image_generate_params,
)
from openai.types.audio import speech_create_params, transcription_create_params
from openai.types.chat import chat_completion_content_part_text_param
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params, response_input_text_param

from modelwright.errors import ModelwrightError
from modelwright.serving.bodies import ApiError, Body, parse
from modelwright.serving.embeddings import EmbeddingRequest
from modelwright.serving.engine import Engine, Request, RequestError, SamplingParams
from modelwright.serving.messages import TextPart
from modelwright.serving.openai import ChatRequest, CompletionRequest
from modelwright.serving.responses import InputPart, ResponsesRequest
from modelwright.serving.transcripts import TranscriptionRequest
from modelwright.serving.wholes import ImageRequest, SpeechRequest
from tests.serving.parts import random_decoder, running

MESSAGES = [{"role": "user", "content": "Who?"}]
CHAT = {"model": "tiny", "messages": MESSAGES, "max_tokens": 4, "temperature": 0}
PATHS = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "tiny", "prompt": "Who?", "max_tokens": 4, "temperature": 0},
    "/v1/responses": {"model": "tiny", "input": "Who?", "max_output_tokens": 4, "temperature": 0},
    "/v1/embeddings": {"model": "tiny", "input": "Who?"},
}
OFFICIAL = {
    ChatRequest: chat_create_params.CompletionCreateParamsBase,
    CompletionRequest: completion_create_params.CompletionCreateParamsBase,
    ResponsesRequest: response_create_params.ResponseCreateParamsBase,
    EmbeddingRequest: embedding_create_params.EmbeddingCreateParams,
    ImageRequest: image_generate_params.ImageGenerateParamsBase,
    SpeechRequest: speech_create_params.SpeechCreateParams,
    TranscriptionRequest: transcription_create_params.TranscriptionCreateParamsBase,
    TextPart: chat_completion_content_part_text_param.ChatCompletionContentPartTextParam,
    InputPart: response_input_text_param.ResponseInputTextParam,
}


@pytest.fixture
def http(served):
    with httpx.Client(base_url=served.url, timeout=30) as client:
        yield client


def refused(http, path, **change):
    response = http.post(path, json={**PATHS[path], **change})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    return error["param"], error["code"], error["message"]


def text(http, **change):
    response = http.post("/v1/completions", json={**PATHS["/v1/completions"], **change})
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]


@pytest.mark.parametrize(
    ("change", "near"),
    [({"temprature": 0.5}, "temperature"), ({"max_token": 4}, "max_tokens"),
     ({"top-p": 0.5}, "top_p"), ({"Stop": "a"}, "stop"), ({"repeat_penalty": 1.1},
                                                          "repetition_penalty"),
     ({"zzz": 1}, ""), ({"": 1}, "")],
    ids=str,
)  # fmt: skip
def test_a_mistyped_field_is_400_and_the_nearest_is_named(http, change, near):
    (name,) = (given or "body" for given in change)
    told = f"{name}: there is no such field" + (f" (did you mean {near!r}?)" if near else "")
    for path in ("/v1/chat/completions", "/v1/completions"):
        assert refused(http, path, **change) == (name, "unknown_parameter", told)
    assert refused(http, "/v1/responses", **change)[:2] == (name, "unknown_parameter")
    assert refused(http, "/v1/embeddings", **change)[:2] == (name, "unknown_parameter")


def test_a_mistyped_field_within_a_field_is_named_by_its_place(http):
    def param(path, **change):
        name, code, message = refused(http, path, **change)
        assert code == "unknown_parameter" and message.startswith(f"{name}: ")
        return name

    chat, responses = "/v1/chat/completions", "/v1/responses"
    said = {"role": "user", "content": "Who?"}
    assert param(chat, messages=[said, {**said, "contents": "x"}]) == "messages[1].contents"
    assert param(chat, message=MESSAGES) == "message"
    assert param(chat, stream_options={"usage": True}) == "stream_options.usage"
    form = {"type": "json_object", "schema": {}}
    assert param(chat, response_format=form) == "response_format.schema"
    assert param(responses, input=[{**said, "text": "x"}]) == "input[0].text"
    assert param(responses, text={"formats": {}}) == "text.formats"
    part = {"type": "text", "text": "x"}
    parts = [{**said, "content": [part, {**part, "foo": 1}]}]
    assert param(chat, messages=parts) == "messages[0].content[1].foo"
    assert param(responses, input=parts) == "input[0].content[1].foo"
    call = {"type": "function_call", "call_id": "a", "name": "b", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "a", "output": [{**part, "txt": "x"}]}
    assert param(responses, input=[call, output]) == "input[1].output[0].txt"
    long = "x" * 5000
    assert param(chat, **{long: 1}) == long[:100]
    assert "\n" not in param(chat, **{"a\nb": 1})


@pytest.mark.parametrize("schema", OFFICIAL, ids=lambda s: s.__name__)
def test_every_field_of_the_official_client_is_known(schema: type[Body]):
    """It is acted on, without effect, or refused as what is not offered: never as a mistake."""
    names = set(typing.get_type_hints(OFFICIAL[schema])) - {"file"}
    known = {*schema.model_fields, *schema.ignored, *schema.not_offered}
    assert names <= known, names - known
    assert not schema.ignored & {*schema.model_fields, *schema.not_offered}


def test_fields_without_effect_change_nothing(http):
    given = {"user": "anna", "store": True, "metadata": {"a": "b"}, "service_tier": "auto",
             "safety_identifier": "x", "prompt_cache_key": "k"}  # fmt: skip
    for path, body in PATHS.items():
        plain, other = (http.post(path, json=one).json() for one in (body, {**body, **given}))
        for answer in (plain, other):
            for name in ("id", "created", "created_at", "usage", "metadata"):
                answer.pop(name, None)
            for item in answer.get("output", ()):
                del item["id"]
        assert plain == other, path
    stream = {**CHAT, "stream": True, "stream_options": {"include_obfuscation": False}}
    assert http.post("/v1/chat/completions", json=stream).text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("path", "change"),
    [("/v1/chat/completions", {"reasoning_effort": "high"}),
     ("/v1/chat/completions", {"web_search_options": {}}),
     ("/v1/chat/completions", {"modalities": ["audio"]}),
     ("/v1/chat/completions", {"verbosity": "low"}),
     ("/v1/chat/completions", {"chat_template_kwargs": {"enable_thinking": False}}),
     ("/v1/completions", {"suffix": "x"}), ("/v1/completions", {"best_of": 2}),
     ("/v1/completions", {"length_penalty": 0.5}),
     ("/v1/responses", {"reasoning": {"effort": "high"}}),
     ("/v1/responses", {"truncation": "auto"}), ("/v1/responses", {"background": True}),
     ("/v1/embeddings", {"truncate_prompt_tokens": 4})],
    ids=str,
)  # fmt: skip
def test_what_would_change_the_answer_is_refused_by_name(http, path, change):
    (name,) = change
    told = f"{name}: this server does not offer it; leave it out"
    assert refused(http, path, **change) == (name, "unsupported_parameter", told)


def test_what_asks_for_nothing_is_let_through(http):
    nothing = {
        "/v1/chat/completions": {
            "functions": [], "function_call": None, "modalities": ["text"], "verbosity": "medium",
            "skip_special_tokens": True, "use_beam_search": False, "length_penalty": 1.0,
            "reasoning_effort": None, "cache_prompt": True, "priority": 0,
        },
        "/v1/completions": {"best_of": 1, "suffix": "", "include_stop_str_in_output": False},
        "/v1/responses": {"reasoning": {"effort": None, "summary": None}, "truncation": "disabled",
                          "include": ["reasoning.encrypted_content"], "max_tool_calls": 3},
        "/v1/embeddings": {"truncate_prompt_tokens": None},
    }  # fmt: skip
    for path, change in nothing.items():
        assert http.post(path, json={**PATHS[path], **change}).status_code == 200, path
    what_came = {"role": "assistant", "content": "I.", "refusal": None, "annotations": [],
                 "audio": None, "function_call": None, "reasoning_content": "hm"}  # fmt: skip
    messages = [*MESSAGES, what_came, {**MESSAGES[0], "name": "anna"}]
    change = {**CHAT, "messages": messages}
    assert http.post("/v1/chat/completions", json=change).status_code == 200


def test_an_answer_of_the_official_client_can_be_sent_back(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0) as client:
        first = client.chat.completions.create(**CHAT)
        again = [*MESSAGES, first.choices[0].message, *MESSAGES]
        client.chat.completions.create(**{**CHAT, "messages": again})
        told = {"include": ["message.output_text.logprobs"], "max_output_tokens": 4}
        answer = client.responses.create(model="tiny", input=MESSAGES, **told)
        (part,) = answer.output[0].content
        assert len(part.logprobs) == 4 and part.logprobs[0].top_logprobs == []
        again = [*MESSAGES, *answer.output, *MESSAGES]
        client.responses.create(model="tiny", input=again, max_output_tokens=4)


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=12), st.integers())
def test_no_unknown_field_passes(name, value):
    known = {*ChatRequest.model_fields, *ChatRequest.ignored, *ChatRequest.not_offered}
    body = {"model": "tiny", "messages": MESSAGES, name: value}
    if name not in known:
        with pytest.raises(ApiError) as error:
            parse(ChatRequest, json.dumps(body).encode())
        assert error.value.code == "unknown_parameter"


# Ends of answers --------------------------------------------------------------------------------


def likely_to_end(codec):
    """A model that would end every answer at once."""
    model = random_decoder(codec)
    head = model.head

    def ending(hidden):
        logits = head(hidden)
        logits[..., sorted(codec.special)] += 60.0
        return logits

    model.head = ending
    return model


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_an_answer_does_not_end_before_its_least_length(codec, temperature):
    engine = Engine(likely_to_end(codec), codec)
    prompt = codec.tokens("Who?")

    def lengths(**given):
        base = SamplingParams(max_tokens=12, temperature=temperature, seed=3, **given)
        (done,) = engine.generate([Request(prompt, base)])
        assert not set(done.tokens) & codec.special
        return len(done.tokens), done.finish_reason, done.ended

    assert lengths() == (0, "stop", lengths()[2])
    assert lengths(min_tokens=7)[:2] == (7, "stop")
    assert lengths(min_tokens=12)[:2] == (12, "length")
    assert lengths(ignore_eos=True) == (12, "length", None)
    assert lengths(ignore_eos=True, min_tokens=3) == (12, "length", None)


def test_a_token_ends_an_answer_and_is_not_in_it(model, codec):
    engine = Engine(model, codec)
    prompt = codec.tokens("The quick")

    def done(**given):
        params = SamplingParams(max_tokens=20, logprobs=0, **given)
        (found,) = engine.generate([Request(prompt, params)])
        return found

    free = done()
    stop = free.tokens[9]
    at = free.tokens.index(stop)
    ended = done(stop_token_ids=(stop,))
    assert (ended.tokens, ended.finish_reason, ended.ended) == (free.tokens[:at], "stop", stop)
    assert ended.scores == free.scores[:at]
    later = done(stop_token_ids=(stop,), min_tokens=at + 1)
    assert len(later.tokens) > at and later.tokens[:at] == free.tokens[:at]
    assert later.tokens[at] != stop
    still = done(stop_token_ids=(stop,), ignore_eos=True)
    assert still.tokens == ended.tokens  # it is named by the request, not by the model


def test_a_stop_text_counts_from_the_least_length_on(model, codec):
    engine = Engine(model, codec)
    prompt = codec.tokens("The quick")
    (free,) = engine.generate([Request(prompt, SamplingParams(max_tokens=30))])
    stop = free.text[:1]
    for least in range(30):
        # Half a character is said with what follows it.
        half = codecs.getincrementaldecoder("utf-8")(errors="replace")
        before = half.decode(codec.spell(free.tokens[:least]))
        params = SamplingParams(max_tokens=30, min_tokens=least, stop=(stop,))
        (done,) = engine.generate([Request(prompt, params)])
        assert len(done.tokens) >= least
        assert done.text.startswith(before)
        assert stop not in done.text[len(before) :]
        assert free.text.startswith(done.text)


def test_ends_are_asked_for_over_http(http, codec):
    free = text(http, max_tokens=12)
    least = text(http, max_tokens=12, stop=free["text"][:1], min_tokens=8)
    assert len(least["text"]) > 1 and least["finish_reason"] in ("stop", "length")
    assert text(http, max_tokens=12, ignore_eos=True)["text"] == free["text"]
    every = list(range(0, codec.vocabulary, codec.vocabulary // 60))[:64]
    assert text(http, max_tokens=12, stop_token_ids=every)["finish_reason"] in ("stop", "length")
    with (
        running(Engine(likely_to_end(codec), codec)) as other,
        httpx.Client(base_url=other.url, timeout=30) as ends,
    ):
        assert text(ends)["text"] == ""
        for change in ({"min_tokens": 3}, {"ignore_eos": True, "max_tokens": 3}):
            answer = ends.post(
                "/v1/chat/completions", json={**CHAT, "max_tokens": 9, **change}
            ).json()
            assert answer["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("change", "param"),
    [({"stop_token_ids": [10**6]}, "stop_token_ids"), ({"stop_token_ids": [-1]},
                                                       "stop_token_ids[0]"),
     ({"stop_token_ids": list(range(65))}, "stop_token_ids"), ({"min_tokens": -1}, "min_tokens"),
     ({"min_tokens": 5}, "min_tokens"), ({"ignore_eos": 1}, "ignore_eos"),
     ({"min_tokens": 2, "response_format": {"type": "json_object"}}, "min_tokens"),
     ({"ignore_eos": True, "response_format": {"type": "json_object"}}, "ignore_eos")],
    ids=str,
)  # fmt: skip
def test_ends_that_cannot_be_kept_are_400_and_named(http, change, param):
    for path in ("/v1/completions", "/v1/chat/completions"):
        name, code, message = refused(http, path, **change)
        assert (name, code) == (param, "invalid_value") and message.startswith(f"{param}: ")


def test_calls_end_where_they_end(http):
    tool = {"type": "function", "function": {"name": "now"}}
    wrong = refused(http, "/v1/chat/completions", tools=[tool], ignore_eos=True)
    assert wrong[:2] == ("ignore_eos", "invalid_value")


def test_ends_that_cannot_be_kept_are_refused_in_the_engine(codec, model):
    for wrong in ({"beams": 2, "stop_token_ids": (1,)}, {"beams": 2, "min_tokens": 1},
                  {"min_tokens": -1}):  # fmt: skip
        with pytest.raises(ModelwrightError):
            SamplingParams(**wrong)
    every = tuple(range(codec.vocabulary))
    with pytest.raises(RequestError, match="every token would end"):
        Engine(model, codec).generate(
            [Request([1], SamplingParams(stop_token_ids=every, min_tokens=1))]
        )
