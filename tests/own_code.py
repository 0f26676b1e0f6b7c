"""The files of examples/extensions, as a recipe of the user's own would name them."""

from __future__ import annotations

from pathlib import Path

from modelwright import extensions
from modelwright.tasks.task import Task

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "extensions"
REFERENCES = [extensions.trust(path) for path in sorted(FOLDER.glob("*.py"))]


def _tasks(reference: str) -> list[type]:
    found = vars(extensions.load(reference)).values()
    return [c for c in found if isinstance(c, type) and c.__module__ == reference]


TASKS = [r for r in REFERENCES if any(issubclass(c, Task) for c in _tasks(r))]
CODECS = [r for r in REFERENCES if hasattr(extensions.load(r), "Codec")]
OBJECTIVES = [r for r in REFERENCES if hasattr(extensions.load(r), "Objective")]
FAMILIES = [r for r in REFERENCES if hasattr(extensions.load(r), "Config")]
