"""Units are done once, committed whole, done again only when they must, on every engine."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modelwright.data.corpus import attempt, ledger
from modelwright.data.corpus.engine import run_units
from modelwright.data.corpus.unit import Commit, Unit, commit_path, unit_folder
from modelwright.errors import CorruptError, MachineError, ModelwrightError

ROOT = Path(__file__).parents[2]
HERE = "tests.data_stage.unit_works"
ENGINES = ("inline", "pool")


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "corpus").mkdir()
    return tmp_path / "corpus"


def words(*names: str, **more: Any) -> list[Unit]:
    return [Unit("words", n, f"{HERE}:write", {"word": n} | more) for n in names]


def joined(*names: str) -> list[Unit]:
    reads = tuple(f"words/{n}:inner/word.txt" for n in names)
    return [Unit("joined", "all", f"{HERE}:join", {"names": list(names)}, reads)]


def run(units: list[Unit], corpus: Path, engine: str = "inline", workers: int = 2, **more: Any):
    return run_units(units, corpus, engine, workers=workers, say=lambda line: None, **more)


def done(corpus: Path) -> list[str]:
    path = corpus.parent / "done.txt"
    found = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return sorted(found)


@pytest.mark.parametrize("engine", ENGINES)
def test_done_once(corpus: Path, engine: str):
    commits = run(words("one", "two", "three"), corpus, engine)
    assert list(commits) == ["one", "two", "three"]
    assert commits["three"].facts == {"letters": 5}
    assert list(commits["three"].files) == ["inner/word.txt"]
    assert (unit_folder(corpus, "words", "two") / "inner" / "word.txt").read_text() == "TWO"
    assert done(corpus) == ["one", "three", "two"]
    again = run(words("one", "two", "three"), corpus, engine)
    assert again == commits
    assert done(corpus) == []
    assert not (corpus / "tmp").exists()
    assert json.loads((corpus / "timing" / "words" / "one.json").read_text())["pid"] > 0


def test_another_engine_goes_on(corpus: Path):
    run(words("one", "two"), corpus, "inline")
    done(corpus)
    run(words("one", "two", "three"), corpus, "pool", workers=1)
    assert done(corpus) == ["three"]


def test_what_is_aside_changes_nothing(corpus: Path):
    run(words("one"), corpus)
    unit = Unit("words", "one", f"{HERE}:write", {"word": "one"}, aside={"memory": 5}, bytes=9)
    done(corpus)
    run([unit], corpus)
    assert done(corpus) == []


def test_only_what_depends_on_a_change_is_done_again(corpus: Path):
    run(words("one", "two"), corpus)
    run(joined("one", "two"), corpus)
    done(corpus)
    changed = [*words("one"), *words("two", note="of no consequence")]
    run(changed, corpus)
    assert done(corpus) == ["two"]
    run(joined("one", "two"), corpus)
    assert done(corpus) == []  # the file that it reads is the same as before
    other = Unit("words", "two", f"{HERE}:write", {"word": "zwei"})
    run([*words("one"), other], corpus)
    run(joined("one", "two"), corpus)
    assert done(corpus) == ["join", "zwei"]
    assert (unit_folder(corpus, "joined", "all") / "all.txt").read_text() == "ONE ZWEI"


def test_units_that_are_not_planned_any_more_go(corpus: Path):
    run(words("one", "two"), corpus)
    run(words("two"), corpus)
    assert sorted(p.name for p in (corpus / "stages" / "words").iterdir()) == ["two", "two.json"]


def test_files_without_a_commit_do_not_exist(corpus: Path):
    """As a kill between the renaming and the commit leaves them."""
    run(words("one", "two"), corpus)
    commit_path(corpus, "words", "one").unlink()
    (unit_folder(corpus, "words", "one") / "inner" / "word.txt").write_text("half")
    (corpus / "tmp" / "words.two.1").mkdir(parents=True)
    with pytest.raises(CorruptError, match="words/one is not finished"):
        run(joined("one", "two"), corpus)
    done(corpus)
    run(words("one", "two"), corpus)
    assert done(corpus) == ["one"]
    assert (unit_folder(corpus, "words", "one") / "inner" / "word.txt").read_text() == "ONE"


def test_files_that_are_gone_are_made_again(corpus: Path):
    run(words("one"), corpus)
    (unit_folder(corpus, "words", "one") / "inner" / "word.txt").unlink()
    done(corpus)
    run(words("one"), corpus)
    assert done(corpus) == ["one"]


def test_a_damaged_commit_is_named(corpus: Path):
    run(words("one"), corpus)
    commit_path(corpus, "words", "one").write_text('{"unit": "one"')
    with pytest.raises(CorruptError, match=r"one\.json: damaged commit record"):
        run(words("one"), corpus)


def test_a_commit_is_never_written_over(corpus: Path):
    """Two who publish the same unit: the second takes the first one's place, whole."""
    (corpus / "tmp").mkdir()
    for text in ("first", "second"):
        attempt = corpus / "tmp" / text
        attempt.mkdir()
        (attempt / "a.txt").write_text(text)
        ledger.publish(corpus, "words", Commit("one", text, {"a.txt": text}, {}), attempt)
        found = ledger.read_commit(corpus, "words", "one")
        assert found == Commit("one", text, {"a.txt": text}, {})
        assert (unit_folder(corpus, "words", "one") / "a.txt").read_text() == text


