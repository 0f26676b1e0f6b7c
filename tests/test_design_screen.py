"""`modelwright design` on a terminal: nothing is cut, wraps or touches, numbers have units."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys

import pytest

from modelwright.design_commands import lines
from modelwright.models.model import config_class, families
from modelwright.pipeline.design import design

NAMED = [family for family in families() if config_class(family).sizes]


@pytest.mark.parametrize("family", NAMED)
def test_the_smallest_of_the_published_fits_80_columns_and_says_its_units(family: str) -> None:
    cls = config_class(family)
    smallest = next(iter(cls.sizes))
    long = "context" in {f.name for f in dataclasses.fields(cls)}
    made = design(family, ["context=256"] * long, size=smallest)
    for columns in (60, 80):
        text = list(lines(made, columns))
        assert max(map(len, text)) <= columns
    table = [line for line in text if line.endswith("%")]
    assert len(table) == len(made.lines)
    for line, row in zip(made.lines, table, strict=True):
        assert row.split()[0] == line.name and "…" not in row  # nothing is cut at 80 columns
        assert f"  {line.parameters:,} " in row  # and no two cells touch
    compute = next(line for line in text if line.startswith("compute"))
    assert re.search(r"FLOP per \w", compute)
    memory = next(line for line in text if line.startswith("memory"))
    assert re.search(r"in [GM]iB;", memory)


def test_small_models_are_told_in_mebibytes() -> None:
    small, large = ("\n".join(lines(design(f, size=s))) for f, s in (("mlp", None), ("gpt2", None)))
    assert re.search(r"in MiB; of it weights 0\.4, ", small)
    assert "in GiB; of it weights 0." in large
    assert "hidden=[128,64]" in small  # as it would be given


def test_on_a_terminal_of_80_columns_no_line_wraps() -> None:
    pty, termios = (pytest.importorskip(name) for name in ("pty", "termios"))
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    command = [sys.executable, "-m", "modelwright", "design", "resnet", "--size", "resnet50"]
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, env={**environment, "TERM": "xterm"}
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux's way to say that the other end is closed
                break
            if not part:
                break
            shown += part
    os.close(ours)
    assert process.returncode == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    rows = plain.split("\r\n")
    assert len(rows) > 30 and max(map(len, rows)) <= 80
    assert "\x1b[1m" in shown.decode()  # first words are marked
