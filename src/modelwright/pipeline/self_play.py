"""A training whose examples the model makes itself, as ``play/generations.py`` does it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from modelwright import play, runtime
from modelwright.data.augment.batches import Augment
from modelwright.errors import ModelwrightError
from modelwright.pipeline.parts import Parts
from modelwright.play.generations import Context, Generations, Maker
from modelwright.training.compiled import uncompiled
from modelwright.training.examples import Augmented, Examples
from modelwright.training.train import Trainer


def examples(parts: Parts, trainer: Trainer) -> Examples:
    """What a stage learns from: the trainer's own examples, or what the model plays itself.

    It is kept under ``played/STAGE/FINGERPRINT`` of the run, so that what another recipe or other
    parameters have played is never learned from. A training that goes on though its recipe was
    changed, as the user said it may, goes on with what it has played.

    Raises:
        ModelwrightError: several processes would have to play the same.
    """
    if not parts.task.plays:
        return trainer.examples
    if not parts.world.alone:
        raise ModelwrightError(
            f"{parts.name}.task: what plays itself is for one process; leave out --launch"
        )
    record = parts.run.stage(parts.name)
    mark = record.setdefault("played", str(record.get("fingerprint", ""))[:16])
    parts.run.save_manifest()
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

    folder = parts.run.path / "played" / parts.name / mark
    context = Context(seed, folder, tell, parts.task, lambda: parts.fitting("train"))
    played = Generations(
        _maker(parts, trainer, context),
        context,
        batch=parts.values["batch"],
        parts=parts.values["accumulate"],
        playing=playing,
    )
    lines = parts.stage.augment
    if not lines:
        return played
    return Augmented(played, Augment(lines, parts.run.recipe.codec_kind, seed, parts.codec))


def _maker(parts: Parts, trainer: Trainer, context: Context) -> Maker:
    """Of the module of the room ``play`` that the task names."""
    module = importlib.import_module(f"{play.__name__}.{parts.task.plays}")
    made: Maker = module.maker(
        trainer.model, parts.codec, parts.objective, parts.task.settings, context
    )
    return made
