"""What can go wrong, said once: exit codes and the one exception a user ever sees."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_NOT_HELD = 1  # the command ran, and what it checked does not hold
EXIT_USAGE = 2  # the user's input is wrong: recipe, data, arguments
EXIT_CORRUPT = 3  # a file of a run is damaged or from another world
EXIT_MACHINE = 4  # disk full, port in use, a library missing, a run already busy
EXIT_REQUEUE = 75  # SIGTERM or SIGUSR1: saved; start the same command again (sysexits: EX_TEMPFAIL)
EXIT_INTERRUPTED = 130  # Ctrl-C; everything up to the last save is kept


class ModelwrightError(Exception):
    """A problem with one clear line for the user: what, where, and what to do.

    The command line prints ``str(error)`` without a traceback and exits with ``exit_code``.
    """

    exit_code = EXIT_USAGE


class CorruptError(ModelwrightError):
    """A checkpoint or data file is not what its manifest says."""

    exit_code = EXIT_CORRUPT


class MachineError(ModelwrightError):
    """The machine cannot do it now: no space, no port, a missing library, a busy run."""

    exit_code = EXIT_MACHINE


class Interrupted(ModelwrightError):
    """Somebody stopped the work; the message says how to go on.

    ``exit_code`` is 130 after Ctrl-C, 75 after a signal of a scheduler.
    """

    def __init__(self, message: str, exit_code: int = EXIT_INTERRUPTED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def error_of(exit_code: int, message: str) -> ModelwrightError:
    """The error of another program that said so and ended with an exit code of ours."""
    kinds = {kind.exit_code: kind for kind in (CorruptError, MachineError)}
    return kinds.get(exit_code, ModelwrightError)(message)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the nearest of ``known``, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
