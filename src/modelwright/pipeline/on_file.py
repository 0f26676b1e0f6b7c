"""A trained run measured on a file of the user's own: ``modelwright evaluate RUN --on FILE``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from modelwright.data.sources import read_rows
from modelwright.data.waterfall import whole_rows
from modelwright.errors import ModelwrightError
from modelwright.pipeline import graded, labelled, written
from modelwright.pipeline.answering import Answerer, answerer_of
from modelwright.pipeline.answering.comparing import Preferring
from modelwright.pipeline.answering.embedding import Embedding
from modelwright.pipeline.answering.predicting import Predicting
from modelwright.pipeline.answering.writing import Writing
from modelwright.pipeline.compared import preferred
from modelwright.pipeline.fitted import Fitted, load_fitted, newest_checkpoint
from modelwright.pipeline.likelihood import on_documents
from modelwright.pipeline.predicted import Known, together
from modelwright.pipeline.prepare import Say, renamed
from modelwright.runs import Run
from modelwright.tasks.task import Task
from modelwright.types import Encoded, Example, Row, Shortened, stack, text_turn

MOST = 100_000  # rows of a file


def evaluate_on(
    run: Run, source: str, say: Say, stage: str | None = None, *, by: Sequence[str] = ()
) -> dict[str, Any]:
    """Measure the newest model of a run on the rows of a file, with slices and the worst answers.

    What is measured is what the run's own evaluation measures, without its baselines of answers;
    of models that were taught which answers are better, the preference accuracy; of models of
    documents, the bits per byte of any text; of embeddings, what they find among its texts. The
    run's evaluation and its graded answers stay as they are; those of the file are written to
    ``graded/on-FILE.jsonl`` by its name, where two runs are compared on them (``paired``).

    Args:
        run: trained.
        source: a file of rows as those of the recipe, or a data set.
        say: told what is left out.
        stage: "train" or "tune"; left out: the last that was trained.
        by: columns of the file by which grades are also reported, beside those that the recipe
            names under ``evaluate.slices`` and the file has.

    Raises:
        ModelwrightError: no row gives an example, the task neither grades answers nor reads
            documents nor embeds, or a row has something that training has never seen, such as a
            class; or it has no column ``by``, or the task's answers are not graded one by one.
    """
    fitted = load_fitted(newest_checkpoint(run, stage))
    task, answerer = fitted.task, answerer_of(fitted)
    reads = task.stream and isinstance(answerer, Writing)  # a text is measured, not answers
    if type(task).grade is Task.grade and not (reads or isinstance(answerer, Embedding)):
        raise ModelwrightError(
            f"{run.path}: its task grades no single answers, so it cannot be measured on a file;"
            " `modelwright evaluate` measures it on its own test part"
        )
    pairs_of, left_out = _examples(run, task, source)
    examples = [example for _, example in pairs_of]
    if not isinstance(answerer, Preferring):  # which reads bad answers as well
        good = [e for e in examples if any(turn.learn for turn in e.turns)]
        if examples and not good:
            raise ModelwrightError(
                f"{source}: its rows have bad answers only, with which this run's answers cannot be"
                " compared; give rows with good ones"
            )
        if bad := len(examples) - len(good):
            left_out["since a bad answer alone is nothing to compare with"] = bad
            pairs_of = [(r, e) for r, e in pairs_of if any(turn.learn for turn in e.turns)]
        examples = good
    for reason, count in left_out.items():
        say(f"evaluate: {count:,} rows of {source} left out, {reason}")
    if not examples:
        raise ModelwrightError(
            f"{source}: no row gives an example for the run's task; its columns must be those of"
            " the recipe"
        )
    if by and (reads or isinstance(answerer, Embedding | Preferring)):
        raise ModelwrightError(
            f"--by {by[0]}: answers of this run's task are not graded one by one; leave it out"
        )
    result: dict[str, Any] = {"on": source, "measures": [], "examples": []}
    if reads:
        say(f"evaluate: bits per byte of {len(examples):,} texts of {source}")
        pairs = _encoded(fitted, examples, source)
        on_documents(run, fitted, pairs, source=source, stage=_name(source), result=result)
    elif isinstance(answerer, Embedding):
        _cut(
            source,
            sum(isinstance(e, Shortened) for _, e in _encoded(fitted, examples, source)),
            say,
        )
        answerer.found(run, source, examples, result, say)
    elif isinstance(answerer, Preferring):
        columns = stack([one for _, one in _encoded(fitted, examples, source)], fitted.codec.ragged)
        name = fitted.path.parent.name
        preferred(run, name, _name(source), columns, fitted=fitted, result=result, say=say)
    else:
        rows = [row for row, _ in pairs_of]
        own = [c for c in run.recipe.evaluate.slices if all(c in row for row in rows)]
        names = list(dict.fromkeys((*own, *by)))
        beside = graded.beside_of(names, task, examples, rows, f"{source}: --by")
        more: dict[str, Any] = {"beside": beside, "result": result, "say": say}
        _answered(run, fitted, answerer, examples, source=source, **more)
    for measure in result["measures"]:
        measure["name"] = measure["name"].removeprefix("test ")
        say(f"evaluate: {measure['name']}: {measure['note']}")
    return result


def _answered(
    run: Run,
    fitted: Fitted,
    answerer: Answerer,
    examples: list[Example],
    *,
    source: str,
    beside: graded.Beside,
    result: dict[str, Any],
    say: Say,
) -> None:
    """Ask the model all of the examples and grade its answers, as the run's own evaluation does."""
    task, cut = fitted.task, 0
    meant: list[str] = []  # of codecs that number a label
    for example, encoded in _encoded(fitted, examples, source):
        cut += isinstance(encoded, Shortened)
        if "label" in encoded and isinstance(answerer, Predicting):
            meant.append(example.answer.label)
    _cut(source, cut, say)
    say(f"evaluate: {len(examples):,} answers on {source}")
    if isinstance(answerer, Writing):
        said = written.generate(fitted, examples, run.recipe.evaluate, say)
        turns = [text_turn("assistant", text) for text in said]
    else:
        turns = answerer.answer([example.given for example in examples])
    if meant:
        said = [turn.label for turn in turns]
        labelled.beside(_name(source), fitted, meant, {"ours": said}, result)
    if not meant or type(task).measures is not Task.measures:
        result["measures"] += together(task, examples, {"ours": Known(turns)})
    pairs = list(zip(examples, turns, strict=True))
    graded.keep(run, _name(source), task, pairs, result, beside=beside)


