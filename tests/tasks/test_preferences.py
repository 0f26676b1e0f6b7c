"""Rows of preferences in the formats in which they are published, and what is wrong with some."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelwright.data.sources import read_rows
from modelwright.errors import ModelwrightError
from modelwright.tasks.task import make_task
from modelwright.types import Example

DRAWN = [{"role": "user", "content": "Hi"}]
HH = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: A joke?\n\nAssistant:"


def told(example: Example) -> tuple[list[tuple[str, str]], str, str]:
    """Role and text of what is given, and both answers."""
    assert example.rejected is not None
    given = [(turn.role, turn.text) for turn in example.given]
    return given, example.answer.text, example.rejected.text


def only(row: dict[str, Any]) -> Example:
    found = make_task("preferences", {"bad": "stop"}).examples({"id": "p:1", **row})
    assert not isinstance(found, str)
    (example,) = found
    return example


HI = ([("user", "Hi")], "Hello.", "No.")


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"prompt": "Hi", "chosen": "Hello.", "rejected": "No."}, HI),
        ({"question": "Hi", "chosen": "Hello.", "rejected": "No."}, HI),
        (
            {"system": "Be kind.", "question": "Hi", "chosen": "Hello.", "rejected": "No."},
            ([("system", "Be kind."), *HI[0]], *HI[1:]),
        ),
        (
            {"instruction": "Greet", "input": "him", "chosen": "Hello.", "rejected": "No."},
            ([("user", "Greet\n\nhim")], *HI[1:]),
        ),
        (
            {
                "prompt": DRAWN,
                "chosen": [{"role": "assistant", "content": "Hello."}],
                "rejected": [{"role": "assistant", "content": "No."}],
            },
            HI,
        ),
        (
            {
                "chosen": [*DRAWN, {"role": "assistant", "content": "Hello."}],
                "rejected": [*DRAWN, {"role": "assistant", "content": "No."}],
            },
            HI,
        ),
        (
            {
                "conversations": [{"from": "human", "value": "Hi"}],
                "chosen": {"from": "gpt", "value": "Hello."},
                "rejected": {"from": "gpt", "value": "No."},
            },
            HI,
        ),
        (
            {"chosen": f"{HH} Knock.", "rejected": f"{HH} Never."},
            ([("user", "Hi"), ("assistant", "Hello."), ("user", "A joke?")], "Knock.", "Never."),
        ),
        (
            {"chosen": "The sky is blue today.", "rejected": "The sky is black today."},
            ([("user", "The sky is")], "blue today.", "black today."),
        ),
    ],
)
def test_every_format_gives_the_prompt_and_both_answers(
    row: dict[str, Any], wanted: tuple[Any, ...]
) -> None:
    assert told(only(row)) == wanted


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "completion": "Hello."},
        {"messages": [*DRAWN, {"role": "assistant", "content": "Hello."}]},
        {"prompt": DRAWN, "completion": [{"role": "assistant", "content": "Hello."}]},
    ],
)
@pytest.mark.parametrize(("label", "good"), [(True, True), ("false", False), (0, False)])
def test_a_single_answer_is_good_or_bad(row: dict[str, Any], label: object, good: bool) -> None:
    example = only({**row, "label": label})
    assert example.rejected is not None
    assert example.given[-1].text == "Hi"
    assert any(turn.learn for turn in example.turns) is good
    assert example.rejected.learn is not good
    assert (example.answer if good else example.rejected).text == "Hello."


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "Hi", "chosen": "No.", "rejected": "No."}, "chosen and rejected are the same"),
        ({"prompt": "Hi", "chosen": " ", "rejected": "No."}, "chosen is an empty answer"),
        ({"prompt": "Hi", "chosen": "Yes.", "rejected": ""}, "rejected is an empty answer"),
        ({"prompt": "Hi", "chosen": "Yes.", "rejected": None}, "rejected is an empty answer"),
        ({"prompt": " ", "chosen": "Yes.", "rejected": "No."}, "prompt is empty"),
        ({"chosen": "Yes.", "rejected": "No."}, "no prompt"),
        (
            {"chosen": f"{HH} Knock.", "rejected": "\n\nHuman: Hey\n\nAssistant: Never."},
            "chosen and rejected answer different prompts",
        ),
        (
            {
                "prompt": DRAWN,
                "chosen": [
                    {"role": "user", "content": "Hey"},
                    {"role": "assistant", "content": "Hello."},
                ],
                "rejected": [{"role": "assistant", "content": "No."}],
            },
            "chosen is a conversation that does not begin with the prompt of the row",
        ),
        ({"prompt": "Hi", "completion": "Yes.", "label": "maybe"}, "label is 'maybe', neither"),
        ({"prompt": 7, "chosen": "Yes.", "rejected": "No."}, "'prompt' is neither a text nor"),
    ],
)
def test_a_bad_row_is_named_or_left_out_with_its_reason(row: dict[str, Any], why: str) -> None:
    with pytest.raises(ModelwrightError, match=rf"^row p:1: {why}"):
        only(row)
    reason = make_task("preferences", {}).examples({"id": "p:1", **row})
    assert isinstance(reason, str)
    assert reason.startswith(why[:60].partition(",")[0].partition(" ne")[0])


def test_a_reason_names_neither_row_nor_message_so_that_alike_ones_are_counted() -> None:
    told = {"role": "tool", "content": "7"}
    answers = {
        "chosen": [{"role": "assistant", "content": "Hello."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    }
    for before in (DRAWN, [*DRAWN, {"role": "assistant", "content": "Hm."}, *DRAWN]):
        row = {"id": f"p:{len(before)}", "prompt": [*before, told], **answers}
        chat = {"id": row["id"], "messages": [*before, told, *answers["chosen"]]}
        reasons = [
            make_task(name, {"bad": "drop"}).examples(given)
            for name, given in (("preferences", row), ("chat", chat))
        ]
        reason = "is of the tool after a message of the user, where assistant is meant"
        assert reasons == [reason, reason]


def test_the_published_sets_are_read(data: Callable[[str], Path]) -> None:
    task = make_task("preferences", {})
    counts = {}
    names = {
        "hh_rlhf_harmless/pairs.jsonl.gz": 1800,
        "preference_demo/dpo_en_demo.json.gz": 300,
        "preference_demo/dpo_zh_demo.json.gz": 300,
        "preference_demo/kto_en_demo.json.gz": 300,
    }
    for name in names:
        folder, file = name.split("/")
        found = [task.examples(row) for row in read_rows(str(data(folder) / file))]
        counts[name] = sum(not isinstance(f, str) for f in found)
    assert all(counts[name] >= 0.98 * names[name] for name in names), counts


def test_a_file_with_one_bad_line_says_which(tmp_path: Path) -> None:
    good = {"prompt": "Hi", "chosen": "Hello.", "rejected": "No."}
    lines = [good, {**good, "rejected": "Hello."}]
    path = tmp_path / "pairs.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    rows = list(read_rows(str(path)))
    with pytest.raises(ModelwrightError, match=r":2: chosen and rejected are the same"):
        [list(make_task("preferences", {"bad": "stop"}).examples(row)) for row in rows]
