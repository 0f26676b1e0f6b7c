"""The proof of an export: stored samples go through the trained model and the written one.

Every module's output is compared in the order in which they finish, so the first that differs is
the innermost that is wrong. Relative to the largest value of an output, float32 may differ by
1e-5 (sums in another order); narrower types by what their rounding makes of a deep network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modelwright.errors import ModelwrightError

TOLERANCES = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}


@dataclass(frozen=True)
class Replayed:
    """What was compared: samples, outputs of modules, and the largest relative difference.

    ``remark`` is a line about what was shown beside, or could not be shown on this machine.
    """

    samples: int
    outputs: int
    largest: float
    tolerance: float
    remark: str = ""


def replay(
    trained: nn.Module,
    written: nn.Module,
    samples: Sequence[str],
    run: Callable[[nn.Module, int], Sequence[Tensor]],
    tolerance: float,
) -> Replayed:
    """Compare two models, which are left in evaluation mode.

    Args:
        trained: what was exported.
        written: what was read back.
        samples: a name for each.
        run: the outputs of a model for sample number i.
        tolerance: the largest difference of an output, relative to its largest value.

    Raises:
        ModelwrightError: an output differs more; names the sample, the layer and the difference.
    """
    outputs, largest = 0, 0.0
    for number, name in enumerate(samples):
        before = recorded(trained, run, number)
        after = recorded(written, run, number)
        if [n for n, _ in before] != [n for n, _ in after]:
            raise ModelwrightError(
                f"export: {name} takes another way through the written model; it is of another "
                "shape than the trained one"
            )
        for (layer, one), (_, other) in zip(before, after, strict=True):
            found = difference(one, other)
            if not found <= tolerance:
                raise ModelwrightError(
                    f"export: the written model answers differently: {name}, {layer}: differs by "
                    f"{found:.2g} of its largest value, {tolerance:.0e} is allowed; nothing "
                    "was exported"
                )
            outputs, largest = outputs + 1, max(largest, found)
    return Replayed(len(samples), outputs, largest, tolerance)


def recorded(
    model: nn.Module, run: Callable[[nn.Module, int], Sequence[Tensor]], number: int
) -> list[tuple[str, Tensor]]:
    """Every output of a module by name in the order of finishing, then those of the model."""
    found: list[tuple[str, Tensor]] = []

    def listen(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(_module: nn.Module, _given: object, made: object) -> None:
            for one in made if isinstance(made, tuple | list) else [made]:
                if isinstance(one, Tensor) and one.is_floating_point():
                    found.append((name, one.detach().float().cpu().clone()))

        return hook

    handles = [m.register_forward_hook(listen(n)) for n, m in model.named_modules() if n]
    try:
        with torch.inference_mode():
            results = run(model.eval(), number)
    finally:
        for handle in handles:
            handle.remove()
    found += [("output", one.detach().float().cpu()) for one in results]
    return found


def difference(one: Tensor, other: Tensor) -> float:
    """The largest difference relative to the largest value; infinite where shapes differ."""
    if one.shape != other.shape:
        return float("inf")
    if not one.numel():
        return 0.0
    scale = max(float(one.abs().max()), 1e-6)
    return float((one - other).abs().max()) / scale
