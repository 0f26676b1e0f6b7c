"""Peak memory of a corpus with deduplication, many times larger than its memory limit; by hand.

    python -m tests.slow.corpus_memory --bytes 10e9 --limit 2e9 --workers 2 --folder FOLDER

Where the package is not installed, set PYTHONPATH=src:. first. Writes that much text, runs
``modelwright data run`` on it with a process pool, and adds up the memory of the command and its
workers twice a second until it ends. FOLDER needs about 2.5 times as much room; what is written
there is removed again. Prints one line a stage (most memory while it ran) and a last line of JSON;
exit code 1 when the limit was passed or the command failed.

The texts are real (reviews, novels, poems, pages). In rounds after the first every fourth word is
another word of the corpus, so that no word 5-gram is left and they are new texts of the same
kind; 5 % of the texts are copied exactly, and 10 % with 2 % of their words replaced.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.data.planted_copies import real_texts

SHARD = 48 << 20
EXACT, NEAR, EDITED = 0.05, 0.10, 0.02
_WORD = re.compile(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+")
_DRAWN = 4_000_000  # words drawn beforehand; a text takes a stretch of them
SPEC = """\
name: memory
sources:
  - path: {folder}/texts
    reader: {{jsonl: {{key: id}}}}
deduplicate: {{threshold: 0.8}}
split: {{validation: 0.01, test: 0.01}}
"""


class _Kind:
    """The texts of one script, each cut where every fourth word is taken out."""

    def __init__(self, texts: list[str], rng: random.Random) -> None:
        vocabulary: set[str] = set()
        self.whole: list[str] = []
        self.cut: list[list[str]] = []  # the pieces between the words that are replaced
        for text in texts:
            spans = [m.span() for m in _WORD.finditer(text)]
            vocabulary.update(text[a:b] for a, b in spans[:200])
            pieces, at = [], 0
            for begin, end in spans[2::4]:
                pieces.append(text[at:begin])
                at = end
            self.whole.append(text)
            self.cut.append([*pieces, text[at:]])
        self.drawn = rng.choices(sorted(vocabulary), k=_DRAWN)

    def another(self, number: int, rng: random.Random) -> str:
        """A text like text ``number`` that shares no word 5-gram with it."""
        pieces = self.cut[number]
        begin = rng.randrange(_DRAWN - len(pieces))
        both = [""] * (2 * len(pieces) - 1)
        both[::2] = pieces
        both[1::2] = self.drawn[begin : begin + len(pieces) - 1]
        return "".join(both)

    def edited(self, text: str, rng: random.Random) -> str:
        """The text with some of its words replaced."""
        spans = [m.span() for m in _WORD.finditer(text)]
        chosen = sorted(rng.sample(range(len(spans)), int(len(spans) * EDITED)), reverse=True)
        for i in chosen:
            a, b = spans[i]
            text = text[:a] + rng.choice(self.drawn) + text[b:]
        return text


def texts(seed: int = 0) -> Iterator[str]:
    """Texts without end, with copies."""
    rng = random.Random(seed)
    found = [text for _, text in real_texts()]
    chinese = ["\u4e00" <= text[0] <= "\u9fff" for text in found]
    kinds = [
        _Kind([t for t, c in zip(found, chinese, strict=True) if c == which], rng)
        for which in (True, False)
    ]
    turn = 0
    while True:
        for kind in kinds:
            for number, whole in enumerate(kind.whole):
                text = kind.another(number, rng) if turn else whole
                yield text
                chance = rng.random()
                if chance < EXACT:
                    yield text
                elif chance < EXACT + NEAR:
                    yield kind.edited(text, rng)
        turn += 1


def write(folder: Path, size: int) -> tuple[int, int]:
    """Write ``size`` bytes of JSON Lines; bytes and rows."""
    folder.mkdir(parents=True)
    written = rows = 0
    source = enumerate(texts())
    while written < size:
        with (folder / f"part-{written // SHARD:05d}.jsonl").open("wb") as file:
            shard = 0
            while shard < min(SHARD, size - written):
                number, text = next(source)
                line = json.dumps({"id": str(number), "text": text}, ensure_ascii=False) + "\n"
                shard += file.write(line.encode())
                rows += 1
        written += shard
    return written, rows


def memory(pid: int) -> tuple[int, int, list[int]]:
    """Resident bytes of a process and all below it; the same with shared pages once; of each."""
    waiting, resident, shared = [pid], [], 0
    while waiting:
        one = waiting.pop()
        place = Path("/proc") / str(one)
        try:
            said = (place / "smaps_rollup").read_text()
            resident.append(1024 * int(re.findall(r"^Rss: +(\d+)", said, re.MULTILINE)[0]))
            shared += 1024 * int(re.findall(r"^Pss: +(\d+)", said, re.MULTILINE)[0])
            waiting += map(int, (place / "task" / str(one) / "children").read_text().split())
        except (OSError, IndexError):
            continue  # it has ended meanwhile
    return sum(resident), shared, resident


class _Watch(threading.Thread):
    """Adds up memory while a process lives."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.stage, self.going = pid, "plan", True
        self.most: dict[str, tuple[int, int, list[int]]] = {}

    def run(self) -> None:
        """Look twice a second."""
        while self.going:
            now = memory(self.pid)
            if now[0] > self.most.get(self.stage, (0, 0, []))[0]:
                self.most[self.stage] = now
            time.sleep(0.5)


