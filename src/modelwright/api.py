"""The Python face: as short as the commands.

import modelwright as mw
run = mw.run("quickstart")              # or mw.train("my.yaml", "train.steps=200")
model = mw.load(run)
print(model("What does `os.path.join` do?"))
"""

from __future__ import annotations

import copy
import functools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from modelwright import pipeline, recipe
from modelwright.errors import ModelwrightError
from modelwright.files import make_folder, replace_file
from modelwright.pipeline import launch
from modelwright.pipeline.answering import Answerer, answerer_of
from modelwright.pipeline.fitted import Fitted, load_fitted, newest_checkpoint
from modelwright.pipeline.named_adapters import NamedAdapters
from modelwright.pipeline.one_line import as_overrides, is_data, recipe_of
from modelwright.pipeline.rates import find_rates
from modelwright.places import is_run
from modelwright.runs import Run
from modelwright.training.range_test import RangeTest
from modelwright.types import Answer, Array, Part, Turn

if TYPE_CHECKING:
    from modelwright.pipeline.explained import Explanation
    from modelwright.serving.listening import Listener

ROOT = Path("runs")
Source = str | Path | Mapping[str, Any] | recipe.Recipe | Run
Question = str | Path | Array | Sequence[Any]  # text, a file's path, numbers, or turns


class Told(str):
    """An answer in words, and what it is in the terms of its task.

    Attributes:
        parts: labels, spans with their place and score, boxes, numbers or text.
        details: what else is known by name, such as ``probabilities``.
    """

    parts: tuple[Part, ...] = ()
    details: Mapping[str, Any] = MappingProxyType({})

    def __new__(cls, said: str, answer: Answer | None = None) -> Told:
        """The words of an answer; without it, as a copy is made, the rest is put in after."""
        told = super().__new__(cls, said)
        if answer is not None:
            told.parts, told.details = answer.turn.parts, answer.details
        return told


