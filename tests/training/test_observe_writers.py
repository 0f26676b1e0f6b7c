"""Writers of records: the local file is the truth, and no tracker can disturb a training."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright import recipe
from modelwright.errors import MachineError, ModelwrightError
from modelwright.training.observe import writers
from modelwright.training.observe.background import Background
from modelwright.training.observe.log import MetricLog
from modelwright.training.observe.writers import Place, numbers
from tests.programs import environment

RECORDS = [
    {"step": 1, "loss": 2.5, "note": "text is no number"},
    {"step": 2, "loss": 2.0},
    {"step": 2, "validation": {"loss": 2.25, "bits_per_byte": 3.0}},
]
TRACKERS = ("wandb", "mlflow", "trackio")


def test_the_recipe_knows_exactly_the_writers_that_there_are() -> None:
    (inner,) = get_args(recipe.Watch.model_fields["writers"].annotation)
    assert sorted(get_args(inner)) == writers.names()
    assert {n for n in writers.names() if writers._module(n).library} == set(TRACKERS)


@pytest.mark.parametrize(
    ("watch", "said"),
    [
        ({"writers": ["wandbb"]}, "watch.writers.0: .*did you mean 'wandb'"),
        ({"writers": ["jsonl", "jsonl"]}, "jsonl is named twice"),
        ({"profile": -1}, "watch.profile: .*greater than or equal to 0"),
        ({"profiler": 1}, "watch.profiler: unknown key .did you mean 'profile'"),
    ],
)
def test_a_wrong_watch_section_is_refused(watch: dict[str, Any], said: str) -> None:
    values = {"name": "x", "data": {"source": "digits"}, "train": {"task": "documents"}}
    with pytest.raises(ModelwrightError, match=said):
        recipe.parse({**values, "watch": watch})


def test_nested_numbers_are_named_by_their_path() -> None:
    assert dict(numbers(RECORDS[2])) == {"validation/loss": 2.25, "validation/bits_per_byte": 3.0}
    assert dict(numbers(RECORDS[0])) == {"loss": 2.5}


def test_json_lines_are_written_whatever_else_is(tmp_path: Path) -> None:
    log = MetricLog(tmp_path, "train", 0)
    for record in RECORDS:
        log.write(record)
    assert lines(log.path) == RECORDS  # readable before it is closed
    log.close()
    assert not (tmp_path / "tensorboard").exists()


def test_tensorboard_gets_the_same(tmp_path: Path) -> None:
    log = MetricLog(tmp_path, "train", 0, ["tensorboard", "jsonl"])
    log.write(RECORDS[0])
    log.close()
    assert lines(log.path) == RECORDS[:1]
    assert [p.name.startswith("events") for p in (tmp_path / "tensorboard/train").iterdir()]


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@given(
    last=st.integers(0, 12),
    first=st.integers(0, 12),
    torn=st.text(alphabet='{"step": 9', max_size=9),
)
def test_a_resumed_file_is_that_of_an_undisturbed_run(
    tmp_path_factory: pytest.TempPathFactory, last: int, first: int, torn: str
) -> None:
    first = min(first, last)
    folder = tmp_path_factory.mktemp("resumed")
    records = [{"step": i + 1, "loss": 1 / (i + 1), "seconds": i + 1.0} for i in range(12)]
    log = MetricLog(folder, "train", 0)
    for record in records[:last]:
        log.write(record)
    log.close()
    with log.path.open("a") as file:
        file.write(torn)  # killed in the middle of a line
    log = MetricLog(folder, "train", first)
    assert log.offset == first
    for record in records[first:]:
        log.write(record)
    log.close()
    assert lines(log.path) == records


# -- trackers that fail ------------------------------------------------------------------------


class Recorder:
    """A tracker that works; ``before`` is called first, and may raise or wait."""

    def __init__(self, before: Any = lambda: None) -> None:
        self.before, self.got, self.closed = before, [], False

    def write(self, values: Mapping[str, Any]) -> None:
        self.before()
        self.got.append(values)

    def close(self) -> None:
        self.closed = True


def test_a_tracker_that_works_gets_every_record_in_order() -> None:
    target = Recorder()
    tracker = Background("tracker", lambda: target)
    for step in range(500):
        tracker.write({"step": step})
    tracker.close()
    assert [v["step"] for v in target.got] == list(range(500))
    assert target.closed
    assert tracker.report == ""


def test_a_tracker_that_hangs_is_left_behind_and_its_losses_are_counted() -> None:
    entered, never = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        never.wait()

    tracker = Background("tracker", lambda: Recorder(hang), room=10, patience=0.05)
    tracker.write({"step": 0})
    assert entered.wait(60)  # it hangs in the first record
    for step in range(1, 100):
        tracker.write({"step": step})
    assert len(tracker.waiting) == 10  # bounded
    tracker.close()
    assert tracker.report == "tracker: 100 of 100 lines lost (it is too slow)"
    never.set()
    tracker.thread.join(60)


def test_a_tracker_that_raises_loses_what_it_refused() -> None:
    target = Recorder()
    odd = iter(range(1000))

    def sometimes() -> None:
        if next(odd) < 4:  # three tries of the first record, one of the second
            raise ConnectionError("the server\nis down")

    target.before = sometimes
    tracker = Background("tracker", lambda: target, pause=0.0)
    for step in range(20):
        tracker.write({"step": step})
        if step == 1:
            while len(target.got) < 1:
                threading.Event().wait(0.001)
    tracker.close()
    assert [v["step"] for v in target.got] == list(range(1, 20))
    assert tracker.report == "tracker: 1 of 20 lines lost (ConnectionError: the server is down)"


def test_a_tracker_that_opens_late_gets_what_waited() -> None:
    target, attempts = Recorder(), iter(range(1000))

    def opened() -> Recorder:
        if next(attempts) < 3:
            raise OSError("no route")
        return target

    tracker = Background("tracker", opened, pause=0.0)
    tracker.write({"step": 1})
    while not target.got:
        threading.Event().wait(0.001)
    tracker.close()
    assert "0 of 1 lines lost (OSError: no route)" in tracker.report


def test_a_tracker_that_never_opens_and_one_that_cannot_close() -> None:
    def refused() -> Recorder:
        raise OSError("no route")

    tracker = Background("tracker", refused, pause=0.001)
    tracker.write({"step": 1})
    tracker.close()
    assert tracker.report == "tracker: 1 of 1 lines lost (OSError: no route)"

    class Unclosable(Recorder):
        def close(self) -> None:
            raise RuntimeError("upload failed")

    tracker = Background("tracker", Unclosable)
    tracker.write({"step": 1})
    tracker.close()
    assert "RuntimeError: upload failed" in tracker.report


# -- the trackers ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_library_gets_the_command_that_installs_it(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MachineError, match=rf"pip install 'modelwright\[{name}\]'") as caught:
        MetricLog(tmp_path, "train", 0, [name])
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []  # found out before anything is written


FAKES = {
    "wandb": """
