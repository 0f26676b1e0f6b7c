"""Cross-validation of real recipes: folds are runs, results are joined, kills cost nothing."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright import api
from modelwright.data.codecs import fit_codec
from modelwright.data.folds import fold_rows
from modelwright.data.shards import open_shard
from modelwright.data.sources import read_rows
from modelwright.errors import ModelwrightError
from modelwright.pipeline.crossval import begin, summarised, table_lines
from modelwright.pipeline.prepare import prepared_codec
from modelwright.pipeline.processes import fitting, free_memory_bytes
from modelwright.recipe import parse, read
from modelwright.runs import Run
from modelwright.types import rows_in
from tests.programs import Programs, serving, the_line

DIGITS = ("train.epochs=null", "train.steps=40", "train.batch=32", "train.learning_rate=0.05")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return serving(tmp_path_factory.mktemp("crossval"))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Three folds of the digits, and the result."""
    folder = tmp_path_factory.mktemp("digits") / "cv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        return folder, api.crossval("mlp-digits", *DIGITS, folds=3, out=folder)


def columns(run: Run, part: str) -> list[bytes]:
    features = np.asarray(open_shard(run.path / "data" / "train" / part)["features"])
    return [row.tobytes() for row in features]


def test_every_fold_is_a_run_and_each_row_is_held_out_once(
    done: tuple[Path, dict[str, Any]],
) -> None:
    folder, result = done
    runs = [Run.open(folder / f"fold-{n}") for n in (1, 2, 3)]
    held = [row for run in runs for row in columns(run, "test")]
    assert len(held) == len(set(held)) == sum(f["held_out_rows"] for f in result["fold_runs"])
    for run in runs:
        trained = set(columns(run, "train"))
        assert trained.isdisjoint(columns(run, "test"))
        assert trained | set(columns(run, "test")) == set(held)
        assert not (run.path / "data" / "train" / "validation").exists()
        assert run.stage("evaluate")["status"] == "done"
        assert (run.path / "report.html").is_file()


def test_the_codec_of_a_fold_saw_its_training_rows_only(
    done: tuple[Path, dict[str, Any]],
) -> None:
    """Law 11: the scale that was fitted is that of the train part, of no more and no less."""
    codecs = set()
    for n in (1, 2, 3):
        run = Run.open(done[0] / f"fold-{n}")
        codec: Any = prepared_codec(run)
        stored = open_shard(run.path / "data" / "train" / "train")
        examples = [
            codec.example({k: np.asarray(c[i]) for k, c in stored.items()})
            for i in range(rows_in(stored))
        ]
        assert len(examples) == done[1]["fold_runs"][n - 1]["train_rows"]
        assert fit_codec("vectors", examples, {}).save() == codec.save()
        codecs.add(json.dumps({k: v.hex() for k, v in codec.save().items()}))
    assert len(codecs) == 3
    assert len(run.read_json("data/waterfall.json")) == 3
    kept_out = run.read_json("data/waterfall.json")[1]["dropped"]["kept for the final test"]
    assert kept_out == 171


def test_the_result_is_the_mean_of_the_folds(done: tuple[Path, dict[str, Any]]) -> None:
    folder, result = done
    assert json.loads((folder / "crossval.json").read_text()) == json.loads(json.dumps(result))
    by_name = {measure["name"]: measure for measure in result["measures"]}
    accuracy = by_name["held-out accuracy"]
    assert set(by_name) == {"held-out accuracy", "held-out loss", "held-out calibration error"}
    evaluations = [
        json.loads((folder / f"fold-{n}" / "evaluation.json").read_text()) for n in (1, 2, 3)
    ]
    ours = [e["measures"][0]["rows"][0]["value"] for e in evaluations]
    row = accuracy["rows"][0]
    assert row["values"] == ours
    assert row["mean"] == pytest.approx(np.mean(ours))
    assert row["deviation"] == pytest.approx(np.std(ours, ddof=1))
    low, high = row["interval"]
    assert row["corrected"][0] < low < row["mean"] < high < row["corrected"][1]
    assert "Nadeau and Bengio" in result["caveat"]
    said = "\n".join(table_lines(result))
    assert f"{row['mean']:.4f}" in said
    assert all(re.search(rf"fold-{n} +\d+ +{ours[n - 1]:.4f}", said) for n in (1, 2, 3))
    assert "Nadeau" in said


def test_the_page_shows_every_fold_and_asks_for_nothing(
    done: tuple[Path, dict[str, Any]],
) -> None:
    page = (done[0] / "report.html").read_text()
    assert page.count('class="dot"') >= 6
    assert all(f">fold-{n}<" in page for n in (1, 2, 3))
    assert "<script" not in page
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page)
    assert "font:" in page  # the style sheet of the run's report


def test_what_is_done_is_kept(done: tuple[Path, dict[str, Any]]) -> None:
    folder, result = done
    before = {p: p.stat().st_mtime_ns for p in folder.glob("fold-*/checkpoints/**/*")}
    again = api.crossval(folder)
    assert again["measures"] == result["measures"]
    assert {p: p.stat().st_mtime_ns for p in folder.glob("fold-*/checkpoints/**/*")} == before


