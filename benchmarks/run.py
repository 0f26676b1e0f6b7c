"""Run one benchmark, print its table, keep its result.

A benchmark is a module ``benchmarks/NAME.py`` or a package ``benchmarks/NAME/`` with a function
``questions(quick: bool) -> list[Row]``. The libraries it compares with stand in
``benchmarks/NAME.requirements.txt`` (or ``benchmarks/NAME/requirements.txt``) and are installed
under the constraints of the repository, so that a peer never changes what is measured. Where there
is a function ``page(result: dict) -> str``, what it makes of the result is kept as Markdown too.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modelwright.errors import (
    EXIT_NOT_HELD,
    EXIT_OK,
    MachineError,
    ModelwrightError,
    did_you_mean,
)

FOLDER = Path(__file__).resolve().parent
HEADINGS = ("question", "ours", "peer", "ratio", "bar", "holds")
LIBRARIES = ("modelwright", "torch", "numpy", "tokenizers", "safetensors")
NAME = re.compile(r"[a-z][a-z0-9_]*")
ONLY = "MODELWRIGHT_BENCH_PARTS"  # parts of a benchmark to measure, divided by commas; unset: all


@dataclass(frozen=True)
class Row:
    """One question and its answer.

    ``ours`` and ``peer`` are measurements of the same thing, numbers or text with a unit;
    ``ratio`` is ours over peer; ``bar`` says in words what was promised of the ratio, such as
    "<= 1.10"; ``holds`` says whether it was kept; ``details`` are kept beside it and not printed.
    """

    question: str
    ours: float | str
    peer: float | str
    ratio: float
    bar: float | str
    holds: bool
    details: dict[str, Any] = field(default_factory=dict)


def alternate(
    ours: Callable[[], float], peer: Callable[[], float], repeats: int = 5
) -> tuple[float, float]:
    """Measure two things in turns; the medians of what they return, in their own unit.

    They alternate, and change who goes first, so that a machine that grows warmer or busier
    meanwhile slows both alike.
    """
    if repeats < 1:
        raise ModelwrightError(f"alternate: repeats={repeats} measures nothing, give 1 or more")
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            taken[which].append((ours, peer)[which]())
    return statistics.median(taken[0]), statistics.median(taken[1])


def requirements_of(name: str) -> Path | None:
    """The file that names a benchmark's peers, if it has any."""
    for path in (FOLDER / f"{name}.requirements.txt", FOLDER / name / "requirements.txt"):
        if path.is_file():
            return path
    return None


def install_peers(requirements: Path) -> None:
    """Install a benchmark's peers without moving any pinned version."""
    constraints = FOLDER.parent / "constraints.txt"
    command = [sys.executable, "-m", "pip", "install", "-q", "--prefer-binary"]
    command += ["-c", str(constraints), "-r", str(requirements)]
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise MachineError(
            f"bench: pip could not install {requirements.name} (exit {done.returncode}); "
            "its lines above say why"
        )


def load(name: str) -> Callable[[bool], list[Row]]:
    """The ``questions`` of a benchmark."""
    questions = getattr(importlib.import_module(f"benchmarks.{name}"), "questions", None)
    if not callable(questions):
        raise ModelwrightError(f"bench: benchmarks/{name} has no function questions(quick)")
    found: Callable[[bool], list[Row]] = questions
    return found


def known() -> list[str]:
    """The names that can be run."""
    files = {p.stem for p in FOLDER.glob("*.py")} - {"__init__", "__main__", "run"}
    return sorted(files | {p.parent.name for p in FOLDER.glob("*/__init__.py")})


def rows_of(package: str, parts: Sequence[str], quick: bool) -> list[Row]:
    """The rows of those parts of a benchmark that ``ONLY`` names, or of all.

    A part is a module of the package with a function ``rows(quick)``; one that cannot be measured
    here says why in a row that does not hold.
    """
    chosen = os.environ.get(ONLY, ",".join(parts)).split(",")
    if unknown := next((name for name in chosen if name not in parts), None):
        raise ModelwrightError(
            f"{ONLY}: no part {unknown!r}{did_you_mean(unknown, parts)}; known: {', '.join(parts)}"
        )
    found: list[Row] = []
    for name in chosen:
        print(f"{name}:", file=sys.stderr, flush=True)
        try:
            found += importlib.import_module(f"{package}.{name}").rows(quick)
        except MachineError as error:
            found.append(left_out(name, str(error)))
    return found


