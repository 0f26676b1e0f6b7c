"""Twenty steps from the same weights, on the same batches, by the same AdamW: the same losses.

In float32, both sides in one process. What differs is the order of sums.
"""

from __future__ import annotations

from benchmarks.run import Row
from modelwright.errors import MachineError

STEPS = 20
RATE = 1e-4
BAR = 1e-3  # nats


def rows(quick: bool) -> list[Row]:
    """The largest difference of the losses of each shape."""
    from benchmarks.models.shapes import shapes  # noqa: PLC0415

    found = []
    for name in shapes(quick):
        mine, peer = losses(name, quick)
        gap = max(abs(a - b) for a, b in zip(mine, peer, strict=True))
        found.append(
            Row(
                f"{name}: loss after {STEPS} steps, largest difference {gap:.2g}",
                mine[-1],
                peer[-1],
                mine[-1] / peer[-1],
                f"within {BAR:g} at every step",
                gap <= BAR,
            )
        )
    return found


def losses(name: str, quick: bool, steps: int = STEPS) -> tuple[list[float], list[float]]:
    """The losses of both sides over some steps.

    Raises:
        MachineError: transformers is not installed.
    """
    import torch  # noqa: PLC0415

    from benchmarks.models import contender  # noqa: PLC0415
    from benchmarks.models.shapes import shapes  # noqa: PLC0415

    shape = shapes(quick)[name]
    model, config = contender.ours(shape)
    try:
        peer = contender.theirs(shape, model, config)
    except ImportError as error:
        raise MachineError("bench: transformers is missing; see requirements.txt") from error
    work = contender.batches(shape, config, 4)
    found: list[list[float]] = []
    sides = (
        (model, contender.our_loss(shape, model)),
        (peer, contender.their_loss(shape, peer)),
    )
    for module, loss in sides:
        optimizer = torch.optim.AdamW(module.parameters(), lr=RATE, betas=(0.9, 0.95))
        taken = []
        for step in range(steps):
            value = loss(work[step % len(work)])
            value.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            taken.append(value.item())
        found.append(taken)
    return found[0], found[1]
