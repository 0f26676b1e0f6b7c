"""Stage prepare: source -> rows -> clean -> deduplicated -> split -> examples -> shards.

Every step says how many rows came in, went out and were dropped and why (law 10); the codec is
fitted on the train split only (law 11). The stage is skipped while its inputs, the recipe's
data part and the code that prepares are the same.
"""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.data.clean import clean_rows
from modelwright.data.codecs import fit_codec, load_codec, save_codec
from modelwright.data.dedup import content_key, drop_duplicates
from modelwright.data.folds import fold_rows
from modelwright.data.inputs import hash_files, input_hashes
from modelwright.data.shards import open_shard, write_shard
from modelwright.data.sources import read_rows
from modelwright.data.split import PARTS, PLAYERS, leakage_audit, split_rows
from modelwright.data.waterfall import Dropped, Waterfall, drop, notes_of, whole_rows
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.extensions import short
from modelwright.files import replace_file
from modelwright.pipeline import graded, raw_samples, shown, weights
from modelwright.pipeline.corpora import prepare_tokens, token_inputs, tokens_of
from modelwright.pipeline.drawn_labels import draw_labels
from modelwright.pipeline.pinned import Pinned, pinned
from modelwright.recipe import Also, Recipe, Stage
from modelwright.runs import Run, fingerprint, source_hash
from modelwright.tasks.task import Task, make_task
from modelwright.types import Codec, Encoded, Example, Ragged, Row, Shortened

Say = Callable[[str], None]
NAMED = 20  # groups of a part that are named


def prepare(run: Run, say: Say) -> None:
    """Prepare the data of all stages of the run's recipe, unless that is done."""
    data = run.recipe.data
    corpus = tokens_of(run.recipe)
    say(f"prepare: hashing {short(data.source)}")
    inputs = input_hashes(data.source, data.path) if corpus is None else token_inputs(corpus)
    if data.also:
        also = input_hashes(data.also.source, data.also.path)
        inputs |= {f"also {name}": found for name, found in also.items()}
    if file := run.recipe.codec.get("tokenizer"):
        inputs |= {"codec.tokenizer": hash_files([Path(file)])}
    published = pinned(run, say)
    tasks = {n: (s.task, s.options) for n, s in run.recipe.stages.items()}
    mark = fingerprint(
        inputs, data.model_dump(), run.recipe.codec, run.recipe.seed, tasks, source_hash("data")
    )
    if published is not None:
        mark = fingerprint(mark, run.recipe.model, published.record)
    if run.recipe.evaluate.slices:
        mark = fingerprint(mark, run.recipe.evaluate.slices)
    if run.is_done("prepare", mark) and _present(run):
        say("prepare: nothing changed, kept")
        return
    with run.working("prepare", mark) as record:
        record["inputs"] = inputs
        if corpus is None:
            prepared = _from_rows(run, published, say)
        else:
            say(f"prepare: checking the token shards of {data.source}, which are read in place")
            prepared = prepare_tokens(run, corpus)
        run.write_json("data/prepared.json", prepared)
        record["outputs"] = {
            f"{task}/{part}": facts["examples"]
            for task, of in prepared["tasks"].items()
            for part, facts in of["splits"].items()
        }
        record["content"] = _content(run)


def _from_rows(run: Run, published: Pinned | None, say: Say) -> dict[str, Any]:
    """Read the rows, make the examples, fit the codec, and write shards of the run's own."""
    splits, steps = parts_of(run.recipe, say)
    codec: Codec | None = None
    prepared: dict[str, Any] = {"tasks": {}}
    for name, stage in run.recipe.stages.items():
        made = _stage_examples(name, stage, splits)
        if reads := made.task.reads(made.rows["train"][0]):
            say(f"prepare: {name}: {reads}")
        steps += made.steps
        _say_dropped(name, made.steps[0], say)
        for line in made.task.examined(made.examples):
            say(f"prepare: {name}: {line}")
        codec = codec or _fit(run, stage, made, published, say)
        steps += _refused(name, made, codec, say)
        prepared["tasks"][stage.task] = _shards(run, name, made, codec, say)
        if isinstance(vocabulary := getattr(codec, "vocabulary", None), int):
            prepared["tokenizer"] = {"vocabulary": vocabulary}
    run.write_json("data/waterfall.json", steps)
    return prepared


def _present(run: Run) -> bool:
    """Whether what was prepared is still there: a user may delete a damaged part of it."""
    made = run.stage("prepare").get("content", {})
    return bool(made) and all((run.path / "data" / folder).is_dir() for folder in made)


