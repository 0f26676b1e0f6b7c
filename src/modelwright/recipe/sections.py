"""The sections of a recipe: every key with its type, its limits, and what it means."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from modelwright import extensions
from modelwright.errors import did_you_mean
from modelwright.objectives import names as objective_names
from modelwright.objectives import objective_options
from modelwright.tasks.task import make_task


class Section(BaseModel):
    """A part of a recipe: frozen, and closed to unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )


class Split(Section):
    """How rows are divided. ``by: given`` respects a ``split`` field of the rows."""

    by: Literal["group", "row", "given", "players"] = Field(
        "group",
        description="what must stay together: rows of one `group`, nothing, as the rows' own "
        "column `split` says, or whoever plays a game: people are held out, and of their games "
        "their moves alone are measured",
    )
    players: list[str] = Field(
        [], description="of `by: players`, names (or parts) of whom test holds out; empty: drawn"
    )
    validation: float = Field(0.05, ge=0, lt=1, description="share to choose and watch by")
    test: float = Field(0.05, ge=0, lt=1, description="share to report on, used last")

    @model_validator(mode="after")
    def _shares(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation={self.validation:g} and test={self.test:g} leave nothing for train"
            )
        if self.players and self.by != "players":
            raise ValueError("players are held out by `by: players`; set it, or leave them out")
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


class Also(Section):
    """Rows of another source that the train part gets, and no part that is measured."""

    source: str = Field(description="as `data.source`")
    path: str | None = Field(None, description="the folder of a built-in data set")
    columns: dict[str, str] = Field({}, description="rename columns: {our name: their name}")
    limit: int | None = Field(None, gt=0, description="read at most so many rows")


class Data(Section):
    """Where rows come from and how they are cleaned and divided."""

    source: str = Field(
        description="a built-in data set, the path of a file or folder, or a file of your own code"
    )
    path: str | None = Field(None, description="the folder of a built-in data set")
    encoding: str = Field(
        "",
        description="of files of games, such as `cp1251`; left out: UTF-8, and Latin-1, PGN's own, "
        "where a line of PGN is not",
    )
    columns: dict[str, str] = Field({}, description="rename columns: {our name: their name}")
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {},
        description="how often rows are seen in a pass over the data, by patterns of their ids, "
        "which begin with the file's name: `{alpaca*: 0.5, identity*: 4}`; others once",
    )
    clean: bool = Field(False, description="repair text, drop what is no text")
    deduplicate: float = Field(
        0.0, ge=0, le=1, description="drop near-duplicates at this Jaccard similarity (0: keep)"
    )
    split: Split = Field(default_factory=Split, description="how rows are divided")
    fold: Fold | None = Field(
        None, description="hold out one fold, as `test`; the recipe's own test part is left out"
    )
    limit: int | None = Field(None, gt=0, description="read at most so many rows")
    also: Also | None = Field(
        None, description="more rows for the train part alone, such as recordings of a synthesiser"
    )


