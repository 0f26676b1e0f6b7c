"""``modelwright benchmark``: published tasks of language models, by lm-evaluation-harness."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.errors import EXIT_OK
from modelwright.places import existing_run

if TYPE_CHECKING:
    from modelwright.pipeline.harness import Scored

# Imports are inside the command: `modelwright --help` must not wait for torch.


def add_command(commands: Any) -> None:
    """Add ``benchmark`` to the commands of the command line."""
    text = "published tasks by lm-evaluation-harness, such as arc_easy, hellaswag, or your own"
    command = commands.add_parser("benchmark", help=text, description=text)
    command.add_argument("run", type=existing_run)
    command.add_argument("tasks", nargs="+", metavar="TASK", help="of the harness, or of --include")
    command.add_argument("--shots", type=int, help="solved examples first (default: the task's)")
    command.add_argument("--limit", type=int, help="questions of each task, the first ones")
    command.add_argument("--include", type=Path, help="a folder with tasks of your own, YAML")
    command.add_argument("--stage", choices=("train", "tune"), help="which (default: the last)")
    command.add_argument("--weights", choices=("int4", "int8", "bfloat16"), help="in fewer bits")
    command.add_argument("--out", type=Path, help="write the scores as JSON")
    command.set_defaults(work=_benchmark)


def _benchmark(options: argparse.Namespace) -> int:
    from modelwright import api  # noqa: PLC0415
    from modelwright.files import replace_file  # noqa: PLC0415
    from modelwright.pipeline.harness import benchmark  # noqa: PLC0415

    model = api.load(options.run, options.stage, weights=options.weights)
    found = benchmark(
        model.fitted,
        options.tasks,
        shots=options.shots,
        limit=options.limit,
        include=options.include,
        say=lambda line: print(line, file=sys.stderr),
    )
    print("\n".join(table(found)))
    if options.out is not None:
        rows = [asdict(one) for one in found]
        replace_file(options.out, json.dumps(rows, indent=2).encode() + b"\n")
    return EXIT_OK


def table(found: list[Scored]) -> list[str]:
    """The scores in columns."""
    width = max((len(one.task) for one in found), default=4)
    lines = [f"{'task':<{width}}  {'measure':<18}  {'value':>9}  {'±':>7}  examples"]
    for one in found:
        error = "" if one.error is None else f"{one.error:.4f}"
        value = f"{one.value:9.4f}  {error:>7}  {one.examples}"
        lines.append(f"{one.task:<{width}}  {one.measure:<18}  {value}")
    return lines
