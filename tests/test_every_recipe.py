"""What every shipped recipe promises. A new file in recipes/ is found here by itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest
import yaml

from modelwright import api, checkpoint, places, recipe
from modelwright.cli import main
from modelwright.data.read_aloud import PROGRAM
from modelwright.data.sources import FOLDERS
from modelwright.models.model import checked_fields, config_class
from modelwright.pipeline import stages_of
from modelwright.runs import Run
from tests.programs import the_line

every_recipe = pytest.mark.parametrize("name", places.shipped())

# Of every data set: enough rows for its splits and classes, few enough to be quick.
LIMITS = {
    "python-stdlib": 1500,
    "digits": 200,
    "mnist": 300,
    "cifar10": 300,
    "flowers12": 960,
    "fsdd": 700,
    "fsdd-strings": 300,
    "imdb": 300,
    "multi30k": 300,
    "snips_nlu": 280,
    "snips-kinds": 280,
    "snips-pairs": 280,
    "chnsenticorp": 200,
    "xquad": 60,
    "cmrc2018": 30,
    "scitldr": 60,
    "instruct_demo": 200,
    "english_novels": 60,
    "tatoeba_en_zh": 200,
    "classical_modern_zh": 2000,
    "bccd": 24,
    "chess_pgn": 60,
    "othello_wthor": 60,
    "connect4-played": 12,
    "cartpole-played": 300,
    "kathleen": 60,
    "hh_rlhf_harmless": 60,
    "arithmetic": 100,
    "coffee_slu": 40,
    "coffee-sentences": 100,
}
SMALL = {
    "detector": {"widths": "[4, 4, 6, 8]", "stem_width": 4, "width": 8, "layers": 1},
    "decoder": {"depth": 1, "width": 64, "heads": 2, "kv_heads": 1, "context": 64},
    "mlp": {"hidden": "[8]"},
    "fast_cnn": {"widths": "[4, 8]", "stem": "random"},
    "rnn": {"hidden": 8},
    "bag_of_frames": {},
    "encoder": {"depth": 1, "width": 16, "heads": 2},
    "unet": {"width": 4, "multipliers": "[1, 2]", "blocks": 1, "attention": "[]", "heads": 1},
    "bart": {"depth": 1, "width": 16, "heads": 2, "hidden": 16},
    "board": {"width": 8, "depth": 1},
    "actor_critic": {"hidden": "[8]"},
    "conformer": {"width": 8, "heads": 2, "depth": 1},
    "spectrogram": {"widths": "[2, 4]", "hidden": 8},
    "vocos": {"width": 8, "depth": 1},
    "speech_flow": {"width": 8, "text_depth": 1, "depth": 1},
    "whisper": {"width": 8, "heads": 2, "encoder_depth": 1, "decoder_depth": 1},
}


DOWNLOADED = (
    "mnist",
    "cifar10",
    "flowers12",
    "fsdd",
    "fsdd-strings",
    "imdb",
    "multi30k",
    "bccd",
    "kathleen",
    "chess_pgn",
    "othello_wthor",
    "snips_nlu",
    "snips-kinds",
    "snips-pairs",
    "chnsenticorp",
    "xquad",
    "cmrc2018",
    "scitldr",
    "instruct_demo",
    "english_novels",
    "tatoeba_en_zh",
    "classical_modern_zh",
    "hh_rlhf_harmless",
    "coffee_slu",
    "coffee-sentences",
)
# The others' data come with Python and with scikit-learn.
FETCHED = [n for n in places.shipped() if recipe.read(n).data.source in DOWNLOADED]


def written(name: str) -> str:
    return (resources.files("modelwright") / "recipes" / f"{name}.yaml").read_text()


def little(name: str, data: Callable[[str], Path]) -> list[str]:
    """Overrides for two steps of a tiny model on a little of the real data."""
    made = recipe.read(name)
    source = made.data.source
    overrides = [f"data.limit={LIMITS[source]}"]
    if name in FETCHED:
        overrides.append(f"data.path={data(FOLDERS.get(source, source))}")
    if also := made.data.also:
        if also.source == "read-aloud" and shutil.which(PROGRAM) is None:
            pytest.skip(f"the program {PROGRAM} is not installed")
        folder = data(FOLDERS.get(also.source, also.source))
        overrides += ["data.also.limit=4", f"data.also.path={folder}"]
    if "language_texts" in made.codec:  # of megabytes
        overrides.append("codec.language_texts=''")
    overrides += [f"model.{key}={value}" for key, value in SMALL[made.family].items()]
    for stage in made.stages:
        overrides += [f"{stage}.steps=2", f"{stage}.epochs=null", f"{stage}.batch=4"]
        overrides += [f"{stage}.threads=1", f"{stage}.precision=float32"]
    if made.first.task in ("chat", "preferences"):  # conversations do not fit into so little
        overrides.append("model.context=2048")
    if made.family in ("decoder", "encoder", "bart"):
        overrides.append("codec.vocabulary=300")
    return overrides


@every_recipe
def test_it_is_what_its_file_says(name: str) -> None:
    made = recipe.read(name)
    assert made.name == name
    assert made == recipe.parse(yaml.safe_load(written(name)))
    assert "report" in stages_of(made)


@every_recipe
def test_every_value_in_it_is_explained(name: str) -> None:
    """Most lines bear a comment: a recipe is the first thing that a person reads."""
    lines = [line for line in written(name).splitlines() if ":" in line]
    assert sum("#" in line for line in lines) >= len(lines) / 4


@every_recipe
def test_show_gives_every_value_and_its_reason(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["show", name]) == 0
    said = capsys.readouterr().out
    made = recipe.read(name)
    for stage, values in made.stages.items():
        for key in ("task", "optimizer", "learning_rate", "schedule", "threads", "steps"):
            line = next(line for line in said.splitlines() if line.startswith(f"{stage}.{key} "))
            given = getattr(values, key) is not None
            assert ("given in the recipe" in line) == given, line
            assert len(line.split()) > 2


@every_recipe
def test_it_trains_on_real_data(
    name: str,
    data: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    overrides = little(name, data)
    monkeypatch.chdir(tmp_path)
    assert main(["tune" if recipe.read(name).tune else "train", name, *overrides]) == 0
    run = Run.open(tmp_path / "runs" / name)
    for stage in run.recipe.stages:
        newest = checkpoint.newest(run.path / "checkpoints" / stage)
        assert newest is not None
        assert newest.name == "step-00000002"
        assert checkpoint.verify(newest) == []
        fields = run.stage(stage)["resolved"]["model"]
        assert checked_fields(
            config_class(run.recipe.family), {k: v for k, v in fields.items() if k != "family"}
        )
        for part in ("train", "validation"):
            assert (run.path / "data" / stage / part).is_dir(), part
    assert "Traceback" not in capsys.readouterr().err
    again = api.open_run(name, *overrides)  # the same recipe and overrides mean the same run
    assert again.path.resolve() == run.path


@pytest.mark.parametrize("name", FETCHED)
def test_without_its_data_it_says_where_to_get_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = recipe.read(name).data.source
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODELWRIGHT_DATA", raising=False)
    assert main(["prepare", name]) == 2
    line = the_line(capsys.readouterr().err)
    assert f"data set '{source}'" in line
    assert "MODELWRIGHT_DATA" in line