def _content(run: Run) -> dict[str, str]:
    """Folder -> SHA-256 of what training reads: it is redone when that changes, and only then."""
    data = run.path / "data"
    parts = [f"{stage}/{part}" for stage in run.recipe.stages for part in PARTS]
    return {
        folder: hash_files(sorted((data / folder).iterdir()))
        for folder in ("codec", *parts)
        if (data / folder).is_dir()
    }


def parts_of(recipe: Recipe, say: Say) -> tuple[dict[str, list[Row]], list[dict[str, Any]]]:
    """Collect, clean, deduplicate and divide the rows: those of each part, and the waterfall."""
    data, seed = recipe.data, recipe.seed
    waterfall = Waterfall()
    source = data.source
    folder = Path(data.path) if data.path else None
    found = read_rows(source, path=folder, seed=seed, encoding=data.encoding)
    collected = list(itertools.islice(found, data.limit))
    whole, dropped = whole_rows(collected)
    rows = [renamed(row, data.columns) for row in whole]
    waterfall.add("collect", collected, rows, dropped)
    say(f"prepare: collected {len(rows):,} rows from {short(source)}")
    _say_dropped("collect", waterfall.steps[0], say)
    for note, count in notes_of(rows).items():
        say(f"prepare: collect: {count:,} rows kept: {note}")
    if data.clean:
        kept, dropped = clean_rows(rows)
        _next(waterfall, "clean", rows, kept, dropped, say=say)
        rows = kept
    if data.deduplicate:
        kept, dropped = drop_duplicates(rows, threshold=data.deduplicate, seed=seed)
        _next(waterfall, "deduplicate", rows, kept, dropped, say=say)
        rows = kept
    shares = {"validation": data.split.validation, "test": data.split.test}
    fractions = {"train": 1.0 - sum(shares.values()), **shares}
    by = "id" if data.split.by == "row" else data.split.by
    if fold := data.fold:
        label = str(recipe.first.options.get("label", "label"))
        splits, dropped = fold_rows(
            rows,
            **fold.model_dump(),
            fractions=fractions,
            split_by=by,
            label=label,
            seed=seed,
            players=data.split.players,
        )
    else:
        splits, dropped = split_rows(rows, fractions, by, seed=seed, players=data.split.players)
    kept = [row for part in PARTS for row in splits[part]]
    _next(waterfall, "split", rows, kept, dropped, say=say)
    steps = waterfall.to_json()
    if data.also:
        more = Waterfall()
        splits["train"] += _more(data.also, splits, more, seed=seed, say=say)
        steps += more.to_json()
    return splits, steps


def _more(
    also: Also,
    splits: Mapping[str, Sequence[Row]],
    waterfall: Waterfall,
    *,
    seed: int,
    say: Say,
) -> list[Row]:
    """Rows of another source for the train part, without what stands in a measured part."""
    found = read_rows(also.source, path=Path(also.path) if also.path else None, seed=seed)
    name = Path(also.source).stem
    rows: list[Row] = [
        {**row, "id": f"{name}:{row['id']}", "group": f"{name}:{row['group']}"}
        for row in itertools.islice(found, also.limit)
    ]
    measured = {content_key(row) for part in ("validation", "test") for row in splits[part]}
    whole, dropped = whole_rows(rows)
    kept: list[Row] = []
    for row in whole:
        made = {**renamed(row, also.columns), "id": row["id"], "group": row["group"]}
        if content_key(made) in measured:
            dropped.append(drop(made, "stands in validation or test"))
        else:
            kept.append(made)
    _next(waterfall, "also", rows, kept, dropped, say=say)
    _say_dropped("also", waterfall.steps[0], say)
    return kept


def renamed(row: Row, columns: dict[str, str]) -> Row:
    """The row with ``columns`` {our name: their name} applied."""
    for theirs in columns.values():
        if theirs not in row:
            raise ModelwrightError(
                f"data.columns: no column {theirs!r}{did_you_mean(theirs, row)} in row "
                f"{row.get('id', '?')}; it has {', '.join(map(str, row))}"
            )
    if not columns:
        return row
    taken = set(columns.values())
    return {
        **{k: v for k, v in row.items() if k not in taken},
        **{ours: row[theirs] for ours, theirs in columns.items()},
    }


def _next(
    waterfall: Waterfall,
    step: str,
    before: Sequence[Row],
    after: Sequence[Row],
    dropped: Sequence[Dropped],
    *,
    say: Say,
) -> None:
    waterfall.add(step, before, after, dropped)
    say(f"prepare: {step}: {len(before):,} rows in, {len(dropped):,} dropped, {len(after):,} kept")


