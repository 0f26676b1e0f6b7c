"""A realistic run directory, written file by file as the stages of a run write it."""

from __future__ import annotations

import hashlib
import json
import math
import random
from pathlib import Path

RECIPE = """# the standard library's own documentation
name: quickstart
budget: 3m
data:
  source: stdlib
"""

RESOLVED = {
    "recipe": {
        "name": "quickstart",
        "budget": "3m",
        "seed": 7,
        "data": {"source": "stdlib", "near_duplicate_similarity": 0.8},
        "model": {"name": "decoder", "layers": 6, "width": 256, "heads": 4, "key_value_heads": 2},
        "train": {"steps": 412, "batch_tokens": 8192, "learning_rate": 0.0123, "warmup": 0.05},
        "tune": {"steps": 120, "learning_rate": 0.002},
    },
    "reasons": {
        "model.layers": "depth 6: the largest that sees 12 tokens a parameter in 3 min here",
        "model.width": "64 units of width a layer, rounded to whole heads of 64",
        "train.steps": "3 min at a measured 18,400 tokens/s leave 412 steps of 8,192 tokens",
        "train.learning_rate": "0.02 at width 64, scaled by width^-0.35",
    },
}


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def manifest() -> dict:
    trained = {"parameters": 5_507_072, "tokens": 3_375_104, "flops": 1.24e14, "mfu": 0.483}
    tuned = {"parameters": 5_507_072, "tokens": 491_520, "flops": 1.8e13, "mfu": 0.412}
    inputs = {"splits/train": sha("train"), "tokenizer.json": sha("tokenizer")}
    memory = {"peak_memory_bytes": 2_415_919_104}
    return {
        "run": "quickstart-1",
        "created": "2026-11-22T09:14:03+00:00",
        "code": {"version": "0.1.0", "source_sha256": sha("source"), "git": "4f2c9e1a0b"},
        "libraries": {"torch": "2.13.0", "numpy": "2.3.1", "tokenizers": "0.22.0"},
        "machine": {
            "cpu": "AMD EPYC 9R14",
            "cores": 4,
            "memory_gib": 23.4,
            "python": "3.11.7",
            "system": "Linux 6.1 x86_64",
            "matmul_gflops": {"bfloat16": 790.0, "float32": 285.0},
        },
        "stages": {
            "prepare": {
                "status": "done",
                "seconds": 41.2,
                "fingerprint": sha("prepare"),
                "inputs": {"corpus": sha("corpus")},
                "outputs": {"splits/train": sha("train"), "tokenizer.json": sha("tokenizer")},
            },
            "train": {"status": "done", "seconds": 183.4, "inputs": inputs, **trained, **memory},
            "tune": {"status": "done", "seconds": 44.9, "fingerprint": sha("t"), **tuned},
            "evaluate": {"status": "done", "seconds": 37.0, "fingerprint": sha("e")},
        },
    }


def waterfall() -> list[dict]:
    steps = [
        ("collect", {}, 2_140, 11_900_000),
        ("decode as UTF-8", {"not UTF-8": 6}, 2_134, 11_870_000),
        ("clean", {"shorter than 200 bytes": 81, "mostly digits": 22}, 2_031, 11_240_000),
        ("remove exact duplicates", {"same text as another": 118}, 1_913, 10_310_000),
        ("remove near duplicates", {"near duplicate (0.80)": 143}, 1_770, 9_020_000),
    ]
    lines, rows, size = [], 2_140, 11_900_000
    for step, dropped, out, bytes_out in steps:
        lines.append(
            {
                "step": step,
                "rows_in": rows,
                "rows_out": out,
                "bytes_in": size,
                "bytes_out": bytes_out,
                "dropped": dropped,
                "examples": {why: [f"lib/module_{n}.py" for n in range(12)] for why in dropped},
            }
        )
        rows, size = out, bytes_out
    return lines


SPLIT = {
    "splits": {
        "train": {"rows": 1_602, "bytes": 8_150_000, "groups": 171},
        "validation": {"rows": 84, "bytes": 440_000, "groups": 10},
        "test": {"rows": 84, "bytes": 430_000, "groups": 9},
    },
    "leakage": {"groups_on_both_sides": 0, "exact_duplicates": 0, "near_duplicates": 0},
}

PREPARED = {
    "tasks": {
        "documents": {"codec": "text", "splits": {"train": {"examples": 1_602, "tokens": 2.1e6}}},
        "questions": {"codec": "text", "splits": {"train": {"examples": 6_420, "tokens": 4.1e5}}},
    },
    "tokenizer": {"vocabulary": 4096, "bytes_per_token": {"validation": 3.91, "test": 3.88}},
}


