"""Duplicates: ours beside datatrove, throughput a core and what is found of what was planted.

Both work on the same files, on one core each, in turns; MB/s are those of a second of processor
time of the whole process, so that what else the machine does counts for neither. Recall is the
share of planted copies at or above the threshold of which the copy or its original left.
Precision is the share of what left that is a copy, by the true similarity, of something that
stays, for a text that leaves without one that stays is a text lost.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.data.planted_copies import NEAR, RATES, Planted, grams, similarity, write
from benchmarks.run import Row, left_out
from benchmarks.training.measure import at_least, in_turns, parsed
from modelwright.errors import MachineError

ROOT = Path(__file__).resolve().parents[2]
PEER = "MODELWRIGHT_BENCH_DATATROVE"  # the Python of an environment with peers/datatrove.txt
SIZE = "MODELWRIGHT_BENCH_MB"  # another size of the corpus, in MB
REPEATS = "MODELWRIGHT_BENCH_REPEATS"  # how often each is measured; a round takes half an hour
FULL, QUICK = 500, 40
VOCABULARY = 16384
LONGEST = 4 * 3600.0

Result = dict[str, Any]


def rows(quick: bool) -> list[Row]:
    """Speed of deduplication alone, and what was found of what was planted."""
    with corpus(quick) as (folder, written, truth):
        row, removed = compared("dedup", "MinHash", folder, written, repeats(quick))
        texts = _planted_texts(folder / "texts", truth)
        return [row, *_quality(texts, truth, removed, _alike(folder / "texts", truth, removed))]


def repeats(quick: bool) -> int:
    """How often each is measured."""
    return 1 if quick else int(os.environ.get(REPEATS, "5"))


@contextmanager
def corpus(quick: bool) -> Iterator[tuple[Path, int, list[Planted]]]:
    """A folder with ``texts`` and a tokenizer, its bytes, and what was planted in it."""
    _check(os.environ.get(PEER, sys.executable))
    size = int(float(os.environ.get(SIZE, QUICK if quick else FULL)) * 1e6)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        written, truth = write(folder / "texts", size)
        _train(folder / "texts", folder / "tokenizer.json")
        yield folder, written, truth


def compared(
    mode: str, what: str, folder: Path, written: int, times: int
) -> tuple[Row, dict[str, set[str]]]:
    """The row of throughput of a mode, and the ids that left, by contender."""
    tokenizer = folder / "tokenizer.json"
    python = os.environ.get(PEER, sys.executable)
    results = in_turns(
        {
            "ours": partial(_ours, mode, folder, tokenizer),
            "datatrove": partial(_datatrove, python, mode, folder, tokenizer),
        },
        times,
    )
    speed = {
        name: statistics.median(written / 1e6 / r["cpu"] for r in of)
        for name, of in results.items()
    }
    question = (
        f"{what}, {written / 1e6:.0f} MB, MB a core second against datatrove"
        f", {'one run' if times == 1 else f'median of {times}'}"
    )
    row = at_least(question, speed["ours"], speed["datatrove"], 3)
    return row, {name: of[0]["ids"] for name, of in results.items()}


def _check(python: str) -> None:
    """Whether the peer can be started."""
    command = [python, "-c", "import datatrove.pipeline.dedup, spacy"]
    done = subprocess.run(command, check=False, capture_output=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise MachineError(
            f"datatrove is not installed for {python}: install benchmarks/data/peers/datatrove.txt"
            f" in an environment of its own and name its Python in {PEER}"
        )


def _ours(mode: str, folder: Path, tokenizer: Path) -> Result:
    command = [sys.executable, "-m", "benchmarks.data.ours_copies"]
    return _measured("ours", command, mode, folder, tokenizer)


def _datatrove(python: str, mode: str, folder: Path, tokenizer: Path) -> Result:
    command = [python, str(ROOT / "benchmarks/data/peers/datatrove_copies.py")]
    return _measured("datatrove", command, mode, folder, tokenizer)


def _measured(
    name: str, command: Sequence[str], mode: str, folder: Path, tokenizer: Path
) -> Result:
    """Run a contender on one core; its line of JSON with the ids that left."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    core = max(os.sched_getaffinity(0))
    variables = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, mode, str(folder / "texts"), str(out), str(tokenizer)],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST,
        preexec_fn=partial(os.sched_setaffinity, 0, {core}),
    )
    result = parsed(f"{name} {mode}", done)
    result["ids"] = set((out / "removed.txt").read_text(encoding="utf-8").split("\n")) - {""}
    return result


