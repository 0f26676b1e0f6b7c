"""Functions that a model may call by /v1/responses, asked for by the official client of OpenAI."""

from __future__ import annotations

import json
from itertools import pairwise

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage

from modelwright.data.conversations import Message, said
from modelwright.serving.bodies import parse
from modelwright.serving.response_writer import ResponseWriter
from modelwright.serving.responses import ResponsesRequest
from modelwright.serving.row import Completion, Score, Scored
from modelwright.serving.tools import read
from tests.serving.parts import running, scripted

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}, "warm": {"type": "boolean"}},
    "required": ["city", "warm"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "name": "weather", "parameters": CITY, "strict": True}
NOW = {"type": "function", "name": "now", "description": "The time.", "parameters": {}}
TOOLS = [WEATHER, NOW]
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
    given = {"model": "tiny", "input": QUESTION, "tools": TOOLS, "temperature": 0, **fields}
    return client.responses.create(**given)


def put_together(events) -> tuple[list[dict], dict]:
    """The items that the events of a stream make, and the response of its last event.

    Every item is added, comes in pieces, and is done before the next; numbers go up by one.
    """
    items: list[dict] = []
    plain = [event if isinstance(event, dict) else event.model_dump() for event in events]
    for number, event in enumerate(plain):
        assert event["sequence_number"] == number
        kind = event["type"].removeprefix("response.")
        if "item_id" in event:
            assert event["item_id"] == items[-1]["id"]
            assert event["output_index"] == len(items) - 1
        if kind == "output_item.added":
            assert all(item["status"] != "in_progress" for item in items)
            assert event["item"]["status"] == "in_progress"
            assert event["item"].get("arguments", "") == ""
            items.append(dict(event["item"]))
        elif kind == "content_part.added":
            items[-1]["content"] = [dict(event["part"])]
        elif kind == "output_text.delta":
            items[-1]["content"][0]["text"] += event["delta"]
            items[-1]["content"][0]["logprobs"] += event["logprobs"]
        elif kind == "function_call_arguments.delta":
            assert event["delta"]
            items[-1]["arguments"] += event["delta"]
        elif kind == "output_text.done":
            assert event["text"] == items[-1]["content"][0]["text"]
        elif kind == "content_part.done":
            assert event["part"]["text"] == items[-1]["content"][0]["text"]
        elif kind == "function_call_arguments.done":
            assert event["arguments"] == items[-1]["arguments"]
        elif kind == "output_item.done":
            items[-1]["status"] = event["item"]["status"]
            assert event["item"] == items[-1]
    response = plain[-1]["response"]
    assert plain[-1]["type"] == f"response.{response['status']}"
    assert response["output"] == items
    return items, response


def without_names(items: list[dict]) -> list[dict]:
    """Items without what is drawn anew for every answer."""
    return [{k: v for k, v in item.items() if k not in ("id", "call_id")} for item in items]


