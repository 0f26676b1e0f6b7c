"""Personal data: 500 of each kind planted in real text, what is found, what is left, how fast.

Every planted value counts as found only when all of it is masked. Precision counts what is found
in the same text though nobody planted it, decoys included (dates, prices, versions, hashes ...);
what was found in the untouched text already is real or judged by eye, and is listed by count.
No peer: presidio finds by a language model's names as well, runs at under 1 MB/s a core, and has
no Chinese identifiers.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import os
import random
import re
import sys
import tarfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.data import planted_pii
from benchmarks.run import Row
from modelwright.data.pii.mask import USUAL, Finder, fixed
from modelwright.errors import MachineError

SEED = 4
EACH, FEW = 500, 60  # planted of each kind; when quick
RECALL, PRECISION, SPEED = 0.99, 0.98, 15.0  # bars; megabytes of UTF-8 a second on one core
PLACES = re.compile(r"(?<=[ \n，。；！？])")


@dataclass
class Count:
    """What became of one kind."""

    planted: int = 0
    found: int = 0
    wrong: int = 0
    missed: list[str] = field(default_factory=list)

    @property
    def precision(self) -> float:
        """Found rightly of all found."""
        return self.found / max(1, self.found + self.wrong)


def rows(quick: bool) -> list[Row]:
    """Recall and precision by kind, values left, decoys, and speed on unplanted prose."""
    texts = real_text(quick)
    counts, left, decoys = measure(texts, FEW if quick else EACH)
    made = []
    for kind, c in counts.items():
        said = f"recall {c.found / c.planted:.4f}, precision {c.precision:.4f}"
        holds = c.found >= RECALL * c.planted and c.precision >= PRECISION
        bar = f"recall >= {RECALL}, precision >= {PRECISION}"
        question = f"personal data: {c.planted} {kind} planted in real text"
        made.append(Row(question, said, "-", c.found / c.planted, bar, holds))
        for missed in c.missed[:3]:  # invented values: these may be shown
            print(f"  {kind} missed: {missed!r}", file=sys.stderr)
    made.append(
        Row("personal data: planted values left in masked text", left, "-", left, "0", not left)
    )
    made.append(
        Row("personal data: share of decoys masked", decoys, "-", decoys, "<= 0.01", decoys <= 0.01)
    )
    for name, sample in texts.items():
        speed, found = pace(sample)
        question = f"personal data: MB/s a core on {name} ({found} found unplanted)"
        made.append(Row(question, speed, SPEED, speed / SPEED, f">= {SPEED:g}", speed >= SPEED))
    return made


def measure(texts: dict[str, list[str]], each: int) -> tuple[dict[str, Count], int, float]:
    """Plant, mask, compare: counts by kind, planted values left, share of decoys touched."""
    draw = random.Random(SEED)
    finder = Finder(frozenset(USUAL))
    hosts = [t for sample in texts.values() for t in sample if len(t) > 80]
    counts = {kind: Count() for kind in planted_pii.KINDS}
    left = touched = 0
    for turn in range(each):
        for kind, make in planted_pii.KINDS.items():
            before, value = make(draw)
            text, start = planted(draw, draw.choice(hosts), before, value)
            left += _judge(finder, text, (start, start + len(value)), kind, counts)
        decoy = planted_pii.decoy(draw)
        text, start = planted(draw, draw.choice(hosts), "", decoy)
        for a, b, kind in finder.spans(text):
            if a < start + len(decoy) and b > start:
                touched += 1
                counts[kind].wrong += 1
                print(f"  decoy {turn}: {decoy!r} taken for {kind}", file=sys.stderr)
    return counts, left, touched / each


def planted(draw: random.Random, host: str, before: str, value: str) -> tuple[str, int]:
    """A window of real text with the value in it, and where that begins."""
    at = draw.choice([m.start() for m in PLACES.finditer(host)] or [len(host)])
    joint = " " if host[at - 1 : at].isalnum() else ""
    head = host[max(0, at - 1500) : at] + joint + before
    after = "" if before[-1:] not in ('"', "<", "(") else {'"': '"', "<": ">", "(": ")"}[before[-1]]
    return f"{head}{value}{after}{draw.choice(' ,，。')}{host[at : at + 1500]}", len(head)


def _judge(
    finder: Finder, text: str, place: tuple[int, int], kind: str, counts: dict[str, Count]
) -> int:
    """Count one planted value; 1 if it can still be read in the masked text."""
    start, end = place
    covered = [s for s in finder.spans(text) if s[0] <= start and s[1] >= end and s[2] == kind]
    counts[kind].planted += 1
    counts[kind].found += bool(covered)
    without = {text[:start].rstrip()[-20:], text[end:].lstrip()[:20]}
    for a, b, other in finder.spans(text):
        if a < end and b > start and other != kind:
            counts[other].wrong += 1
        elif (a < start < b or a < end < b) and b - a > end - start + 2:
            counts[kind].wrong += 1  # it swallowed real text
    value = text[start:end]
    remains = value in finder.mask(text, fixed)[0]
    if remains or not covered:
        counts[kind].missed.append(f"{min(without)} {value}")
    return int(remains)


def pace(sample: list[str]) -> tuple[float, int]:
    """Megabytes of UTF-8 that are searched a second of processor time, the best of three."""
    finder = Finder(frozenset(USUAL))
    size = sum(len(t.encode()) for t in sample) / 1e6
    taken, found = [], Counter[str]()
    for _ in range(3):
        before = time.process_time()
        spans = [finder.spans(t) for t in sample]
        taken.append(time.process_time() - before)
        found = Counter(kind for s in spans for _, _, kind in s)
    return size / min(taken), sum(found.values())


def real_text(quick: bool) -> dict[str, list[str]]:
    """Documents by source; a few megabytes of each.

    Raises:
        MachineError: the folder of real data is not there.
    """
    base = Path(__file__).resolve().parents[3] / "shared" / "data"
    base = Path(os.environ.get("MODELWRIGHT_DATA") or base)
    most = 1 << 20 if quick else 4 << 20
    try:
        with lzma.open(base / "imdb/train.jsonl.xz", "rt", encoding="utf-8") as stream:
            reviews = [json.loads(line)["text"] for line, _ in zip(stream, range(most >> 10))]  # noqa: B905
        with gzip.open(base / "chnsenticorp/ChnSentiCorp_htl_all.csv.gz") as packed:
            table = csv.DictReader(io.TextIOWrapper(packed, encoding="utf-8"))
            hotels = [row["review"] for row in table]
        novels = _members(base / "english_novels/novels.tar.xz", most, ".txt")
        poems = _members(base / "chinese_poetry/poetry.tar.xz", most, ".json")
    except FileNotFoundError as error:
        raise MachineError(
            f"{error.filename} is not there; MODELWRIGHT_DATA names the folder of real data"
        ) from error
    lines = [
        "\n".join(poem["paragraphs"])
        for text in poems
        for poem in json.loads(text)
        if "paragraphs" in poem
    ]
    return {
        "novels": novels,
        "film reviews": reviews,
        "hotel reviews (zh)": hotels,
        "Tang poems": lines,
    }


def _members(path: Path, most: int, suffix: str) -> list[str]:
    texts: list[str] = []
    with tarfile.open(path) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.name.endswith(suffix) else None
            if stream is not None:
                texts.append(stream.read().decode("utf-8", errors="replace"))
            if sum(map(len, texts)) > most:
                break
    return texts
