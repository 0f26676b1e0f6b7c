"""Law 14: whatever is given, one line says what is wrong, where and what to do; nothing is lost.

What is refused before any work begins; test_law_14_data.py gives bad data, and
test_law_14_machine.py damaged files, full disks and signals.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelwright.cli import main
from modelwright.errors import EXIT_CORRUPT, EXIT_MACHINE, EXIT_USAGE
from tests.programs import command, the_line, write_corpus

Refuse = Callable[..., str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, a recipe, and a trained run of it in ``done``."""
    folder = write_corpus(tmp_path_factory.mktemp("law-14"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["tune", "tiny.yaml", "train.steps=2", "tune.steps=2", "--out", "done"]) == 0
    return folder


@pytest.fixture
def refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Refuse]:
    """Run a command that must be refused in one line and leave everything as it was."""
    monkeypatch.chdir(folder)
    before = everything(folder)

    def refuse(*arguments: str, code: int = EXIT_USAGE, words: str = "") -> str:
        capsys.readouterr()
        assert main(list(arguments)) == code
        said = capsys.readouterr()
        line = the_line(said.err)
        assert words in line, line
        assert len(line) < 700, line
        assert said.out == ""
        return line

    yield refuse
    assert everything(folder) == before


def everything(folder: Path) -> dict[str, int]:
    """Every file with its size; locks aside, which every look at a run may touch."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "lock")
    return {str(p.relative_to(folder)): p.stat().st_size for p in files}


# -- a recipe that does not say what it should -------------------------------------------------

OVERRIDES = {
    "train.steps=abc": "train.steps: Input should be a valid integer",
    "train.steps=0": "train.steps: Input should be greater than 0 (got 0)",
    "train.steps=1.5": "train.steps",
    "train.steps=-3": "train.steps",
    "train.steps=[1]": "train.steps",
    "train.steps=*a": "not valid YAML",
    "train.steps=!!python/object:os.system x": "not valid YAML",
    "train.batch=-1": "train.batch: Input should be greater than 0 (got -1)",
    "train.accumulate=3": "batch=4 is no multiple of accumulate=3",
    "train.learning_rate=0": "train.learning_rate",
    "train.learning_rate=inf": "train.learning_rate: Input should be a finite number",
    "train.threads=100000": "train.threads",
    "train.precision=float8": "'float32', 'bfloat16' or 'float16'",
    "train.optimizer=adm": "(did you mean 'adam'?)",
    "train.schedule=cosin": "(did you mean 'cosine'?)",
    "train.task=documnts": "no task 'documnts' (did you mean 'documents'?)",
    "train.task=5": "train.task",
    "train.options.kindz=[a]": "no option 'kindz' (did you mean 'kinds'?)",
    "train.options.kinds=5": "task documents: kinds: ",
    "train.options=5": "train.options",
    "train.objective=next_tokn": "(did you mean 'next_token'?)",
    "train.objective_options.smooth=1": "objective next_token: no option 'smooth'",
    "tune.task=vector_classification": "tune.task: needs the codec 'vectors'",
    "budget=3x": "budget: '3x' is no time, tokens or FLOPs; write it like 90s, 1h30m, 20Mtok or",
    "budget=5": "budget: '5' is no time, tokens or FLOPs",
    "budget=5Xtok": "budget: '5Xtok' is no time, tokens or FLOPs",
    "budget=0flop": "budget: '0flop' cannot be trained; write it like 20Mtok",
    "budget=0s": "budget: '0s' is no time at all",
    "model.widht=64": "model.widht: not a field of decoder (did you mean 'width'?)",
    "model.width=abc": "model.width: Input should be a valid integer",
    "model.width=-64": "model.width: Input should be greater than 0",
    "model.heads=0": "model.heads: Input should be greater than 0",
    "model.softcap=x": "model.softcap: Input should be a valid number",
    "model.tied=5": "model.tied: Input should be a valid boolean",
    "model.family=decodr": "no family 'decodr' (did you mean 'decoder'?)",
    "model.family=mlp": "model.depth: not a field of mlp",
    "model.parameters=5X": "'5X' is not a count; write it like 5M",
    "model.parameters=0": "model.parameters: 0 is no size",
    "codec.vocabulry=300": "no option 'vocabulry' (did you mean 'vocabulary'?)",
    "codec.vocabulary=abc": "codec text: vocabulary: Input should be a valid integer",
    "codec=5": "codec",
    "data.split.validation=0.99": "leave nothing for train",
    "data.split.test=1.5": "data.split.test",
    "data.split.by=grp": "(did you mean 'group'?)",
    "data.limit=0": "data.limit",
    "data.columns=abc": "data.columns",
    "data.clean=maybe": "data.clean",
    "data={}": "data.source: is missing; every recipe needs it",
    "trian.steps=4": "trian: unknown key (did you mean 'train'?)",
    "train.step=4": "train.step: unknown key (did you mean 'steps'?)",
    "train.steps.x=5": "steps is not a section",
    "train=5": "train: ",
    "=5": "write overrides as key=value",
    "seed=-1": "seed",
    "name=../x": "name",
    "ask=5": "ask",
    "evaluate.questions=0": "evaluate.questions",
}


@pytest.mark.parametrize("override", OVERRIDES)
def test_an_override_that_is_wrong(refused: Refuse, override: str) -> None:
    for verb in ("run", "show"):
        line = refused(verb, "tiny.yaml", override, words=OVERRIDES[override])
        assert "tiny.yaml: " in line or line.startswith(f"modelwright: {override}")


RECIPES = {
    "bytes": (bytes(range(256)), "not UTF-8 text"),
    "utf16": ("name: a".encode("utf-16"), "not UTF-8 text"),
    "empty": (b"", "a recipe is a mapping of keys"),
    "list": (b"- a\n- b\n", "a recipe is a mapping of keys"),
    "word": (b"hello", "a recipe is a mapping of keys"),
    "tab": (b"name:\n\tb", "line 2"),
    "nul": (b"a: \0", "not valid YAML"),
    "deep": (b"[" * 5000, "nested too deeply"),
    "code": (b"a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
    "number": (b"1: 2\n", "data: is missing"),
    "date": (b"name: 2024-01-01\ndata: {source: x}\ntrain: {task: documents}", "name"),
    "no-data": (b"train: {task: documents}", "data: is missing; every recipe needs it"),
    "bad name!": (b"data: {source: x}\ntrain: {task: documents}", "name: String should match"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_file_that_is_none(refused: Refuse, tmp_path: Path, name: str) -> None:
    content, words = RECIPES[name]
    path = tmp_path / f"{name}.yaml"
    path.write_bytes(content)
    for verb in ("run", "show", "train"):
        assert f"{path}: " in refused(verb, str(path), words=words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("quikstart", "no such recipe (did you mean 'quickstart'?)"),
        ("nothing/at/all", "no such recipe"),
        (".", "is a directory and no run; give a recipe file"),
        ("", "is a directory"),
        ("/dev/null", "a recipe is a mapping"),
        ("a" * 5000, "cannot be read (File name too long)"),
    ],
)
def test_a_recipe_that_is_not_there(refused: Refuse, name: str, words: str) -> None:
    refused("run", name, words=words)
    refused("show", name, words=words)


def test_data_where_a_recipe_is_wanted(refused: Refuse) -> None:
    for verb in ("run", "show"):
        refused(verb, "corpus.jsonl", words="is data, not a recipe; say what is to be learned")


# -- commands and runs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "arguments are required"),
        (["rnu"], "invalid choice: 'rnu'"),
        (["rnu"], "(did you mean 'run'?)"),
        (["run"], "arguments are required: recipe; see `modelwright run --help`"),
        (["run", "tiny.yaml", "--bogus"], "unrecognized arguments: --bogus"),
        (["quantize", "done", "--bitz", "4"], "see `modelwright quantize --help`"),
        (["data", "run", "c.yaml", "--outt", "x"], "see `modelwright data run --help`"),
        (["train", "reviews.csv", "task=sentiment"], "reviews.csv: no such file"),
        (["run", "tiny.yaml", "steps"], "steps: write overrides as key=value"),
        (["run", "tiny.yaml", "--out"], "argument --out: expected one argument"),
        (["run", "tiny.yaml", "--out", "tiny.yaml"], "exists and is not a run"),
        (["run", "tiny.yaml", "--out", "."], "exists and is not a run"),
        (["run", "tiny.yaml", "--out", "done"], "train.steps: 2 there, 40 here"),
        (["run", "done", "train.steps=5"], "an existing run keeps its recipe"),
        (["evaluate", "nope"], "nope: no such run"),
        (["evaluate", "dome"], "(did you mean 'done'?); see `modelwright runs`"),
        (["evaluate", "tiny.yaml"], "not a run directory, it has no recipe.yaml"),
        (["evaluate", "."], "not a run directory, it has no recipe.yaml"),
        (["evaluate", "done", "x=1"], "no option 'x'; known: kinds"),
        (["ask", "nope", "q"], "nope: no such run"),
        (["ask", "quickstart", "q"], "`modelwright run quickstart` makes runs/quickstart of it"),
        (["ask", "done", "q", "--stage", "tun"], "(did you mean 'tune'?)"),
        (["ask", "done", "q", "--max-tokens", "0"], "max_tokens: 0 is not at least 1"),
        (["ask", "done", "q", "--max-tokens", "x"], "invalid int value: 'x'"),
        (["ask", "done", "q", "--temperature", "nan"], "temperature: nan"),
        (["ask", "done", "q", "--seed", "9" * 30], "is not a 64-bit integer"),
        (["ask", "done", "long " * 5000], "the model's context holds 64"),
        (["serve", "nope"], "nope: no such run"),
        (["serve", "done", "--cache-tokens", "5"], "5 hold no request of the whole context"),
        (["serve", "done", "--port", "-1"], "port: -1 is not between 0"),
        (["serve", "done", "--port", "70000"], "port: 70000 is not between 0"),
        (["serve", "done", "--port", "http"], "invalid int value: 'http'"),
        (["serve", "done", "--host", "0.0.0.0"], "set an API key"),  # noqa: S104
        (["serve", "done", "--api-key", "a b"], "api key: it must be visible ASCII"),
        (["runs", "--root", "nowhere"], "no runs here"),
        (["runs", "nope", "done"], "nope: no such run directory"),
        (["runs", "done"], "comparing needs two runs or more"),
        (["check", "nope"], "nope: no such run"),
        (["check", "."], "not a run directory"),
    ],
)
def test_a_command_that_cannot_be_meant(refused: Refuse, arguments: list[str], words: str) -> None:
    refused(*arguments, words=words)


def test_a_question_that_is_no_text_of_this_world(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A byte of the command line that is no UTF-8 is read as U+FFFD, as everywhere."""
    monkeypatch.chdir(folder)
    assert main(["ask", "done", os.fsdecode(b"caf\xe9?"), "--max-tokens", "2"]) == 0
    assert "Traceback" not in capsys.readouterr().err


