"""Translation and summaries: which columns are read, what leaves, and the customary measures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from modelwright.data.sources import read_rows
from modelwright.errors import CorruptError, MachineError, ModelwrightError
from modelwright.tasks import scores
from modelwright.tasks.grading import sentences
from modelwright.tasks.summarization import Summarization
from modelwright.tasks.task import Constant, Task, make_task
from modelwright.tasks.translation import Translation
from modelwright.types import Example, Row, text_turn


def read(task: Task, row: Row) -> tuple[str, str]:
    found = task.examples({"id": "1", **row})
    assert not isinstance(found, str), found
    (example,) = found
    return example.given[0].text, example.answer.text


def example(source: str, target: str) -> Example:
    return Example((text_turn("user", source), text_turn("assistant", target, learn=True)))


@pytest.mark.parametrize(
    ("name", "options", "row", "said"),
    [
        ("translation", {}, {"source": "a", "target": "b", "note": "c"}, ""),
        ("translation", {}, {"tgt": "b", "src": "a"}, "'src'"),
        ("translation", {}, {"german": "a", "english": "b"}, "'german'"),
        ("translation", {"source": "de", "target": "en"}, {"en": "b", "fr": "c", "de": "a"}, ""),
        ("translation", {"target": "en"}, {"en": "b", "de": "a"}, "'de'"),
        ("translation", {"source": "de"}, {"target": "b", "de": "a", "n": 3}, ""),
        ("summarization", {}, {"text": "a", "summary": "b", "title": "c"}, "'text'"),
        ("summarization", {}, {"highlights": "b", "article": "a", "id": "7"}, "'article'"),
    ],
)
def test_columns_are_guessed_and_said_or_named(
    name: str, options: dict[str, str], row: Row, said: str
) -> None:
    task = make_task(name, options)
    assert read(task, row) == ("a", "b")
    assert said in task.reads(row)
    assert bool(task.reads(row)) == bool(said)


@pytest.mark.parametrize(
    ("options", "row", "why"),
    [
        ({}, {"a": "x", "b": "y", "c": "z"}, "cannot be guessed; it has: a, b, c"),
        ({"source": "dee", "target": "en"}, {"de": "x", "en": "y"}, "did you mean 'de'"),
        ({}, {"source": 3, "target": "y"}, "holds '3', not a text"),
        ({}, {"source": ["x", 2], "target": "y"}, "not a text"),
    ],
)
def test_what_cannot_be_read_is_named(options: dict[str, str], row: Row, why: str) -> None:
    with pytest.raises(ModelwrightError, match=why):
        make_task("translation", options).examples({"id": "r", **row})


@pytest.mark.parametrize("empty", ["", "  \n", None, []])
def test_rows_without_a_side_leave_with_the_reason(empty: object) -> None:
    assert Translation().examples({"source": empty, "target": "b"}) == "no source"
    assert Translation().examples({"source": "a", "target": empty}) == "no target"


def test_lists_are_sentences_of_a_source_and_several_targets() -> None:
    row = {"source": ["One.", "Two."], "target": ["first", "second"]}
    assert read(Summarization(), row) == ("One. Two.", "first")


def test_scores_are_those_of_the_libraries() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    references = ["A dog runs across the meadow.", "Two men talk.", "The boy reads a book."]
    answers = ["A dog is running over the meadow.", "Two men talk.", "A boy with a book."]
    examples = [example("x", r) for r in references]

    class Said:
        def answer(self, given: object) -> list[object]:
            return [text_turn("assistant", a) for a in answers]

    bleu, chrf = Translation().measures(examples, Said())  # type: ignore[arg-type]
    assert bleu.value == pytest.approx(sacrebleu.corpus_bleu(answers, [references]).score)
    assert chrf.value == pytest.approx(sacrebleu.corpus_chrf(answers, [references]).score)
    assert "tok:13a" in bleu.note and "95 % within" in bleu.note
    assert Translation().grade(examples[1], text_turn("assistant", "Two men talk.")) == 100
    rouge = pytest.importorskip("rouge_score.rouge_scorer")
    scorer = rouge.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    theirs = [scorer.score(r, a) for r, a in zip(references, answers, strict=True)]
    for found, kind in zip(
        Summarization().measures(examples, Said()),  # type: ignore[arg-type]
        ("rouge1", "rouge2", "rougeL"),
        strict=True,
    ):
        assert found.value == pytest.approx(sum(t[kind].fmeasure for t in theirs) / 3)


def test_chinese_is_measured_by_its_characters() -> None:
    references, answers = ["我喜欢读书。", "他们在公园里。"], ["我喜欢看书。", "他们在公园里。"]
    bleu = scores.bleu(references, answers)
    assert "tok:zh" in bleu.note
    assert bleu.value > 40
    assert scores.rouge_f1(references[0], answers[0])["rouge1"] == pytest.approx(4 / 5)


def test_trivial_answers() -> None:
    train = [example("One. Two! Three? Four.", "b")]
    (copy,) = Translation().baselines(train).values()
    assert copy.answer([e.given for e in train])[0].text == train[0].given[0].text
    ((name, lead),) = Summarization().baselines(train).items()
    assert name == "first 3 sentences"
    assert lead.answer([e.given for e in train])[0].text == "One. Two! Three?"
    assert isinstance(Task.baselines(Translation(), train)["most common answer"], Constant)
    with pytest.raises(ModelwrightError, match="lead 0 is below 1"):
        Summarization(lead=0)


def test_sentences() -> None:
    assert sentences("It is 3.5 m. So?  Yes!") == ["It is 3.5 m.", "So?", "Yes!"]
    assert sentences("一。二！三？") == ["一。", "二！", "三？"]


@pytest.mark.parametrize(
    ("module", "of"), [("sacrebleu", "BLEU"), ("rouge_score.rouge_scorer", "ROUGE")]
)
def test_a_library_that_is_absent_is_named(
    module: str, of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    scores._sentence.cache_clear()
    scores._rouge.cache_clear()
    with pytest.raises(MachineError, match=rf"{of}.*pip install 'modelwright\[text\]'"):
        scores.bleu(["a"], ["a"]) if of == "BLEU" else scores.rouge(["a"], ["a"])


def test_multi30k_is_read_with_its_own_parts(data: Callable[[str], Path]) -> None:
    rows = read_rows("multi30k", path=data("multi30k"))
    first = next(rows)
    assert first["split"] == "train" and first["id"] == "train:1"
    assert first["de"].startswith("Zwei junge weiße Männer") and first["en"].startswith("Two young")
    later = list(islice(rows, 28_990, None))
    assert [r["split"] for r in (later[-1], later[-1500])] == ["test", "validation"]
    assert read(make_task("translation", {"source": "de", "target": "en"}), first)[1] == first["en"]


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    with pytest.raises(ModelwrightError, match=r"no train\.de\.gz"):
        list(read_rows("multi30k", path=tmp_path))
    (tmp_path / "train.de").write_text("eins\nzwei\n")
    (tmp_path / "train.en").write_text("one\n")
    with pytest.raises(CorruptError, match="lines of train differ"):
        list(read_rows("multi30k", path=tmp_path))
