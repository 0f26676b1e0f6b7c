"""A trained run handed over to an engine that serves it, a target a file.

What is written is a folder: the model (an export that has proved itself, or the run), stored
samples with the answers that are meant, and ``launch.sh``, the one command that starts the engine.
Where that engine is installed it is started by this very command and answers the samples over HTTP;
a folder whose answers differ is not left behind.

A target is a module of this folder with

- ``write(order) -> None``: the files, ``launch.sh`` among them, which listens on ``$PORT``;
- ``absent() -> str``: why the engine cannot be started here; empty where it can;
- ``check(order) -> str``: what else can be said of the files, in a line, started or not.

Its name on the command line is the module's, with its dots and dashes.
"""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from modelwright import checkpoint
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.exporting.subject import Options
from modelwright.files import make_folder, rename, write_file
from modelwright.pipeline.deploy.replayed import replay, samples_of
from modelwright.pipeline.fitted import newest_checkpoint
from modelwright.pipeline.patience import chosen
from modelwright.pipeline.prepare import Say
from modelwright.pipeline.quantized import quantized
from modelwright.runs import Run
from modelwright.serving.origins import is_loopback

MODEL, RUN, SAMPLES, LAUNCH = "model", "run", "samples.json", "launch.sh"
KEY = "MODELWRIGHT_API_KEY"
STATE = "state.json"  # of training
OWN = ("docker", "ray-serve")  # whose engine is this package's
NAMES = {"llama_cpp": "llama.cpp", "ray_serve": "ray-serve"}  # as people write them


@dataclass(frozen=True)
class Order:
    """What is to be deployed, and how.

    Attributes:
        run: with a trained stage.
        stage: "train" or "tune"; None: the last that is trained.
        folder: where the files go, empty.
        place: where it will lie.
        options: of the export, for targets that have one.
        host: the address to listen on.
        port: where ``$PORT`` is not set.
        replicas: how many engines, for targets that have several.
        license: of the weights, for the card.
        say: takes lines of progress.
        weights: in how many bits our own server has them, a kind of ``models.quantized``; None: as
            trained.
    """

    run: Run
    stage: str | None
    folder: Path
    place: Path
    options: Options
    host: str
    port: int
    replicas: int
    license: str
    say: Say
    weights: str | None = None

    @property
    def name(self) -> str:
        """What clients call the model."""
        return self.run.path.resolve().name

    @property
    def checkpoint(self) -> Path:
        """What is served: the newest, or made of it with fewer bits a weight."""
        if self.weights is None:
            return newest_checkpoint(self.run, self.stage)
        return quantized(self.run, self.weights, self.say, self.stage)


class Target(Protocol):
    """A module of this folder."""

    def write(self, order: Order) -> None:
        """Write the files."""

    def absent(self) -> str:
        """Why the engine cannot be started here; empty where it can."""

    def check(self, order: Order) -> str:
        """What the files themselves show."""


def targets() -> list[str]:
    """The names that ``--to`` takes."""
    here = Path(__file__).parent
    writes = re.compile(r"^def write\(", re.MULTILINE)
    found = (p.stem for p in here.glob("*.py") if p.name != "__init__.py")
    named = (f for f in found if writes.search((here / f"{f}.py").read_text(encoding="utf-8")))
    return sorted(NAMES.get(name, name) for name in named)