class AdapterSection(Section):
    """Low-rank matrices beside frozen weights, trained instead of them."""

    rank: int = Field(16, ge=1, description="columns of B and rows of A; PEFT calls it `r`")
    alpha: float = Field(32.0, gt=0, description="B A is scaled by alpha / rank")
    targets: list[str] | None = Field(
        None,
        min_length=1,
        description="patterns of layers: linear, embedding, convolution; left out: the linear "
        "layers and convolutions of the blocks",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="of the adapters' inputs")
    rslora: bool = Field(False, description="scale by alpha / sqrt(rank) (arXiv:2312.03732)")
    dora: bool = Field(False, description="learn the weights' norms apart (arXiv:2402.09353)")
    lora_plus: float = Field(
        1.0, ge=1, description="rate of B as a multiple of A's, such as 16 (arXiv:2402.12354)"
    )
    prompt: int = Field(
        0, ge=0, description="learned rows before every text, instead (arXiv:2104.08691)"
    )
    prefix: int = Field(
        0, ge=0, description="learned keys and values before every text (arXiv:2101.00190)"
    )
    quantize: Literal["nf4", "int8"] | None = Field(
        None,
        description="hold the frozen weights in 4 bits (QLoRA, arXiv:2305.14314) or 8",
    )
    trained: list[str] = Field(
        [],
        description="patterns of parameters trained whole beside the adapters; a new head always "
        "is. PEFT calls it `modules_to_save`",
    )

    @model_validator(mode="after")
    def _one_way(self) -> AdapterSection:
        if not (self.prompt or self.prefix):
            return self
        if self.prompt and self.prefix:
            raise ValueError("prompt and prefix are two ways; give one")
        others = ("rank", "alpha", "targets", "rslora", "dora", "lora_plus", "quantize", "dropout")
        if given := [name for name in others if name in self.model_fields_set]:
            raise ValueError(f"{given[0]} is of low-rank matrices, prompt and prefix have none")
        return self


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
    epochs: float | None = Field(
        None, gt=0, description="passes over the data; with a budget, no more than it allows"
    )
    batch: int | None = Field(None, gt=0, description="examples (or windows of text) a step")
    accumulate: int = Field(1, gt=0, description="micro-batches a step; the batch is divided")
    adapter: AdapterSection | None = Field(
        None, description="train adapters and leave the weights as they are, see tune.adapter"
    )
    pack: int | None = Field(
        None,
        gt=0,
        description="fill rows of so many tokens with whole documents, best fit; `batch` then "
        "counts such rows. Left out: documents as they come, which are never padded either",
    )
    context: int | None = Field(
        None, gt=0, description="read texts of so many tokens from now on, more than before"
    )
    rope: Literal["linear", "ntk", "yarn"] | None = Field(
        None,
        description="how rotary positions are stretched where `context` is given; left out: yarn",
    )
    freeze: list[str] = Field(
        [], description="patterns of parameters that are not trained, such as `[embedding, stem]`"
    )
    unfreeze: dict[int, list[str]] = Field(
        {}, description="step -> patterns of frozen parameters that are trained from then on"
    )
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="a layer's rate as a multiple of that of the one above it"
    )
    augment: list[str | dict[str, Any]] | None = Field(
        None,
        description="transforms of the training batches, in order, such as "
        "`[{crop: {padding: 4}}, flip]`; see Augmentation",
    )
    sizes: dict[int, int] = Field(
        {},
        description="step -> pixels of the longer side of the pictures that are trained on from "
        "then on, such as `{0: 16, 600: 24, 900: 32}`; families with positions take one size only",
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
    patience: int | None = Field(
        None,
        gt=0,
        description="early stopping: end after so many validations in a row without a lower loss; "
        "the model of the best one counts. Left out: no end but the last step, whose model counts",
    )
    save_every: int | None = Field(None, gt=0, description="steps between checkpoints")
    sample_every: int | None = Field(None, gt=0, description="steps between samples")
    log_every: int | None = Field(
        None,
        gt=0,
        description="steps a line of the log, which has their mean; left out: 1, or as many as "
        "pass in 20 ms where a long training has quicker steps",
    )

    @field_validator("task", mode="before")
    @classmethod
    def _joined(cls, value: Any) -> Any:
        """With a hyphen, as people write it: speech-recognition."""
        plain = isinstance(value, str) and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", value)
        return value.replace("-", "_") if plain else value

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
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give steps or epochs, not both")
        if self.batch is not None and self.batch % self.accumulate:
            raise ValueError(f"batch={self.batch} is no multiple of accumulate={self.accumulate}")
        if self.adapter is not None and (self.freeze or self.unfreeze):
            raise ValueError("adapter freezes all other parameters; leave out freeze and unfreeze")
        if any(step < 0 or side < 1 for step, side in self.sizes.items()):
            raise ValueError("sizes: steps are whole numbers from 0 on, sides from 1 on")
        if self.unfreeze and not self.freeze:
            raise ValueError("unfreeze: nothing is frozen; name what under freeze")
        if any(step < 1 for step in self.unfreeze):
            raise ValueError("unfreeze: steps are whole numbers from 1 on")
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
    views: int = Field(
        0,
        ge=0,
        le=64,
        description="test-time augmentation: of labels also the answer of the mean over so many "
        "views more, made by the stage's `augment`",
    )
    slices: list[str] = Field(
        [], description="columns of the rows by which grades are also reported, such as `source`"
    )


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
    context: int = Field(
        1,
        ge=1,
        le=64,
        description="processes that share every text, each with positions of its own (decoder)",
    )
    timeout: float = Field(
        240, gt=0, description="seconds that processes wait before they name the missing one"
    )

    @model_validator(mode="after")
    def _one_cut(self) -> Parallel:
        if self.tensor > 1 and self.context > 1:
            raise ValueError("tensor and context exclude each other; choose one")
        return self
