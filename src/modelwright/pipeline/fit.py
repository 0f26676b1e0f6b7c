"""Stages train and tune: from shards to checkpoints, derived where the recipe is silent.

A stage that was interrupted continues from its newest sound checkpoint with the values that
were derived when it began; so the run that is resumed is the run that was started.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from modelwright import checkpoint, runtime
from modelwright.checkpoint.layout import step_name, step_of
from modelwright.data.codecs import save_codec
from modelwright.errors import Interrupted, MachineError, ModelwrightError
from modelwright.extensions import short
from modelwright.files import rename
from modelwright.models.narrow import parameter_count
from modelwright.pipeline import launch, resume, self_play, teachers, viewed
from modelwright.pipeline.adapters import DOCUMENT
from modelwright.pipeline.answering import way_of
from modelwright.pipeline.answering.predicting import Predicting
from modelwright.pipeline.derive import derive, machine_of, write_resolved
from modelwright.pipeline.fitted import TaskName, load_parameters
from modelwright.pipeline.parts import Parts
from modelwright.pipeline.patience import BEST, chosen, forget_after
from modelwright.pipeline.prepare import Say
from modelwright.pipeline.published import begin
from modelwright.pipeline.watch import StageObserver
from modelwright.runs import Run, fingerprint
from modelwright.training import budget
from modelwright.training.guard import not_finite
from modelwright.training.ledger import Entry, Ledger
from modelwright.training.parallel import SERIAL, World
from modelwright.training.schedules import replanned
from modelwright.training.train import Trainer


def fit(run: Run, name: str, say: Say, world: World = SERIAL) -> None:
    """Train (``name`` "train") or fine-tune ("tune"), unless that is done.

    On several processes the first one decides, and the others follow with its values.

    Raises:
        Interrupted: on Ctrl-C, SIGTERM or SIGUSR1, saved; the message says how to go on.
    """
    if not world.is_main:
        if (said := json.loads(world.told(None))) is not None:
            _Job(launch.followed(run.path), name, said, say, world).train()
        return
    mark = _mark(run, name)
    if run.is_done(name, mark) and _ended(run, name):
        world.told("null")
        say(f"{name}: nothing changed, kept")
        return
    record = run.stage(name)
    folder = run.path / "checkpoints" / name
    same = record.get("fingerprint") == mark
    resuming = record.get("resolved") is not None and (same or _goes_on(run, name))
    if not resuming:
        for key in ("resolved", "departures", "played"):
            record.pop(key, None)
        _set_aside(folder, say)
    resume.before(run, name, say)
    with run.working(name, mark) as record:
        job = _Job(run, name, record["resolved"] if resuming else None, say, world)
        record["resolved"] = job.values
        run.save_manifest()
        world.told(json.dumps(job.values))
        try:
            job.train()
        except Interrupted as stop:
            again = f"continue with `modelwright run {run.path}`"
            raise Interrupted(f"{name}: {stop}; {again}", stop.exit_code) from stop
        except (OSError, MachineError):
            raise  # no fault of the checkpoint
        except Exception as error:
            job.failed(error)
            raise


def _mark(run: Run, name: str) -> str:
    """What a stage depends on: the stage before it, and its part of the recipe."""
    prepared, trained = run.stage("prepare").get("content"), run.stage("train").get("fingerprint")
    before = prepared if name == "train" else (prepared, trained)
    if (weights := run.manifest.get("published")) is not None:
        before = (before, weights["files"])
    recipe = run.recipe
    stage = recipe.stages[name].model_dump()
    if taught := teachers.pin(run, name):
        before = (before, taught)
    return fingerprint(before, stage, recipe.model, recipe.budget, recipe.seed)


def _ended(run: Run, name: str) -> bool:
    """Whether the checkpoint of the stage's last step is there and sound."""
    last = checkpoint.newest(run.path / "checkpoints" / name)
    steps = run.stage(name)["resolved"]["steps"]
    return last is not None and step_of(last) == steps and not checkpoint.verify(last)


