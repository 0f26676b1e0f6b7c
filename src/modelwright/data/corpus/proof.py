"""Law 10 for corpora: every row that came in was kept, dropped with a reason, or set aside.

Counts alone would pass a run that loses one row and doubles another; a sum of hashes of the ids,
which does not depend on their order, does not.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelwright.data.corpus.freeze import Frozen
from modelwright.data.corpus.read import QUARANTINE
from modelwright.data.corpus.spec import CorpusSpec
from modelwright.data.corpus.tally import summed
from modelwright.data.corpus.unit import Commit, Unit, unit_folder
from modelwright.errors import CorruptError, ModelwrightError


def prove_read(
    spec: CorpusSpec,
    found: Sequence[Frozen],
    units: Sequence[Unit],
    commits: Mapping[str, Commit],
    folder: Path,
) -> None:
    """What came in is what was kept, dropped and set aside; no source has too many bad records.

    Raises:
        CorruptError: rows were lost or doubled.
        ModelwrightError: a source is over its budget of bad records, or gave no rows at all.
    """
    _prove("read", commits, ("kept", "dropped", "quarantined"))
    for name, commit in commits.items():
        facts = commit.facts
        counted = facts["in"]["rows"] + facts["bad"] + sum(facts["passed"].values())
        if facts["items"] != counted:
            raise CorruptError(
                f"read/{name}: the reader gave {facts['items']:,} records and {counted:,} of them"
                " were rows, bad or passed over; delete its commit record and run again"
            )
    readers = {one.source: one.reader["name"] for one in found}
    of: dict[str, list[Unit]] = defaultdict(list)
    for unit in units:
        of[unit.arguments["source"]["name"]].append(unit)
    for name, source in zip(spec.source_names(), spec.sources, strict=True):
        facts = {unit.name: commits[unit.name].facts for unit in of[name]}
        rows = sum(f["in"]["rows"] for f in facts.values())
        bad = sum(f["bad"] + f["quarantined"]["rows"] for f in facts.values())
        records = rows + sum(f["bad"] for f in facts.values())
        if not records:
            over = summed_counts(f["passed"] for f in facts.values())
            said = f" (passed over: {', '.join(f'{n:,} {r}' for r, n in over)})" if over else ""
            raise ModelwrightError(f"source {name}: holds no rows{said}; give one with content")
        budget = source.bad_share(readers[name])
        if bad > budget * records:
            unit_name = next(n for n, f in facts.items() if f["first_bad"])
            first: dict[str, Any] = facts[unit_name]["first_bad"]
            place = unit_folder(folder, "read", unit_name) / QUARANTINE
            where = first.get("id") or first["where"] or name
            raise ModelwrightError(
                f"source {name}: {bad:,} of {records:,} records are bad ({bad / records:.2%},"
                f" budget {budget:.2%}), first {where}: {first['reason']}; see {place}, mend them"
                " or raise `budget`"
            )


def summed_counts(parts: Iterable[Mapping[str, int]]) -> list[tuple[str, int]]:
    """Reason -> count of several together, the most frequent first."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return total.most_common()


def prove_write(read: Mapping[str, Commit], written: Mapping[str, Commit]) -> None:
    """What was read is what deduplication and split kept and dropped.

    Raises:
        CorruptError: rows were lost or doubled.
    """
    _prove("write", written, ("kept", "dropped"))
    before = summed(commit.facts["kept"] for commit in read.values())
    after = summed(commit.facts["in"] for commit in written.values())
    if before != after:
        raise CorruptError(
            f"write: {after['rows']:,} rows came in, {before['rows']:,} were kept by read; delete"
            " the folder `stages` and run again"
        )


def _prove(stage: str, commits: Mapping[str, Commit], ways: Sequence[str]) -> None:
    for name, commit in commits.items():
        facts = commit.facts
        out = summed(facts[way] for way in ways)
        if facts["in"] != out:
            raise CorruptError(
                f"{stage}/{name}: {facts['in']['rows']:,} rows came in and {out['rows']:,} were"
                f" {', '.join(ways)}, or other ones; delete its commit record and run again"
            )
