"""Real evaluation sets planted in real novels, English and Chinese: all are found, nothing else."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.data import evaluation_sets
from modelwright.data.grams import GramIndex, folded_words
from modelwright.data.operations import operation
from modelwright.errors import ModelwrightError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "modelwright" / "evaluation-sets"


@pytest.fixture
def novel(data) -> str:
    with tarfile.open(data("english_novels/novels.tar.xz")) as archive:
        member = next(m for m in archive if m.isfile() and m.size > 200_000)
        stored = archive.extractfile(member)
        assert stored is not None
        return stored.read().decode("utf-8")


def contaminated(step, text: str) -> tuple[str | None, list[str]]:
    row = {"id": "1", "text": text, "attributes": {}}
    return step(row), row["attributes"].get("decontaminate.sets", [])


def test_planted_problems_of_gsm8k_are_found(data, novel):
    path = data("gsm8k/train.jsonl.gz")
    problems = [
        json.loads(line)["question"] for line in gzip.decompress(path.read_bytes()).splitlines()
    ]
    sets = {"gsm8k": str(path), "humaneval": str(data("humaneval/HumanEval.jsonl.gz"))}
    step = operation("decontaminate", {"sets": sets}).begin()
    pieces = [novel[i : i + 3000] for i in range(0, 150_000, 3000)]
    found = {"planted": 0, "clean": 0}
    for piece, problem in zip(pieces, problems, strict=False):
        shouted = f"{piece[:1500]}\n\n  {problem.upper().replace(' ', '  ')}\n{piece[1500:]}"
        reason, names = contaminated(step, shouted)
        found["planted"] += reason == "in an evaluation set" and names == ["gsm8k"]
        found["clean"] += contaminated(step, piece) == (None, [])
    print(found, "of", len(pieces))
    assert found == {"planted": 50, "clean": 50}


def test_chinese_by_characters(data):
    stored = json.loads(gzip.decompress(data("xquad/xquad.zh.json.gz").read_bytes()))
    context = stored["data"][0]["paragraphs"][0]["context"]
    sets = {"xquad": str(data("xquad/xquad.zh.json.gz"))}
    step = operation("decontaminate", {"sets": sets}).begin()
    assert contaminated(step, "昨天的新闻里说：" + context[5:40] + "，真有意思。")[1] == ["xquad"]
    assert contaminated(step, "昨天的新闻里没有说什么特别的事情，大家都觉得很无聊。")[1] == []


@pytest.fixture
def eval_set(tmp_path) -> str:
    path = tmp_path / "set.jsonl"
    long = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    rows = [{"q": long, "meta": {"more": ["alpha beta gamma delta epsilon zeta eta theta iota"]}}]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\nnull\n", "utf-8")
    return str(path)


def test_runs_and_short_texts(eval_set):
    step = operation("decontaminate", {"sets": {"s": eval_set}}).begin()
    inside = "two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    assert contaminated(step, f"He counted: {inside}.")[0] == "in an evaluation set"
    assert contaminated(step, f"He counted: {inside[4:]}.")[0] is None, "twelve words are too few"
    whole = "Alpha, beta; gamma delta -- epsilon zeta eta theta iota"
    assert contaminated(step, f"So: {whole}!")[0] == "in an evaluation set"
    assert contaminated(step, whole[:-5])[0] is None, "a short text counts as a whole"


def test_share_mark_and_cut(eval_set):
    run = "one two three four five six seven eight nine ten eleven twelve thirteen"
    before, after = (" ".join(f"{w}{i}" for i in range(100)) for w in ("a", "b"))
    text = f"{before}. {run}. {after}"
    lenient = operation("decontaminate", {"sets": {"s": eval_set}, "share": 0.1}).begin()
    assert contaminated(lenient, text) == (None, ["s"])
    marked = {"id": "1", "text": text, "attributes": {}}
    assert (
        operation("decontaminate", {"sets": {"s": eval_set}, "action": "mark"}).begin()(marked)
        is None
    )
    assert marked["text"] == text and marked["attributes"]["decontaminate.share"] > 0
    settings = {"sets": {"s": eval_set}, "action": "cut", "margin": 3}
    row = {"id": "1", "text": text, "attributes": {}}
    assert operation("decontaminate", settings).begin()(row) is None
    assert row["text"] == " ".join(f"a{i}" for i in range(97)) + "\n" + " ".join(
        f"b{i}" for i in range(3, 100)
    )
    assert (
        operation("decontaminate", settings | {"least": 195}).begin()(dict(row, text=text))
        == "in an evaluation set"
    )


def test_the_index_is_made_once(eval_set, cache, monkeypatch):
    op = operation("decontaminate", {"sets": {"s": eval_set}})
    op.begin()
    (stored,) = cache.iterdir()
    assert stored.stem == op.assets()["sets"]
    monkeypatch.setattr(evaluation_sets, "build", None)  # would raise
    op.begin()
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parents[1]))
    stored.write_bytes(stored.read_bytes()[:100])  # damaged: made again
    step = op.begin()
    text = Path(eval_set).read_text()
    assert contaminated(step, text)[0] == "in an evaluation set"
    Path(eval_set).write_text(text.replace("one", "uno"))
    assert op.assets()["sets"] != stored.stem, "other content, other fingerprint"


@pytest.mark.parametrize(
    "suffix", [".json", ".jsonl", ".csv", ".tsv", ".txt", ".parquet", ".jsonl.gz"]
)
def test_kinds_of_files(tmp_path, suffix):
    text = "one two three four five six seven eight nine"
    path = tmp_path / f"x{suffix}"
    if suffix == ".parquet":
        pa = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pa.table({"q": [text]}), path)
    else:
        content = {
            ".csv": f'q,a\n"{text}",3\n',
            ".tsv": f"q\ta\n{text}\t3\n",
            ".txt": f"x\n{text}\n",
        }
        plain = content.get(suffix, json.dumps({"q": [{"deep": text}]}) + "\n").encode()
        path.write_bytes(gzip.compress(plain) if suffix.endswith(".gz") else plain)
    assert text in list(evaluation_sets.texts_of(path))
    assert text in list(evaluation_sets.texts_of(tmp_path))


def test_wrong_sets_are_refused(tmp_path):
    with pytest.raises(ModelwrightError, match="name at least one"):
        operation("decontaminate").begin()
    with pytest.raises(ModelwrightError, match=r"sets: gone: .* is not there"):
        operation("decontaminate", {"sets": {"gone": str(tmp_path / "gone")}}).begin()
    (tmp_path / "bad.jsonl").write_text("{oops\n")
    with pytest.raises(ModelwrightError, match="cannot be read as an evaluation set"):
        operation("decontaminate", {"sets": {"bad": str(tmp_path / "bad.jsonl")}}).begin()
    (tmp_path / "short.txt").write_text("too short\n")
    with pytest.raises(ModelwrightError, match="no text of 8 words or more"):
        operation("decontaminate", {"sets": {"short": str(tmp_path / "short.txt")}}).begin()


WORDS = st.lists(st.sampled_from("abcd中"), max_size=40).map(" ".join)


@given(st.lists(WORDS, min_size=1, max_size=4), WORDS, st.integers(1, 4), st.integers(0, 3))
def test_the_index_finds_what_a_plain_search_finds(texts, text, head, more):
    n = head + more
    known = set()
    for number, one in enumerate(texts):
        words = one.split()
        length = min(n, len(words))
        if length >= head:
            known |= {
                (tuple(words[i : i + length]), number) for i in range(len(words) - length + 1)
            }
    index = GramIndex.of([(folded_words(t)[0], n, i) for i, t in enumerate(texts)], head)
    words = text.split()
    found = index.find(folded_words(text)[0])
    got = set()
    for start, length, marks in zip(
        *map(np.ndarray.tolist, (found.starts, found.lengths, found.marks)), strict=True
    ):
        got |= {(start, length, i) for i in range(len(texts)) if marks >> i & 1}
    wanted = {
        (start, len(run), number)
        for run, number in known
        for start in range(len(words) - len(run) + 1)
        if tuple(words[start : start + len(run)]) == run
    }
    assert got == wanted
