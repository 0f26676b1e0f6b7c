"""A model as it was before it began to learn from what it makes: what it is held to."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as saved_tensors
from torch import nn

from modelwright.errors import CorruptError
from modelwright.files import make_folder, replace_file


def as_it_began(model: nn.Module, path: Path, *, begins: bool) -> nn.Module:
    """A frozen copy of a model with the parameters that it began with.

    Args:
        model: in training.
        path: where they are kept, as safetensors.
        begins: whether the model is still as it began; they are then written.

    Raises:
        CorruptError: they cannot be read.
    """
    held = deepcopy(model).eval().requires_grad_(False)
    if begins:
        tensors = {name: x.detach().cpu().clone() for name, x in model.state_dict().items()}
        make_folder(path.parent)
        replace_file(path, saved_tensors(tensors))
        return held
    try:
        held.load_state_dict(load_tensors(path.read_bytes()))
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise CorruptError(
            f"{path}: cannot be read ({' '.join(str(error).split())[:200]}); delete the folder that"
            " it lies in and train this stage anew"
        ) from error
    return held
