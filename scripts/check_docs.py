"""Check that the documents tell the truth about the tree: every link and reference resolves.

Checked in ``*.md`` at the root and below ``docs/``:

- relative links and images: the file exists, ``#heading`` names one of its headings, and
  ``#L10`` or ``#L10-L20`` names lines that it has;
- references to code such as ``src/modelwright/types.py:Ragged.of`` (a class, function, method
  or constant of that file) or ``src/modelwright/types.py:12`` (a line).

Run from anywhere: ``python scripts/check_docs.py [FOLDER]``. Exit code 1 names every finding.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|^[ \t]*\[[^\]]+\]:\s+(\S+)", re.M)
CODE_REFERENCE = re.compile(
    r"(?<![\w/.])((?:src|tests|benchmarks|scripts)/[\w./-]+\.py):([A-Za-z_][\w.]*\w|\w+)"
)
FENCE = re.compile(r"^[ \t]*(```+|~~~+).*?^[ \t]*\1[ \t]*$", re.M | re.S)
HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t]*#*$", re.M)
LINES = re.compile(r"L(\d+)(?:-L(\d+))?")


def blanked(text: str) -> str:
    """The text with fenced blocks turned into spaces, every character where it was."""
    return FENCE.sub(_spaces, text)


def _spaces(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match.group())


def anchors(text: str) -> set[str]:
    """The link targets that a page's headings make, as code hosts spell them."""
    found: set[str] = set()
    for heading in HEADING.findall(blanked(text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        name, number = slug, 0
        while name in found:
            number += 1
            name = f"{slug}-{number}"
        found.add(name)
    return found


def names(source: str) -> set[str]:
    """What a Python file defines: top-level names, and ``Class.member`` to any depth."""
    return set(_defined(ast.parse(source).body, ""))


def _defined(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from _defined(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield from (prefix + n.id for n in ast.walk(target) if isinstance(n, ast.Name))
        elif isinstance(node, ast.If | ast.Try):
            yield from _defined([*node.body, *node.orelse], prefix)


def link_problem(page: Path, target: str) -> str | None:
    """Why a link of ``page`` leads nowhere, or None. Links to other hosts are not followed."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", target):
        return None
    place, _, fragment = target.partition("#")
    path = page.parent / unquote(place) if place else page
    if not path.exists():
        return f"link to {target}: there is no {place}"
    if not fragment or path.is_dir():
        return None
    text = path.read_text(encoding="utf-8")
    if match := LINES.fullmatch(fragment):
        last = max(int(n) for n in match.groups() if n)
        return _line_problem(target, last, text)
    if path.suffix == ".md" and unquote(fragment) not in anchors(text):
        return f"link to {target}: {path.name} has no heading #{unquote(fragment)}"
    return None


def code_problem(root: Path, file: str, name: str) -> str | None:
    """Why ``file:name`` names nothing, or None."""
    path = root / file
    if not path.is_file():
        return f"{file}:{name}: there is no {file}"
    text = path.read_text(encoding="utf-8")
    if name.isdigit():
        return _line_problem(f"{file}:{name}", int(name), text)
    return None if name in names(text) else f"{file}:{name}: {file} does not define {name}"


def _line_problem(reference: str, line: int, text: str) -> str | None:
    count = len(text.splitlines())
    return None if 1 <= line <= count else f"{reference}: the file has {count} lines"


def findings(root: Path) -> Iterator[str]:
    """All findings of a tree's documents, in the order of their pages."""
    for page in [*sorted(root.glob("*.md")), *sorted((root / "docs").rglob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        prose = re.sub(r"`[^`\n]*`", _spaces, blanked(text))
        found = [
            (match.start(), link_problem(page, match.group(1) or match.group(2)))
            for match in LINK.finditer(prose)
        ]
        found += [
            (match.start(), code_problem(root, match.group(1), match.group(2)))
            for match in CODE_REFERENCE.finditer(text)
        ]
        for start, problem in sorted((s, p) for s, p in found if p):
            line = text.count("\n", 0, start) + 1
            yield f"{page.relative_to(root)}:{line}: {problem}"


def main(root: Path) -> int:
    """Print the findings; 0 when there are none."""
    found = list(findings(root))
    for line in found:
        print(line)
    print(f"check_docs: {len(found)} findings" if found else "check_docs: nothing found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent))
