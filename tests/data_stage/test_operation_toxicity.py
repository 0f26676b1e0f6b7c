"""Lists of words, whole in English and by characters in Chinese; a share decides."""

from __future__ import annotations

import pytest

from modelwright.data.operations import operation
from modelwright.errors import ModelwrightError


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("# mild ones, for this test\nBlockhead\nbag of bones\n木头人\n笨蛋\n", "utf-8")
    return str(path)


def hits(text: str, words: str, **settings: object) -> tuple[int, str | None]:
    row = {"id": "1", "text": text, "attributes": {}}
    reason = operation("toxicity", {"words": words, "own": False, **settings}).begin()(row)
    return row["attributes"]["toxicity.words"], reason


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("You blockhead, you BLOCKHEAD!", 2),
        ("The blockheads of blockheadville", 0),
        ("nothing but a bag of bones, sir", 3),
        ("a bag of old bones", 0),
        ("你这个木头人，大笨蛋！", 5),
        ("木头和人", 0),
        ("", 0),
    ],
)
def test_words_and_phrases(words, text, count):
    assert hits(text, words)[0] == count


def test_a_share_decides(words):
    long = "The sea was calm and the town was asleep. " * 60
    assert hits(long + "Blockhead, said the captain.", words)[1] is None
    assert hits("blockhead " * 5 + long[:200], words)[1] == "toxic words"
    assert hits("blockhead", words)[1] is None, "one word is not two"
    assert hits("blockhead", words, least=1)[1] == "toxic words"


def test_the_list_of_the_module_spares_shakespeare(data):
    text = data("tinyshakespeare/input.txt").read_text(encoding="utf-8")
    row = {"id": "1", "text": text, "attributes": {}}
    assert operation("toxicity").begin()(row) is None
    assert 0 < row["attributes"]["toxicity.words"] < 100  # bastards and whores, but no slurs


def test_the_words_are_part_of_the_fingerprint(words, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("dunce\n")
    first, second = (operation("toxicity", {"words": str(w)}).assets() for w in (words, other))
    assert first["words"] != second["words"]


def test_wrong_settings_are_refused(tmp_path):
    with pytest.raises(ModelwrightError, match="nothing to look for"):
        operation("toxicity", {"own": False})
    with pytest.raises(ModelwrightError, match=r"step toxicity: words: .*No such file"):
        operation("toxicity", {"words": str(tmp_path / "absent.txt")}).begin()
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ModelwrightError, match="is not UTF-8"):
        operation("toxicity", {"words": str(tmp_path / "bad.txt")}).begin()
