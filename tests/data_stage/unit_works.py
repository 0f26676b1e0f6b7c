"""Work for units in tests: what a worker does, and what may befall it."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

from modelwright.errors import ModelwrightError


def write(arguments: dict[str, Any], out: Path) -> dict[str, Any]:
    """Write a word; count in a file beside the corpus how often that was done."""
    with (Path(arguments["corpus"]).parent / "done.txt").open("a") as log:
        log.write(f"{arguments['word']}\n")
    (out / "inner").mkdir()
    (out / "inner" / "word.txt").write_text(arguments["word"].upper())
    return {"letters": len(arguments["word"]), "timing": {"pid": os.getpid()}}


def join(arguments: dict[str, Any], out: Path) -> dict[str, Any]:
    """Join what the units it reads have written."""
    stages = Path(arguments["corpus"]) / "stages" / "words"
    words = [(stages / name / "inner" / "word.txt").read_text() for name in arguments["names"]]
    with (Path(arguments["corpus"]).parent / "done.txt").open("a") as log:
        log.write("join\n")
    (out / "all.txt").write_text(" ".join(words))
    return {"words": len(words)}


def die(arguments: dict[str, Any], out: Path) -> dict[str, Any]:
    """Be killed as often as ``times`` says, then do it."""
    counted = Path(arguments["corpus"]).parent / f"deaths-{arguments['word']}"
    deaths = counted.stat().st_size if counted.exists() else 0
    (out / "half.txt").write_text("half")
    if deaths < arguments["times"]:
        counted.write_text("x" * (deaths + 1))
        os.kill(os.getpid(), signal.SIGKILL)
    (out / "half.txt").write_text("whole")
    return {"deaths": deaths}


def fail(arguments: dict[str, Any], out: Path) -> dict[str, Any]:
    """Raise what ``how`` says."""
    (out / "half.txt").write_text("half")
    if arguments["how"] == "told":
        raise ModelwrightError("line 3: is wrong; mend it")
    if arguments["how"] == "memory":
        raise MemoryError
    if arguments["how"] == "nan":
        return {"share": float("nan")}
    return {"share": 1 / (arguments["how"] == "never")}


def loud(arguments: dict[str, Any], out: Path) -> dict[str, Any]:
    """Print, as libraries do, and return many facts."""
    print("library says hello")
    os.write(1, b"so does its C part\n")
    (out / "a.bin").write_bytes(bytes(range(256)))
    return {"numbers": list(range(100_000))}


def stuck(arguments: dict[str, Any], out: Path) -> dict[str, Any]:
    """Say who we are, then never come back, and let no other thread of the process run."""
    with (Path(arguments["corpus"]).parent / "stuck.txt").open("a") as log:
        log.write(f"{os.getpid()}\n")
    return {"never": bool(re.match(r"(a+)+$", "a" * 60 + "b"))}
