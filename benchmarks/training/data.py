"""The data of the comparison: real text, digits and reviews, and synthetic documents."""

from __future__ import annotations

import gzip
import json
import lzma
import math
import os
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.errors import MachineError

Tokens = NDArray[np.int64]
BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"
MEAN, MEDIAN, LONGEST = 116, 84, 1012  # tokens of a document to fine-tune on


def folder(name: str) -> Path:
    """The folder of a data set, absolute. Torch is not loaded for it: peers are timed from here.

    Raises:
        MachineError: it is not on this machine.
    """
    path = Path(os.environ.get("MODELWRIGHT_DATA") or BESIDE).resolve() / name
    if not path.is_dir():
        raise MachineError(
            f"{path}: no data set {name}; name a folder that has it by MODELWRIGHT_DATA"
        )
    return path


def shakespeare() -> tuple[Tokens, Tokens]:
    """Characters as numbers in the order of their code points: the first 9/10, and the rest."""
    text = (folder("tinyshakespeare") / "input.txt").read_text(encoding="utf-8")
    number = {c: i for i, c in enumerate(sorted(set(text)))}
    tokens = np.array([number[c] for c in text], dtype=np.int64)
    cut = int(len(tokens) * 0.9)
    return tokens[:cut], tokens[cut:]


def stream(vocabulary: int, length: int, seed: int, rule: int = 0) -> Tokens:
    """Synthetic text with something to learn: frequencies of Zipf, half of it determined.

    Every second token on average follows from the one before it, the others are drawn anew with
    probability proportional to 1 / (rank + 1). ``rule`` is the seed of what follows from what.
    """
    rng = np.random.default_rng(seed)
    weights = 1.0 / np.arange(2, vocabulary + 2)
    tokens = rng.choice(vocabulary, size=length, p=weights / weights.sum())
    follows = np.random.default_rng(rule).permutation(vocabulary)
    determined = rng.random(length) < 0.5
    for i in np.flatnonzero(determined[1:]) + 1:
        tokens[i] = follows[tokens[i - 1]]
    return tokens.astype(np.int64)


def lengths(count: int, seed: int, median: int = MEDIAN, longest: int = LONGEST) -> Tokens:
    """Log-normal lengths (count,) of texts: the mean is 1.38 times the median."""
    sigma = math.sqrt(2 * math.log(MEAN / MEDIAN))
    drawn = np.random.default_rng(seed).normal(math.log(median), sigma, count)
    return np.exp(drawn).astype(np.int64).clip(8, longest)


def documents(vocabulary: int, count: int, seed: int, rule: int = 0) -> list[Tokens]:
    """Documents of log-normal lengths: median 84, mean 116, between 8 and 1012 tokens."""
    cuts = np.cumsum(lengths(count, seed))
    return np.split(stream(vocabulary, int(cuts[-1]), seed, rule), cuts[:-1])


def reviews(vocabulary: int, longest: int, count: int, seed: int) -> list[tuple[Tokens, int]]:
    """Film reviews as hashed words, at most ``longest``, and 1 for the positive ones."""
    path = folder("imdb") / "train.jsonl.xz"
    with lzma.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    return [_review(rows[i], vocabulary, longest) for i in chosen]


def _review(row: dict[str, Any], vocabulary: int, longest: int) -> tuple[Tokens, int]:
    words = re.findall(r"\w+", str(row["text"]).lower())[:longest]
    # Number 0 is kept for padding, as in BERT's vocabulary.
    numbers = [1 + zlib.crc32(word.encode()) % (vocabulary - 1) for word in words]
    return np.array(numbers, dtype=np.int64), int(row["label"])


def mnist() -> dict[str, NDArray[np.uint8]]:
    """``x_train`` (60000, 28, 28), ``y_train`` (60000,), and ``x_test``, ``y_test``."""
    found = {}
    for part, stem in (("train", "train"), ("test", "t10k")):
        for kind, rest, skip in (("x", "images-idx3", 16), ("y", "labels-idx1", 8)):
            with gzip.open(folder("mnist") / f"{stem}-{rest}-ubyte.gz") as file:
                values = np.frombuffer(file.read(), dtype=np.uint8, offset=skip)
            found[f"{kind}_{part}"] = values.reshape(-1, 28, 28) if kind == "x" else values
    return found
