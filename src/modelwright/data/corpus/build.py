"""A corpus from its description: the stages in order, each proven before the next begins."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelwright.data.corpus import alike, freeze, gate, ledger, lines, mend
from modelwright.data.corpus.components import plan_resolve
from modelwright.data.corpus.engine import Engine, Say, marks_of, opened, run_units
from modelwright.data.corpus.marks import blake, canonical
from modelwright.data.corpus.pairs import plan_gather, plan_pairs, plan_verify
from modelwright.data.corpus.proof import prove_read, prove_write
from modelwright.data.corpus.sketch import wanted
from modelwright.data.corpus.spec import CorpusSpec
from modelwright.data.corpus.unit import Commit, Unit, unit_folder
from modelwright.data.corpus.write import PARTS, plan_write
from modelwright.errors import ModelwrightError
from modelwright.files import replace_file
from modelwright.version import __version__

FINISHED, PREVIOUS, DESCRIPTION = "corpus.json", "previous.json", "spec.json"
STAGES = (
    "lines", "repeated", "read", "pairs", "gather", "verify", "resolve", "write", "augment",
    "tokenizer", "tokens",
)  # fmt: skip
ROOT = Path("corpora")


def build(
    spec: CorpusSpec,
    folder: Path | None = None,
    *,
    engine: str = "inline",
    workers: int = 1,
    say: Say = print,
) -> dict[str, Any]:
    """Make a corpus, or go on with it; what has not changed is kept.

    Args:
        spec: what it is made of.
        folder: where; corpora/NAME when left out.
        engine: "inline", "pool" or "ray"; the bytes are the same.
        workers: processes of a pool, or tasks at once on Ray.
        say: where progress goes.

    Returns:
        What ``corpus.json`` says of the finished corpus.

    Raises:
        ModelwrightError: a source is not there, has too many bad records, or a stage lost rows.
        SplitLeaksError: a copy, group or parent is on two sides of the split.
        MachineError: the disk is full, memory is short, or another process works on the corpus.
    """
    place = (folder or ROOT / spec.name).resolve()
    with ledger.locked(place), opened(engine, workers) as machine:
        found = freeze.freeze(spec, place, say)
        freeze.store(place, found)
        description = json.dumps(spec.model_dump(mode="json"), indent=1, sort_keys=True)
        replace_file(place / DESCRIPTION, description.encode() + b"\n")
        work = _Stages(spec, place, machine, say)
        work.all(found)
        return work.finish(found)


class _Stages:
    """The stages of one corpus, as they are gone through."""

    def __init__(self, spec: CorpusSpec, folder: Path, engine: Engine, say: Say) -> None:
        self.spec, self.folder, self.engine, self.say = spec, folder, engine, say
        self.units: dict[str, list[Unit]] = {}
        self.commits: dict[str, dict[str, Commit]] = {}

    def run(self, units: Sequence[Unit]) -> dict[str, Commit]:
        """Do a stage."""
        if not units:
            return {}
        stage = units[0].stage
        self.units[stage] = list(units)
        self.commits[stage] = run_units(
            units, self.folder, self.engine, say=self.say, changing=self._unfinish
        )
        return self.commits[stage]

    def all(self, found: Sequence[freeze.Frozen]) -> None:
        """All stages in order."""
        spec, folder = self.spec, self.folder
        settings = settings_of(spec)
        read = freeze.plan_read(spec, found, sketch_settings(settings))
        if first := lines.plan_lines(read):
            self.run(first)
            self.run(lines.plan_repeated(first, read))
            read = lines.told(read)
        commits = self.run(read)
        if moved := freeze.changed(found):
            raise ModelwrightError(f"{moved}: has changed while it was read; run again")
        prove_read(spec, found, read, commits, folder)
        final = self._divide(read, settings)
        self._tokens(final)
        for stage in STAGES:
            if stage not in self.units:
                ledger.prune(folder, stage, ())

    def _divide(self, read: list[Unit], settings: dict[str, Any]) -> list[Unit]:
        """Deduplicate and split until the gate finds nothing new; the units of the final rows."""
        names = [unit.name for unit in read]
        same = {key: settings[key] for key in ("seed", "deduplicate")}
        self.run(plan_pairs(self.folder, names))
        pairs = [unit.name for unit in self.units["pairs"]]
        self.run(plan_gather(self.folder, names, pairs))
        self.run(plan_verify(self.folder, names, pairs, same))
        plain = plan_resolve(names, pairs, settings)
        mark = marks_of(plain, self.folder)[plain[0].name]
        missed = mend.stored(self.folder, mark)
        for _ in range(mend.ROUNDS):
            self.run(plan_resolve(names, pairs, settings, missed))
            written = self.run(plan_write(read, fates_of(names)))
            prove_write(self.commits["read"], written)
            final = self._augment(self.units["write"])
            self.gate = self._examine(settings)
            further = self.gate.further(missed)
            if not further:
                break
            self.say(f"gate: {len(further):,} copies were missed before; decided again with them")
            missed = missed + further
            mend.store(self.folder, mark, missed)
        gate.let_through(self.folder, self.gate)
        mend.store(self.folder, mark, missed)
        for alarm in self.commits["resolve"]["all"].facts["alarms"]:
            self.say(f"resolve: {alarm}")
        return final

    def _augment(self, final: list[Unit]) -> list[Unit]:
        """The units of the final rows: those of write and, where it is asked for, of augment."""
        if not self.spec.augment:
            return final
        from modelwright.data.corpus.augment import plan_augment  # noqa: PLC0415 - if asked

        self.run(plan_augment(final, list(self.spec.augment), seed=self.spec.seed))
        return final + self.units.get("augment", [])

    def _examine(self, settings: dict[str, Any]) -> gate.Gate:
        """Whether anything crosses the split, views of train rows included."""
        tables = [
            gate.Table(unit_folder(self.folder, stage, name) / file, hashed)
            for stage in ("write", "augment")
            for name, commit in self.commits.get(stage, {}).items()
            for file, hashed in sorted(commit.files.items())
            if file.startswith("rows-")
        ]
        return gate.examine(
            self.folder,
            settings,
            tables,
            engine=self.engine,
            say=self.say,
            changing=self._unfinish,
        )

    def _tokens(self, final: list[Unit]) -> None:
        """A tokenizer of the train rows, and the tokens of all."""
        if self.spec.tokenizer is None:
            return
        from modelwright.data.corpus.tokens import (  # noqa: PLC0415 - if asked
            plan_tokenizer,
            plan_tokens,
        )

        self.run(plan_tokenizer(final, self.spec.tokenizer, seed=self.spec.seed))
        self.run(plan_tokens(final))

    def _unfinish(self) -> None:
        """Before anything changes, the corpus is no longer the finished one."""
        if (self.folder / FINISHED).exists():
            (self.folder / FINISHED).replace(self.folder / PREVIOUS)

    def finish(self, found: Sequence[freeze.Frozen]) -> dict[str, Any]:
        """Say what the corpus is made of; from now on it can be opened."""
        written = [commit.facts["parts"] for commit in self.commits["write"].values()]
        parts = {
            part: {key: sum(facts[part][key] for facts in written) for key in ("rows", "bytes")}
            for part in PARTS
        }
        stages = {s: {n: c.mark for n, c in of.items()} for s, of in self.commits.items()}
        summary = {
            **self.spec.model_dump(mode="json"),
            "modelwright": __version__,
            "inputs": {
                f"{one.source}: {one.key or Path(one.path).name}": one.hash for one in found
            },
            "stages": stages,
            "parts": parts,
            "gate": self.gate.to_dict(),
        }
        summary["content"] = blake(
            canonical(
                [self.commits[s][n].files for s in ("write", "augment") for n in stages.get(s, ())]
            )
        )
        content = json.dumps(summary, indent=1).encode() + b"\n"
        path = self.folder / FINISHED
        if not path.exists() or path.read_bytes() != content:
            replace_file(path, content)
        return summary


def fates_of(read: Sequence[str]) -> dict[str, str]:
    """Name of a read unit -> "stage/unit:file" of what becomes of its rows."""
    return {unit: f"resolve/all:{unit}.parquet" for unit in read}


def settings_of(spec: CorpusSpec) -> dict[str, Any]:
    """What deduplication and split go by; see ``sketch.wanted``."""
    copies = spec.deduplicate.model_dump() if spec.deduplicate else None
    return {"seed": spec.seed, "deduplicate": copies, "split": spec.split.model_dump()}


def sketch_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the settings that sketches depend on, so that the rest may change for nothing.

    Thresholds with the same bands have the same sketches: the lowest of them stands for all.
    """
    of = wanted(settings)
    lowest = next(
        (
            t
            for t in (0.5, 0.6, 0.75)
            if wanted({"deduplicate": {"threshold": t}}).bands == of.bands
        ),
        of.threshold,
    )
    split = {"by": of.by, "column": of.column} if of.by in ("stratified", "time", "given") else {}
    # Which pictures are alike is decided later; here only whether they are looked at.
    copies = {"threshold": lowest, "images": alike.BITS if of.images else 0}
    return {"seed": of.seed, "deduplicate": copies, "split": split}
