"""Rows whose answers a trained model has given: what another one learns from (arXiv:1606.07947)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from modelwright.checkpoint.layout import MANIFEST
from modelwright.data.fetching import file_sha256
from modelwright.data.sources import read_rows
from modelwright.data.waterfall import whole_rows
from modelwright.errors import ModelwrightError
from modelwright.files import replace_file, write_file
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from modelwright.pipeline.prepare import Say, parts_of, renamed
from modelwright.runs import Run
from modelwright.serving.engine import Engine
from modelwright.serving.row import Request
from modelwright.serving.sampling import SamplingParams
from modelwright.tasks.task import Task
from modelwright.types import Row, Turn, text_turn

BATCH = 256  # rows that are answered at once, the short ones together
NOTE = ".teacher.json"  # of the file beside, which says who answered
TOO_LONG, UNFINISHED = "the question does not fit the context", "the answer found no end"


def write_answers(
    run: Run,
    source: str | None,
    out: Path,
    say: Say,
    *,
    rows: int | None = None,
    stage: str | None = None,
    **params: Any,
) -> int:
    """Write rows with a model's answers in place of their own, as JSON lines.

    Of the run's own data the train part alone is answered; validation and test keep what they
    meant, so that a student is measured on it, and every row says its part as ``split``. Beside
    them a note says which checkpoint answered, by its hash, and how it was asked.

    Args:
        run: the teacher.
        source: rows as a recipe names them under data.source, all of which are answered; None: the
            run's own.
        out: a file that is not there yet, such as answers.jsonl.
        say: takes lines of progress, and which rows were left out.
        rows: at most so many are asked.
        stage: "train" or "tune"; left out: the last that was trained.
        params: of the answers, such as ``max_tokens`` and ``beams``; as the run's ``evaluate``
            says where they are left out.

    Returns:
        How many answers were written. Rows that the task has no question for are left out, as are
        those that do not fit the context and those whose answer came to no end.

    Raises:
        ModelwrightError: ``out`` is there, no row could be answered, the model does not write, or
            the task has no place in a row for another's answer.
    """
    if out.exists():
        raise ModelwrightError(f"{out}: exists; give a file that is not there yet")
    fitted = load_fitted(newest_checkpoint(run, stage))
    if type(fitted.task).answered is Task.answered:
        fitted.task.answered({}, text_turn("assistant", ""))  # which says why not
    own = run.recipe.evaluate
    asked = {"max_tokens": own.answer_tokens, "beams": own.beams} | params
    asked.setdefault("length_penalty", own.length_penalty)
    engine = Engine(fitted.model, fitted.codec, max_batch=64)
    teacher = _Teacher(fitted.task, engine, SamplingParams(**asked))
    measured: list[Row] = []
    if source is None:
        parts, _ = parts_of(run.recipe, say)
        given: Iterable[Row] = (_part(row, "train") for row in parts["train"])
        measured = [_part(row, part) for part in ("validation", "test") for row in parts[part]]
    else:
        columns = run.recipe.data.columns
        given = (renamed(row, columns) for row in whole_rows(read_rows(source))[0])
    try:
        write_file(out, _lines(teacher.told(islice(given, rows), say), measured))
        if not teacher.written:
            why = f" ({', '.join(teacher.left_out)})" if teacher.left_out else ""
            raise ModelwrightError(
                f"{source or run.path}: no row of it could be answered{why}; see data.columns and"
                " --max-tokens"
            )
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    for reason, count in teacher.left_out.items():
        say(f"answers: {count:,} rows left out: {reason}")
    note = {
        "checkpoint": str(fitted.path),
        "sha256": file_sha256(fitted.path / MANIFEST),
        "source": source,
        "params": asked,
    }
    replace_file(out.with_suffix(NOTE), json.dumps(note, indent=1).encode() + b"\n")
    return teacher.written


def _part(row: Row, part: str) -> Row:
    return {**row, "split": part}


def _lines(*several: Iterable[Row]) -> Iterator[bytes]:
    for rows in several:
        for row in rows:
            yield json.dumps(dict(row), ensure_ascii=False).encode() + b"\n"


class _Teacher:
    """Answers rows, and counts which it could not."""

    def __init__(self, task: Task, engine: Engine, params: SamplingParams) -> None:
        self.task, self.engine, self.params = task, engine, params
        self.written = 0
        self.left_out: Counter[str] = Counter()

    def told(self, rows: Iterator[Row], say: Say) -> Iterator[Row]:
        """The rows with the answers in place of their own."""
        while batch := list(islice(rows, BATCH)):
            asked = [(row, prompt) for row in batch if (prompt := self._prompt(row))]
            requests = [Request(prompt, self.params) for _, prompt in asked]
            for (row, _), done in zip(asked, self.engine.generate(requests), strict=True):
                if done.finish_reason != "stop":
                    self.left_out[UNFINISHED] += 1
                    continue
                self.written += 1
                yield self.task.answered(row, text_turn("assistant", done.text))
            say(f"answers: {self.written:,} rows")

    def _prompt(self, row: Row) -> list[int]:
        """The tokens of a row's question; none where it has none, or one that is too long."""
        found = self.task.examples(row)
        given: tuple[Turn, ...] = ()
        if isinstance(found, str):
            self.left_out[found] += 1
        else:
            given = next(found).given
        prompt = self.engine.prompt(given) if given else []
        if prompt and self.engine.room(len(prompt)) < 1:
            self.left_out[TOO_LONG] += 1
            return []
        return prompt
