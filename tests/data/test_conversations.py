"""Conversations in every format that people keep them in, and what is refused of them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from modelwright.data.conversations import (
    Refused,
    columns_of,
    conversations,
    format_of,
    said_tools,
)
from modelwright.data.sources import read_rows
from modelwright.tasks.chat import Chat
from modelwright.types import Example
from tests.json_rows import rows

TOOL = {"name": "weather", "description": "of a place", "parameters": {"type": "object"}}
CALL = {"name": "weather", "arguments": {"place": "Oslo"}}


def said(row: dict[str, Any], **how: Any) -> list[tuple[str, str, bool]]:
    (turns,) = conversations({"id": "a.jsonl:3", **row}, **how)
    return [(turn.role, turn.text, turn.learn) for turn in turns]


def test_one_conversation_is_the_same_in_every_format() -> None:
    expected = [
        ("system", "Be brief.", False),
        ("user", "Hi", False),
        ("assistant", "Hello", True),
        ("user", "Bye", False),
        ("assistant", "Farewell", True),
    ]
    roles = [(role, text) for role, text, _ in expected]
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    sharegpt = [{"from": names[r], "value": t} for r, t in roles]
    for row in (
        {"messages": [{"role": r, "content": t} for r, t in roles]},
        {"messages": [{"role": r, "content": [{"type": "text", "text": t}]} for r, t in roles]},
        {"messages": json.dumps([{"role": r, "content": t} for r, t in roles])},
        {"conversations": sharegpt},
        {"system": "Be brief.", "conversations": sharegpt[1:]},
        {
            "system": "Be brief.",
            "instruction": "Bye",
            "input": "",
            "output": "Farewell",
            "history": [["Hi", "Hello"]],
        },
    ):
        assert said(row) == expected
    pair = [("user", "Hi\n\nthere", False), ("assistant", "Hello", True)]
    assert said({"instruction": "Hi", "input": "there", "output": "Hello"}) == pair
    assert said({"prompt": "Hi\n\nthere", "completion": "Hello"}) == pair
    instances = [{"input": "there", "output": "Hello"}, {"input": "", "output": "Yes"}]
    several = conversations({"id": "1", "instruction": "Hi", "instances": instances})
    assert [turns[-1].text for turns in several] == ["Hello", "Yes"]


def test_what_is_to_be_learned_can_be_chosen() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "weight": 0},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d", "reasoning_content": "hm"},
    ]
    thought = "<think>\nhm\n</think>\nd"
    assert [t for _, t, learn in said({"messages": messages}) if learn] == [thought]
    assert [t for _, t, learn in said({"messages": messages}, thoughts=False) if learn] == ["d"]
    messages[1]["weight"] = 1
    assert [t for _, t, learn in said({"messages": messages}, last=True) if learn] == [thought]
    messages[1]["weight"] = messages[3]["loss_weight"] = 0
    with pytest.raises(Refused, match=r"^row a\.jsonl:3: nothing of it is to be learned"):
        said({"messages": messages})


def test_calls_of_tools_and_what_they_give_are_text_between_marks() -> None:
    openai = [
        {"role": "user", "content": "Oslo?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "1",
                    "type": "function",
                    "function": {**CALL, "arguments": '{"place": "Oslo"}'},
                }
            ],
        },
        {"role": "tool", "content": "cold"},
        {"role": "tool", "content": "dry"},
        {"role": "assistant", "content": "Cold and dry."},
    ]
    found = said({"messages": openai, "tools": [{"type": "function", "function": TOOL}]})
    assert [(r, learn) for r, _, learn in found] == [
        ("system", False),
        ("user", False),
        ("assistant", True),
        ("user", False),
        ("assistant", True),
    ]
    assert found[0][1] == said_tools([TOOL])
    assert json.dumps(TOOL) in found[0][1]
    assert found[2][1] == f"<tool_call>\n{json.dumps(CALL)}\n</tool_call>"
    assert found[3][1].count("<tool_response>") == 2
    sharegpt = [
        {"from": "human", "value": "Oslo?"},
        {"from": "function_call", "value": json.dumps(CALL)},
        {"from": "observation", "value": "cold"},
        {"from": "observation", "value": "dry"},
        {"from": "gpt", "value": "Cold and dry."},
    ]
    assert said({"conversations": sharegpt, "tools": json.dumps([TOOL])}) == found


@pytest.mark.parametrize(
    ("roles", "problem"),
    [
        (
            ["assistant", "user"],
            r"message 1: is of the assistant after the beginning, where system",
        ),
        (["user", "user"], r"message 2: is of the user after a message of the user"),
        (["user", "assistant", "assistant"], r"message 3: is of the assistant after a message of"),
        (
            ["user", "system", "assistant"],
            r"message 2: is of the system after a message of the user",
        ),
        (["user", "assistant", "user"], r"ends with a message of the user, to which nothing"),
        (["user", "assistant", "tool"], r"message 3: is of a tool, and nothing has called one"),
        (["system"], "holds no question"),
        (["user", "asistant"], r"message 2: no role 'asistant' \(did you mean 'assistant'\?\)"),
    ],
)
def test_a_wrong_order_of_roles_is_refused_with_its_place(roles: list[str], problem: str) -> None:
    with pytest.raises(Refused, match=rf"^row a\.jsonl:3: {problem}"):
        said({"messages": [{"role": role, "content": "x"} for role in roles]})


def test_an_unknown_tool_and_broken_calls_are_refused() -> None:
    def called(value: str, tools: object = [TOOL]) -> None:
        chat = [{"from": "human", "value": "x"}, {"from": "function_call", "value": value}]
        said({"conversations": chat, "tools": tools})

    with pytest.raises(
        Refused, match=r"message 2: calls the tool 'wether' \(did you mean 'weather'"
    ):
        called('{"name": "wether", "arguments": {}}')
    with pytest.raises(Refused, match=r"message 2: calls the tool 'weather', .* tools: none"):
        called(json.dumps(CALL), None)
    with pytest.raises(Refused, match=r"message 2: not readable JSON"):
        called("{")
    with pytest.raises(Refused, match=r"message 2: the 'arguments' of a call are no object"):
        called('{"name": "weather", "arguments": 3}')
    with pytest.raises(Refused, match=r"message 2: a call has no 'name'"):
        called("[3]")
    called(json.dumps([CALL, CALL]))


def test_rows_of_no_format_are_refused_with_what_would_be_read() -> None:
    assert format_of({"text": "x"}) == ""
    with pytest.raises(Refused, match=r"^row 7: holds no conversation; .*messages; conversations;"):
        conversations({"id": "7", "text": "x"})
    for row, lacks in (
        ({"instruction": "a", "input": "b"}, "no output, which Alpaca has"),
        ({"instruction": "a", "output": None}, "no output, which Alpaca has"),
        ({"messages": None}, "no messages, which OpenAI has"),
        ({"question": "a"}, "no completion or response or answer or output, which pairs has"),
    ):
        with pytest.raises(Refused, match=f"^row 7: {lacks}; complete it or leave the row out$"):
            conversations({"id": "7", **row})
        assert not Chat(bad="drop").reads(row)
        assert Chat(bad="drop").examples({"id": "7", **row}) == lacks
    with pytest.raises(Refused, match=r"message 1: no text in 'content'; complete it"):
        said({"messages": [{"role": "user"}, {"role": "assistant", "content": "x"}]})
    with pytest.raises(Refused, match=r"message 1: does not say whose it is; give a role"):
        said({"messages": [{"content": "x"}, {"role": "assistant", "content": "x"}]})
    with pytest.raises(Refused, match=r"a part of type 'image_url' is no text"):
        said({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]})
    assert columns_of({"instruction": "a", "output": "b", "input": "", "more": 1}) == [
        "instruction",
        "output",
        "input",
    ]


def test_the_demonstration_sets_are_read_but_for_two_rows(data: Callable[[str], Path]) -> None:
    kinds: dict[str, int] = {}
    refused = []
    for row in read_rows("instruct_demo", path=data("instruct_demo")):
        name = str(row["id"]).partition(".")[0]
        try:
            kinds[name] = kinds.get(name, 0) + len(conversations(row))
        except Refused as error:
            refused.append(str(error))
    assert kinds == {
        "alpaca_en_demo": 999,
        "alpaca_zh_demo": 1000,
        "glaive_toolcall_en_demo": 300,
        "glaive_toolcall_zh_demo": 298,
        "identity": 91,
        "reason_tool_use_demo_50": 50,
        "v1_sft_demo": 500,
    }
    assert len(refused) == 2
    assert all("nothing has called one" in reason for reason in refused)
    assert refused[0].startswith("row glaive_toolcall_zh_demo.json.gz:198: message 3: ")
    seeds = list(read_rows("self_instruct_seed", path=data("self_instruct_seed")))
    assert sum(len(conversations(row)) for row in seeds) == 175


def test_json_json_lines_and_parquet_hold_the_same(
    data: Callable[[str], Path], tmp_path: Path
) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    source = data("instruct_demo") / "reason_tool_use_demo_50.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(source.read_bytes()).splitlines()]
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    expected = [conversations({"id": str(i), **row}) for i, row in enumerate(rows)]
    for name in ("a.json", "a.parquet"):
        found = list(read_rows(str(tmp_path / name)))
        assert [conversations(row) for row in found] == expected
        assert str(found[6]["id"]).startswith(f"{name}:")


def test_calls_may_be_a_text_of_json() -> None:
    """As tables have them, which hold no lists."""
    calls = [{"type": "function", "function": {**CALL, "arguments": '{"place": "Oslo"}'}}]

    def called(tool_calls: object) -> list[tuple[str, str, bool]]:
        answer = {"role": "assistant", "content": "So:", "tool_calls": tool_calls}
        return said({"messages": [{"role": "user", "content": "x"}, answer], "tools": [TOOL]})

    assert called(json.dumps(calls)) == called(calls)
    assert called("null") == called("") == called(None) == called([])
    for broken, problem in (
        ("{", "not readable JSON"),
        ([None], "a call has no 'name'"),
        ("[null]", "a call has no 'name'"),
        (3, "a call has no 'name'"),
        ([{"function": None}], "a call has no 'name'"),
    ):
        with pytest.raises(Refused, match=rf"^row a\.jsonl:3: message 2: {problem}"):
            called(broken)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [{"role": "user", "content": 5}]}, "'content' is neither a text nor a list"),
        ({"instruction": "a", "output": "b", "history": 3}, "'history' is no list"),
        ({"instruction": "a", "output": "b", "history": [["x", None]]}, "'history' is no list"),
        ({"instruction": "a", "output": "b", "input": {"x": 1}}, "'input' is no text"),
        ({"system": ["a"], "prompt": "a", "completion": "b"}, "'system' is no text"),
    ],
)
def test_what_is_no_text_leaves_with_a_reason_that_can_be_counted(
    row: dict[str, object], reason: str
) -> None:
    found = Chat(bad="drop").examples({"id": "a.jsonl:3", **row})
    assert isinstance(found, str)
    assert found.startswith(reason)


READABLE: list[dict[str, Any]] = [
    {
        "tools": [{"type": "function", "function": TOOL}],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Oslo?"}]},
            {
                "role": "assistant",
                "content": "",
                "reasoning_content": "hm",
                "weight": 1,
                "tool_calls": [{"type": "function", "function": CALL}],
            },
            {"role": "tool", "content": "cold"},
            {"role": "assistant", "content": [{"type": "reasoning", "value": "a"}]},
        ],
    },
    {
        "system": "Be brief.",
        "tools": json.dumps([TOOL]),
        "conversations": [
            {"from": "human", "value": "Oslo?"},
            {"from": "function_call", "value": json.dumps(CALL)},
            {"from": "observation", "value": "cold"},
            {"from": "gpt", "value": "Cold."},
        ],
    },
    {"instruction": "a", "input": "b", "output": "c", "history": [["d", "e"]], "system": "f"},
    {"instruction": "a", "instances": [{"input": "b", "output": "c"}]},
    {"prompt": "a", "completion": "b", "system": "c"},
]
KEYS = ["messages", "conversations", "role", "from", "content", "value", "tool_calls", "function"]
KEYS += ["name", "arguments", "tools", "type", "text", "instruction", "input", "output", "history"]
KEYS += ["instances", "system", "prompt", "completion", "weight", "reasoning_content"]


@given(rows(READABLE, KEYS))
@settings(max_examples=300, deadline=None)
def test_any_row_of_json_is_read_or_refused_in_one_line(row: dict[str, Any]) -> None:
    try:
        found = Chat().examples({"id": "1", **row})
    except Refused as error:
        assert "\n" not in str(error)
        assert error.reason or not format_of(row)
    else:
        assert found if isinstance(found, str) else all(isinstance(e, Example) for e in found)
