"""What a model is taught of tools is what a server tells it, to the letter."""

from __future__ import annotations

import json
from typing import Any

from modelwright.data.conversations import conversations
from modelwright.serving.bodies import parse
from modelwright.serving.openai import ChatRequest

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "of a place, größer",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
        },
    },
    {"type": "function", "function": {"name": "time"}},
]
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Oslo?"},
    {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [
            {
                "id": "a",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"place": "Tromsø"}'},
            },
            {"id": "b", "type": "function", "function": {"name": "time", "arguments": "{}"}},
        ],
    },
    {"role": "tool", "tool_call_id": "a", "content": "cold"},
    {"role": "tool", "tool_call_id": "b", "content": "noon"},
]


def test_a_server_tells_what_was_taught() -> None:
    for messages in (MESSAGES, MESSAGES[1:]):
        body = {"model": "m", "messages": messages, "tools": TOOLS}
        (asked,) = parse(ChatRequest, json.dumps(body).encode()).conversations
        answered = [*messages, {"role": "assistant", "content": "Cold."}]
        (taught,) = conversations({"id": "1", "messages": answered, "tools": TOOLS})
        assert [(t.role, t.text) for t in asked] == [(t.role, t.text) for t in taught[:-1]]
