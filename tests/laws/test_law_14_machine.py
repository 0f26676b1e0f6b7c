"""Law 14, a machine that fails: damage, a full disk, two writers, signals. Nothing is lost."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelwright import checkpoint, files
from modelwright.errors import EXIT_CORRUPT, EXIT_INTERRUPTED, EXIT_MACHINE, EXIT_REQUEUE
from tests.programs import Programs, environment, outcome, serving, the_line

TRAIN = ("train", "tiny.yaml", "train.steps=20")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return serving(tmp_path_factory.mktemp("law-14"))


@pytest.fixture(scope="module")
def trained(programs: Programs) -> Path:
    """A trained run that every test copies."""
    programs.run(*TRAIN, "--out", "trained")
    return programs.cwd / "trained"


@pytest.fixture
def run(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of it, beside the corpus."""
    path = trained.parent / tmp_path_factory.mktemp("run").name
    shutil.copytree(trained, path)
    return path


def last(run: Path, file: str = "model.safetensors") -> Path:
    newest = checkpoint.newest(run / "checkpoints" / "train")
    assert newest is not None
    assert newest.name == "step-00000020"
    return newest / file


def flip(path: Path, at: float) -> None:
    """Change one bit at a share of the file's length."""
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 4
    path.write_bytes(content)


def cut(path: Path, at: float) -> None:
    os.truncate(path, int(at * path.stat().st_size))


DAMAGES = [
    (flip, "model.safetensors", 0.5, "tensor '"),
    (flip, "model.safetensors", 0.0, "header"),
    (flip, "optimizer.safetensors", 0.99, "tensor '"),
    (flip, "state.json", 0.5, "content is damaged"),
    (flip, "codec/tokenizer.json", 0.5, "content is damaged"),
    (flip, "manifest.json", 0.5, "content is damaged"),
    (cut, "model.safetensors", 0.7, "is cut short"),
    (cut, "model.json", 0.0, "is cut short"),
]


@pytest.mark.parametrize("case", DAMAGES, ids=lambda c: f"{c[0].__name__} {c[1]} at {c[2]}")
def test_a_damaged_checkpoint_is_refused_and_training_goes_back(
    programs: Programs, trained: Path, run: Path, case: tuple[Any, str, float, str]
) -> None:
    damage, file, at, words = case
    damage(last(run, file), at)
    for arguments in (["ask", run.name, "q"], ["serve", run.name, "--port", "0"]):
        line = the_line(programs.run(*arguments, code=EXIT_CORRUPT))
        assert f"{run.name}/checkpoints/train/step-00000020/{file}: " in line
        assert words in line
        assert f"go back to {run.name}/checkpoints/train/step-00000015" in line
    said = programs.run("check", run.name, code=EXIT_CORRUPT)
    assert f"bad {run.name}/checkpoints/train/step-00000020" in said
    assert f"ok  {run.name}/checkpoints/train/step-00000015" in said
    said = programs.run("train", run.name)
    assert "passed over a damaged checkpoint" in said
    assert words in said
    assert "continuing after step 15" in said
    assert outcome(run) == outcome(trained)
    aside = run / "checkpoints" / "train" / "corrupt-step-00000020"
    assert aside.is_dir()  # kept, in case something in it is still wanted
    programs.run("check", run.name)


def test_without_any_sound_checkpoint_training_begins_again(
    programs: Programs, trained: Path, run: Path
) -> None:
    for path in sorted((run / "checkpoints" / "train").glob("step-*")):
        cut(path / "model.safetensors", 0.5)
    said = programs.run("train", run.name)
    assert said.count("passed over a damaged checkpoint") == 2
    assert "continuing" not in said
    assert outcome(run) == outcome(trained)


def test_checkpoints_that_were_removed_are_trained_again(
    programs: Programs, trained: Path, run: Path
) -> None:
    shutil.rmtree(last(run).parent)
    said = programs.run("train", run.name)
    assert "continuing after step 15" in said
    assert outcome(run) == outcome(trained)
    shutil.rmtree(run / "checkpoints")
    programs.run("train", run.name)
    assert outcome(run) == outcome(trained)


# -- a full disk ------------------------------------------------------------------------------


@pytest.fixture
def disk(programs: Programs) -> Iterator[Path]:
    """A disk of 12 MB beside the corpus."""
    disk = programs.cwd / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
    disk.rmdir()


