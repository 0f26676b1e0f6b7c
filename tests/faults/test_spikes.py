"""T10: a spike of the loss is found, and going around it is deterministic and recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelwright.training.guard import ENOUGH, Spikes
from tests.faults.injected import kill_after_going_back, lines, loss_of_batch, manifest
from tests.faults.test_nonfinite import ends
from tests.programs import Programs, serving

# Losses of whole runs of the shipped recipes (tests/slow/record_losses.py made the file): by
# stage, every step where the run is short, and stretches of 2,000 where it is long.
RECORDED: dict[str, list[list[float]]] = json.loads(
    (Path(__file__).parent / "losses.json").read_text()
)
SMOOTH = [k for k in RECORDED if k.startswith(("quickstart", "mlp-mnist-tuned"))]


def alarms(losses: list[float]) -> list[int]:
    """The steps at which the detector finds a spike."""
    spikes = Spikes()
    found = []
    for step, loss in enumerate(losses):
        if spikes.found(loss):
            found.append(step)
        spikes.add(loss)
    return found


@pytest.mark.parametrize("name", RECORDED)
def test_no_false_alarm_on_the_shipped_recipes(name: str) -> None:
    for losses in RECORDED[name]:
        assert alarms(losses) == []


def found_share(losses: list[float], factor: float) -> float:
    """The share of steps at which the loss times ``factor`` would be found."""
    spikes, found, tried = Spikes(), 0, 0
    for step, loss in enumerate(losses):
        if step >= ENOUGH:
            found += spikes.found(loss * factor)
            tried += 1
        spikes.add(loss)
    return found / tried


@pytest.mark.parametrize("factor", [10, 100])
@pytest.mark.parametrize("name", SMOOTH)
def test_every_tenfold_loss_is_found_where_losses_are_smooth(name: str, factor: float) -> None:
    for losses in RECORDED[name]:
        assert found_share(losses, factor) == 1.0


@pytest.mark.parametrize("name", RECORDED)
def test_ten_times_the_largest_recent_loss_is_always_found(name: str) -> None:
    """However noisy: where a batch of 16 scatters over decades, its own tenfold is ordinary."""
    for losses in RECORDED[name]:
        spikes = Spikes()
        for step, loss in enumerate(losses):
            if step >= ENOUGH:
                assert spikes.found(10 * max(spikes.losses))
            spikes.add(loss)


def test_losses_that_are_not_positive_are_compared_as_they_are() -> None:
    spikes = Spikes()
    for i in range(60):
        spikes.add(-3 + 0.1 * (i % 7))
    assert not spikes.found(-2.3)
    assert spikes.found(4.0)


# -- the whole program -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return serving(tmp_path_factory.mktemp("spikes"))


LONG = ("train", "tiny.yaml", "train.steps=50", "--out")


@pytest.mark.parametrize("factor", ["10", "100"])
def test_gone_around_and_repeated_after_a_kill(programs: Programs, factor: str) -> None:
    fault = loss_of_batch(42, factor)
    more = ("train.on_spike=rollback",)
    said = programs.run(*LONG, f"whole-{factor}", *more, before=fault)
    assert "train: went back from step 43 to step 40" in said
    whole = programs.cwd / f"whole-{factor}"
    (entry,) = manifest(whole)["departures"]
    assert {k: entry[k] for k in ("kind", "step", "to", "batches")} == {
        "kind": "rollback", "step": 42, "to": 40, "batches": 3,
    }  # fmt: skip
    out = f"killed-{factor}"
    killed = programs.start(*LONG, out, *more, before=fault + kill_after_going_back())
    assert killed.wait() == -9, killed.said
    programs.run(*LONG, out, *more, before=fault)
    assert ends(programs.cwd / out) == ends(whole)


def test_a_warning_changes_nothing(programs: Programs) -> None:
    """The default: said, marked in the log, and the step is taken."""
    fault = loss_of_batch(42, "10")
    for policy in ("warn", "off"):
        said = programs.run(*LONG, policy, f"train.on_spike={policy}", before=fault)
        assert ("train: step 43: spike" in said) == (policy == "warn")
        marked = [line["step"] for line in lines(programs.cwd / policy) if "spike" in line]
        assert marked == ([43] if policy == "warn" else [])
    left = [lines(programs.cwd / p)[-3]["loss"] for p in ("warn", "off")]
    assert left[0] == left[1]
