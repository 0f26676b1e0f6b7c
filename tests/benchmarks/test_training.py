from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import run, training
from benchmarks.training import data, measure, throughput, time_to_loss
from benchmarks.training.clock import Clock
from benchmarks.training.peers import checkouts, nanogpt
from benchmarks.training.shapes import SHAPES
from modelwright.errors import MachineError, ModelwrightError
from modelwright.models import decoder
from modelwright.recipe import Stage

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "benchmarks" / "training"


def test_flops_are_those_of_the_formula_by_hand() -> None:
    # 4 blocks of 12 * 256^2 weights, a head of 65 * 256, attention 12 * 4 * 256 * 256.
    assert SHAPES["S"].flops_per_token == 6 * (4 * 12 * 65536 + 65 * 256) + 12 * 4 * 65536


def test_our_model_has_the_products_that_the_formula_counts() -> None:
    shape = SHAPES["S"]
    config = decoder.Config(
        vocabulary=shape.vocabulary,
        depth=shape.depth,
        width=shape.width,
        heads=shape.heads,
        kv_heads=shape.heads,
        hidden=4 * shape.width,
        context=shape.context,
    )
    head = shape.vocabulary * shape.width
    assert config.matrix_parameters() + head == shape.product_parameters


def test_contenders_are_measured_in_turns_and_the_order_turns_around() -> None:
    order: list[str] = []
    names = ("a", "b", "c")
    scripts = {n: lambda n=n: order.append(n) or {"value": len(order)} for n in names}
    results = measure.in_turns(scripts, 3)
    assert "".join(order) == "abccbaabc"
    assert [r["value"] for r in results["b"]] == [2, 5, 8]
    with pytest.raises(ModelwrightError, match="repeats=0"):
        measure.in_turns(scripts, 0)


