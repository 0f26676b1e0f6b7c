"""Between a file of labels and Label Studio's tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modelwright.data.labelling.label_file import Decision, decision, standing
from modelwright.data.labelling.label_model import Floats
from modelwright.data.labelling.label_studio import Annotation, Choices, Prediction, Task
from modelwright.types import Row

ID = "id"  # the field of a task's data that holds the row's id


def tasks_of_rows(
    rows: Sequence[Row],
    labels: Sequence[str],
    decisions: Iterable[Decision],
    *,
    column: str = "text",
    thought: Floats | None = None,
    model: str = "modelwright",
) -> list[Task]:
    """A task for each row, with everybody's standing label and what a model thinks.

    Args:
        rows: the rows.
        labels: names of the columns of ``thought``.
        decisions: the content of a label file.
        column: the column of the text.
        thought: probabilities (rows, labels), if there are any.
        model: what the predictions are called.
    """
    said: dict[str, list[Decision]] = {}
    for (_, row_id), one in standing(decisions).items():
        said.setdefault(row_id, []).append(one)
    tasks = []
    for i, row in enumerate(rows):
        name = str(row["id"])
        data: dict[str, Any] = {ID: name}
        to_name = "text"
        if isinstance(row.get("image"), Path):
            data["image"], to_name = str(row["image"]), "image"
        if isinstance(row.get(column), str):
            data[column] = row[column]
        predictions: tuple[Prediction, ...] = ()
        if thought is not None:
            best = int(thought[i].argmax())
            chosen = Choices((labels[best],), to_name=to_name)
            predictions = (Prediction((chosen,), model, float(thought[i, best])),)
        made = tuple(_annotation(one, to_name) for one in said.get(name, []))
        tasks.append(Task(i + 1, data, predictions, made))
    return tasks


def _annotation(one: Decision, to_name: str) -> Annotation:
    results = () if one.label is None else (Choices((one.label,), to_name=to_name),)
    return Annotation(
        results,
        completed_by=one.who,
        lead_time=one.seconds,
        was_cancelled=one.action == "skip",
        more={"created_at": one.at},
    )


def decisions_of(
    tasks: Iterable[Task], rows: Sequence[str], labels: Sequence[str]
) -> tuple[list[Decision], int]:
    """The annotations as decisions, and how many could not be taken over.

    A task belongs to the row whose id stands in its data as "id", else to the row of that place
    (tasks number from 1). Annotations of something else than one of ``labels`` are counted.
    """
    known, allowed = set(rows), set(labels)
    made: list[Decision] = []
    lost = 0
    for task in tasks:
        name = task.data.get(ID)
        if name is None and isinstance(task.id, int) and 1 <= task.id <= len(rows):
            name = rows[task.id - 1]
        for one in task.annotations:
            usable = one.was_cancelled or one.choice in allowed
            if str(name) not in known or not usable:
                lost += 1
                continue
            made.append(_decision(str(name), one))
    return made, lost


def _decision(row: str, one: Annotation) -> Decision:
    who = "label-studio" if one.completed_by is None else str(one.completed_by)
    action = "skip" if one.was_cancelled else "label"
    made = decision(row, "skip" if action == "skip" else "label", one.choice, who, one.lead_time)
    at = one.more.get("created_at")
    return Decision(made.id, made.action, made.label, who, _moment(at) or made.at, made.seconds)


def _moment(value: Any) -> str | None:
    """The time of an annotation in UTC, or None where there is none to read."""
    if not isinstance(value, str):
        return None
    try:
        read = datetime.fromisoformat(value)
    except ValueError:
        return None
    zoned = read if read.tzinfo else read.replace(tzinfo=UTC)
    return zoned.astimezone(UTC).isoformat(timespec="milliseconds")


def new_ones(made: Iterable[Decision], there: Iterable[Decision]) -> list[Decision]:
    """Those that do not stand in the file yet: importing twice adds nothing."""
    stands = standing(there)
    found = []
    for one in made:
        before = stands.get((one.who, one.id))
        if before is None or (before.action, before.label) != (one.action, one.label):
            found.append(one)
    return found
