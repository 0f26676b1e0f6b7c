"""Who is missing: named from the signs of life that the processes leave in their store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from torch.distributed import HashStore

from modelwright.training.parallel import vigil
from modelwright.training.parallel.vigil import Vigil


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vigil, "BEAT", 0.02)
    monkeypatch.setattr(vigil, "SILENCE", 0.3)


@contextmanager
def watching(living: int, size: int) -> Iterator[list[Vigil]]:
    """Processes of which only the first ``living`` beat; every one has beaten once."""
    store = HashStore()
    every = [Vigil(store, rank, size, 60.0) for rank in range(size)]
    for one in every:
        one.beat()
    with ExitStack() as stack:
        for one in every[:living]:
            one.start()
            stack.callback(one.stop)
        yield every


def test_the_silent_one_is_named() -> None:
    with watching(2, 3) as every:
        said = every[0].missing()
    assert said.startswith("rank 2 (process ")
    assert "gives no sign of life: killed or stopped" in said


def test_the_one_that_comes_no_further_is_named() -> None:
    with watching(3, 3) as every:
        for one in (every[0], every[2]):
            with one.waiting("sum"):
                pass
        with every[0].waiting("sum"), every[2].waiting("sum"):
            for one in every:
                one.beat()
            said = every[0].missing()
    assert said.startswith("rank 1 (process ")
    assert "working (after start)) lives but comes no further" in said


def test_nobody_is_blamed_when_all_go_on() -> None:
    with watching(3, 3) as every, ExitStack() as stack:
        for one in every:
            stack.enter_context(one.waiting("sum"))
            one.beat()
        said = every[0].missing()
    assert "waits in sum, and all processes live" in said
