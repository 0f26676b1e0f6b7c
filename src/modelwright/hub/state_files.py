"""A lone file of weights, as torchvision and timm publish them: the caller says which model."""

from __future__ import annotations

from pathlib import Path

from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.hub import timm, torchvision
from modelwright.hub.files import Published
from modelwright.models.model import ModelConfig

NAMINGS = {"torchvision": torchvision, "timm": timm}


def state_file(path: Path, config: ModelConfig, naming: str) -> Published:
    """A checkpoint of one file of safetensors, for ``loading.load``.

    Args:
        path: of the file.
        config: of the model whose weights it holds.
        naming: whose names the tensors bear, "torchvision" or "timm".

    Raises:
        ModelwrightError: no such file or naming, or a file of another kind.
    """
    if naming not in NAMINGS:
        hint = did_you_mean(naming, NAMINGS)
        raise ModelwrightError(f"naming {naming!r}: unknown{hint}; known: {', '.join(NAMINGS)}")
    if path.suffix != ".safetensors":
        raise ModelwrightError(
            f"{path}: only safetensors are read, a pickle can run code; convert it where you trust"
            ' it: safetensors.torch.save_file(torch.load(FILE, weights_only=True), "OUT")'
        )
    if not path.is_file():
        raise ModelwrightError(f"{path}: no such file; give the path of a .safetensors file")
    stored = NAMINGS[naming].config_to(config)
    return Published(str(path), path.parent, None, stored, {path.name: ()})
