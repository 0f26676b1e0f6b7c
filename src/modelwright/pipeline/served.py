"""Runs as a server has them: each engine in a process of its own, or all in this one.

``python -m modelwright.pipeline.served SETTINGS PIPES`` is the program of such a process; see
``serving.engine_process``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.hub.peft_files import is_adapter
from modelwright.pipeline.answering import answerer_of
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from modelwright.pipeline.prepare import Say
from modelwright.pipeline.quantized import quantized
from modelwright.pipeline.served_adapters import ServedAdapters
from modelwright.places import is_run
from modelwright.runs import Run
from modelwright.serving.engine import Engine
from modelwright.serving.engine_process import RemoteEngine, RemotePasses, remote
from modelwright.serving.engine_program import descriptors, run
from modelwright.serving.limits import Limits
from modelwright.serving.service import Answering

PROGRAM = "modelwright.pipeline.served"


@dataclass(frozen=True)
class Settings:
    """What an engine is made of.

    Attributes:
        run: its folder.
        stage: "train" or "tune"; None: the last that is trained.
        weights: in how many bits, a kind of ``models.quantized``; None: as trained.
        max_batch: answers written at once.
        max_waiting: requests that wait.
        drafts: tokens looked up ahead.
        cache_tokens: of the answers under way together; 0: as many as ``max_batch`` of them can be.
        reproducible: the same bits whoever else asks.
    """

    run: str
    stage: str | None = None
    weights: str | None = None
    max_batch: int = 8
    max_waiting: int = 64
    drafts: int = 0
    cache_tokens: int = 0
    reproducible: bool = False


def engine_of(settings: Settings, say: Say) -> tuple[Answering, dict[str, Callable[..., Any]]]:
    """The engine of a run, and what else it can be told: adapters, of a model that takes some.

    Raises:
        ModelwrightError: the run is not trained, or cannot answer.
    """
    found = Run.open(Path(settings.run))
    if settings.weights is None:
        path = newest_checkpoint(found, settings.stage)
    else:
        path = quantized(found, settings.weights, say, settings.stage)
    fitted = load_fitted(path)
    engine = answerer_of(fitted).server(
        max_batch=settings.max_batch,
        max_waiting=settings.max_waiting,
        drafts=settings.drafts,
        cache_tokens=settings.cache_tokens,
        reproducible=settings.reproducible,
    )
    if not isinstance(engine, Engine):
        return engine, {}
    adapters = ServedAdapters(fitted, engine)
    return engine, {"adapt": adapters.adapt, "forget": adapters.forget}


class ServedRuns:
    """The runs of a folder, to be loaded by their names; see ``serving.roster.Runs``.

    Args:
        folder: holds the runs.
        settings: of every engine, but for the run; one loaded later has its last stage.
        say: takes lines of progress.
        limits: when a process is given up.
        separate: each engine in a process of its own.
    """

    def __init__(
        self, folder: Path, settings: Settings, say: Say, limits: Limits, *, separate: bool = True
    ) -> None:
        self._folder, self._settings, self._say = folder, settings, say
        self._limits, self._separate = limits, separate
        self._commands: WeakKeyDictionary[Answering, Mapping[str, Callable[..., Any]]]
        self._commands = WeakKeyDictionary()

    def first(self) -> Answering:
        """The engine of the settings' own run."""
        return self._made(self._settings)

    def load(self, run: str) -> Answering:
        """The engine of another run of the folder.

        Raises:
            ModelwrightError: there is none of this name, or it cannot be served.
        """
        return self._made(replace(self._settings, run=str(self._place(run)), stage=None))

    def adapt(self, engine: Answering, name: str, run: str) -> None:
        """Let an engine answer with the adapter of a run of the folder, or of PEFT's in it.

        Raises:
            ModelwrightError: it has none, or one of another base, or the engine takes none.
        """
        place = str(self._place(run, lambda place: is_run(place) or is_adapter(place)))
        if isinstance(engine, RemoteEngine | RemotePasses):
            if not engine.process.facts["adapts"]:
                raise _no_adapters()
            engine.process.command("adapt", key=name, name=name, run=place)
            return
        commands = self._commands.get(engine, {})
        if "adapt" not in commands:
            raise _no_adapters()
        commands["adapt"](name=name, run=place)

    def forget(self, engine: Answering, name: str) -> None:
        """Take an adapter from an engine; what is under way with it is finished."""
        if isinstance(engine, RemoteEngine | RemotePasses):
            engine.process.forget(name)
            engine.process.command("forget", name=name)
        else:
            self._commands[engine]["forget"](name=name)

    def _made(self, settings: Settings) -> Answering:
        if not self._separate:
            engine, self._commands[engine] = engine_of(settings, self._say)
            return engine
        command = [sys.executable, "-m", PROGRAM, json.dumps(asdict(settings))]
        limits = self._limits
        return remote(command, silent=limits.silent_seconds, hung=limits.hung_seconds)

    def _place(self, name: str, fits: Callable[[Path], bool] = is_run) -> Path:
        place = self._folder / name
        if Path(name).name != name or not fits(place):
            there = sorted(p.name for p in self._folder.iterdir() if fits(p))
            hint = did_you_mean(name, there)
            raise ModelwrightError(f"run: there is no run {name[:100]!r} in the folder{hint}")
        return place


def _no_adapters() -> ModelwrightError:
    return ModelwrightError("model: it does not write token by token, so it takes no adapters")


def main(arguments: Sequence[str]) -> int:
    """Be the engine's process."""
    if len(arguments) != 2:
        raise ModelwrightError("give the settings and two pipes; `modelwright serve` does")
    settings = Settings(**json.loads(arguments[0]))

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    return run(lambda: engine_of(settings, say), *descriptors(arguments[1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