def metrics(steps: int, start: float, end: float, seed: int, *, bits: bool) -> list[dict]:
    """A learning curve: exponential decay with noise, and warm-up-stable-decay."""
    rng = random.Random(seed)
    lines: list[dict] = []
    for step in range(1, steps + 1):
        progress = step / steps
        clean = end + (start - end) * math.exp(-6 * progress)
        loss = clean * (1 + rng.gauss(0, 0.03))
        rate = 0.0123 * min(1, progress / 0.05, (1 - progress) / 0.3 + 0.02)
        lines.append(
            {
                "step": step,
                "loss": loss,
                **({"bits_per_byte": loss / math.log(2) / 3.9} if bits else {}),
                "learning_rate": rate,
                "gradient_norm": 0.4 + 9 * math.exp(-20 * progress) + abs(rng.gauss(0, 0.1)),
                "items_per_second": 18_400 * (1 + rng.gauss(0, 0.02)),
                "seconds": step * 0.445,
                "memory_bytes": 2_300_000_000,
            }
        )
        if step % (steps // 8) == 0:
            held = {"loss": clean * 1.04, "bits_per_byte": clean * 1.04 / math.log(2) / 3.9}
            lines.append({"step": step, "validation": held})
    return lines


SAMPLES = [
    {"step": 50, "prompt": "def read(", "text": "self, the the self.the a\n    the return"},
    {"step": 200, "prompt": "def read(", "text": "self, size):\n        return self.size\n"},
    {
        "step": 412,
        "prompt": "def read(",
        "text": 'self, size=-1):\n        """Read up to size bytes."""\n        if size < 0:\n'
        "            return self._buffer.read()\n        return self._buffer.read(size)\n",
    },
]

EVALUATION = {
    "measures": [
        {
            "name": "validation bits per byte",
            "unit": "bits/byte",
            "better": "lower",
            "rows": [
                {"who": "ours", "value": 1.512},
                {"who": "gzip -9", "value": 2.034},
                {"who": "5-gram, Kneser-Ney", "value": 2.218},
            ],
            "note": "430,000 bytes of modules that no training document comes from.",
        },
        {
            "name": "answer similarity, held-out modules",
            "unit": "",
            "better": "higher",
            "rows": [
                {"who": "ours (tuned)", "value": 0.412},
                {"who": "base model", "value": 0.122},
                {"who": "nearest neighbour of the training answers", "value": 0.301},
            ],
            "note": "Character 3-gram F1 with the reference, mean of 214 questions.",
        },
    ],
    "examples": [
        {
            "question": f"What does `{name}` do?",
            "reference": f"{name}({given}): {does}",
            "answer": f"{name}({given})\n\n{does}",
            "baselines": {
                "base model": "        self.path = path\n        self.path = path",
                "nearest neighbour": "Return True if the path is absolute.",
            },
            "score": score,
        }
        for name, given, does, score in [
            ("os.path.join", "a, *p", "Join two or more pathname components.", 0.71),
            ("statistics.median", "data", "Return the median of numeric data.", 0.64),
            ("textwrap.dedent", "text", "Remove leading whitespace of every line.", 0.42),
            ("bisect.insort", "a, x", "Insert item x in list a and keep it sorted.", 0.37),
            ("colorsys.rgb_to_hls", "r, g, b", "Convert a colour to HLS.", 0.31),
            ("shlex.quote", "s", "Return a shell-escaped version of the string s.", 0.29),
            ("zlib.crc32", "data, value=0", "Compute a CRC-32 checksum of data.", 0.18),
        ]
    ],
    "examples_note": "The first seven held-out questions by hash of their name, not chosen.",
}


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_lines(path: Path, lines: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def build_run(path: Path) -> Path:
    """Write a finished run into ``path``."""
    path.mkdir(parents=True)
    (path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    write_json(path / "resolved.json", RESOLVED)
    write_json(path / "manifest.json", manifest())
    write_json(path / "data/waterfall.json", waterfall())
    write_json(path / "data/split.json", SPLIT)
    write_json(path / "data/prepared.json", PREPARED)
    write_json(path / "evaluation.json", EVALUATION)
    write_lines(path / "metrics/train.jsonl", metrics(412, 8.3, 3.9, 1, bits=True))
    write_lines(path / "metrics/tune.jsonl", metrics(120, 2.9, 1.6, 2, bits=False))
    write_lines(path / "samples/train.jsonl", SAMPLES)
    return path
