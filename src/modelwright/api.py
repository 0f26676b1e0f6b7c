"""The Python face: as short as the commands.

import modelwright as mw
run = mw.run("quickstart")              # or mw.train("my.yaml", "train.steps=200")
model = mw.load(run)
print(model("What does `os.path.join` do?"))
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelwright import pipeline, recipe
from modelwright.errors import ModelwrightError
from modelwright.pipeline import launch
from modelwright.pipeline.drawn import asked
from modelwright.pipeline.fitted import Fitted, load_fitted, newest_checkpoint
from modelwright.pipeline.rates import find_rates
from modelwright.places import is_run
from modelwright.runs import Run
from modelwright.serving.engine import Engine
from modelwright.serving.flow import draws
from modelwright.serving.predictor import Predictor, PredictorEngine, predicts
from modelwright.serving.sampling import SamplingParams
from modelwright.training.range_test import RangeTest
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

    @functools.cached_property
    def predictor(self) -> Predictor:
        """The policy that answers in one pass, of models that do."""
        return Predictor(self.fitted.model, self.fitted.codec, self.fitted.objective)

    @property
    def served(self) -> Engine | PredictorEngine:
        """What answers the requests of a server."""
        if self.draws:
            raise ModelwrightError(
                f"{self.fitted.path}: this model draws pictures, and the server answers in text; "
                "use `modelwright ask RUN CLASS --out FILE`"
            )
        if self.predicts:
            return PredictorEngine(self.predictor, self.fitted.task.request)
        return self.engine

    def __call__(self, question: str | list[Turn], **params: Any) -> str:
        """The answer: text with ``params`` of SamplingParams (max_tokens, ...), or a label."""
        if self.draws:
            if not isinstance(question, str):
                raise ModelwrightError("this model draws pictures: ask with the name of a class")
            return str(self.draw(question, seed=params.get("seed", 0)))
        turns = self._turns(question)
        if not self.predicts:
            return self.engine.answer([turns], SamplingParams(**params))[0].text
        return self.predictor.answer([turns])[0].said

    @property
    def predicts(self) -> bool:
        """Whether one pass is an answer: labels or numbers, not text."""
        return predicts(self.fitted.codec)

    @property
    def draws(self) -> bool:
        """Whether answers are pictures."""
        return draws(self.fitted.objective)

    def draw(self, question: str, *, seed: int = 0, out: str | Path | None = None) -> Path:
        """Write a picture of the class that ``question`` names, an empty one: of any.

        Args:
            question: the name of a class.
            seed: of the noise that it is made of; the same gives the same picture.
            out: a PNG file; left out: ``samples/`` of the run, named by class and seed.

        Returns:
            The file.

        Raises:
            ModelwrightError: the model makes no pictures, or does not know the class.
        """
        if not self.draws:
            raise ModelwrightError(f"{self.fitted.path}: this model makes no pictures; just ask it")
        if out is not None and Path(out).suffix.lower() != ".png":
            raise ModelwrightError(f"{out}: pictures are written as PNG; name a file that ends so")
        if out is None:
            named = "".join(c if c.isalnum() else "-" for c in question.strip()[:40]) or "any"
            out = self.fitted.path.parents[2] / "samples" / f"ask-{named}-{seed}.png"
        return asked(self.fitted, question, seed, Path(out))

    def probabilities(self, question: str | Sequence[Turn]) -> dict[str, float]:
        """The probability of every label, the likeliest first."""
        if not hasattr(self.fitted.codec, "probabilities"):
            raise ModelwrightError(
                f"{self.fitted.path}: this model does not choose among labels, it has no"
                " probabilities; call it with the question"
            )
        return self.predictor.probabilities([self._turns(question)])[0]

    def _turns(self, question: str | Sequence[Turn]) -> Sequence[Turn]:
        return self.fitted.task.question(question) if isinstance(question, str) else question

    def said(self, question: str, **params: Any) -> str:
        """The answer as it is shown to a person: a label with its probability."""
        if not hasattr(self.fitted.codec, "probabilities"):
            return self(question, **params)
        label, probability = next(iter(self.probabilities(question).items()))
        return f"{label} ({probability:.1%})"

    def complete(self, text: str, **params: Any) -> str:
        """The continuation of a document that begins with ``text``."""
        turns = [text_turn("document", text)]
        return self.engine.answer([turns], SamplingParams(**params))[0].text


def open_run(
    source: Source,
    *overrides: str,
    out: str | Path | None = None,
    accepted: Iterable[str] = (),
) -> Run:
    """The run of a recipe (a name, a file, values), or an existing run directory.

    ``accepted`` are the changes with which a training may go on, such as "data" or "torch".
    """
    if isinstance(source, Run):
        return source
    return launch.opened(lambda: _opened(source, overrides, out, frozenset(accepted)))


def _opened(
    source: Source, overrides: tuple[str, ...], out: str | Path | None, allowed: frozenset[str]
) -> Run:
    if isinstance(source, Run):
        return source
    if isinstance(source, str | Path) and is_run(source):
        if overrides:
            raise ModelwrightError(
                f"{source}: an existing run keeps its recipe; give the recipe's name or file "
                "to start another run with overrides"
            )
        run = Run.open(Path(source))
        run.accepted = allowed
        return run
    if isinstance(source, recipe.Recipe):
        made = source
    elif isinstance(source, Mapping):
        made = recipe.own(source)
    else:
        made = recipe.read(str(source), overrides)
    run = Run.create(made, ROOT, Path(out) if out else None, allowed)
    run.accepted = allowed
    return run


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


def rates(
    source: Source, *overrides: str, stage: str = "train", out: str | Path | None = None
) -> RangeTest:
    """The learning-rate range test of a stage; trains nothing that is kept."""
    run = open_run(source, *overrides, out=out)
    if stage not in run.recipe.stages:
        raise ModelwrightError(
            f"{run.path}: no stage {stage!r} in this recipe; add a `{stage}:` part"
        )
    return find_rates(run, stage, say)


def crossval(
    source: Source,
    *overrides: str,
    folds: int | None = None,
    by: str | None = None,
    jobs: int = 1,
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Train a recipe once a fold; the content of crossval.json, with the spread of every measure.

    A folder that ``crossval`` made before is gone on with; see `pipeline.crossval`.
    """
    from modelwright.pipeline import crossval as many  # noqa: PLC0415

    folder = _study(source, many.FILE, overrides, folds=folds, by=by, out=out)
    if folder is None:
        made = _recipe(source, overrides)
        place = Path(out) if out else None
        folder = many.begin(made, ROOT, place, 5 if folds is None else folds, by)
    say(f"cross-validation: {folder}")
    return many.crossval(folder, jobs, say)


