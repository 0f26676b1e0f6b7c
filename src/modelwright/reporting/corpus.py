"""Write ``report.json`` and ``report.html`` of a corpus: what came in, what stayed, and why.

The page is like that of a run: self-contained, without scripts or requests, and everything that
comes from the data is escaped; personal data in samples are masked whether or not the corpus was
asked to mask them. The report before is kept as ``report.previous.json`` and compared.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.reporting import corpus_facts, corpus_page, corpus_sheet
from modelwright.reporting.blocks import shorten
from modelwright.reporting.record import mapping
from modelwright.reporting.report import dressed, put

JSON, BEFORE, PAGE = "report.json", "report.previous.json", "report.html"


def write_report(folder: Path) -> Path:
    """Write the report of a corpus, finished or not.

    Args:
        folder: the corpus.

    Returns:
        The path of the page.

    Raises:
        ModelwrightError: ``folder`` is no corpus.
        CorruptError: a commit record is damaged.
        MachineError: the report cannot be written.
    """
    if not (folder / "stages").is_dir():
        raise ModelwrightError(
            f"{folder}: no corpus here (no folder stages); name the folder that `modelwright data "
            "run` made"
        )
    report = corpus_facts.collect(folder)
    before = _earlier(folder, report)
    content = json.dumps(report, indent=1, ensure_ascii=True) + "\n"
    put(folder / JSON, content)
    page = render(report, before, corpus_sheet.sheets(folder, report["spec"]))
    put(folder / PAGE, page)
    return folder / PAGE


def render(report: dict[str, Any], before: dict[str, Any], sheets: list[tuple[str, str]]) -> str:
    """The page as text.

    Args:
        report: what ``corpus_facts.collect`` found.
        before: the report of the run before; empty where there was none.
        sheets: (name, data URI) of the contact sheets of augmentation.
    """
    return dressed(
        "corpus.html",
        name=shorten(report["name"], 200),
        cards=corpus_page.cards(report),
        sections=corpus_page.sections(report, before),
        samples=corpus_page.samples(report),
        clusters=corpus_page.clusters(report),
        sheets=sheets,
    )


def _earlier(folder: Path, report: dict[str, Any]) -> dict[str, Any]:
    """The report before this one; the same corpus reported again keeps the one it has."""
    last = _read(folder / JSON)
    if last and last.get("fingerprints") != report["fingerprints"]:
        put(folder / BEFORE, json.dumps(last, indent=1) + "\n")
    return _read(folder / BEFORE)


def _read(path: Path) -> dict[str, Any]:
    try:
        return mapping(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return {}
