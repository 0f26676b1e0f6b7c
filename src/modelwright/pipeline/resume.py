"""Going on with a training: whether it may, from where, and what if that fails again and again.

A checkpoint remembers what it was made from. Going on with other data, another tokenizer or
another torch would give a model that no recipe describes, so it is refused, with every
difference, unless the user names the difference and accepts it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from modelwright import checkpoint
from modelwright.checkpoint.layout import step_of, steps
from modelwright.checkpoint.loading import Wanted
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.extensions import is_reference, short
from modelwright.files import rename
from modelwright.pipeline.prepare import Say
from modelwright.runs import Run, fingerprint, flatten

TRIES = 3  # restarts in a row that may fail
BAD = 2  # of them from one checkpoint: then it is set aside
FAILURES = "failures.json"

# What changes the meaning of the parameters: with these a checkpoint cannot go on at all.
_FIXED = ("task", "options", "objective", "objective_options", "optimizer", "adapter")  # of a stage
# What a training may be told anew at any time: it decides nothing that is saved.
_FREE = ("validate_every", "save_every", "sample_every", "watchdog", "on_nan", "on_spike", "share")


def made_from(run: Run, name: str) -> dict[str, Any]:
    """What a stage's parameters follow from, flat: data, codec, seed, torch, and its recipe."""
    content = run.stage("prepare").get("content", {})
    stage = run.recipe.stages[name].model_dump(exclude=set(_FREE))
    base = {} if name == "train" else {"base": run.stage("train").get("fingerprint")}
    if (weights := run.manifest.get("published")) is not None:
        base["weights"] = fingerprint(weights["files"])
    if (taught := run.manifest.get("teachers", {}).get(name)) is not None:
        base["teacher"] = fingerprint(taught)
    return {
        **base,
        "data": content.get(f"{name}/train", ""),
        "codec": content.get("codec", ""),
        "torch": ".".join(torch.__version__.split(".")[:2]),
        "seed": run.recipe.seed,
        "budget": run.recipe.budget,
        **flatten(run.recipe.model, "model."),
        **flatten(json.loads(json.dumps(stage)), f"{name}."),
    }


def merged(name: str, values: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    """What the recipe says, and where it leaves a value open the one that was derived."""
    said = {k: v for k, v in made.items() if v is not None}
    return {**flatten(values, f"{name}."), **said}


def check(where: Path, saved: Mapping[str, Any], now: Mapping[str, Any], run: Run) -> list[str]:
    """Compare what a checkpoint was made from with what it would go on with.

    Returns:
        The differences that the user accepted, by name.

    Raises:
        ModelwrightError: names all others, with both values.
    """
    missing = object()
    different = [k for k in {**saved, **now} if saved.get(k, missing) != now.get(k, missing)]
    accepted = [
        k
        for k in different
        if k in run.accepted and (not _fixed(k) or _edited(saved.get(k), now.get(k)))
    ]
    refused = [k for k in different if k not in accepted]
    if not refused:
        return accepted
    said = ", ".join(f"{k} = {_short(saved.get(k))} (now {_short(now.get(k))})" for k in refused)
    able = [k for k in refused if not _fixed(k) or _edited(saved.get(k), now.get(k))]
    flags = " ".join(f"--allow-change {k}" for k in able)
    accept = f"accept it with {flags}, " if able == refused else ""
    raise ModelwrightError(
        f"{where}: was trained with {said}; {accept}start a new run with --out, or delete "
        f"{where.parent} to begin anew"
    )


def _fixed(key: str) -> bool:
    first, *rest = key.split(".")
    return first in ("model", "codec") or bool(rest and rest[0] in _FIXED)


def _edited(before: Any, after: Any) -> bool:
    """Whether both are one file of code, changed: only the user knows what that means."""
    names = [str(value) for value in (before, after)]
    return all(map(is_reference, names)) and len({n.partition("@")[0] for n in names}) == 1


def _short(value: Any) -> str:
    text = short(str(value))
    return text[:12] if len(text) == 64 else text[:60]  # a hash is known by its beginning


# Checkpoints that fail ---------------------------------------------------------------------------


def before(run: Run, name: str, say: Say) -> None:
    """Look at the restarts that failed: set a bad checkpoint aside, or refuse a fourth try.

    A checkpoint from which two restarts in a row failed is renamed ``quarantined-step-...`` and
    the one before it is used; after three failures in a row nothing is tried any more.

    Raises:
        ModelwrightError: three restarts in a row have failed.
    """
    failed = _failures(run).get(name, [])
    if len(failed) >= TRIES:
        last = failed[-1]
        raise ModelwrightError(
            f"{name}: the last {len(failed)} restarts failed, at step {last['at'] + 1} for the "
            f"last time ({last['error']}); change what is wrong, then delete "
            f"{run.path / FAILURES} to try again"
        )
    folder = run.path / "checkpoints" / name
    done = steps(folder, complete=True)
    if len(done) < 2 or sum(f["from"] == step_of(done[-1]) for f in failed) < BAD:
        return
    aside = done[-1].with_name(f"quarantined-{done[-1].name}")
    number = 1
    while aside.exists():
        number += 1
        aside = aside.with_name(f"quarantined-{done[-1].name}-{number}")
    rename(done[-1], aside)
    say(f"{name}: {BAD} restarts from {done[-1]} failed; it is kept as {aside.name}, going back")


def failed(
    run: Run, name: str, error: Exception, *, first: int, at: int, saved: int | None
) -> None:
    """Remember that a restart from step ``first`` failed at step ``at``.

    It counts where it came no further: nothing was saved since, or earlier restarts had failed
    at this step as well. A first start is no restart.
    """
    known = _failures(run)
    before = known.get(name, [])
    if first == 0 or (saved is not None and not any(f["at"] >= at for f in before)):
        return
    line = " ".join(str(error).split())[:300] or type(error).__name__
    run.write_json(FAILURES, {**known, name: [*before, {"from": first, "at": at, "error": line}]})


def passed(run: Run, name: str, step: int) -> None:
    """Forget the failures once a checkpoint beyond the last of them was saved."""
    known = _failures(run)
    if name in known and step > max(f["at"] for f in known[name]):
        del known[name]
        run.write_json(FAILURES, known)


def _failures(run: Run) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = run.read_json(FAILURES) or {}
    return found


def last_sound(
    folder: Path, step: int, every: int, wanted: Wanted | None = None
) -> checkpoint.Checkpoint | None:
    """The newest sound checkpoint at or before ``step``, a regular one where there is one.

    Regular are those of every ``every`` steps. What a signal saved in between is passed over,
    so that a run which was stopped on its way goes back as far as one that was not.
    """
    there = [p for p in steps(folder, complete=True) if (step_of(p) or 0) <= step]
    regular = [p for p in there if not (step_of(p) or 0) % every]
    for path in [*reversed(regular), *reversed([p for p in there if p not in regular])]:
        try:
            return checkpoint.load(path, wanted=wanted)
        except CorruptError:
            continue
    return None
