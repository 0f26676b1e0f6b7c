"""TensorBoard event files in ``tensorboard/<stage>``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorboardX import SummaryWriter

from modelwright.training.observe.writers import Place, numbers

library = ""  # tensorboardX comes with the package


class Writer:
    """Every number of a record as a scalar at its step; later steps of a killed run are purged."""

    def __init__(self, place: Place) -> None:
        folder = place.run / "tensorboard" / place.stage
        self.board = SummaryWriter(str(folder), purge_step=place.first + 1)

    def write(self, values: Mapping[str, Any]) -> None:
        """Add the record's numbers."""
        for name, number in numbers(values):
            self.board.add_scalar(name, number, values["step"])

    def close(self) -> None:
        """Flush and close."""
        self.board.close()
