"""Law 13, the writer's half: whatever stops a save, the last good checkpoint stays good.

Savers are killed with SIGKILL at random moments and at every single system call; disks fail at
every single system call, and fill up for real on a small tmpfs.
"""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelwright import checkpoint, files
from modelwright.checkpoint import saving
from modelwright.errors import EXIT_MACHINE, MachineError
from tests.laws.checkpoint_parts import (
    DOCUMENTS,
    all_files,
    assert_holds,
    contents,
    save,
    system_calls,
)


def test_files_then_directories_then_the_seal_then_its_directory(tmp_path: Path) -> None:
    save(tmp_path / "c", 1)
    save(tmp_path / "c", 2)
    calls: list[tuple[str, str]] = []
    with system_calls(lambda call, path: calls.append((call, path))):
        path = save(tmp_path / "c", 3)
    sealed = calls.index(("rename", str(path / "COMPLETE")))
    ahead = calls[:sealed]
    for file in all_files(path):
        name = str(file) + (".tmp" if file.name == "COMPLETE" else "")
        last_write = max(i for i, call in enumerate(ahead) if call == ("write", name))
        assert ("fsync", name) in ahead[last_write:], file
        if file.name != "COMPLETE":
            assert ("fsync", str(file.parent)) in ahead[last_write:], file
    assert ("fsync", str(path.parent)) in ahead  # the new directory's own name
    assert calls[sealed + 1 : sealed + 3] == [("open", str(path)), ("fsync", str(path))]
    removed = [i for i, (call, name) in enumerate(calls) if call == "unlink" and "01/" in name]
    assert removed
    assert min(removed) > sealed + 2  # the old one goes only when the new one is safe
    assert not any(call in {"write", "rename"} for call, _ in calls[sealed + 1 :])


# -- killed -----------------------------------------------------------------------------------

SAVER = """
import os, signal, sys
from pathlib import Path
from tests.laws.checkpoint_parts import save, system_calls
from modelwright import checkpoint

folder = Path(sys.argv[1])
left = 0

def count(call, path):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def child(at):
    global left
    left = at
    newest = checkpoint.newest(folder)
    step = int(newest.name[5:]) if newest else 0
    with system_calls(count):
        while True:
            step += 1
            save(folder, step)
            if at:
                os._exit(0)

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        child(int(line))
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


class Savers:
    """A process with torch imported that forks savers: each is a real process to be killed."""

    def __init__(self, folder: Path) -> None:
        roots = [Path(checkpoint.__file__).parents[2], Path(__file__).parents[2]]
        path = os.pathsep.join(map(str, roots))
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def start(self, at: int = 0) -> int:
        """Fork a saver that saves in a loop, or once and kills itself before call ``at``."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{at}\n")
        self.process.stdin.flush()
        return self._read()

    def wait(self) -> int:
        """The wait status of the saver started last."""
        return self._read()

    def _read(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


@pytest.fixture
def savers(tmp_path: Path) -> Iterator[Savers]:
    started = Savers(tmp_path / "checkpoints")
    yield started
    assert started.process.stdin is not None
    assert started.process.stdout is not None
    started.process.stdin.close()
    assert started.process.wait(timeout=30) == 0
    started.process.stdout.close()


def test_killed_at_20_random_moments_the_newest_is_always_sound(
    tmp_path: Path, savers: Savers
) -> None:
    folder = tmp_path / "checkpoints"
    rng = random.Random(13)
    reached = 0
    interrupted = 0
    for _ in range(20):
        pid = savers.start()
        give_up = time.monotonic() + 120
        while (checkpoint.newest(folder) or Path("step-0")).name <= f"step-{reached:08d}":
            assert time.monotonic() < give_up, "the saver does not save"
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.03))
        os.kill(pid, signal.SIGKILL)
        assert os.WTERMSIG(savers.wait()) == signal.SIGKILL
        newest = checkpoint.newest(folder)
        assert newest is not None
        step = int(newest.name[5:])
        assert step > reached
        reached = step
        assert_holds(checkpoint.load(newest), step)
        assert checkpoint.newest_sound(folder)[1] == []
        interrupted += any(not (p / "COMPLETE").exists() for p in folder.iterdir())
    assert interrupted  # some kills did fall inside a save or a removal


def test_killed_at_every_system_call_of_a_save(tmp_path: Path, savers: Savers) -> None:
    folder = tmp_path / "checkpoints"
    for step in (1, 2):
        save(folder, step)
    reached, kills = 2, 0
    while True:
        savers.start(at=kills + 1)
        status = savers.wait()
        newest = checkpoint.newest(folder)
        assert newest is not None
        step = int(newest.name[5:])
        assert step in (reached, reached + 1)
        reached = step
        found, messages = checkpoint.newest_sound(folder)
        assert messages == []
        assert_holds(found, reached)
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        kills += 1
    assert kills > 60  # every file, directory, flush and rename had its turn
    assert len(list(folder.iterdir())) == 2  # what the killed ones left is gone


