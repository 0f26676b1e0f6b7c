"""The learning-rate range test of a recipe's stage, on its own data and model."""

from __future__ import annotations

from modelwright.pipeline.fit import scratch_trainer
from modelwright.pipeline.prepare import Say, prepare
from modelwright.runs import Run
from modelwright.training.range_test import RangeTest, range_test


def find_rates(run: Run, name: str, say: Say) -> RangeTest:
    """Prepare the data where that is not done, and sweep the rate of stage ``name``.

    Nothing of the run's training is touched: the sweep has a model of its own.

    Raises:
        ModelwrightError: the stage tunes and nothing is trained yet, or no rate trains.
    """
    with run.locked():
        prepare(run, say)
        trainer = scratch_trainer(run, name, say)
        say(f"{name}: sweeping the rate")
        trainer.model.to(trainer.device)
        return range_test(trainer)