def test_a_worker_that_dies_once_is_replaced(corpus: Path):
    units = [Unit("s", f"u{i}", f"{HERE}:die", {"word": f"u{i}", "times": i % 2}) for i in range(4)]
    commits = run(units, corpus, "pool")
    assert [c.facts["deaths"] for c in commits.values()] == [0, 1, 0, 1]
    assert all(
        (unit_folder(corpus, "s", u.name) / "half.txt").read_text() == "whole" for u in units
    )


def test_time_is_counted_while_other_processes_end():
    """A process that ends while /proc is read once took a worker with it."""
    program = "import subprocess\nfor _ in range(400): subprocess.run(['true'], check=True)"
    with contextlib.ExitStack() as stack:
        comers = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(3)]
        for comer in comers:
            stack.enter_context(comer)
        counted = 0
        while any(comer.poll() is None for comer in comers):
            assert attempt._processor_seconds() > 0
            counted += 1
    assert counted > 10


def test_a_unit_that_kills_its_workers_is_named(corpus: Path):
    units = [
        *words("one"),
        Unit("words", "bad", f"{HERE}:die", {"word": "bad", "times": 9}),
    ]
    with pytest.raises(MachineError, match="words/bad: its worker died 2 times .SIGKILL.") as told:
        run(units, corpus, "pool", workers=1)
    assert "--workers" in str(told.value)
    assert ledger.read_commit(corpus, "words", "bad") is None
    assert not unit_folder(corpus, "words", "bad").exists()
    assert not (corpus / "tmp").exists()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        ("told", ModelwrightError, "s/u: line 3: is wrong; mend it"),
        ("bug", ModelwrightError, r"s/u: ZeroDivisionError: .* \(unit_works.py:\d+\)"),
        ("memory", MachineError, "s/u: out of memory; give fewer --workers"),
        ("nan", ModelwrightError, "s/u: ValueError: Out of range float"),
    ],
)
def test_a_failure_names_its_unit(
    corpus: Path, engine: str, how: str, kind: type[Exception], said: str
):
    with pytest.raises(kind, match=said) as told:
        run([Unit("s", "u", f"{HERE}:fail", {"how": how})], corpus, engine)
    assert "\n" not in str(told.value)
    assert ledger.read_commit(corpus, "s", "u") is None
    assert not (corpus / "tmp").exists()


def test_what_libraries_print_is_no_outcome(corpus: Path, capfd: pytest.CaptureFixture[str]):
    commits = run([Unit("s", "u", f"{HERE}:loud", {})], corpus, "pool")
    assert commits["u"].facts["numbers"][-1] == 99_999
    assert "hello" in capfd.readouterr().err


def test_engines_leave_the_same_bytes(corpus: Path, tmp_path: Path):
    trees = []
    for engine in ENGINES:
        place = tmp_path / engine / "corpus"
        run(words("one", "two", "three"), place, engine)
        stages = place / "stages"
        files = sorted(p for p in stages.rglob("*") if p.is_file())
        trees.append({str(p.relative_to(stages)): p.read_bytes() for p in files})
    assert trees[0] == trees[1]
    assert len(trees[0]) == 6


def test_changing_is_told_before_anything_is_done(corpus: Path):
    told: list[list[str]] = []
    run(words("one"), corpus, changing=lambda: told.append(done(corpus)))
    assert told == [[]]
    run(words("one"), corpus, changing=lambda: told.append(done(corpus)))
    assert told == [[]]


def test_a_corpus_is_worked_on_by_one(corpus: Path):
    with (
        ledger.locked(corpus),
        pytest.raises(MachineError, match="another `modelwright data run` works on it"),
        ledger.locked(corpus),
    ):
        pass
    with ledger.locked(corpus):
        pass


def test_wrong_words_are_said(corpus: Path):
    with pytest.raises(ModelwrightError, match="no engine 'spark'; known: inline, pool, ray"):
        run(words("one"), corpus, "spark")
    with pytest.raises(ModelwrightError, match="--workers: 0"):
        run(words("one"), corpus, "pool", workers=0)
    with pytest.raises(ModelwrightError, match="two units are called 'one'"):
        run(words("one", "one"), corpus)


def test_a_commit_is_plain_json_without_times(corpus: Path):
    run(words("one"), corpus)
    stored = json.loads(commit_path(corpus, "words", "one").read_text())
    assert set(stored) == {"unit", "mark", "files", "facts"}
    assert "timing" not in stored["facts"]