def _say_dropped(name: str, step: Mapping[str, Any], say: Say) -> None:
    """How many rows a step has dropped for each reason, and the first of them."""
    for reason, ids in step["examples"].items():
        count = step["dropped"][reason]
        first = ", ".join(ids) + ", ..." * (count > len(ids))
        say(f"prepare: {name}: {count:,} rows dropped, {reason}: {first}")


class _Made:
    """The examples of a stage by split, and the waterfall of making them."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.examples: dict[str, list[Example]] = {}
        self.rows: dict[str, list[Row]] = {}
        self.counts: dict[str, list[int]] = {}  # of the examples of every row
        self.steps: list[dict[str, Any]] = []


def _stage_examples(name: str, stage: Stage, splits: dict[str, list[Row]]) -> _Made:
    """Turn the rows of every split into the task's examples."""
    made = _Made(make_task(stage.task, stage.options))
    kept: list[Row] = []
    dropped: list[Dropped] = []
    for part in PARTS:
        made.examples[part], made.rows[part], made.counts[part] = [], [], []
        for row in splits[part]:
            examples = made.task.examples(row)
            if isinstance(examples, str):
                dropped.append(drop(row, examples))
                continue
            before = len(made.examples[part])
            made.examples[part].extend(examples)
            made.rows[part].append(row)
            made.counts[part].append(len(made.examples[part]) - before)
            kept.append(row)
    _same_classes(name, kept, dropped, everything := [r for part in PARTS for r in splits[part]])
    waterfall = Waterfall()
    waterfall.add(f"{name}: {short(stage.task)}", everything, kept, dropped)
    made.steps = waterfall.to_json()
    if not made.examples["train"]:
        reasons = ", ".join(sorted({d.reason for d in dropped})) or "the train split is empty"
        raise ModelwrightError(
            f"{name}: no row of the train split gives an example for task {short(stage.task)}"
            f" ({reasons}); check data.source, data.clean and the task's options"
        )
    return made


def _same_classes(
    name: str, kept: Sequence[Row], dropped: Sequence[Dropped], rows: Sequence[Row]
) -> None:
    """Refuse data of which a whole class has left: a model would not know that it exists."""
    left = {d.id: d.reason for d in dropped}
    lost: dict[str, list[str]] = {}
    for row in rows:
        if row["id"] in left and isinstance(row.get("label"), str):
            lost.setdefault(row["label"], []).append(left[row["id"]])
    for label in {row["label"] for row in kept if isinstance(row.get("label"), str)}:
        lost.pop(label, None)
    for label, reasons in lost.items() if kept else ():
        raise ModelwrightError(
            f"{name}: all {len(reasons):,} rows of class {label!r} were dropped"
            f" ({', '.join(sorted(set(reasons)))}); mend them, or take the class out"
        )


def _refused(name: str, made: _Made, codec: Codec, say: Say) -> list[dict[str, Any]]:
    """Drop the rows whose examples the codec has a ``problem`` with, such as unknown characters."""
    problem = getattr(codec, "problem", None)
    if problem is None:
        return []
    everything = [row for part in PARTS for row in made.rows[part]]
    kept: list[Row] = []
    dropped: list[Dropped] = []
    for part in PARTS:
        examples, rows, left = iter(made.examples[part]), made.rows[part], []
        counts, made.rows[part], made.counts[part] = made.counts[part], [], []
        for row, count in zip(rows, counts, strict=True):
            some = list(itertools.islice(examples, count))
            if why := next(filter(None, map(problem, some)), ""):
                dropped.append(drop(row, why))
                continue
            left += some
            made.rows[part].append(row)
            made.counts[part].append(count)
            kept.append(row)
        made.examples[part] = left
    if not dropped:
        return []
    waterfall = Waterfall()
    waterfall.add(f"{name}: codec", everything, kept, dropped)
    _say_dropped(name, waterfall.steps[0], say)
    return waterfall.to_json()


def _fit(run: Run, stage: Stage, made: _Made, published: Pinned | None, say: Say) -> Codec:
    """Fit the codec on the train split and keep it beside the shards."""
    kind, options = run.recipe.codec_kind, run.recipe.codec_options
    train = made.examples["train"]
    codec = None if published is None else published.codec(kind, train, options)
    if codec is not None:
        what = "the preparation of pictures" if kind == "images" else "the tokenizer"
        say(f"prepare: {what} is that of {run.recipe.published}")
    else:
        said = f"the {short(kind)} codec on {len(train):,} {short(stage.task)} of train"
        say(f"prepare: fitting {said}")
        codec = fit_codec(kind, train, options)
    for file, content in save_codec(codec).items():
        path = run.path / "data" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    return codec


