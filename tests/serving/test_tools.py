"""Functions that a model may call, asked for and read by the official client of OpenAI."""

from __future__ import annotations

import json
from itertools import pairwise

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.conversations import Message, said
from modelwright.serving.tools import BEGIN, Reader, read
from tests.serving.parts import running, scripted

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}, "warm": {"type": "boolean"}},
    "required": ["city", "warm"],
    "additionalProperties": False,
}
EMPTY = {"type": "object", "properties": {}, "additionalProperties": False}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": CITY, "strict": True}},
    {"type": "function", "function": {"name": "now", "description": "The time.",
                                      "parameters": EMPTY}},
]  # fmt: skip
QUESTION = [{"role": "user", "content": "How is it in Rome?"}]
CALLS = [{"name": "weather", "arguments": {"city": "Rome", "warm": True}},
         {"name": "now", "arguments": {}}]  # fmt: skip


def calls_text(calls: list[dict]) -> str:
    """Calls as a model writes them."""
    return said(Message("assistant", "", calls=calls))


@pytest.fixture(scope="module")
def says(codec):
    """A server whose model says what the test puts into the list that comes with the client."""
    script: list[str] = []
    engine = scripted(codec, script)
    with running(engine) as served:
        base = f"{served.url}/v1"
        with openai.OpenAI(base_url=base, api_key="unused", max_retries=0) as client:
            yield client, script, engine


def ask(client, **fields):
    given = {"model": "tiny", "messages": QUESTION, "tools": TOOLS, "temperature": 0, **fields}
    return client.chat.completions.create(**given)


def streamed(chunks) -> tuple[str, list[dict], str, list[dict]]:
    """Text, calls, reason and deltas, put together as a client does."""
    text, calls, reason, deltas = "", [], "", []
    for chunk in chunks:
        (choice,) = chunk.choices
        reason = choice.finish_reason or reason
        text += choice.delta.content or ""
        for part in choice.delta.tool_calls or []:
            deltas.append(part)
            if part.index == len(calls):
                calls.append({"id": part.id, "name": part.function.name, "arguments": ""})
            calls[part.index]["arguments"] += part.function.arguments
    return text, calls, reason, deltas


@pytest.mark.parametrize("before", ["", "Let me look.", "a < b <tool"])
@pytest.mark.parametrize("count", [1, 2])
def test_calls_are_told_whole_and_in_pieces(says, before, count):
    client, script, _ = says
    script[:] = [f"{before}\n{calls_text(CALLS[:count])}" if before else calls_text(CALLS[:count])]
    (choice,) = ask(client).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == (before or None)
    told = choice.message.tool_calls
    assert [c.type for c in told] == ["function"] * count
    assert [(c.function.name, json.loads(c.function.arguments)) for c in told] == [
        (c["name"], c["arguments"]) for c in CALLS[:count]
    ]
    assert len({c.id for c in told}) == count
    text, calls, reason, deltas = streamed(ask(client, stream=True))
    assert (text, reason) == (before, "tool_calls")
    assert [(c["name"], c["arguments"]) for c in calls] == [
        (c.function.name, c.function.arguments) for c in told
    ]
    assert all(c["id"].startswith("call_") for c in calls)
    first = [d for d in deltas if d.id is not None]  # id, type and name are said once
    assert [d.index for d in first] == list(range(count))
    assert all(d.type == "function" and d.function.arguments == "" for d in first)
    assert len(deltas) > 2 * count  # arguments came in pieces


def test_text_alone_is_text_and_a_streamed_helper_of_the_client_reads_calls(says):
    client, script, _ = says
    script[:] = ["It is < 30 degrees."]
    (choice,) = ask(client).choices
    assert (choice.message.content, choice.message.tool_calls) == (script[0], None)
    assert choice.finish_reason == "stop"
    assert streamed(ask(client, stream=True))[::2] == (script[0], "stop")
    script[:] = [calls_text(CALLS)]
    asked = {"model": "tiny", "messages": QUESTION, "temperature": 0}
    strict = [{**t, "function": {**t["function"], "strict": True}} for t in TOOLS]
    with client.chat.completions.stream(tools=strict, **asked) as events:
        done = events.get_final_completion()
    found = done.choices[0].message.tool_calls
    assert [c.function.parsed_arguments for c in found] == [c["arguments"] for c in CALLS]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("choice", "names"),
    [("required", {"weather", "now"}),
     ({"type": "function", "function": {"name": "weather"}}, {"weather"})],
    ids=["any", "weather"],
)  # fmt: skip
def test_whatever_the_model_a_demanded_call_has_a_name_and_arguments_of_its_schema(
    says, choice, names, seed
):
    client, script, _ = says
    script.clear()
    made = ask(client, tool_choice=choice, temperature=1.5, seed=seed, max_tokens=1500,
               parallel_tool_calls=False)  # fmt: skip
    (call,) = made.choices[0].message.tool_calls
    assert made.choices[0].finish_reason == "tool_calls"
    assert call.function.name in names
    arguments = json.loads(call.function.arguments)
    if call.function.name == "weather":
        assert set(arguments) == {"city", "warm"}
        assert isinstance(arguments["warm"], bool)
        assert len(arguments["city"]) <= 8
    else:
        assert arguments == {}


