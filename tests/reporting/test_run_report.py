"""The report page: complete, self-contained, safe, and there whatever state a run is in."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelwright.errors import MachineError, ModelwrightError
from modelwright.reporting import record as record_module
from modelwright.reporting.origins import commands
from modelwright.reporting.record import read_record
from modelwright.reporting.report import render, write_report
from tests.reporting.fake_run import EVALUATION, build_run, manifest, waterfall, write_json

EVIL = "<script>alert('x')</script><img src=https://evil.example/x onerror=alert(1)>"
VOID = {"meta", "link"}
WORDS = """html head title style body header main section footer nav article h1 h2 h3 p span
strong time i a ul li dl dt dd div table caption thead tbody tr th td figure figcaption svg g text
details summary pre path rect circle"""
TAGS = VOID | set(WORDS.split())
JSON_FILES = (
    "resolved.json",
    "manifest.json",
    "evaluation.json",
    "data/waterfall.json",
    "data/split.json",
    "data/prepared.json",
)
SECTIONS = (
    "answers",
    "data",
    "recipe",
    "curves",
    "samples",
    "evaluation",
    "cost",
    "reproduce",
    "provenance",
)


class Page(HTMLParser):
    """Parses a page and complains about anything that is not balanced, ours and local."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.said: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag in TAGS, tag
        self.seen.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            assert name not in ("src", "srcset", "action", "poster", "data"), (tag, name)
            if name == "id":
                self.ids.append(value)
            if name == "href":
                assert value.startswith(("#", "data:,")), value
                self.links.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.said))


