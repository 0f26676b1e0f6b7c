"""Conversations as people keep them, read as turns: ShareGPT, Alpaca, OpenAI messages, and kin.

| format | what a row has |
|---|---|
| OpenAI | ``messages`` of ``role`` and ``content`` (a text, or a list of parts), ``tool_calls`` |
| ShareGPT | ``conversations`` of ``from`` and ``value``; ``system`` and ``tools`` beside them |
| Alpaca | ``instruction``, ``input``, ``output``; ``system`` and ``history`` beside them |
| Self-Instruct | ``instruction`` and ``instances`` of ``input`` and ``output`` |
| pairs | ``prompt`` or ``question``, and ``completion``, ``response`` or ``answer`` |

Every codec of text knows a system, a user and an assistant. So the tools stand in the system's
turn, calls are text of the assistant between ``<tool_call>`` marks, and what a tool gives is a turn
of the user between ``<tool_response>`` marks, as Hermes and Qwen have it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.types import Row, Turn, text_turn

CALL, RESULT, THOUGHT = "tool_call", "tool_response", "think"
_TOLD = """\
You can call functions. These are offered, one JSON object a line:
{functions}
To call one, write exactly this, and nothing after your calls:
<{call}>
{{"name": "NAME", "arguments": {{...}}}}
</{call}>
Each result comes back between <tool_response> and </tool_response>."""
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "call",
    "tool_call": "call",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
}
# What may follow what; "" is the beginning. A turn of tools answers a call of the assistant.
_AFTER = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}
_QUESTIONS = ("prompt", "question", "query")
_ANSWERS = ("completion", "response", "answer", "output")


@dataclass
class Message:
    """One message: who says it, its text, the tools that it calls, and whether it is learned."""

    role: str
    text: str
    thought: str = ""
    calls: list[Mapping[str, Any]] = field(default_factory=list)
    weight: float = 1.0


class Refused(ModelwrightError):
    """A conversation is not what its format says."""

    @property
    def reason(self) -> str:
        """The message without row, number of the message and advice: alike ones can be counted."""
        said = str(self).partition(": ")[2]
        said = said.partition(": ")[2] if said.startswith("message ") else said
        return said.partition(";")[0][:80]


def format_of(row: Row) -> str:
    """The name of the format of a row; empty where it is none that is known here."""
    for name, columns, _ in _FORMATS:
        if all(any(row.get(c) is not None for c in several) for several in columns):
            return name
    return ""


def lacking(row: Row) -> str:
    """What a row that is of no format lacks of the nearest; empty where it has nothing of any."""
    near = []
    for name, columns, _ in _FORMATS:
        there = [any(row.get(c) is not None for c in several) for several in columns]
        named = [any(c in row for c in several) for several in columns]
        missing = [" or ".join(s) for s, held in zip(columns, there, strict=True) if not held]
        near.append((sum(there), sum(named), f"no {' and no '.join(missing)}, which {name} has"))
    *score, lacks = max(reversed(near), key=lambda one: one[:2])  # Alpaca before Self-Instruct
    return lacks if any(score) else ""


def columns_of(row: Row) -> list[str]:
    """The columns of a row that hold its conversation."""
    named = next((columns for name, columns, _ in _FORMATS if name == format_of(row)), ())
    beside = (("system",), ("tools",), ("history",), ("input",))
    wanted = (*(c for several in named for c in several), *(c for (c,) in beside))
    return [c for c in dict.fromkeys(wanted) if row.get(c) is not None]


def conversations(row: Row, *, thoughts: bool = True, last: bool = False) -> list[tuple[Turn, ...]]:
    """The conversations of a row, one but for Self-Instruct.

    Args:
        row: in one of the formats of this module.
        thoughts: whether what the assistant thinks is kept; left out, it is neither read nor said.
        last: whether the last turn of the assistant alone is to be learned.

    Raises:
        Refused: the row is none, roles stand in a wrong order, or a tool is called that there is
            not; names the row and the message.
    """
    where = f"row {row.get('id', '?')}"
    found = format_of(row)
    if not found:
        if lacks := lacking(row):
            raise Refused(f"{where}: {lacks}; complete it or leave the row out")
        known = "; ".join(" and ".join(" or ".join(s) for s in c) for _, c, _ in _FORMATS)
        raise Refused(f"{where}: holds no conversation; columns that would be read: {known}")
    (read,) = (read for name, _, read in _FORMATS if name == found)
    tools = _tools(row.get("tools"), where)
    return [
        _turns(messages, tools, where, thoughts=thoughts, last=last)
        for messages in read(row, where)
    ]


def _turns(
    messages: Sequence[Message],
    tools: Mapping[str, Any] | None,
    where: str,
    *,
    thoughts: bool,
    last: bool,
) -> tuple[Turn, ...]:
    """Messages as turns, checked."""
    check(messages, tools, where)
    if tools:
        system = messages[0].text if messages[0].role == "system" else ""
        body = messages[1:] if messages[0].role == "system" else messages
        messages = [Message("system", said_tools(list(tools.values()), system)), *body]
    answers = [i for i, m in enumerate(messages) if m.role == "assistant" and m.weight > 0]
    learned = set(answers[-1:] if last else answers)
    if not learned:
        raise Refused(f"{where}: nothing of it is to be learned; give a message of the assistant")
    turns: list[Turn] = []
    for number, message in enumerate(messages):
        text = said(message, thoughts=thoughts)
        if message.role == "tool" and turns[-1].text.startswith(f"<{RESULT}>"):
            turns[-1] = text_turn("user", f"{turns[-1].text}\n{text}")
        else:
            role = "user" if message.role == "tool" else message.role
            turns.append(text_turn(role, text, learn=number in learned))
    return tuple(turns)


def check(messages: Sequence[Message], tools: Mapping[str, Any] | None, where: str) -> None:
    """Refuse roles in a wrong order, and calls of tools that there are not.

    Raises:
        Refused: names the message and what is wrong with it.
    """
    before = Message("", "")
    for number, message in enumerate(messages, start=1):
        place = f"{where}: message {number}"
        if message.role not in _AFTER[before.role]:
            first = f"a message of the {before.role}" if before.role else "the beginning"
            raise Refused(
                f"{place}: is of the {message.role} after {first}, where"
                f" {' or '.join(_AFTER[before.role])} is meant; put it right or leave the row out"
            )
        if message.role == "tool" and before.role == "assistant" and not before.calls:
            raise Refused(f"{place}: is of a tool, and nothing has called one; give the call first")
        for call in message.calls:
            name = str(call.get("name"))
            if name not in (tools or {}):
                raise Refused(
                    f"{place}: calls the tool {name!r}{did_you_mean(name, tools or {})}, which"
                    f" there is not; the row's tools: {', '.join(tools or {}) or 'none'}"
                )
        before = message
    if before.role in ("", "system"):
        raise Refused(f"{where}: holds no question; leave it out")
    if before.role != "assistant":
        raise Refused(
            f"{where}: ends with a message of the {before.role}, to which nothing is answered; "
            "leave that message out"
        )


def said(message: Message, *, thoughts: bool = True) -> str:
    """The text of a message, with its thought and its calls between their marks."""
    parts = (
        [f"<{THOUGHT}>\n{message.thought}\n</{THOUGHT}>"] if thoughts and message.thought else []
    )
    if message.role == "tool":
        return f"<{RESULT}>\n{message.text}\n</{RESULT}>"
    parts += [message.text] if message.text else []
    parts += [f"<{CALL}>\n{_json(call)}\n</{CALL}>" for call in message.calls]
    return "\n".join(parts)


def said_tools(tools: Sequence[Mapping[str, Any]], system: str = "") -> str:
    """What the system says of its tools, after what it says otherwise; a server says the same.

    Of a tool ``name``, ``description`` and ``parameters`` are told.
    """
    told = ("name", "description", "parameters")
    listed = [{k: tool[k] for k in told if tool.get(k) is not None} for tool in tools]
    said_first = f"{system}\n\n" if system else ""
    return said_first + _TOLD.format(functions="\n".join(map(_json, listed)), call=CALL)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# Formats --------------------------------------------------------------------------------------


def _openai(row: Row, where: str) -> Iterator[list[Message]]:
    found = []
    for number, given in enumerate(_list(row["messages"], where, "messages"), start=1):
        place = f"{where}: message {number}"
        role = _role(given.get("role"), place)
        message = _content(given.get("content"), role, place)
        if given.get("content") is None and message.role != "assistant":
            raise Refused(f"{place}: no text in 'content'; complete it or leave the row out")
        called = given.get("tool_calls") or []
        called = _parsed(called, place) if isinstance(called, str) else called
        message.calls += _calls(called or [], place)  # a text may be "null"
        for name in ("weight", "loss_weight"):
            if isinstance(given.get(name), int | float):
                message.weight = given[name]
        message.thought = message.thought or _beside(given, "reasoning_content", place)
        found.append(message)
    yield found


def _content(content: Any, role: str, place: str) -> Message:
    """A message of a text, or of a list of parts."""
    message = Message("assistant" if role == "call" else role, "")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list | tuple | None):
        raise Refused(f"{place}: 'content' is neither a text nor a list of parts; put it right")
    for part in parts or ():
        kind = part.get("type") if isinstance(part, Mapping) else None
        value = part.get("value", part.get("text", part.get(str(kind)))) if kind else None
        if kind == "tool_call":
            message.calls += _calls(value, place)
        elif kind == "reasoning" and isinstance(value, str):
            message.thought += value
        elif kind == "text" and isinstance(value, str):
            message.text += value
        else:
            raise Refused(f"{place}: a part of type {kind!r} is no text; leave the row out")
    return message


def _sharegpt(row: Row, where: str) -> Iterator[list[Message]]:
    found = _system(row, where)
    for number, given in enumerate(_list(row["conversations"], where, "conversations"), start=1):
        place = f"{where}: message {number}"
        role = _role(given.get("from", given.get("role")), place)
        value = given.get("value", given.get("content"))
        if not isinstance(value, str):
            raise Refused(f"{place}: no text in 'value'; complete it or leave the row out")
        if role == "call":
            found.append(Message("assistant", "", calls=_calls(value, place)))
        else:
            found.append(Message(role, value))
    yield found


def _alpaca(row: Row, where: str) -> Iterator[list[Message]]:
    found = _system(row, where)
    for question, answer in _history(row.get("history"), where):
        found += [Message("user", question), Message("assistant", answer)]
    asked = _joined(_text(row, "instruction", where), _beside(row, "input", where))
    yield [*found, Message("user", asked), Message("assistant", _text(row, "output", where))]


def _self_instruct(row: Row, where: str) -> Iterator[list[Message]]:
    instruction = _text(row, "instruction", where)
    for given in _list(row["instances"], where, "instances"):
        asked = _joined(instruction, _beside(given, "input", where))
        yield [Message("user", asked), Message("assistant", _text(given, "output", where))]


def _pairs(row: Row, where: str) -> Iterator[list[Message]]:
    asked = next(c for c in _QUESTIONS if row.get(c) is not None)
    answered = next(c for c in _ANSWERS if row.get(c) is not None)
    question, answer = _text(row, asked, where), _text(row, answered, where)
    yield [*_system(row, where), Message("user", question), Message("assistant", answer)]


_Read = Callable[[Row, str], Iterator[list[Message]]]
_FORMATS: tuple[tuple[str, tuple[tuple[str, ...], ...], _Read], ...] = (
    ("OpenAI", (("messages",),), _openai),
    ("ShareGPT", (("conversations",),), _sharegpt),
    ("Self-Instruct", (("instruction",), ("instances",)), _self_instruct),
    ("Alpaca", (("instruction",), ("output",)), _alpaca),
    ("pairs", (_QUESTIONS, _ANSWERS), _pairs),
)


# Parts of rows --------------------------------------------------------------------------------


def _joined(instruction: str, given: str) -> str:
    return f"{instruction}\n\n{given}" if given.strip() else instruction


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    if not isinstance(row.get(column), str):
        raise Refused(f"{where}: no text in {column!r}; complete it or leave the row out")
    return str(row[column])


def _beside(row: Mapping[str, Any], column: str, where: str) -> str:
    """A text that may be left out; a number is one, as tables and JSON give answers of sums."""
    value = row.get(column)
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise Refused(f"{where}: {column!r} is no text; put it right or leave the row out")


def _system(row: Row, where: str) -> list[Message]:
    """What the system says beside a conversation, as its first message."""
    said_first = _beside(row, "system", where)
    return [Message("system", said_first)] if said_first else []


def _history(value: Any, where: str) -> list[tuple[str, str]]:
    """Questions and answers that went before, none where there are none."""
    pairs = [] if value is None or value == "" else value
    if not isinstance(pairs, list | tuple) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(t, str) for t in pair)
        for pair in pairs
    ):
        raise Refused(f"{where}: 'history' is no list of [question, answer]; put it right")
    return [(question, answer) for question, answer in pairs]


def _list(value: Any, where: str, column: str) -> list[Mapping[str, Any]]:
    if isinstance(value, str):
        value = _parsed(value, f"{where}: {column}")
    if not isinstance(value, Sequence) or not all(isinstance(v, Mapping) for v in value):
        raise Refused(f"{where}: {column!r} is no list of objects; put it right")
    return list(value)


def _role(value: Any, place: str) -> str:
    role = _ROLES.get(str(value).lower())
    if value is None:
        raise Refused(f"{place}: does not say whose it is; give a role, or leave the row out")
    if role is None:
        hint = did_you_mean(str(value), _ROLES)
        raise Refused(f"{place}: no role {value!r}{hint}; put it right; known: {', '.join(_ROLES)}")
    return role


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{place}: not readable JSON ({str(error)[:80]}); put it right") from error


def _calls(value: Any, place: str) -> list[Mapping[str, Any]]:
    """The calls of one text of JSON, or of a value: one or a list of them.

    OpenAI's have name and arguments under ``function``.
    """
    found = _parsed(value, place) if isinstance(value, str) else value
    calls = found if isinstance(found, list) else [found]
    return [
        _call(call.get("function", call) if isinstance(call, Mapping) else call, place)
        for call in calls
    ]


def _call(call: Any, place: str) -> Mapping[str, Any]:
    """``name`` and ``arguments`` of a call, whose arguments may be a text of JSON."""
    if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
        _no_call(place, "a call has no 'name'")
    arguments = call.get("arguments", {})
    if isinstance(arguments, str):
        arguments = _parsed(arguments or "{}", place)
    if not isinstance(arguments, Mapping):
        _no_call(place, "the 'arguments' of a call are no object")
    return {"name": call["name"], "arguments": arguments}


def _no_call(place: str, why: str) -> NoReturn:
    raise Refused(f"{place}: {why}; put it right or leave the row out")


def _tools(value: Any, where: str) -> dict[str, Any] | None:
    """The tools of a row by name; None where it has none."""
    if value is None or value == "":
        return None
    listed = _list(value, where, "tools")
    found: dict[str, Any] = {}
    for tool in listed:
        inner = tool.get("function", tool)
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
            raise Refused(f"{where}: a tool has no 'name'; put it right")
        found[inner["name"]] = inner
    return found
