"""The report's numbers about labels, pictures, recordings and packing, from real media."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from modelwright.data.archive import tar_members
from modelwright.data.corpus.build import build
from modelwright.data.corpus.spec import CorpusSpec
from modelwright.data.token_shards import TokenShards
from modelwright.reporting.corpus import JSON, PAGE, write_report
from modelwright.reporting.corpus_contents import SUSPECTS

pytest.importorskip("pyarrow")
pytest.importorskip("PIL")
pytest.importorskip("soundfile")


@pytest.fixture(scope="module")
def corpus(data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Flowers of which one is damaged and one a copy, 6 recordings, 90 labelled texts."""
    folder = tmp_path_factory.mktemp("sources")
    chosen = islice(tar_members(data("flowers12/flowers12.tar"), suffix=".jpg"), 0, 240, 12)
    for number, (name, content) in enumerate(chosen):
        place = folder / "flowers" / name.split("/")[1] / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if number else content[: len(content) // 2])
    (folder / "sentences").mkdir()
    for name, content in islice(tar_members(data("kathleen/audio.tar"), suffix=".flac"), 6):
        (folder / "sentences" / Path(name).name).write_bytes(content)
    rows = [
        {"id": str(i), "text": f"{i} words " * (1 + i % 40), "label": "good" if i % 3 else "bad"}
        for i in range(90)
    ]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = tmp_path_factory.mktemp("corpora") / "contents"
    sources = [{"path": str(folder / n)} for n in ("flowers", "sentences")]
    description = {
        "name": "contents",
        "sources": [*sources, {"path": str(folder / "texts.jsonl")}],
        "steps": ["images", {"audio": {"clipping": 0.5}}],
        "deduplicate": {"threshold": 1, "images": 6},
        "split": {"validation": 0.2, "test": 0.2},
        "tokenizer": {"kind": "bpe", "vocabulary": 300},
    }
    build(CorpusSpec.model_validate(description), made, say=lambda _: None)
    suspect = {"id": "texts/3", "given": "bad", "suggested": "good"}
    doubts = {"given_probability": 0.1, "suggested_probability": 0.9}
    (made / SUSPECTS).write_text(json.dumps(suspect | doubts) + "\n")
    write_report(made)
    return made


@pytest.fixture(scope="module")
def report(corpus: Path) -> dict:
    return json.loads((corpus / JSON).read_text())


def test_rows_by_kind_are_all_rows(report):
    kinds = report["kinds"]
    assert kinds["text"] == 90
    assert kinds["image image/jpeg"] in (18, 19)  # some flowers are in the set twice
    assert kinds["audio audio/flac"] == 6
    assert sum(kinds.values()) == report["rows"]["in the corpus"]


def test_labels_by_part_are_all_labelled_rows(report):
    labels = report["labels"]
    assert sum(labels["good"].values()) == 60
    assert sum(labels["bad"].values()) == 30
    assert list(labels)[:2] == ["good", "bad"]
    for part, said in report["splits"].items():
        assert sum(of.get(part, 0) for of in labels.values()) <= said["rows"]
    assert [s["id"] for s in report["suspects"]] == ["texts/3"]


def test_rates_and_what_cannot_be_decoded(report):
    assert sum(report["rates"].values()) == 6
    assert all(float(rate) >= 8000 for rate in report["rates"])
    assert sum(report["histograms"]["images.problem"]["values"].values()) == 1


def test_packing_is_of_all_train_tokens(corpus, report):
    shards = TokenShards(corpus, "train")
    assert [line["length"] for line in report["packing"]] == [1024, 2048, 4096]
    for line in report["packing"]:
        assert line["tokens"] == len(shards.tokens)
        assert line["documents"] == line["of"] == len(shards)
        assert line["tokens"] == pytest.approx(
            line["rows"] * line["length"] * (1 - line["padding"])
        )


def test_the_page_shows_them(corpus):
    html = (corpus / PAGE).read_text(encoding="utf-8")
    for said in (
        "1 labels look wrong",
        "audio.seconds (seconds)",
        "Best-fit packing of",
        "texts/3",
    ):
        assert said in html
    assert "last" in html.partition("Kinds of rows, pictures and recordings</h2>")[2][:300]
