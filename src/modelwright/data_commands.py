"""The commands ``modelwright data ...``: make a corpus, ask about it, get public data."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.errors import EXIT_OK
from modelwright.label_commands import add_errors

if TYPE_CHECKING:
    from modelwright.data.corpus.spec import CorpusSpec

WORKER_BYTES = 1 << 30  # free memory that a worker is given by default

# Imports are inside the commands: `modelwright --help` must not wait for them.


def add_data(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command ``data`` with its own commands."""
    data = commands.add_parser("data", help="corpora: clean, deduplicate, split, tokenize; explain")
    verbs = data.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = verbs.add_parser("run", help="make a corpus, or go on with it")
    run.add_argument("corpus", type=Path, help="a YAML file: sources, steps, ...")
    run.add_argument("--out", type=Path, help="the folder (default corpora/NAME)")
    run.add_argument("--engine", help="inline, pool or ray: the same bytes (default pool)")
    run.add_argument("--workers", type=int, help="at once (default: by processors and memory)")
    run.set_defaults(work=_run)

    plan = verbs.add_parser("plan", help="what would be done, what is done already, disk needed")
    plan.add_argument("corpus", type=Path, help="a YAML file: sources, steps, ...")
    plan.add_argument("--out", type=Path, help="the folder (default corpora/NAME)")
    plan.set_defaults(work=_plan)

    why = verbs.add_parser("why", help="what happened to a row: kept, dropped, where and why")
    why.add_argument("corpus", type=Path, help="the folder of a corpus")
    why.add_argument("id", help="as decisions and the report show it")
    why.set_defaults(work=_why)

    get = verbs.add_parser("get", help="fetch a public data set of the catalog, verified")
    get.add_argument("name", help="such as mnist or imdb")
    get.add_argument(
        "--out", type=Path, help="the folder (default: where data sets are looked for)"
    )
    get.set_defaults(work=_get)

    report = verbs.add_parser("report", help="write the page of a finished corpus again")
    report.add_argument("corpus", type=Path, help="the folder of a corpus")
    report.set_defaults(work=_report)

    add_errors(verbs)


def _read(path: Path) -> CorpusSpec:
    from modelwright.data.corpus import spec  # noqa: PLC0415

    return spec.read(path)


def _run(options: argparse.Namespace) -> int:
    from modelwright.data.corpus.build import ROOT, build  # noqa: PLC0415
    from modelwright.reporting.corpus import write_report  # noqa: PLC0415

    spec = _read(options.corpus)
    folder = options.out or ROOT / spec.name
    workers = default_workers() if options.workers is None else options.workers
    engine = options.engine or ("pool" if workers > 1 else "inline")
    _say(f"corpus: {folder}")
    made = build(spec, folder, engine=engine, workers=workers, say=_say)
    for part, counts in made["parts"].items():
        _say(f"{part}: {counts['rows']:,} rows, {counts['bytes'] / 1e6:,.1f} MB")
    _say(f"report: {write_report(folder)}")
    return EXIT_OK


def _plan(options: argparse.Namespace) -> int:
    from modelwright.data.corpus.build import ROOT  # noqa: PLC0415
    from modelwright.data.corpus.plan import plan  # noqa: PLC0415

    spec = _read(options.corpus)
    print("\n".join(plan(spec, options.out or ROOT / spec.name, say=_say)))
    return EXIT_OK


def _why(options: argparse.Namespace) -> int:
    from modelwright.data.corpus.why import why  # noqa: PLC0415

    print("\n".join(why(options.corpus, options.id)))
    return EXIT_OK


def _get(options: argparse.Namespace) -> int:
    from modelwright.data.catalog import get  # noqa: PLC0415

    print(get(options.name, options.out, _say))
    return EXIT_OK


def _report(options: argparse.Namespace) -> int:
    from modelwright.reporting.corpus import write_report  # noqa: PLC0415

    print(write_report(options.corpus))
    return EXIT_OK


def default_workers() -> int:
    """One a processor that we may use, as far as free memory goes."""
    cores = len(os.sched_getaffinity(0))
    return max(1, min([cores, *(free // WORKER_BYTES for free in _free_bytes())]))


def _free_bytes() -> Iterator[int]:
    """Memory that this machine and this container still have; not by ``runtime``: no torch here."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        yield int(next(n for n in lines if n.startswith("MemAvailable:")).split()[1]) * 1024
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # "max" is no limit
        most = int((group / "memory.max").read_text())
        yield max(0, most - int((group / "memory.current").read_text()))


def _say(line: str) -> None:
    print(line, flush=True)
