"""Trackio. Local unless ``TRACKIO_SPACE_ID`` or ``TRACKIO_SERVER_URL`` names a place to send to.

Its database lies where ``TRACKIO_DIR`` says (its own default is in the user's cache), so that
``trackio show --project modelwright`` finds all runs.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from typing import Any

from modelwright.training.observe.writers import PROJECT, Place, numbers

library = "trackio"
environment: dict[str, str] = {}


class Writer:
    """One run of the tracker a stage."""

    def __init__(self, place: Place) -> None:
        import trackio  # noqa: PLC0415 - optional, and slow to import

        with contextlib.redirect_stdout(sys.stderr):  # it speaks; standard output is for results
            self.run = trackio.init(
                project=os.environ.get("TRACKIO_PROJECT", PROJECT),
                name=f"{place.title}-{place.key[:6]}",
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def write(self, values: Mapping[str, Any]) -> None:
        """Log the record's numbers at its step."""
        self.run.log(dict(numbers(values)), step=values["step"])

    def close(self) -> None:
        """Finish the run."""
        with contextlib.redirect_stdout(sys.stderr):
            self.run.finish()