@pytest.mark.parametrize("before", ["", "Let me look.", "a < b <tool"])
@pytest.mark.parametrize("count", [1, 2])
def test_calls_are_items_whole_and_in_events(says, before, count):
    client, script, _ = says
    script[:] = [f"{before}\n{calls_text(CALLS[:count])}" if before else calls_text(CALLS[:count])]
    response = ask(client)
    assert (response.status, response.output_text) == ("completed", before)
    message, calls = response.output[: bool(before)], response.output[bool(before) :]
    assert all(isinstance(item, ResponseOutputMessage) for item in message)
    assert all(isinstance(item, ResponseFunctionToolCall) for item in calls)
    told = [(c.name, json.loads(c.arguments), c.status) for c in calls]
    assert told == [(c["name"], c["arguments"], "completed") for c in CALLS[:count]]
    assert len({name for c in calls for name in (c.id, c.call_id)}) == 2 * count
    assert all(c.id.startswith("fc_") and c.call_id.startswith("call_") for c in calls)
    events = list(ask(client, stream=True))
    kinds = [e.type for e in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds.count("response.function_call_arguments.done") == count
    assert kinds.count("response.function_call_arguments.delta") > count  # they came in pieces
    items, _ = put_together(events)
    assert without_names(items) == without_names([i.model_dump() for i in response.output])


def test_text_alone_is_a_message_and_the_helper_of_the_client_reads_a_stream(says):
    client, script, _ = says
    script[:] = ["It is < 30 degrees."]
    (item,) = ask(client).output
    assert (item.type, item.status, item.content[0].text) == ("message", "completed", script[0])
    items, _ = put_together(ask(client, stream=True))
    assert without_names(items) == without_names([item.model_dump()])
    script[:] = [f"I look.\n{calls_text(CALLS)}"]
    strict = [{**WEATHER, "strict": True}, {**NOW, "strict": True}]
    with client.responses.stream(model="tiny", input=QUESTION, tools=strict, temperature=0) as told:
        done = [e for e in told if e.type == "response.function_call_arguments.done"]
        final = told.get_final_response()
    assert [json.loads(e.arguments) for e in done] == [c["arguments"] for c in CALLS]
    assert [c.parsed_arguments for c in final.output[1:]] == [c["arguments"] for c in CALLS]
    assert final.output_text == "I look."


def test_the_response_says_what_was_offered(says):
    client, script, _ = says
    script[:] = ["no"]
    told = ask(client)
    assert [t.model_dump(exclude_unset=True) for t in told.tools] == [
        {"type": "function", "description": None, "parameters": None, "strict": None, **tool}
        for tool in TOOLS
    ]
    assert (told.tool_choice, told.parallel_tool_calls) == ("auto", True)
    plain = client.responses.create(model="tiny", input="?", max_output_tokens=2)
    assert (plain.tools, plain.tool_choice) == ([], "auto")
    script[:] = [calls_text(CALLS)]
    named = {"type": "function", "name": "weather"}
    told = ask(client, tool_choice=named, parallel_tool_calls=False)
    assert (told.tool_choice.model_dump(), told.parallel_tool_calls) == (named, False)
    assert [c.name for c in told.output] == ["weather"]  # the script says more: it may not
    assert ask(client, tool_choice="none").output[0].type == "message"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("choice", "names"),
    [("required", {"weather", "now"}), ({"type": "function", "name": "weather"}, {"weather"})],
    ids=["any", "weather"],
)
def test_whatever_the_model_a_demanded_call_has_a_name_and_arguments_of_its_schema(
    says, choice, names, seed
):
    client, script, _ = says
    script.clear()
    closed = {"type": "object", "properties": {}, "additionalProperties": False}
    tools = [WEATHER, {**NOW, "parameters": closed}]
    made = ask(client, tools=tools, tool_choice=choice, temperature=1.5, max_output_tokens=1500,
               instructions="!" * seed, parallel_tool_calls=False)  # fmt: skip
    (call,) = made.output
    assert (made.status, call.status) == ("completed", "completed")
    assert call.name in names
    arguments = json.loads(call.arguments)
    assert set(arguments) == ({"city", "warm"} if call.name == "weather" else set())


def test_an_answer_cut_within_a_call_is_told_as_far_as_it_is(says):
    client, script, _ = says
    script[:] = [f"I look.\n{calls_text(CALLS)}"]
    whole = ask(client)
    seen = set()
    for most in range(1, whole.usage.output_tokens, 16):
        made = ask(client, max_output_tokens=most)
        assert (made.status, made.incomplete_details.reason) == ("incomplete", "max_output_tokens")
        items, _ = put_together(ask(client, max_output_tokens=most, stream=True))
        assert without_names(items) == without_names([i.model_dump() for i in made.output])
        for item in made.output[:-1]:
            assert item.status == "completed"
        last = made.output[-1]
        seen.add((last.type, last.status))
        if last.type == "function_call" and last.status == "completed":
            assert json.loads(last.arguments) == CALLS[len(made.output) - 2]["arguments"]
    assert {("message", "incomplete"), ("function_call", "incomplete")} <= seen


def test_log_probabilities_are_of_the_text_alone(says):
    client, script, _ = says
    script[:] = [f"I look.\n{calls_text(CALLS[:1])}"]
    (part,) = ask(client, top_logprobs=2).output[0].content
    spelled = b"".join(bytes(token.bytes) for token in part.logprobs)
    assert spelled.decode().startswith("I look.") and b"tool_call" not in spelled
    items, _ = put_together(ask(client, top_logprobs=2, stream=True))
    told = items[0]["content"][0]["logprobs"]
    assert [t["bytes"] for t in told] == [t.bytes for t in part.logprobs]
    # What was read before is not read again, which rounds otherwise.
    again = [t["logprob"] for t in told]
    assert again == pytest.approx([t.logprob for t in part.logprobs], abs=1e-4)


