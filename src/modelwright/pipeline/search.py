"""Hyperparameter search with Optuna: every trial a run, chosen by the validation part only.

The study is a database, SQLite in the search's folder or any that several machines share. What
a killed trial had trained is not lost: its retry goes on from the run's last checkpoint.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import socket
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from modelwright import recipe as recipes
from modelwright.errors import (
    CorruptError,
    Interrupted,
    MachineError,
    ModelwrightError,
    did_you_mean,
)
from modelwright.files import replace_file
from modelwright.pipeline import run_stages
from modelwright.pipeline.held_out import LOWER, held_out
from modelwright.pipeline.prepare import Say
from modelwright.pipeline.processes import Command, fitting, run_all, share_of_cores
from modelwright.pipeline.settings import (
    choose_folder,
    read_settings,
    share_prepared,
    told,
    written,
)
from modelwright.pipeline.space import Space, applied, parse_space, read_space
from modelwright.pipeline.study import Owner, open_study, reap, retry, settled
from modelwright.pipeline.watch import after_validation
from modelwright.recipe import Recipe
from modelwright.reporting.search_page import write_search
from modelwright.runs import Run, fingerprint, now
from modelwright.runtime import derived_seed, peak_memory_bytes
from modelwright.tasks.task import task_class

if TYPE_CHECKING:
    import optuna

FILE, BEST = "search.json", "best.yaml"
TRIALS = 30
METRICS = ("loss", "bits_per_byte", "accuracy")
SAMPLERS, PRUNERS = ("tpe", "random"), ("hyperband", "median", "none")


def begin(
    recipe: Recipe,
    root: Path,
    out: Path | None,
    space: str | Path | Mapping[str, Any],
    trials: int | None,
    *,
    sampler: str | None = None,
    pruner: str | None = None,
    metric: str | None = None,
) -> Path:
    """The folder of this search: continued when it is there, else made.

    Args:
        recipe: The values that stay; it must hold a validation part out.
        root: Where NAME-search, NAME-search-2, ... lie.
        out: The folder, when it is chosen; one of another search is refused.
        space: A YAML file of keys and ranges, or its mapping.
        trials: How many in all; None: 30.
        sampler: "tpe" (default) or "random".
        pruner: "hyperband" (default), "median" or "none".
        metric: "loss", "bits_per_byte" or "accuracy" of the last stage on the validation part;
            None: bits per byte for text, else the loss.
    """
    where = "space" if isinstance(space, Mapping) else str(space)
    values = dict(space) if isinstance(space, Mapping) else read_space(Path(space))
    if recipe.data.split.validation == 0 and recipe.data.split.by != "given":
        raise ModelwrightError(
            "search: data.split.validation is 0; hold out a part, such as 0.1, to choose by"
        )
    if trials is not None and trials < 1:
        raise ModelwrightError(f"--trials {trials}: a search needs at least 1")
    parse_space(values, recipe, where)
    settings = {
        "recipe": recipe.model_dump(exclude_unset=True),
        "space": values,
        "metric": _one_of("--metric", metric or _usual(recipe), METRICS),
        "sampler": _one_of("--sampler", sampler or "tpe", SAMPLERS),
        "pruner": _one_of("--pruner", pruner or "hyperband", PRUNERS),
        "trials": trials or TRIALS,
    }
    return choose_folder(root, f"{recipe.name}-search", FILE, settings, out)


def _one_of(option: str, word: str, known: tuple[str, ...]) -> str:
    if word not in known:
        hint = did_you_mean(word, known)
        raise ModelwrightError(f"{option} {word}: there is none{hint}; known: {', '.join(known)}")
    return word


def _usual(recipe: Recipe) -> str:
    return "bits_per_byte" if task_class(recipe.first.task).codec == "text" else "loss"


def search(
    folder: Path,
    trials: int | None,
    storage: str | None,
    jobs: int,
    say: Say,
    *,
    worker: bool = False,
) -> dict[str, Any]:
    """Run trials until ``trials`` of the study have an end, whoever ran them; write the result.

    Args:
        folder: Made by `begin`.
        trials: How many in all; None: as begun.
        storage: URL of the database; None: MODELWRIGHT_STORAGE, else SQLite in the folder.
        jobs: Trials at work at once on this machine, where memory allows.
        say: Told of the progress.
        worker: Run trials only; who started this process writes the result.

    Returns:
        The content of search.json: the settings, ``trials``, ``best``, ``importance``.

    Raises:
        Interrupted: On Ctrl-C; the trial at work goes on from its checkpoint next time.
        ModelwrightError: The data cannot be prepared, or no trial could be trained.
    """
    settings = read_settings(folder, FILE)
    recipe = recipes.parse(settings["recipe"], str(folder / FILE))
    wanted = trials or int(settings["trials"])
    url = storage or os.environ.get("MODELWRIGHT_STORAGE") or ""
    mark = {k: v for k, v in settings.items() if k not in ("asked", "trials")}
    study = open_study(
        url or f"sqlite:///{(folder / 'study.db').resolve()}",
        f"{recipe.name}-{fingerprint(mark)[:12]}",
        "minimize" if settings["metric"] in LOWER else "maximize",
    )
    space = parse_space(settings["space"], recipe)
    searching = _Search(folder, recipe, space, settings, study, wanted, say)
    try:
        if jobs > 1 and not worker:
            searching.run(min(wanted, 1))  # the first trial alone says what memory one needs
            most = fitting(jobs, peak_memory_bytes())
            say(f"search: {most} at once, {share_of_cores(most)} threads each")
            environment = (("MODELWRIGHT_STORAGE", url),) if url else ()
            arguments = ("search", str(folder), "--trials", str(wanted), "--worker")
            commands = [
                Command(f"worker-{i}", arguments, folder / f"worker-{i}.log", environment)
                for i in range(1, most + 1)
            ]
            run_all(commands, most, share_of_cores(most), say)
        searching.run(wanted)
    except (Interrupted, KeyboardInterrupt) as stop:
        raise told(stop, "search", f"modelwright search {folder}") from stop
    return {} if worker else _write(searching)


@dataclass
class _Search:
    """The trials of a study that this process runs."""

    folder: Path
    recipe: Recipe
    space: Space
    settings: dict[str, Any]
    study: optuna.Study
    wanted: int
    say: Say
    most: int = 0

    def run(self, wanted: int) -> None:
        """Run trials while fewer than ``wanted`` of the study have ended or are at work."""
        while True:
            for number in reap(self.study):
                self.say(f"trial {number}: its process is gone; it is marked failed")
            ended, working = settled(self.study)
            if len(ended) + len(working) >= wanted:
                return
            self.study.sampler = self._sampler(len(ended), alone=not working)
            self.study.pruner = self._pruner()
            self.most = wanted
            try:
                self.study.optimize(self.trial, n_trials=1)
            except _Surplus:
                return

    def trial(self, trial: optuna.Trial) -> float:
        """Train one run; its metric on the whole validation part.

        Raises:
            TrialPruned: It has no prospect, or its values cannot be trained, as its attribute
                ``problem`` says.
        """
        from optuna import TrialPruned  # noqa: PLC0415

        trial.set_user_attr("owner", Owner.here().to_dict())
        ended, working = settled(self.study)
        if sorted([*ended, *working]).index(trial.number) >= self.most:
            raise _Surplus  # another process began one at the same moment
        chosen = {key: member.suggest(key, trial) for key, member in self.space.items()}
        name = self._run_name(trial)
        trial.set_user_attr("run", name)
        self.say(f"trial {trial.number}: " + ", ".join(f"{k}={v}" for k, v in chosen.items()))
        run: Run | None = None
        try:
            recipe = applied(self.recipe, chosen, f"trial {trial.number}")
            run = Run.create(recipe, self.folder, self.folder / name)
            share_prepared(self.folder, run)
            with after_validation(_Prospect(trial, run, self._metric)):
                run_stages(run, ["prepare", *recipe.stages], self.say)
            values = held_out(run, self._stage, "validation")
            if not math.isfinite(values[self._metric]):
                raise ModelwrightError(f"{name}: its {self._metric} is not finite")
        except (Interrupted, KeyboardInterrupt):
            retry(self.study, trial, crashed=False)
            raise
        except (MachineError, CorruptError):
            raise
        except (ModelwrightError, MemoryError) as error:
            if run is not None and run.stage("prepare").get("status") != "done":
                raise  # the data: no value of the space would mend them
            trial.set_user_attr("problem", str(error) or "out of memory")
            self.say(f"trial {trial.number}: cannot be trained: {error or 'out of memory'}")
            raise TrialPruned from error
        trial.set_user_attr("values", values)
        self.say(f"trial {trial.number}: {self._metric} {values[self._metric]:.5g}")
        return values[self._metric]

    @property
    def _stage(self) -> str:
        return list(self.recipe.stages)[-1]

    @property
    def _metric(self) -> str:
        return str(self.settings["metric"])

    def _run_name(self, trial: optuna.Trial) -> str:
        """A retry on the machine of the trial before goes on with its run."""
        before = trial.user_attrs.get("continues")
        if before and (self.folder / str(before) / "recipe.yaml").is_file():
            return str(before)
        return f"trial-{trial.number:04d}"

    def _sampler(self, ended: int, *, alone: bool) -> optuna.samplers.BaseSampler:
        """Seeded by the recipe and the number of trials: stopping a search changes nothing."""
        from optuna.samplers import RandomSampler, TPESampler  # noqa: PLC0415

        who = "" if alone else Owner.here()
        seed = derived_seed(self.recipe.seed, "search", ended, who) % 2**32
        if self.settings["sampler"] == "random":
            return RandomSampler(seed=seed)
        # Hyperband gives each of its three brackets a model of its own, and so a start of its own
        share = 9 if self.settings["pruner"] == "hyperband" else 3
        start = max(3, min(10, self.wanted // share))
        return TPESampler(seed=seed, n_startup_trials=start)

    def _pruner(self) -> optuna.pruners.BasePruner:
        """The resource is the share of a trial's steps, in hundredths.

        Where trials have equally many steps that is the step in other units; where they have not
        (another batch), schedules and rates still go by the share.
        """
        from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner  # noqa: PLC0415

        if self.settings["pruner"] == "hyperband":
            return HyperbandPruner(min_resource=10, max_resource=100, reduction_factor=3)
        if self.settings["pruner"] == "median":
            return MedianPruner(n_startup_trials=4, n_warmup_steps=10)
        return NopPruner()


class _Surplus(Exception):
    """As many trials as wanted are at work or ended without this one."""


class _Prospect:
    """Tells the study of validations, and ends the trial when the pruner sees no prospect."""

    def __init__(self, trial: optuna.Trial, run: Run, metric: str) -> None:
        self.trial, self.run, self.metric = trial, run, metric
        self.stage = list(run.recipe.stages)[-1]
        self.told: set[int] = set()
        for line in _lines(run.path / "metrics" / f"{self.stage}.jsonl"):  # of a trial retried
            self._report(int(line["step"]), line["validation"])

    def __call__(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        from optuna import TrialPruned  # noqa: PLC0415

        known = stage == self.stage and self._report(step, values)
        if known and step < self._steps and self.trial.should_prune():
            raise TrialPruned

    def _report(self, step: int, values: Mapping[str, float]) -> bool:
        """Tell the study, and whether there was something to tell."""
        value = values.get(self.metric)
        if value is None or not math.isfinite(value):
            return False
        percent = round(100 * step / self._steps)
        if percent not in self.told:  # the first of two in one hundredth counts
            self.told.add(percent)
            self.trial.report(value, percent)
        return True

    @property
    def _steps(self) -> int:
        return int(self.run.stage(self.stage)["resolved"]["steps"])


def _lines(path: Path) -> list[dict[str, Any]]:
    """The validations in a file of metrics; a half line of a killed writer is left out."""
    found = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                found += [record] if "validation" in record else []
    return found


# The result ---------------------------------------------------------------------------------


def _write(searching: _Search) -> dict[str, Any]:
    """Write search.json, best.yaml and the page from what the study holds."""
    folder, study = searching.folder, searching.study
    trials = [_facts(t) for t in study.get_trials(deepcopy=False)]
    done = [t for t in trials if t["state"] == "complete"]
    sign = 1 if searching.settings["metric"] in LOWER else -1
    best = min(done, key=lambda t: sign * t["value"], default=None)
    result = {
        **searching.settings,
        "trials": searching.wanted,
        "finished": now(),
        "study": study.study_name,
        "direction": study.direction.name.lower(),
        "best": best,
        "importance": importance(study),
        "runs": trials,
    }
    with (folder / "lock").open("a") as lock:  # another process may end at the same moment
        fcntl.flock(lock, fcntl.LOCK_EX)
        replace_file(folder / FILE, written(result))
        if best is not None:
            replace_file(folder / BEST, _best_recipe(searching, best))
        searching.say(f"report: {write_search(folder)}")
    if best is None:
        why = next((t["problem"] for t in trials if t["problem"]), "all were ended early")
        raise ModelwrightError(
            f"{folder}: none of {len(trials)} trials was trained to its end ({why}); change the "
            "space, or ask for more --trials"
        )
    return result


def _facts(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    attributes = trial.user_attrs
    value = trial.value if trial.state.name == "COMPLETE" else None
    seconds = trial.duration.total_seconds() if trial.duration else None
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "value": value,
        "params": trial.params,
        "intermediate": {str(k): v for k, v in sorted(trial.intermediate_values.items())},
        "seconds": seconds,
        "run": attributes.get("run", ""),
        "host": attributes.get("owner", {}).get("host", ""),
        "problem": attributes.get("problem", ""),
        "retry_of": attributes.get("retry_of"),
        "values": attributes.get("values", {}),
    }


def _best_recipe(searching: _Search, best: Mapping[str, Any]) -> bytes:
    """The recipe with the best values, runnable, under a name of its own."""
    import optuna  # noqa: PLC0415

    fixed = optuna.trial.FixedTrial(best["params"])
    chosen = {key: member.suggest(key, fixed) for key, member in searching.space.items()}
    name = f"{searching.recipe.name[:59]}-best"
    made = applied(searching.recipe, chosen, BEST, name=name)
    host = socket.gethostname()
    head = (
        f"# The best of {searching.wanted} trials: number {best['number']}, validation "
        f"{searching.settings['metric']} {best['value']:.6g}\n"
        f"# ({best['run']} on {best['host'] or host}). The test part had no say.\n"
    )
    text = yaml.safe_dump(made.model_dump(exclude_unset=True), sort_keys=False)
    return (head + text).encode()


def importance(study: optuna.Study) -> dict[str, float]:
    """How much each key matters for being among the best quarter of all trials; adds up to 1.

    PED-ANOVA (Watanabe, Bansal and Hutter 2023), which needs nothing beside Optuna. Nothing
    where too few trials came to their end to tell.
    """
    from optuna.importance import (  # noqa: PLC0415
        PedAnovaImportanceEvaluator,
        get_param_importances,
    )
    from optuna.trial import TrialState  # noqa: PLC0415

    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(done) < 4 or len({t.value for t in done}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an experimental class, and that there are few trials
        found = get_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(target_quantile=0.25)
        )
    return {key: round(float(value), 4) for key, value in found.items()}


def table_lines(result: Mapping[str, Any]) -> list[str]:
    """What the terminal shows: the best trials, what mattered, and how to go on."""
    done = [t for t in result["runs"] if t["state"] == "complete"]
    sign = 1 if result["metric"] in LOWER else -1
    best = sorted(done, key=lambda t: sign * t["value"])
    pruned = sum(t["state"] == "pruned" for t in result["runs"])
    failed = sum(t["state"] == "fail" for t in result["runs"])
    lines = [f"{len(done)} trials to their end, {pruned} ended early, {failed} failed", ""]
    lines.append(f"  trial  validation {result['metric']}")
    for t in best[:10]:
        chosen = "  ".join(f"{k}={_shown(v)}" for k, v in t["params"].items())
        lines.append(f"  {t['number']:>5}  {t['value']:<12.6g}  {chosen}")
    if result["importance"]:
        parts = ", ".join(f"{k} {v:.0%}" for k, v in result["importance"].items())
        lines += ["", f"what mattered: {parts}"]
    return lines


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
