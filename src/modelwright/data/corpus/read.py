"""The unit ``read``: a range of an input -> rows -> steps -> records, decisions, attributes.

Files of a unit:
    records.parquet     the rows that were kept (``records.RECORD``)
    decisions.parquet   one line for every row that came in: kept, or why it left and at which step
    attributes.parquet  what the steps measured, of kept rows and of others
    quarantine.jsonl    what could not be read: where, reason; the first 10,000
    samples.jsonl       a few rows of every kind: "kept", "dropped: STEP: REASON", "borderline"
    sketch-*.npy        what deduplication and split need to know of the kept rows

Facts: ``in``, ``kept``, ``dropped`` and ``quarantined`` (each with ``rows`` and the checksum
``ids``), ``bad`` (records that gave no row), ``bytes`` (in, kept), ``steps`` (for every step:
rows and bytes in and out, dropped by reason), ``histograms`` (see ``tally``), ``quarantine``
(reason -> count), ``items`` (everything that the reader gave) and ``passed`` (reason -> how many
of them are sound but no rows: redirects, requests), ``first_bad``, ``sketch`` (rows, texts,
links). Under ``timing``: seconds of the reader, of every step, of sketching and of writing.
"""

from __future__ import annotations

import json
import traceback
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from modelwright.data.corpus import records
from modelwright.data.corpus.sketch import Sketcher
from modelwright.data.corpus.steps import make_operation
from modelwright.data.corpus.tally import SAMPLE_CHARS, Histograms, Ids, Samples, id_hash
from modelwright.data.corpus.unit import CORPUS, TIMING, Facts
from modelwright.data.operations.operation import Step, WorkRow
from modelwright.data.readers.reader import Bad, Input, Item, Passed, Range, make_reader
from modelwright.data.readers.reader import read as complete_rows
from modelwright.errors import CorruptError, ModelwrightError

QUARANTINE, SAMPLES = "quarantine.jsonl", "samples.jsonl"
LISTED = 10_000  # bad records that are listed; all are counted
REASONS, OTHERS = 1000, "(others)"  # different ones that are counted by name
DETAIL = 200  # characters of what is wrong with one


def read(arguments: dict[str, Any], out: Path) -> Facts:
    """Read one range of one input and do the steps.

    Args:
        arguments: ``source`` (name, license), ``reader`` and ``steps`` (``steps.described``),
            ``input`` (key, hash), ``range`` (``Range.as_json``), ``sketch`` (settings of
            ``Sketcher``), ``lines`` (file of the lines that the corpus repeats, where a step asks
            for them); aside: ``path``, where the input lies.
        out: the folder to write into.

    Raises:
        ModelwrightError: two rows of the unit have the same id.
    """
    work = _Reading(arguments)
    with ExitStack() as files:
        work.open(out, files)
        for item in work.given():
            work.items += 1
            if isinstance(item, Bad):
                work.bad(item)
            elif isinstance(item, Passed):
                work.over(item)
            else:
                work.row(item)
        work.end(out)
    work.check_ids(out)
    return work.facts()


def given(arguments: dict[str, Any]) -> Iterator[Item]:
    """What the reader of a unit gives, with a damaged file's end as one more bad record."""
    named, source = arguments["reader"], arguments["source"]
    one = Input(Path(arguments["path"]), arguments["input"]["key"], named["name"])
    found = complete_rows(
        one,
        make_reader(named["name"], named["settings"]),
        Range(*arguments["range"]),
        source=source["name"],
        license=source["license"],
    )
    try:
        yield from found
    except CorruptError as error:
        yield Bad(one.key, str(error))


def begun(arguments: dict[str, Any]) -> Iterator[tuple[str, Step]]:
    """The steps of a unit by name; the one that needs the lines of the corpus is told them."""
    for described in arguments["steps"]:
        settings = described["settings"]
        if settings.get("corpus") is True and (file := arguments.get("lines")):
            settings = settings | {"corpus": False, "lines": str(Path(arguments[CORPUS], file))}
        yield described["name"], make_operation(described["name"], settings).begin()


def complete(row: WorkRow) -> int:
    """Make a row's strings such as UTF-8 can hold; returns the bytes of its content."""
    row["id"] = row["id"].encode("utf-8", "backslashreplace").decode()
    try:
        return content_bytes(row)
    except UnicodeEncodeError:
        row["text"] = records.encodable(row["text"])
        return content_bytes(row)


