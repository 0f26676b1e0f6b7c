"""The live view: right at every width, on a real terminal, and out of the way elsewhere."""

from __future__ import annotations

import io
import os
import pty
import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from modelwright.training.observe.progress import BLOCKS, POINTS, Curve, Progress, Status
from tests.programs import environment, write_corpus

STATUS = Status(
    step=120,
    loss=2.3456,
    rate=12345.0,
    unit="tokens",
    mfu=0.41,
    gradient_norm=0.789,
    learning_rate=0.002,
    memory_bytes=3 << 30,
    bits_per_byte=1.777,
    validation="1.8000 bits per byte at 100",
)
PARTS = (
    "train",
    "120/400",
    "30%",
    "loss 2.3456",
    "1.777 bits/byte",
    "12,345 tokens/s",
    "41% MFU",
    "3.00 GiB",
    "gradient 0.789",
    "rate 0.002",
    "validation 1.8000 bits per byte at 100",
    "spent",
    "left",
)


def shown(title: str = "train", status: Status = STATUS, total: int = 400) -> Progress:
    view = Progress(title, total, 0, console=Console(file=io.StringIO()))
    for step in range(1, status.step + 1):
        view.update(Status(**{**vars(status), "step": step, "loss": status.loss + 1 / step}))
    view.update(status)
    return view


@pytest.mark.parametrize("width", [80, 200])
def test_the_view_shows_everything_and_fits(width: int, tmp_path: Path) -> None:
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(shown())
    text = console.export_text(clear=False)
    for part in PARTS:
        assert part in text, part
    assert all(cell_len(line) <= width for line in text.splitlines())
    assert re.search(f"loss  [{BLOCKS}]{{20,}}", text)
    console.save_svg(str(tmp_path / "view.svg"))
    picture = (tmp_path / "view.svg").read_text().replace("&#160;", " ")
    assert "MFU" in picture
    assert "12,345 tokens/s" in picture


@given(
    width=st.integers(1, 240),
    title=st.text(max_size=30).filter(str.isprintable),
    loss=st.floats(),
    step=st.integers(0, 10**9),
    plain=st.booleans(),
)
def test_no_line_is_wider_than_the_terminal(
    width: int, title: str, loss: float, step: int, plain: bool
) -> None:
    view = Progress(title, 10**9, 0, console=Console(file=io.StringIO()))
    view.update(Status(**{**vars(STATUS), "step": step, "loss": loss}))
    lines = view.lines(width, plain=plain)
    assert lines
    assert all(cell_len(line) <= width for line in lines)
    if plain and title.isascii():
        assert all(line.isascii() for line in lines)


def test_a_terminal_without_such_signs_gets_ascii() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Console(file=stream, width=60, force_terminal=True).print(shown())
    stream.flush()
    assert b"#" in raw.getvalue()


@given(st.lists(st.floats(-1e6, 1e6), max_size=3 * POINTS), st.integers(-3, 300))
def test_a_sparkline_of_any_curve(values: list[float], width: int) -> None:
    curve = Curve()
    for value in values:
        curve.add(value)
        curve.add(float("nan"))
    assert len(curve.points) < POINTS
    line = curve.sparkline(width)
    assert len(line) == max(0, min(width, len(curve.points)))
    assert set(line) <= set(BLOCKS)


def test_a_falling_loss_falls() -> None:
    curve = Curve()
    for step in range(10_000):
        curve.add(-float(step))
    line = curve.sparkline(8)
    assert line == BLOCKS[::-1]
    assert all(a > b for a, b in pairwise(curve.points))


def test_elsewhere_it_is_lines_with_rates_and_the_time_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Progress("train", 3, 0) as view:
        for step in (1, 2, 3):
            view.update(Status(**{**vars(STATUS), "step": step}))
    out, err = capsys.readouterr()
    first, last = err.splitlines()  # not the second: they come every few seconds, and at the end
    assert re.fullmatch(
        r"train: 1/3  0 s, \d s left  1.777 bits/byte  12,345 tokens/s  41% MFU", first
    )
    assert last.startswith("train: 3/3  0 s, 0 s left")
    assert out == ""


def test_a_resumed_stage_measures_its_speed_from_where_it_went_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    view = Progress("train", 100, 90, console=Console(file=io.StringIO()))
    assert view.left == float("inf")
    view.update(Status(**{**vars(STATUS), "step": 95}))
    monkeypatch.setattr("time.perf_counter", lambda: view.started + 50.0)
    assert view.left == 50.0


def in_a_terminal(arguments: list[str], cwd: Path, columns: str) -> str:
    """What a command shows on a real pseudo-terminal."""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(cwd)
        more = environment(TERM="xterm-256color", COLUMNS=columns, LINES="30")
        os.execve(sys.executable, [sys.executable, "-m", "modelwright", *arguments], more)  # noqa: S606
    said = b""
    while True:
        try:
            block = os.read(terminal, 65536)
        except OSError:  # the other side is closed
            break
        if not block:
            break
        said += block
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, said.decode()
    return said.decode()


def test_on_a_real_terminal(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    said = in_a_terminal(["train", "tiny.yaml", "train.steps=200", "--out", "run"], tmp_path, "100")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said)
    assert "\x1b[1A" in said  # it draws over itself
    assert "200/200" in text
    assert "MFU" in text
    assert re.search(f"loss  [{BLOCKS}]+", text)
    assert "tokens/s" in text
    assert "validation" in text
    assert "train: decoder of" in text
