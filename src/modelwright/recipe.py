"""The recipe: the typed description of one run, the same in YAML and in Python.

A person writes few lines; a field left out (None) is derived later from the budget, the machine
and the data, with its reason. An unknown or mistyped key is an error that suggests the right one.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from modelwright import extensions
from modelwright.data.augment.batches import check as check_augment
from modelwright.data.codecs import codec_options
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.hub.files import is_keras, is_published
from modelwright.models.model import checked_fields, config_class, families, of_named_size
from modelwright.objectives import names as objective_names
from modelwright.objectives import objective_options
from modelwright.options import amount, count
from modelwright.places import recipe_text
from modelwright.tasks.task import make_task, task_class


class Section(BaseModel):
    """A part of a recipe: frozen, and closed to unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )


class Split(Section):
    """How rows are divided. ``by: given`` respects a ``split`` field of the rows."""

    by: Literal["group", "row", "given"] = Field(
        "group",
        description="what must stay together: rows of one `group`, nothing, or as the rows' own "
        "column `split` says",
    )
    validation: float = Field(0.05, ge=0, lt=1, description="share to choose and watch by")
    test: float = Field(0.05, ge=0, lt=1, description="share to report on, used last")

    @model_validator(mode="after")
    def _shares(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation={self.validation:g} and test={self.test:g} leave nothing for train"
            )
        return self


class Fold(Section):
    """One fold of a cross-validation; `modelwright crossval` writes it."""

    number: int = Field(ge=1, description="the fold that is held out, from 1")
    of: int = Field(ge=2, description="how many folds there are")
    by: Literal["row", "group", "time"] = Field(
        "row", description="shuffled rows, rows of one `group` together, or the past for train"
    )

    @model_validator(mode="after")
    def _there(self) -> Fold:
        if self.number > self.of:
            raise ValueError(f"number={self.number} is no fold of {self.of}")
        return self


class Data(Section):
    """Where rows come from and how they are cleaned and divided."""

    source: str = Field(
        description="a built-in data set, the path of a file or folder, or a file of your own code"
    )
    path: str | None = Field(None, description="the folder of a built-in data set")
    columns: dict[str, str] = Field({}, description="rename columns: {our name: their name}")
    clean: bool = Field(False, description="repair text, drop what is no text")
    deduplicate: float = Field(
        0.0, ge=0, le=1, description="drop near-duplicates at this Jaccard similarity (0: keep)"
    )
    split: Split = Field(default_factory=Split, description="how rows are divided")
    fold: Fold | None = Field(
        None, description="hold out one fold, as `test`; the recipe's own test part is left out"
    )
    limit: int | None = Field(None, gt=0, description="read at most so many rows")