def test_results_are_read_by_the_model_as_those_of_a_chat(says, monkeypatch):
    client, script, engine = says
    prompts = []
    read_by = engine.prompt
    monkeypatch.setattr(engine, "prompt", lambda turns: prompts.append(turns) or read_by(turns))
    script[:] = [f"I look.\n{calls_text(CALLS)}"]
    first = ask(client, instructions="Be short.")
    results = [{"type": "function_call_output", "call_id": c.call_id, "output": output}
               for c, output in zip(first.output[1:], ["fine", [{"type": "input_text",
               "text": "noon"}]], strict=True)]  # fmt: skip
    script[:] = ["It is fine."]
    second = ask(client, instructions="Be short.", input=[*QUESTION, *first.output, *results])
    assert second.output_text == "It is fine."
    calls = [{"id": c.call_id, "type": "function",
              "function": {"name": c.name, "arguments": c.arguments}}
             for c in first.output[1:]]  # fmt: skip
    client.chat.completions.create(
        model="tiny",
        max_tokens=1,
        tools=[
            {"type": "function", "function": {k: t[k] for k in t if k != "type"}} for t in TOOLS
        ],
        messages=[
            {"role": "system", "content": "Be short."},
            *QUESTION,
            {"role": "assistant", "content": "I look.", "tool_calls": calls},
            {"role": "tool", "tool_call_id": calls[0]["id"], "content": "fine"},
            {"role": "tool", "tool_call_id": calls[1]["id"], "content": "noon"},
        ],
    )
    assert prompts[1] == prompts[2]
    assert [t.role for t in prompts[1]] == ["system", "user", "assistant", "user"]
    assert prompts[1][2].text == f"I look.\n{calls_text(CALLS)}"


USER = {"role": "user", "content": "x"}
CALL = {"type": "function_call", "call_id": "a", "name": "now", "arguments": "{}"}
OTHER = {**CALL, "call_id": "b"}
RESULT = {"type": "function_call_output", "call_id": "a", "output": "x"}


def test_calls_after_results_are_another_answer():
    items = [USER, CALL, OTHER, {**RESULT, "call_id": "b"}, RESULT,
             {**CALL, "call_id": "c"}, {**RESULT, "call_id": "c"}]  # fmt: skip
    asked = parse(ResponsesRequest, json.dumps({"model": "m", "input": items}).encode())
    turns = asked.turns
    assert [t.role for t in turns] == ["user", "assistant", "user", "assistant", "user"]
    assert [t.text.count("<tool_") for t in turns] == [0, 2, 2, 1, 1]


