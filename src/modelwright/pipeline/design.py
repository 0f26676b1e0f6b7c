"""What a model is and what it costs, before anything is trained: `modelwright design`.

Nothing is allocated: the model is built on the meta device and gone through on tensors without
numbers (``trace.py``), from which the memory of a step is forecast (``memory.py``).
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from modelwright import recipe as recipes
from modelwright import runtime
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.hub.adapted import through_adapter
from modelwright.hub.files import find, is_keras
from modelwright.hub.loading import config_of
from modelwright.models.model import (
    ModelConfig,
    checked_fields,
    config_class,
    families,
    is_family,
    of_named_size,
)
from modelwright.models.reading import Inputs
from modelwright.options import count as number_of
from modelwright.pipeline.memory import Step, peak
from modelwright.pipeline.trace import inputs_for, item_flops, meta, traced
from modelwright.places import shipped
from modelwright.recipe import Recipe
from modelwright.training import forecast, scaling
from modelwright.training.budget import VOCABULARY

OPTIMIZERS = ("sgd", "adamw", "muon", "adafactor", "lion")
PRECISIONS = ("float32", "bfloat16")
RULE = 20.0  # tokens a parameter: arXiv:2203.15556, read off its table 3 by everybody since
ROWS = 8  # of a batch, where none is given
IMAGENET = 1000  # classes assumed of a family that reads images
# What the data decide, where nobody has said it.
ASSUMED = {"vocabulary": VOCABULARY, "classes": 10, "features": 784, "outputs": 10}
DEPTH = 4  # of the layer table


@dataclass(frozen=True)
class Line:
    """A row of the layer table: ``count`` modules that are alike, their parameters together."""

    name: str
    kind: str
    level: int
    count: int
    parameters: int
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Design:
    """All that is known of a model.

    ``memory`` maps (optimiser, precision) to the peak of a step, or to None where the optimiser
    has nothing to do; it is empty where the family's inputs are not known. ``counted`` says
    whether activations are in it. ``amount`` items of ``inputs.unit`` pay for the model, by
    ``why``. ``assumed`` are the fields that nobody gave and the data decide.
    """

    config: ModelConfig
    lines: tuple[Line, ...]
    parameters: int
    rows: int
    inputs: Inputs | None
    flops: float
    memory: Mapping[tuple[str, str], forecast.Memory | None]
    counted: bool
    amount: float
    why: str
    assumed: Mapping[str, Any]


def design(
    what: str,
    overrides: Sequence[str] = (),
    *,
    size: str | None = None,
    parameters: str | None = None,
    batch: int | None = None,
) -> Design:
    """The design of a family, or of a recipe's model.

    Args:
        what: the name of a family, or a recipe: shipped, or a YAML file.
        overrides: fields of the family as ``width=512``; of a recipe as ``model.width=512``.
        size: the name of a member, one of ``Config.sizes``.
        parameters: how many the blocks' matrices should have, such as "30M".
        batch: rows of a step; None: the recipe's, or 8.

    Raises:
        ModelwrightError: no such family or recipe, size or field; both ``size`` and
            ``parameters``; a family that has no shape for a number of parameters.
    """
    if size is not None and parameters is not None:
        raise ModelwrightError("design: --size and --params both say how large; give one")
    if batch is not None and batch < 1:
        raise ModelwrightError(f"--batch: {batch} is no number of rows; give 1 or more")
    if is_family(what):
        cls, given, rows = config_class(what), _given(what, overrides), ROWS
    else:
        read = _read(what, overrides)
        if read.published is not None:
            if size is not None or parameters is not None:
                raise ModelwrightError(
                    f"design: {read.published} decides how large it is; leave out --size and "
                    "--params"
                )
            return of_config(_published(read), batch or read.first.batch or ROWS, {})
        cls, given, rows = _of_recipe(read)
    for name, value in (("size", size), ("parameters", parameters)):
        if value is not None:
            given = {k: v for k, v in given.items() if k not in ("size", "parameters")}
            given[name] = value
    config, assumed = _config(cls, given)
    return of_config(config, batch or rows, assumed)


def of_config(config: ModelConfig, rows: int, assumed: Mapping[str, Any]) -> Design:
    """The design of a model of known numbers."""
    model = meta(config)
    counted = sum(p.numel() for p in model.parameters())
    one, inputs = inputs_for(config, 1), inputs_for(config, rows)
    shapes = traced(config, one, "float32", learning=False) if one else None
    memory, with_activations = _memories(config, model, rows, inputs)
    flops = item_flops(config)
    amount, why = _amount(config, model, counted, flops, inputs)
    return Design(
        config=config,
        lines=tuple(_lines(model, shapes.shapes if shapes else {})),
        parameters=counted,
        rows=rows,
        inputs=inputs,
        flops=flops,
        memory=memory,
        counted=with_activations,
        amount=amount,
        why=why,
        assumed=assumed,
    )


def recipe_config(read: Recipe) -> tuple[ModelConfig, list[str]]:
    """The config of a recipe's first training, and the fields in it that the data still decide.

    Raises:
        ModelwrightError: a field is unknown or its published checkpoint cannot be read.
    """
    if read.published is not None:
        return _published(read), []
    cls, given, _ = _of_recipe(read)
    config, assumed = _config(cls, given)
    return config, list(assumed)


def _given(family: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Fields from ``field=value``, also written ``model.field=value``; values are YAML."""
    given: dict[str, Any] = {}
    for word in overrides:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise ModelwrightError(f"design: {word!r} is no field=value, like width=512")
        try:
            given[name.removeprefix("model.")] = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError) as error:
            raise ModelwrightError(f"design: {word[:80]!r}: the value is not YAML") from error
    if "family" in given:
        raise ModelwrightError(f"design: the family is {family} already; leave model.family out")
    return given


