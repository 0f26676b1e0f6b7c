"""The process in which a program of a model is run against its tests; ``child.py`` speaks to it.

Arguments: seconds of processor time, megabytes of memory. A request is a mark, a zero byte and a
Python program that ends with its tests; the answer is "+" and the mark when the program has run to
its end, or "-" and why it has not. It answers one request: what a program leaves behind in the
process is never met by another.

Before the request is read the process loses the right to open, to connect, to fork and to signal
(``system_calls.py``), and to hold more memory or processor time than it is told.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import resource
import signal
import sys
from types import ModuleType
from typing import Any

from modelwright.data.page_child import frame, send
from modelwright.data.system_calls import confine

# What programs may import: no file can be opened any more when they ask for it.
PRELOADED = [
    "abc",
    "array",
    "base64",
    "bisect",
    "calendar",
    "cmath",
    "collections",
    "collections.abc",
    "contextlib",
    "copy",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "hashlib",
    "heapq",
    "io",
    "itertools",
    "json",
    "keyword",
    "math",
    "numbers",
    "operator",
    "pprint",
    "queue",
    "random",
    "re",
    "statistics",
    "string",
    "struct",
    "textwrap",
    "time",
    "typing",
    "unicodedata",
    "warnings",
    "zlib",
]


class Given(importlib.abc.InspectLoader):
    """A module whose source is at hand."""

    def __init__(self, source: str) -> None:
        self.source = source

    def get_source(self, fullname: str) -> str:  # noqa: ARG002 - there is one
        """The source."""
        return self.source


class Nothing:
    """A file into which everything may be written, and is forgotten."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        """Forget a text."""
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Forget texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """There is nothing to flush."""

    def isatty(self) -> bool:
        """It is no terminal."""
        return False

    def readline(self, size: int = -1) -> str:  # noqa: ARG002 - nothing comes
        """Nothing."""
        return ""

    read = readline


def outcome(source: str) -> str:
    """Run a program to its end; why it did not come there, empty where it did."""
    loader = Given(source)
    spec = importlib.util.spec_from_loader("program", loader)
    assert spec is not None  # noqa: S101 - made of a loader
    module = ModuleType("program")
    module.__spec__ = spec
    try:
        loader.exec_module(module)
    except MemoryError:
        return "uses too much memory"
    except RecursionError:
        return "calls itself without end"
    except BaseException as error:  # it may raise what it likes, SystemExit too
        said = " ".join(str(error).split())
        return f"{type(error).__name__}: {said}"[:300]
    return ""


def limit(seconds: float, megabytes: int) -> None:
    """Processor time, memory and files of this process, beyond which the kernel ends it."""
    whole = int(seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (whole, whole + 1))
    resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
    for none in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
        resource.setrlimit(none, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))


def main(seconds: float, megabytes: int) -> None:
    """Answer one request."""
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    for name in PRELOADED:
        importlib.import_module(name)
    os.chdir("/")
    limit(seconds, megabytes)
    try:
        confine(signal.SIGKILL)
    except OSError as error:
        send(stdout, str(error).encode())
        return
    send(stdout, b"")
    request = frame(stdin)
    if request is None:
        return
    mark, _, source = request.partition(b"\0")
    sys.stdin = sys.stdout = sys.stderr = Nothing()
    signal.setitimer(signal.ITIMER_PROF, seconds)
    why = outcome(source.decode("utf-8", "replace"))
    signal.setitimer(signal.ITIMER_PROF, 0)
    send(stdout, b"-" + why.encode("utf-8", "replace") if why else b"+" + mark)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
