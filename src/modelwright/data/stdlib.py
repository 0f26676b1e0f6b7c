"""The Python standard library as a corpus: its source, its docstrings, its language topics.

Every Python carries it, so the main recipe needs no download. Modules are parsed, never
imported. Content: PSF licence.
"""

from __future__ import annotations

import ast
import copy
import gc
import io
import os
import sys
import sysconfig
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelwright.errors import ModelwrightError
from modelwright.types import Row

SKIPPED_FOLDERS = {
    *("test", "tests", "idle_test"),
    *("site-packages", "dist-packages", "_bundled", "lib-dynload", "__pycache__"),
    *("lib2to3", "__phello__"),
}
SKIPPED_PREFIXES = ("config-", "_sysconfigdata")  # how this very Python was built
TOPICS = "pydoc_data.topics"

# What users type for what is implemented elsewhere.
PUBLIC_MODULES = {
    "posixpath": "os.path",
    "_collections_abc": "collections.abc",
    "_py_abc": "abc",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "_pyio": "io",
    "_strptime": "time",
    "_threading_local": "threading",
    "_weakrefset": "weakref",
    "pathlib._local": "pathlib",
}
# Implementation twins say the same in nearly the same words: one side of a split for each set.
GROUPS = {
    "posixpath": "os",
    "ntpath": "os",
    "genericpath": "os",
    "nturl2path": "urllib",
    "_compat_pickle": "pickle",
    "pickletools": "pickle",
    "_collections_abc": "collections",
    "_strptime": "datetime",
    "_weakrefset": "weakref",
    "_markupbase": "html",
    "_bootsubprocess": "subprocess",
    "_osx_support": "distutils",
    "_aix_support": "distutils",
    "_opcode_metadata": "dis",
    "opcode": "dis",
    "_pyrepl": "code",
    "codeop": "code",
    "imp": "importlib",
    "zipimport": "importlib",
    "sre_compile": "re",
    "sre_constants": "re",
    "sre_parse": "re",
    "cProfile": "profile",
    "cgitb": "cgi",
    "turtledemo": "turtle",
    "asynchat": "asyncore",
    "smtpd": "asyncore",
    "bz2": "compression",
    "gzip": "compression",
    "lzma": "compression",
    "_compression": "compression",
}


def stdlib_rows(root: Path | None = None) -> list[Row]:
    """The rows of the standard library of the running Python, files in sorted order.

    All rows have ``id``, ``kind``, ``text``, ``module`` (where it is defined) and ``group`` (the
    top-level module, twins joined). ``kind`` is one of

    - "source": a whole module file.
    - "object": a documented module, class, function or method: ``object_kind`` says which;
      ``qualname``, ``full_name`` (what users type), ``public`` (no part of that name is
      private), ``signature``, ``docstring``, ``source`` (its definition without the docstring;
      "" for a module, whose source row has it), ``text`` (full name, arguments and docstring).
    - "topic": one entry of the language reference that ``help()`` shows.

    Args:
        root: The folder of the library; the running Python's if None.

    Raises:
        ModelwrightError: There are no sources, or one cannot be decoded.
    """
    root = stdlib_root() if root is None else root
    files = module_files(root)
    if not files:
        raise ModelwrightError(
            f"{root}: no .py files here: this Python ships without its library's source;"
            " use one that has it, such as python.org's or your system's full package"
        )
    paused = gc.isenabled()
    gc.disable()  # syntax trees are many small objects and no garbage: 2.6 s instead of 6.5 s
    try:
        return list(_rows(root, files))
    finally:
        if paused:
            gc.enable()


def _rows(root: Path, files: list[Path]) -> Iterator[Row]:
    trees = [_parse(root / file) for file in files]
    modules = [_module_name(file) for file in files]
    exports = _exports({m: tree for m, (_, tree) in zip(modules, trees, strict=True)})
    for file, module, (text, tree) in zip(files, modules, trees, strict=True):
        group = group_of(module)
        yield {
            "id": f"source:{file.as_posix()}",
            "kind": "source",
            "text": text,
            "module": module,
            "group": group,
        }
        if module == TOPICS:
            yield from _topics(tree, group)
        else:
            yield from _objects(text, tree, module, exports)


