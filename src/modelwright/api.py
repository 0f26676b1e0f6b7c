"""The Python face: as short as the commands.

import modelwright as mw
run = mw.run("quickstart")              # or mw.train("my.yaml", "train.steps=200")
model = mw.load(run)
print(model("What does `os.path.join` do?"))
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright import pipeline, recipe
from modelwright.errors import ModelwrightError
from modelwright.pipeline.fitted import Fitted, load_fitted, newest_checkpoint
from modelwright.run import Run
from modelwright.serving.classifier import Classifier
from modelwright.serving.engine import Engine
from modelwright.serving.sampling import SamplingParams
from modelwright.types import Turn, text_turn

ROOT = Path("runs")
Source = str | Path | Mapping[str, Any] | recipe.Recipe | Run


class Model:
    """A trained model: call it with a question, or with turns of a conversation."""

    def __init__(self, fitted: Fitted) -> None:
        self.fitted = fitted

    @functools.cached_property
    def engine(self) -> Engine:
        """The engine that generates; a model that cannot is refused with the reason."""
        return Engine(self.fitted.model, self.fitted.codec)

    def __call__(self, question: str | list[Turn], **params: Any) -> str:
        """The answer: text with ``params`` of SamplingParams (max_tokens, ...), or a label."""
        f = self.fitted
        turns = f.task.question(question) if isinstance(question, str) else question
        if hasattr(f.model, "new_cache"):
            return self.engine.answer([turns], SamplingParams(**params))[0].text
        return Classifier(f.model, f.codec, f.objective).answer([turns])[0].label

    def complete(self, text: str, **params: Any) -> str:
        """The continuation of a document that begins with ``text``."""
        turns = [text_turn("document", text)]
        return self.engine.answer([turns], SamplingParams(**params))[0].text


def open_run(source: Source, *overrides: str, out: str | Path | None = None) -> Run:
    """The run of a recipe (a name, a file, values), or an existing run directory."""
    if isinstance(source, Run):
        return source
    if isinstance(source, str | Path) and is_run(source):
        if overrides:
            raise ModelwrightError(
                f"{source}: an existing run keeps its recipe; give the recipe's name or file "
                "to start another run with overrides"
            )
        return Run.open(Path(source))
    if isinstance(source, recipe.Recipe):
        made = source
    elif isinstance(source, Mapping):
        made = recipe.parse(source)
    else:
        made = recipe.read(str(source), overrides)
    return Run.create(made, ROOT, Path(out) if out else None)


def is_run(path: str | Path) -> bool:
    """Whether a run lies there."""
    try:
        return (Path(path) / "recipe.yaml").is_file()
    except OSError:  # a name that no file can have
        return False


def existing(source: Source) -> Run:
    """The run that lies at a path; nothing is made."""
    return Run.open(Path(source)) if isinstance(source, str | Path) else open_run(source)


def _stages(last: str, source: Source, overrides: tuple[str, ...], out: str | Path | None) -> Run:
    run = open_run(source, *overrides, out=out)
    names = pipeline.stages_of(run.recipe)
    if last not in names:
        raise ModelwrightError(
            f"{run.path}: no stage {last!r} in this recipe; add a `{last}:` part"
        )
    pipeline.run_stages(run, names[: names.index(last) + 1], say)
    return run


def prepare(source: Source, *overrides: str, out: str | Path | None = None) -> Run:
    """Prepare the data of a recipe."""
    return _stages("prepare", source, overrides, out)


def train(source: Source, *overrides: str, out: str | Path | None = None) -> Run:
    """Prepare and train."""
    return _stages("train", source, overrides, out)


def tune(source: Source, *overrides: str, out: str | Path | None = None) -> Run:
    """Prepare, train and fine-tune."""
    return _stages("tune", source, overrides, out)


def run(source: Source, *overrides: str, out: str | Path | None = None) -> Run:
    """All stages, the report included."""
    return _stages("report", source, overrides, out)


def evaluate(source: Source) -> dict[str, Any]:
    """Measure a trained run on its test split; the content of evaluation.json."""
    found = existing(source)
    with found.locked():
        return pipeline.evaluate(found, say)


def load(source: Source, stage: str | None = None) -> Model:
    """The newest model of a run (of ``stage`` "train" or "tune" when given), verified."""
    return Model(load_fitted(newest_checkpoint(existing(source), stage)))


def say(line: str) -> None:
    """Progress goes to standard error, results to standard output."""
    print(line, file=sys.stderr, flush=True)