def _train(texts: Path, path: Path) -> None:
    """One tokenizer for both, trained on the first file."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with min(texts.iterdir()).open(encoding="utf-8") as file:
        lines = (json.loads(line)["text"] for line, _ in zip(file, range(5000), strict=False))
        made.train_from_iterator(lines, trainer)
    made.save(str(path))


def _planted_texts(texts: Path, truth: Sequence[Planted]) -> dict[str, str]:
    """The texts of planted copies and their originals."""
    wanted = {name for p in truth for name in (p.original, p.copy)}
    return {name: text for name, text in _texts(texts) if name in wanted}


def _texts(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.iterdir()):
        with path.open(encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                yield row["id"], row["text"]


def _alike(
    folder: Path, truth: Sequence[Planted], removed: Mapping[str, set[str]]
) -> dict[str, set[str]]:
    """For texts that left without a planted reason: all texts that are as similar to them.

    Real texts have copies that nobody planted, poems above all.
    """
    near = {name for p in truth if p.jaccard >= NEAR for name in (p.original, p.copy)}
    doubted = {name for ids in removed.values() for name in ids} - near
    pieces = {name: grams(text) for name, text in _texts(folder) if name in doubted}
    holders: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, held in pieces.items():
        for gram in held:
            holders[gram].append(name)
    found: dict[str, set[str]] = defaultdict(set)
    for other, text in _texts(folder):
        theirs = grams(text)
        shared = Counter(name for gram in theirs for name in holders.get(gram, ()))
        for name, count in shared.items():
            if name != other and count >= NEAR * (len(theirs) + len(pieces[name]) - count):
                found[name].add(other)
    return found


def _quality(
    texts: Mapping[str, str],
    truth: Sequence[Planted],
    removed: Mapping[str, set[str]],
    alike: Mapping[str, set[str]],
) -> list[Row]:
    found = []
    for language, chinese in (("English", False), ("Chinese", True)):
        mine = [p for p in truth if p.chinese == chinese]
        if not mine:
            continue
        found.append(_compared(f"{language}: precision", partial(_precision, mine, alike), removed))
        true = [p for p in mine if p.jaccard >= NEAR]
        question = f"{language}: recall, {len(true)} copies at similarity {NEAR} and more"
        found.append(_compared(question, partial(_recall, true), removed))
        by_rate: dict[float, list[Planted]] = defaultdict(list)
        for p in mine:
            by_rate[p.rate].append(p)
        for rate in RATES:
            of = by_rate[rate]
            near = [p for p in of if p.jaccard >= NEAR]
            question = f"{language}: {rate:.0%} of words replaced, {len(of)} copies: found"
            question += f" ({len(near)} at {NEAR} and more)"
            shown = {n: f"{_recall(of, ids):.3f}" for n, ids in removed.items()}
            found.append(
                Row(question, shown["ours"], shown["datatrove"], float("nan"), "shown", True)
            )
    assert all(similarity(texts[p.original], texts[p.copy]) == p.jaccard for p in truth[:20])
    return found


def _compared(
    question: str, measure: Callable[[set[str]], float], removed: Mapping[str, set[str]]
) -> Row:
    ours, peer = measure(removed["ours"]), measure(removed["datatrove"])
    if math.isnan(peer):
        return left_out(question, "datatrove removed nothing of it")
    return at_least(question, ours, peer, 1)


def _recall(planted: Sequence[Planted], removed: set[str]) -> float:
    if not planted:
        return float("nan")
    return sum(p.copy in removed or p.original in removed for p in planted) / len(planted)


def _precision(
    planted: Sequence[Planted], alike: Mapping[str, set[str]], removed: set[str]
) -> float:
    """Of the texts of these languages that left: copies of a text that stays.

    A text has one planted copy at most, so a removed pair is one loss.
    """
    partner = {p.original: p for p in planted} | {p.copy: p for p in planted}
    poems = bool(planted) and planted[0].chinese
    left = [name for name in removed if name.startswith("poem") == poems]
    right = 0
    for name in left:
        pair = partner.get(name)
        if pair is not None and pair.jaccard >= NEAR:
            other = pair.copy if name == pair.original else pair.original
            right += other not in removed
        else:
            right += not alike.get(name, set()) <= removed
    return right / len(left) if left else float("nan")