def test_an_answer_cut_within_a_call_is_told_as_far_as_it_is(says):
    client, script, _ = says
    script[:] = [calls_text(CALLS)]
    whole = ask(client, logprobs=True)
    for most in range(1, whole.usage.completion_tokens, 3):
        (choice,) = ask(client, max_tokens=most).choices
        text, calls, reason, _ = streamed(ask(client, max_tokens=most, stream=True))
        told = [(c.function.name, c.function.arguments) for c in choice.message.tool_calls or ()]
        assert [(c["name"], c["arguments"]) for c in calls] == told
        assert choice.finish_reason == reason == "length"
        assert text == (choice.message.content or "")
    assert len(whole.choices[0].logprobs.content) == whole.usage.completion_tokens


def test_what_tools_answer_is_read_by_the_model_and_the_calls_before_it(says, monkeypatch):
    client, script, engine = says
    prompts = []
    read_by = engine.prompt
    monkeypatch.setattr(engine, "prompt", lambda turns: prompts.append(turns) or read_by(turns))
    script[:] = [calls_text(CALLS)]
    (first,) = ask(client).choices
    results = [{"role": "tool", "tool_call_id": c.id, "content": f"{i} is fine"}
               for i, c in enumerate(first.message.tool_calls)]  # fmt: skip
    script[:] = ["It is fine."]
    messages = [{"role": "system", "content": "Be short."}, *QUESTION, first.message, *results]
    (second,) = ask(client, messages=messages).choices
    assert second.message.content == "It is fine."
    turns = prompts[-1]
    assert [t.role for t in turns] == ["system", "user", "assistant", "user"]
    assert turns[0].text.startswith("Be short.\n\n") and '"weather"' in turns[0].text
    assert turns[2].text == calls_text(CALLS)
    assert turns[3].text.count("<tool_response>") == 2
    assert [t.role for t in prompts[0]] == ["system", "user"]  # without one, tools make it
    ask(client, tool_choice="none")
    assert [t.role for t in prompts[-1]] == ["user"]


CALL = {"id": "a", "type": "function", "function": {"name": "now", "arguments": "{}"}}
USER, TOOL = {"role": "user", "content": "x"}, {"role": "tool", "content": "x", "tool_call_id": "a"}


@pytest.mark.parametrize(
    ("change", "param"),
    [({"tools": [{}]}, "tools[0].type"), ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
     ({"tools": TOOLS * 2}, "tools"), ({"tools": TOOLS * 40}, "tools"),
     ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
     ({"tools": [{"type": "function", "function": {"name": "a", "strict": True, "parameters":
        {"type": "object", "properties": {"x": {"type": "nothing"}}}}}]}, "tools"),
     ({"tools": [{"type": "function", "function": {"name": "a", "parameters":
        {"enum": ["x" * 70000]}}}]}, "tools"),
     ({"tools": None, "tool_choice": "required"}, "tool_choice"),
     ({"tool_choice": "any"}, "tool_choice.type"), ({"tool_choice": 3}, "tool_choice"),
     ({"tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
     ({"tool_choice": {"type": "function"}}, "tool_choice"),
     ({"parallel_tool_calls": "yes"}, "parallel_tool_calls"),
     ({"response_format": {"type": "json_object"}}, "response_format"),
     ({"messages": [TOOL]}, "messages[0].tool_call_id"),
     ({"messages": [USER, {"role": "tool", "content": "x"}]}, "messages[1].tool_call_id"),
     ({"messages": [{**USER, "tool_calls": [CALL]}]}, "messages[0].tool_calls"),
     ({"messages": [{"role": "assistant", "tool_calls": []}]}, "messages[0].content"),
     ({"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]},
      "messages[0].tool_calls[0].function"),
     ({"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}, {**TOOL, "content": None}]},
      "messages[2].content")],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_with_tools_is_400_and_named(says, change, param):
    client, script, _ = says
    script[:] = ["no"]
    body = {"model": "tiny", "messages": QUESTION, "tools": TOOLS, "max_tokens": 4, **change}
    response = httpx.post(f"{client.base_url}chat/completions", json=body, timeout=30)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == param
    assert error["message"].startswith(f"{param}: ")


texts = st.text(alphabet=st.sampled_from('a<tol_c/>{}\n "\\é🦊'), max_size=12)
arguments = st.recursive(
    st.integers() | texts | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(
    text=texts.map(str.strip).filter(lambda text: BEGIN not in text),
    given=st.lists(st.dictionaries(texts, arguments, max_size=3), max_size=3),
    cuts=st.lists(st.integers(0, 400), max_size=12),
)
def test_any_cut_of_an_answer_gives_its_text_and_its_calls(text, given, cuts):
    """Arguments may hold whatever text there is, even that of a call."""
    made = [{"name": f"f{i}", "arguments": one} for i, one in enumerate(given)]
    whole = "\n".join(part for part in (text, calls_text(made)) if part)
    reader, deltas = Reader(), []
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    for first, last in pairwise(places):
        deltas += reader.feed(whole[first:last])
    deltas += reader.close()
    at_once = read(whole)
    assert reader.text == at_once.text == "".join(d.get("content", "") for d in deltas)
    assert reader.text == text
    assert reader.called == bool(made)
    assert [(c.name, json.loads(c.arguments)) for c in reader.calls] == [
        (c["name"], c["arguments"]) for c in made
    ]
    assert [(c.name, c.arguments) for c in reader.calls] == [
        (c.name, c.arguments) for c in at_once.calls
    ]
