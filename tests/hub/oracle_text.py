"""What the tests of published text models share: real text, and tensors carried by a layout."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from modelwright.hub.names import Layout
from modelwright.models.model import ModelConfig

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports transformers
VOCABULARY = 260  # 256 bytes after four tokens of control


def lines(folder: Path, name: str, count: int) -> list[list[int]]:
    """The first lines of a file as tokens: bytes + 4, begun by 2 and ended by 3."""
    with gzip.open(folder / name, "rt", encoding="utf-8") as file:
        texts = [next(file).strip() for _ in range(count)]
    return [[2, *(4 + b for b in text.encode()), 3] for text in texts]


def packed(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Tokens (N,) of all rows, and their bounds."""
    lengths = torch.tensor([0, *map(len, rows)])
    return torch.tensor([t for row in rows for t in row]), lengths.cumsum(0)


def padded(rows: Sequence[Sequence[int]], filler: int) -> tuple[Tensor, Tensor]:
    """The same as a padded batch (B, T), and which of it is real (B, T)."""
    longest = max(map(len, rows))
    tokens = torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])
    real = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return tokens, real


def stirred(model: nn.Module, seed: int = 1) -> nn.Module:
    """Every parameter moved off its start, so that no norm or bias is trivial."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=generator), alpha=0.05)
    return model.eval()


def lively(model: nn.Module, by: float, seed: int = 2) -> nn.Module:
    """Matrices ``by`` times as large as usual: small ones write one token for ever."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            table = "embed" in name or "shared" in name or "bias" in name
            if p.ndim == 2 and p.requires_grad:
                scale = 0.3 if table else by * p.shape[1] ** -0.5
                p.copy_(torch.randn(p.shape, generator=generator) * scale)
    return stirred(model, seed + 1)


def read(model: nn.Module, layout: Layout, folder: Path) -> nn.Module:
    """Our module with the tensors of a folder; every one of both sides must be accounted for."""
    stored = load_file(folder / "model.safetensors")
    ours = model.state_dict()
    assert sorted(e.ours for e in layout.entries) == sorted(ours)
    found = {}
    for entry in layout.entries:
        value = stored[entry.theirs]
        if entry.part is not None:
            first, size = entry.part
            value = value.narrow(entry.axis, first, size)
        found[entry.ours] = value.reshape(ours[entry.ours].shape)
        assert value.numel() == ours[entry.ours].numel(), entry
    read_names = {e.theirs for e in layout.entries}
    for name in stored.keys() - read_names:
        assert any(fnmatch(name, p) for p in layout.passed), f"{name} is not read"
    model.load_state_dict(found)
    return model.eval()


def write(model: nn.Module, layout: Layout, stored: dict[str, Any], folder: Path) -> None:
    """Our module as a folder that transformers reads."""
    folder.mkdir()
    ours = model.state_dict()
    tensors: dict[str, Any] = {}
    parts: dict[str, list[tuple[int, Tensor]]] = {}
    for entry in layout.entries:
        value = ours[entry.ours]
        if entry.part is not None:
            parts.setdefault(entry.theirs, []).append((entry.part[0], value))
        else:
            tensors[entry.theirs] = value.reshape(entry.shape) if entry.shape else value
    for name, found in parts.items():
        tensors[name] = torch.cat([v for _, v in sorted(found, key=lambda p: p[0])])
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(stored))


def there_and_back(
    theirs: Any, family: Any, folder: Path, *, seed: int = 0
) -> tuple[nn.Module, ModelConfig, Any]:
    """Their model read by us, our config, and what they read of what we wrote of it."""
    theirs.save_pretrained(folder / "theirs")
    stored = json.loads((folder / "theirs" / "config.json").read_text())
    config = family.config_from(stored)
    torch.manual_seed(seed)
    ours = read(config.build(), family.layout(config), folder / "theirs")
    write(ours, family.layout(config), family.config_to(config), folder / "ours")
    again, report = type(theirs).from_pretrained(folder / "ours", output_loading_info=True)
    # The bare model of transformers has a pooler, which it makes anew where none is stored, and
    # an untied head of BERT a second bias that is never read.
    known = ("pooler.", *(() if config.to_dict().get("tied", True) else ("cls.predictions.bias",)))
    missing = [k for k in report["missing_keys"] if not k.startswith(known)]
    assert not missing, missing
    assert not report["unexpected_keys"], report["unexpected_keys"]
    assert not report["mismatched_keys"]
    assert family.config_from(json.loads(again.config.to_json_string(use_diff=False))) == config
    return ours, config, again.eval()
