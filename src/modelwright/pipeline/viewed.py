"""Test-time augmentation: an answer as the mean over several views of what is asked.

The views are those of the stage's own ``augment``, mixtures left out, drawn by the run's seed, so
the same run gives the same answers again. What is served reads the question once; so this is a row
of its own beside ours, never in its place.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from modelwright import runtime
from modelwright.data.augment import chain
from modelwright.data.augment.batches import Augment
from modelwright.errors import ModelwrightError
from modelwright.pipeline.fitted import Fitted
from modelwright.runs import Run
from modelwright.serving.predictor import AT_ONCE, Predictor
from modelwright.training.examples import once
from modelwright.types import Array, Columns


def check(run: Run, name: str, *, labelled: bool) -> None:
    """Before a stage is trained: can ``evaluate.views`` be had of its model?

    Raises:
        ModelwrightError: it is the last one and does not choose among labels, or it does and no
            transform is named.
    """
    if not run.recipe.evaluate.views:
        return
    if labelled:
        _lines(run, name)
    elif name == list(run.recipe.stages)[-1]:
        task = run.recipe.stages[name].task
        raise ModelwrightError(
            "evaluate.views: the mean over several views is one of the probabilities of labels, and"
            f" {task} does not choose among labels; leave evaluate.views out"
        )


def mean_of_views(
    run: Run, name: str, fitted: Fitted, predictor: Predictor, columns: Columns
) -> Array:
    """Mean probabilities (N, labels) of every stored example as it is and in ``evaluate.views``.

    Raises:
        ModelwrightError: the stage has no augmentation, or the model does not choose among labels.
    """
    views, lines = run.recipe.evaluate.views, _lines(run, name)
    seed = runtime.derived_seed(run.recipe.seed, name, "views")
    augment = Augment(lines, run.recipe.codec_kind, seed, fitted.codec)
    means = []
    for number, part in enumerate(once(columns, AT_ONCE)):
        seen = [part, *(augment(part, number * views + view) for view in range(views))]
        found = [predictor.weighed(view)[1] for view in seen]
        if any(weights is None for weights in found):
            raise ModelwrightError(
                f"evaluate.views: {fitted.path}: this model does not choose among labels; leave"
                " evaluate.views out"
            )
        means.append(np.mean(cast(list[Array], found), axis=0))
    return np.concatenate(means)


def _lines(run: Run, name: str) -> list[Any]:
    """The transforms of a stage that make views of one example."""
    lines = run.recipe.stages[name].augment or []
    lines = [line for line in lines if chain([line])[0].kind != "mix"]
    if not lines:
        raise ModelwrightError(
            f"evaluate.views: {name}.augment names no transform that makes views of one example;"
            " name some, such as [flip], or leave evaluate.views out"
        )
    return lines
