"""The report of a corpus: its numbers add up, nothing personal or hostile gets through it."""

from __future__ import annotations

import json
import math
import random
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.corpus import records
from modelwright.data.corpus.build import build
from modelwright.data.corpus.components import FATE, fate_path
from modelwright.data.corpus.spec import parse
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.reporting.corpus import BEFORE, JSON, PAGE, write_report
from modelwright.reporting.corpus_audit import audit
from modelwright.reporting.corpus_charts import histogram, upper_edge
from modelwright.reporting.corpus_diff import changes

EVIL = "<script>alert('x')</script><img src=https://evil.example/x onerror=alert(1)>"
MAIL, CARD = "secret.person@example.org", "4111 1111 1111 1111"
WORDS = [f"w{a}{b}ing" for a in "abcdefghij" for b in "klmnopqrst"]
SPEC = """
name: <b>evil</b> name
sources:
  - {{path: {folder}/a.jsonl, name: a, license: "{evil}"}}
  - {{path: {folder}/b.jsonl, name: b, budget: 0.5}}
steps: [repair, {{quality: {{min_words: 12, min_stop_words: 1}}}}{pii}]
deduplicate: {deduplicate}
split: {{validation: 0.2, test: 0.2}}
"""
VOID = {"meta", "link"}


class Page(HTMLParser):
    """Fails on what is not balanced, runs, or asks for something."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "img", "iframe", "object", "b", "form"), tag
        for name, value in attrs:
            assert not name.startswith("on")
            assert name not in ("src", "srcset", "action", "poster", "data")
            if name == "id":
                self.ids.append(value)
            if name == "href":
                assert value.startswith(("#", "data:,"))
                self.links.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def text_of(number: int) -> str:
    """A text of 40 words that no rule minds, and that shares hardly anything with another."""
    words = random.Random(number).sample(WORDS, 40)
    return f"The {' '.join(words[:20])} and that of {' '.join(words[20:])}."


def spec_of(folder: Path, *, deduplicate: str = "0.8", pii: str = ", pii"):
    written = SPEC.format(folder=folder, evil=EVIL, deduplicate=deduplicate, pii=pii)
    return parse(written.replace("<b>evil</b> name", "evil"), "spec.yaml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Sources with a hostile row, a personal one, copies, short ones and lines that are broken."""
    place = tmp_path_factory.mktemp("sources")
    rows = [{"id": str(i), "text": text_of(i)} for i in range(60)]
    rows += [{"id": f"{EVIL}", "text": f"{EVIL} {text_of(100)}"}]
    rows += [{"id": "p", "text": f"{text_of(101)} Write to {MAIL}, card {CARD}."}]
    rows += [{"id": f"copy{i}", "text": text_of(i)} for i in range(8)]
    rows += [{"id": f"short{i}", "text": f"too short, mail {MAIL} {i}"} for i in range(5)]
    (place / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    lines = [json.dumps({"text": text_of(i + 200)}) for i in range(20)]
    (place / "b.jsonl").write_text("\n".join([*lines, '{"text": "' + MAIL, "not json"]) + "\n")
    return place


@pytest.fixture(scope="module")
def corpus(folder: Path, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("corpora") / "evil"
    build(spec_of(folder), place, say=lambda line: None)
    write_report(place)
    return place


@pytest.fixture
def copied(corpus: Path, tmp_path: Path) -> Path:
    shutil.copytree(corpus, tmp_path / "copy")
    return tmp_path / "copy"


def report_of(place: Path) -> dict:
    return json.loads((place / JSON).read_text())


def test_the_numbers_add_up(corpus):
    report = report_of(corpus)
    rows = report["rows"]
    for step in report["waterfall"]:
        lost = sum(r["rows"] for r in step["dropped"].values())
        assert step["rows_in"] == step["rows_out"] + lost
    assert report["waterfall"][0]["rows_in"] == rows["in"] == 95
    assert rows["in the corpus"] == sum(p["rows"] for p in report["splits"].values()) == 82
    assert sum(s["in"] for s in report["sources"]) == rows["in"]
    assert sum(s["kept"] for s in report["sources"]) == rows["in the corpus"]
    assert sum(report["quarantine"].values()) == rows["unreadable"] == 2
    assert report["pii"] == {"card": 1, "email": 1}
    assert report["waterfall"][-1]["dropped"]["exact duplicate"]["rows"] == 8
    assert report["cluster_sizes"] == {"2-3": 8}
    assert len(report["clusters"]) == 8
    assert all(len(c["samples"]) == 2 for c in report["clusters"])
    assert report["audit"]["pairs of exact copies that cross"] == 0


def test_the_page_is_whole_and_asks_for_nothing(corpus):
    html = (corpus / PAGE).read_text(encoding="utf-8")
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert "default-src 'none'" in html
    assert "&lt;script&gt;alert" in html  # shown, not run
    assert "https://" not in html.replace("src=https://evil.example", "")
    assert "http://" not in html


def test_what_is_personal_is_on_no_page_and_in_no_json(corpus, folder, tmp_path):
    build(spec_of(folder, pii=""), tmp_path / "unmasked", say=lambda line: None)
    write_report(tmp_path / "unmasked")
    for place in (corpus, tmp_path / "unmasked"):
        for name in (JSON, PAGE):
            said = (place / name).read_text(encoding="utf-8")
            assert MAIL not in said
            assert CARD not in said
            assert "[EMAIL]" in said


def test_samples_of_every_kind_are_shown(corpus):
    kinds = {s["kind"] for s in report_of(corpus)["samples"]}
    assert {"kept", "borderline", "dropped: quality: gopher: too few words"} <= kinds


def test_limits_of_a_rule_come_from_its_settings(corpus):
    limits = report_of(corpus)["limits"]
    assert limits["quality.words"] == [12, 100_000]
    assert limits["quality.mean_word"] == [3, 10]


def test_the_run_before_is_kept_and_compared(copied, folder):
    before = report_of(copied)
    write_report(copied)
    assert not (copied / BEFORE).exists()  # the same corpus, not another run
    build(spec_of(folder, deduplicate="false"), copied, say=lambda line: None)
    write_report(copied)
    assert json.loads((copied / BEFORE).read_text()) == before
    found = {row[0]: row[1:] for table in changes(before, report_of(copied)) for row in table.rows}
    assert found["rows in the corpus"] == ("82", "90", "+8 (+9.8%)")
    assert found["source a: kept"][:2] == ("62", "70")
    assert found["deduplicate.threshold"] == ("0.8", "-")
    assert "+8 (+9.8%)" in (copied / PAGE).read_text(encoding="utf-8")


def test_the_audit_sees_a_torn_split(copied, folder):
    build(spec_of(folder, deduplicate="false"), copied, say=lambda line: None)
    stages = json.loads((copied / "corpus.json").read_text())["stages"]
    sound = audit(copied, stages)
    assert sound["pairs of exact copies that stay, checked"] == 8
    assert sound["pairs of exact copies that cross"] == 0
    for unit in stages["read"]:
        path = fate_path(copied, unit)
        lines = list(records.rows(path))
        with records.Writer(path, FATE) as writer:
            for at, line in enumerate(lines):
                line["split"] = ("train", "test")[at < 30]
                writer.add([line[name] for name in FATE], 100)
    assert audit(copied, stages)["pairs of exact copies that cross"] == 8


def test_a_corpus_that_has_only_begun_has_a_report(copied):
    for stage in ("write", "resolve", "verify", "gather", "pairs"):
        shutil.rmtree(copied / "stages" / stage)
    for name in ("corpus.json", JSON):
        (copied / name).unlink()
    Page(write_report(copied).read_text(encoding="utf-8"))
    report = report_of(copied)
    assert report["rows"]["in"] == 95
    assert report["splits"] == {}
    assert report["audit"] == {}


def test_no_corpus_and_a_damaged_one_are_told_in_one_line(copied, tmp_path):
    with pytest.raises(ModelwrightError, match="no corpus here"):
        write_report(tmp_path)
    record = next((copied / "stages" / "read").glob("*.json"))
    record.write_text('{"unit": ')
    with pytest.raises(CorruptError, match="damaged commit record"):
        write_report(copied)


VALUES = st.floats(-1e6, 1e6) | st.floats(0, 1) | st.integers(0, 10**6).map(float)


@settings(deadline=None)
@given(
    st.dictionaries(VALUES, st.integers(1, 10**6), min_size=1, max_size=40),
    st.lists(VALUES, max_size=3),
)
def test_a_histogram_is_sound_svg_with_all_that_was_counted(bins, limits):
    svg = histogram("<a>", {f"{edge:g}": count for edge, count in bins.items()}, limits)
    root = ET.fromstring(str(svg))  # noqa: S314 - made by us
    for bar in root.iter("rect"):
        assert 0 < float(bar.attrib["height"]) <= 102.1
        assert 0 <= float(bar.attrib["x"]) <= 360
    assert len([p for p in root.iter("path") if p.attrib["class"] == "validation"]) == len(limits)


@given(st.floats(1e-9, 1e9))
def test_a_bin_ends_behind_its_beginning(edge):
    assert upper_edge(edge) > edge or math.isclose(edge, 1.0)
    assert upper_edge(-edge) > -edge


def test_a_histogram_of_nothing_is_nothing():
    assert histogram("a", {}) == ""
    assert histogram("a", {"nan": 3, "x": 1}) == ""


def test_augmented_texts_stand_beside_their_origin(folder, tmp_path):
    spec = spec_of(folder).model_dump() | {"augment": [{"typos": {}}]}
    place = tmp_path / "augmented"
    build(type(spec_of(folder)).model_validate(spec), place, say=lambda line: None)
    Page(write_report(place).read_text(encoding="utf-8"))
    report = report_of(place)
    assert report["augment"]["views made"] > 0
    assert report["augment"]["train rows"] == report["splits"]["train"]["rows"]
    assert all(line[0].endswith("~1") and line[1] != line[2] for line in report["views"])