def group_of(module: str) -> str:
    """The group of a module: its top-level package, implementation twins joined."""
    top = module.partition(".")[0]
    if top in GROUPS:
        return GROUPS[top]
    for bare in (top.removeprefix("_py"), top.removeprefix("_")):
        if bare != top and bare in sys.stdlib_module_names:
            return GROUPS.get(bare, bare)
    return top


def stdlib_root() -> Path:
    """The folder of the running Python's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def module_files(root: Path) -> list[Path]:
    """The modules that are read, relative to ``root``, in a stable order."""
    found: list[Path] = []
    for folder, names, files in os.walk(root):
        names[:] = sorted(
            n for n in names if n not in SKIPPED_FOLDERS and not n.startswith(SKIPPED_PREFIXES)
        )
        found += [
            Path(folder, name).relative_to(root)
            for name in sorted(files)
            if name.endswith(".py") and not name.startswith(SKIPPED_PREFIXES)
        ]
    return found


def _module_name(file: Path) -> str:
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _parse(file: Path) -> tuple[str, ast.Module]:
    """Text and syntax tree of a module; an empty tree where this Python cannot parse it."""
    raw = file.read_bytes()
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        text = raw.decode(encoding)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ModelwrightError(
            f"{file}: cannot be decoded ({error}): remove the file or repair this Python"
        ) from error
    text = text.replace("\r\n", "\n")
    try:
        return text, ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return text, ast.Module(body=[], type_ignores=[])


def _exports(trees: dict[str, ast.Module]) -> dict[str, str]:
    """Full names that packages lift from their parts: asyncio.tasks.gather -> asyncio.gather.

    Follows ``from .tasks import *`` and ``from .tasks import gather`` in a package, read from
    the syntax alone; where several lift one name, the shortest package wins.
    """
    listed = {module: _all_names(tree) for module, tree in trees.items()}
    lifted: dict[str, str] = {}
    for package in sorted(trees, key=lambda name: name.count("."), reverse=True):
        for node in trees[package].body:
            if not isinstance(node, ast.ImportFrom):
                continue
            origin = f"{package}.{node.module}" if node.level == 1 else node.module or ""
            if node.level > 1 or not origin.startswith(package + "."):
                continue
            names = [alias.name for alias in node.names if alias.asname in (None, alias.name)]
            for name in listed.get(origin, ()) if names == ["*"] else names:
                lifted[f"{origin}.{name}"] = f"{package}.{name}"
    return lifted


def _all_names(tree: ast.Module) -> list[str]:
    """The strings a module assigns or adds to ``__all__``."""
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Assign):
            target: ast.expr = node.targets[0]
        elif isinstance(node, ast.AugAssign):
            target = node.target
        else:
            continue
        if isinstance(target, ast.Name) and target.id == "__all__":
            parts = [p.value for p in ast.walk(node.value) if isinstance(p, ast.Constant)]
            names += [p for p in parts if isinstance(p, str)]
    return names


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class _Found:
    node: Definition
    qualname: str
    kind: str  # "function", "method" or "class"


def _definitions(body: list[ast.stmt], prefix: str = "") -> Iterator[_Found]:
    """Functions and classes a user can reach by name: nothing inside a function's body."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield _Found(node, prefix + node.name, "class")
            yield from _definitions(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield _Found(node, prefix + node.name, "method" if prefix else "function")
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from _definitions(node.body, prefix)
            yield from _definitions(getattr(node, "orelse", []), prefix)
            for handler in getattr(node, "handlers", []):
                yield from _definitions(handler.body, prefix)


def _objects(text: str, tree: ast.Module, module: str, exports: dict[str, str]) -> Iterator[Row]:
    public_module = PUBLIC_MODULES.get(module, module)
    if document := ast.get_docstring(tree):
        yield _object_row(
            module,
            "",
            full_name=public_module,
            kind="module",
            called=public_module,
            document=document,
            source="",
        )
    lines = text.encode().split(b"\n")
    met: dict[str, int] = {}
    for found in _definitions(tree.body):
        document = ast.get_docstring(found.node)
        if not document:
            continue
        met[found.qualname] = met.get(found.qualname, 0) + 1
        name, dot, rest = found.qualname.partition(".")
        lifted = exports.get(f"{module}.{name}", f"{public_module}.{name}")
        row = _object_row(
            module,
            found.qualname,
            full_name=lifted + dot + rest,
            kind=found.kind,
            called=signature(found.node, found.kind),
            document=document,
            source=_source_without_docstring(lines, found.node),
        )
        again = met[found.qualname]  # a property's setter, a definition for another platform
        yield row if again == 1 else {**row, "id": f"{row['id']}#{again}"}


def _object_row(
    module: str,
    qualname: str,
    *,
    full_name: str,
    kind: str,
    called: str,
    document: str,
    source: str,
) -> Row:
    head = full_name
    if "(" in called:
        head = full_name + called[called.index("(") :]
    return {
        "id": f"object:{module}:{qualname}" if qualname else f"object:{module}",
        "kind": "object",
        "object_kind": kind,
        "module": module,
        "qualname": qualname,
        "full_name": full_name,
        "public": not any(_private(part) for part in full_name.split(".")),
        "signature": called,
        "docstring": document,
        "source": source,
        "text": f"{head}\n\n{document}\n",
        "group": group_of(module),
    }


def _private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def signature(node: Definition, kind: str) -> str:
    """How the object is called: ``join(a, *p)``, without ``self`` or ``cls``.

    A class is called as its ``__init__`` or ``__new__``; where it has neither, and for a
    property, the bare name is given.
    """
    decorators = {ast.unparse(d).rpartition(".")[2] for d in node.decorator_list}
    if isinstance(node, ast.ClassDef):
        made = {n.name: n for n in node.body if isinstance(n, ast.FunctionDef)}
        maker = made.get("__init__") or made.get("__new__")
        return f"{node.name}({_arguments(maker, bound=True)})" if maker else node.name
    if decorators & {"property", "cached_property", "setter", "getter", "deleter"}:
        return node.name
    bound = kind == "method" and "staticmethod" not in decorators
    return f"{node.name}({_arguments(node, bound=bound)})"


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef, *, bound: bool) -> str:
    arguments = copy.copy(node.args)
    if bound:
        if arguments.posonlyargs:
            arguments.posonlyargs = arguments.posonlyargs[1:]
        else:
            arguments.args = arguments.args[1:]
        room = len(arguments.posonlyargs) + len(arguments.args)
        arguments.defaults = arguments.defaults[max(0, len(arguments.defaults) - room) :]
    return ast.unparse(arguments)


def _source_without_docstring(lines: list[bytes], node: Definition) -> str:
    """The definition as written, decorators included, dedented, its docstring cut out.

    ``lines`` are the module's lines in UTF-8, for the tree counts columns in those bytes.
    """
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    last = node.end_lineno or node.lineno
    document = node.body[0]
    start, end = document.lineno, document.end_lineno or document.lineno
    before = lines[start - 1][: document.col_offset]
    after = lines[end - 1][document.end_col_offset :]
    alone = not before.strip() and not after.strip(b" \t;")
    middle = [] if alone and len(node.body) > 1 else [before + b"..." + after]
    kept = [*lines[first - 1 : start - 1], *middle, *lines[end:last]]
    indent = lines[first - 1][: len(lines[first - 1]) - len(lines[first - 1].lstrip())]
    return b"\n".join(line.removeprefix(indent) for line in kept).decode().strip("\n") + "\n"


def _topics(tree: ast.Module, group: str) -> Iterator[Row]:
    for node in tree.body:
        if not isinstance(node, ast.Assign):
            continue
        for name, text in sorted(ast.literal_eval(node.value).items()):
            yield {
                "id": f"topic:{name}",
                "kind": "topic",
                "text": text,
                "module": TOPICS,
                "group": group,
            }