def test_a_conversation_outlives_a_question_that_is_too_long(folder: Path) -> None:
    done = command("ask", "done", "--max-tokens", "2", cwd=folder, input="x " * 9000 + "\nhi\n")
    assert done.returncode == 0
    assert "the model's context holds 64" in the_line(done.stderr)
    assert done.stdout.count("\n") >= 1  # the second question has its answer


def test_a_port_in_use(refused: Refuse) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = refused("serve", "done", "--port", port, code=EXIT_MACHINE)
    assert f"port {port} on 127.0.0.1 is in use; choose another with --port" in line


def test_a_stage_that_was_not_trained(refused: Refuse, tmp_path: Path) -> None:
    assert main(["train", "tiny.yaml", "train.steps=1", "--out", str(tmp_path / "base")]) == 0
    line = refused("ask", str(tmp_path / "base"), "q", "--stage", "tune")
    assert "no trained stage 'tune'; run `modelwright run" in line
    assert main(["prepare", "tiny.yaml", "--out", str(tmp_path / "only")]) == 0
    line = refused("ask", str(tmp_path / "only"), "q")
    assert "nothing trained yet; run `modelwright run" in line
    refused("evaluate", str(tmp_path / "only"), words="nothing trained yet")
    refused("check", str(tmp_path / "only"), words="no checkpoints yet")


