"""Draw the rooms of the package and who imports whom into docs/architecture.md.

Read from the syntax trees, nothing of the package is imported. A room is a module or a package
directly below ``modelwright``. Every import counts, those inside functions as well; what stands
below ``if TYPE_CHECKING`` does not, and modules that are found by their name (tasks, families)
are not seen. The drawing leaves out an edge where a longer way leads to the same room; the table
has all of them. Beside it stand figures of every room, which change with every edit: they are
written anew with the drawing, and a page is not stale because of them.

Run: ``python scripts/make_map.py`` rewrites the page. ``--check`` writes nothing and exits with 1
when the drawing is stale or rooms or modules import each other in a circle. ``--figures`` prints
the figures of today.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

BEGIN = "<!-- map: made by scripts/make_map.py, do not edit below -->"
FIGURES = "<!-- map: figures of the day it was drawn, not checked -->"
END = "<!-- map: end -->"
DOORS = {"__init__", "__main__"}  # of the package itself: they belong to no room

Graph = dict[str, set[str]]


@dataclass
class Module:
    """One file: what it imports of the package, and its figures.

    ``imports`` has a pair for every name that is taken from another module: (module, name).
    """

    name: str
    lines: int
    public: set[str]
    longest: tuple[int, str]  # lines of its longest function, and that function's name
    imports: set[tuple[str, str]] = field(default_factory=set)

    @property
    def room(self) -> str:
        """The first part of its name."""
        return self.name.partition(".")[0]


def modules(package: Path) -> dict[str, Module]:
    """Every module of a package by its dotted name without the package's own, in order."""
    paths = {_dotted(path.relative_to(package)): path for path in package.rglob("*.py")}
    found = {}
    for name, path in sorted(paths.items()):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text, str(path))
        length = max(_functions(tree.body, ""), default=(0, "none"))
        module = Module(name, len(text.splitlines()), set(_public(tree.body)), length)
        module.imports = _imports(tree, package.name, name, set(paths))
        found[name] = module
    return found


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _public(body: Sequence[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def _functions(body: Sequence[ast.stmt], prefix: str) -> Iterator[tuple[int, str]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _functions(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (node.end_lineno or node.lineno) - node.lineno + 1, prefix + node.name


def _imports(tree: ast.Module, package: str, name: str, known: set[str]) -> set[tuple[str, str]]:
    """What a module takes of the others: (module, name), the name "" for a module as a whole."""
    found: set[tuple[str, str]] = set()
    called: dict[str, str] = {}  # what a module is called here -> its dotted name
    for node in _running(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first, _, rest = alias.name.partition(".")
                if first == package and rest in known:
                    found.add((rest, ""))
        elif isinstance(node, ast.ImportFrom) and not node.level:
            first, _, rest = (node.module or "").partition(".")
            for alias in node.names if first == package else ():
                inner = f"{rest}.{alias.name}" if rest else alias.name
                if inner in known:
                    called[alias.asname or alias.name] = inner
                    found.add((inner, ""))
                elif rest:
                    found.add((rest, alias.name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used = called.get(node.value.id)
            if used and f"{used}.{node.attr}" not in known:
                found.add((used, node.attr))
    return {(module, taken) for module, taken in found if module != name}


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for other in node.orelse:
                yield other
                yield from _running(other)
            continue
        yield node
        yield from _running(node)


def rooms_of(found: Mapping[str, Module]) -> Graph:
    """Room -> the rooms that it imports from."""
    rooms = sorted({m.room for m in found.values()} - DOORS)
    graph: Graph = {room: set() for room in rooms}
    for module in found.values():
        if module.room in graph:
            graph[module.room] |= {other.partition(".")[0] for other, _ in module.imports}
    return {room: (others & set(rooms)) - {room} for room, others in graph.items()}


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Members that reach each other, group by group; empty where there is no circle."""
    reach = {name: reached(graph, name) for name in graph}
    seen: set[str] = set()
    groups = []
    for name in sorted(graph):
        if name in seen or name not in reach[name]:
            continue
        group = sorted(n for n in reach[name] if name in reach.get(n, ()))
        seen |= set(group)
        groups.append(group)
    return groups


def reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """Everything that is imported by ``start``, directly or not."""
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += graph.get(name, ())
    return found


def drawn(graph: Graph) -> Graph:
    """The same order with the fewest edges: none where a longer way leads to the same room."""
    return {
        room: {o for o in others if not any(o in reached(graph, x) for x in others - {o})}
        for room, others in graph.items()
    }


def heights(graph: Graph) -> dict[str, int]:
    """How many rooms stand one upon another below each."""
    found: dict[str, int] = {}

    def height(room: str) -> int:
        if room not in found:
            found[room] = 1 + max((height(other) for other in graph[room]), default=0)
        return found[room]

    for room in sorted(graph):
        height(room)
    return found


def the_map(graph: Graph) -> str:
    """The drawing, and the table of all edges, highest rooms first."""
    high = heights(graph)
    order = sorted(graph, key=lambda room: (-high[room], room))
    lines = ["```mermaid", "flowchart TD"]
    for room, others in ((room, drawn(graph)[room]) for room in order):
        lines += [f"  {room} --> {other}" for other in sorted(others)]
    lines += ["```", "", "| room | imports from |", "|---|---|"]
    for room in order:
        below = ", ".join(f"`{o}`" for o in sorted(graph[room], key=order.index))
        lines.append(f"| `{room}` | {below or 'nothing'} |")
    return "\n".join(lines)


def figures(found: Mapping[str, Module], graph: Graph) -> str:
    """A line a room: files, lines, public names, those used elsewhere, the longest."""
    high = heights(graph)
    used = {(m.room, *taken) for m in found.values() for taken in m.imports if taken[1]}
    heads = ("room", "files", "lines", "public names", "used elsewhere", "longest file")
    lines = [f"| {' | '.join(heads)} | longest function |", "|---" * (len(heads) + 1) + "|"]
    for room in sorted(graph, key=lambda room: (-high[room], room)):
        inside = [m for m in found.values() if m.room == room]
        public = sum(len(m.public) for m in inside)
        elsewhere = {(m, n) for by, m, n in used if m.partition(".")[0] == room != by}
        file = max(inside, key=lambda m: (m.lines, m.name))
        function = max(inside, key=lambda m: (m.longest, m.name))
        cells = [f"`{room}`", str(len(inside)), f"{sum(m.lines for m in inside):,}", str(public)]
        cells += [str(len(elsewhere)), f"`{file.name}` {file.lines}"]
        cells += [f"`{function.name}:{function.longest[1]}` {function.longest[0]}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def renewed(page: str, found: Mapping[str, Module]) -> str:
    """The page with its made part made anew.

    Raises:
        ValueError: the page lacks one of the marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the marks {BEGIN!r} and {END!r} are not both there, in this order")
    graph = rooms_of(found)
    made = f"{the_map(graph)}\n\n{FIGURES}\n\n{figures(found, graph)}"
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


def checked_part(page: str) -> str:
    """The page without the figures, which may be older than the code."""
    return re.sub(f"{re.escape(FIGURES)}.*?{re.escape(END)}", "", page, flags=re.S)


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the page, check it, or print the figures; returns the exit code."""
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description="Draw or check the map of the rooms.")
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 when stale")
    parser.add_argument("--figures", action="store_true", help="print the figures of every room")
    parser.add_argument("--page", type=Path, default=root / "docs" / "architecture.md")
    parser.add_argument("--package", type=Path, default=root / "src" / "modelwright")
    asked = parser.parse_args(arguments)
    found = modules(asked.package)
    graph = rooms_of(found)
    inner = {name: {other for other, _ in m.imports} for name, m in found.items()}
    if groups := [*circles(graph), *circles(inner)]:
        for group in groups:
            print(f"make_map: {', '.join(group)} import each other in a circle; break it")
        return 1
    if asked.figures:
        print(figures(found, graph))
        return 0
    page = asked.page.read_text(encoding="utf-8")
    fresh = renewed(page, found)
    if asked.check and checked_part(fresh) != checked_part(page):
        print(f"{asked.page}: the map is not that of the code; run scripts/{Path(__file__).name}")
        return 1
    if asked.check:
        print("make_map: up to date")
        return 0
    asked.page.write_text(fresh, encoding="utf-8")
    print(f"make_map: wrote {asked.page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