@pytest.mark.parametrize(
    ("change", "param"),
    [({"tools": [{}]}, "tools[0].type"),
     ({"tools": [NOW, {"type": "web_search"}]}, "tools[1].type"),
     ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0].type"),
     ({"tools": [{"type": "function", "function": {"name": "chat"}}]}, "tools[0].function"),
     ({"tools": [{**NOW, "name": "a b"}]}, "tools[0].name"),
     ({"tools": [{**NOW, "strict": "yes"}]}, "tools[0].strict"),
     ({"tools": TOOLS * 2}, "tools"), ({"tools": TOOLS * 40}, "tools"),
     ({"tools": [{**WEATHER, "parameters": {"properties": {"x": {"type": "nothing"}}}}]}, "tools"),
     ({"tools": [{**NOW, "parameters": {"enum": ["x" * 70000]}}]}, "tools"),
     ({"tools": None, "tool_choice": "required"}, "tool_choice"),
     ({"tool_choice": "any"}, "tool_choice.type"), ({"tool_choice": 3}, "tool_choice"),
     ({"tool_choice": {"type": "web_search"}}, "tool_choice.type"),
     ({"tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
     ({"tool_choice": {"type": "function", "function": {"name": "now"}}}, "tool_choice.function"),
     ({"parallel_tool_calls": "yes"}, "parallel_tool_calls"),
     ({"text": {"format": {"type": "json_object"}}}, "text.format"),
     ({"input": [USER, RESULT]}, "input[1].call_id"),
     ({"input": [USER, CALL, {**RESULT, "call_id": "b"}]}, "input[2].call_id"),
     ({"input": [USER, RESULT, CALL]}, "input[1].call_id"),
     ({"input": [USER, CALL]}, "input[1].call_id"),
     ({"input": [USER, CALL, USER, RESULT]}, "input[1].call_id"),
     ({"input": [USER, CALL, OTHER, RESULT, USER]}, "input[2].call_id"),
     ({"input": [USER, CALL, OTHER, RESULT, {**CALL, "call_id": "c"}]}, "input[2].call_id"),
     ({"input": [USER, CALL, RESULT, RESULT]}, "input[3].call_id"),
     ({"input": [USER, CALL, RESULT, CALL]}, "input[3].call_id"),
     ({"input": [USER, {**CALL, "arguments": {}}]}, "input[1].arguments"),
     ({"input": [USER, {"type": "function_call", "name": "now", "arguments": ""}]},
      "input[1].call_id"),
     ({"input": [USER, CALL, {**RESULT, "output": [{"type": "input_image"}]}]}, "input[2].output"),
     ({"input": [USER, {"type": "web_search_call", "id": "x"}]}, "input[1].type"),
     ({"input": [USER, {"type": ["message"]}]}, "input[1].type"), ({"input": [3]}, "input[0]")],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_with_tools_is_400_and_named(says, change, param, stream):
    client, script, _ = says
    script[:] = ["no"]
    body = {"model": "tiny", "input": QUESTION, "tools": TOOLS, "max_output_tokens": 4}
    body |= {"stream": stream, **change}
    response = httpx.post(f"{client.base_url}responses", json=body, timeout=30)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == param
    assert error["message"].startswith(f"{param}: ")


texts = st.text(alphabet=st.sampled_from('a<tol_c/>{}\n "\\é🦊'), max_size=12)
values = st.integers() | texts | st.booleans() | st.none() | st.lists(texts, max_size=2)


@settings(max_examples=150, deadline=None)
@given(
    text=texts,
    calls=st.lists(st.dictionaries(texts, values, max_size=3), max_size=3),
    cuts=st.lists(st.integers(0, 300), max_size=12),
    end=st.integers(0, 400),
    scored=st.booleans(),
)
def test_events_make_the_response_however_the_answer_comes(text, calls, cuts, end, scored):
    made = calls_text([{"name": f"f{i}", "arguments": one} for i, one in enumerate(calls)])
    whole = f"{text}\n{made}"[:end]
    reason = "length" if end < len(text) + 1 + len(made) else "stop"
    tools = [{"type": "function", "name": f"f{i}"} for i in range(3)]
    body = {"model": "m", "input": "x", "tools": tools}
    asked = parse(ResponsesRequest, json.dumps(body).encode())

    def scores(piece: str) -> tuple[Score, ...]:
        return tuple(Score(c.encode(), -0.5) for c in piece) if scored else ()

    done = Completion([1], whole, reason, 1, 0.0, scores=scores(whole))
    writer = ResponseWriter(asked, 0, 1)
    events = list(writer.begin())
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    for first, last in pairwise(places):
        piece = whole[first:last]
        events += writer.piece(0, Scored(piece, scores(piece)) if scored else piece)
    events += [*writer.ended(0, done), *writer.end([done])]
    items, response = put_together(events)
    at_once = ResponseWriter(asked, 0, 1).answered(done)
    assert without_names(items) == without_names(at_once["output"])
    found = read(whole)  # as a chat is told
    told = "".join(i["content"][0]["text"] for i in items if i["type"] == "message")
    assert told == found.text
    called = [(i["name"], i["arguments"]) for i in items if i["type"] == "function_call"]
    assert called == [(c.name, c.arguments) for c in found.calls]
    states = [i["status"] for i in items if i["type"] == "function_call"]
    ended = whole.count("}\n</tool_call>")  # a line's end in arguments is escaped
    assert states == ["completed"] * ended + ["incomplete"] * (len(states) - ended)
    ours = ("id", "output")
    assert {k: v for k, v in response.items() if k not in ours} == {
        k: v for k, v in at_once.items() if k not in ours
    }