def done(stdout: str, stderr: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(["x"], code, stdout, stderr)


def test_the_last_line_of_json_counts_and_a_failure_is_named() -> None:
    found = measure.parsed("x", done('{"loss": 1}\nstep 1\n{"tokens": 8}\nbye\n'))
    assert found == {"tokens": 8}
    with pytest.raises(MachineError, match=r"x failed \(exit 3\), its last line: no memory"):
        measure.parsed("x", done('{"tokens": 8}', "hm\nno memory\n", 3))
    with pytest.raises(MachineError, match="its last line: step 1"):
        measure.parsed("x", done("step 1\n"))


def test_a_paused_clock_stands_still() -> None:
    clock = Clock()
    before = clock.now()
    with clock.paused():
        time.sleep(0.3)
    assert 0 <= clock.now() - before < 0.3


def test_a_report_leaves_out_the_warm_up(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    clock.stamps, clock.losses = [2.0, 7.0, 8.0, 9.5, 10.5], [4.0, 3.0, 2.0, 1.0]
    clock.report(2, 100, accuracy=0.5)
    printed = json.loads(capsys.readouterr().out)
    assert (printed["tokens"], printed["seconds"]) == (200, 2.5)
    assert printed["start_up_seconds"] == 2.0
    assert printed["compile_seconds"] == 5.0 - 1.25  # the first step, less a usual one
    assert printed["losses"] == [4.0, 1.0]
    assert printed["accuracy"] == 0.5
    assert printed["peak_bytes"] > 1 << 20
    with pytest.raises(SystemExit, match="nothing to measure"):
        clock.report(4, 100)


@given(st.integers(0, 1000))
def test_documents_have_the_lengths_they_promise(seed: int) -> None:
    lengths = [len(d) for d in data.documents(50, 40, seed)]
    assert len(lengths) == 40
    assert min(lengths) >= 8
    assert max(lengths) <= data.LONGEST


def test_many_documents_have_the_promised_mean_and_median() -> None:
    lengths = [len(d) for d in data.documents(50, 4000, 1)]
    assert abs(np.mean(lengths) / data.MEAN - 1) < 0.05
    assert abs(np.median(lengths) / data.MEDIAN - 1) < 0.05


def test_a_stream_is_determined_by_its_seed_and_has_something_to_learn() -> None:
    stream = data.stream(100, 20_000, 1)
    assert np.array_equal(stream, data.stream(100, 20_000, 1))
    assert not np.array_equal(stream, data.stream(100, 20_000, 2))
    follows = np.random.default_rng(0).permutation(100)
    share = np.mean(stream[1:] == follows[stream[:-1]])
    assert 0.45 < share < 0.6  # half is determined, some of the rest is so by chance


def test_the_split_of_the_characters_is_the_one_compared_on() -> None:
    try:
        train, validation = data.shakespeare()
    except MachineError as error:
        pytest.skip(str(error))
    assert (len(train), len(validation)) == (1_003_854, 111_540)
    assert max(train.max(), validation.max()) + 1 == nanogpt.README.vocabulary


@pytest.mark.parametrize("target", ["1.885", "1.60", "1.50"])
def test_the_recipe_of_every_target_has_fields_that_exist(target: str) -> None:
    settings = yaml.safe_load((HERE / "shakespeare.yaml").read_text(encoding="utf-8"))[target]
    config = decoder.Config(vocabulary=65, **settings["model"])
    stage = Stage(task="documents", **settings["train"])
    assert settings["model"].items() <= vars(config).items()
    assert settings["train"].items() <= stage.model_dump().items()


def test_our_script_prints_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")  # compiling is torch's, and takes a minute
    result = measure.script("ours", "speed", "--shape", "tiny", "--warmup", 1, "--steps", 2)()
    assert result["tokens"] == 2 * SHAPES["tiny"].tokens
    assert result["seconds"] > 0
    assert result["start_up_seconds"] > 0
    assert all(np.isfinite(result["losses"]))


def test_a_script_that_fails_is_named() -> None:
    with pytest.raises(MachineError, match=r"nanogpt speed --shape huge failed .*invalid choice"):
        measure.script("peers.nanogpt", "speed", "--shape", "huge")()


def test_the_changes_to_nanogpt_are_made_once_or_refused() -> None:
    source = "".join(f"{old}\n" for old in nanogpt.CHANGES)
    changed = nanogpt.changed(source)
    assert all(new in changed for new in nanogpt.CHANGES.values())
    with pytest.raises(MachineError, match="0 times"):
        nanogpt.changed(source.replace("SEED", "").replace("torch.manual_seed", "seed"))
    with pytest.raises(MachineError, match="2 times"):
        nanogpt.changed(source + next(iter(nanogpt.CHANGES)))


def test_a_peer_is_taken_at_its_commit_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(checkouts.GIVEN, str(tmp_path))
    with pytest.raises(MachineError, match="no folder nanoGPT"):
        checkouts.checkout("nanoGPT")
    home = tmp_path / "nanoGPT"
    git = ("git", "-C", str(home), "-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", "init", "-q", str(home)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    with pytest.raises(MachineError, match="the comparison is with 3adf61e"):
        checkouts.checkout("nanoGPT")
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    monkeypatch.setitem(checkouts.COMMITS, "nanoGPT", head.stdout.strip())
    assert checkouts.checkout("nanoGPT") == home.resolve()


def result(rate: float, peak: float = 1.0) -> measure.Result:
    return {"tokens": rate * 10, "seconds": 10.0, "peak_bytes": peak * 2**30}


def test_rows_of_throughput_compare_what_is_alike() -> None:
    results = {
        "ours": [result(r, 0.5) for r in (300, 100, 200)],
        "ours with Muon": [result(150)],
        "nanoGPT (bf16, compiled)": [result(160)],
        "nanochat (bf16, compiled, Muon)": [result(100)],
        "HF Trainer (bf16)": [result(150, 1.0)],
    }
    ceiling = 200 * SHAPES["L"].flops_per_token / 0.74
    rows = {r.question: r for r in throughput.shape_rows("L", results, ceiling)}
    assert [r.holds for r in rows.values()] == [True, True, False, False, True]
    assert rows["L: tokens/s against nanochat (bf16, compiled, Muon)"].ours == 150
    assert rows["L: model GFLOP/s against the bf16 product ceiling"].ratio == pytest.approx(0.74)
    assert rows["L: peak GiB against HF Trainer"].ratio == 0.5


def test_a_run_that_misses_its_target_does_not_hold_however_fast() -> None:
    def run(wall: float, reached: bool) -> measure.Result:
        return {"wall_seconds": wall, "reached": reached, "loss": 1.6}

    peer = [run(100, True)] * 2
    assert time_to_loss.judged("1.60", "x", [run(20, True), run(30, True)], peer).holds
    assert not time_to_loss.judged("1.60", "x", [run(20, True), run(10, False)], peer).holds
    assert not time_to_loss.judged("1.60", "x", [run(20, True), run(31, True)], peer).holds


def test_unknown_parts_are_refused_and_absent_peers_fail_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(run.ONLY, "mnits")
    with pytest.raises(ModelwrightError, match="mnits"):
        training.questions(True)
    monkeypatch.setenv(run.ONLY, "mnist")
    monkeypatch.setenv("MODELWRIGHT_DATA", str(tmp_path))
    (row,) = training.questions(True)
    assert not row.holds
    assert "no data set mnist" in str(row.peer)


def test_the_peers_move_none_of_our_pins() -> None:
    def pins(path: Path) -> dict[str, str]:
        lines = re.findall(r"^([\w.-]+)==(\S+)", path.read_text(encoding="utf-8"), re.M)
        return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in lines}

    ours, peers = pins(ROOT / "constraints.txt"), pins(HERE / "requirements.txt")
    assert all(ours[name] == peers[name] for name in ours.keys() & peers.keys())
    assert "torch" not in peers


def test_a_peer_starts_without_paying_for_us() -> None:
    code = "import benchmarks.training.data, sys; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ, check=False)
    assert done.returncode == 0  # 1: torch was loaded