class Stage(Section):
    """One training: what, how, how long. None means: derive it."""

    task: str = Field(description="what is learned, see Tasks")
    options: dict[str, Any] = Field({}, description="the task's options")
    objective: str | None = Field(None, description="how it is learned; left out: the task's own")
    objective_options: dict[str, Any] = Field({}, description="the objective's options")
    share: float | None = Field(
        None, gt=0, lt=1, description="tune's part of the budget; left out: 0.3"
    )
    steps: int | None = Field(None, gt=0, description="updates of the parameters")
    epochs: float | None = Field(None, gt=0, description="passes over the data, instead of steps")
    batch: int | None = Field(None, gt=0, description="examples (or windows of text) a step")
    accumulate: int = Field(1, gt=0, description="micro-batches a step; the batch is divided")
    augment: list[str | dict[str, Any]] | None = Field(
        None,
        description="transforms of the training batches, in order, such as "
        "`[{crop: {padding: 4}}, flip]`; see Augmentation",
    )
    optimizer: (
        Literal["sgd", "adam", "adamw", "muon", "adafactor", "lion", "schedule_free"] | None
    ) = Field(None, description="how gradients move the parameters")
    learning_rate: float | None = Field(None, gt=0, description="base rate")
    matrix_learning_rate: float | None = Field(
        None, gt=0, description="of muon, for the matrices of blocks"
    )
    momentum: float = Field(0.95, ge=0, lt=1, description="of sgd and muon")
    momentum_warmup: int = Field(
        0, ge=0, description="of muon: steps over which the momentum rises from 0.85"
    )
    weight_decay: float = Field(
        0.0,
        ge=0,
        description="on matrices; sgd and adam: added to the gradient, the others: decoupled",
    )
    ema: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="decay of a running average of the parameters, such as 0.999, which is then "
        "validated and kept as the model; 0 or left out: none",
    )
    noise_scale: bool = Field(
        False,
        description="log the gradient noise scale with every validation; costs a step each time",
    )
    schedule: Literal["constant", "linear", "cosine", "warmup_stable_decay", "one_cycle"] | None = (
        Field(None, description="how the rate goes over the steps")
    )
    warmup: float | None = Field(None, ge=0, le=1, description="share of the steps, rising")
    decay: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of the steps, falling (warmup_stable_decay; one_cycle: its last part)",
    )
    clip: float = Field(1.0, ge=0, description="largest gradient norm (0: none)")
    on_nan: Literal["stop", "skip", "rollback"] = Field(
        "stop", description="a loss that is not finite: stop, skip the batch, or go back and around"
    )
    on_spike: Literal["warn", "rollback", "off"] = Field(
        "warn", description="a loss far above the recent ones: say so, or go back and around"
    )
    watchdog: float = Field(
        300, ge=0, description="seconds without any progress until it is ended with stacks (0: off)"
    )
    precision: Literal["float32", "bfloat16", "float16"] | None = Field(
        None,
        description="of matrix products; parameters stay float32. float16 is for GPUs without "
        "bfloat16, its loss is scaled",
    )
    compile: bool | None = Field(
        None, description="compile the model's blocks; left out: when it pays within the budget"
    )
    threads: int | None = Field(None, gt=0, le=1024, description="processor threads")
    recompute: bool | None = Field(
        None, description="compute activations anew in the backward pass, which saves memory"
    )
    validate_every: int | None = Field(None, gt=0, description="steps between validations")
    save_every: int | None = Field(None, gt=0, description="steps between checkpoints")
    sample_every: int | None = Field(None, gt=0, description="steps between samples")
    log_every: int | None = Field(
        None,
        gt=0,
        description="steps a line of the log, which has their mean; left out: 1, or as many as "
        "pass in 20 ms where a long training has quicker steps",
    )

    @field_validator("on_spike", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return "off" if value is False else value  # which is how YAML reads the bare word

    @field_validator("objective")
    @classmethod
    def _objective(cls, value: str | None) -> str | None:
        if value is None or extensions.is_reference(value):
            return value
        if value not in objective_names():
            hint = did_you_mean(value, objective_names())
            raise ValueError(f"no objective {value!r}{hint}; known: {', '.join(objective_names())}")
        return value

    @model_validator(mode="after")
    def _sound(self) -> Stage:
        task = make_task(self.task, self.options)
        objective_options(self.objective or task.objective, self.objective_options)
        mixes = any(t.kind == "mix" for t in check_augment(self.augment or (), task.codec))
        if mixes and (learned := self.objective or task.objective) != "classification":
            raise ValueError(
                f"augment: mixup and cutmix give a row two labels, and the objective {learned!r} "
                "takes none of them; leave them out"
            )
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give steps or epochs, not both")
        if self.batch is not None and self.batch % self.accumulate:
            raise ValueError(f"batch={self.batch} is no multiple of accumulate={self.accumulate}")
        if self.ema and self.optimizer == "schedule_free":
            raise ValueError("schedule_free makes an average of its own; leave out ema")
        return self


class Evaluation(Section):
    """What is measured at the end, on the test split."""

    questions: int = Field(200, gt=0, description="graded answers, drawn by the seed")
    answer_tokens: int = Field(64, gt=0, description="longest answer")
    beams: int = Field(
        1, ge=1, le=64, description="unfinished answers kept by beam search; 1: token by token"
    )
    length_penalty: float = Field(
        1.0,
        ge=0,
        le=10,
        description="of beam search: log p of an answer is divided by its length to this power",
    )
    baselines: bool = Field(True, description="also measure the trivial answers")


class Watch(Section):
    """What is written and measured beside a training; none of it changes the training."""

    writers: list[Literal["jsonl", "tensorboard", "wandb", "mlflow", "trackio"]] = Field(
        ["tensorboard"],
        description="where records go: `jsonl` (always), `tensorboard`, `wandb`, `mlflow`, "
        "`trackio`",
    )
    profile: int = Field(0, ge=0, description="steps of each stage that are profiled")

    @field_validator("writers")
    @classmethod
    def _once(cls, value: list[str]) -> list[str]:
        twice = sorted({name for name in value if value.count(name) > 1})
        if twice:
            raise ValueError(f"{twice[0]} is named twice; name each writer once")
        return value


class Parallel(Section):
    """How several processes divide a training; one process on its own holds everything."""

    shard: Literal["none", "fsdp", "hybrid"] = Field(
        "none",
        description="none: a copy each (DDP); fsdp: a part each (FSDP2); hybrid: a part each "
        "within a machine, a copy on every machine",
    )
    tensor: int = Field(1, ge=1, le=64, description="processes that share every layer (decoder)")
    timeout: float = Field(
        240, gt=0, description="seconds that processes wait before they name the missing one"
    )


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
        kinds = [task_class(stage.task).codec for stage in self.stages.values()]
        if self.published is None:
            codec_options(self.codec_kind, self.codec_options)
        if len(set(kinds)) > 1:
            raise ModelwrightError(
                f"tune.task: needs the codec {kinds[1]!r}, but train.task {self.first.task} trains "
                f"with {kinds[0]!r}; choose tasks of one codec"
            )
        return self

    def _shape(self) -> None:
        """Check the fields of a family."""
        given = {k: v for k, v in self.model.items() if k not in ("family", "parameters")}
        cls = config_class(self.family)
        fields = checked_fields(cls, of_named_size(cls, given))
        # YAML reads 1e3 as text; a list stays one, so that the recipe can be written as YAML.
        given.pop("size", None)
        self.model.update({k: fields[k] for k, v in given.items() if isinstance(v, str)})

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
        if self.model.get("adapter") not in (None, "transformers"):
            raise ModelwrightError(
                f"model.adapter: {self.model['adapter']!r} is none; there is transformers"
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
    for override in overrides:
        _override(values, override)
    return own(values, where, Path(name_or_path).parent) if mine else parse(values, where)


def own(values: Mapping[str, Any], where: str = "recipe", folder: Path = Path()) -> Recipe:
    """A recipe of the user's own, from plain values; see `extensions.named`."""
    try:
        found = extensions.named(values, folder)
    except ModelwrightError as error:
        raise ModelwrightError(f"{where}: {error}") from error
    return parse(found, where)


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
        first = problems[0]
        path = [str(p) for p in first["loc"]]
        key = ".".join(path)
        if first["type"] == "extra_forbidden":
            known = _keys_at(path[:-1])
            said = f"unknown key{did_you_mean(path[-1], known)}; known: {', '.join(known)}"
        elif first["type"] == "missing":
            said = "is missing; every recipe needs it"
        else:
            given = first.get("input")
            shown = f" (got {given!r})" if isinstance(given, str | int | float | bool) else ""
            said = first["msg"].removeprefix("Value error, ") + shown
            if first["type"] == "literal_error":
                words = re.findall("'([^']+)'", first["ctx"]["expected"])
                said += did_you_mean(str(given), words)
        more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
        place = f"{where}: {key}: " if key else f"{where}: "
        raise ModelwrightError(place + said + more) from None


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