def search(
    source: Source,
    *overrides: str,
    space: str | Path | Mapping[str, Any] | None = None,
    trials: int | None = None,
    storage: str | None = None,
    sampler: str | None = None,
    pruner: str | None = None,
    metric: str | None = None,
    jobs: int = 1,
    out: str | Path | None = None,
    worker: bool = False,
) -> dict[str, Any]:
    """Look for better values of a recipe's keys; the content of search.json.

    A folder that ``search`` made before is gone on with, to ``trials`` in all; see
    `pipeline.search`. ``worker`` is for the processes that ``jobs`` starts.
    """
    from modelwright.pipeline import search as many  # noqa: PLC0415

    given = {"space": space, "sampler": sampler, "pruner": pruner, "metric": metric, "out": out}
    folder = _study(source, many.FILE, overrides, **given)
    if folder is None:
        if space is None:
            raise ModelwrightError("search: no space; give --space FILE with keys and ranges")
        made = _recipe(source, overrides)
        place = Path(out) if out else None
        chosen = {"sampler": sampler, "pruner": pruner, "metric": metric}
        folder = many.begin(made, ROOT, place, space, trials, **chosen)
    say(f"search: {folder}")
    return many.search(folder, trials, storage, jobs, say, worker=worker)


def _study(source: Source, file: str, overrides: tuple[str, ...], **given: object) -> Path | None:
    """The folder of many runs that ``source`` names, if it is one; its settings are fixed."""
    if not isinstance(source, str | Path) or not Path(source).is_dir():
        return None
    if not (Path(source) / file).is_file():
        return None
    changed = [*overrides, *(f"--{k}" for k, v in given.items() if v is not None)]
    if changed:
        raise ModelwrightError(
            f"{source}: was begun with its own settings, {changed[0]} cannot change them; give "
            "the recipe instead"
        )
    return Path(source)


def _recipe(source: Source, overrides: tuple[str, ...]) -> recipe.Recipe:
    """The recipe of a name, a file, values, or a run."""
    if isinstance(source, recipe.Recipe):
        return source
    if isinstance(source, Mapping):
        return recipe.own(source)
    if isinstance(source, Run):
        return source.recipe
    if is_run(source):
        return recipe.read(str(Path(source) / "recipe.yaml"), overrides, mine=False)
    return recipe.read(str(source), overrides)


def evaluate(source: Source) -> dict[str, Any]:
    """Measure a trained run on its test split; the content of evaluation.json."""
    found = existing(source)
    with found.locked():
        return pipeline.evaluate(found, say)


def load(source: Source, stage: str | None = None) -> Model:
    """The newest model of a run (of ``stage`` "train" or "tune" when given), verified."""
    return Model(load_fitted(newest_checkpoint(existing(source), stage)))


def say(line: str) -> None:
    """Progress goes to standard error, results to standard output; of many, the first speaks."""
    if launch.is_main():
        print(line, file=sys.stderr, flush=True)
