"""The space of a search: keys of a recipe, each with a range or a list of choices."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from modelwright import recipe as recipes
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.recipe import Recipe

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

RANGE = ("low", "high", "log", "step")
FIXED = {
    "name": "the search names its runs",
    "seed": "it decides which rows are held out, so results could not be compared",
    "data": "it decides which rows are held out, so results could not be compared",
    "evaluate": "the test part has no say in a search",
    "ask": "it changes no result",
}


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; whole ones where both ends are."""

    low: float
    high: float
    log: bool
    step: float | None
    whole: bool

    def suggest(self, key: str, trial: BaseTrial) -> Any:
        """A value of the trial."""
        if self.whole:
            step = int(self.step or 1)
            return trial.suggest_int(key, int(self.low), int(self.high), log=self.log, step=step)
        return trial.suggest_float(key, self.low, self.high, log=self.log, step=self.step)

    def ends(self) -> list[Any]:
        """The values that a recipe must accept."""
        return [int(v) if self.whole else v for v in (self.low, self.high)]


@dataclass(frozen=True)
class Choice:
    """One of some values; those that are no scalars are named by their JSON."""

    values: tuple[Any, ...]

    def suggest(self, key: str, trial: BaseTrial) -> Any:
        """A value of the trial."""
        names = {_name(v): v for v in self.values}
        return names[trial.suggest_categorical(key, list(names))]

    def ends(self) -> list[Any]:
        """The values that a recipe must accept."""
        return list(self.values)


Space = dict[str, Range | Choice]


def _name(value: Any) -> Any:
    scalar = value is None or isinstance(value, bool | int | float | str)
    return value if scalar else json.dumps(value)


def read_space(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ModelwrightError: The file cannot be read, or is no mapping of keys.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelwrightError(f"{path}: no such file; --space names a YAML file") from None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ModelwrightError(f"{path}: {' '.join(str(error).split())}; correct it") from error
    if not isinstance(values, dict) or not values:
        raise ModelwrightError(
            f"{path}: a space is a mapping such as `train.learning_rate: {{low: 1e-4, high: 0.1}}`"
        )
    return values


def parse_space(values: Mapping[str, Any], recipe: Recipe, where: str = "space") -> Space:
    """The space of these values, each end and choice of which fits the recipe.

    Args:
        values: Dotted keys, or sections, of the recipe; a mapping with ``low`` and ``high`` is a
            range, a list the choices.
        recipe: What the other values are.
        where: What messages begin with.

    Raises:
        ModelwrightError: A key that no recipe has (the nearest is named), one that a search may
            not change, a range that is none, or a value that the recipe refuses.
    """
    space: Space = {}
    for key, said in _keys(values, "", where):
        reason = FIXED.get(key.partition(".")[0])
        if reason:
            raise ModelwrightError(f"{where}: {key}: cannot be searched, for {reason}")
        space[key] = _member(f"{where}: {key}", said)
        for value in space[key].ends():
            applied(recipe, {key: value}, where)
    return space


def _keys(values: Mapping[str, Any], prefix: str, where: str) -> Iterator[tuple[str, Any]]:
    for name, said in values.items():
        key = f"{prefix}{name}"
        if isinstance(said, Mapping) and not set(said) & set(RANGE):
            near = next((n for n in said if did_you_mean(str(n), RANGE)), None)
            if near is not None and not any(isinstance(v, Mapping | list) for v in said.values()):
                hint = did_you_mean(str(near), RANGE)
                raise ModelwrightError(f"{where}: {key}: no {near!r}{hint} in a range")
            yield from _keys(said, f"{key}.", where)
        else:
            yield key, said


def _member(where: str, said: Any) -> Range | Choice:
    if isinstance(said, list) and said:
        return Choice(tuple(said))
    if not isinstance(said, Mapping):
        raise ModelwrightError(
            f"{where}: give choices such as [64, 128], or a range such as {{low: 1e-4, high: 0.1}}"
        )
    for name in said:
        if name not in RANGE:
            hint = did_you_mean(str(name), RANGE)
            raise ModelwrightError(f"{where}: no {name!r}{hint} in a range; {', '.join(RANGE)}")
    for name in ("low", "high"):
        if name not in said:
            raise ModelwrightError(f"{where}: a range needs {name!r}")
    low, high = _number(where, said["low"]), _number(where, said["high"])
    step = None if said.get("step") is None else _number(where, said["step"])
    log = said.get("log", False)
    whole = all(isinstance(said[n], int) for n in ("low", "high"))
    if whole and step is not None and step != int(step):
        whole = False
    if not isinstance(log, bool):
        raise ModelwrightError(f"{where}: log is {log!r}; it is true or false")
    if not low < high:
        raise ModelwrightError(f"{where}: low {low:g} is not below high {high:g}")
    if log and (low <= 0 or step is not None):
        raise ModelwrightError(f"{where}: a log range is above 0 and has no step")
    if step is not None and step <= 0:
        raise ModelwrightError(f"{where}: step is {step:g}; it must be above 0")
    return Range(low, high, log, step, whole)


def _number(where: str, value: Any) -> float:
    """YAML reads 1e-4 as text, which a person does not mean."""
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise ModelwrightError(f"{where}: {value!r} is no number") from None


def applied(recipe: Recipe, chosen: Mapping[str, Any], where: str, **more: Any) -> Recipe:
    """The recipe with the chosen values of dotted keys, and ``more`` of its own keys.

    Raises:
        ModelwrightError: The recipe refuses one; an unknown key names the nearest known one.
    """
    values = json.loads(json.dumps(recipe.model_dump(exclude_unset=True)))
    for key, value in chosen.items():
        *outer, last = key.split(".")
        target = values
        for part in outer:
            inner = target.get(part)
            target[part] = inner if isinstance(inner, dict) else {}
            target = target[part]
        target[last] = value
    return recipes.parse({**values, **more}, where)
