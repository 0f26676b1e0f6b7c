"""Subjects of exports without a training: a family with drawn parameters, and a fitted codec."""

from __future__ import annotations

import torch

from modelwright.data.codecs import fit_codec
from modelwright.exporting.subject import Subject
from modelwright.models.model import config_class, fields_for
from modelwright.objectives import make_objective
from modelwright.tasks.task import make_task, task_class
from tests.trainings import large_enough
from tests.variations import varied

TASKS = {"text": "text_classification", "frames": "sequence_classification"}


def subject(family: str, task: str, objective: str = "", pixels: int = 0, **fields) -> Subject:
    """A tiny member of a family on four examples of a task; every parameter is drawn anew."""
    kind = task_class(task)
    first = next(iter(make_task(task, {}).examples(kind.specimen)))
    first = large_enough(first) if pixels else first
    examples = [varied(first, i) for i in range(6)]
    options = {"vocabulary": 300} if kind.codec in ("text", "labelled_text") else {}
    codec = fit_codec(kind.codec, examples, options)
    cls = config_class(family)
    small = {k: v for k, v in cls.specimen.items() if k not in cls.data_fields(codec)}
    config = cls(**fields_for(cls, codec, {**small, **fields}))
    torch.manual_seed(3)
    model = config.build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return Subject(
        model=model,
        config=config,
        codec=codec,
        objective=make_objective(objective or kind.objective, codec, {}),
        model_type=None,
        examples=tuple(examples[:4]),
        batches=(),
        part="train/test",
    )