def run(folder: Path, workers: int) -> tuple[int, float, dict[str, tuple[int, int, list[int]]]]:
    """Make the corpus; exit code, seconds, stage -> most memory until it was done."""
    spec = folder / "memory.yaml"
    spec.write_text(SPEC.format(folder=folder))
    command = [sys.executable, "-m", "modelwright", "data", "run", str(spec)]
    command += ["--out", str(folder / "corpus"), "--engine", "pool", "--workers", str(workers)]
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        watch = _Watch(process.pid)
        watch.start()
        for line in process.stdout or ():
            print(f"{time.monotonic() - started:7.1f} s  {line}", end="", flush=True)
            # A line comes when a stage is done, or while it goes on: then the next is the same.
            watch.stage = f"after {line.partition(':')[0]}"
        process.wait()
        watch.going = False
        watch.join()
    return process.returncode, time.monotonic() - started, watch.most


def main() -> int:
    """Write, run, watch, tell, remove."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=float, default=10e9)
    parser.add_argument("--limit", type=float, default=2e9)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--texts", type=Path, help="texts that --keep has left: not written again")
    parser.add_argument("--keep", action="store_true", help="do not remove what was written")
    options = parser.parse_args()
    folder = options.folder.resolve() / f"memory-{os.getpid()}"
    try:
        started = time.monotonic()
        if options.texts:
            (folder / "texts").mkdir(parents=True)
            for file in options.texts.resolve().iterdir():
                (folder / "texts" / file.name).hardlink_to(file)
            size, rows = sum(f.stat().st_size for f in (folder / "texts").iterdir()), 0
        else:
            size, rows = write(folder / "texts", int(options.bytes))
        took = time.monotonic() - started
        print(f"{size:,} bytes, {rows:,} rows written in {took:.0f} s", flush=True)
        code, seconds, most = run(folder, options.workers)
        used = sum(p.stat().st_size for p in (folder / "corpus").rglob("*") if p.is_file())
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    for stage, (resident, shared, each) in most.items():
        parts = ", ".join(f"{one / 1e6:,.0f}" for one in each)
        print(f"{stage}: {resident / 1e6:,.0f} MB resident ({parts}), {shared / 1e6:,.0f} MB PSS")
    peak = max(resident for resident, _, _ in most.values())
    said = {"bytes": size, "rows_written": rows, "seconds": round(seconds), "exit": code}
    said |= {"peak": peak, "pss": max(shared for _, shared, _ in most.values())}
    print(json.dumps(said | {"limit": int(options.limit), "corpus_bytes": used}))
    return int(code != 0 or peak > options.limit)


if __name__ == "__main__":
    sys.exit(main())
