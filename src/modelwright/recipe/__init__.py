"""The recipe: the typed description of one run, the same in YAML and in Python.

A person writes few lines; a field left out (None) is derived later from the budget, the machine
and the data, with its reason. An unknown or mistyped key is an error that suggests the right one.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from modelwright import extensions
from modelwright.data.augment.batches import check as check_augment
from modelwright.data.codecs import codec_options
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.hub.files import is_keras, is_published
from modelwright.models.model import checked_fields, config_class, families, of_named_size
from modelwright.objectives import objective_class
from modelwright.options import amount, count, problem_said
from modelwright.places import recipe_text
from modelwright.recipe.sections import (
    AdapterSection,
    Also,
    Data,
    Evaluation,
    Fold,
    Parallel,
    Section,
    Split,
    Stage,
    Watch,
)
from modelwright.tasks.task import make_task, task_class

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_INSTEAD = {"steps": "epochs", "epochs": "steps"}  # of which a stage has one

__all__ = [
    "AdapterSection",
    "Also",
    "Data",
    "Evaluation",
    "Fold",
    "Parallel",
    "Recipe",
    "Section",
    "Split",
    "Stage",
    "Watch",
    "made",
    "own",
    "parse",
    "read",
]


class Recipe(Section):
    """One run."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="names the run directory"
    )
    seed: int = Field(1, ge=0, description="decides every random choice")
    budget: str | None = Field(
        None, description="training time such as 90s, 3m or 1h, or 20Mtok of text, or 1e15flop"
    )
    data: Data = Field(description="where rows come from")
    codec: dict[str, Any] = Field(
        {}, description="options of the codec, see Codecs; `kind`: another codec"
    )
    model: dict[str, Any] = Field(
        {},
        description="`family` and its fields; `size`, the name of a member; or `parameters`, such "
        "as 5M, for a decoder; or `from`, published weights: `hub:OWNER/NAME`, a folder, a .keras; "
        "which may also stand alone",
    )
    train: Stage | None = Field(
        None, description="training from random weights, or from the published ones"
    )
    tune: Stage | None = Field(
        None, description="fine-tuning of what train made, or of the published weights"
    )
    evaluate: Evaluation = Field(default_factory=Evaluation, description="what is measured")
    watch: Watch = Field(
        default_factory=Watch, description="what is written and measured beside training"
    )
    parallel: Parallel = Field(
        default_factory=Parallel, description="how several processes divide the training"
    )
    ask: str | None = Field(None, description="a question answered at the end")

    @field_validator("budget", mode="before")
    @classmethod
    def _budget(cls, value: Any) -> Any:
        if value is not None:
            amount(str(value))
        return value

    @field_validator("model", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"from": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _sound(self) -> Recipe:
        if self.train is None and (self.tune is None or self.published is None):
            raise ModelwrightError("train: is missing; every recipe needs it, or model.from")
        if self.published is None:
            self._shape()
        else:  # which fields there are is known when its config.json has been read
            self._of_checkpoint()
        if "parameters" in self.model and count(self.model["parameters"]) < 1:
            raise ModelwrightError("model.parameters: 0 is no size; write it like 5M")
        if "parameters" in self.model and "size" in self.model:
            raise ModelwrightError("model: size and parameters both say how large; give one")
        self._tuned_in_parts()
        for stage in self.stages.values():
            self._views(stage)
        kinds = [task_class(stage.task).codec for stage in self.stages.values()]
        if self.published is None:
            codec_options(self.codec_kind, self.codec_options)
        if len(set(kinds)) > 1:
            raise ModelwrightError(
                f"tune.task: needs the codec {kinds[1]!r}, but train.task {self.first.task} trains "
                f"with {kinds[0]!r}; choose tasks of one codec"
            )
        return self

    def _tuned_in_parts(self) -> None:
        """Refuse what cannot be trained with parts of a model frozen."""
        for name, stage in self.stages.items():
            if stage.adapter is not None and name == "train" and self.tune is not None:
                raise ModelwrightError(
                    "train.adapter: tune would begin from an adapter; move it to tune"
                )
            if stage.adapter is not None and name == "train" and self.published is None:
                raise ModelwrightError(
                    "train.adapter: random weights are no base; move it to tune, or begin with "
                    "model.from"
                )
            parts = stage.adapter is not None or bool(stage.freeze)
            if parts and (self.parallel.shard != "none" or self.parallel.tensor > 1):
                raise ModelwrightError(
                    "parallel: with adapters or frozen parameters every process holds a copy; "
                    "leave out shard and tensor"
                )

    def _shape(self) -> None:
        """Check the fields of a family."""
        given = {k: v for k, v in self.model.items() if k not in ("family", "parameters")}
        cls = config_class(self.family)
        fields = checked_fields(cls, of_named_size(cls, given))
        # YAML reads 1e3 as text; a list stays one, so that the recipe can be written as YAML.
        given.pop("size", None)
        self.model.update({k: fields[k] for k, v in given.items() if isinstance(v, str)})

    def _views(self, stage: Stage) -> None:
        """Refuse transforms that the codec has nothing for, or the objective."""
        mixes = any(t.kind == "mix" for t in check_augment(stage.augment or (), self.codec_kind))
        learned = stage.objective or make_task(stage.task, stage.options).objective
        if mixes and not getattr(objective_class(learned), "mixes", False):
            raise ModelwrightError(
                f"augment: mixup and cutmix give a row two labels, and the objective "
                f"{extensions.short(learned)!r} takes none of them; leave them out"
            )

    def _of_checkpoint(self) -> None:
        """Refuse what a published checkpoint decides itself."""
        if is_keras(str(self.published)) and len(self.model) > 1:
            name = next(k for k in self.model if k != "from")
            raise ModelwrightError(f"model.{name}: {self.published} decides it; leave it out")
        if not is_published(str(self.published)):
            raise ModelwrightError(
                f"model: {self.published!r} is no published checkpoint (hub:OWNER/NAME, or the "
                "path of a folder such as ./gpt2); a family is written `model: {family: NAME}`, "
                f"known: {', '.join(families())}"
            )
        if self.model.get("through") not in (None, "transformers"):
            raise ModelwrightError(
                f"model.through: {self.model['through']!r} is none; there is transformers"
            )
        for name in ("family", "size", "parameters"):
            if name in self.model:
                raise ModelwrightError(
                    f"model.{name}: {self.published} decides it; leave it out, or leave out from"
                )

    def profiled(self, steps: int) -> Recipe:
        """The same recipe with ``steps`` steps of each stage profiled."""
        if steps < 1:
            raise ModelwrightError(f"--profile: {steps} is no number of steps; give 10 or so")
        watch = self.watch.model_copy(update={"profile": steps})
        return self.model_copy(update={"watch": watch})

    @property
    def family(self) -> str:
        """The model family, the task's own when the recipe names none."""
        return str(self.model.get("family") or task_class(self.first.task).model)

    @property
    def codec_kind(self) -> str:
        """The codec, the task's own when the recipe names none."""
        return str(self.codec.get("kind") or task_class(self.first.task).codec)

    @property
    def codec_options(self) -> dict[str, Any]:
        """What the recipe says of the codec's fit."""
        return {k: v for k, v in self.codec.items() if k != "kind"}

    @property
    def published(self) -> str | None:
        """The published checkpoint that the first training begins with, as it was written."""
        found = self.model.get("from")
        return None if found is None else str(found)

    @property
    def first(self) -> Stage:
        """The first training."""
        return next(iter(self.stages.values()))

    @property
    def stages(self) -> dict[str, Stage]:
        """The trainings in their order."""
        both = {"train": self.train, "tune": self.tune}
        return {name: stage for name, stage in both.items() if stage is not None}


def read(name_or_path: str, overrides: Iterable[str] = (), *, mine: bool = True) -> Recipe:
    """The recipe in a file, or one that ships with the package, with ``key=value`` overrides.

    One that is the user's own (``mine``) may name code by the path of a file, which may run from
    now on; that of a run may not.
    """
    text, where = recipe_text(name_or_path)
    try:
        values = yaml.safe_load(text)
    except RecursionError as error:
        raise ModelwrightError(f"{where}: nested too deeply; correct the YAML") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise ModelwrightError(f"{where}:{line} {problem}; correct the YAML") from error
    if not isinstance(values, dict):
        raise ModelwrightError(f"{where}: a recipe is a mapping of keys; see `modelwright show`")
    values.setdefault("name", Path(name_or_path).stem)
    if mine:
        return made(values, overrides, where, Path(name_or_path).parent)
    _apply(values, overrides)
    return parse(values, where)


def made(
    values: dict[str, Any], overrides: Iterable[str], where: str, folder: Path = Path()
) -> Recipe:
    """A recipe of the user's own, from plain values and ``key=value`` overrides of them."""
    _apply(values, overrides)
    return own(values, where, folder)


def own(values: Mapping[str, Any], where: str = "recipe", folder: Path = Path()) -> Recipe:
    """A recipe of the user's own, from plain values; see `extensions.named`."""
    try:
        found = extensions.named(values, folder)
    except ModelwrightError as error:
        raise ModelwrightError(f"{where}: {error}") from error
    return parse(found, where)


def assigned(words: Iterable[str]) -> dict[str, Any]:
    """The values of ``key=value`` words, each in YAML.

    Raises:
        ModelwrightError: a word is none such.
    """
    values: dict[str, Any] = {}
    for word in words:
        _override(values, word)
    return values


def _apply(values: dict[str, Any], overrides: Iterable[str]) -> None:
    """Apply overrides in their order; steps that are set stand in place of epochs, or these."""
    overrides = list(overrides)
    for override in overrides:
        _override(values, override)
    given = {override.partition("=")[0] for override in overrides}
    for key in given:
        *outer, last = key.split(".")
        other = _INSTEAD.get(last, "")
        if not other or ".".join((*outer, other)) in given:
            continue
        section = values
        for part in outer:
            section = section[part]
        if section[last] is not None:
            section.pop(other, None)


def _override(values: dict[str, Any], override: str) -> None:
    """Apply ``a.b.c=value`` (the value in YAML) to nested mappings."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ModelwrightError(f"{override}: write overrides as key=value, like train.steps=200")
    *outer, last = key.split(".")
    target = values
    for part in outer:
        inner = target.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ModelwrightError(f"{override}: {part} is not a section of the recipe")
        target = inner
    try:
        target[last] = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ModelwrightError(f"{override[:80]}: the value is not valid YAML") from error


def parse(values: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """A recipe from plain values, with one clear line for the first thing that is wrong.

    No file is looked for: code is known by its hash, and runs where the user has named it before.
    """
    try:
        return Recipe.model_validate(values)
    except ModelwrightError as error:
        raise ModelwrightError(f"{where}: {error}") from error
    except ValidationError as error:
        problems = error.errors()
        first = next(filter(_mistyped, problems), problems[0])
        path = [str(p) for p in first["loc"]]
        key = ".".join(path)
        said = problem_said(first, lambda: _keys_at(path[:-1]), "is missing; every recipe needs it")
        more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
        place = f"{where}: {key}: " if key else f"{where}: "
        raise ModelwrightError(place + said + more) from None


def _mistyped(problem: ErrorDetails) -> bool:
    """Whether a key is unknown and near a known one, which is why that one may be missing."""
    if problem["type"] != "extra_forbidden":
        return False
    *path, key = (str(part) for part in problem["loc"])
    return bool(did_you_mean(key, _keys_at(path)))


def _keys_at(path: list[str]) -> list[str]:
    """The known keys of the section at ``path``."""
    section: type[BaseModel] = Recipe
    for part in path:
        annotation = section.model_fields[part].annotation
        options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else ()
        for option in options or (annotation,):
            if isinstance(option, type) and issubclass(option, BaseModel):
                section = option
    return list(section.model_fields)
