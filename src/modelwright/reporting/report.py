"""Write ``report.html``: everything a run can say about itself, on one page that works offline.

The page holds no script and asks for nothing: styles and charts are inline, and its own content
security policy forbids the rest. All that comes from a run is untrusted text; the template
escapes it, and the template itself runs in a sandbox.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from modelwright.errors import MachineError
from modelwright.reporting import classified, origins, results
from modelwright.reporting.blocks import shorten
from modelwright.reporting.drawings import drawings
from modelwright.reporting.record import Record, read_record, text

# Not characters of HTML (tab and newline are), and those that turn the direction of text around.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def dressed(template: str, **values: object) -> str:
    """Another page of this room in the dress of the run's: its style sheet, its tables and figures.

    Args:
        template: the name of a file beside this one.
        values: what it finds, and ``style`` beside them.
    """
    source = _source("report.html")
    macros = source.partition("{% macro answer")[0]
    style = source.partition("<style>")[2].partition("</style>")[0]
    values["style"] = Markup(style)  # noqa: S704 - our own file
    return _rendered(macros + _source(template), **values)


def _source(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _rendered(source: str, **values: object) -> str:
    environment = ImmutableSandboxedEnvironment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(source).render(**values)
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", page.replace("\r\n", "\n"))


def render(record: Record) -> str:
    """The page of a run as text.

    Args:
        record: What the run directory holds; empty parts say that they have not run yet.

    Returns:
        A complete HTML document.
    """
    derived, others = origins.recipe_tables(record)
    made = drawings(record)  # before the problems are told: these may find some
    answers, worst = results.answers(record), results.worst(record)
    time_chart, cost_table = origins.cost(record)
    return _rendered(
        _source("report.html"),
        name=shorten(record.name, 200),
        folder=record.path.resolve().name,
        created=shorten(record.manifest.get("created"), 100),
        stages=[(stage, text(said.get("status"))) for stage, said in record.stages.items()],
        problems=[shorten(p, 300) for p in record.problems],
        cards=results.headline(record),
        answers=answers,
        worst=worst,
        answers_at_once=results.ANSWERS,
        answers_note=shorten(record.evaluation.get("examples_note"), 1000),
        waterfall=origins.waterfall(record),
        data_tables=origins.data_tables(record),
        derived=derived,
        others=others,
        recipe=shorten(record.recipe, 20_000),
        curves=results.curves(record),
        curve_table=results.curve_table(record),
        samples=results.samples(record),
        drawings=made,
        measures=results.evaluation(record),
        slices=results.slices(record),
        confusions=classified.confusions(record),
        calibrations=classified.calibrations(record),
        time_chart=time_chart,
        cost_table=cost_table,
        machine=origins.machine(record),
        commands=origins.commands(record),
        provenance=origins.provenance(record),
    )


def write_report(run: Path) -> Path:
    """Write ``report.html`` into a run directory, finished or in progress.

    A reader sees the old page or the new one, never half a page.

    Args:
        run: The run directory.

    Returns:
        The path of the page.

    Raises:
        ModelwrightError: ``run`` is not a directory.
        MachineError: The page cannot be written (no space, no permission).
    """
    target = run / "report.html"
    put(target, render(read_record(run)))
    return target


def put(target: Path, page: str) -> None:
    """Write a page; a reader sees the old one or the new one, of however many writers.

    Raises:
        MachineError: it cannot be written (no space, no permission).
    """
    draft: str | None = None
    try:
        handle, draft = tempfile.mkstemp(dir=target.parent, prefix=".report-", suffix=".html")
        with os.fdopen(handle, "wb") as stream:
            stream.write(page.encode("utf-8", errors="replace"))  # lone surrogates
        Path(draft).chmod(0o644)
        Path(draft).replace(target)
    except OSError as error:
        if draft:
            Path(draft).unlink(missing_ok=True)
        reason = error.strerror or error
        raise MachineError(
            f"{target}: cannot write the report ({reason}); free space or allow writing there"
        ) from error
