"""Several different examples of a task, made from its one specimen row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from modelwright.data import games
from modelwright.tasks.task import Task, make_task
from modelwright.types import (
    Box,
    Example,
    Frames,
    Image,
    ImageFile,
    Label,
    Number,
    Part,
    Position,
    Sound,
    Span,
    Text,
)


def examples_of(name: str, count: int = 6) -> tuple[Task, list[Example]]:
    """The task ``name`` and ``count`` examples of different lengths, values and labels."""
    task = make_task(name, {})
    found = task.examples(task.specimen)
    assert not isinstance(found, str), f"{name}: the specimen is dropped: {found}"
    (first,) = list(found)[:1]
    return task, [varied(first, i) for i in range(count)]


def varied(example: Example, number: int) -> Example:
    """The example changed as ``number`` says; 0 leaves it as it is."""
    if any(turn.positions for turn in example.turns):
        return _later(example, number) if number else example
    every = (*example.turns, *([example.rejected] if example.rejected else []))
    turns = tuple(
        replace(turn, parts=tuple(_varied(part, number) for part in turn.parts)) for turn in every
    )
    if example.rejected is None:
        return replace(example, turns=turns)
    return replace(example, turns=turns[:-1], rejected=turns[-1])


def _later(example: Example, number: int) -> Example:
    """A position some moves of chance later, another legal move there, and another result."""
    given, answer = example.turns
    (position,), rng = given.positions, np.random.default_rng(number)
    seen, state = games.encoding(position.game), position.state
    for _ in range(number % 5 + 1):
        moves = state.legal_moves()
        move = moves[rng.integers(len(moves))]
        touched, state = seen.touched(state, move), state.play(move)
    legal = games.legal_numbers(position.game, state)
    label = Label(seen.text(state.turn, legal[rng.integers(len(legal))]))
    value = Number(float(number % 3 - 1))
    question = replace(given, parts=(Position(position.game, state, touched),))
    return replace(example, turns=(question, replace(answer, parts=(label, value))))


def _varied(part: Part, number: int) -> Part:
    rng = np.random.default_rng(number)
    match part:
        case Text(text):
            return Text(text * (number + 1))
        case Label(name):
            return Label(name if number % 2 == 0 else f"not {name}")
        case Number(value):
            return Number(value + number)
        case Box(name):
            return replace(part, label=name if number % 2 == 0 else f"not {name}")
        case Span(begin, end, name):
            named = name if number % 2 == 0 or not name else f"not {name}"
            last = end if number % 2 == 0 else max(begin + 1, end - 1)
            return replace(part, end=last, label=named)
        case ImageFile():
            return part
        case Image(pixels):
            return Image(
                rng.permutation(pixels.ravel()).reshape(pixels.shape) if number else pixels
            )
        case Frames(frames):
            times = rng.integers(len(frames), size=len(frames) + 2 * number)
            return Frames(frames[times] if number else frames)
        case Sound(samples, rate):
            longer = np.resize(np.roll(samples, 97 * number), len(samples) + 160 * number)
            return Sound(longer * np.float32(0.9**number), rate)
