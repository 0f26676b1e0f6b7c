"""What a task is: rows of a data set to examples, and how an answer is graded."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.options import checked
from modelwright.types import Example, Row, Turn, text_turn

_NOT_TASKS = {"task", "grading"}  # shared parts in this room


class Task(ABC):
    """One task. Constructor keywords of a subclass are its options in a recipe.

    Class attributes:
        codec: module name of the codec its turns need.
        objective: module name of the objective it is trained with unless the recipe says other.
        model: module name of the model family used unless the recipe says other.
        measure: what ``grade`` returns, and ``better``: "higher" or "lower".
        stream: whether its examples are one endless text, to be cut into windows.
        specimen: a row, so that every task can be tested offline.
    """

    codec: ClassVar[str]
    objective: ClassVar[str]
    model: ClassVar[str]
    measure: ClassVar[str]
    better: ClassVar[str] = "higher"
    stream: ClassVar[bool] = False
    specimen: ClassVar[Row]

    @abstractmethod
    def examples(self, row: Row) -> Iterator[Example] | str:
        """The examples of a row, or the reason why it has none. A pure function of the row.

        Raises:
            ModelwrightError: when the row lacks a field the task needs, naming it.
        """

    def grade(self, example: Example, answer: Turn) -> float:  # noqa: ARG002 - subclasses use them
        """How good ``answer`` is for ``example``, in units of ``measure``."""
        raise ModelwrightError(f"task {type(self).__name__}: has no graded answers")

    def kind(self, example: Example) -> str:  # noqa: ARG002 - subclasses use it
        """A name by which scores are also reported apart, or an empty string."""
        return ""

    def question(self, text: str) -> Sequence[Turn]:
        """The turns of a question typed by a user."""
        return (text_turn("user", text),)


def names() -> list[str]:
    """The module names of all tasks."""
    import modelwright.tasks as room  # noqa: PLC0415 - the room itself, for its path

    return sorted(
        m.name for m in pkgutil.iter_modules(room.__path__) if m.name not in ("task", "grading")
    )


def task_class(name: str) -> type[Task]:
    """The class ``Task`` subclass of module ``tasks/name.py``."""
    if name not in names():
        raise ModelwrightError(
            f"task: no task {name!r}{did_you_mean(name, names())}; known: {', '.join(names())}"
        )
    module = importlib.import_module(f"modelwright.tasks.{name}")
    (found,) = (
        c
        for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, Task) and c.__module__ == module.__name__
    )
    return found


def make_task(name: str, options: dict[str, Any]) -> Task:
    """The task ``name`` with its options; a mistyped option is refused."""
    cls = task_class(name)
    return cls(**checked(f"task {name}", cls, options))
