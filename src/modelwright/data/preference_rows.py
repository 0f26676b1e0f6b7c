"""Rows that say which of two answers is better, or that one is good or bad, read as turns.

| format | what a row has |
|---|---|
| explicit prompt | ``prompt``, ``chosen``, ``rejected``: texts, or lists of messages (TRL) |
| implicit prompt | ``chosen`` and ``rejected`` that begin alike: messages, or plain texts |
| hh-rlhf | the same as transcripts of ``Human:`` and ``Assistant:`` |
| ShareGPT | ``conversations``, and ``chosen`` and ``rejected`` of one message each |
| one answer | ``prompt`` and ``completion``, or ``messages``; ``label`` says whether it is good |

Messages are those of ``conversations.py``, tools among them. A prompt is also called ``question``
or ``instruction`` with ``input``; a ``system`` may stand beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from modelwright.data.conversations import Refused, conversations
from modelwright.errors import ModelwrightError
from modelwright.types import Example, Row, Turn, text_turn

PROMPTS = ("prompt", "question", "instruction")
LABELS = ("label", "kto_tag")
_SPEAKERS = re.compile(r"\n\n(Human|Assistant):")
_YES, _NO = ("true", "1", "yes", "good"), ("false", "0", "no", "bad")
Messages = list[Mapping[str, Any]]


def compared(row: Row) -> Example:
    """The example of a row: the better answer to be learned, the other one ``rejected``.

    Raises:
        Refused: an answer is empty, both are the same, or they do not answer the same; names the
            row.
        ModelwrightError: the row lacks the columns.
    """
    where = f"row {row.get('id', '?')}"
    if row.get("chosen") is not None and row.get("rejected") is not None:
        return _pair(row, where)
    for name in LABELS:
        if row.get(name) is not None:
            return _single(row, name, where)
    if row.keys() >= {"chosen", "rejected"}:
        empty = next(name for name in ("chosen", "rejected") if row[name] is None)
        raise Refused(f"{where}: {empty} is an empty answer; complete it or leave the row out")
    raise ModelwrightError(
        f"{where}: needs columns 'chosen' and 'rejected', or one answer with a column 'label'; it"
        f" has: {', '.join(map(str, row))}; name them with data.columns"
    )


def _pair(row: Row, where: str) -> Example:
    given = _prompt(row, where)
    sides = [_whole(row, name, given, where) for name in ("chosen", "rejected")]
    better, worse = (_turns(row, messages) for messages in sides)
    if better[:-1] != worse[:-1]:
        raise Refused(
            f"{where}: chosen and rejected answer different prompts; give one prompt, and one"
            " answer each"
        )
    chosen, rejected = better[-1], worse[-1]
    for name, turn in (("chosen", chosen), ("rejected", rejected)):
        if not turn.text.strip():
            raise Refused(f"{where}: {name} is an empty answer; complete it or leave the row out")
    if chosen.text == rejected.text:
        raise Refused(f"{where}: chosen and rejected are the same; leave the row out")
    return Example((*better[:-1], chosen), rejected)


def _single(row: Row, name: str, where: str) -> Example:
    """One answer that is good or bad."""
    said = str(row[name]).strip().lower()
    if said not in (*_YES, *_NO):
        raise Refused(f"{where}: {name} is {row[name]!r}, neither true nor false; put it right")
    given = _prompt(row, where)
    if row.get("completion") is not None:
        given = _whole(row, "completion", given, where)
    *asked, answer = _turns(row, given or [])
    if not answer.text.strip():
        raise Refused(f"{where}: an empty answer; complete it or leave the row out")
    if said in _YES:
        return Example((*asked, answer), text_turn("assistant", ""))
    return Example(tuple(asked), answer)


def _turns(row: Row, messages: Messages) -> tuple[Turn, ...]:
    """Messages as turns, the last of which is to be learned."""
    kind = "messages" if all("role" in message for message in messages) else "conversations"
    beside = {name: row[name] for name in ("id", "tools") if row.get(name) is not None}
    (found,) = conversations({**beside, kind: messages}, last=True)
    return found


def _prompt(row: Row, where: str) -> Messages:
    """The messages that both answers follow, as far as the row has them apart."""
    for name in ("messages", "conversations"):
        if row.get(name) is not None:
            return _system(row, _messages(row[name], name, where))
    name = next((name for name in PROMPTS if row.get(name) is not None), "")
    if not name:
        return []
    if not isinstance(row[name], str):
        return _system(row, _messages(row[name], name, where))
    if transcript := _transcript(row[name]):
        return _system(row, transcript)
    more = row.get("input") if name == "instruction" else None
    text = f"{row[name]}\n\n{more}" if more else row[name]
    if not text.strip():
        raise Refused(f"{where}: {name} is empty; complete it or leave the row out")
    return _system(row, [{"role": "user", "content": text}])


def _system(row: Row, messages: Messages) -> Messages:
    """The messages, after what a column ``system`` says."""
    said = row.get("system")
    if not isinstance(said, str) or not said.strip():
        return messages
    if messages and "from" in messages[0]:
        return [{"from": "system", "value": said}, *messages]
    return [{"role": "system", "content": said}, *messages]


def _whole(row: Row, name: str, given: Messages, where: str) -> Messages:
    """The conversation that a column ends: what it follows, and the answer."""
    value = row[name]
    if isinstance(value, str):
        found = _transcript(value)
        if not found and not given:
            given, value = _parted(row, name, where)
        if not found:
            kind = ("from", "value") if given and "from" in given[0] else ("role", "content")
            return [*given, dict(zip(kind, ("assistant", value), strict=True))]
    elif isinstance(value, Mapping):
        found = [value]
    else:
        found = _messages(value, name, where)
    if not given or _speaker(found[0]) in ("assistant", "gpt", "model", "bot", "function_call"):
        return [*given, *found]
    if found[: len(given)] != given:
        raise Refused(
            f"{where}: {name} is a conversation that does not begin with the prompt of the row;"
            " leave one of them out, or give the answer alone"
        )
    return found


def _parted(row: Row, name: str, where: str) -> tuple[Messages, str]:
    """The beginning that two plain texts share, up to a word, as the prompt; and the rest."""
    one, other = str(row["chosen"]), str(row["rejected"])
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    shared = one[: sum(1 for _ in alike)]
    if len(shared) < min(len(one), len(other)):
        shared = shared[: max(shared.rfind(" "), shared.rfind("\n")) + 1]
    if not shared.strip():
        raise Refused(
            f"{where}: no prompt: chosen and rejected do not begin alike; give it in a column"
            " 'prompt'"
        )
    return [{"role": "user", "content": shared.strip()}], str(row[name])[len(shared) :].strip()


def _transcript(text: str) -> Messages:
    """A text of ``Human:`` and ``Assistant:`` as messages; none where it is no such text."""
    before, *rest = _SPEAKERS.split(text if text.startswith("\n\n") else f"\n\n{text}")
    if before.strip() or len(rest) < 2 or rest[0] != "Human":
        return []
    roles = {"Human": "user", "Assistant": "assistant"}
    pairs = zip(rest[::2], rest[1::2], strict=True)
    return [{"role": roles[who], "content": said.strip()} for who, said in pairs]


def _messages(value: Any, name: str, where: str) -> Messages:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise Refused(f"{where}: {name!r} is neither a text nor a list of messages; put it right")
    if not all(isinstance(message, Mapping) for message in value):
        raise Refused(f"{where}: {name!r} holds what is no message; put it right")
    return list(value)


def _speaker(message: Mapping[str, Any]) -> str:
    return str(message.get("role", message.get("from", ""))).lower()


def judged(text: str) -> tuple[Turn, ...]:
    """A typed conversation: a transcript, or a prompt, a blank line and its answer.

    Raises:
        ModelwrightError: it is neither.
    """
    if not (found := _transcript(text)):
        prompt, _, answer = text.strip().rpartition("\n\n")
        if not prompt:
            raise ModelwrightError(
                "question: no answer to be judged; write the prompt, a blank line and the answer,"
                " or 'Human: ...' and 'Assistant: ...' with blank lines between"
            )
        found = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return tuple(text_turn(message["role"], message["content"]) for message in found)
