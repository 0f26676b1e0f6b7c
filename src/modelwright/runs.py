"""The run directory: everything that followed from one recipe, and nothing elsewhere.

recipe.yaml      as written, with overrides      resolved.json   every value, with its reason
manifest.json    code, machine, stages, hashes   data/           rows, shards, waterfall, split
metrics/         one JSON line a step            tensorboard/    the same for TensorBoard
checkpoints/     stage/step-...                  samples/        answers over time
extensions/      code that the recipe names      profile/        where steps were profiled
evaluation.json  report.html                     lock            who is writing now
failures.json    restarts that failed
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from modelwright import extensions, files
from modelwright.errors import CorruptError, MachineError, ModelwrightError
from modelwright.places import existing_run
from modelwright.recipe import Recipe, parse
from modelwright.version import __version__

LIBRARIES = ("torch", "numpy", "tokenizers", "safetensors", "pydantic")


@dataclass
class Run:
    """A run directory. ``create`` makes or continues one, ``open`` reads one."""

    path: Path
    recipe: Recipe = field(repr=False)
    manifest: dict[str, Any] = field(default_factory=dict, repr=False)
    accepted: frozenset[str] = field(  # changes with which a training may go on (--allow-change)
        default=frozenset(), repr=False
    )

    @classmethod
    def open(cls, path: Path) -> Run:
        """An existing run."""
        written = existing_run(path) / "recipe.yaml"
        try:
            values = yaml.safe_load(written.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise CorruptError(
                f"{written}: damaged ({reason}); write it again as it was, or use --out"
            ) from error
        recipe = parse(values, str(written))
        return cls(path, recipe, _read_json(path / "manifest.json") or {})

    @classmethod
    def create(
        cls,
        recipe: Recipe,
        root: Path,
        out: Path | None = None,
        accepted: frozenset[str] = frozenset(),
    ) -> Run:
        """The run of this recipe: continued when it exists, else made.

        Without ``out`` the first of NAME, NAME-2, NAME-3, ... under ``root`` that is free or
        holds the same recipe is taken. With ``out`` a different recipe there is refused, unless all
        that differs is in ``accepted``. A run of which nothing came, since its first stage
        failed, counts as free.
        """
        path = out or _free(root, recipe)
        with _told(path, "cannot be used"):
            there = (path / "recipe.yaml").exists()
        if there:
            run = cls.open(path)
            if run.recipe.model_dump() == recipe.model_dump():
                return run
            changed = _differences(run.recipe, recipe)
            if not run.blank and changed.keys() <= accepted:
                with run.locked():
                    run.recipe = recipe
                    run.write_recipe()
                return run
            if not run.blank:
                said = ", ".join(changed.values())
                raise ModelwrightError(
                    f"{path}: holds a run of another recipe ({said}); choose another --out"
                )
            with run.locked():  # nothing came of it: the corrected recipe takes its place
                return cls._begin(path, recipe)
        if not _vacant(path):
            raise ModelwrightError(f"{path}: exists and is not a run; choose another --out")
        with _told(path, "cannot be made"):
            path.mkdir(parents=True, exist_ok=True)
        return cls._begin(path, recipe)

    @classmethod
    def _begin(cls, path: Path, recipe: Recipe) -> Run:
        run = cls(path, recipe)
        run.manifest = {
            "run": recipe.name,
            "created": now(),
            "code": {"version": __version__, "source_sha256": source_hash()},
            "libraries": {n: importlib.metadata.version(n) for n in LIBRARIES},
            "python": platform.python_version(),
            "stages": {},
        }
        with _told(path, "cannot be written"):
            run.save_manifest()
            run.write_recipe()
        return run

    def write_recipe(self) -> None:
        """Write recipe.yaml atomically, and beside it the code that it names."""
        extensions.write_copies(self.recipe.model_dump(), self.path)
        text = yaml.safe_dump(self.recipe.model_dump(exclude_unset=True), sort_keys=False)
        files.replace_file(self.path / "recipe.yaml", text.encode())

    @property
    def blank(self) -> bool:
        """Whether nothing would be lost with it: no stage has finished or is at work.

        Data that were prepared for a training which failed before its first step count as nothing.
        """
        stages = dict(self.manifest.get("stages", {}))
        if any(stages.get(n, {}).get("status") == "interrupted" for n in self.recipe.stages):
            stages.pop("prepare", None)
        if {r.get("status") for r in stages.values()} & {"done", "running"}:
            return False
        return not any((self.path / name).exists() for name in ("checkpoints", "metrics"))

    @property
    def busy(self) -> bool:
        """Whether a process works in the run."""
        try:
            with self.locked():
                return False
        except MachineError:
            return True

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for writing; a second writer is refused, with who holds it.

        Raises:
            MachineError: when another process works in this run.
        """
        with _told(self.path, "cannot be written"):
            lock = (self.path / "lock").open("a+")
        with lock as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                handle.seek(0)
                holder = handle.read().strip() or "another process"
                raise MachineError(
                    f"{self.path}: {holder} is working in this run; wait for it or use --out"
                ) from None
            handle.truncate(0)
            handle.write(f"process {os.getpid()} on {socket.gethostname()} since {now()}")
            handle.flush()
            try:
                yield
            finally:
                handle.truncate(0)

    def stage(self, name: str) -> dict[str, Any]:
        """The manifest's record of a stage, empty when it never began."""
        record: dict[str, Any] = self.manifest.setdefault("stages", {}).setdefault(name, {})
        return record

    def is_done(self, name: str, fingerprint: str) -> bool:
        """Whether a stage finished on exactly these inputs."""
        record = self.stage(name)
        return record.get("status") == "done" and record.get("fingerprint") == fingerprint

    @contextmanager
    def working(self, name: str, fingerprint: str) -> Iterator[dict[str, Any]]:
        """Record a stage's beginning, end and duration; yields its record to be filled."""
        record = self.stage(name)
        before = record.get("seconds", 0.0) if record.get("fingerprint") == fingerprint else 0.0
        record.update(status="running", fingerprint=fingerprint, started=now())
        self.save_manifest()
        start = time.perf_counter()
        try:
            yield record
        except BaseException:
            record.update(status="interrupted", seconds=before + time.perf_counter() - start)
            with contextlib.suppress(OSError):  # a full disk: what went wrong first is said
                self.save_manifest()
            raise
        record.update(status="done", seconds=round(before + time.perf_counter() - start, 2))
        self.save_manifest()

    def save_manifest(self) -> None:
        """Write manifest.json atomically."""
        self.write_json("manifest.json", self.manifest)

    def write_json(self, name: str, value: Any) -> Path:
        """Write a JSON file of the run atomically."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace_file(path, json.dumps(value, indent=1, ensure_ascii=False).encode())
        return path

    def read_json(self, name: str) -> Any:
        """A JSON file of the run, or None when it is not there."""
        return _read_json(self.path / name)


@contextlib.contextmanager
def _told(path: Path, what: str) -> Iterator[None]:
    """What the disk refuses, as one line."""
    try:
        yield
    except OSError as error:
        raise MachineError(f"{path}: {what} ({error.strerror}); choose another --out") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CorruptError(
            f"{path}: damaged ({error}); delete it and run the stage that writes it again"
        ) from error


def now() -> str:
    """The time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def source_hash(room: str = "") -> str:
    """SHA-256 over the source files of the package, or of one room, names included."""
    digest = hashlib.sha256()
    root = Path(__file__).parent / room
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def fingerprint(*parts: Any) -> str:
    """SHA-256 of values as canonical JSON: what a stage depends on."""
    text = json.dumps(parts, sort_keys=True, default=str, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _free(root: Path, recipe: Recipe) -> Path:
    number = 1
    while True:
        path = root / (recipe.name if number == 1 else f"{recipe.name}-{number}")
        if _vacant(path):
            return path
        try:
            there = Run.open(path)
            if (there.blank and not there.busy) or there.recipe.model_dump() == recipe.model_dump():
                return path
        except ModelwrightError:
            pass  # not a run, or one of another version: leave it alone
        number += 1


def _vacant(path: Path) -> bool:
    """Whether nothing is there, or only what a run leaves that was killed while it was made."""
    if not path.is_dir():
        return not path.exists()
    begun = {extensions.FOLDER, "manifest.json", "manifest.json.tmp", "recipe.yaml.tmp"}
    return {p.name for p in path.iterdir()} <= begun


def _differences(old: Recipe, new: Recipe) -> dict[str, str]:
    """The values in which two recipes differ, by key: ``key: old there, new here``."""
    a, b = flatten(old.model_dump()), flatten(new.model_dump())
    changed = [k for k in {**a, **b} if a.get(k) != b.get(k)]

    def said(value: Any) -> str:
        return repr(extensions.short(value) if isinstance(value, str) else value)

    return {k: f"{k}: {said(a.get(k))} there, {said(b.get(k))} here" for k in changed}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as ``a.b.c`` keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
