"""Sentences chosen as a summary: which are good, what is learned, what is measured."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch

from modelwright.data.codecs.sentences import CHOSEN, Codec
from modelwright.data.sources import read_rows
from modelwright.errors import ModelwrightError
from modelwright.objectives.positions import Objective
from modelwright.tasks.extractive_summarization import ExtractiveSummarization
from modelwright.types import Example, Shortened, Turn, stack

ROW = {
    "id": "r1",
    "document": "It rained. A cracked cable closes the bridge. Nobody was hurt on Monday.",
    "summary": "A cracked cable closes a bridge.",
}


def only(row: dict[str, object], **options: int) -> Example:
    (example,) = ExtractiveSummarization(**options).examples(row)  # type: ignore[arg-type]
    assert isinstance(example, Example)
    return example


def read_back(codec: Codec, examples: list[Example]) -> list[Turn]:
    """What is decoded of logits that say exactly what is to be learned."""
    columns = stack([codec.encode(e) for e in examples], codec.ragged)
    batch = Objective(codec).collate(columns, torch.Generator())
    logits = (batch.targets["wanted"] + 1e-9).log()
    outputs = codec.read(logits, batch.targets, batch.inputs["starts"])
    return codec.spelled(codec.decode(outputs), columns)


def test_the_sentence_most_like_the_summary_is_to_be_chosen() -> None:
    example = only(dict(ROW))
    assert [span.label for span in example.answer.spans] == ["", CHOSEN, ""]
    assert example.given[0].text.split() == str(ROW["document"]).split()
    listed = only({**ROW, "document": ["It rained.", "A cracked cable closes the bridge."]})
    assert [span.label for span in listed.answer.spans] == ["", CHOSEN]
    assert [s.label for s in only(dict(ROW), take=2).answer.spans].count(CHOSEN) == 2


def test_what_is_learned_is_what_is_said() -> None:
    for take in (1, 2):
        example = only(dict(ROW), take=take)
        codec = Codec.fit([example], vocabulary=300)
        assert codec.take == take
        (said,) = read_back(codec, [example])
        chosen = [s.begin for s in example.answer.spans if s.label == CHOSEN]
        assert [span.begin for span in said.spans] == chosen
        assert all(span.text.strip() in str(ROW["document"]) for span in said.spans)


def test_rows_and_options_that_cannot_be_are_refused() -> None:
    task = ExtractiveSummarization()
    assert task.examples({**ROW, "summary": " "}) == "no target"
    assert task.examples({**ROW, "document": ""}) == "no source"
    with pytest.raises(ModelwrightError, match="^row r1: column 'document' holds '3', not a text"):
        task.examples({**ROW, "document": 3})
    with pytest.raises(ModelwrightError, match="take 0 is below 1"):
        ExtractiveSummarization(take=0)


def test_the_best_sentences_of_real_abstracts_beat_the_first(data: Callable[[str], Path]) -> None:
    rows = islice(read_rows("scitldr", path=data("scitldr")), 700, 740)
    task = ExtractiveSummarization()
    examples = [e for row in rows for e in task.examples(row) if isinstance(e, Example)]
    codec = Codec.fit(examples, vocabulary=1000)
    answers = read_back(codec, examples)

    class Best:
        def answer(self, given: object) -> list[Turn]:
            return answers

    found = {who: task.measures(examples, p)[0].value for who, p in task.baselines([]).items()}
    best = task.measures(examples, Best())[0].value
    assert best > max(found.values()) + 0.05
    assert min(found.values()) > 0.1
    assert sum(isinstance(codec.encode(e), Shortened) for e in examples) < 5
    cut = Codec.fit(examples, vocabulary=1000, longest=100)
    encoded = [cut.encode(e) for e in examples]
    assert sum(isinstance(e, Shortened) for e in encoded) > 30
    assert min(len(e["ends"]) for e in encoded) >= 1