class Model:
    """A trained model: call it with a question: text, numbers, a file's path, or turns."""

    def __init__(self, fitted: Fitted) -> None:
        self.fitted = fitted

    @functools.cached_property
    def answerer(self) -> Answerer:
        """What answers: a policy that writes, predicts in one pass, or draws."""
        return answerer_of(self.fitted)

    def __call__(self, question: Question, **params: Any) -> Any:
        """The answer: text with ``params`` of SamplingParams (max_tokens, ...), or a label.

        Words are ``Told``: ``answer.parts[0].score`` of a span, ``answer.details["probabilities"]``
        of a label. Of a model of vectors it is a list of numbers. Where answers are files
        (``suffix``), one is written, and its path is the answer.
        """
        if self.suffix:
            return str(self.make(question, seed=params.get("seed", 0)))
        (answer,) = self.answerer.detailed([self._turns(question)], **params)
        value = self.answerer.value(answer.turn)
        return Told(value, answer) if isinstance(value, str) else value

    @functools.cached_property
    def _named(self) -> NamedAdapters:
        return NamedAdapters(self.fitted)

    @property
    def adapters(self) -> list[str]:
        """The names of the adapters that the model knows; the one it was loaded with is its stage.

        See ``add_adapter`` and ``adapter``.
        """
        return self._named.names

    def add_adapter(self, name: str, source: str | Path) -> Model:
        """Make an adapter known under a name; no answer changes yet.

        Args:
            name: any that is free.
            source: a run that was tuned with an adapter on this base, or a folder of PEFT's.

        Raises:
            ModelwrightError: the name is taken, or the adapter is for another base.
        """
        self._named.add(name, Path(source))
        return self

    def adapter(self, chosen: str | Mapping[str, float] | None) -> Model:
        """Answer with this adapter from now on, with several by their shares, or with the base.

        The weights become W + sum of share * (W' - W), and the base's own come back to the bit.
        An engine that was at work keeps nothing of the weights before.

        Returns:
            The model itself.

        Raises:
            ModelwrightError: a name is unknown.
        """
        self._named.use({chosen: 1.0} if isinstance(chosen, str) else chosen or {})
        self.__dict__.pop("answerer", None)  # what it has read ahead is of the weights before
        return self

    @property
    def suffix(self) -> str:
        """Of the file that an answer is, such as ".png"; empty where it is text or a label."""
        return self.answerer.suffix

    def make(self, question: Question, *, seed: int = 0, out: str | Path | None = None) -> Path:
        """Write the answer as a file, of models that make some: a picture of the class asked for.

        Args:
            question: as a person types it, such as the name of a class; an empty one: of any.
            seed: of the noise that it is made of; the same gives the same file.
            out: the file; left out: ``samples/`` of the run, named by question and seed.

        Returns:
            The file.

        Raises:
            ModelwrightError: the model's answers are no files, or it cannot answer this.
        """
        if out is not None and self.suffix and Path(out).suffix.lower() != self.suffix:
            kind = self.suffix[1:].upper()
            raise ModelwrightError(
                f"{out}: answers are written as {kind}; name a file that ends so"
            )
        turns = self._turns(question)
        if out is None:
            asked = " ".join(turn.said for turn in turns).strip()[:40]
            named = "".join(c if c.isalnum() else "-" for c in asked) or "any"
            out = self.fitted.path.parents[2] / "samples" / f"ask-{named}-{seed}{self.suffix}"
        (answer,) = self.answerer.answer([turns], seed=seed)
        content = self.answerer.content(answer)
        make_folder(Path(out).parent)
        replace_file(Path(out), content)
        return Path(out)

    def listener(self, *, window: float = 10.0, margin: float = 2.0) -> Listener:
        """What writes down a stream of sound; see ``serving.listening.Listener``.

        Raises:
            ModelwrightError: the model gives no letters frame by frame.
        """
        from modelwright.serving.listening import Listener  # noqa: PLC0415 - seldom wanted

        found = self.fitted
        return Listener(found.model, found.codec, window=window, margin=margin)

    def transcribe(self, recording: str | Path, **settings: Any) -> Iterator[str]:
        """What is said in a file of hours, piece by piece; ``settings`` are those of ``listener``.

        Raises:
            ModelwrightError: the model gives no letters frame by frame, or the file no sound.
        """
        from modelwright.serving.listening import written_down  # noqa: PLC0415 - as above

        return written_down(recording, self.listener(**settings))

    def probabilities(self, question: Question) -> dict[str, float]:
        """The probability of every label, the likeliest first."""
        (details,) = self.answerer.details([self._turns(question)])
        if "probabilities" not in details:
            raise ModelwrightError(
                f"{self.fitted.path}: this model does not choose among labels, it has no"
                " probabilities; call it with the question"
            )
        return dict(details["probabilities"])

    def explain(self, question: Question, *, label: str | None = None) -> Explanation:
        """What an answer among labels rests on: maps over a picture, words of a text.

        Args:
            question: as a person types it, such as the path of a picture, or turns.
            label: what speaks for this one; left out: for the likeliest.

        Raises:
            ModelwrightError: the model does not choose among labels, or has no such label.
            MachineError: captum is not installed.
        """
        from modelwright.pipeline.explained import explain  # noqa: PLC0415 - seldom wanted

        return explain(self.fitted, self._turns(question), label)

    def keep_explanation(
        self, found: Explanation, question: str, out: str | Path | None = None
    ) -> Path:
        """Write an explanation of a picture as a PNG; by default into ``samples/`` of the run."""
        if out is None:
            stem = "".join(c if c.isalnum() else "-" for c in Path(question[-60:]).stem)
            out = self.fitted.path.parents[2] / "samples" / f"explain-{stem[:40]}-{found.label}.png"
        make_folder(Path(out).parent)
        replace_file(Path(out), found.png)
        return Path(out)

    def _turns(self, question: Question) -> Sequence[Turn]:
        if not isinstance(question, str | Path):
            given = question.tolist() if hasattr(question, "tolist") else question  # an array
            if any(isinstance(one, Turn) for one in given):
                return list(given)
            question = json.dumps(given)
        return self.fitted.task.question(str(question))

    def said(self, question: str, **params: Any) -> str:
        """The answer as it is shown to a person: a label with its probability."""
        if self.suffix:
            return str(self(question, **params))
        return self.answerer.said(self._turns(question), **params)

    def complete(self, text: str, **params: Any) -> str:
        """The continuation of a document that begins with ``text``."""
        return self.answerer.complete(text, **params)


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
        _refuse(source.path, overrides)
        return source
    return launch.opened(lambda: _opened(source, overrides, out, frozenset(accepted)))


def _opened(
    source: Source, overrides: tuple[str, ...], out: str | Path | None, allowed: frozenset[str]
) -> Run:
    if isinstance(source, Run):
        return source
    if isinstance(source, str | Path) and is_run(source):
        _refuse(source, overrides)
        run = Run.open(Path(source))
        run.accepted = allowed
        return run
    made = _recipe(source, overrides)
    run = Run.create(made, ROOT, Path(out) if out else None, allowed)
    run.accepted = allowed
    return run


def _refuse(run: str | Path, overrides: Sequence[str]) -> None:
    if overrides:
        raise ModelwrightError(
            f"{run}: an existing run keeps its recipe; give the recipe's name or file "
            "to start another run with overrides"
        )


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


def prepare(source: Source, *overrides: str, out: str | Path | None = None, **settings: Any) -> Run:
    """Prepare the data of a recipe."""
    return _stages("prepare", source, (*overrides, *as_overrides(settings)), out)


