"""Write the reference of recipe keys in docs/guides/recipes.md from the code that reads recipes.

The part between the two marks is made here: every key with its type, default and description
(from the pydantic models of ``modelwright.recipe``), and the options of every model family,
task, objective and codec (from their own signatures). So the page cannot say what the program
does not do.

Run: ``python scripts/make_recipe_reference.py`` rewrites the page, with ``--check`` it only
says whether it is up to date (exit code 1 when not). ``--page FILE`` takes another page.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from modelwright import objectives, recipe, runtime
from modelwright.data import augment, codecs
from modelwright.data.augment.batches import views
from modelwright.data.augment.rows import MODALITIES
from modelwright.data.sources import DATA_SETS
from modelwright.models.model import config_class, families
from modelwright.tasks.task import names as task_names
from modelwright.tasks.task import task_class
from modelwright.training import budget
from modelwright.training.optimizers import NAMES as OPTIMIZERS
from modelwright.training.schedules import SCHEDULES

BEGIN = "<!-- reference: made by scripts/make_recipe_reference.py, do not edit below -->"
END = "<!-- reference: end -->"
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}

Rows = Sequence[Sequence[str]]


def table(head: Sequence[str], rows: Rows) -> Iterator[str]:
    """A Markdown table; bars inside cells are escaped."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def kind(annotation: Any, limits: Sequence[Any] = ()) -> str:
    """A type as a person writes it: ``float | None`` with ``ge=0`` is "number ≥ 0"."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        kinds = [kind(a, limits) for a in typing.get_args(annotation) if a is not type(None)]
        return " or ".join(dict.fromkeys(kinds))
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(f"`{value}`" for value in typing.get_args(annotation))
    origin = typing.get_origin(annotation) or annotation
    if isinstance(origin, type) and issubclass(origin, recipe.Section):
        return "section"
    words = {bool: "`true` or `false`", int: "whole number", float: "number", str: "text"}
    word = words.get(origin) or ("mapping" if origin in (dict, Mapping) else "list")
    bounds = [
        f"{sign} {getattr(limit, name):g}"
        for limit in limits
        for name, sign in SIGNS.items()
        if getattr(limit, name, None) is not None
    ]
    return " ".join([word, " and ".join(bounds)]).strip() if origin in (int, float) else word


def literal(value: Any) -> str:
    """A default as YAML writes it."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list | tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`" if value != "" else '`""`'


def derived_keys() -> set[str]:
    """The keys of a stage that are derived when left out, asked of the code that derives them."""
    values = {"data": {"source": "digits"}, "train": {"task": "documents"}, "name": "reference"}
    made = recipe.parse(values)
    machine = runtime.Machine("", 1, 1.0, "", "", "cpu", dict.fromkeys(runtime.PRECISIONS, 1.0))
    derived = budget.Derived()
    budget.derive_machine(made, machine, derived)
    budget.derive_batch(made, "train", 1, derived)
    budget.derive_rates(made.first, "train", "muon", derived)
    budget.derive_steps(made, "train", 1.0, lambda: 1.0, derived)
    return {key.partition(".")[2] for key in derived.values}


def default(name: str, field: FieldInfo, derived: set[str]) -> str:
    """What holds when a key is left out."""
    if field.is_required():
        return "required"
    if name in derived and field.default is None:
        return "derived"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or isinstance(value, recipe.Section):
        return "-"
    return literal(value)


def section_rows(section: type[recipe.Section], prefix: str, derived: set[str]) -> Rows:
    """A row for every key of a section, those of inner sections left to their own table."""
    return [
        (
            f"`{prefix}{name}`",
            kind(field.annotation, field.metadata),
            default(name, field, derived),
            field.description or "",
        )
        for name, field in section.model_fields.items()
    ]


def first_line(documented: Any) -> str:
    """The first line of a docstring, its code marked as Markdown does."""
    return (inspect.getdoc(documented) or "").partition("\n")[0].replace("``", "`")


def options(function: Any, leave_out: Sequence[str] = ()) -> str:
    """The keyword options of a constructor with their defaults: ``label: label``."""
    shown = [
        f"`{name}: {_option(p.default)}`"
        for name, p in inspect.signature(function).parameters.items()
        if p.default is not inspect.Parameter.empty and name not in leave_out
    ]
    return ", ".join(shown) or "none"


def _option(value: Any) -> str:
    if value in ((), None, {}):
        return "(empty)"
    return str(value).lower() if isinstance(value, bool) else str(value)


