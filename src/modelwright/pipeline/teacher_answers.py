"""Rows whose answers a trained model has given: what another one learns from (arXiv:1606.07947)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from modelwright.checkpoint.layout import MANIFEST
from modelwright.data.fetching import file_sha256
from modelwright.data.sources import read_rows
from modelwright.errors import ModelwrightError
from modelwright.files import replace_file, write_file
from modelwright.pipeline.answering import answerer_of
from modelwright.pipeline.fitted import Fitted
from modelwright.pipeline.prepare import Say
from modelwright.types import Row

BATCH = 64  # rows that are answered at once
NOTE = ".teacher.json"  # of the file beside, which says who answered


def write_answers(
    fitted: Fitted, source: str, out: Path, say: Say, *, rows: int | None = None, **params: Any
) -> int:
    """Write rows with a model's answers in place of their own, as JSON lines.

    Beside them a note says which checkpoint answered, by its hash, and how it was asked.

    Args:
        fitted: the teacher.
        source: rows as a recipe names them under data.source.
        out: a file that is not there yet, such as answers.jsonl.
        say: takes lines of progress.
        rows: at most so many.
        params: of the answers, such as ``max_tokens`` and ``beams``.

    Returns:
        How many rows were written; those that the task has no question for are left out.

    Raises:
        ModelwrightError: ``out`` is there, no row could be answered, or the task has no place in
            a row for another's answer.
    """
    if out.exists():
        raise ModelwrightError(f"{out}: exists; give a file that is not there yet")
    answers, written = answerer_of(fitted), 0

    def lines() -> Iterator[bytes]:
        nonlocal written
        left = islice(read_rows(source), rows)
        while batch := list(islice(left, BATCH)):
            asked = [(row, given) for row in batch if (given := _question(fitted, row))]
            turns = answers.answer([given for _, given in asked], **params) if asked else []
            for (row, _), turn in zip(asked, turns, strict=True):
                told = dict(fitted.task.answered(row, turn))
                yield json.dumps(told, ensure_ascii=False).encode() + b"\n"
                written += 1
            say(f"answers: {written} rows")

    try:
        write_file(out, lines())
        if not written:
            raise ModelwrightError(f"{source}: no row of it could be answered; see data.columns")
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    mark = file_sha256(fitted.path / MANIFEST)
    note = {"checkpoint": str(fitted.path), "sha256": mark, "source": source, "params": params}
    replace_file(out.with_suffix(NOTE), json.dumps(note, indent=1).encode() + b"\n")
    return written


def _question(fitted: Fitted, row: Row) -> Any:
    """What the first example of a row gives to the model; None where it has none."""
    found = fitted.task.examples(row)
    first = None if isinstance(found, str) else next(found, None)
    return first.given if first is not None and first.given else None