def deploy(
    run: Run,
    out: Path,
    say: Say,
    *,
    to: str,
    stage: str | None = None,
    options: Options | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    replicas: int = 2,
    license: str = "",
    weights: str | None = None,
    start: bool = True,
) -> list[str]:
    """Write what an engine needs to serve a run, and prove it by asking that engine.

    Args:
        run: with a trained stage.
        out: a folder that does not exist yet.
        say: takes lines of progress.
        to: a target, a module of this folder.
        stage: "train" or "tune"; left out: the last that is trained.
        options: of the export.
        host: the address that the engine listens on.
        port: of the same.
        replicas: for targets that have several.
        license: of the weights.
        weights: in how many bits our own server has them; None: as trained.
        start: start the engine, where it is installed, and replay the samples.

    Returns:
        What was proved, a line each.

    Raises:
        ModelwrightError: ``out`` exists, the target cannot hold this model, or the engine answers
            otherwise; nothing is left then.
    """
    if out.exists():
        raise ModelwrightError(f"{out}: exists; give a folder that is not there yet")
    if to not in targets():
        raise ModelwrightError(
            f"--to: {to!r} is no target{did_you_mean(to, targets())}; there are "
            f"{', '.join(targets())}"
        )
    if weights is not None and to not in OWN:
        raise ModelwrightError(
            f"--weights: {' and '.join(OWN)} serve them; {to} has --quantize and --dtype of its own"
        )
    module = {v: k for k, v in NAMES.items()}.get(to, to)
    target = cast(Target, importlib.import_module(f"{__name__}.{module}"))
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    make_folder(part)
    order = Order(
        run, stage, part, out.resolve(), options or Options(), host, port, replicas, license, say,
        weights,
    )  # fmt: skip
    done = part
    try:
        say(f"deploy: writing for {to}")
        target.write(order)
        samples = samples_of(run, stage, order.checkpoint)
        write_file(part / SAMPLES, [json.dumps(samples, indent=1, ensure_ascii=False).encode()])
        found = [target.check(order)]
        rename(part, out)
        done = out
        if why := target.absent() if start else "not asked for":
            found.append(f"{to} was not started: {why}")
        else:
            say(f"deploy: starting {to}, replaying {len(samples)} samples")
            found.append(replay(out, LAUNCH, samples, order.name))
    except BaseException:
        shutil.rmtree(done, ignore_errors=True)
        raise
    return found


def write_launch(
    order: Order, command: Sequence[str], environment: Sequence[str] = (), *, key: str = ""
) -> None:
    """Write ``launch.sh``: the command, run in its own folder; ``$PORT`` is put in as it is.

    Where others can reach the host it does not start without a key. ``key`` is the variable in
    which the engine looks for one; empty: in ours.
    """
    words = " ".join('"$PORT"' if word == "$PORT" else shlex.quote(word) for word in command)
    lines = [
        "#!/bin/sh",
        "set -eu",
        'cd "$(dirname "$0")"',
        f'PORT="${{PORT:-{order.port}}}"',
        *(f"export {one}" for one in environment),
        *_keyed(order.host, key),
        f"exec {words}",
    ]
    write_file(order.folder / LAUNCH, ["\n".join([*lines, ""]).encode()])
    (order.folder / LAUNCH).chmod(0o755)


def _keyed(host: str, key: str) -> list[str]:
    lines = []
    if not is_loopback(host):
        lines.append(f': "${{{KEY}:?others can reach {host}, so set a key for them to use}}"')
    if key:
        lines.append(f'if [ -n "${{{KEY}:-}}" ]; then export {key}="${KEY}"; fi')
    return lines


def copy_run(order: Order) -> None:
    """Copy what serving needs: the run's description, and of its checkpoints the models alone.

    That is the newest of each stage, since an adapter needs its base; with fewer bits a weight it
    is the one that is served, in the place of the one that it was made of.
    """
    source, target = order.run.path, order.folder / RUN
    make_folder(target)
    for file in sorted(source.iterdir()):
        if file.is_file() and file.suffix in (".yaml", ".json", ".py"):
            shutil.copy2(file, target / file.name)
    if order.weights is not None:
        whole = newest_checkpoint(order.run, order.stage)
        _copy_model(order.checkpoint, target / whole.relative_to(source).parent)
        return
    for stage in sorted((source / "checkpoints").iterdir()):
        kept = chosen(stage) if stage.is_dir() else None
        if kept is not None:
            _copy_model(kept, target / kept.relative_to(source).parent)


def _copy_model(kept: Path, folder: Path) -> None:
    """Write a checkpoint, verified, without what only training goes on with."""
    found = checkpoint.load(kept, groups=["model"])
    documents = {n: c for n, c in found.documents.items() if n != STATE}
    checkpoint.save(folder, found.step, found.tensors, documents)
