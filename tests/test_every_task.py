"""What every task promises, from its specimen row to a gradient. New tasks are found here."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from modelwright.data.codecs import fit_codec
from modelwright.errors import ModelwrightError
from modelwright.extensions import short
from modelwright.models.model import config_class
from modelwright.objectives import make_objective
from modelwright.tasks.task import Task, make_task, names, task_class
from modelwright.types import Example, Frames, Image, Part, Sound, stack
from tests.own_code import TASKS
from tests.variations import examples_of

every_task = pytest.mark.parametrize("name", [*names(), *TASKS], ids=short)


def plain(part: Part) -> object:
    match part:
        case Image(array) | Frames(array):
            return (array.dtype.str, array.shape, array.tobytes())
        case Sound(samples, rate):
            return (samples.dtype.str, samples.shape, samples.tobytes(), rate)
        case other:
            return other


def content(example: Example) -> object:
    return [(t.role, t.learn, [plain(p) for p in t.parts]) for t in example.turns]


@every_task
def test_the_specimen_becomes_a_finite_loss_and_a_gradient(name: str) -> None:
    task, examples = examples_of(name)
    codec = fit_codec(task.codec, examples, {})
    columns = stack([codec.encode(e) for e in examples], codec.ragged)
    objective = make_objective(task.objective, codec, {})
    batch = objective.collate(columns, torch.Generator().manual_seed(0))
    cls = config_class(task.model)
    torch.manual_seed(0)
    model = cls(**{**cls.specimen, **cls.data_fields(codec)}).build()
    loss = objective.loss(model, batch)
    assert loss.shape == ()
    assert loss.isfinite()
    assert batch.count > 0
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in gradients)
    assert any(g.abs().max() > 0 for g in gradients)


@every_task
def test_examples_are_a_pure_function_of_the_row(name: str) -> None:
    task = make_task(name, {})
    row = copy.deepcopy(dict(task.specimen))
    first, again = (list(task.examples(row)) for _ in range(2))
    assert first, "the specimen has no example"
    assert all(isinstance(e, Example) for e in first)
    assert [content(e) for e in first] == [content(e) for e in again]
    np.testing.assert_equal(row, dict(task.specimen))


@every_task
def test_every_example_has_something_to_learn(name: str) -> None:
    task = make_task(name, {})
    for example in task.examples(task.specimen):
        assert any(turn.learn for turn in example.turns)
        assert task.kind(example) == task.kind(example)
        assert isinstance(task.kind(example), str)


@every_task
def test_the_reference_answer_gets_the_best_grade(name: str) -> None:
    task, examples = examples_of(name)
    if type(task).grade is Task.grade:
        with pytest.raises(ModelwrightError, match="has no graded answers"):
            task.grade(examples[0], examples[0].answer)
        return
    sign = {"higher": 1, "lower": -1}[task.better]
    for example in examples:
        best = sign * task.grade(example, example.answer)
        others = [sign * task.grade(example, e.answer) for e in examples]
        assert best == max(others)
        assert min(others) < best, "grade does not tell a wrong answer from the right one"


@every_task
def test_a_row_without_its_fields_is_refused_by_name(name: str) -> None:
    task = make_task(name, {})
    with pytest.raises(ModelwrightError, match=r"^row r7: "):
        task.examples({"id": "r7", "nothing": "useful"})


@every_task
def test_a_mistyped_option_is_refused(name: str) -> None:
    with pytest.raises(ModelwrightError, match=f"task {short(name)}: no option 'zzz'"):
        make_task(name, {"zzz": 1})


@every_task
def test_its_model_codec_and_objective_belong_together(name: str) -> None:
    cls = task_class(name)
    assert cls.better in ("higher", "lower")
    assert cls.measure


def test_an_unknown_task_is_refused_with_the_nearest() -> None:
    with pytest.raises(ModelwrightError, match=r"no task 'vector_clasification' \(did you mean"):
        task_class("vector_clasification")
