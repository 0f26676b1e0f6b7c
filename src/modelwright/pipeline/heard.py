"""Recordings beside the answers that a report shows, and what differs word by word.

Files lie in ``samples/`` of the run, named by their content, so that an answer that is shown twice
has one; the report takes them in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelwright.data import sounds
from modelwright.files import make_folder, replace_file
from modelwright.pipeline.asked import key_of
from modelwright.runs import Run
from modelwright.tasks.task import Task
from modelwright.types import Example, Sound

RATE = 16_000  # samples a second at most
SECONDS = 60.0  # of a recording that are kept: 1.9 MB


def beside(
    run: Run, task: Task, examples: Sequence[Example], entries: Iterable[dict[str, Any]]
) -> None:
    """Add to shown answers the recording that was asked and how reference and answer compare.

    Args:
        run: in whose samples/ the recordings are kept.
        task: of the answers.
        examples: which they answer.
        entries: of ``examples`` and ``worst`` of an evaluation, changed in place: ``sounds`` of
            names of files by what they are, ``compared`` as ``Task.compared`` gives it.
    """
    known = {key_of(example.given): example for example in examples}
    for entry in entries:
        example = known.get(entry.get("key", ""))
        if example is not None and (sound := _recording(example)) is not None:
            entry["sounds"] = kept(run, {"recording": sound})
        if pairs := task.compared(entry["reference"], entry["answer"]):
            entry["compared"] = pairs


def kept(run: Run, found: Mapping[str, Sound]) -> dict[str, str]:
    """Write recordings into samples/: the names of the files by what they are.

    They are brought to RATE if theirs is higher, and what is cut off behind SECONDS is said.
    """
    folder = run.path / "samples"
    make_folder(folder)
    names = {}
    for who, sound in found.items():
        rate = min(sound.rate, RATE)
        samples = sound.samples[: round(SECONDS * sound.rate)]
        content = sounds.encode_wav(sounds.resampled(samples, sound.rate, rate), rate)
        name = f"heard-{hashlib.sha256(content).hexdigest()[:16]}.wav"
        if not (folder / name).exists():
            replace_file(folder / name, content)
        cut = f", its first {SECONDS:g} s" if sound.seconds > SECONDS else ""
        names[who + cut] = name
    return names


def _recording(example: Example) -> Sound | None:
    """The only recording of a question."""
    found = [p for turn in example.given for p in turn.parts if isinstance(p, Sound)]
    return found[0] if len(found) == 1 else None