def fill(disk: Path, leave: int) -> Path:
    """Leave so many bytes free."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    ballast.write_bytes(b"x" * max(0, files.free_bytes(disk) - leave))
    return ballast


def test_a_full_disk_during_a_save(programs: Programs, trained: Path, disk: Path) -> None:
    """Two checkpoints fit, the third does not; with room again the run ends as if never full."""
    out = disk / "run"
    programs.run("prepare", *TRAIN[1:], "--out", str(out))
    size = sum(f.stat().st_size for f in (trained / "checkpoints").rglob("*")) // 2
    ballast = fill(disk, int(2.5 * size) + 100_000)
    line = the_line(programs.run(*TRAIN, "--out", str(out), code=EXIT_MACHINE))
    assert "no room for checkpoint" in line
    assert "No space left on device" in line
    assert "the last good checkpoint" in line
    assert "run the same command again to resume" in line
    kept = checkpoint.newest(out / "checkpoints" / "train")
    assert kept is not None
    assert checkpoint.verify(kept) == []
    assert str(kept) in line
    again = the_line(programs.run(*TRAIN, "--out", str(out), code=EXIT_MACHINE))
    assert "the last good checkpoint" in again  # a second try changes nothing
    assert checkpoint.newest(out / "checkpoints" / "train") == kept
    ballast.unlink()
    said = programs.run(*TRAIN, "--out", str(out))
    assert f"continuing after step {int(kept.name[5:])}" in said
    assert outcome(out) == outcome(trained)


@pytest.mark.parametrize("leave", [0, 4096, 40_000, 150_000])
def test_a_full_disk_at_any_other_moment(
    programs: Programs, trained: Path, disk: Path, leave: int
) -> None:
    out = disk / "run"
    ballast = fill(disk, leave)
    line = the_line(programs.run(*TRAIN, "--out", str(out), code=EXIT_MACHINE))
    assert "No space left on device" in line
    assert str(out) in line
    ballast.unlink()
    programs.run(*TRAIN, "--out", str(out))
    assert outcome(out) == outcome(trained)


# -- two at once ------------------------------------------------------------------------------


def test_a_second_run_in_one_directory_is_refused(programs: Programs, trained: Path) -> None:
    first = programs.start(*TRAIN, "--out", "shared")
    first.until_said("prepare: collected")
    for arguments in ([*TRAIN, "--out", "shared"], ["train", "shared"], ["evaluate", "shared"]):
        line = the_line(programs.run(*arguments, code=EXIT_MACHINE))
        assert f"shared: process {first.pid} on {socket.gethostname()}" in line
        assert "is working in this run; wait for it or use --out" in line
    assert first.wait() == 0, first.said
    assert outcome(programs.cwd / "shared") == outcome(trained)


def test_the_lock_of_a_killed_process_is_free(programs: Programs, trained: Path) -> None:
    first = programs.start(*TRAIN, "--out", "orphan")
    first.until_said("train: 1/")
    first.signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert (programs.cwd / "orphan" / "lock").read_text() != ""
    programs.run("train", "orphan")
    assert outcome(programs.cwd / "orphan") == outcome(trained)


def test_other_recipes_of_one_name_get_directories_of_their_own(programs: Programs) -> None:
    first = programs.start("train", "tiny.yaml", "train.steps=30")
    first.until_said("train: 1/")
    said = programs.run("prepare", "tiny.yaml", "train.steps=31")
    assert "run: runs/tiny-2" in said
    assert first.wait() == 0, first.said
    assert "run: runs/tiny\n" in programs.run("prepare", "tiny.yaml", "train.steps=30")


# -- Ctrl-C -----------------------------------------------------------------------------------

MOMENTS = {
    "prepare": "prepare: hashing",
    "train": "train: 1/",
    "tune": "tune: 1/",
    "evaluate": "evaluate: train: bits per byte of validation",
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_at_every_stage_and_continued(programs: Programs, number: signal.Signals) -> None:
    out = f"stopped-{number.name}"
    whole = ("run", "tiny.yaml", "--out", out)
    for stage, words in MOMENTS.items():
        program = programs.start(*whole)
        program.until_said(words)
        program.signal(number)
        code = EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_REQUEUE
        assert program.wait() == code, program.said
        line = the_line(program.said)
        assert line.startswith(f"modelwright: {stage}: stopped"), line
        assert f"continue with `modelwright run {out}`" in line
    said = programs.run("run", out)
    for stage in ("prepare", "train", "tune"):
        assert f"{stage}: nothing changed, kept" in said
    assert (programs.cwd / out / "report.html").stat().st_size > 10_000
    assert programs.run("run", out).count("nothing changed, kept") == 4


@pytest.mark.parametrize("module", ["pydantic", "numpy", "torch"])
def test_stopped_while_the_libraries_are_imported(programs: Programs, module: str) -> None:
    line = [sys.executable, "-X", "importtime", "-m", "modelwright", "show", "quickstart"]
    process = subprocess.Popen(
        line, cwd=programs.cwd, env=environment(), stderr=subprocess.PIPE, text=True
    )
    said = []
    for words in process.stderr:
        said.append(words)
        if f" {module}" in words:
            process.send_signal(signal.SIGINT)
            break
    said += process.stderr.read()
    process.stderr.close()
    assert process.wait() == EXIT_INTERRUPTED, "".join(said[-20:])
    assert "stopped" in the_line("".join(said))