def page_of(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def test_a_finished_run_is_told_in_the_order_in_which_people_ask(run):
    target = write_report(run)
    assert target == run / "report.html"
    page = Page(target.read_text(encoding="utf-8"))
    assert page.ids == list(SECTIONS)
    assert page.links == ["data:,"] + [f"#{s}" for s in SECTIONS]
    for said in (
        "5.51 M parameters",
        "1,602 training rows",
        "26 % better than gzip -9 (2.03)",
        "37 % better than nearest neighbour",
        "What does `os.path.join` do?",
        "near duplicate (0.80)",
        "lib/module_3.py",
        "groups on both sides",
        "depth 6: the largest that sees 12 tokens a parameter in 3 min here",
        "Read up to size bytes.",
        "lower is better",
        "48.3 %",
        "2.42 GB",
        "790 GFLOP/s",
        "5 min 06 s",
        "train.learning_rate=0.0123",
        "4f2c9e1a0b",
    ):
        assert said in page.text, said
    assert "Not run yet" not in page.text
    assert page.seen.count("caption") == page.seen.count("table") >= 10
    assert page.seen.count("svg") == page.seen.count("figure") == 14


def test_the_page_asks_for_nothing(run):
    html = write_report(run).read_text(encoding="utf-8")
    assert "default-src 'none'" in html
    assert not re.search(r"https?://|url\(|@import|<script|<iframe|<object|<base", html)


def test_text_of_the_run_never_becomes_markup(run):
    spec = manifest() | {"run": EVIL, "created": EVIL, "libraries": {EVIL: EVIL}}
    spec["stages"][EVIL] = {"status": EVIL, "seconds": 3, "inputs": {EVIL: EVIL}}
    spec["machine"] = {EVIL: EVIL, "cpu": EVIL, "matmul_gflops": {EVIL: 3}}
    write_json(run / "manifest.json", spec)
    example = {"question": EVIL, "reference": EVIL, "answer": EVIL, "baselines": {EVIL: EVIL}}
    measure = {"name": EVIL, "unit": EVIL, "rows": [{"who": EVIL, "value": 1}], "note": EVIL}
    said = {"measures": [measure], "examples": [example], "examples_note": EVIL}
    write_json(run / "evaluation.json", said)
    lost = {"dropped": {EVIL: 1}, "examples": {EVIL: [EVIL]}, "rows_in": 5, "rows_out": 3}
    write_json(run / "data/waterfall.json", [{"step": EVIL} | lost])
    write_json(run / "data/split.json", {"splits": {EVIL: {"rows": 1}}, "leakage": {EVIL: EVIL}})
    write_json(run / "resolved.json", {"recipe": {EVIL: EVIL, "a": 1}, "reasons": {"a": EVIL}})
    (run / "recipe.yaml").write_text(EVIL, encoding="utf-8")
    write_json(run / "samples/train.jsonl", {"step": 1, "prompt": EVIL, "text": EVIL})
    write_json(run / f"metrics/{EVIL.replace('/', '_')}.jsonl", {"step": 1, "loss": 2.0})
    page = page_of(run)
    assert "script" not in page.seen
    assert page.text.count("alert('x')") > 25


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.sampled_from([EVIL, "\ud800\0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


def replaced(value, draw):
    """A copy of a JSON value with some of its parts replaced by arbitrary ones."""
    if draw(st.integers(0, 11)) == 0:
        return draw(JSON)
    if isinstance(value, dict):
        return {k: replaced(v, draw) for k, v in value.items()}
    if isinstance(value, list):
        return [replaced(v, draw) for v in value[:3]]
    return value


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data(), broken=st.sampled_from([*JSON_FILES, "metrics/tune.jsonl"]))
def test_whatever_a_file_holds_the_page_is_whole(tmp_path_factory, data, broken):
    run = build_run(tmp_path_factory.mktemp("runs") / "run")
    lines = (run / broken).read_text(encoding="utf-8").splitlines()[:12]
    damaged = [json.dumps(replaced(json.loads(line), data.draw)) for line in lines]
    (run / broken).write_text("\n".join(damaged), encoding="utf-8")
    page_of(run)
    shutil.rmtree(run)


@pytest.mark.parametrize("missing", [*JSON_FILES, "recipe.yaml", "metrics", "samples", "data"])
def test_any_file_may_be_missing(run, missing):
    path = run / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "could not be read" not in page_of(run).text


@pytest.mark.parametrize("broken", [*JSON_FILES, "recipe.yaml", "metrics/train.jsonl"])
def test_a_file_that_cannot_be_read_is_named(run, broken):
    (run / broken).unlink()
    (run / broken).mkdir()
    assert f"{broken} cannot be read: Is a directory" in page_of(run).text


@pytest.mark.parametrize("broken", JSON_FILES)
def test_a_damaged_file_is_named(run, broken):
    (run / broken).write_bytes((run / broken).read_bytes()[:-5] + b"\xff")
    assert f"{broken} is damaged" in page_of(run).text


def test_an_empty_run_says_what_has_not_run(tmp_path):
    page = page_of(tmp_path)
    assert page.text.count("Not run yet") == 6
    assert "No stage has run yet" in page.text


def test_a_run_in_progress_shows_what_there_is(run):
    said = manifest()
    said["stages"] = {"prepare": said["stages"]["prepare"], "train": {"status": "running"}}
    write_json(run / "manifest.json", said)
    (run / "evaluation.json").unlink()
    page = page_of(run)
    assert "train: running" in page.text
    assert "best validation bits per byte of train so far, at step 408" in page.text


def test_damaged_and_half_written_lines_are_counted_not_fatal(run):
    path = run / "metrics/train.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b"{]\n", b"\xff\xfe\n", *lines[3:], lines[-1][:20]]))
    curves = read_record(run).metrics["train"]
    assert len(curves.training["loss"]) == 412
    said = page_of(run).text
    assert "metrics/train.jsonl: 3 damaged lines skipped (the first is line 4)" in said


def test_values_that_are_not_finite_are_skipped_and_noted(run):
    with (run / "metrics/train.jsonl").open("a", encoding="utf-8") as stream:
        for step, value in ((413, "NaN"), (414, "Infinity"), (415, "1e999"), (416, "0.5")):
            stream.write(f'{{"step": {step}, "loss": {value}, "learning_rate": 0.1}}\n')
    page = page_of(run)
    assert "3 values were not finite and are not drawn" in page.text
    assert not re.search(r"\bnan\b", (run / "report.html").read_text(encoding="utf-8"))


def test_a_run_that_only_diverged_still_has_a_page(run):
    line = '{"step": 1, "loss": NaN, "bits_per_byte": NaN}\n'
    (run / "metrics/train.jsonl").write_text(line, encoding="utf-8")
    assert "1 values were not finite" in page_of(run).text


def test_a_quantity_the_objective_does_not_have_has_no_chart(run):
    path = run / "metrics/tune.jsonl"
    path.write_text('{"step": 1, "loss": 5, "bits_per_byte": null}\n', encoding="utf-8")
    curves = read_record(run).metrics["tune"]
    assert list(curves.training) == ["loss"]
    assert curves.skipped == {}


def test_the_verdict_of_the_leakage_audit_is_shown(run):
    found = {"exact_duplicates": {}, "near_duplicates": {"train/test": 3}, "groups_torn": 0}
    overlap = {"ngram_overlap": {"test": {"rows": 0.0125}}, "examples": {"pairs": []}}
    split = {"leakage": found | overlap | {"holds": False, "sizes": {"train": {"rows": 5}}}}
    write_json(run / "data/split.json", split)
    said = page_of(run).text
    assert "shares (IT DOES NOT HOLD)" in said
    assert "exact duplicates 0" in said
    assert "near duplicates, train/test 3" in said
    assert "ngram overlap, test, rows 0.0125" in said
    assert "pairs" not in said


def test_a_step_written_twice_counts_once_with_its_later_value(run):
    path = run / "metrics/tune.jsonl"
    path.write_text('{"step":1,"loss":5}\n{"step":2,"loss":4}\n{"step":1,"loss":3}\n')
    assert read_record(run).metrics["tune"].training["loss"] == [(1.0, 3.0), (2.0, 4.0)]


def test_rows_that_do_not_add_up_are_pointed_at(run):
    lines = waterfall()
    lines[2]["dropped"]["mostly digits"] += 1
    write_json(run / "data/waterfall.json", lines)
    said = page_of(run).text
    assert "clean: 2,134 rows in are not 2,031 out + 104 dropped with a reason" in said
    assert said.count("Does not add up") == 1


def test_a_lost_comparison_is_said_as_plainly_as_a_won_one(run):
    said = json.loads(json.dumps(EVALUATION))
    said["measures"][0]["rows"][0]["value"] = 3.051
    said["measures"][1]["rows"][0]["value"] = float("nan")
    write_json(run / "evaluation.json", said)
    text = page_of(run).text
    assert "50 % worse than gzip -9 (2.03)" in text
    assert "our value is not finite" in text


def test_characters_that_hide_or_turn_text_are_made_visible(run):
    (run / "recipe.yaml").write_text("a\x00b\x1b[31mc\u202ed\te\r\nf\u00e9", encoding="utf-8")
    html = write_report(run).read_text(encoding="utf-8")
    assert "a\ufffdb\ufffd[31mc\ufffdd\te\nf\u00e9" in html


def test_commands_survive_a_shell(run):
    said = json.loads((run / "resolved.json").read_text(encoding="utf-8"))
    said["recipe"]["train"]["note"] = "a'b; rm -rf $HOME\nx"
    said["reasons"]["train.note"] = "because"
    write_json(run / "resolved.json", said)
    spec = manifest()
    spec["libraries"] |= {"torch; rm": "1", "numpy": "1 --index-url http://evil", "-r": "x"}
    write_json(run / "manifest.json", spec)
    shown = commands(read_record(run))
    words = shlex.split(shown, comments=True)
    assert words[:4] == ["pip", "install", "torch==2.13.0", "tokenizers==0.22.0"]
    assert 'train.note="a\'b; rm -rf $HOME\\nx"' in words
    assert "model.layers=6" in words
    assert words[-3:] == ["modelwright", "serve", "quickstart-1"]
    assert words[-6:-3] == ["ask", "quickstart-1", "What does `os.path.join` do?"]


def test_a_missing_directory_is_one_clear_line(tmp_path):
    with pytest.raises(ModelwrightError, match="no such run directory") as caught:
        write_report(tmp_path / "none")
    assert "\n" not in str(caught.value)


def test_the_old_page_survives_a_failed_write(run, monkeypatch):
    write_report(run)
    before = (run / "report.html").read_bytes()
    files = sorted(p.name for p in run.iterdir())

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(MachineError, match="No space left"):
        write_report(run)
    assert (run / "report.html").read_bytes() == before
    assert sorted(p.name for p in run.iterdir()) == files


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_is_one_clear_line(run):
    run.chmod(0o500)
    with pytest.raises(MachineError, match="cannot write the report"):
        write_report(run)
    run.chmod(0o700)


def test_a_long_run_makes_a_page_of_bounded_size(run):
    lines = [{"step": i, "loss": 3 + i % 7, "learning_rate": 0.1} for i in range(20_000)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "metrics/train.jsonl").write_text(text, encoding="utf-8")
    assert len(render(read_record(run))) < 400_000


def test_colours_have_contrast_in_both_themes():
    page = Path(record_module.__file__).with_name("report.html").read_text(encoding="utf-8")
    themes = [
        dict(re.findall(r"--(\w+): (#\w{6});", block))
        for block in re.findall(r":root \{([^}]*)\}", page)
    ]
    assert len(themes) == 2

    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    def contrast(one, other):
        light, dark = sorted((luminance(one), luminance(other)), reverse=True)
        return (light + 0.05) / (dark + 0.05)

    for theme in themes:
        for ground in ("ground", "card", "tint"):
            for ink in ("ink", "quiet", "blue", "bad"):  # text
                assert contrast(theme[ink], theme[ground]) >= 4.5, (ink, ground)
        for mark in ("blue", "orange", "gray", "good"):  # marks
            assert contrast(theme[mark], theme["card"]) >= 3, mark
