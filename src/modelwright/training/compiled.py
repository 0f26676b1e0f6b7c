"""Compile the parts of a model that a training step repeats.

A model may name them (``regions``): the compiler then meets a small graph once and uses it for
every layer, which takes a fraction of the time that the whole model would. What is compiled is
kept by PyTorch in a cache on disk, so the second run begins within seconds.

A small model that names none can have its forward and backward pass compiled as one function:
there the operators take no longer than what calls them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch._functorch.config
from torch import Tensor, nn

from modelwright.kernels.build import compiler_loaded
from modelwright.types import Batch, Objective

Tensors = dict[str, Tensor]


# From this width on the products outweigh the rest, and to compute some activations again in the
# backward pass costs little: 8 blocks of 512 hold 12 % less memory at 3 % more time; 4 blocks of
# 256 would lose 5 %. The share of the activations that is kept:
WIDE, WIDE_ACTIVATIONS = 512, 0.85

# Of a whole step: elements of a loop that are worth a thread of their own. The compiler's 512 wake
# a second thread for what one does in a microsecond; products divide by a rule of their own.
_CHUNK = 1 << 16
# What may change between two steps, by the compiler's names (``_watched``), and whose never does.
_CHANGING = {
    "TENSOR_MATCH", "CONSTANT_MATCH", "EQUALS_MATCH", "ID_MATCH", "SEQUENCE_LENGTH", "GRAD_MODE",
    "GLOBAL_STATE", "DETERMINISTIC_ALGORITHMS", "DEFAULT_DEVICE", "TORCH_FUNCTION_STATE",
}  # fmt: skip
_FIXED = ("G['torch']", "G['__builtins", "__import__('torch')", "G['__import_torch")


def can_compile(device: torch.device) -> bool:
    """Whether this machine has what the compiler needs; see ``no_compiler``."""
    return not no_compiler(device)


def no_compiler(device: torch.device) -> str:
    """Why nothing can be compiled here; empty where it can.

    On a CPU it takes a C++ compiler, and PyTorch in a path without spaces: it hands its own
    library folder to the linker unquoted (seen with torch 2.13).
    """
    if device.type != "cpu":
        return ""
    if not (shutil.which("g++") or shutil.which("clang++")):
        return "there is no C++ compiler (g++ or clang++)"
    place = Path(torch.__file__).parent
    if any(c.isspace() for c in str(place)):
        return f"PyTorch cannot link from a path with spaces ({place})"
    return ""


def compile_regions(model: nn.Module, *, lengths_vary: bool) -> bool:
    """Compile what the model names in ``regions``; False where it names nothing.

    Args:
        model: compiled in place; its parameters and their names stay as they are.
        lengths_vary: whether batches differ in their number of positions: the code is then made
            for any number from the start.
    """
    regions = getattr(model, "regions", None)
    if regions is None:
        return False
    _use_cache()
    wide = getattr(getattr(model, "config", None), "width", 0) >= WIDE
    torch._functorch.config.activation_memory_budget = WIDE_ACTIVATIONS if wide else 1.0
    for region in regions():
        region.compile(dynamic=True if lengths_vary else None)
    return True


class WholeStep:
    """Loss, gradients, their norm and their clipping as one compiled function.

    For models whose batches all have one shape, on one process. Random numbers inside, as for
    dropout, are others than without compiling, and follow torch's seed as well.

    Args:
        model: called as it is in training; its parameters stay where they are.
        objective: whose loss must be one graph, without a look at the values of tensors.
        clip: largest norm of the gradient; 0 for none.
        precision: of matrix products.
    """

    def __init__(
        self, model: nn.Module, objective: Objective, clip: float, precision: torch.dtype
    ) -> None:
        _use_cache()
        self.trained = {f"model.{n}": p for n, p in model.named_parameters() if p.requires_grad}
        root, narrow = _Loss(model, objective), precision != torch.float32
        self._count, self._share = 0, torch.empty(0)

        def shared(parameters: Tensors, inputs: Tensors, targets: Tensors, share: Tensor) -> Tensor:
            with torch.autocast(_kind(inputs), dtype=precision, enabled=narrow):
                found: Tensor = torch.func.functional_call(root, parameters, (inputs, targets))
            return found * share

        def step(
            parameters: Tensors, inputs: Tensors, targets: Tensors, share: Tensor
        ) -> tuple[Tensor, list[Tensor]]:
            by_name, loss = torch.func.grad_and_value(shared)(parameters, inputs, targets, share)
            found = list(by_name.values())
            norm = torch.stack([g.float().square().sum() for g in found]).sum().sqrt()
            if clip:
                scale = (clip / (norm + 1e-6)).clamp(max=1.0)
                found = [g * scale for g in found]
            return torch.stack([loss, norm]), found

        options: dict[str, Any] = {"guard_filter_fn": _watched, "cpp.min_chunk_size": _CHUNK}
        self.step = torch.compile(step, fullgraph=True, dynamic=False, options=options)

    def __call__(self, batch: Batch, count: int) -> Tensor:
        """Set the gradients of a batch's loss / ``count``.

        Returns:
            That loss and the norm of its gradient before clipping, shape (2,).
        """
        parameters = {name: p.detach() for name, p in self.trained.items()}
        if count != self._count:  # nearly always that of the step before
            of = next(iter(batch.targets.values()))
            self._count, self._share = count, torch.tensor(1.0 / count, device=of.device)
        values, gradients = self.step(parameters, batch.inputs, batch.targets, self._share)
        for p, gradient in zip(self.trained.values(), gradients, strict=True):
            p.grad = gradient
        found: Tensor = values
        return found


def _watched(guards: Sequence[Any]) -> list[bool]:
    """Of what the compiler looks at before every call, what a training can change.

    Tensors' shapes, numbers and flags of the model and objective, and torch's own state. Not the
    functions of torch and Python, the types of modules and their hooks: 400 looks for a perceptron
    of three layers, a twentieth of its step.
    """
    return [g.guard_type in _CHANGING and not g.name.startswith(_FIXED) for g in guards]


class _Loss(nn.Module):
    """The summed loss as a function of tensors alone."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, inputs: Tensors, targets: Tensors) -> Tensor:
        return self.objective.loss(self.model, Batch(inputs, targets, count=0))


def _kind(tensors: Tensors) -> str:
    return next(iter(tensors.values())).device.type


def _use_cache() -> None:
    """Results do not depend on it; a folder of the user's own outlives the system's /tmp."""
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(_cache())


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "modelwright" / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:  # no home to write to
        return Path(tempfile.gettempdir()) / "modelwright-compiled"
    return folder


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run modules as they are written: what happens beside training is not worth compiling."""
    if not compiler_loaded():
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