def _goes_on(run: Run, name: str) -> bool:
    """Whether a training of other data or another recipe is one to go on with.

    One that is not finished is: ``_resume`` asks whether it may. A finished one is where the user
    says what may have changed, and more steps are wanted than it had.
    """
    last = checkpoint.newest(run.path / "checkpoints" / name)
    record = run.stage(name)
    if last is None or record.get("status") != "done":
        return last is not None
    wanted = int(run.recipe.stages[name].steps or record["resolved"]["steps"])
    return bool(run.accepted) and (step_of(last) or 0) < wanted


def _set_aside(folder: Path, say: Say) -> None:
    """Keep checkpoints of other data or another recipe apart: nothing goes on from them."""
    if not folder.exists():
        return
    number = 1
    while (aside := folder.with_name(f"{folder.name}-before-{number}")).exists():
        number += 1
    rename(folder, aside)
    say(
        f"{folder.name}: data or recipe have changed, training anew;"
        f" {aside} keeps the earlier model"
    )


class _Job(Parts):
    """One stage being trained."""

    def __init__(
        self,
        run: Run,
        name: str,
        resolved: dict[str, Any] | None,
        say: Say,
        world: World = SERIAL,
    ) -> None:
        super().__init__(run, name, say)
        self.began = time.perf_counter()
        self.folder = run.path / "checkpoints" / name
        self.totals: dict[str, float] = {}
        self.trainer: Trainer | None = None
        self.first = 0
        self.saved: int | None = None
        # What is tried beforehand is tried by the first process alone.
        self.values = derive(self) if resolved is None else self._kept(resolved)
        self.world, self.held = world, None
        threads = self.values["threads"]
        torch.set_num_threads(threads if world.alone else min(threads, runtime.cores()))
        if resolved is not None and world.alone and threads > (cores := runtime.cores()):
            self.say(
                f"{name}: going on with {threads} threads, as it began, for the same bits; with "
                f"cores for {cores} that is many times slower: `{name}.threads={cores} "
                f"--allow-change {name}.threads` gives that up"
            )
        self.build("init")
        self.train_columns = self.referred("train")
        chooses = way_of(self.codec, self.objective) is Predicting and "label" in self.train_columns
        viewed.check(run, name, labelled=chooses)

    def _kept(self, resolved: dict[str, Any]) -> dict[str, Any]:
        """The values of the interrupted training; what the recipe gives is as it says now."""
        given = self.stage.model_dump(exclude_none=True)
        return {k: given.get(k, v) for k, v in resolved.items()}

    # The work ------------------------------------------------------------------------------

    def train(self) -> None:
        """Train from the newest sound checkpoint, or from the beginning."""
        trainer = self.make_trainer(self.examples(self.train_columns), self.values["steps"])
        first = self.first = self._resume(trainer)
        trainer.examples = self_play.examples(self, trainer)
        self.trainer = trainer
        record = self.run.stage(self.name)
        trainer.ledger = Ledger(
            [Entry(**entry) for entry in record.get("departures", [])], self._keep_departures
        )
        parameters = parameter_count(self.model)
        per_epoch = trainer.examples.total / trainer.examples.per_step
        v = self.values
        self.say(
            f"{self.name}: {short(self.config.family)} of {parameters / 1e6:.2f}M parameters, "
            f"{v['steps']} steps of {v['batch']} examples, {v['precision']}"
            + (f", continuing after step {first}" if first else "")
        )
        observer = (StageObserver if self.world.is_main else launch.Follower)(
            run=self.run,
            name=self.name,
            first=first,
            values=v,
            trainer=trainer,
            flops_per_item=self.config.flops_per_item,
            matmul_gflops=machine_of(self.run).matmul_gflops[v["precision"]],
            validation=self.validation,
            codec=self.codec,
            epoch_steps=per_epoch if self.stage.epochs else 0.0,
            say=self.say,
            allowed=self._timed() if v.get("timed") else 0.0,
            replan=lambda step, steps: self._replan(trainer, step, steps),
            totals=self.totals,
            write=lambda step, totals: self._save(trainer, step, totals),
            keep_best=lambda step, totals: self._keep_best(trainer, step, totals),
            end=lambda step: self._end(trainer, step),
            sampler=self.sampler(),
        )
        trainer.restore = lambda step: self._restore(trainer, observer, step)
        if self.world.is_main:
            forget_after(self.folder, first)
        with observer:
            observer.catch_up()
            if first < v["steps"]:
                trainer.run(first, observer)
        record.update(observer.summary(), parameters=parameters)
        best = chosen(self.folder)
        if v.get("patience") and best is not None:
            record["best_step"] = step_of(best)
            self.say(f"{self.name}: the model of step {step_of(best)} is kept, the best validated")

    def _timed(self) -> float:
        """Seconds left for this stage, less what it took to begin: measuring, building, loading."""
        allowed = budget.stage_seconds(self.run.recipe, self.name) or 0.0
        return max(0.1, allowed - (time.perf_counter() - self.began))

    def _replan(self, trainer: Trainer, step: int, steps: int) -> None:
        """Fix a new number of steps and record it before going on."""
        v = self.values
        per_epoch = trainer.examples.total / trainer.examples.per_step
        most = budget.most_passes(self.stage, self.objective, self.codec) * per_epoch
        steps = max(step + 1, math.ceil(min(steps, most)))
        shares = replanned(step, v["steps"], steps, v["warmup"], v["decay"])
        v["warmup"], v["decay"] = trainer.warmup, trainer.decay = shares
        v["steps"] = trainer.steps = steps
        every = {f"{name}_every": max(1, steps // 10) for name in ("validate", "save")}
        v.update({k: n for k, n in every.items() if getattr(self.stage, k) is None})
        reason = f"planned anew at step {step}, for the time of a step until then"
        values = {f"{self.name}.{k}": v[k] for k in ("steps", "warmup", "decay", *every)}
        write_resolved(self.run, values, {f"{self.name}.steps": reason})
        self.run.save_manifest()

    def _resume(self, trainer: Trainer) -> int:
        """Load the newest sound checkpoint of this stage, or start from the stage before."""
        if self.world.alone:
            found, problems = checkpoint.newest_sound(self.folder)
        else:
            wanted = self.placed().wanted
            found, problems = checkpoint.newest_sound_together(
                self.folder, self.world, wanted=wanted
            )
        for problem in problems:
            self.say(f"{self.name}: {problem}")
        if found is None:
            self._begin()
            return 0
        self._compare(found)
        self._load(trainer, found)
        return found.step

    def _compare(self, found: checkpoint.Checkpoint) -> None:
        """Refuse a checkpoint of other data, recipe or library, unless the user accepts it."""
        state = json.loads(found.documents["state.json"])
        theirs, mine = (
            resume.merged(self.name, of["values"], of["made_from"])
            for of in (state, self._state(found.step))
        )
        for key in resume.check(found.path, theirs, mine, self.run):
            self.say(f"{self.name}: going on although {key} has changed")

    def _load(self, trainer: Trainer, found: checkpoint.Checkpoint) -> None:
        """Parameters, optimiser, totals and recent losses as they were saved."""
        self._take(found)
        trainer.optimizers.restore(found.tensors)
        state = json.loads(found.documents["state.json"])
        self.totals = state["totals"]
        trainer.guard.load(state["losses"])

    def _restore(self, trainer: Trainer, observer: StageObserver, step: int) -> int:
        """Go back to the last sound checkpoint at or before ``step``, or to the beginning."""
        trainer.optimizers = self.optimizers()  # new ones: what they had gathered is dropped
        every, wanted = self.values["save_every"], self.placed().wanted
        found = resume.last_sound(self.folder, step, every, wanted)
        came = self.world.gather(str(found.step if found else 0))
        if len(set(came)) > 1:
            raise MachineError(
                f"{self.folder}: the processes found step {' and '.join(sorted(set(came)))} to go "
                "back to; run `modelwright check` on the run"
            )
        if self.world.is_main:
            forget_after(self.folder, found.step if found else 0)
        if found is None:
            trainer.guard.load([])
            self.placed().load_whole(self.fresh("init").state_dict())
            self._begin()
            return 0
        self._load(trainer, found)
        kept = ("epoch_", "line_")
        observer.totals.update({k: v for k, v in self.totals.items() if k.startswith(kept)})
        return found.step

    def _keep_departures(self, entries: list[dict[str, Any]]) -> None:
        """Write down where the training left its plan, before it goes on."""
        self.run.stage(self.name)["departures"] = entries
        self.run.save_manifest()

    def failed(self, error: Exception) -> None:
        """Remember that this restart failed, if it is one."""
        if self.trainer is not None:
            resume.failed(
                self.run,
                self.name,
                error,
                first=self.first,
                at=self.trainer.at,
                saved=self.saved,
            )

    def _begin(self) -> None:
        """The parameters of the first step: random or published, or of the stage before."""
        if self.adapted is not None:
            return  # built on them
        if self.name == next(iter(self.run.recipe.stages)):
            begin(self.run, self.config, self.placed())
        else:
            start = trained(self.run)
            self._take(checkpoint.load(start, groups=["model"], wanted=self.placed().wanted))

    def _take(self, found: checkpoint.Checkpoint) -> None:
        """The parameters of a checkpoint, as far as they lie here."""
        held = self.placed()
        if self.adapted is not None:
            self.adapted.load(found)
        elif held.sharded:
            held.load(found.tensors["model"])
        else:
            load_parameters(self.model, found)

    def scratch(self) -> Trainer:
        """A trainer at the first step of the stage, to be tried and thrown away."""
        trainer = self.make_trainer(self.examples(self.train_columns), self.values["steps"])
        self._begin()
        return trainer

    def _state(self, step: int) -> dict[str, Any]:
        planned = {"steps", "warmup", "decay"} if self.values.get("timed") else set()
        exact = {
            k: v for k, v in self.values.items() if not k.endswith("_every") and k not in planned
        }
        return json.loads(  # type: ignore[no-any-return]
            json.dumps(
                {
                    "stage": self.name,
                    "step": step,
                    "values": exact,
                    "made_from": resume.made_from(self.run, self.name),
                }
            )
        )

    def _end(self, trainer: Trainer, step: int) -> None:
        """Let ``step`` be the last, which is saved already; a run that goes on ends here too."""
        v = self.values
        v["steps"] = trainer.steps = step
        reason = f"{v['patience']} validations in a row had no lower loss"
        write_resolved(self.run, {f"{self.name}.steps": step}, {f"{self.name}.steps": reason})
        self.run.save_manifest()
        self.say(f"{self.name}: ended after step {step}: {reason}")

    def _keep_best(self, trainer: Trainer, step: int, totals: dict[str, float]) -> None:
        place = self.folder / BEST
        # Where a run was killed on its way the same model may stand there.
        if self.world.agree((place / step_name(step)).exists()):
            return
        self._write(trainer, place, step, totals)

    def _save(self, trainer: Trainer, step: int, totals: dict[str, float]) -> None:
        self._write(trainer, self.folder, step, totals)
        self.saved = step
        resume.passed(self.run, self.name, step)

    def _write(self, trainer: Trainer, folder: Path, step: int, totals: dict[str, float]) -> None:
        found = {"totals": totals, "losses": trainer.guard.state()}
        documents = {
            "state.json": json.dumps({**self._state(step), **found}, indent=1).encode(),
            "model.json": json.dumps(self.config.to_dict(), indent=1).encode(),
            "task.json": json.dumps(asdict(TaskName.of(self.stage))).encode(),
            **save_codec(self.codec),
        }
        if self.adapted is not None:
            documents[DOCUMENT] = self.adapted.document()
        with trainer.optimizers.evaluation():  # the model's group holds the weights to use
            held, groups = self.placed(), trainer.optimizers.saved()
            beside = (item for group in groups.values() for item in group.items())
            bad = not_finite(held.optimizable.named_parameters()) or not_finite(beside)
            if self.world.agree(bad is not None):
                raise ModelwrightError(
                    f"step {step}: the tensor {bad or 'of another process'} is not finite and was "
                    "not saved; lower the learning rate"
                )
            held.save(folder, step, groups, documents)


def scratch_trainer(run: Run, name: str, say: Say) -> Trainer:
    """The training of a prepared stage at its first step; the run's checkpoints stay as they are.

    Raises:
        ModelwrightError: the stage tunes, and nothing is trained yet.
    """
    if name != next(iter(run.recipe.stages)):
        trained(run)
    return _Job(run, name, run.stage(name).get("resolved"), say).scratch()


def trained(run: Run) -> Path:
    """The checkpoint that tuning starts from."""
    start = chosen(run.path / "checkpoints" / "train")
    if start is None:
        raise ModelwrightError(
            f"{run.path}: nothing trained to tune; run `modelwright train` first"
        )
    return start