def Settings(**given):
    return given
class Run:
    def log(self, values, step): calls.append(["log", values, step])
    def finish(self): calls.append(["finish"])
def init(**given):
    calls.append(["init", given])
    return Run()
calls = []
""",
    "trackio": """
class Run:
    def log(self, values, step): calls.append(["log", values, step])
    def finish(self): calls.append(["finish"])
def init(**given):
    print("a greeting")
    calls.append(["init", given])
    return Run()
calls = []
""",
    "mlflow": """
import sys, types
entities = types.ModuleType("mlflow.entities")
sys.modules["mlflow.entities"] = entities
entities.Metric = lambda key, value, timestamp, step: [key, value, step]
class Object:
    def __init__(self, **fields): self.__dict__.update(fields)
class MlflowClient:
    def __init__(self, tracking_uri): calls.append(["init", tracking_uri])
    def get_experiment_by_name(self, name): return None
    def create_experiment(self, name, artifacts): return "7"
    def search_runs(self, ids, text): calls.append(["search", ids, text]); return []
    def create_run(self, experiment, run_name, tags):
        calls.append(["create", experiment, run_name, tags])
        return Object(info=Object(run_id="r"))
    def update_run(self, run_id, status): calls.append(["update", run_id, status])
    def log_batch(self, run_id, metrics): calls.append(["log", run_id, metrics])
    def set_terminated(self, run_id): calls.append(["finish"])