def _read(what: str, overrides: Sequence[str]) -> Recipe:
    """The recipe of that name or path.

    Raises:
        ModelwrightError: there is neither a family nor a recipe of that name.
    """
    if what not in shipped() and not Path(what).exists():
        near = difflib.get_close_matches(what, [*families(), *shipped()], 1, 0.5)
        hint = did_you_mean(what, near)
        raise ModelwrightError(
            f"design: {what!r} is neither a family nor a recipe{hint};"
            f" families: {', '.join(families())}"
        )
    return recipes.read(what, overrides)


def _of_recipe(read: Recipe) -> tuple[type[ModelConfig], dict[str, Any], int]:
    """Family, fields and batch of a recipe that trains from random weights."""
    cls = config_class(read.family)
    fields = {k: v for k, v in read.model.items() if k != "family"}
    if "vocabulary" in read.codec and "vocabulary" not in fields:
        fields["vocabulary"] = read.codec["vocabulary"]
    known = {f.name for f in dataclasses.fields(cls)} | {"size", "parameters"}
    return cls, {k: v for k, v in fields.items() if k in known}, read.first.batch or ROWS


def _published(read: Recipe) -> ModelConfig:
    """The config of the checkpoint that a recipe begins with, its head as it is stored.

    Raises:
        ModelwrightError: it is a file of Keras, or a field that the recipe gives is none.
    """
    source = str(read.published)
    if is_keras(source):
        raise ModelwrightError(
            f"design: {source} holds layers of Keras, which are not counted here; "
            "look at them with model.summary() in Keras"
        )
    found = find(source)
    if read.model.get("through"):
        found = through_adapter(found)
    stored = config_of(found)[1]
    given = {k: v for k, v in read.model.items() if k not in ("from", "through")}
    if given.get("head") == "new":
        del given["head"]
    return dataclasses.replace(stored, **checked_fields(type(stored), given))


def _config(cls: type[ModelConfig], given: Mapping[str, Any]) -> tuple[ModelConfig, dict[str, Any]]:
    """The config, and what was assumed of the data."""
    wanted = given.get("parameters")
    fields = of_named_size(cls, {k: v for k, v in given.items() if k != "parameters"})
    fields = checked_fields(cls, fields)
    assumed = {}
    for field in dataclasses.fields(cls):
        if field.name in fields or not _required(field):
            continue
        value = ASSUMED.get(field.name, cls.specimen.get(field.name))
        if field.name == "classes" and any(f.name == "image" for f in dataclasses.fields(cls)):
            value = IMAGENET
        assumed[field.name] = value
    fields = {**assumed, **fields}
    if wanted is not None:
        number = number_of(wanted)
        shape = cls.of_size(number, fields) if number else {}
        if not shape:
            known = ", ".join(cls.sizes) or "its fields"
            raise ModelwrightError(
                f"--params: {wanted} names no {cls.family}; choose by --size or fields: {known}"
            )
        fields |= {k: v for k, v in shape.items() if k not in given}
    return cls(**fields), assumed