def _cut(source: str, count: int, say: Say) -> None:
    if count:
        say(f"evaluate: {count:,} of {source} are longer than the codec reads, and were cut")


def _encoded(
    fitted: Fitted, examples: Iterable[Example], source: str
) -> Iterator[tuple[Example, Encoded]]:
    """Every example and what the codec makes of it; a class that train lacks is refused by name."""
    for number, example in enumerate(examples, start=1):
        try:
            encoded = fitted.codec.encode(example)
        except ModelwrightError as error:
            raise ModelwrightError(f"{source}: example {number}: {error}") from error
        yield example, encoded


def _examples(
    run: Run, task: Task, source: str
) -> tuple[list[tuple[Row, Example]], dict[str, int]]:
    """The examples of a file's rows with these, and how many rows gave none, by reason."""
    examples: list[tuple[Row, Example]] = []
    whole, lost = whole_rows(islice(read_rows(source), MOST))
    left_out = dict(Counter(one.reason for one in lost))
    for row in whole:
        found = task.examples(renamed(row, run.recipe.data.columns))
        if isinstance(found, str):
            left_out[found] = left_out.get(found, 0) + 1
        else:
            examples.extend((row, example) for example in found)
    return examples, left_out


def _name(source: str) -> str:
    stem = Path(source).name.partition(".")[0]
    return graded.ON + "".join(c if c.isalnum() or c in "-_" else "-" for c in stem)[:60]
