"""What the commands print: recipes with reasons, conversations, the machine's readiness."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelwright import api, checkpoint, recipe, runtime
from modelwright.data import subtitles
from modelwright.errors import EXIT_CORRUPT, EXIT_MACHINE, EXIT_OK, ModelwrightError
from modelwright.hub.files import is_keras
from modelwright.models.model import config_class, of_named_size
from modelwright.places import is_run
from modelwright.runs import Run, flatten
from modelwright.training import budget

# A library of each extra: what it is for, and the extra.
EXTRAS = {
    "pyarrow": ("Parquet files", "tables"),
    "sklearn": ("the digits data set", "digits"),
    "huggingface_hub": ("hub:OWNER/NAME, and corpora", "data"),
    "sacrebleu": ("measures of translations and summaries", "text"),
    "optuna": ("modelwright search", "search"),
    "onnxruntime": ("export --to onnx", "onnx"),
    "pycocotools": ("mAP of boxes", "vision"),
    "captum": ("modelwright explain", "interpret"),
    "keras": ("export --to keras, and models of Keras", "keras"),
    "gguf": ("export --to gguf", "gguf"),
    "transformers": ("model.through: transformers", "transformers"),
    "ray": ("corpora on Ray", "ray"),
}
FREE_GIB = 2.0


def show(name: str, overrides: Sequence[str]) -> None:
    """Print every value of a recipe (or of a run, as resolved), with the reason it has."""
    if is_run(name):
        run = Run.open(Path(name))
        resolved = run.read_json("resolved.json") or {}
        values = resolved.get("recipe") or run.recipe.model_dump()
        reasons = resolved.get("reasons", {})
        written = flatten(run.recipe.model_dump(exclude_unset=True, exclude_none=True))
    else:
        made = api.read_recipe(name, overrides)
        values, reasons = _forecast(made)
        written = flatten(made.model_dump(exclude_unset=True, exclude_none=True))
    table = Table(box=None, pad_edge=False, show_header=True, header_style="bold")
    table.add_column("key", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("why", overflow="fold", style="dim")
    for key, value in flatten(values).items():
        why = "given in the recipe" if key in written else reasons.get(key, "default")
        if value in (None, {}, []) and key not in reasons:
            continue
        table.add_row(key, Text(_short(value)), Text(why))
    Console().print(table)


def _forecast(made: recipe.Recipe) -> tuple[dict[str, Any], dict[str, str]]:
    """What the budget and this machine give before data and published weights are known."""
    machine = runtime.measure_machine()
    derived = budget.Derived()
    budget.derive_machine(made, machine, derived)
    if made.published is None:
        _of_family(made, machine, derived)
    elif not is_keras(made.published):
        first = next(iter(made.stages))
        budget.derive_rates(made.first, first, "adamw", derived, published=True)
    for name, stage in made.stages.items():
        if stage.steps is None:
            derived.reasons[f"{name}.steps"] = (
                "derived when the data are prepared and a step of this model has been measured"
            )
            derived.values[f"{name}.steps"] = "(later)"
    values = made.model_dump()
    for key, value in derived.values.items():
        section, _, field = key.partition(".")
        values[section][field] = value
    return values, derived.reasons


def _of_family(made: recipe.Recipe, machine: runtime.Machine, derived: budget.Derived) -> None:
    """The shape, batch and rates of a model that begins with random weights."""
    fields = budget.derive_model(made, machine, derived)
    family = config_class(made.family)
    context = family.__dataclass_fields__.get("context")
    named = of_named_size(family, fields)
    window = int(named.get("context", context.default if context else 1))
    for name, stage in made.stages.items():
        budget.derive_batch(made, name, window, derived)
        budget.derive_rates(stage, name, family.optimizer, derived)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)


def timed(model: api.Model, recording: str | None, way: str) -> str:
    """What is said in a recording and when, in one of the ``subtitles.WAYS``.

    Raises:
        ModelwrightError: no recording is named, or the model's answers have no times.
    """
    if recording is None or not model.answerer.times:
        raise ModelwrightError(
            "--timestamps: is for the path of a recording and a model of speech that was trained by"
            " ctc, which says when words are said; leave it out"
        )
    return subtitles.WAYS[way](model(recording, timestamps=True).details).rstrip("\n")


def converse(model: api.Model, params: Mapping[str, Any]) -> None:
    """Questions and answers on the terminal until the end of input."""
    if sys.stdin.isatty():
        print("Ask a question; Ctrl-D ends.", file=sys.stderr)
    while True:
        try:
            question = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        try:
            if question:
                print(model.said(question, **params), flush=True)
        except ModelwrightError as error:  # a bad question does not end the conversation
            print(f"modelwright: {error}", file=sys.stderr)


def check_machine() -> int:
    """Say what this machine has, what is missing and how to get it."""
    problems = 0
    machine = runtime.measure_machine()
    speeds = ", ".join(f"{k} {v:.0f} GFLOP/s" for k, v in machine.matmul_gflops.items())
    lines = [
        ("ok", f"Python {platform.python_version()}, torch {importlib.metadata.version('torch')}"),
        ("ok", f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib} GiB"),
        ("ok", f"device {machine.device}; matrix products: {speeds}"),
        ("ok", f"precision chosen here: {runtime.faster_precision(machine)}"),
    ]
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    if free < FREE_GIB:
        lines.append(("fix", f"{free:.1f} GiB of disk are free here; runs need about {FREE_GIB:g}"))
        problems += 1
    else:
        lines.append(("ok", f"{free:.0f} GiB of disk are free here"))
    for module, (use, extra) in EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            command = f"pip install 'modelwright[{extra}]'"
            lines.append(("opt", f"{module} is missing, for {use}: {command}"))
        else:
            lines.append(("ok", f"{module} is present ({use})"))
    for state, line in lines:
        print(f"{state:<4}{line}")
    return EXIT_MACHINE if problems else EXIT_OK


def check_run(path: Path) -> int:
    """Verify every byte of every checkpoint of a run."""
    run = Run.open(path)
    points = sorted(run.path.glob("checkpoints/**/step-*"))
    if not points:
        raise ModelwrightError(f"{path}: no checkpoints yet; run `modelwright run {path}`")
    damaged = 0
    for point in points:
        problems = checkpoint.verify(point)
        damaged += bool(problems)
        print(f"{'bad' if problems else 'ok':<4}{point}")
        for problem in problems:
            print(f"    {problem}")
    return EXIT_CORRUPT if damaged else EXIT_OK