def left_out(question: str, why: str) -> Row:
    """A row that could not be measured here, and says why; nothing is claimed, so it fails."""
    return Row(question, "not measured", why, math.nan, "measured", False)


def table(rows: Sequence[Row]) -> str:
    """The rows as a table of text, columns aligned."""
    cells = [HEADINGS, *(tuple(_cell(getattr(row, h)) for h in HEADINGS) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEADINGS))]
    lines = [" | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in cells]
    lines.insert(1, "-|-".join("-" * w for w in widths))
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: float | str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write(name: str, quick: bool, rows: Sequence[Row], requirements: Path | None) -> Path:
    """Keep the result, with all one needs to judge or repeat it, in ``results/NAME.json``.

    Where only some parts were measured, what is there of the others stays, each row with the
    date and the commit that it was measured at.
    """
    path = FOLDER / "results" / f"{name}.json"
    date, commit = datetime.now(UTC).isoformat(timespec="seconds"), _commit()
    made = {"date": date, "commit": commit}
    kept = [{**{k: _plain(v) for k, v in asdict(row).items() if v != {}}, **made} for row in rows]
    if ONLY in os.environ and path.exists():
        former = json.loads(path.read_text(encoding="utf-8"))
        fresh = {_asked(row) for row in kept}
        if former["quick"] == quick:
            kept = [row for row in former["rows"] if _asked(row) not in fresh] + kept
    result = {
        "name": name,
        "quick": quick,
        "command": f"make bench NAME={name}" + (" QUICK=1" if quick else ""),
        "date": date,
        "commit": commit,
        "machine": _machine(),
        "versions": _versions(requirements),
        "holds": all(row["holds"] for row in kept),
        "rows": kept,
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if page := getattr(importlib.import_module(f"benchmarks.{name}"), "page", None):
        path.with_suffix(".md").write_text(page(result), encoding="utf-8")
    return path


def _asked(row: dict[str, Any]) -> str:
    """The question without what it says of the answer, after a semicolon."""
    return str(row["question"]).partition(";")[0]


def _plain(value: Any) -> Any:
    """JSON has no infinity and no not-a-number."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _commit() -> str:
    command = ["git", "-C", str(FOLDER.parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def _machine() -> dict[str, Any]:
    """What the numbers depend on; the host's name is nobody's business."""
    torch = sys.modules.get("torch")  # a benchmark without torch need not wait for it
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(encoding="utf-8"), re.M)
        cpu = model.group(1) if model else cpu
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "threads": torch.get_num_threads() if torch else None,
        "load_average": round(os.getloadavg()[0], 2),
        "gpu": torch.cuda.get_device_name(0) if torch and torch.cuda.is_available() else None,
    }


def _versions(requirements: Path | None) -> dict[str, str]:
    names = list(LIBRARIES)
    if requirements:
        lines = requirements.read_text(encoding="utf-8").splitlines()
        names += [m.group() for line in lines if (m := re.match(r"[A-Za-z0-9][\w.-]*", line))]
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def run(name: str, quick: bool) -> int:
    """Run a benchmark; 0 when every bar holds, 1 otherwise."""
    if not NAME.fullmatch(name) or name not in known():
        names = ", ".join(known()) or "none yet"
        raise ModelwrightError(
            f"bench: there is no benchmark {name!r}{did_you_mean(name, known())}; "
            f"make bench NAME=x, where x is one of: {names}"
        )
    requirements = requirements_of(name)
    if requirements:
        install_peers(requirements)
    rows = load(name)(quick)
    if not rows:
        raise ModelwrightError(f"bench: benchmarks/{name} asked no question, nothing was measured")
    print(table(rows))
    path = write(name, quick, rows, requirements)
    missed = [row.question for row in rows if not row.holds]
    kept = path.relative_to(FOLDER.parent)
    print(f"{len(rows) - len(missed)} of {len(rows)} bars hold; kept in {kept}")
    return EXIT_NOT_HELD if missed else EXIT_OK


def main(arguments: Sequence[str]) -> int:
    """The command line; an exit code of ``modelwright.errors``."""
    parser = argparse.ArgumentParser(prog="make bench", description="Compare with peers.")
    parser.add_argument("name", help="a module or package in benchmarks/")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, smaller inputs")
    chosen = parser.parse_args(arguments)
    try:
        return run(chosen.name, chosen.quick)
    except ModelwrightError as error:
        print(error, file=sys.stderr)
        return error.exit_code
