"""Public sets of texts as rows: how many there are, and that what they say of a text is in it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from modelwright.data.sources import read_rows
from modelwright.errors import CorruptError, ModelwrightError


def test_slots_of_commands_are_words_of_theirs(data: Callable[[str], Path]) -> None:
    rows = list(read_rows("snips_nlu", path=data("snips_nlu")))
    assert Counter(row["split"] for row in rows) == {"train": 13784, "test": 700}
    assert len({row["intent"] for row in rows}) == 7
    for row in rows:
        for begin, end, slot in row["spans"]:
            words = row["text"][begin:end]
            assert words
            assert words == words.strip()
            assert slot


def test_kinds_of_slots_are_those_of_the_spans(data: Callable[[str], Path]) -> None:
    rows = list(read_rows("snips-kinds", path=data("snips_nlu")))
    spans = {row["id"]: row["spans"] for row in read_rows("snips_nlu", path=data("snips_nlu"))}
    assert Counter(row["split"] for row in rows) == {"train": 13784, "test": 700}
    assert all(set(row["labels"]) == {kind for *_, kind in spans[row["id"]]} for row in rows)
    assert len({kind for row in rows for kind in row["labels"]}) == 39
    assert sum(len(row["labels"]) > 1 for row in rows) > len(rows) / 2


def test_pairs_of_commands_want_the_same_or_not_and_share_none(
    data: Callable[[str], Path],
) -> None:
    folder = data("snips_nlu")
    commands = {row["id"]: row for row in read_rows("snips_nlu", path=folder)}
    rows = list(read_rows("snips-pairs", path=folder))
    assert rows == list(read_rows("snips-pairs", path=folder))
    groups: dict[str, set[str]] = {}
    for row in rows:
        one, two = (commands[name] for name in row["id"].split("+"))
        assert row["label"] == ("same" if one["intent"] == two["intent"] else "different")
        assert (row["sentence1"], row["sentence2"]) == (one["text"], two["text"])
        assert one["split"] == two["split"] == row["split"]
        for command in (one, two):
            groups.setdefault(command["id"], set()).add(row["group"])
    assert all(len(found) == 1 for found in groups.values())
    for split in ("train", "test"):
        share = [row["label"] == "same" for row in rows if row["split"] == split]
        assert 0.48 < sum(share) / len(share) < 0.52


def test_reviews_of_hotels(data: Callable[[str], Path]) -> None:
    rows = list(read_rows("chnsenticorp", path=data("chnsenticorp")))
    assert Counter(row["label"] for row in rows) == {"positive": 5322, "negative": 2444}


@pytest.mark.parametrize(("name", "questions"), [("xquad", 4 * 894), ("cmrc2018", 3219)])
def test_answers_stand_where_they_are_said_to(
    name: str, questions: int, data: Callable[[str], Path]
) -> None:
    rows = list(read_rows(name, path=data(name)))
    several = [(row["context"], qa) for row in rows for qa in row["qas"]]
    assert len(several) == questions
    right = total = 0
    for context, qa in several:
        for answer in qa["answers"]:
            begin = answer["answer_start"]
            right += context[begin : begin + len(answer["text"])] == answer["text"]
            total += 1
    assert right / total > 0.95  # some are off by a few characters, as they were published


def test_translations_of_an_article_stay_together(data: Callable[[str], Path]) -> None:
    rows = list(read_rows("xquad", path=data("xquad")))
    languages = {row["language"] for row in rows}
    assert languages == {"de", "en", "es", "zh"}
    of_group: dict[str, set[str]] = {}
    for row in rows:
        of_group.setdefault(row["group"], set()).add(row["language"])
    assert all(found == languages for found in of_group.values())
    only = list(read_rows("xquad", path=data("xquad") / "xquad.en.json.gz"))
    assert {row["language"] for row in only} == {"en"}


def test_summaries_of_papers(data: Callable[[str], Path]) -> None:
    rows = list(read_rows("scitldr", path=data("scitldr")))
    parts = Counter(row["split"] for row in rows)
    assert parts == {"train": 1992, "validation": 619, "test": 618}
    assert all(row["source"] and row["target"] for row in rows)


def test_a_file_in_squads_form_is_read_as_it_is(tmp_path: Path) -> None:
    paragraph = {"context": "It rained.", "qas": [{"question": "What?", "answers": []}]}
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"version": "2.0", "data": [{"paragraphs": [paragraph] * 2}]}))
    rows = list(read_rows(str(file)))
    assert [row["context"] for row in rows] == ["It rained."] * 2
    assert len({row["group"] for row in rows}) == 1
    del paragraph["qas"]
    file.write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}))
    with pytest.raises(ModelwrightError, match=r"article 1, paragraph 1: no list 'qas'"):
        list(read_rows(str(file)))


def test_what_is_missing_or_damaged_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelwrightError, match=r"no file of snips_nlu: get it from https"):
        list(read_rows("snips_nlu", path=tmp_path))
    (tmp_path / "xquad.en.json").write_text("{")
    with pytest.raises(CorruptError, match=r"xquad\.en\.json: not JSON"):
        list(read_rows("xquad", path=tmp_path))
    (tmp_path / "ChnSentiCorp.csv").write_text("label,review\n3,a\n")
    with pytest.raises(CorruptError, match="line 1: no 'review' or no 'label' of 0 or 1"):
        list(read_rows("chnsenticorp", path=tmp_path))
