"""A training whose examples the model plays itself: what ``play/self_play.py`` needs of a stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from modelwright import runtime
from modelwright.data.augment.batches import Augment
from modelwright.errors import ModelwrightError
from modelwright.pipeline.parts import Parts
from modelwright.play.players import Network
from modelwright.play.self_play import Played, Settings
from modelwright.training.compiled import uncompiled
from modelwright.training.examples import Augmented, Examples
from modelwright.training.train import Trainer


def examples(parts: Parts, trainer: Trainer) -> Examples:
    """What a stage learns from: the trainer's own examples, or games of the model with itself.

    Games are kept under ``played/STAGE/FINGERPRINT`` of the run, so that what another recipe or
    other parameters have played is never learned from.

    Raises:
        ModelwrightError: several processes would have to play the same games.
    """
    if not parts.task.plays:
        return trainer.examples
    if not parts.world.alone:
        raise ModelwrightError(
            f"{parts.name}.task: self_play is for one process; leave out --launch"
        )
    mark = str(parts.run.stage(parts.name).get("fingerprint", ""))[:16]
    seed = runtime.derived_seed(parts.run.recipe.seed, parts.name, "examples")

    def tell(line: str) -> None:
        trainer.watchdog.beat("self-play", trainer.at)
        if line:
            parts.say(f"{parts.name}: step {trainer.at}: {line}")

    @contextmanager
    def playing() -> Iterator[None]:
        trainer.model.eval()
        with uncompiled():
            yield
        trainer.model.train()

    played = Played(
        Network(trainer.model, parts.codec, parts.objective),
        Settings(**cast(Any, parts.task).settings),
        batch=parts.values["batch"],
        parts=parts.values["accumulate"],
        seed=seed,
        folder=parts.run.path / "played" / parts.name / mark,
        playing=playing,
        tell=tell,
    )
    lines = parts.stage.augment
    return Augmented(played, Augment(lines, parts.run.recipe.codec_kind, seed)) if lines else played