def test_a_run_directory_that_cannot_be_written(refused: Refuse) -> None:
    for place in ("/proc/here", "tiny.yaml/below", "a" * 300):
        line = refused("run", "tiny.yaml", "--out", place, code=EXIT_MACHINE)
        assert f"{place}: " in line
        assert "choose another --out" in line


def test_a_run_whose_files_were_edited(folder: Path, refused: Refuse, tmp_path: Path) -> None:
    for name, content, code, words in (
        ("recipe.yaml", "a: [", EXIT_CORRUPT, "damaged"),
        ("recipe.yaml", "name: x", EXIT_USAGE, "data: is missing"),
        ("manifest.json", "{", EXIT_CORRUPT, "damaged"),
    ):
        broken = tmp_path / f"{name}-{code}"
        broken.mkdir()
        for file in ("recipe.yaml", "manifest.json"):
            (broken / file).write_bytes((folder / "done" / file).read_bytes())
        (broken / name).write_text(content)
        for verb in ("run", "ask", "check"):
            question = ["q"] if verb == "ask" else []
            assert str(broken / name) in refused(
                verb, str(broken), *question, code=code, words=words
            )


# -- from a fresh interpreter -------------------------------------------------------------------


def test_from_an_empty_directory_without_a_home(tmp_path: Path) -> None:
    """No home that can be written, nothing in the working directory: a run still works."""
    here = tmp_path / "here"
    here.mkdir()
    home = tmp_path / "home"
    home.mkdir()
    (home / "file").touch()  # below a file not even root can make anything
    home.chmod(stat.S_IRUSR | stat.S_IXUSR)
    away = {"HOME": str(home / "file"), "XDG_CACHE_HOME": str(home / "file" / "cache")}
    corpus = write_corpus(tmp_path) / "corpus.jsonl"
    arguments = ["train", str(tmp_path / "tiny.yaml"), f"data.source={corpus}", "train.steps=2"]
    done = command(*arguments, cwd=here, env=away)
    assert done.returncode == 0, done.stderr
    assert [p.name for p in home.iterdir()] == ["file"]
    assert (home / "file").read_bytes() == b""
    assert [p.name for p in here.iterdir()] == ["runs"]
    listed = command("runs", cwd=home, env=away)
    assert listed.returncode == EXIT_USAGE
    assert "no runs here" in the_line(listed.stderr)


def test_without_arguments_the_help_is_named(tmp_path: Path) -> None:
    done = command(cwd=tmp_path)
    assert done.returncode == EXIT_USAGE
    assert "see `modelwright --help`" in the_line(done.stderr)
    assert command("--version", cwd=tmp_path).stdout.startswith("modelwright ")


def test_a_family_that_reads_what_the_task_does_not_give(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    done = command(
        "train", "tiny.yaml", "model={family: t5, depth: 1, width: 32, heads: 2}", cwd=tmp_path
    )
    assert done.returncode == EXIT_USAGE
    assert "a t5 cannot read what the text codec of this task makes" in the_line(done.stderr)
    done = command("train", "mlp-digits", "model={family: unet}", cwd=tmp_path)
    assert done.returncode == EXIT_USAGE
    line = the_line(done.stderr)
    assert "a unet reads noisy and times, and the task vector_classification gives no" in line
