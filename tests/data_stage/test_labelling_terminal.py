"""Labelling on a real terminal, by a real process; and the file it leaves, whatever happens."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.cli import main
from modelwright.data.labelling.keys import TAKEN, keys_of, label_for
from modelwright.data.labelling.label_file import LabelFile, decision, read_decisions, standing
from modelwright.data.labelling.session import Session
from modelwright.errors import CorruptError, MachineError
from modelwright.label_terminal import printable, width_of, wrapped
from tests.programs import environment

ROWS = [
    {"id": "r0", "text": "A superb film."},
    {"id": "r1", "text": "Dull. \x1b]0;owned\x07\x1b[2J It goes on\nfor hours."},
    {"id": "r2", "text": "你好，这部电影真好看。" * 30},
    {"id": "r3", "text": "word " * 2000},
]


class Terminal:
    """``modelwright label`` in a terminal of its own: keys in, screen out."""

    def __init__(self, *arguments: str, columns: int = 60, lines: int = 16) -> None:
        self.descriptor, other = pty.openpty()
        self.size(columns, lines)
        self.program = subprocess.Popen(
            [sys.executable, "-m", "modelwright", "label", *arguments],
            env=environment(), stdin=other, stdout=other, stderr=other, start_new_session=True,
        )  # fmt: skip
        os.close(other)
        self.out, self.raw, self.read = "", b"", 0

    def size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def more(self) -> bool:
        """Read what has come; False at the end."""
        assert select.select([self.descriptor], [], [], 30)[0], f"no more after {self.out[-300:]!r}"
        try:
            part = os.read(self.descriptor, 65536)
        except OSError:  # the other side is closed
            part = b""
        self.raw += part
        self.out = self.raw.decode("utf-8", "ignore")
        return bool(part)

    def until(self, what: str) -> str:
        """Read to the end of the first screen with ``what`` that was not read yet; returns it."""
        while True:
            at = self.out.find(what, self.read)
            end = self.out.find(END, at)
            if at >= 0 and end >= 0:
                start = self.out.rfind("\x1b[H", 0, at)
                self.read = end + len(END)
                return self.out[start : self.read]
            assert self.more(), f"ended before {what!r}: {self.out[-300:]!r}"

    def press(self, keys: str) -> None:
        os.write(self.descriptor, keys.encode())

    def end(self) -> int:
        """Wait for the process; its exit code."""
        while self.more():
            pass
        os.close(self.descriptor)
        return self.program.wait(timeout=30)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


END = "\x1b[J"  # the last that is written of a screen
COMMAND = ("rows.jsonl", "--labels", "pos,neg", "--who", "ann")


def plain(line: str) -> str:
    """A line of a screen without its escape sequences."""
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", line)


def held(path: str = "labels.jsonl") -> dict[str, str | None]:
    """Row -> standing label of ann."""
    return {row: one.label for (_, row), one in standing(read_decisions(Path(path))).items()}


def test_keys_label_skip_go_back_and_take_back_and_a_second_run_goes_on(folder):
    terminal = Terminal(*COMMAND)
    assert "superb" in terminal.until("q quit")
    terminal.press("p")
    screen = terminal.until("1 of 4 decided")
    # A text cannot act on the terminal: its escapes arrive as replacement characters.
    assert "\x1b]0;" not in screen and "\x1b[2J" not in screen and "�]0;owned�" in screen
    terminal.press("n")
    terminal.until("2 of 4 decided")
    terminal.press("u")
    terminal.until("taken back")
    assert held() == {"r0": "pos"}
    terminal.press("s")
    terminal.until("skipped")
    terminal.press("\x1b[D\x1b[D")  # two arrows at once: back to the first row
    terminal.until("you said: pos")
    terminal.press("2")  # digits work as well
    terminal.until("labelled neg")
    terminal.press("q")
    assert terminal.end() == 0
    assert held() == {"r0": "neg", "r1": None}
    assert "pos 0, neg 1, skipped 1, left 2" in terminal.out
    lines = read_decisions(Path("labels.jsonl"))
    assert all(one.who == "ann" and one.at.endswith("+00:00") for one in lines)
    assert all(one.seconds is not None and one.seconds >= 0 for one in lines if one.label)

    again = Terminal(*COMMAND)
    assert "row 3, 2 of 4 decided" in again.until("q quit")
    again.press("pn")
    again.until("Every row is decided.")
    again.press("q")
    assert again.end() == 0
    assert held() == {"r0": "neg", "r1": None, "r2": "pos", "r3": "neg"}


def test_the_screen_is_given_back_and_follows_its_size(folder):
    terminal = Terminal(*COMMAND)
    terminal.until("q quit")
    assert terminal.out.count("\x1b[?1049h") == 1
    echo = termios.tcgetattr(terminal.descriptor)[3] & termios.ECHO
    assert not echo
    terminal.size(30, 10)
    screen = terminal.until("r0")  # drawn again without a key
    assert all(width_of(plain(line)) <= 30 for line in screen.split("\r\n"))
    terminal.press("\x03")
    assert terminal.end() == 0
    assert terminal.out.count("\x1b[?1049l") == 1
    assert terminal.out.rindex("\x1b[?25h") > terminal.out.rindex("\x1b[?25l")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_labelled_before_a_signal_is_kept(folder, number):
    terminal = Terminal(*COMMAND)
    terminal.until("q quit")
    for done, key in enumerate("pnp", start=1):
        terminal.press(key)
        terminal.until(f"{done} of 4 decided")
    terminal.program.send_signal(number)
    code = terminal.end()
    assert held() == {"r0": "pos", "r1": "neg", "r2": "pos"}
    if number == signal.SIGTERM:
        assert code == 130
        assert "\x1b[?1049l" in terminal.out
        assert "same command again" in terminal.out
    else:
        assert code == -signal.SIGKILL


def test_long_rows_scroll_and_wide_letters_fit(folder):
    terminal = Terminal(*COMMAND, columns=44, lines=12)
    terminal.until("q quit")
    terminal.press("ff")
    screen = terminal.until("你好")
    lines = [plain(line) for line in screen.split("\r\n")]
    assert any("你" in line for line in lines)
    assert all(width_of(line) <= 44 for line in lines)
    terminal.press("f")
    terminal.until("more lines: space")
    terminal.press("\x1b[6~")
    terminal.until("more lines: space")
    terminal.press("q")
    assert terminal.end() == 0


def test_without_a_terminal_the_page_is_named(folder, capsys):
    assert main(["label", *COMMAND]) == 2
    assert "--page" in capsys.readouterr().err


def test_bad_arguments_are_one_line(folder, capsys):
    for line, said in [
        (["rows.jsonl", "--labels", "a,a"], "each once"),
        (["rows.jsonl", "--labels", "a,,b"], "divided by commas"),
        (["rows.json", "--labels", "a,b"], "did you mean 'rows.jsonl'"),
        (["rows.jsonl", "--labels", "a,b", "--column", "txt"], "did you mean 'text'"),
        (["rows.jsonl", "--labels", "a,b", "--weak", "w"], "--functions"),
        (["rows.jsonl", "--labels", "a,b", "--functions", "no.py"], "no such file"),
        (["rows.jsonl", "--labels", "a,b", "--agreement"], "no such file of labels"),
    ]:
        assert main(["label", *line]) == 2
        problem = capsys.readouterr().err
        assert said in problem and problem.count("\n") == 1


def test_rules_order_the_queue_and_write_labels_without_asking(folder, capsys):
    Path("rules.yaml").write_text(
        "- {label: pos, keywords: [superb]}\n- {label: neg, keywords: [dull]}\n"
    )
    line = ["label", *COMMAND, "--functions", "rules.yaml"]
    assert main([*line, "--weak", "weak.jsonl"]) == 0
    said = capsys.readouterr().out
    assert "2 of 4 rows: every function abstains" in said and "keywords:superb" in said
    weak = [json.loads(one) for one in Path("weak.jsonl").read_text().splitlines()]
    assert [(one["id"], one["label"]) for one in weak] == [("r0", "pos"), ("r1", "neg")]
    terminal = Terminal(*line[1:], columns=80)
    screen = terminal.until("q quit")
    assert "r2 · suggested: pos (50%)" in screen  # those of which nothing is known come first
    terminal.press("q")
    assert terminal.end() == 0


def test_a_torn_last_line_is_cut_off_and_a_bad_one_is_said(tmp_path):
    path = tmp_path / "labels.jsonl"
    with LabelFile(path) as file:
        file.append(decision("a", "label", "pos", "ann", 1.0))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id": "b", "act')
    assert [one.id for one in read_decisions(path)] == ["a"]
    with LabelFile(path) as file:
        file.append(decision("c", "skip", None, "ann", None))
    assert [one.id for one in read_decisions(path)] == ["a", "c"]
    path.write_bytes(b'{"id": 1}\n' + whole)
    with pytest.raises(CorruptError, match="line 1"):
        LabelFile(path)


def test_one_process_at_a_time_holds_the_file(tmp_path):
    path = tmp_path / "labels.jsonl"
    with LabelFile(path), pytest.raises(MachineError, match="another process"):
        LabelFile(path)
    LabelFile(path).close()


@given(st.lists(st.sampled_from(["a", "b", "skip", "back", "forward", "undo", "reopen"]),
                max_size=40))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_whatever_is_done_the_file_replays_to_what_the_session_shows(tmp_path_factory, actions):
    path = tmp_path_factory.mktemp("s") / "labels.jsonl"
    rows = [{"id": str(i)} for i in range(5)]
    file = LabelFile(path)
    session = Session(rows, ["a", "b"], file, "ann")
    for action in actions:
        if action == "reopen":
            file.close()
            file = LabelFile(path)
            before, session = session.made, Session(rows, ["a", "b"], file, "ann")
            assert session.made == before
        elif action in ("a", "b", "skip"):
            if session.row is not None:
                session.skip() if action == "skip" else session.label(action)
        else:
            getattr(session, action)()
        replayed = {row: one for (_, row), one in standing(read_decisions(path)).items()}
        assert replayed == session.made
        assert 0 <= session.place <= session.total
        assert sum(session.counts().values()) == session.total
    while session.undo():
        pass
    assert session.made == {}
    file.close()


@given(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=40, unique=True))
def test_every_key_means_one_label_and_no_move(labels):
    keys = keys_of(labels)
    used = [key for key in keys if key]
    assert len(set(used)) == len(used) and not set(used) & TAKEN
    for label, key in zip(labels, keys, strict=True):
        if key:
            assert label_for(key, labels, keys) == label
    assert keys_of(["pos", "neg", "spam"]) == ["p", "n", "a"]


@given(st.text(max_size=300), st.integers(2, 40))
def test_wrapped_lines_fit_and_lose_nothing_but_spaces(text, columns):
    lines = wrapped(text, columns)
    assert all(width_of(line) <= columns for line in lines)
    shown = printable(text.replace("\r\n", "\n").expandtabs(4).replace("\n", ""))
    assert "".join(lines).replace(" ", "") == shown.replace(" ", "")
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for line in lines for c in line)
