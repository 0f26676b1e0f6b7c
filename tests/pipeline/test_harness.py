"""lm-evaluation-harness asks our engine: likelihoods by the formula, own tasks, refusals."""

from __future__ import annotations

import json

import pytest
import torch

from modelwright import api
from modelwright.cli import main
from modelwright.errors import ModelwrightError
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from modelwright.pipeline.harness import Scorer, benchmark
from tests.exporting import tiny_runs

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.filterwarnings("ignore")  # of their library

CHOICE = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{file}"}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
num_fewshot: 0
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
WRITE = """
task: tiny_write
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{file}"}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{written}}}}"
generation_kwargs: {{max_gen_toks: 6, do_sample: false, until: []}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
ROLLING = """
task: tiny_rolling
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{file}"}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}}"
metric_list: [{{metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}}]
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("harness")
    made = tiny_runs.RECIPES["decoder"](folder / "data")
    return api.train({"name": "tiny", "seed": 1, **made}, out=folder / "runs" / "tiny")


@pytest.fixture(scope="module")
def fitted(run):
    return load_fitted(newest_checkpoint(run))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory, fitted):
    """A folder of three tasks over questions whose right answers are the model's own."""
    folder = tmp_path_factory.mktemp("tasks")
    model, rows = api.Model(fitted), []
    for i in range(6):
        question = f"import os\nvalue_{i} = "
        choices = ["os.path", "[1, 2]", "zzz qqq"]
        best = max(range(3), key=lambda c: by_hand(fitted, question, choices[c]))
        written = model.complete(question, max_tokens=6, temperature=0.0)
        answer = best if i % 2 else (best + 1) % 3  # every other one is wrong on purpose
        rows.append(
            {"question": question, "choices": choices, "answer": answer, "written": written}
        )
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in (("choice", CHOICE), ("write", WRITE), ("rolling", ROLLING)):
        (folder / f"{name}.yaml").write_text(text.format(file=file))
    return folder


def by_hand(fitted, context: str, after: str) -> float:
    """log p(after | context) from one plain pass of the model."""
    codec = fitted.codec
    whole = codec.tokens(context + after)
    first = len(codec.tokens(context))
    with torch.no_grad():
        scores = fitted.model(torch.tensor([whole])).float().log_softmax(-1)[0]
    return sum(float(scores[i - 1, whole[i]]) for i in range(first, len(whole)))


def test_likelihoods_are_those_of_one_pass(fitted):
    codec, scorer = fitted.codec, Scorer(fitted)
    pairs, meant = [], []
    for context, after in (("import os\n", "def f"), ("a = ", "1"), ("def ", "g(x):\n    return")):
        whole, first = codec.tokens(context + after), len(codec.tokens(context))
        pairs.append((whole[:first], whole[first:]))
        meant.append(by_hand(fitted, context, after))
    found = scorer.scores(pairs)
    assert [one.value for one in found] == pytest.approx(meant, rel=1e-4, abs=1e-4)
    said = api.Model(fitted).complete("import os\n", max_tokens=3, temperature=0.0)
    likeliest = codec.tokens("import os\n" + said)
    first = len(codec.tokens("import os\n"))
    if codec.tokens("import os\n") == likeliest[:first]:
        assert scorer.scores([(likeliest[:first], likeliest[first:])])[0].greedy
    assert not all(one.greedy for one in found)
    long = list(range(5, 15)) * 40  # cut at its beginning to what the context holds
    assert scorer.scores([(long, [7, 8])])[0].value < 0


def test_tasks_of_ones_own_are_scored(fitted, tasks):
    names = ["tiny_choice", "tiny_write", "tiny_rolling"]
    found = {one.task: one for one in benchmark(fitted, names, include=tasks, say=lambda _: None)}
    assert found["tiny_choice"].value == 0.5
    assert found["tiny_write"].value == 1.0
    assert found["tiny_rolling"].measure == "bits_per_byte"
    assert found["tiny_rolling"].better == "lower" and 0 < found["tiny_rolling"].value < 20
    assert all(one.examples == 6 for one in found.values())
    (two,) = benchmark(fitted, ["tiny_choice"], include=tasks, limit=2, say=lambda _: None)
    assert two.examples == 2


def test_the_command_prints_and_keeps_the_scores(run, tasks, tmp_path, capsys):
    out = tmp_path / "scores.json"
    words = ["benchmark", str(run.path), "tiny_choice", "--include", str(tasks), "--out", str(out)]
    assert main(words) == 0
    assert "tiny_choice  acc" in capsys.readouterr().out
    (row,) = json.loads(out.read_text())
    assert row["value"] == 0.5 and row["examples"] == 6
    assert main(["benchmark", str(run.path), "tiny_choise", "--include", str(tasks)]) == 2
    assert "did you mean 'tiny_choice'" in capsys.readouterr().err


def test_what_does_not_write_is_refused(tmp_path):
    made = tiny_runs.RECIPES["mlp"](tmp_path / "data")
    other = api.train({"name": "tiny", "seed": 1, **made}, out=tmp_path / "run")
    with pytest.raises(ModelwrightError, match="models that write"):
        Scorer(load_fitted(newest_checkpoint(other)))
