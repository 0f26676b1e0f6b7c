"""Check what no other linter checks: file lengths, and calls that open the door to foreign code.

Run from anywhere: ``python scripts/check_tree.py [FOLDER]``. Exit code 1 names every finding.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

MAX_LINES = 500
MEASURED = {".py", ".sh", ".html", ".css", ".js", ".yaml"}
FOLDERS = ("src", "tests", "benchmarks", "scripts", "examples")
BANNED_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve"}
BANNED_NAMES = {"torch.load", "os.system"}
BANNED_CALLS = {"eval", "exec"}
ONLY_FALSE = {"shell", "allow_pickle", "trust_remote_code"}


def too_long(path: Path) -> Iterator[str]:
    """Say when a file has more lines than one person wants to read."""
    lines = len(path.read_text(encoding="utf-8").splitlines())
    if lines > MAX_LINES:
        yield f"{path}: {lines} lines, at most {MAX_LINES} are allowed; split it"


def banned(path: Path) -> Iterator[str]:
    """Name every import, call or keyword that can run code hidden in data.

    The syntax tree is asked, not the text, so that a comment may speak of what is banned.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        for what in sorted(_offences(node)):
            yield f"{path}:{getattr(node, 'lineno', 1)}: {what} is banned (see CONTRIBUTING.md)"


def _offences(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {a.name for a in node.names if a.name.split(".")[0] in BANNED_MODULES}
    if isinstance(node, ast.ImportFrom):
        module = node.module or ""
        if module.split(".")[0] in BANNED_MODULES:
            return {module}
        return {f"{module}.{a.name}" for a in node.names} & BANNED_NAMES
    if isinstance(node, ast.Attribute):
        return {ast.unparse(node)} & BANNED_NAMES
    if isinstance(node, ast.Call):
        found = {ast.unparse(node.func)} & BANNED_CALLS
        for keyword in node.keywords:
            literal = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            if keyword.arg in ONLY_FALSE and not literal:
                found.add(f"{keyword.arg}={ast.unparse(keyword.value)}")
        return found
    return set()


def findings(root: Path) -> Iterator[str]:
    """All findings of a tree, in the order of their paths."""
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in MEASURED and path.is_file():
                yield from too_long(path)
            if folder == "src" and path.suffix == ".py":
                yield from banned(path)


def main(root: Path) -> int:
    """Print the findings; 0 when there are none."""
    found = list(findings(root))
    for line in found:
        print(line)
    print(f"check_tree: {len(found)} findings" if found else "check_tree: nothing found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent))