def test_other_settings_are_refused(done: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(ModelwrightError, match=r"other settings \(folds: 3 there, 4 here\)"):
        api.crossval("mlp-digits", *DIGITS, folds=4, out=done[0])
    with pytest.raises(ModelwrightError, match="--folds cannot change them"):
        api.crossval(done[0], folds=4)


@pytest.mark.parametrize(
    ("folds", "by", "said"),
    [(1, None, "at least 2"), (3, "groups", "did you mean 'group'")],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, folds: int, by: str | None, said: str) -> None:
    with pytest.raises(ModelwrightError, match=said):
        begin(read("mlp-digits"), tmp_path, None, folds, by)
    assert not list(tmp_path.iterdir())


def test_a_measure_that_a_fold_lacks_is_joined_from_the_others() -> None:
    def fold(**values: float) -> list[dict[str, Any]]:
        return [
            {"name": n, "unit": "u", "better": "lower", "rows": [{"who": "ours", "value": v}]}
            for n, v in values.items()
        ]

    first, second = summarised([fold(a=1.0, b=2.0), fold(a=3.0)], 1.0)
    assert first["rows"][0]["values"] == [1.0, 3.0]
    assert second["rows"][0]["values"] == [2.0, None]
    assert (second["rows"][0]["mean"], second["rows"][0]["count"]) == (2.0, 1)


def test_folds_at_once_follow_the_memory() -> None:
    free = free_memory_bytes()
    assert fitting(4, 1) == 4
    assert fitting(4, free) == 1
    assert fitting(4, int(free * 0.35)) == 2


def test_each_speaker_is_held_out_once(data: Any) -> None:
    """Spoken digits, grouped as `data.columns={group: speaker}` does; the test takes stay out."""
    rows = [{**r, "group": r["speaker"]} for r in read_rows("fsdd", path=data("fsdd"))]
    reserved = {r["id"] for r in rows if r["split"] == "test"}
    held = []
    for n in range(1, 6):
        splits, _ = fold_rows(rows, n, 5, "group", split_by="given")
        (speaker,) = {r["group"] for r in splits["test"]}
        assert len({r["group"] for r in splits["train"]} - {speaker}) == 4
        assert speaker not in {r["group"] for r in splits["train"]}
        assert reserved.isdisjoint(r["id"] for part in splits.values() for r in part)
        held.append(speaker)
    assert len(set(held)) == 5


def test_every_speaker_is_named_with_its_own_figure(data: Any, tmp_path: Path) -> None:
    small = ("budget=null", "train.steps=2", "train.threads=1", "model.depth=1", "model.width=16")
    some = (f"data.path={data('fsdd')}", "data.limit=500", "data.columns={group: speaker}")
    result = api.crossval(
        "digits-spoken", *small, *some, "evaluate.baselines=false", folds=5, by="group",
        out=tmp_path / "cv",
    )  # fmt: skip
    named = [fold["held_out"] for fold in result["fold_runs"]]
    assert sorted(named) == sorted({row["speaker"] for row in read_rows("fsdd", path=data("fsdd"))})
    values = result["measures"][0]["rows"][0]["values"]
    said = "\n".join(table_lines(result))
    for speaker, value in zip(named, values, strict=True):
        assert re.search(rf"{speaker} +\d+ +{value:.4f}", said)
        assert f">{speaker}<" in (tmp_path / "cv" / "report.html").read_text()


def test_rows_that_are_their_own_groups_are_not_listed(tmp_path: Path) -> None:
    rows = "\n".join(f"{i % 2 + i / 90},{'ab'[i % 2]}" for i in range(30))
    (tmp_path / "kinds.csv").write_text(f"width,kind\n{rows}\n")
    result = api.crossval(
        tmp_path / "kinds.csv", "task=vector_classification", "train.steps=1", "budget=null",
        "evaluate.baselines=false", folds=2, by="group", out=tmp_path / "cv",
    )  # fmt: skip
    assert [fold["held_out"] for fold in result["fold_runs"]] == ["", ""]
    assert re.search(r"fold-1 +\d+ ", "\n".join(table_lines(result)))


def test_killed_and_gone_on_with_in_processes(programs: Programs) -> None:
    """As processes: Ctrl-C stops all with the documented code, and a kill costs nothing."""
    begun = ("crossval", "tiny.yaml", "--folds", "2", "--jobs", "2", "--out", "runs/cv")
    program = programs.start(*begun, "tune=null", "data.split.by=row")
    program.until(lambda: "step-" in str(list(programs.cwd.glob("runs/cv/fold-1/checkpoints/*/*"))))
    program.signal(signal.SIGINT)
    assert program.wait() == 130
    assert the_line(program.said).endswith("continue with `modelwright crossval runs/cv`")
    program = programs.start("crossval", "runs/cv", "--jobs", "2")
    program.until(lambda: list(programs.cwd.glob("runs/cv/fold-2/checkpoints/*/*")))
    program.signal(signal.SIGKILL)
    assert program.wait() == -signal.SIGKILL
    said = programs.run("crossval", "runs/cv")  # waits for what the killed one left at work
    assert "held-out bits per byte" in said
    folds = [Run.open(programs.cwd / f"runs/cv/fold-{n}") for n in (1, 2)]
    assert all(r.stage("report") is not None and (r.path / "report.html").exists() for r in folds)
    lines = (folds[0].path / "metrics" / "train.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == sorted(steps)
    assert max(steps) == 40


def test_a_recipe_with_a_fold_is_refused() -> None:
    values = {"name": "x", "train": {"task": "vector_classification"}}
    fold = {"number": 3, "of": 2}
    with pytest.raises(ModelwrightError, match=r"data\.fold: number=3 is no fold of 2"):
        parse({**values, "data": {"source": "digits", "fold": fold}})
    made = parse({**values, "data": {"source": "digits", "fold": {"number": 1, "of": 2}}})
    with pytest.raises(ModelwrightError, match="take it out of the recipe"):
        begin(made, Path("nowhere"), None, 2, None)
