"""The official OpenAI client against our server: what its users can expect to work."""

from __future__ import annotations

from typing import Literal

import openai
import pydantic
import pytest

from modelwright.serving.engine import Engine
from tests.serving.parts import running

QUESTION = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Who jumps?"}]


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_models_are_listed_and_found(client):
    assert [m.id for m in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").object == "model"
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("other/model")
    assert error.value.code == "model_not_found"


def test_a_chat_is_answered_as_the_engine_answers(client, served):
    done = client.chat.completions.create(
        model="tiny", messages=QUESTION, max_tokens=12, temperature=0
    )
    (choice,) = done.choices
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "length"
    assert done.usage.completion_tokens == 12
    assert done.usage.total_tokens == done.usage.prompt_tokens + 12
    from modelwright.serving.engine import SamplingParams
    from modelwright.types import text_turn

    turns = [text_turn(m["role"], m["content"]) for m in QUESTION]
    (wanted,) = served.engine.answer([turns], SamplingParams(max_tokens=12))
    assert choice.message.content == wanted.text


def test_a_stream_says_the_same_in_pieces_and_counts_its_tokens(client):
    ask = {"model": "tiny", "messages": QUESTION, "max_completion_tokens": 20, "seed": 4}
    whole = client.chat.completions.create(**ask)
    chunks = list(
        client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    )
    *pieces, last, count = chunks
    assert len({(c.id, c.created) for c in chunks}) == 1
    assert {c.object for c in chunks} == {"chat.completion.chunk"}
    roles = [c.choices[0].delta.role for c in pieces]
    assert roles == ["assistant"] + [None] * (len(pieces) - 1)
    said = "".join(c.choices[0].delta.content for c in pieces)
    assert said == whole.choices[0].message.content
    assert len(pieces) > 3  # it came in pieces
    assert last.choices[0].delta.model_dump(exclude_none=True) == {}
    assert last.choices[0].finish_reason == "length"
    assert count.choices == []
    for one in (count.usage, whole.usage):
        one.prompt_tokens_details = None  # what was known differs: the prompt was read before
    assert count.usage == whole.usage


def test_tokens_of_a_prompt_that_were_known_are_told(client):
    ask = {"model": "tiny", "max_tokens": 2, "temperature": 0}
    prompt = "The quick brown fox jumps over the lazy dog, as it was told to, and sleeps."
    first, again = (client.completions.create(**ask, prompt=prompt, n=2).usage for _ in "ab")
    assert again.prompt_tokens_details.cached_tokens >= 32 * (again.prompt_tokens // 33)
    assert again.prompt_tokens_details.cached_tokens < again.prompt_tokens
    assert first.prompt_tokens_details.cached_tokens in (
        0,
        again.prompt_tokens_details.cached_tokens,
    )
    answer = client.responses.create(model="tiny", input="word " * 12, max_output_tokens=16).usage
    more = client.responses.create(model="tiny", input="word " * 12, max_output_tokens=16).usage
    assert answer.input_tokens_details.cached_tokens == 0
    assert more.input_tokens_details.cached_tokens >= 32


def test_the_largest_seed_has_a_following_one(client):
    ask = {"model": "tiny", "messages": QUESTION, "max_tokens": 8, "temperature": 1.0}
    first, second = client.chat.completions.create(**ask, n=2, seed=2**63 - 1).choices
    for seed, choice in ((2**63 - 1, first), (-(2**63), second)):
        (single,) = client.chat.completions.create(**ask, seed=seed).choices
        assert single.message.content == choice.message.content


def test_the_chosen_token_is_among_the_scored_ones(client):
    done = client.completions.create(
        model="tiny", prompt="A", max_tokens=12, temperature=2, seed=1, logprobs=1
    )
    scores = done.choices[0].logprobs
    for token, logprob, top in zip(
        scores.tokens, scores.token_logprobs, scores.top_logprobs, strict=True
    ):
        assert top[token] == logprob
        assert len(top) <= 2
    assert {len(top) for top in scores.top_logprobs} == {1, 2}  # the likeliest, or another


def test_several_choices_are_seeded_one_by_one(client):
    ask = {"model": "tiny", "messages": QUESTION, "max_tokens": 8, "temperature": 1.0}
    several = client.chat.completions.create(**ask, n=3, seed=10)
    texts = [c.message.content for c in several.choices]
    assert len(set(texts)) == 3
    for i, text in enumerate(texts):
        single = client.chat.completions.create(**ask, seed=10 + i)
        assert single.choices[0].message.content == text
    streamed = ["", "", ""]
    for chunk in client.chat.completions.create(**ask, n=3, seed=10, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


def test_completions_continue_texts(client):
    done = client.completions.create(
        model="tiny", prompt=["The quick", ""], max_tokens=6, temperature=0
    )
    assert [c.index for c in done.choices] == [0, 1]
    pieces = client.completions.create(
        model="tiny", prompt="The quick", max_tokens=6, temperature=0, stream=True
    )
    assert "".join(c.choices[0].text for c in pieces) == done.choices[0].text
    assert client.completions.create(model="tiny", prompt="A").usage.completion_tokens == 16


def test_a_stop_text_is_not_in_the_answer(client):
    ask = {"model": "tiny", "messages": QUESTION, "max_tokens": 40, "temperature": 0}
    text = client.chat.completions.create(**ask).choices[0].message.content
    stop = text[len(text) // 2 :][:3]
    (choice,) = client.chat.completions.create(**ask, stop=stop).choices
    assert choice.finish_reason == "stop"
    assert choice.message.content == text[: text.index(stop)]


def test_content_parts_are_joined(client):
    parts = [{"type": "text", "text": "Who "}, {"type": "text", "text": "jumps?"}]
    ask = {"model": "tiny", "max_tokens": 5, "temperature": 0}
    answers = [
        client.chat.completions.create(messages=[{"role": "user", "content": content}], **ask)
        for content in (parts, "Who jumps?")
    ]
    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_those_the_client_knows(client, stream):
    ask = {"model": "tiny", "messages": QUESTION, "stream": stream}
    with pytest.raises(openai.BadRequestError) as error:
        long = [{"role": "user", "content": "fox " * 300}]
        client.chat.completions.create(**{**ask, "messages": long})
    assert (error.value.code, error.value.param) == ("context_length_exceeded", "messages")
    assert "96" in error.value.message
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(**{**ask, "model": "gpt"})
    assert (error.value.code, error.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(**ask, functions=[{"name": "f"}])
    assert (error.value.code, error.value.param) == ("unsupported_parameter", "functions")


def test_log_probabilities_have_the_shapes_the_client_knows(client, codec):
    ask = {"model": "tiny", "messages": QUESTION, "max_tokens": 8, "temperature": 0}
    (choice,) = client.chat.completions.create(**ask, logprobs=True, top_logprobs=3).choices
    content = choice.logprobs.content
    assert len(content) == 8
    assert (
        b"".join(bytes(c.bytes) for c in content)
        .decode("utf-8", "replace")
        .startswith(choice.message.content)
    )
    for token in content:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == token.logprob  # greedy: it was the likeliest
        assert token.top_logprobs[0].bytes == token.bytes
    streamed = client.chat.completions.create(**ask, logprobs=True, top_logprobs=3, stream=True)
    told = [c.choices[0].logprobs for c in streamed]
    assert [t for one in told if one for t in one.content] == content
    (plain,) = client.chat.completions.create(**ask).choices
    assert plain.logprobs is None and plain.message.content == choice.message.content


def test_a_text_is_scored_by_echoing_it(client, codec):
    text = "The quick brown fox"
    ask = {"model": "tiny", "prompt": text, "echo": True, "logprobs": 2}
    (scored,) = client.completions.create(**ask, max_tokens=0).choices
    told = scored.logprobs
    assert scored.text == text and "".join(told.tokens) == text
    starts = zip(told.tokens, told.text_offset, strict=True)
    assert told.text_offset == [text.index(token, at) for token, at in starts]
    assert told.token_logprobs[0] is None and all(p <= 0 for p in told.token_logprobs[1:])
    assert told.top_logprobs[0] is None
    for token, top in list(zip(told.tokens, told.top_logprobs, strict=True))[1:]:
        assert token in top and len(top) in (2, 3)  # the two likeliest, and the one that stands
    (longer,) = client.completions.create(**ask, max_tokens=3, temperature=0).choices
    assert longer.text.startswith(text) and len(longer.logprobs.tokens) == len(told.tokens) + 3
    pieces = client.completions.create(
        model="tiny", prompt=text, echo=True, max_tokens=3, temperature=0, stream=True
    )
    assert "".join(c.choices[0].text for c in pieces) == longer.text


def test_penalties_biases_and_min_p_are_taken(client, codec):
    ask = {"model": "tiny", "messages": QUESTION, "max_tokens": 8, "temperature": 0}
    (token,) = codec.tokens("z")[:1]
    (biased,) = client.chat.completions.create(**ask, logit_bias={str(token): 100}).choices
    assert biased.message.content == "z" * 8
    varied = client.chat.completions.create(
        **ask, logit_bias={str(token): 90}, frequency_penalty=2, presence_penalty=2,
        extra_body={"min_p": 0.1, "top_k": 5, "repetition_penalty": 1.1},
    )  # fmt: skip
    assert varied.choices[0].message.content.startswith("z")


def test_an_answer_satisfies_a_schema_that_the_client_makes(client):
    class Animal(pydantic.BaseModel):
        kind: Literal["fox", "dog"]
        legs: Literal[2, 4]

    ask = {"model": "tiny", "messages": [{"role": "user", "content": "?"}], "temperature": 1}
    parsed = client.chat.completions.parse(**ask, response_format=Animal, seed=3)
    assert isinstance(parsed.choices[0].message.parsed, Animal)
    assert parsed.choices[0].finish_reason == "stop"
    free = client.chat.completions.create(
        **ask, response_format={"type": "json_object"}, max_tokens=20
    )
    assert free.choices[0].message.content.lstrip().startswith("{")
    response = client.responses.parse(model="tiny", input="?", text_format=Animal)
    assert isinstance(response.output_parsed, Animal)


def test_responses_are_answered_whole_and_in_events(client):
    ask = {"model": "tiny", "input": "Who jumps?", "temperature": 0, "instructions": "Be short."}
    whole = client.responses.create(**ask, max_output_tokens=20)
    (chat,) = client.chat.completions.create(
        model="tiny", messages=QUESTION, max_tokens=20, temperature=0
    ).choices
    assert whole.output_text == chat.message.content
    assert (whole.status, whole.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert whole.usage.output_tokens == 20
    events = list(client.responses.create(**ask, max_output_tokens=20, stream=True))
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert events[0].type == "response.created" and events[-1].type == "response.incomplete"
    said = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert said == whole.output_text == events[-1].response.output_text
    parts = client.responses.create(
        model="tiny", temperature=0, max_output_tokens=20,
        input=[{"role": "system", "content": "Be short."},
               {"role": "user", "content": [{"type": "input_text", "text": "Who jumps?"}]}],
    )  # fmt: skip
    assert parts.output_text == whole.output_text
    with pytest.raises(openai.BadRequestError) as error:
        client.responses.create(**ask, previous_response_id="resp_1")
    assert (error.value.code, error.value.param) == (
        "unsupported_parameter",
        "previous_response_id",
    )


def test_a_key_opens_what_is_closed_without_it(model, codec):
    with running(Engine(model, codec), api_key="secret") as served:
        url = f"{served.url}/v1"
        with openai.OpenAI(base_url=url, api_key="wrong", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError) as error:
                client.models.list()
            assert error.value.code == "invalid_api_key"
        with openai.OpenAI(base_url=url, api_key="secret", max_retries=0) as client:
            assert [m.id for m in client.models.list()] == ["tiny"]
