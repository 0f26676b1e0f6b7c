"""Make the pictures of the README from a real run: its output as SVG, its report as PNG.

``modelwright run quickstart 2>&1 | tee run.log``, then
``python scripts/make_pictures.py run.log runs/quickstart``. The SVG is plain text in a drawn
window: no font, script or address from elsewhere. Of each training a few lines of progress are
kept, and lines about encoding are left out; everything else is shown as it was printed. The
PNG needs Chromium and is left alone, with a word, where there is none.
"""

from __future__ import annotations

import argparse
import html
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

COLUMNS = 104
CHARACTER, LINE, MARGIN, BAR = 7.85, 19, 18, 34  # pixels
KEPT = 4  # lines of progress a training
PROGRESS = re.compile(r"(\w+): \d+/\d+  ")
COLOURS = {"prompt": "#7ee787", "stage": "#79c0ff", "result": "#ffffff", "plain": "#c9d1d9"}
STYLE = "font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def chosen(lines: Iterable[str]) -> Iterator[str]:
    """The lines to show: of each run of progress lines only some, and none about encoding."""
    pending: list[str] = []
    for line in [*lines, ""]:
        if pending and not PROGRESS.match(line):
            yield from _some(pending)
            pending = []
        if PROGRESS.match(line):
            pending.append(line)
        elif ": encoding " not in line and ": hashing " not in line:
            yield line


def _some(lines: Sequence[str]) -> list[str]:
    last = len(lines) - 1
    places = sorted({round(i * last / (KEPT - 1)) for i in range(KEPT)})
    return [lines[i] for i in places]


def wrapped(line: str) -> list[str]:
    """A line cut to COLUMNS characters, between figures where it has some."""
    pieces = [""]
    for part in re.split(r"(?<=\S)(?=   \S)", line):
        if len(pieces[-1] + part) > COLUMNS and pieces[-1]:
            pieces.append("    " + part.strip())
        else:
            pieces[-1] += part
    return [
        cut
        for piece in pieces
        for cut in textwrap.wrap(
            piece,
            COLUMNS,
            subsequent_indent="    ",
            replace_whitespace=False,
            drop_whitespace=False,
        )
        or [""]
    ]


def coloured(lines: Iterable[str]) -> Iterator[list[tuple[str, str]]]:
    """Lines of at most COLUMNS characters, each as (colour, text) pieces."""
    answering = False
    for line in lines:
        pieces = wrapped(line)
        answering = answering or line.startswith("> ")
        stage, colon, _ = line.partition(":")
        known = bool(colon) and stage.isalpha()
        for i, piece in enumerate(pieces):
            if line.startswith(("$ ", "> ")):
                yield [("prompt", piece)]
            elif answering or "is better)" in line:
                head = f"{stage}:" if known and i == 0 and not answering else ""
                yield [("stage", head), ("result", piece.removeprefix(head))]
            elif known and i == 0:
                yield [("stage", f"{stage}:"), ("plain", piece[len(stage) + 1 :])]
            else:
                yield [("plain", piece)]


def drawn(lines: Sequence[list[tuple[str, str]]], title: str) -> str:
    """An SVG of a terminal window with these lines."""
    width = round(COLUMNS * CHARACTER + 2 * MARGIN)
    height = BAR + len(lines) * LINE + MARGIN
    rows = []
    for i, line in enumerate(lines):
        spans = "".join(
            f'<tspan fill="{COLOURS[colour]}">{_solid(text)}</tspan>'
            for colour, text in line
            if text
        )
        rows.append(f'<text x="{MARGIN}" y="{BAR + (i + 1) * LINE - 5}">{spans}</text>')
    dots = "".join(
        f'<circle cx="{MARGIN + 2 + 18 * i}" cy="17" r="5.5" fill="{colour}"/>'
        for i, colour in enumerate(("#ff5f56", "#ffbd2e", "#27c93f"))
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img">',
            f"<title>{html.escape(title)}</title>",
            f'<rect width="{width}" height="{height}" rx="9" fill="#0d1117"/>',
            dots,
            f'<g style="{STYLE}">',
            *rows,
            "</g>",
            "</svg>",
            "",
        ]
    )


def _solid(text: str) -> str:
    """Text for an SVG, whose viewers would join spaces that are not solid ones."""
    return html.escape(text, quote=False).replace(" ", "\N{NO-BREAK SPACE}")


def photograph(page: Path, picture: Path, size: tuple[int, int]) -> str:
    """Take the top of a page with headless Chromium; say what happened."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        return f"{picture}: left as it is, Chromium is missing"
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(  # noqa: S603 - a browser found on PATH and a local file
            [
                browser,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                f"--user-data-dir={profile}",
                f"--window-size={size[0]},{size[1]}",
                f"--screenshot={picture.resolve()}",
                page.resolve().as_uri(),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )
    return f"{picture}: {picture.stat().st_size:,} bytes"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make both pictures; returns the exit code."""
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description="Make the pictures of the README.")
    parser.add_argument("log", type=Path, help="what the run printed")
    parser.add_argument("run", type=Path, help="its directory")
    parser.add_argument("--command", default="make quickstart", help="shown as the first line")
    parser.add_argument("--folder", type=Path, default=root / "docs" / "images")
    asked = parser.parse_args(arguments)
    asked.folder.mkdir(parents=True, exist_ok=True)
    lines = asked.log.read_text(encoding="utf-8").rstrip().splitlines()
    shown = list(coloured(chosen([f"$ {asked.command}", *lines])))
    while shown and shown[-1] == [("plain", "")]:
        shown.pop()
    picture = asked.folder / "quickstart.svg"
    picture.write_text(drawn(shown, f"What `{asked.command}` prints"), encoding="utf-8")
    print(f"{picture}: {picture.stat().st_size:,} bytes, {len(shown)} lines")
    print(photograph(asked.run / "report.html", asked.folder / "report.png", (1180, 1240)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
