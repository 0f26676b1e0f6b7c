"""What a task is: rows of a data set to examples, and how an answer is graded."""

from __future__ import annotations

import inspect
import statistics
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType, ModuleType
from typing import Any, ClassVar, NamedTuple

from modelwright import extensions, rooms
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.options import checked
from modelwright.tasks.columns import Role
from modelwright.types import Example, Policy, Row, Turn, text_turn


class Measured(NamedTuple):
    """One measure of many answers: ``better`` is "higher" or "lower", ``note`` how it was made."""

    name: str
    value: float
    better: str = "higher"
    note: str = ""


class Constant:
    """A policy that gives everyone the same answer."""

    def __init__(self, answer: Turn) -> None:
        self.said = answer

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:
        """The answer, for each question."""
        return [self.said] * len(given)


class Task(ABC):
    """One task. Constructor keywords of a subclass are its options in a recipe.

    Class attributes:
        codec: module name of the codec its turns need.
        objective: module name of the objective it is trained with unless the recipe says other.
        model: module name of the model family used unless the recipe says other.
        measure: what ``grade`` returns, and ``better``: "higher" or "lower".
        stream: whether its examples are one endless text, to be cut into windows.
        plays: the module of the room ``play`` by which the model makes the examples that it learns
            from itself, in training; empty where it makes none. ``settings`` are then its options.
        asks: whether its measures ask a policy more than the examples do, in an environment.
        times: whether its measures say how long a policy takes: then it has to answer anew.
        roles: its options that name columns, for a file of data that stands in place of a recipe.
        by_class: whether its evaluation reports the mean F1 of the classes as well.
        shows: whether what is learned of an example is shown before it trains.
        responses: whether its evaluation reports the loss of the meant answers as well.
        specimen: a row, so that every task can be tested offline.
    """

    codec: ClassVar[str]
    objective: ClassVar[str]
    model: ClassVar[str]
    measure: ClassVar[str]
    better: ClassVar[str] = "higher"
    stream: ClassVar[bool] = False
    plays: ClassVar[str] = ""
    settings: Mapping[str, Any] = MappingProxyType({})
    asks: ClassVar[bool] = False
    times: ClassVar[bool] = False
    roles: ClassVar[Mapping[str, Role]] = {}
    by_class: ClassVar[bool] = False
    shows: ClassVar[bool] = False
    responses: ClassVar[bool] = False
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

    def answered(self, row: Row, answer: Turn) -> Row:  # noqa: ARG002 - subclasses use it
        """The row with another answer in place of its own.

        Raises:
            ModelwrightError: a row of this task has no place for it.
        """
        raise ModelwrightError(
            f"task {type(self).__name__}: a row has no place for another's answer; chat and tasks "
            "of a source and a target have one"
        )

    def reads(self, row: Row) -> str:  # noqa: ARG002 - subclasses use it
        """What was guessed of a row's columns, to be said; empty where nothing was."""
        return ""

    def examined(self, parts: Mapping[str, Sequence[Example]]) -> Iterable[str]:  # noqa: ARG002
        """What is to be said of all examples, by part, before anything is trained.

        Raises:
            ModelwrightError: nothing could be learned or measured with them.
        """
        return ()

    def measures(self, examples: Sequence[Example], policy: Policy) -> list[Measured]:
        """What is measured of a policy's answers; of a task that plays, of its games."""
        answers = policy.answer([example.given for example in examples])
        grades = [self.grade(e, a) for e, a in zip(examples, answers, strict=True)]
        return [Measured(self.measure, statistics.fmean(grades), self.better)]

    def baselines(self, train: Sequence[Example]) -> Mapping[str, Policy]:
        """Policies that need no model, by name, to be measured beside the model."""
        ((parts, _),) = Counter(example.answer.parts for example in train).most_common(1)
        return {"most common answer": Constant(Turn("assistant", parts))}

    def marks(self, example: Example, answer: Turn) -> Mapping[str, float]:  # noqa: ARG002
        """What else is measured of an answer, by name, higher being better: shown in slices."""
        return {}

    def compared(self, reference: str, answer: str) -> list[tuple[str, str]]:  # noqa: ARG002
        """A reference and an answer piece by piece, where people look for what differs.

        Pairs of what is meant and what is said, of which one is empty where the other has nothing
        beside it; none where nothing is gained by it.
        """
        return []

    def column(self, row: Row, name: str, example: Example) -> Any:  # noqa: ARG002
        """What an example of a row has in a column by which evaluations are sliced.

        Raises:
            KeyError: there is no such column.
        """
        return row[name]

    def kind(self, example: Example) -> str:  # noqa: ARG002 - subclasses use it
        """A name by which scores are also reported apart, or an empty string."""
        return ""

    @classmethod
    def understands(cls, row: Row) -> bool:  # noqa: ARG003 - subclasses use it
        """Whether a row says itself what it is, so that no column of it need be guessed."""
        return not cls.roles

    def knows(self, codec: object) -> None:  # noqa: B027 - most tasks need not
        """Take from the codec what questions are read by, such as the names of voices."""

    def question(self, text: str) -> Sequence[Turn]:
        """The turns of a question typed by a user on this machine, who may name a file."""
        return (text_turn("user", text),)

    def request(self, text: str) -> Sequence[Turn]:
        """The turns of a question that came over a network: no file is read for it."""
        return self.question(text)


def names() -> list[str]:
    """The module names of all tasks."""
    return rooms.members(_room(), _has_tasks)


def _room() -> ModuleType:
    import modelwright.tasks as room  # noqa: PLC0415 - the room itself, of which this is a part

    return room


def _tasks_of(module: ModuleType) -> list[type[Task]]:
    """The tasks that a module defines, without those that leave something to a subclass."""
    return [
        c
        for c in vars(module).values()
        if isinstance(c, type)
        and issubclass(c, Task)
        and c.__module__ == module.__name__
        and not inspect.isabstract(c)
    ]


def task_class(name: str) -> type[Task]:
    """The ``Task`` subclass of module ``tasks/name.py``, or of a file of the user's own."""
    if extensions.is_reference(name):
        module = extensions.load(name)
        found = _tasks_of(module)
    elif (own := rooms.member(_room(), name, _has_tasks)) is not None:
        module, found = own, _tasks_of(own)
    else:
        raise ModelwrightError(
            f"task: no task {name!r}{did_you_mean(name, names())}; known: {', '.join(names())}"
        )
    if len(found) != 1:
        raise ModelwrightError(
            f"{module.__file__}: defines {len(found)} subclasses of Task, one is meant"
        )
    return found[0]


def _has_tasks(module: ModuleType) -> bool:
    return bool(_tasks_of(module))


def make_task(name: str, options: dict[str, Any]) -> Task:
    """The task ``name`` with its options; a mistyped option is refused."""
    cls = task_class(name)
    return cls(**checked(f"task {extensions.short(name)}", cls, options))