def model_rows(family: str) -> Rows:
    """The fields of a family's ``Config``: those without a default come from the data."""
    rows = []
    for field in dataclasses.fields(config_class(family)):
        known = field.default is not dataclasses.MISSING
        value = literal(field.default) if known else "from the data"
        rows.append((f"`model.{field.name}`", value))
    return rows


def reference() -> str:
    """The made part of the page."""
    derived = derived_keys()
    head = ("key", "value", "when left out", "meaning")
    lines: list[str] = []

    def part(title: str, heads: Sequence[str], rows: Rows, lead: str = "") -> None:
        lines.extend([f"### {title}", "", *([lead, ""] if lead else []), *table(heads, rows), ""])

    part("The whole", head, section_rows(recipe.Recipe, "", derived))
    part("`data`", head, section_rows(recipe.Data, "data.", set()))
    part("`data.split`", head, section_rows(recipe.Split, "data.split.", set()))
    part("`data.fold`", head, section_rows(recipe.Fold, "data.fold.", set()))
    lead = (
        f"The same keys for `tune`. Optimisers: {_listed(OPTIMIZERS)}. "
        f"Schedules: {_listed(SCHEDULES)}. Both steps and epochs at once are an error."
    )
    part("`train` and `tune`", head, section_rows(recipe.Stage, "train.", derived), lead)
    part(
        "`tune.adapter`",
        head,
        section_rows(recipe.AdapterSection, "tune.adapter.", set()),
        "See [fine-tuning](fine-tuning.md).",
    )
    part("`watch`", head, section_rows(recipe.Watch, "watch.", set()))
    part("`parallel`", head, section_rows(recipe.Parallel, "parallel.", set()))
    part("`evaluate`", head, section_rows(recipe.Evaluation, "evaluate.", set()))
    lead = "A name, not a path, for `data.source`."
    sets = [(f"`{name}`", first_line(read)) for name, read in DATA_SETS.items()]
    part("Built-in data sets", ("name", "what it gives"), sets, lead)
    rows = []
    for name in task_names():
        cls = task_class(name)
        facts = (cls.codec, cls.model, cls.objective)
        rows.append((f"`{name}`", first_line(cls), *[f"`{f}`" for f in facts], options(cls)))
    heads = ("task", "what it does", "codec", "model", "objective", "`options`")
    part("Tasks", heads, rows, "Codec, model and objective are those used unless you say other.")
    rows = []
    for name in objectives.names():
        made = importlib.import_module(f"modelwright.objectives.{name}")
        rows.append((f"`{name}`", first_line(made.Objective), options(made.Objective, ["codec"])))
    part("Objectives", ("objective", "what it does", "`objective_options`"), rows)
    rows = []
    for name in codecs.kinds():
        made = importlib.import_module(f"modelwright.data.codecs.{name}")
        rows.append((f"`{name}`", first_line(made.Codec), options(made.Codec.fit)))
    part("Codecs", ("codec", "what it learns from the train split", "keys of `codec`"), rows)
    rows = []
    for name in augment.names():
        cls = augment.transform_class(name)
        use = "corpus" if cls.kind in MODALITIES else ""
        use = ", ".join(filter(None, [use, "train" if _in_training(cls.kind) else ""]))
        rows.append((f"`{name}`", first_line(cls), f"{cls.kind}: {use}", options(cls)))
    lead = (
        "Lines of `train.augment`, and of `augment` in a corpus: [augmentation](augmentation.md)."
    )
    part("Augmentation", ("transform", "what it does", "of, where", "settings"), rows, lead)
    for family in families():
        lead = first_line(config_class(family))
        part(f"`model.family: {family}`", ("key", "when left out"), model_rows(family), lead)
    return "\n".join(lines)


def _in_training(kind: str) -> bool:
    return any(kind in views(codec)[1] for codec in codecs.kinds())


def _listed(names: typing.Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def renewed(page: str) -> str:
    """The page with its made part made anew.

    Raises:
        ValueError: the page lacks one of the two marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the marks {BEGIN!r} and {END!r} are not both there, in this order")
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the page, or check it; returns the exit code."""
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description="Write or check the reference of recipe keys.")
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 when stale")
    parser.add_argument("--page", type=Path, default=root / "docs" / "guides" / "recipes.md")
    asked = parser.parse_args(arguments)
    page = asked.page.read_text(encoding="utf-8")
    fresh = renewed(page)
    if fresh == page:
        print("make_recipe_reference: up to date")
        return 0
    if asked.check:
        print(f"{asked.page}: does not say what the code says; run {Path(__file__).name}")
        return 1
    asked.page.write_text(fresh, encoding="utf-8")
    print(f"make_recipe_reference: wrote {asked.page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
