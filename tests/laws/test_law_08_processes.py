"""Law 8: 1, 2 and 4 processes see the same samples in the same order, and agree in their losses.

Real processes talking through gloo; every loss of 50 steps, relative to one process. Muon, tied
weights, bfloat16 and hybrid shards are in tests/parallel/test_placed.py.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.training.parallel import World
from modelwright.types import Columns, Ragged, rows_in
from tests.parallel.worlds import losses

AGREE = 1e-5  # relative
DECODER = {
    "task": "documents",
    "batch": 6,
    "accumulate": 2,
    "steps": 50,
    "learning_rate": 0.003,
    "model_fields": {"depth": 2, "context": 16},
}
MLP = {"task": "vector_classification", "batch": 5, "steps": 50, "learning_rate": 0.003}
RNN = {"task": "sequence_classification", "batch": 5, "steps": 50, "learning_rate": 0.003}
SETTINGS: dict[str, dict[str, Any]] = {"decoder": DECODER, "mlp": MLP, "rnn": RNN}


CASES: list[tuple[str, int, dict[str, Any]]] = [
    ("decoder", 2, {}),
    ("decoder", 2, {"shard": "fsdp"}),
    ("decoder", 2, {"tensor": 2}),
    ("decoder", 2, {"context": 2}),
    ("rnn", 2, {}),
    ("decoder", 4, {}),
    ("mlp", 4, {}),
]


@cache
def alone(name: str) -> list[float]:
    return losses(1, {"setting": SETTINGS[name]})[0]


@cache
def together(processes: int) -> list[list[float]]:
    """Of all cases of so many processes, which start once."""
    orders = [{"setting": SETTINGS[n], **form} for n, size, form in CASES if size == processes]
    return losses(processes, *orders)


@pytest.mark.parametrize(("name", "processes", "form"), CASES)
def test_losses_agree(name: str, processes: int, form: dict[str, Any]) -> None:
    """Also with 5 rows for 4 processes, and with 3 rows a micro-batch for 4: one has none."""
    own = [(n, f) for n, size, f in CASES if size == processes].index((name, form))
    found = together(processes)[own]
    assert len(found) == SETTINGS[name]["steps"]
    np.testing.assert_allclose(found, alone(name), rtol=AGREE)
    assert found[-1] != found[0]


@given(
    rows=st.integers(1, 40),
    processes=st.integers(1, 9),
    together=st.integers(1, 3),
    kind=st.sampled_from(["tensor", "context"]),
)
def test_the_shares_are_the_rows_in_their_order(
    rows: int, processes: int, together: int, kind: str
) -> None:
    """Joined by rank, the counting shares are the micro-batch; groups share their rows."""
    columns: Columns = {
        "x": np.arange(rows),
        "y": Ragged.of([np.full(i % 4, i) for i in range(rows)]),
    }
    seen: list[int] = []
    sizes = set()
    for rank in range(processes * together):
        world = World(rank=rank, size=processes * together, **{kind: together})
        share, counts = world.share(columns)
        assert rows_in(share) > 0  # even a process without rows takes part
        if rank % together == 0 and counts:
            seen += list(np.asarray(share["x"]))
            sizes.add(rows_in(share))
    assert seen == list(range(rows))
    assert max(sizes) - min(sizes) <= 1
