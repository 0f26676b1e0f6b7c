"""modelwright: develop and fine-tune a large model from zero.

import modelwright as mw
model = mw.load(mw.run("quickstart"))
print(model("What does `os.path.join` do?"))
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from modelwright.version import __version__

__all__ = ["__version__", "evaluate", "load", "prepare", "run", "train", "tune"]

# Before torch starts its threads: waiting threads sleep instead of spinning. On a quiet machine it
# costs nothing measurable; beside one other busy program it is the difference between 1/2 of the
# speed and 1/50 of it, because spinning threads starve the ones they wait for.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from modelwright.api import evaluate, load, prepare, run, train, tune


def __getattr__(name: str) -> Any:
    """Import the Python face when it is first used: ``import modelwright`` stays instant."""
    if name in __all__:
        from modelwright import api  # noqa: PLC0415 - lazily, see above

        return getattr(api, name)
    raise AttributeError(f"module 'modelwright' has no attribute {name!r}")
