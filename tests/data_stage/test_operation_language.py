"""Languages of real sentences and paragraphs, by scripts, function words and the model."""

from __future__ import annotations

import gzip
import json

import pytest

from modelwright.data.operations import operation
from modelwright.data.operations.language import language_of
from modelwright.errors import ModelwrightError


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("今天天气很好，我们去公园散步。", "zh"),
        ("今天使用 Python 和 PyTorch 训练 language model 的方法。", "zh"),
        ("今日は天気がいいので、公園を散歩しました。", "ja"),
        ("한국어 문장은 띄어쓰기를 합니다.", "ko"),
        ("Это обычное русское предложение, в котором всё понятно.", "ru"),
        ("Це звичайне українське речення, у якому все зрозуміло.", "uk"),
        ("Das ist ein ganz gewöhnlicher deutscher Satz über das Wetter.", "de"),
        ("C'est une phrase française tout à fait ordinaire sur la pluie.", "fr"),
    ],
)
def test_sentences(text, language):
    assert language_of(text)[0] == language


def test_texts_without_letters_are_unsure():
    assert language_of("123 456 !!! \n") == ("", 0.0)
    row = {"id": "1", "text": "123", "attributes": {}}
    assert operation("language").begin()(row) == "language unsure"


@pytest.mark.parametrize("name", ["en", "zh", "de", "es"])
def test_paragraphs_of_xquad(data, name):
    stored = json.loads(gzip.decompress(data(f"xquad/xquad.{name}.json.gz").read_bytes()))
    articles = stored["data"]
    texts = [p["context"] for article in articles for p in article["paragraphs"]]
    right = sum(language_of(text[:1000])[0] == name for text in texts)
    print(f"{name}: {right} of {len(texts)} paragraphs")
    assert len(texts) == 180
    assert right >= 0.99 * len(texts)


def test_keep_and_minimum():
    step = operation("language", {"keep": ["en", "zh"]}).begin()
    rows = [
        ("The boat that left the harbour of the town has to be back with the tide.", None),
        ("Das Schiff verließ am Morgen den Hafen und kam nie wieder.", "language not kept"),
        ("港口的船早上离开了。", None),
    ]  # fmt: skip
    for text, reason in rows:
        row = {"id": "1", "text": text, "attributes": {}}
        assert step(row) == reason
        assert 0 < row["attributes"]["language.confidence"] <= 1
    strict = operation("language", {"minimum": 1.0}).begin()
    assert strict({"id": "1", "text": rows[1][0], "attributes": {}}) == "language unsure"


def test_only_the_beginning_is_looked_at():
    text = "今天天气很好。" * 5 + "This is a long English text about nothing. " * 100
    row = {"id": "1", "text": text, "attributes": {}}
    operation("language", {"prefix": 35}).begin()(row)
    assert row["attributes"]["language.language"] == "zh"


def test_wrong_settings_are_refused():
    with pytest.raises(ModelwrightError, match="'english' is no ISO 639 code"):
        operation("language", {"keep": ["english"]})
    with pytest.raises(ModelwrightError, match="language 'xx' is not known"):
        operation("language", {"keep": ["xx"]}).begin()
    with pytest.raises(ModelwrightError, match="minimum must be in 0..1"):
        operation("language", {"minimum": 2})