def train(source: Source, *overrides: str, out: str | Path | None = None, **settings: Any) -> Run:
    """Prepare and train: a recipe, or data with ``task="sentiment", budget="5m"``.

    ``settings`` are keys without a dot: those of a recipe and, of a file or folder of data,
    ``task`` and its options.
    """
    return _stages("train", source, (*overrides, *as_overrides(settings)), out)


def tune(source: Source, *overrides: str, out: str | Path | None = None, **settings: Any) -> Run:
    """Prepare, train and fine-tune."""
    return _stages("tune", source, (*overrides, *as_overrides(settings)), out)


def run(source: Source, *overrides: str, out: str | Path | None = None, **settings: Any) -> Run:
    """All stages, the report included; ``settings`` as of ``train``."""
    return _stages("report", source, (*overrides, *as_overrides(settings)), out)


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
    """The recipe of a name, a file, values, or a run, with overrides."""
    if isinstance(source, recipe.Recipe) and overrides:
        source = source.model_dump(exclude_unset=True)
    if isinstance(source, recipe.Recipe):
        return source
    if isinstance(source, Mapping):
        return recipe.made(copy.deepcopy(dict(source)), overrides, "recipe")
    if isinstance(source, Run):
        source = source.path
    if is_run(source):
        return recipe.read(str(Path(source) / "recipe.yaml"), overrides, mine=False)
    return read_recipe(source, overrides)


def read_recipe(source: str | Path, overrides: Sequence[str] = ()) -> recipe.Recipe:
    """The recipe of a name or a file, or the one that is made for data."""
    if is_data(source, overrides):
        return recipe_of(source, overrides, say)
    return recipe.read(str(source), overrides)


def planned(source: str | Path, overrides: Sequence[str] = ()) -> recipe.Recipe:
    """A recipe to be forecast; of a run, with what its data have decided, the model's fields.

    A run that ends after so many passes ends after the steps that these were.
    """
    if not is_run(Path(source)):
        return read_recipe(source, overrides)
    found = Run.open(Path(source))
    name, stage = next(iter(found.recipe.stages.items()))
    known = found.manifest["stages"].get(name, {}).get("resolved") or {}
    decided = {} if found.recipe.published is not None else dict(known.get("model", {}))
    decided.pop("family", None)
    words = [f"model.{field}={json.dumps(value)}" for field, value in decided.items()]
    if stage.epochs is not None and known:
        words += [f"{name}.epochs=null", f"{name}.steps={known['steps']}"]
    return recipe.read(str(found.path / "recipe.yaml"), [*words, *overrides])


def evaluate(
    source: Source, on: str | Path | None = None, *, by: Sequence[str] = (), **options: Any
) -> dict[str, Any]:
    """Measure a trained run on its test split; the content of evaluation.json.

    ``on``: a file to measure it on instead, and ``by`` columns of it, see ``pipeline.on_file``.
    ``options`` of its task hold while it is measured, such as the run of a ``recogniser``.
    """
    found = existing(source)
    if on is not None and options:
        raise ModelwrightError(
            f"evaluate: {', '.join(options)} and a file: options hold for the run's own test part;"
            " give one of both"
        )
    if on is not None:
        from modelwright.pipeline.on_file import evaluate_on  # noqa: PLC0415

        return evaluate_on(found, str(on), say, by=by)
    with found.locked():
        return pipeline.evaluate(found, say, options)


def answers(
    teacher: Source, source: str | None, out: str | Path, *, rows: int | None = None, **params: Any
) -> int:
    """Write the rows of ``source`` with a trained model's answers as targets, to be learned from.

    The file, of JSON lines, is a ``data.source`` like any other: sequence distillation. Without a
    ``source`` it is the teacher's own data, of which the train part alone is answered. ``params``
    are those of the answers, such as ``max_tokens``, and ``stage``.

    Returns:
        How many answers were written.

    Raises:
        ModelwrightError: ``out`` is there, or rows of the teacher's task have no target.
    """
    from modelwright.pipeline.teacher_answers import write_answers  # noqa: PLC0415

    return write_answers(existing(teacher), source, Path(out), say, rows=rows, **params)


def load(source: Source, stage: str | None = None, *, weights: str | None = None) -> Model:
    """The newest model of a run (of ``stage`` "train" or "tune" when given), verified.

    ``weights``: "int4", "int8" or "bfloat16" to answer with fewer bits a weight; what
    ``modelwright quantize`` has written is taken, else it is made first.
    """
    run = existing(source)
    if weights is None:
        return Model(load_fitted(newest_checkpoint(run, stage)))
    from modelwright.pipeline.quantized import quantized  # noqa: PLC0415

    return Model(load_fitted(quantized(run, weights, say, stage)))


def say(line: str) -> None:
    """Progress goes to standard error, results to standard output; of many, the first speaks."""
    if launch.is_main():
        print(line, file=sys.stderr, flush=True)
