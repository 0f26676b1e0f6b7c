"""The file that labels are kept in: a line for every decision, appended and flushed at once.

Nothing in it is ever changed, so that a crash costs at most the line being written. Reading it
again replays the decisions: a later one of the same person about the same row replaces an
earlier one, and an undo takes the person's last decision back.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from modelwright.errors import CorruptError, MachineError, ModelwrightError
from modelwright.files import make_folder, sync_folder

Action = Literal["label", "skip", "undo"]
ACTIONS: tuple[Action, ...] = ("label", "skip", "undo")


@dataclass(frozen=True)
class Decision:
    """One line of the file.

    Attributes:
        id: the row.
        action: "label", "skip" or "undo" (of the same person's decision about this row).
        label: the label, for "label".
        who: the person.
        at: when, ISO 8601 in UTC.
        seconds: how long the row was looked at, or None where that is not known.
    """

    id: str
    action: Action
    label: str | None
    who: str
    at: str
    seconds: float | None


def decision(
    row: str, action: Action, label: str | None, who: str, seconds: float | None
) -> Decision:
    """A decision made now."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Decision(row, action, label, who, at, None if seconds is None else round(seconds, 3))


def read_decisions(path: Path) -> list[Decision]:
    """All decisions in the order in which they were made; a line cut short by a crash is not one.

    Raises:
        CorruptError: another line is not a decision; says which.
        ModelwrightError: the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ModelwrightError(f"{path}: cannot be read ({error.strerror or error})") from None
    lines = content.split(b"\n")[:-1]  # what follows the last line end is torn, or nothing
    return [_parsed(line, f"{path}: line {i}") for i, line in enumerate(lines, 1) if line.strip()]


def _parsed(line: bytes, where: str) -> Decision:
    try:
        value: Any = json.loads(line)
        found = Decision(**value)
    except (ValueError, TypeError, RecursionError):
        raise CorruptError(
            f"{where}: not a line of labels; remove it, or name another file"
        ) from None
    texts = isinstance(found.id, str) and isinstance(found.who, str) and isinstance(found.at, str)
    labelled = (found.action == "label") == isinstance(found.label, str)
    timed = found.seconds is None or (
        isinstance(found.seconds, (int, float)) and not isinstance(found.seconds, bool)
    )
    if not (texts and labelled and timed and found.action in ACTIONS):
        raise CorruptError(f"{where}: not a line of labels; remove it, or name another file")
    return found


def standing(decisions: Iterable[Decision]) -> dict[tuple[str, str], Decision]:
    """The decisions that hold, by (person, row): later ones replace, undone ones are gone."""
    history: dict[tuple[str, str], list[Decision]] = {}
    for one in decisions:
        past = history.setdefault((one.who, one.id), [])
        if one.action != "undo":
            past.append(one)
        elif past:
            past.pop()
    return {key: past[-1] for key, past in history.items() if past}


def labels_in(path: Path) -> Iterator[tuple[str, str, str]]:
    """The (row, person, label) records that hold: what `votes_of` takes."""
    for (who, row), one in standing(read_decisions(path)).items():
        if one.label is not None:
            yield row, who, one.label


class LabelFile:
    """The file, open for appending; one process at a time may hold it.

    Raises:
        MachineError: another process has it open, or it cannot be written.
        CorruptError: it holds lines that are not decisions.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            make_folder(path.absolute().parent)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(path, flags, 0o666)
        except OSError as error:
            raise MachineError(
                f"{path}: cannot be written ({error.strerror or error}); name another --out"
            ) from None
        try:
            self._hold()
            self.decisions = read_decisions(path)
            self._mend()
            sync_folder(path.absolute().parent)
        except BaseException:
            os.close(self._descriptor)
            raise

    def _hold(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise MachineError(
                f"{self.path}: another process is labelling into it; end that one, or name"
                " another --out"
            ) from None

    def _mend(self) -> None:
        """Cut off a line that a crash left unfinished."""
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(self._descriptor, whole)
            os.fsync(self._descriptor)

    def append(self, one: Decision) -> None:
        """Write one decision; it is on the disk when this returns.

        Raises:
            MachineError: the disk is full or the like; the file is as it was.
        """
        line = json.dumps(asdict(one), ensure_ascii=True).encode() + b"\n"
        before = os.fstat(self._descriptor).st_size
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, before)
            raise MachineError(
                f"{self.path}: the label was not written ({error.strerror or error}); make room"
                " and give it again"
            ) from None
        self.decisions.append(one)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
