"""`modelwright design`: a model's layers, numbers, memory and data, before anything is trained."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from modelwright.errors import EXIT_OK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modelwright.pipeline.design import Design, Line

WIDTH = 80  # columns, where the terminal is not narrower
NARROWEST = 60
MIB, GIB = 2**20, 2**30
INDENT = 11  # of what follows a word at the margin


def add_command(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the parser of the command line."""
    text = "layers, parameters, FLOPs, memory and data of a model, without training"
    command = commands.add_parser("design", help=text, description=text)
    command.add_argument("model", help="a model family, a shipped recipe, or a YAML file")
    command.add_argument(
        "overrides", nargs="*", default=[], metavar="field=value", help="width=512 depth=8"
    )
    command.add_argument("--size", metavar="NAME", help="a member by its name, such as gpt2-medium")
    command.add_argument("--params", metavar="COUNT", help="about so many in the blocks, as 30M")
    command.add_argument("--batch", type=int, help="rows of a step (default the recipe's, or 8)")
    command.set_defaults(work=_design)


def _design(options: argparse.Namespace) -> int:
    from modelwright.pipeline.design import design  # noqa: PLC0415 - --help must not wait for torch

    made = design(
        options.model,
        options.overrides,
        size=options.size,
        parameters=options.params,
        batch=options.batch,
    )
    columns = max(NARROWEST, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))
    show(list(lines(made, columns)))
    return EXIT_OK


def show(text: list[str]) -> None:
    """Print the lines, on a terminal with their first words marked."""
    if not sys.stdout.isatty():
        print("\n".join(text))
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False, soft_wrap=True)
    for line in text:
        marked = Text(line)
        if line and not line.startswith(" "):
            word = line.partition(" ")[0]
            marked.stylize("bold", 0, len(line) if word in ("layer", "memory") else len(word))
        console.print(marked)


def lines(made: Design, columns: int = WIDTH) -> Iterator[str]:
    """The design as text no wider than ``columns``."""
    config = made.config
    yield f"{config.family}: {made.parameters:,} parameters"
    fields = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    shown = ", ".join(f"{k}={_value(v)}" for k, v in fields.items())
    yield from _paragraph("fields", shown, columns)
    if made.assumed:
        guesses = ", ".join(f"{k}={_value(v)}" for k, v in made.assumed.items())
        yield from _paragraph("assumed", f"{guesses}: your data decide that", columns)
    yield ""
    yield from _layers(made, columns)
    yield ""
    yield from _costs(made, columns)
    if made.memory:
        yield ""
        yield from _memory(made, columns)
    yield ""
    yield from _paragraph("data", _data(made), columns)
    if config.sizes:
        yield from _paragraph("sizes", ", ".join(config.sizes), columns)


def _value(value: Any) -> str:
    if isinstance(value, tuple | list):  # as it is given: depths=[3,4,6,3]
        return f"[{','.join(map(_value, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _paragraph(word: str, text: str, columns: int) -> list[str]:
    """``word`` at the margin, ``text`` beside it."""
    return textwrap.wrap(
        text,
        columns,
        initial_indent=word.ljust(INDENT),
        subsequent_indent=" " * INDENT,
        break_on_hyphens=False,
    )


def _layers(made: Design, columns: int) -> Iterator[str]:
    """The table: module, what it is, what it gives, its parameters and their share."""
    counts = max(len(f"{made.parameters:,}"), len("parameters"))
    shapes = max([len(_shape(line)) for line in made.lines] + [len("output")])
    shapes = min(shapes, 17)
    left = columns - counts - shapes - 6 - 7
    kinds = min(max([len(_kind(line)) for line in made.lines] + [4]), left // 2 + 4)
    names = left - kinds
    heads = ("layer", "module", "output", "parameters", "share")
    yield _row(heads, (names, kinds, shapes, counts))
    for line in made.lines:
        name = "  " * line.level + line.name
        share = f"{line.parameters / made.parameters:.1%}" if made.parameters else ""
        cells = (name, _kind(line), _shape(line), f"{line.parameters:,}", share)
        yield _row(cells, (names, kinds, shapes, counts))


def _row(cells: tuple[str, str, str, str, str], widths: tuple[int, int, int, int]) -> str:
    names, kinds, shapes, counts = widths
    name, kind, shape, count, share = cells
    left = f"{_cut(name, names)}  {_cut(kind, kinds)}  {_cut(shape, shapes)}"
    return f"{left}  {count:>{counts}} {share:>6}".rstrip()


def _cut(text: str, width: int) -> str:
    """``text`` in exactly ``width`` columns."""
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"


def _kind(line: Line) -> str:
    return line.kind if line.count == 1 else f"{line.count} x {line.kind}"


def _shape(line: Line) -> str:
    return "" if line.shape is None else "x".join(map(str, line.shape))


def _costs(made: Design, columns: int) -> Iterator[str]:
    unit = made.inputs.unit if made.inputs else "item"
    yield from _paragraph(
        "compute", f"{_amount(made.flops)}FLOP per {unit}, forward and backward", columns
    )
    if made.inputs:
        step = made.flops * made.inputs.items
        yield from _paragraph("step", f"{made.inputs.batch}: {_amount(step)}FLOP", columns)


def _memory(made: Design, columns: int) -> Iterator[str]:
    """What a step holds at its peak, by optimiser and precision of the products."""
    found = [m for m in made.memory.values() if m]
    small = max(m.total for m in found) < GIB
    size, unit, digits = (MIB, "MiB", 1) if small else (GIB, "GiB", 2)

    def shown(count: float) -> str:
        return f"{count / size:.{digits}f}"

    yield from _paragraph(
        "memory",
        f"peak of a training step in {unit}; of it weights {shown(found[0].parameters)}, gradients"
        f" as much, program {shown(found[0].program)}",
        columns,
    )
    if not made.counted:
        yield from _paragraph("", "activations are not counted: they depend on the data", columns)
    precisions = sorted({precision for _, precision in made.memory}, reverse=True)
    wide = min(22, (columns - INDENT - 8) // len(precisions))
    heads = "".join(f"{p:>{wide}}" for p in precisions)
    yield f"{'optimiser':<{INDENT}}{'state':>8}{heads}"
    for name in dict.fromkeys(optimizer for optimizer, _ in made.memory):
        row = [made.memory[name, p] for p in precisions]
        if row[0] is None:
            yield f"{name:<{INDENT}}{'no matrix for it':>18}"
            continue
        cells = "".join(f"{shown(m.total):>{wide}}" for m in row if m)
        yield f"{name:<{INDENT}}{shown(row[0].optimizer):>8}{cells}"


def _data(made: Design) -> str:
    unit = made.inputs.unit if made.inputs else "item"
    plural = unit.replace(" of", "s of", 1) if " of" in unit else f"{unit}s"
    return f"{_amount(made.amount).strip()} {plural} pay for it: {made.why}"


def _amount(number: float) -> str:
    """Three digits and the unit: "1.24 G", "7.5 ", with the space before what is counted."""
    for name, unit in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:.3g} "
