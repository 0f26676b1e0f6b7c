"""A small corpus of real text, the standard library's own sources, with copies planted in it."""

from __future__ import annotations

import argparse
import ast
import calendar
import csv
import difflib
import hashlib
import inspect
import json
import os
import shlex
import string
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import modelwright

PACKAGE = Path(modelwright.__file__).parents[1]
MODULES: tuple[ModuleType, ...] = (
    argparse, ast, calendar, csv, difflib, inspect, shlex, string, textwrap
)  # fmt: skip
LETTER = "Write to alice@example.com or call +49 30 901820, and do it before the end of May.\n"
SPEC = """\
name: library
seed: 3
sources:
  - path: {folder}/pieces
    reader: {{jsonl: {{key: id}}}}
    license: PSF-2.0
  - path: {folder}/notes
    license: CC0-1.0
steps: [repair, pii]
deduplicate: 0.8
split: {{validation: 0.2, test: 0.2}}
tokenizer: {{vocabulary: 400}}
"""


def pieces(module: ModuleType) -> list[dict[str, str]]:
    """The source of a module in pieces of 40 lines."""
    lines = inspect.getsource(module).splitlines(keepends=True)
    return [
        {"id": f"{module.__name__}:{i}", "text": "".join(lines[i : i + 40])}
        for i in range(0, len(lines), 40)
    ]


def make_sources(folder: Path, modules: tuple[ModuleType, ...] = MODULES) -> Path:
    """Write JSON lines, a file a module, and two notes; returns the description of the corpus."""
    (folder / "pieces").mkdir(parents=True)
    (folder / "notes").mkdir()
    for module in modules:
        rows = pieces(module)
        copy = dict(rows[0], id=f"{module.__name__}:copy")
        near = dict(rows[1], id=f"{module.__name__}:near", text=rows[1]["text"] + "# the end\n")
        lines = [json.dumps(row) + "\n" for row in [*rows, copy, near]]
        (folder / "pieces" / f"{module.__name__}.jsonl").write_text("".join(lines))
    (folder / "notes" / "letter.txt").write_text(LETTER)
    (folder / "notes" / "other.txt").write_text(string.__doc__ or "")
    spec = folder / "library.yaml"
    spec.write_text(SPEC.format(folder=folder))
    return spec


def tree(corpus: Path) -> dict[str, str]:
    """Every file of a corpus that has to be the same however it was made -> SHA-256."""
    apart = ("lock", "timing", "tmp", "report.html", "report.json", "previous.json")
    return {
        path.relative_to(corpus).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(corpus.rglob("*"))
        if path.is_file() and path.relative_to(corpus).parts[0] not in apart
    }


def start(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """``modelwright data ARGUMENTS`` as a process of its own."""
    paths = [str(PACKAGE), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in paths if p)}
    return subprocess.Popen(
        [sys.executable, "-m", "modelwright", "data", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,  # type: ignore[call-overload]
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, output and errors of a process, once it has ended."""
    said, wrong = process.communicate(timeout=300)
    return process.returncode, said, wrong