def _required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _memories(
    config: ModelConfig, model: nn.Module, rows: int, inputs: Inputs | None
) -> tuple[dict[tuple[str, str], forecast.Memory | None], bool]:
    """The peak of a step by (optimiser, precision), and whether activations are in it."""
    if inputs is None:
        return {}, False
    at = "cuda" if runtime.device().type == "cuda" else "cpu"
    traces = {precision: traced(config, inputs, precision) for precision in PRECISIONS}
    found = {
        (name, precision): peak(
            model, Step(rows, optimizer=name, precision=precision), traces[precision], at
        )
        for precision in PRECISIONS
        for name in OPTIMIZERS
    }
    return found, None not in traces.values()


def _amount(
    config: Any, model: nn.Module, counted: int, flops: float, inputs: Inputs | None
) -> tuple[float, str]:
    """How much data pays for the model, and by which rule."""
    text = inputs is not None and list(inputs.tensors) == ["tokens"]
    if text and hasattr(model, "negative_log_likelihood") and hasattr(config, "matrix_parameters"):
        size = float(config.matrix_parameters())
        pairs = [(law, law.best_tokens(size)) for law in (scaling.OURS, scaling.PUBLISHED)]
        law, tokens = min(pairs, key=lambda pair: pair[0].reach(size, pair[1]))
        reach = law.reach(size, tokens)
        far = f", {reach:.2g} times beyond its runs" if reach > 1.05 else ""
        return tokens, f"the law of {law.source}{far}"
    why = "20 a parameter, a rule of thumb made for decoders of text (arXiv:2203.15556)"
    if text:
        return RULE * counted, why
    if inputs is not None and inputs.unit == "token":
        return RULE * counted, why
    # A parameter that works on many positions of an item learns from each.
    positions = max(1.0, flops / (6.0 * counted))
    many = f"; {positions:,.0f} positions an item" if positions >= 1.5 else ""
    return RULE * counted / positions, why + many


def _lines(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> list[Line]:
    """The layer table, modules that are alike and follow one another in one row."""
    table = _Table(shapes)
    table.walk(model)
    own = sum(p.numel() for p in model.parameters(recurse=False) if id(p) not in table.seen)
    if own:
        table.lines.append(Line("(own)", type(model).__name__, 0, 1, own, None))
    return table.lines


class _Table:
    """The rows, and the parameters that are in one already: tied ones count once."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = shapes
        self.seen: set[int] = set()
        self.lines: list[Line] = []

    def walk(self, module: nn.Module, prefix: str = "", level: int = 0, times: int = 1) -> None:
        """Rows of the children of ``module``, each standing for ``times`` as many."""
        for first, last, child, alike in _runs(module):
            mine = {id(p): p.numel() for p in child.parameters() if id(p) not in self.seen}
            path, name = f"{prefix}{first}", first if alike == 1 else f"{first}-{last}"
            number = alike * times
            if mine:
                kind, parameters = type(child).__name__, sum(mine.values()) * number
                shape = self.shapes.get(path)
                self.lines.append(Line(name, kind, level, number, parameters, shape))
            listed = isinstance(child, nn.ModuleList | nn.Sequential | nn.ModuleDict)
            if level + 1 < DEPTH and (alike > 1 or listed or _holds_blocks(child)):
                self.walk(child, f"{path}.", level + 1, number)
            self.seen.update(mine)


def _runs(module: nn.Module) -> list[tuple[str, str, nn.Module, int]]:
    """(first name, last name, the first, how many) of children that are alike and neighbours."""
    runs: list[tuple[str, str, nn.Module, int]] = []
    for name, child in module.named_children():
        if runs and name.isdigit() and _form(runs[-1][2]) == _form(child):
            first, _, begin, count = runs[-1]
            runs[-1] = (first, name, begin, count + 1)
        else:
            runs.append((name, name, child, 1))
    return runs


def _form(module: nn.Module) -> tuple[Any, ...]:
    """What makes two modules alike: their type, and the names and shapes of their parameters."""
    return (type(module), *((n, tuple(p.shape)) for n, p in module.named_parameters()))


def _holds_blocks(module: nn.Module) -> bool:
    return any(isinstance(m, nn.ModuleList | nn.Sequential) for m in module.children())
