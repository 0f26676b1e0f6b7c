"""Weights & Biases. Offline unless ``WANDB_MODE`` says otherwise: files in ``wandb/`` of the run.

``wandb sync`` sends an offline run later. A resumed run goes on under the same id.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from modelwright.training.observe.writers import PROJECT, Place, numbers

library = "wandb"
# Nothing is sent that was not asked for: the library reports its own errors unless told not to.
environment = {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}


class Writer:
    """One run of the tracker a stage."""

    def __init__(self, place: Place) -> None:
        import wandb  # noqa: PLC0415 - optional, and slow to import

        quiet = wandb.Settings(
            console="off", x_disable_stats=True, x_disable_meta=True, disable_git=True
        )
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=place.title,
            id=place.key,
            resume="allow",
            dir=str(place.run),
            reinit="create_new",
            settings=quiet,
        )

    def write(self, values: Mapping[str, Any]) -> None:
        """Log the record's numbers at its step."""
        self.run.log(dict(numbers(values)), step=values["step"])

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()
