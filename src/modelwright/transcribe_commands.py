"""``modelwright transcribe``: recordings and folders of them written down by a trained run."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.errors import (
    EXIT_NOT_HELD,
    EXIT_OK,
    EXIT_USAGE,
    CorruptError,
    MachineError,
    ModelwrightError,
)
from modelwright.places import existing_run

if TYPE_CHECKING:
    from modelwright.pipeline.transcribed import Transcriber

EVERY = 10.0  # seconds between lines of progress where there is no terminal

# Imports are inside the command: `modelwright --help` must not wait for torch.


def add_command(commands: Any) -> None:
    """Add ``transcribe`` to the commands of the command line."""
    text = "write down recordings of any length, as lines, JSON or subtitles"
    command = commands.add_parser("transcribe", help=text, description=text)
    command.add_argument("run", type=existing_run, help="a run of speech_recognition")
    command.add_argument(
        "recordings", nargs="+", type=Path, metavar="FILE_OR_FOLDER", help="sound files"
    )
    command.add_argument(
        "--format", choices=("text", "json", "srt", "vtt"), default="text", help="default: text"
    )
    command.add_argument("--words", action="store_true", help="subtitles of a word each")
    command.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="a file a recording there (default: text and JSON are printed, subtitles lie beside"
        " their recordings)",
    )
    command.add_argument("--force", action="store_true", help="write existing files anew")
    command.add_argument("--stage", choices=("train", "tune"), help="which (default: the last)")
    command.set_defaults(work=_transcribe)


def _transcribe(options: argparse.Namespace) -> int:
    from modelwright import api  # noqa: PLC0415
    from modelwright.pipeline.transcribed import FORMATS, SUBTITLES, Transcriber  # noqa: PLC0415
    from modelwright.runs import Run  # noqa: PLC0415

    fitted = api.load(options.run, options.stage).fitted
    recipe = Run.open(options.run).recipe
    asked = Transcriber(fitted, recipe.stages[fitted.path.parent.name].task)
    asked.check(options.format, by_word=options.words)
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        raise ModelwrightError(f"--out: {options.out} is a file; name a folder")
    ending = FORMATS[options.format]
    written = options.out is not None or options.format in SUBTITLES
    jobs, failed = _jobs(options.recordings, options.out, ending if written else "")
    work = _Work(asked, options, failed=failed, progress=_Progress([path for path, _ in jobs]))
    for path, target in jobs:
        work.one(path, target)
    work.progress.end(work.failed)
    return work.exit_code


def _jobs(
    places: Sequence[Path], out: Path | None, ending: str
) -> tuple[list[tuple[Path, Path | None]], int]:
    """Every recording once with the file that it is written to, and how many paths held none.

    Args:
        places: files and folders.
        out: the folder for what is written; None: beside the recordings.
        ending: of files; empty: nothing is written.

    Raises:
        ModelwrightError: two recordings would be written to one file.
    """
    from modelwright.pipeline.transcribed import recordings, target  # noqa: PLC0415

    found: dict[Path, Path | None] = {}
    taken: dict[Path, Path] = {}
    failed = 0
    for place in places:
        try:
            named = list(recordings(place))
        except ModelwrightError as error:
            failed += 1
            _complain(error)
            continue
        for path, name in named:
            if path in found:
                continue
            found[path] = None
            if ending:
                made = found[path] = target(path if out is None else out / name, ending)
                if (other := taken.setdefault(made, path)) != path:
                    raise ModelwrightError(
                        f"{made}: {other} and {path} would both be written there; give them one"
                        " after the other, with another --out each"
                    )
    return list(found.items()), failed


class _Work:
    """Recordings written down one after another; one that cannot be read does not end it."""

    def __init__(
        self, asked: Transcriber, options: argparse.Namespace, *, failed: int, progress: _Progress
    ) -> None:
        self.asked, self.options, self.progress = asked, options, progress
        self.failed, self.done = failed, 0

    @property
    def exit_code(self) -> int:
        """0, or 1 where some could not be read, or 2 where none could."""
        if not self.failed:
            return EXIT_OK
        return EXIT_NOT_HELD if self.done else EXIT_USAGE

    def one(self, path: Path, target: Path | None) -> None:
        """Write a recording down, or say in a line why it is not."""
        from modelwright.pipeline.transcribed import unread  # noqa: PLC0415

        if target is not None and target.exists() and not self.options.force:
            self.done += 1
            self.progress.clear()
            _say(f"modelwright: {target}: is there and is kept; --force writes it anew")
        elif reason := unread(path):
            self._fail(ModelwrightError(f"{path}: {reason}"))
        else:
            try:
                self._written(path, target)
                self.done += 1
            except (CorruptError, MachineError):
                raise
            except ModelwrightError as error:
                self._fail(error)
        self.progress.ended(path)

    def _fail(self, error: ModelwrightError) -> None:
        self.failed += 1
        self.progress.clear()
        _complain(error)

    def _written(self, path: Path, target: Path | None) -> None:
        from modelwright.files import make_folder, replace_file  # noqa: PLC0415

        form = self.options.format
        found = self.asked.transcript(path, self.progress.heard)
        self.progress.clear()
        if target is None:
            _print(found.written(form) if form == "json" else f"{path}\t{found.text}")
            return
        make_folder(target.parent)
        content = found.written(form, by_word=self.options.words)
        replace_file(target, content.encode("utf-8", "backslashreplace"))
        _print(str(target))


class _Progress:
    """How far it is: one line that changes on a terminal, elsewhere a line every few seconds.

    What is left is told by bytes of files, of which the sizes are known before they are opened.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.sizes = {path: _size(path) for path in paths}
        self.all, self.bytes, self.files = sum(self.sizes.values()), 0.0, 0
        self.seconds = 0.0  # of recordings that are done
        self.now = (0.0, 0.0)  # seconds heard and to hear of the one that is not
        self.started = self.spoken = time.monotonic()
        self.live = sys.stderr.isatty()

    def heard(self, seconds: float, whole: float) -> None:
        """Seconds of a recording that are done, and how long it is."""
        self.now = (seconds, whole)
        now = time.monotonic()
        if self.live:
            _say(f"\r\x1b[K{self.line}", end="")
        elif now - self.spoken >= EVERY:
            self.spoken = now
            _say(f"transcribe: {self.line}")

    def ended(self, path: Path) -> None:
        """A recording is done, or could not be read."""
        self.files += 1
        self.bytes += self.sizes[path]
        self.seconds, self.now = self.seconds + self.now[0], (0.0, 0.0)

    def clear(self) -> None:
        """Make place on a terminal for a line that stays."""
        if self.live:
            _say("\r\x1b[K", end="")

    def end(self, failed: int) -> None:
        """Say what was done, and how many of the files could not be read."""
        took = max(time.monotonic() - self.started, 1e-9)
        lost = f"; {failed} could not be read" if failed else ""
        _say(
            f"transcribe: {self.seconds:.1f} s of sound in {took:.1f} s,"
            f" {self.seconds / took:.1f} a second{lost}"
        )

    @property
    def line(self) -> str:
        """Files and seconds done, the rate, and the time left at that rate."""
        from modelwright.reporting.blocks import duration  # noqa: PLC0415

        took = max(time.monotonic() - self.started, 1e-9)
        heard, whole = self.now
        path = list(self.sizes)[self.files]
        done = self.bytes + (self.sizes[path] * heard / whole if whole else 0.0)
        left = took * (self.all - done) / done if done else 0.0
        seconds = self.seconds + heard
        return (
            f"{self.files} of {len(self.sizes)} files, {duration(seconds)} of sound,"
            f" {seconds / took:.1f} a second, {duration(left)} left"
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _complain(error: ModelwrightError) -> None:
    line = " ".join(str(error).splitlines())
    _say(f"modelwright: {line}")


def _say(line: str, end: str = "\n") -> None:
    print(_plain(line), file=sys.stderr, end=end, flush=True)


def _print(line: str) -> None:
    print(_plain(" ".join(line.splitlines())), flush=True)


def _plain(line: str) -> str:
    """Any text as characters that can be printed: names of files may hold bytes that are none."""
    return line.encode(errors="backslashreplace").decode()
