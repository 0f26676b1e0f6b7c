"""Does the memory that `modelwright design` states hold? Models of six families, 14M to 355M.

Every pair takes some steps in a process of its own, on one core; "ours" is what the design says,
"peer" the largest resident set that the process had.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.run import Row
from modelwright.errors import MachineError

BAR = 0.15
STEPS = 4
# Family, fields, rows of a step, optimiser, precision.
Pair = tuple[str, dict[str, Any], int, str, str]
_SHORT = {"context": 512}
LARGE: dict[str, Pair] = {
    "GPT-2 124M, AdamW": ("gpt2", {"size": "gpt2", **_SHORT}, 2, "adamw", "float32"),
    "GPT-2 355M, AdamW": ("gpt2", {"size": "gpt2-medium", **_SHORT}, 1, "adamw", "bfloat16"),
    "SmolLM2 135M, Lion": ("llama", {"size": "smollm2-135m", **_SHORT}, 2, "lion", "float32"),
    "decoder 60M, Muon": (
        "decoder",
        {"vocabulary": 8192, "depth": 12, "width": 640, "heads": 10, "kv_heads": 5, **_SHORT},
        4,
        "muon",
        "bfloat16",
    ),
    "ResNet-50, SGD": ("resnet", {"size": "resnet50", "classes": 1000}, 16, "sgd", "float32"),
    "ViT-S, AdamW": ("vit", {"size": "vit-small-16", "classes": 1000}, 16, "adamw", "bfloat16"),
    "Whisper base, Adafactor": ("whisper", {"size": "whisper-base"}, 2, "adafactor", "float32"),
}
_TEXT = {"vocabulary": 8192, "depth": 6, "width": 384, "heads": 6, "context": 512}
SMALL: dict[str, Pair] = {
    "GPT-2 14M, AdamW": ("gpt2", _TEXT, 8, "adamw", "bfloat16"),
    "Llama 15M, Lion": ("llama", {**_TEXT, "kv_heads": 3}, 8, "lion", "float32"),
    "decoder 14M, Muon": ("decoder", {**_TEXT, "kv_heads": 3}, 8, "muon", "bfloat16"),
    "ResNet-18, SGD": ("resnet", {"size": "resnet18", "classes": 10}, 16, "sgd", "float32"),
    "ViT-tiny, AdamW": ("vit", {"size": "vit-tiny-16", "classes": 10}, 16, "adamw", "bfloat16"),
    "Whisper tiny, Adafactor": ("whisper", {"size": "whisper-tiny"}, 1, "adafactor", "float32"),
}


def rows(quick: bool) -> list[Row]:
    """Stated over measured, which is to be within 15 %."""
    return [
        answered(name, pair, *measured(pair)) for name, pair in (SMALL if quick else LARGE).items()
    ]


def answered(name: str, pair: Pair, stated: float, real: float) -> Row:
    """The row of a pair; bytes."""
    ratio = stated / real
    return Row(
        f"memory: {name}, {pair[4]}",
        f"{stated / 2**30:.2f} GiB",
        f"{real / 2**30:.2f} GiB",
        ratio,
        f"within {BAR:.0%}",
        abs(ratio - 1) <= BAR,
    )


def measured(pair: Pair) -> tuple[float, float]:
    """(stated, measured) bytes, from a process of its own.

    Raises:
        MachineError: the process failed.
    """
    command = [sys.executable, "-m", "benchmarks.models.memory", json.dumps(pair)]
    done = subprocess.run(
        command,
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise MachineError(f"bench: the training failed ({done.returncode}): {''.join(last)}")
    stated, real = json.loads(done.stdout.splitlines()[-1])
    print(f"  {pair[0]} {pair[3]}: {stated:.4g} {real:.4g}", file=sys.stderr, flush=True)
    return stated, real


def main() -> None:
    """Train one pair here; print its peak and what the design of the same model says."""
    import torch  # noqa: PLC0415 - only the child needs all this
    import torch.nn.functional as F  # noqa: PLC0415

    from modelwright import runtime  # noqa: PLC0415
    from modelwright.models.model import config_class, of_named_size  # noqa: PLC0415
    from modelwright.pipeline.design import of_config  # noqa: PLC0415
    from modelwright.pipeline.trace import inputs_for  # noqa: PLC0415
    from modelwright.training.optimizers import build_optimizers  # noqa: PLC0415

    family, fields, count, optimizer, name = json.loads(sys.argv[1])
    cls = config_class(family)
    config = cls(**of_named_size(cls, fields))
    torch.manual_seed(0)
    model = config.build().train()
    inputs = inputs_for(config, count)
    if inputs is None:
        raise MachineError(f"bench: nobody knows what a {family} reads")
    given = {
        k: torch.randn(t.shape) if t.is_floating_point() else torch.randint(100, t.shape)
        for k, t in inputs.tensors.items()
    }
    precision = runtime.PRECISIONS[name]
    optimizers = build_optimizers(
        model,
        optimizer,
        learning_rate=1e-4,
        matrix_learning_rate=1e-3,
        momentum=0.9,
        weight_decay=0.0,
        precision=precision,
    )
    for _ in range(STEPS):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision != torch.float32):
            if hasattr(model, "negative_log_likelihood"):
                hidden = model.hidden(**given).flatten(0, -2)
                targets = torch.zeros(len(hidden), dtype=torch.long)
                loss = model.negative_log_likelihood(hidden, targets) / len(hidden)
            else:
                logits = model(**given).flatten(0, -2)
                targets = torch.zeros(len(logits), dtype=torch.long)
                loss = F.cross_entropy(logits.float(), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step()
    real = runtime.peak_memory_bytes()  # before the design, which is made in this process too
    stated = of_config(config, count, {}).memory[optimizer, name]
    print(json.dumps([stated.total if stated else 0.0, real]))


if __name__ == "__main__":
    main()
