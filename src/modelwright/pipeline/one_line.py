"""Data in place of a recipe: ``modelwright train reviews.csv task=sentiment``.

The recipe is made of the file or folder, the task and what else is given; columns of a table are
guessed and said.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from modelwright import recipe
from modelwright.data import formats
from modelwright.data.game_rows import is_games
from modelwright.data.picture_rows import is_picture_tar
from modelwright.data.sources import read_rows
from modelwright.errors import ModelwrightError
from modelwright.pipeline.prepare import Say
from modelwright.tasks.columns import guess
from modelwright.tasks.task import make_task, names, task_class

BUDGET = "5m"  # of training, where nothing is said
SEEN = 100_000  # rows that columns are guessed from
_RECIPES = (".yaml", ".yml")


def is_data(source: str | Path, overrides: Iterable[str] = ()) -> bool:
    """Whether a path is data, where a recipe could stand: a file, or a folder with a task."""
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return any(override.startswith("task=") for override in overrides)
        if path.suffix.lower() in _RECIPES or not path.is_file():
            return False
    except (OSError, ValueError):  # a name that no file can have
        return False
    return bool(formats.format_of(path)) or is_picture_tar(path) or is_games(path)


def recipe_of(source: str | Path, overrides: Iterable[str], say: Say) -> recipe.Recipe:
    """The recipe for a file or a folder of data.

    Args:
        source: the file or folder.
        overrides: ``key=value``: ``task``, which must be there; options of the task, such as
            ``label=stars``; and keys of a recipe, such as ``budget=10m`` or ``train.epochs=3``.
        say: told which column is what.

    Raises:
        ModelwrightError: no task, or columns that cannot be guessed.
    """
    given, rest = _simple(overrides)
    where = str(source)
    if "task" not in given:
        raise ModelwrightError(
            f"{where}: is data, not a recipe; say what is to be learned: task=NAME, of"
            f" {', '.join(names())}"
        )
    name = str(given.pop("task"))
    name = name.replace("-", "_") if re.fullmatch("[a-z0-9-]+", name) else name
    cls = task_class(name)
    known = inspect.signature(cls).parameters
    options = {key: given.pop(key) for key in list(given) if key in known}
    row = next(read_rows(where))
    if cls.understands(row):
        line = make_task(name, options).reads(row)
    else:
        rows = list(islice(read_rows(where), SEEN))
        found, line = guess(cls.roles, rows, options, where)
        options = {**options, **found}
    if line:
        say(f"{where}: {line}")
    values: dict[str, Any] = {
        "name": _name(Path(source)),
        "data": {"source": where},
        "train": {"task": name, **({"options": options} if options else {})},
    }
    for key, value in given.items():
        section = values.get(key)
        if isinstance(section, dict) and isinstance(value, dict):
            values[key] = {**section, **value}
        else:
            values[key] = value
    if not any(re.match(r"train\.(steps|epochs)=|budget=", one) for one in rest):
        values.setdefault("budget", BUDGET)
    return recipe.made(values, rest, where)


def _simple(overrides: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """Those without a dot in their key, by key, and the others."""
    given: dict[str, Any] = {}
    rest = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if equals and key and "." not in key:
            given[key] = _value(override, text)
        else:
            rest.append(override)
    return given, rest


def _value(override: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ModelwrightError(f"{override[:80]}: the value is not valid YAML") from error


def _name(path: Path) -> str:
    """A name for the run: that of the data, as far as a folder may be called so."""
    stem = (
        path.expanduser().resolve().name.removesuffix(".gz").removesuffix(".xz").partition(".")[0]
    )
    kept = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:64]
    return kept or "data"


def as_overrides(settings: Mapping[str, Any]) -> list[str]:
    """Keywords of Python as overrides: ``budget="5m"`` is budget=5m."""
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]  # which is YAML, too
