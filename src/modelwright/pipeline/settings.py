"""The folder of many runs: which one it is, and what was asked of it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from modelwright import recipe as recipes
from modelwright.errors import CorruptError, Interrupted, MachineError, ModelwrightError
from modelwright.files import make_folder, replace_file
from modelwright.runs import Run, flatten
from modelwright.training import signals


def choose_folder(
    root: Path, name: str, file: str, settings: dict[str, Any], out: Path | None
) -> Path:
    """The folder whose ``file`` holds these settings, made where there is none.

    Without ``out`` the first of NAME, NAME-2, ... under ``root`` that is free or holds the same
    settings; with it, other settings there are refused.

    Args:
        root: Where folders are looked for.
        name: What they are called.
        file: The JSON file that holds the settings, and later the results.
        settings: ``recipe`` as written and whatever else decides the result.
        out: The folder that the user chose.

    Raises:
        ModelwrightError: ``out`` holds something else.
        MachineError: The folder cannot be made.
    """
    number = 1
    while True:
        path = out or root / (name if number == 1 else f"{name}-{number}")
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            try:
                make_folder(path)
                replace_file(path / file, written(settings))
            except OSError as error:
                raise MachineError(
                    f"{path}: cannot be made ({error.strerror}); choose another --out"
                ) from error
            return path
        changed = _changed(path, file, settings)
        if not changed:
            return path
        if out:
            raise ModelwrightError(f"{path}: {changed}; choose another --out")
        number += 1


def read_settings(folder: Path, file: str) -> dict[str, Any]:
    """What was asked of the folder, results left out.

    Raises:
        ModelwrightError: The folder is of another kind.
        CorruptError: The file is damaged.
    """
    try:
        found = json.loads((folder / file).read_bytes())
        return {key: found[key] for key in (*found["asked"], "asked")}
    except FileNotFoundError:
        raise ModelwrightError(f"{folder}: has no {file}; give a recipe instead") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptError(f"{folder / file}: damaged ({error}); use another --out") from error


def written(settings: dict[str, Any]) -> bytes:
    """The file's content; ``asked`` remembers which keys are settings and not results."""
    asked = settings.get("asked", list(settings))
    return json.dumps({**settings, "asked": asked}, indent=1, ensure_ascii=False).encode()


def told(stop: BaseException, what: str, command: str) -> Interrupted:
    """The end of work on many runs that was asked to stop, and how to go on with it."""
    if isinstance(stop, Interrupted):
        said, code = str(stop).partition("; ")[0], stop.exit_code
    else:
        said, code = "stopped", signals.exit_code(stop)
    return Interrupted(f"{what}: {said}; continue with `{command}`", code)


def _changed(path: Path, file: str, settings: dict[str, Any]) -> str:
    """Why the folder is not one of these settings, or nothing."""
    try:
        there = read_settings(path, file)
        mine, theirs = _comparable(settings), _comparable(there)
    except ModelwrightError as error:
        return f"exists and is something else ({error})"
    keys = [k for k in {**theirs, **mine} if theirs.get(k) != mine.get(k)]
    shown = ", ".join(f"{k}: {theirs.get(k)!r} there, {mine.get(k)!r} here" for k in keys[:3])
    return f"was begun with other settings ({shown})" if keys else ""


def _comparable(settings: dict[str, Any]) -> dict[str, Any]:
    made = recipes.parse(settings["recipe"]).model_dump()
    kept = {k: v for k, v in settings.items() if k not in ("recipe", "asked", "trials")}
    return flatten({**json.loads(json.dumps({**kept, **made}, default=str))})


def share_prepared(folder: Path, run: Run) -> None:
    """Give a new run the prepared data of another in ``folder`` that was made from the same.

    Its files are linked, not copied: what is prepared is never changed in place. Whether it fits
    is decided by the stage prepare, which compares the fingerprints.
    """
    if run.stage("prepare") or (run.path / "data").exists():
        return
    for path in sorted(folder.glob("*/recipe.yaml")):
        other = Run.open(path.parent)
        if other.stage("prepare").get("status") != "done" or _read(other) != _read(run):
            continue
        part = run.path / "data.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(other.path / "data", part, copy_function=_link)
        part.rename(run.path / "data")
        shared = {**other.stage("prepare"), "seconds": 0.0, "linked_from": other.path.name}
        run.manifest["stages"]["prepare"] = shared
        if "machine" in other.manifest:
            run.manifest["machine"] = other.manifest["machine"]
        run.save_manifest()
        return


def _read(run: Run) -> tuple[object, ...]:
    """What the stage prepare reads of a recipe."""
    tasks = [(name, s.task, s.options) for name, s in run.recipe.stages.items()]
    return run.recipe.data, run.recipe.codec, run.recipe.seed, tasks


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)