@dataclass
class _Stepped:
    """What went into a step and what left at it."""

    name: str
    step: Step
    rows_in: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    dropped: Counter[str] = field(default_factory=Counter)
    dropped_bytes: Counter[str] = field(default_factory=Counter)

    def facts(self) -> dict[str, Any]:
        lost = sum(self.dropped.values())
        counted = {"rows_in": self.rows_in, "rows_out": self.rows_in - lost}
        moved = {"bytes_in": self.bytes_in, "bytes_out": self.bytes_out}
        reasons = {
            reason: {"rows": count, "bytes": self.dropped_bytes[reason]}
            for reason, count in sorted(self.dropped.items())
        }
        return {"step": self.name} | counted | moved | {"dropped": reasons}


class _Reading:
    """One unit at work."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments
        self.steps = [_Stepped(name, step) for name, step in begun(arguments)]
        self.masks = [stepped.step for stepped in self.steps if stepped.name == "pii"]
        self.ids = {kind: Ids() for kind in ("in", "kept", "dropped", "quarantined")}
        self.hashes = array("Q")
        self.histograms, self.samples = Histograms(), Samples()
        self.reasons: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()
        self.first_bad: dict[str, str] | None = None
        self.bytes_in = self.bytes_kept = self.listed = self.items = 0
        self.reading = self.writing = self.sketching = 0.0
        self.sketcher = Sketcher(arguments["sketch"])

    def open(self, out: Path, files: ExitStack) -> None:
        """Begin the files of the unit."""
        tables = (
            (records.RECORDS, records.RECORD),
            (records.DECISIONS, records.DECISION),
            (records.ATTRIBUTES, records.ATTRIBUTE),
        )
        self.records, self.decisions, self.attributes = (
            files.enter_context(records.Writer(out / name, columns)) for name, columns in tables
        )
        self.quarantine = files.enter_context((out / QUARANTINE).open("w", encoding="utf-8"))
        self.sample_file = out / SAMPLES

    def given(self) -> Iterator[Item]:
        """What the reader gives, and how long it takes."""
        found = given(self.arguments)
        while True:
            started = perf_counter()
            item = next(found, None)
            self.reading += perf_counter() - started
            if item is None:
                return
            yield item

    def over(self, item: Passed) -> None:
        """Count a record that is no row."""
        known = item.reason in self.passed or len(self.passed) < REASONS
        self.passed[item.reason if known else OTHERS] += 1

    def bad(self, item: Bad, id_: str | None = None) -> None:
        """Set a record aside."""
        reason = " ".join(item.reason.split())[:DETAIL]
        place = {"source": self.arguments["source"]["name"], "where": item.where, "reason": reason}
        if id_ is not None:
            place["id"] = id_
        known = reason in self.reasons or len(self.reasons) < REASONS
        self.reasons[reason if known else OTHERS] += 1
        self.first_bad = self.first_bad or place
        if self.listed < LISTED:
            self.listed += 1
            self.quarantine.write(json.dumps(place, ensure_ascii=True) + "\n")

    def row(self, row: WorkRow) -> None:
        """Take one row through the steps, and write what became of it."""
        size = complete(row)
        id_ = row["id"]
        hashed = id_hash(id_)
        self.hashes.append(hashed)
        self.ids["in"].add(hashed)
        self.bytes_in += size
        left, reason, now = "", None, size
        for stepped in self.steps:
            before, content = row.get("text"), row.get("media")
            stepped.rows_in += 1
            stepped.bytes_in += now
            started = perf_counter()
            try:
                reason = stepped.step(row)
            except (ModelwrightError, MemoryError, OSError):
                raise  # not the row's fault
            except Exception as error:
                stepped.rows_in -= 1
                stepped.bytes_in -= now
                self._set_aside(id_, hashed, size, stepped.name, error)
                return
            stepped.seconds += perf_counter() - started
            if row.get("text") is not before or row.get("media") is not content:
                now = content_bytes(row)
            if reason is not None:
                left = stepped.name
                stepped.dropped[reason] += 1
                stepped.dropped_bytes[reason] += now
                break
            stepped.bytes_out += now
        self._write(row, hashed, (size, now), left, reason)

    def _set_aside(self, id_: str, hashed: int, size: int, step: str, error: Exception) -> None:
        """A row that a step cannot take counts as a bad record, so that it is not overlooked.

        What the error says is left out: it may quote the row, before personal data is masked.
        """
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        reason = f"step {step}: {type(error).__name__} at {where}"
        self.ids["quarantined"].add(hashed)
        self.bad(Bad("", reason), id_)
        self.decisions.add((id_, False, reason, step, size, "quarantined"), len(id_) + 100)

    def _write(
        self, row: WorkRow, hashed: int, sizes: tuple[int, int], left: str, reason: str | None
    ) -> None:
        """Write a row's decision and measures and, where it is kept, the row."""
        (size, now), id_, measures = sizes, row["id"], row["attributes"]
        kept = reason is None
        self.ids["kept" if kept else "dropped"].add(hashed)
        self._sample(row, hashed, "kept" if kept else f"dropped: {left}: {reason}")
        started = perf_counter()
        self.decisions.add((id_, kept, reason, left or None, size, None), len(id_) + 40)
        for name, value in measures.items():
            self.histograms.add(name, value)
            self.attributes.add(records.attribute_values(id_, name, value), len(id_) + 32)
        if kept:
            self.bytes_kept += now
            self.records.add(records.record_values(row), now + 200)
        self.writing += perf_counter() - started
        if kept:
            started = perf_counter()
            self.sketcher.add(row)
            self.sketching += perf_counter() - started

    def _sample(self, row: WorkRow, hashed: int, kind: str) -> None:
        """Keep the row as an example of its kind, and as one near a limit where a step says so."""
        keys = {kind: hashed / 2.0**64}
        if kind == "kept":
            margins = [v for k, v in row["attributes"].items() if k.endswith(".margin")]
            numbers = [abs(v) for v in margins if isinstance(v, int | float)]
            if numbers:
                keys["borderline"] = min(numbers)
        for name, key in keys.items():
            if self.samples.wants(name, key):
                self.samples.add(name, key, hashed, self._shown(row, name))

    def _shown(self, row: WorkRow, kind: str) -> dict[str, Any]:
        """A row as a sample; personal data is masked in it even if it left before that step."""
        shown = row
        if kind.startswith("dropped") and self.masks:
            shown = row | {"attributes": {}, "meta": {}}
            for mask in self.masks:
                mask(shown)
        text = shown.get("text") or ""
        found = {
            "id": row["id"],
            "text": records.encodable(text[:SAMPLE_CHARS]),
            "chars": len(text),
        }
        return found | {"attributes": dict(row["attributes"])}

    def end(self, out: Path) -> None:
        """Write what is held."""
        started = perf_counter()
        self.sketch = self.sketcher.save(out)
        self.sketching += perf_counter() - started
        lines = (json.dumps(s, sort_keys=True) + "\n" for s in self.samples.facts())
        self.sample_file.write_text("".join(lines), encoding="utf-8")

    def check_ids(self, out: Path) -> None:
        """No two rows may have the same id.

        Raises:
            ModelwrightError: two have; one of the ids is named.
        """
        hashes, counts = np.unique(np.frombuffer(self.hashes, np.uint64), return_counts=True)
        if len(hashes) == len(self.hashes):
            return
        doubled = set(hashes[counts > 1].tolist())
        seen: set[str] = set()
        for line in records.rows(out / records.DECISIONS, ("id",)):
            if id_hash(line["id"]) in doubled:
                if line["id"] in seen:
                    raise ModelwrightError(
                        f"two rows have the id {line['id']!r}; make the ids of the source unique"
                    )
                seen.add(line["id"])

    def facts(self) -> Facts:
        """What the unit returns."""
        timing = {
            "reading": self.reading,
            "writing": self.writing,
            "sketching": self.sketching,
            "steps": {stepped.name: stepped.seconds for stepped in self.steps},
        }
        counted = {kind: ids.facts() for kind, ids in self.ids.items()}
        bad = sum(self.reasons.values()) - self.ids["quarantined"].rows
        return counted | {
            "items": self.items,
            "bad": bad,
            "passed": dict(sorted(self.passed.items())),
            "bytes": {"in": self.bytes_in, "kept": self.bytes_kept},
            "steps": [stepped.facts() for stepped in self.steps],
            "histograms": self.histograms.facts(),
            "quarantine": dict(self.reasons.most_common(50)),
            "first_bad": self.first_bad,
            "sketch": self.sketch,
            TIMING: timing,
        }


def content_bytes(row: WorkRow) -> int:
    """Bytes of a row's text in UTF-8 and of its media.

    Raises:
        UnicodeEncodeError: the text holds a lone half of a UTF-16 pair.
    """
    text, media = row.get("text"), row.get("media")
    size = len(media) if media else 0
    if text:
        size += len(text) if text.isascii() else len(text.encode())
    return size
