"""The scripts of this package as measurements."""

from __future__ import annotations

from functools import partial

from benchmarks.training import measure

script = partial(measure.script, package="benchmarks.vision")
