"""What is wrong with the description of a corpus is said in one line, with the line it is on."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.corpus import spec
from modelwright.errors import ModelwrightError

GOOD = """\
name: wiki
sources:
  - path: dumps/*.bz2
    reader: jsonl
    license: CC BY-SA 4.0
steps:
  - repair
  - pii: {mask: [email]}
deduplicate: {threshold: 0.8}
split: {validation: 0.1, test: 0.1}
tokenizer: {kind: bpe, vocabulary: 8192}
"""


def test_what_is_written_is_what_is_meant():
    made = spec.parse(GOOD, "c.yaml")
    assert made.name == "wiki"
    assert made.source_names() == ["dumps"]
    assert made.steps == ("repair", {"pii": {"mask": ["email"]}})
    assert made.deduplicate is not None
    assert made.deduplicate.threshold == 0.8


@pytest.mark.parametrize(("text", "threshold"), [("true", 0.8), ("0.9", 0.9), ("false", None)])
def test_deduplicate_in_short(text: str, threshold: float | None):
    made = spec.parse(GOOD.replace("{threshold: 0.8}", text), "c.yaml")
    found = made.deduplicate and made.deduplicate.threshold
    assert found == threshold


MISTAKES = {
    "a key": ("license:", "licence:", 5, "did you mean 'license'?"),
    "a key at the top": ("deduplicate:", "dedupliacte:", 9, "did you mean 'deduplicate'?"),
    "a reader": ("reader: jsonl", "reader: jsnol", 4, "did you mean 'jsonl'?"),
    "a step": ("- repair", "- repiar", 7, "did you mean 'repair'?"),
    "a setting of a step": ("{mask: [", "{maks: [", 8, "did you mean 'mask'?"),
    "a value of a setting": ("[email]", "[emial]", 8, "did you mean 'email'?"),
    "a number": ("threshold: 0.8", "threshold: much", 9, "deduplicate.threshold"),
    "a share": ("validation: 0.1", "validation: 0.95", 10, "leave nothing for train"),
    "an unknown setting of the tokenizer": ("kind: bpe", "knid: bpe", 11, "did you mean 'kind'?"),
    "an unknown kind of tokenizer": ("kind: bpe", "kind: bpp", 11, "'bpe' or 'unigram'"),
    "a vocabulary without room": ("vocabulary: 8192", "vocabulary: 100", 11, "vocabulary"),
    "hashes far apart": ("threshold: 0.8", "images: 11", 9, "deduplicate.images"),
    "sources misspelt": ("sources:", "source:", 2, "did you mean 'sources'?"),
    "no sources": ("sources:", "sources: []\nother:", 2, "sources"),
    "not YAML": ("split: {", "split: {{", 11, "correct the YAML"),
    "a step that is two": ("- pii: {mask: [email]}", "- {pii: {}, repair: {}}", 8, "NAME"),
    "a split by nothing": ("split: {", "split: {by: grop, ", 10, "did you mean 'group'?"),
    "a split by time of what": ("split: {", "split: {by: time, ", 10, "column"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_its_line(name: str):
    right, wrong, line, said = MISTAKES[name]
    assert right in GOOD
    with pytest.raises(ModelwrightError) as told:
        spec.parse(GOOD.replace(right, wrong, 1), "c.yaml")
    message = str(told.value)
    assert message.startswith(f"c.yaml:{line}: "), message
    assert said in message
    assert "\n" not in message


def test_two_sources_of_one_name():
    twice = GOOD.replace("steps:", "  - path: more/dumps.jsonl\nsteps:")
    with pytest.raises(ModelwrightError, match="two sources are called 'dumps'"):
        spec.parse(twice, "c.yaml")


def test_no_such_file_names_the_nearest(tmp_path: Path):
    (tmp_path / "corpus.yaml").write_text(GOOD)
    with pytest.raises(ModelwrightError, match="did you mean 'corpus.yaml'"):
        spec.read(tmp_path / "corpsu.yaml")
    assert spec.read(tmp_path / "corpus.yaml").name == "wiki"


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_gives_a_description_or_one_line(text: str):
    try:
        spec.parse(text, "c.yaml")
    except ModelwrightError as error:
        assert str(error).startswith("c.yaml")
        assert "\n" not in str(error)


@settings(deadline=None)
@given(st.text(min_size=1, max_size=40).filter(lambda t: "\x00" not in t))
def test_a_name_made_from_a_path_is_a_name(path: str):
    import re

    assert re.fullmatch(spec.NAME, spec.short_name(path))