# -- full disks -------------------------------------------------------------------------------


def assert_refused_and_kept(folder: Path, message: str, failed: Path, kept: int) -> None:
    assert "\n" not in message
    assert str(failed) in message
    assert f"the last good checkpoint {folder / f'step-{kept:08d}'} is kept" in message
    assert "run the same command again to resume" in message
    assert not failed.exists()
    assert checkpoint.newest(folder) == folder / f"step-{kept:08d}"
    found, messages = checkpoint.newest_sound(folder)
    assert messages == []
    assert_holds(found, kept)


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fails_at_every_system_call(tmp_path: Path, code: int, lasting: bool) -> None:
    folder = tmp_path / "c"
    save(folder, 1)
    save(folder, 2)
    older = {p: p.read_bytes() for p in all_files(folder)}
    calls = 0
    refused = 0
    fail_at = 0

    def fail(call: str, path: str) -> None:
        nonlocal calls
        if call == "unlink" or (call == "open" and Path(path).is_dir()):
            return  # deleting and reading need no space
        calls += 1
        if calls == fail_at or (lasting and calls > fail_at):
            raise OSError(code, os.strerror(code))

    while True:
        fail_at += 1
        calls = 0
        try:
            with system_calls(fail):
                path = save(folder, 3)
        except MachineError as error:
            refused += 1
            assert error.exit_code == EXIT_MACHINE
            assert os.strerror(code) in str(error)
            assert_refused_and_kept(folder, str(error), folder / "step-00000003", 2)
            assert {p: p.read_bytes() for p in all_files(folder)} == older
        else:
            break
    assert refused > 50
    assert_holds(checkpoint.load(path), 3)


def test_too_little_space_is_seen_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    monkeypatch.setattr(files, "free_bytes", lambda path: 5000)
    calls: list[tuple[str, str]] = []
    with (
        pytest.raises(MachineError) as caught,
        system_calls(lambda call, path: calls.append((call, path))),
    ):
        save(tmp_path, 2)
    assert calls == []
    assert "5,000 bytes are free" in str(caught.value)
    assert_refused_and_kept(tmp_path, str(caught.value), tmp_path / "step-00000002", 1)


def test_a_first_save_without_space_says_that_there_is_no_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda path: 0)
    with pytest.raises(MachineError, match="no sound earlier checkpoint exists"):
        save(tmp_path / "new", 1)
    assert checkpoint.newest(tmp_path / "new") is None


def test_a_damaged_checkpoint_is_not_called_the_last_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    (save(tmp_path, 2) / "state.json").write_bytes(b"")
    monkeypatch.setattr(files, "free_bytes", lambda path: 0)
    with pytest.raises(MachineError, match="last good checkpoint .*step-00000001 is kept"):
        save(tmp_path, 3)


def test_the_space_asked_for_is_the_space_taken(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    plan = saving._plan(tmp_path, 1, contents(1), DOCUMENTS)
    blocks = sum(-(-p.stat().st_size // 4096) * 4096 for p in all_files(path))
    folders = 1 + sum(p.is_dir() for p in path.rglob("*"))
    assert saving._bytes_on_disk(plan) == blocks + 4096 * folders


def test_a_limit_on_file_size_is_a_full_disk(tmp_path: Path) -> None:
    save(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (1, 100, 1000, 3000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(MachineError) as caught:
                save(tmp_path, 2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "File too large" in str(caught.value)
        assert_refused_and_kept(tmp_path, str(caught.value), tmp_path / "step-00000002", 1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("foreseen", [True, False])
def test_a_full_disk_keeps_the_last_good_checkpoint(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, foreseen: bool
) -> None:
    folder = small_disk / "checkpoints"
    save(folder, 1)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (files.free_bytes(small_disk) - 5 * 4096))
    if not foreseen:  # another program took the space after the check
        real = files.free_bytes
        answers = iter([1 << 40])
        monkeypatch.setattr(files, "free_bytes", lambda path: next(answers, None) or real(path))
    with pytest.raises(MachineError) as caught:
        save(folder, 2)
    assert "No space left on device" in str(caught.value)
    assert_refused_and_kept(folder, str(caught.value), folder / "step-00000002", 1)
    ballast.unlink()
    assert_holds(checkpoint.load(save(folder, 2)), 2)


def test_ctrl_c_during_a_save_leaves_no_trace(tmp_path: Path) -> None:
    save(tmp_path, 1)
    calls = 0

    def interrupt(call: str, path: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), system_calls(interrupt):
        save(tmp_path, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    assert_holds(checkpoint.newest_sound(tmp_path)[0], 1)