calls = []
""",
}


@pytest.mark.parametrize("name", TRACKERS)
def test_what_a_tracker_is_told(
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / f"{name}.py").write_text(FAKES[name])
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(str(tmp_path))
    member = importlib.import_module(f"modelwright.training.observe.writers.{name}")
    for key in ("WANDB_PROJECT", "MLFLOW_TRACKING_URI", *member.environment):
        monkeypatch.setenv(key, "")  # so that what is set below is taken back at the end
        monkeypatch.delenv(key)
    folder = tmp_path / "my-run"
    said: list[str] = []
    log = MetricLog(folder, "train", 0, [name], said.append)
    for record in RECORDS:
        log.write(record)
    log.close()
    assert said == []
    assert lines(log.path) == RECORDS
    calls = sys.modules[name].calls
    assert calls[0][0] == "init"
    assert calls[-1] == ["finish"]
    logged = [call for call in calls if call[0] == "log"]
    assert len(logged) == 3
    place = Place(folder, "train", 0)
    if name == "mlflow":
        assert calls[0][1] == f"sqlite:///{folder}/mlflow/mlflow.db"  # here, nowhere else
        assert ["create", "7", "my-run-train", {"modelwright.stage": place.key}] in calls
        assert logged[2][2] == [["validation/loss", 2.25, 2], ["validation/bits_per_byte", 3.0, 2]]
    else:
        assert calls[0][1]["name"].startswith("my-run-train")
        assert calls[0][1]["resume"] == "allow"
        assert logged[0][1:] == [{"loss": 2.5}, 1]
        assert logged[2][1:] == [dict(numbers(RECORDS[2])), 2]
    if name == "wandb":
        assert os.environ["WANDB_MODE"] == "offline"
    assert capsys.readouterr().out == ""  # standard output is for results
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        del sys.modules[module]


def test_the_key_is_of_the_stage_and_the_place(tmp_path: Path) -> None:
    keys = {Place(tmp_path / r, s, f).key for r in "ab" for s in ("train", "tune") for f in (0, 9)}
    assert len(keys) == 4  # the step at which a training goes on does not matter


REAL = """
import sys, time
from pathlib import Path
from modelwright.training.observe.log import MetricLog
name, folder = sys.argv[1], Path(sys.argv[2])
for first in (0, 3):  # begun, then resumed
    log = MetricLog(folder, "train", first, [name], lambda line: sys.exit(line))
    for step in range(first, first + 3):
        log.write({"step": step + 1, "loss": 1 / (step + 1)})
    while log.writers[-1].written < 3:  # a busy machine may need long to import it
        time.sleep(0.01)
    log.close()
"""


@pytest.mark.parametrize("name", TRACKERS)
def test_the_real_library_keeps_it_on_this_machine(tmp_path: Path, name: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed; pip install 'modelwright[{name}]'")
    folder = tmp_path / "run"
    folder.mkdir()
    unset = {k: v for k, v in environment().items() if not k.startswith(("WANDB", "MLFLOW"))}
    done = subprocess.run(
        [sys.executable, "-c", REAL, name, str(folder)],
        env=unset | {"TRACKIO_DIR": str(folder / "trackio"), "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    if name == "wandb":
        assert len(list(folder.glob("wandb/offline-run-*/*.wandb"))) == 2
        return
    place = {"mlflow": "mlflow/mlflow.db", "trackio": "trackio/modelwright.db"}[name]
    question = {
        "mlflow": "select count(distinct run_uuid), count(*) from metrics where key = 'loss'",
        "trackio": "select count(distinct run_name), count(*) from metrics",
    }[name]
    with closing(sqlite3.connect(folder / place)) as database:
        assert database.execute(question).fetchone() == (1, 6)  # one run, gone on with
