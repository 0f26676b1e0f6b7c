"""Shards: what was written is read, and a name appears only over what is on the disk (T23)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from modelwright.data.shards import open_shard, write_shard
from modelwright.errors import CorruptError
from modelwright.types import Array, Encoded, Ragged, ragged_column, rows_in

ROOT = Path(__file__).resolve().parents[2]
ROWS = 7


def rows(first: int) -> list[Encoded]:
    """Rows of different lengths, and one field of equal ones; they tell one shard from another."""
    return [
        {"tokens": np.arange(first, first + i % 4 + 1), "label": np.int64(first + i)}
        for i in range(ROWS)
    ]


def write(folder: Path, first: int) -> int:
    return write_shard(folder, rows(first), ["tokens"])


def assert_is(folder: Path, first: int) -> None:
    columns = open_shard(folder)
    assert rows_in(columns) == ROWS
    tokens, labels = ragged_column(columns, "tokens"), columns["label"]
    assert not isinstance(labels, Ragged)
    for i, row in enumerate(rows(first)):
        np.testing.assert_array_equal(tokens[i], row["tokens"])
        assert labels[i] == row["label"]


def test_what_was_written_is_read_and_a_second_one_replaces_it(tmp_path: Path) -> None:
    for first in (0, 100):
        assert write(tmp_path / "train", first) == ROWS
        assert_is(tmp_path / "train", first)
    assert [p.name for p in tmp_path.iterdir()] == ["train"]


def test_flushed_whole_before_the_name_and_the_name_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files, then the folder that lists them, then the name, then the folder of the name."""
    calls: list[tuple[str, str, int]] = []
    fsync, replace = os.fsync, Path.replace

    def flushed(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        calls.append(("fsync", str(path), path.stat().st_size))
        fsync(descriptor)

    def named(path: Path, to: Path) -> Path:
        calls.append(("rename", str(to), 0))
        return replace(path, to)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", named)
    folder, part = tmp_path / "train", tmp_path / "train.part"
    write(folder, 0)
    at = calls.index(("rename", str(folder), 0))
    ahead = [(path, size) for call, path, size in calls[:at] if call == "fsync"]
    files = sorted(folder.iterdir())
    assert [f.name for f in files] == ["label.npy", "tokens.offsets.npy", "tokens.values.npy"]
    flushes = [ahead.index((str(part / f.name), f.stat().st_size)) for f in files]  # whole
    listed = max(i for i, (path, _) in enumerate(ahead) if path == str(part))
    assert max(flushes) < listed
    assert [call[:2] for call in calls[at + 1 :]] == [("fsync", str(tmp_path))]


WRITER = """
import os, signal, sys
from pathlib import Path
from tests.data.test_shards import write

folder, left = Path(sys.argv[1]), 0

def counted(real):
    def call(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return call

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        left, first = map(int, line.split())
        for name in ("fsync", "mkdir", "open", "rename", "replace", "rmdir", "unlink"):
            setattr(os, name, counted(getattr(os, name)))
        write(folder, first)
        os._exit(0)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


def test_killed_at_every_system_call_of_a_shard(tmp_path: Path) -> None:
    """The old one, the new one or none is there: half of one never is."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    folder, first, kills, seen = tmp_path / "train", 0, 0, set()
    write(folder, first)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        while True:
            process.stdin.write(f"{kills + 1} {first + 100}\n")
            process.stdin.flush()
            status = int(process.stdout.readline())
            if not folder.exists():
                seen.add("none")
            else:
                labels = open_shard(folder)["label"]
                assert not isinstance(labels, Ragged)
                new = int(labels[0]) == first + 100
                first += 100 if new else 0
                assert_is(folder, first)
                seen.add("new" if new else "old")
            if status == 0:
                break
            assert os.WTERMSIG(status) == signal.SIGKILL
            kills += 1
            write(folder, first)  # also over what the killed one left
        process.stdin.close()
    assert kills > 15
    assert seen == {"old", "none", "new"}
    assert [p.name for p in tmp_path.iterdir()] == ["train"]  # what the killed ones left is gone


def test_damage_is_one_line_that_names_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "train"

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-8])

    def fewer(path: Path) -> None:
        values: Array = np.load(path)
        np.save(path, values[:-1])

    for name in ("label.npy", "tokens.values.npy", "tokens.offsets.npy"):
        for harm in (cut, fewer, Path.unlink):
            shutil.rmtree(folder, ignore_errors=True)
            write(folder, 0)
            harm(folder / name)
            if (name, harm) in {("label.npy", Path.unlink), ("tokens.values.npy", Path.unlink)}:
                continue  # a column that is gone as a whole: the record of the stage knows it
            with pytest.raises(CorruptError, match="run `modelwright prepare` again") as caught:
                open_shard(folder)
            assert str(folder) in str(caught.value)
            assert "\n" not in str(caught.value)
