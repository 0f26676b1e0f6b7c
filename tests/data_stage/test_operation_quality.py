"""Each rule by a text that breaks it alone; real prose, English and Chinese, passes."""

from __future__ import annotations

import csv
import gzip
import io
import json

import pytest

from modelwright.data.operations import operation
from modelwright.data.operations.quality import without_page_lines
from modelwright.errors import ModelwrightError

PROSE = (
    "The ship that left the harbour in the morning had to be back with the tide. Nobody on the "
    "quay believed it. Old men looked at the clouds, and the women counted their children twice. "
    "When evening came a light was seen far out, moving slowly, and every bell in the town rang. "
    "Some say it was the captain who saved them; others speak of luck and of a good wind."
)
ZH = (
    "那艘船早上离开了港口，傍晚之前必须回来。码头上没有一个人相信这件事。老人们看着天上的云，"
    "女人们把孩子数了两遍。天黑的时候，远处出现了一点灯光，慢慢地移动，全城的钟都响了起来。"
    "有人说是船长救了大家，也有人说是因为运气和一阵好风。"
)


def judged(text: str, **settings: object) -> str | None:
    row = {"id": "1", "text": text, "attributes": {}}
    return operation("quality", settings).begin()(row)


def many(form: str) -> str:
    """Sixty times the form with other letters."""
    return " ".join(form.format(chr(97 + i % 26), chr(98 + i // 26)) for i in range(60))


BROKEN = {
    "gopher: too few words": "Short and sweet, with all that the rules ask of the text.",
    "gopher: words too long": many("internationalisation{}{}") + " the of",
    "gopher: words too short": many("{} {}") + " the of and",
    "gopher: too many symbols": PROSE.replace(" the", " # # the"),
    "gopher: too many bullets": "\n".join(f"- {part}." for part in PROSE.split(". ")),
    "gopher: too many ellipses": PROSE.replace(". ", "...\n"),
    "gopher: too few words with letters": PROSE + "".join(f" {i}" for i in range(100, 140)),
    "gopher: too few stop words": many("ship{} sea{}"),
    "gopher: repeated lines": PROSE.replace(". ", ".\n") + "\nYes, sir.\n" * 4,
    "gopher: repeated phrases": PROSE + " " + PROSE[:200],
    "embedded data": PROSE + " " + "QUJD" * 300,
    "c4: curly brackets": PROSE + "\nThe code is {x} and that was all of it.",
    "c4: lorem ipsum": PROSE + "\nLorem ipsum stands for words that nobody has written yet.",
    "c4: too few sentences": "The ship left and nobody on the quay believed that it would be back.",
    "c4: no sentence": "Home\nAbout us\nContact",
    "fineweb: lines without an end": "\n".join(PROSE.split()) + "\nEnd.",
    "fineweb: short lines": PROSE.replace("e ", "e.\n"),
    "fineweb: repeated lines": PROSE.replace(". ", ".\n") + "\n" + PROSE.split(". ")[1] + ".",
    "fineweb: a list": PROSE.replace("e ", "e.\n\n\n"),
}  # fmt: skip


@pytest.mark.parametrize("reason", BROKEN)
def test_each_rule(reason):
    rules = reason.partition(":")[0] if ":" in reason else "gopher"
    settings: dict[str, object] = {"rules": rules}
    if reason == "fineweb: a list":
        settings["max_short_lines"] = 1.0
    assert judged(BROKEN[reason], **settings) == reason


@pytest.mark.parametrize("rules", ["gopher", "c4", "fineweb", ["gopher", "c4", "fineweb"]])
def test_prose_passes(rules):
    assert judged(PROSE, rules=rules) is None
    assert judged(ZH, rules=rules) is None


def test_chinese_is_judged_by_its_own_measures():
    assert judged(ZH * 2) == "gopher: repeated phrases"
    assert judged("港口船只码头灯光老人孩子" * 9) is not None
    poem = (
        "床前明月光，疑似地上霜。举头望明月，低头思故乡。春眠觉晓，处处闻啼鸟。"
        "夜来风雨声，花落知多少。白日依山尽，黄河入海流。欲穷千里目，更上层楼。"
    )
    assert judged(poem) == "gopher: too few stop words"
    assert judged(poem, min_stop_words=0) is None


def test_measures_are_attributes():
    row = {"id": "1", "text": PROSE, "attributes": {}}
    assert operation("quality").begin()(row) is None
    attributes = row["attributes"]
    assert attributes["quality.words"] == len(PROSE.replace(";", "").split())
    assert attributes["quality.mean_word"] == pytest.approx(4.2, abs=0.3)
    assert attributes["quality.stop_words"] == 7
    bare = {"id": "1", "text": PROSE, "attributes": {}}
    operation("quality", {"measures": False}).begin()(bare)
    assert bare["attributes"] == {}


def test_limits_can_be_changed():
    assert judged("The ship is back with the tide.", min_words=5) is None
    assert judged(PROSE, min_words=500) == "gopher: too few words"


def test_lines_of_a_page_go():
    page = f"Home | About\n{PROSE}\nRead our privacy policy here, it is really good.\nMore...\n"
    row = {"id": "1", "text": page, "attributes": {}}
    assert operation("quality", {"rules": "c4"}).begin()(row) is None
    assert row["text"] == PROSE
    row = {"id": "1", "text": page, "attributes": {}}
    assert operation("quality", {"rules": "c4", "cut_lines": False}).begin()(row) is None
    assert row["text"] == page
    assert without_page_lines("他早上离开了港口。\n首页\n好。", 5) == "他早上离开了港口。"


def reviews(data) -> list[str]:
    content = gzip.decompress(data("chnsenticorp/ChnSentiCorp_htl_all.csv.gz").read_bytes())
    lines = csv.reader(io.StringIO(content.decode("utf-8")))
    return [line[1] for line in lines if len(line) > 1 and len(line[1]) >= 150]


def test_few_real_chinese_texts_repeat_themselves(data):
    step = operation("quality").begin()
    told = [step({"id": "1", "text": text, "attributes": {}}) for text in reviews(data)]
    phrases = sum(t in ("gopher: repeated phrases", "gopher: a frequent phrase") for t in told)
    print(f"{phrases} of {len(told)} reviews leave for their phrases")
    assert len(told) > 1000
    assert phrases <= 0.01 * len(told)


def test_real_web_pages_pass_as_c4_did(data):
    lines = gzip.decompress(data("web_text_demo/c4_demo.jsonl.gz").read_bytes()).splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    for rules, least in (("c4", 0.95), ("gopher", 0.8), ("fineweb", 0.95)):
        step = operation("quality", {"rules": rules}).begin()
        kept = sum(step({"id": "1", "text": text}) is None for text in texts)
        print(f"{rules}: {kept} of {len(texts)} stay")
        assert kept >= least * len(texts)


def test_unknown_rules_are_refused():
    with pytest.raises(ModelwrightError, match=r"no rules 'goper' \(did you mean 'gopher'\?\)"):
        operation("quality", {"rules": "goper"})


def test_the_margin_says_how_near_a_text_came_to_leaving():
    words = len(PROSE.split())
    found = {}
    for least in (words - 2, words, words + 10):
        step = operation("quality", {"min_words": least})
        row = {"id": "1", "text": PROSE, "attributes": {}}
        reason = step.begin()(row)
        found[least] = (reason, row["attributes"]["quality.margin"])
        assert step.limits()["quality.words"] == [least, 100_000]
    assert found[words] == (None, 0)
    assert found[words - 2] == (None, pytest.approx(2 / (words - 2), abs=1e-4))
    reason, margin = found[words + 10]
    assert reason == "gopher: too few words"
    assert margin == pytest.approx(-10 / (words + 10), abs=1e-4)


def test_limits_are_those_of_the_chosen_rules_of_both_kinds_of_text():
    limits = operation("quality", {"rules": ["c4", "fineweb"]}).limits()
    assert "quality.words" not in limits
    assert limits["quality.sentences"] == [3]
    assert limits["quality.repeated_line_chars"] == [0.01]
    assert operation("quality", {}).limits()["quality.repeated_5"] == [0.15, 0.35]
    measured = {"id": "1", "text": PROSE, "attributes": {}}
    operation("quality", {"rules": ["gopher", "c4", "fineweb"]}).begin()(measured)
    every = operation("quality", {"rules": ["gopher", "c4", "fineweb"]}).limits()
    assert set(every) <= set(measured["attributes"])
