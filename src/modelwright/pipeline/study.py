"""An Optuna study that survives its processes: who works on a trial, and what if they are gone."""

from __future__ import annotations

import os
import socket
import time
import warnings
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from modelwright.errors import MachineError

if TYPE_CHECKING:
    import optuna

HEARTBEAT = 60  # seconds; a process of another machine that misses two is taken for dead
WAIT = 60  # seconds that a locked SQLite file is waited for
RETRIES = 1
AT_ONCE = 10  # tries to open a database whose tables another process makes at this very moment
_MADE = ("already exists", "unique", "duplicate")  # how SQLite, PostgreSQL and MySQL say so


@dataclass(frozen=True)
class Owner:
    """The process that works on a trial; ``began`` tells it from a later one of its number."""

    host: str
    pid: int
    began: str

    @classmethod
    def here(cls) -> Owner:
        """This process."""
        return cls(socket.gethostname(), os.getpid(), _began(os.getpid()))

    @property
    def gone(self) -> bool:
        """Whether it certainly works no more; of other machines nothing is certain."""
        return self.host == socket.gethostname() and _began(self.pid) != self.began

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the study."""
        return asdict(self)


def _began(pid: int) -> str:
    """When a process began, in the system's own units; "" where there is none."""
    try:  # the name, in brackets, may hold spaces; the time is the 20th word after it
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return words[19] if words[0] != "Z" else ""
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)
    except OSError:
        return ""
    return "running"


def open_study(url: str, name: str, direction: Literal["minimize", "maximize"]) -> optuna.Study:
    """The study of this name in the database, made where there is none.

    Raises:
        MachineError: Optuna or the driver is not installed, or the database does not answer.
    """
    try:
        import optuna  # noqa: PLC0415
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415
    except ImportError as error:
        raise MachineError(
            f"search: needs {error.name}; pip install 'modelwright[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    place = url if url.startswith("sqlite") else f"{url.partition(':')[0]} database"  # no password
    tries = 0
    while True:
        tries += 1
        try:
            return optuna.create_study(
                storage=_storage(url), study_name=name, direction=direction, load_if_exists=True
            )
        except (SQLAlchemyError, ImportError, ValueError, optuna.exceptions.OptunaError) as error:
            if tries < AT_ONCE and any(words in str(error).lower() for words in _MADE):
                time.sleep(0.2)  # it will find what the other one has made
                continue
            reason = " ".join(str(error).split())[:160].replace(url, "URL")
            raise MachineError(
                f"--storage {place}: cannot be used ({reason}); correct the URL, or install its "
                "driver"
            ) from error


def _storage(url: str) -> optuna.storages.RDBStorage:
    """The database, with its tables made where there are none."""
    import optuna  # noqa: PLC0415

    waits = {"connect_args": {"timeout": WAIT}} if url.startswith("sqlite") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats
        return optuna.storages.RDBStorage(
            url,
            engine_kwargs={"pool_pre_ping": True, **waits},
            heartbeat_interval=HEARTBEAT,
            heartbeat_stale_trial_callback=retry,
        )


def settled(study: optuna.Study) -> tuple[list[int], list[int]]:
    """The numbers of the trials that ended (in time or early), and of those at work."""
    from optuna.trial import TrialState  # noqa: PLC0415

    ended, working = [], []
    for trial in study.get_trials(deepcopy=False):
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            ended.append(trial.number)
        elif trial.state is TrialState.RUNNING:
            working.append(trial.number)
    return ended, working


def reap(study: optuna.Study) -> list[int]:
    """Mark trials failed whose process is gone, and queue each once more; their numbers."""
    import optuna  # noqa: PLC0415

    dead = []
    late = datetime.now() - timedelta(seconds=2 * HEARTBEAT)
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        owner = trial.user_attrs.get("owner")
        unclaimed = owner is None and trial.datetime_start and trial.datetime_start < late
        if unclaimed or (owner and Owner(**owner).gone):
            try:
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            except (ValueError, RuntimeError):  # another process was faster
                continue
            retry(study, trial)
            dead.append(trial.number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)  # those of other machines
    return dead


def retry(
    study: optuna.Study,
    trial: optuna.Trial | optuna.trial.FrozenTrial,
    *,
    crashed: bool = True,
) -> None:
    """Queue a trial's values again, to go on with its run; a crash may happen to them only once."""
    crashes = int(trial.user_attrs.get("crashes", 0)) + crashed
    if crashes > RETRIES or not trial.params:
        return
    study.enqueue_trial(
        trial.params,
        user_attrs={
            "retry_of": trial.number,
            "crashes": crashes,
            "continues": trial.user_attrs.get("run", ""),
        },
    )
