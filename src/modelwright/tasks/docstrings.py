"""An assistant that answers questions about Python objects, from signatures and docstrings.

Two questions about each documented public object: what it does (the first sentence of its
docstring) and which arguments it takes. Half of the first kind show the signature, chosen by a
hash of the name, since a person may write either form.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import ClassVar

from modelwright.errors import ModelwrightError
from modelwright.tasks.grading import token_f1
from modelwright.tasks.task import Task
from modelwright.types import Example, Row, Turn, text_turn

_FIELDS = ("full_name", "signature", "docstring")
_SENTENCE = re.compile(r"(.+?[.!?])(?:\s|$)")
_LONGEST = 240  # characters of a first sentence; longer ones are no summaries


class Docstrings(Task):
    """Questions and answers about one documented object a row.

    A row has ``full_name`` ("os.path.join"), ``signature`` ("join(a, *p)", or without
    parentheses where nothing is called) and ``docstring``; ``public: false`` leaves it out.
    """

    codec = "text"
    objective = "next_token"
    model = "decoder"
    measure = "token F1"
    specimen: ClassVar[Row] = {
        "id": "object:os.path.join",
        "kind": "object",
        "full_name": "os.path.join",
        "signature": "join(a, *p)",
        "docstring": "Join two or more pathname components, inserting '/' as needed.\n\nMore.",
    }

    def examples(self, row: Row) -> Iterator[Example] | str:
        """The questions of one object, or the reason why it has none."""
        if row.get("kind", "object") != "object":
            return "not of kind object"
        for field in _FIELDS:
            if not isinstance(row.get(field), str):
                raise ModelwrightError(
                    f"row {row.get('id', '?')}: no text in field {field!r}, which the task "
                    "docstrings needs; name the column that holds it with data.columns"
                )
        if not row.get("public", True):
            return "a private object"
        summary = first_sentence(row["docstring"])
        if not 8 <= len(summary) <= _LONGEST:
            return "no first sentence of 8 to 240 characters"
        return self._questions(row, summary)

    def _questions(self, row: Row, summary: str) -> Iterator[Example]:
        name, signature = str(row["full_name"]), str(row["signature"])
        opening = signature.find("(")
        called = name + signature[opening:] if opening >= 0 else name
        shown = called if zlib.crc32(name.encode()) % 2 else name  # a fixed fair coin
        yield conversation(f"What does `{shown}` do?", summary)
        if opening >= 0:
            yield conversation(f"Which arguments does `{called}` take?", arguments(called))

    def grade(self, example: Example, answer: Turn) -> float:
        """F1 of the words of the answer and the reference (as in SQuAD, arXiv:1606.05250)."""
        return token_f1(example.answer.text, answer.text)

    def kind(self, example: Example) -> str:
        """The question's kind, by its first word and the next."""
        return " ".join(example.given[-1].text.split()[:2])


def conversation(question: str, answer: str) -> Example:
    """One question and the answer to learn."""
    return Example((text_turn("user", question), text_turn("assistant", answer, learn=True)))


def first_sentence(docstring: str) -> str:
    """The first sentence of the first paragraph, on one line."""
    paragraph = re.sub(r"\s+", " ", docstring.strip().split("\n\n")[0])
    sentence = _SENTENCE.match(paragraph)
    return sentence[1] if sentence else paragraph


def arguments(called: str) -> str:
    """The arguments of ``f(a, *, b=1)`` in words: "`a` and `b=1`."."""
    inside = called[called.index("(") + 1 : called.rindex(")")]
    names = [part for part in split_arguments(inside) if part not in ("*", "/")]
    if not names:
        return "None."
    quoted = [f"`{name}`" for name in names]
    return ", ".join(quoted[:-1]) + (" and " if quoted[:-1] else "") + quoted[-1] + "."


def split_arguments(inside: str) -> list[str]:
    """Split at commas that are inside no bracket or quotation."""
    parts, depth, quote, start = [], 0, "", 0
    for i, char in enumerate(inside):
        if quote:
            quote = "" if char == quote and inside[i - 1] != "\\" else quote
        elif char in "'\"":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(inside[start:i])
            start = i + 1
    parts.append(inside[start:])
    return [part.strip() for part in parts if part.strip()]
