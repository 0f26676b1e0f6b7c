"""`modelwright design`: the numbers hold, nothing is allocated, mistakes are one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from modelwright.cli import main
from modelwright.design_commands import lines
from modelwright.errors import ModelwrightError
from modelwright.hub.families import family_of
from modelwright.hub.writing import write
from modelwright.models.model import config_class, families
from modelwright.pipeline.design import OPTIMIZERS, PRECISIONS, design, of_config
from modelwright.training import scaling

every_family = pytest.mark.parametrize("family", families())


@every_family
def test_the_table_of_every_family_adds_up_and_fits_80_columns(family: str) -> None:
    cls = config_class(family)
    made = of_config(cls(**cls.specimen), 2, {})
    model = cls(**cls.specimen).build()
    assert made.parameters == sum(p.numel() for p in model.parameters())
    assert sum(line.parameters for line in made.lines if line.level == 0) == made.parameters
    assert made.flops > 0 and made.amount > 0
    text = list(lines(made))
    assert max(map(len, text)) <= 80
    assert any(f"{made.parameters:,}" in line for line in text)
    assert made.inputs is not None, f"a {family} does not say what it reads: `Config.inputs`"
    assert set(made.memory) == {(o, p) for o in OPTIMIZERS for p in PRECISIONS}


def test_shapes_are_those_that_the_modules_give() -> None:
    made = design("whisper", ["width=64", "heads=2", "frames=100", "encoder_depth=2"])
    shapes = {line.name: line.shape for line in made.lines}
    assert shapes["first"] == (1, 64, 200) and shapes["second"] == (1, 64, 100)
    assert shapes["0-1"] == (1, 100, 64)
    assert shapes["embedding"] == (1, 448, 64)


def test_70_billion_parameters_take_no_memory() -> None:
    script = (
        "import sys; from modelwright.cli import main; code = main(sys.argv[1:]);"
        "from modelwright import runtime; print(runtime.peak_memory_bytes()); sys.exit(code)"
    )
    fields = ["depth=80", "width=8192", "heads=64", "kv_heads=8", "hidden=28672", "context=2048"]
    done = subprocess.run(
        [sys.executable, "-c", script, "design", "llama", "vocabulary=128256", *fields],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    *text, peak = done.stdout.splitlines()
    assert text[0] == "llama: 70,553,706,496 parameters"
    assert int(peak) < 1.5e9
    assert not done.stderr


def test_a_size_a_target_and_numbers_are_three_ways_to_one_family() -> None:
    named = design("gpt2", size="gpt2")
    assert named.parameters == 124_439_808 and not named.assumed
    wider = design("gpt2", ["width=1024", "heads=16"], size="gpt2")
    assert wider.config.width == 1024 and wider.config.depth == 12
    wanted = design("decoder", parameters="30M")
    assert 25e6 < wanted.config.matrix_parameters() < 36e6
    assert wanted.assumed == {"vocabulary": 4096}


def test_a_recipe_gives_its_model_and_batch(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "data: {source: mnist}\nmodel: {family: mlp, hidden: [32]}\n"
        "train: {task: vector_classification, batch: 64}\n"
    )
    made = design(str(path), ["model.activation=tanh"])
    assert made.config.hidden == (32,) and made.config.activation == "tanh"
    assert made.rows == 64
    assert design("mlp-mnist").config.family == "mlp"


def test_a_recipe_that_begins_with_a_checkpoint_shows_that_checkpoint(tmp_path: Path) -> None:
    cls = config_class("gpt2")
    config = cls(**cls.specimen)
    folder = tmp_path / "stored"
    folder.mkdir()
    write(folder, config.build(), config, family_of("gpt2", "test"))
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"data: {{source: words}}\nmodel: {{from: {folder}}}\ntune: {{task: documents, batch: 3}}\n"
    )
    made = design(str(path))
    assert made.config == config
    assert made.rows == 3 and not made.assumed
    with pytest.raises(ModelwrightError, match="leave out --size"):
        design(str(path), size="gpt2")


def test_tokens_that_pay_follow_the_law_and_elsewhere_a_rule_said_as_such() -> None:
    for size in (1e6, 1e9):
        for law in (scaling.OURS, scaling.PUBLISHED):
            assert law.best_size(law.best_tokens(size)) == pytest.approx(size)
    decoder = design("decoder", ["vocabulary=512"])
    assert "law of" in decoder.why
    other = design("vit", size="vit-tiny-16")
    assert "rule of thumb" in other.why and "decoders of text" in other.why
    assert other.amount < 20 * other.parameters  # an image is many positions


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["whispr"], "neither a family nor a recipe.*'whisper'"),
        (["quickstrt"], "neither a family nor a recipe.*'quickstart'"),
        (["whisper", "--size", "whisper-tny"], "'whisper-tny'.*'whisper-tiny'"),
        (["whisper", "widht=3"], "widht.*'width'"),
        (["whisper", "width=[1"], "not YAML"),
        (["whisper", "width=7"], "model.width: 7"),
        (["whisper", "--size", "whisper-tiny", "--params", "1M"], "--size and --params"),
        (["mlp", "--params", "1M"], "--params: 1M names no mlp"),
        (["mlp", "--params", "much"], "'much' is not a count"),
        (["mlp", "--batch", "0"], "--batch: 0"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["design", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(said, error), error


def test_no_rows_are_refused() -> None:
    with pytest.raises(ModelwrightError, match="--batch"):
        design("mlp", batch=-1)
