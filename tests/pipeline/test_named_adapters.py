"""Several adapters of one base: by name, weighted, out again to the bit; others are refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelwright import api
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.pipeline.export import export
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from tests.exporting import tiny_runs

ADAPTERS = {
    "one": {"rank": 4},
    "two": {"rank": 2, "dora": True, "trained": ["norm"]},
    "low": {"rank": 4, "quantize": "nf4"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folders of a base, of three adapters trained on it, and of one of another base."""
    folder = tmp_path_factory.mktemp("named")
    made = tiny_runs.RECIPES["decoder"](folder / "data")
    tune = {k: v for k, v in made["train"].items() if k not in ("optimizer", "learning_rate")}

    def recipe_of(name, adapter, rate=0.02):
        stage = {**tune, "adapter": adapter, "learning_rate": 0.02}
        train = {**made["train"], "learning_rate": rate}
        return {"name": f"named-{name}", "seed": 1, **made, "train": train, "tune": stage}

    # The same seed trains the same base in each of the runs, to the bit.
    runs = {n: api.tune(recipe_of(n, a), out=folder / n) for n, a in ADAPTERS.items()}
    api.tune(recipe_of("other", ADAPTERS["one"], rate=0.021), out=folder / "other")
    export(runs["one"], folder / "peft", lambda _: None, to="peft")
    return folder


def state(model):
    return {n: t.clone() for n, t in model.fitted.model.state_dict().items()}


def same(one, other):
    return all(torch.equal(t, other[n]) for n, t in one.items())


@pytest.fixture(scope="module")
def base(place):
    model = api.load(str(place / "one"), "train")
    for name in ADAPTERS:
        model.add_adapter(name, place / name)
    return model.add_adapter("peft", place / "peft")


def test_a_named_one_is_what_its_run_serves(place, base):
    before = state(base.adapter(None))
    for name in ADAPTERS:
        theirs = load_fitted(newest_checkpoint(api.existing(str(place / name)), "tune"))
        assert same(state(base.adapter(name)), theirs.model.state_dict())
        assert not same(state(base), before)
        own = api.Model(theirs).complete("import ", max_tokens=12, temperature=0.0)
        assert base.complete("import ", max_tokens=12, temperature=0.0) == own
    assert same(state(base.adapter(None)), before)
    assert base.adapters == [*ADAPTERS, "peft"]


def test_one_in_pefts_format_is_the_same_adapter(base):
    one, peft = state(base.adapter("one")), state(base.adapter("peft"))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, peft[name], rtol=1e-6, atol=1e-6)


@given(st.dictionaries(st.sampled_from(sorted(ADAPTERS)), st.floats(-2, 2), max_size=3))
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_shares_add_up_and_the_base_comes_back(base, shares):
    before = state(base.adapter(None))
    alone = {name: state(base.adapter(name)) for name in shares}
    mixed = state(base.adapter(shares))
    for name, tensor in before.items():
        wanted = tensor + sum(s * (alone[n][name] - tensor) for n, s in shares.items())
        torch.testing.assert_close(mixed[name], wanted, rtol=1e-5, atol=1e-6)
    assert same(state(base.adapter(None)), before)


def test_a_tuned_run_lets_go_of_its_adapter(place):
    tuned, base = api.load(str(place / "low")), api.load(str(place / "one"), "train")
    merged = state(tuned)
    assert tuned.adapters == ["tune"] and same(state(tuned), merged)
    assert same(state(tuned.adapter(None)), state(base))
    assert same(state(tuned.adapter("tune")), merged)


def test_what_cannot_be_is_refused_and_changes_nothing(place, base):
    before = state(base.adapter("one"))
    with pytest.raises(CorruptError, match="trained on another base"):
        base.add_adapter("other", place / "other")
    with pytest.raises(ModelwrightError, match="there is one already"):
        base.add_adapter("one", place / "two")
    with pytest.raises(ModelwrightError, match="did you mean 'two'"):
        base.adapter("twoo")
    with pytest.raises(ModelwrightError, match="not tuned with an adapter"):
        base.add_adapter("plain", newest_checkpoint(api.existing(str(place / "one")), "train"))
    assert same(state(base), before)


def test_randomness_of_others_is_not_touched(base):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    base.adapter("one").adapter({"two": 0.5, "one": 0.5}).adapter(None)
    assert torch.equal(torch.rand(3), wanted)