def _shards(run: Run, name: str, made: _Made, codec: Codec, say: Say) -> dict[str, Any]:
    """Encode the examples of a stage, write them, and audit its splits for leakage."""
    facts: dict[str, Any] = {"codec": run.recipe.codec_kind, "splits": {}}
    weighted = {part: run.recipe.data.weights if part == "train" else {} for part in PARTS}
    for part, examples in made.examples.items():
        folder = run.path / "data" / name / part
        if not examples:
            shutil.rmtree(folder, ignore_errors=True)  # of data that have changed since
            continue
        say(f"prepare: {name}: encoding {len(examples):,} examples of {part}")
        seen = Counter[str]()
        times = weights.of_examples(made.rows[part], made.counts[part], weighted[part])
        encoded = _encoded(codec, _named(made, part), seen, times)
        count = write_shard(folder, encoded, codec.ragged)
        if part == "train" and made.task.shows:
            shown.keep(run, name, open_shard(folder), codec, say)
        if hasattr(codec, "seen"):  # what the model reads of a picture's file
            raw_samples.keep(run, name, part, examples)
        facts["splits"][part] = {"examples": count}
        if cut := seen["truncated"]:
            facts["splits"][part]["truncated"] = cut
            say(f"prepare: {name}: {cut:,} of them are longer than the codec reads, and were cut")
        if "boxes" in codec.ragged and part == "train":
            draw_labels(run, name, codec, say)
        if seen["tokens"]:
            facts["splits"][part]["tokens"] = seen["tokens"]
    rows, counts = made.rows["test"], made.counts["test"]
    graded.keep_columns(run, name, made.task, made.examples["test"], rows=rows, counts=counts)
    audit = leakage_audit(made.rows, _group(run.recipe))
    run.write_json(
        "data/split.json" if name == "train" else f"data/split-{name}.json",
        {"splits": audit.pop("sizes"), **_held_out(run.recipe, made.rows), "leakage": audit},
    )
    if not audit["holds"]:
        raise ModelwrightError(
            f"{name}: the splits share rows or groups ({audit['examples']}); "
            "set data.deduplicate or another data.split.by"
        )
    return facts


def _held_out(recipe: Recipe, rows: dict[str, list[Row]]) -> dict[str, list[str]]:
    """The first names of the groups that a fold by group holds out, or of players held out."""
    if _group(recipe) == PLAYERS:
        return {"held_out": sorted({s for row in rows["test"] for s in row["strangers"]})[:NAMED]}
    if recipe.data.fold is None or recipe.data.fold.by != "group":
        return {}
    return {"held_out": sorted({str(row.get("group", row["id"])) for row in rows["test"]})[:NAMED]}


def _named(made: _Made, part: str) -> Iterator[tuple[str, Example]]:
    """Where each example of a part comes from, for messages, and the example."""
    counted = zip(made.rows[part], made.counts[part], strict=True)
    names = [f"{part}: row {row['id']}" for row, count in counted for _ in range(count)]
    return zip(names, made.examples[part], strict=True)


def _encoded(
    codec: Codec,
    examples: Iterator[tuple[str, Example]],
    seen: Counter[str],
    times: Sequence[float],
) -> Iterator[Encoded]:
    """The examples as arrays; their tokens and those that were cut are counted as they pass.

    ``times`` is how often each stands in a pass over the data; empty: once.

    Raises:
        ModelwrightError: the codec cannot take an example, such as one of a class that train
            lacks; names its row.
    """
    for number, (where, example) in enumerate(examples):
        try:
            encoded = codec.encode(example)
        except ModelwrightError as error:
            if type(error) is not ModelwrightError:  # a damaged file, a machine that cannot
                raise
            raise ModelwrightError(f"{where}: {error}") from error
        if codec.ragged:
            seen["tokens"] += len(encoded[codec.ragged[0]])
        seen["truncated"] += isinstance(encoded, Shortened)
        yield {**encoded, "times": np.array(times[number])} if times else encoded


def _group(recipe: Recipe) -> str:
    """The column whose values must lie on one side, for the audit."""
    by = recipe.data.fold.by if recipe.data.fold else recipe.data.split.by
    return by if by in ("group", PLAYERS) else "id"


def prepared_codec(run: Run) -> Codec:
    """The codec that was fitted when the run's data were prepared."""
    folder = run.path / "data" / "codec"
    return load_codec({f"codec/{p.name}": p.read_bytes() for p in sorted(folder.glob("*"))})


def longest(columns: Any, ragged: Sequence[str]) -> Any:
    """Lengths of all rows of the first ragged column, or None where all are equal.

    Of a row that compares two answers it is the longer of both texts.
    """
    column = columns[ragged[0]] if ragged else None
    if not isinstance(column, Ragged):
        return None
    other = columns.get("rejected")
    return np.maximum(column.lengths, other.lengths) if other is not None else column.lengths
