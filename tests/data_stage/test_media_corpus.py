"""Images, recordings and games through a whole corpus: checks, split, augmentation of train."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from modelwright.data.archive import gunzip, tar_members
from modelwright.data.corpus import records
from modelwright.data.corpus.build import build
from modelwright.data.corpus.spec import CorpusSpec

pytest.importorskip("pyarrow")
pytest.importorskip("PIL")
pytest.importorskip("soundfile")


@pytest.fixture(scope="module")
def sources(data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 flowers of which one is cut short, 8 sentences, 40 games of which one is damaged."""
    folder = tmp_path_factory.mktemp("sources")
    chosen = islice(tar_members(data("flowers12/flowers12.tar"), suffix=".jpg"), 0, 200, 10)
    for number, (name, content) in enumerate(chosen):
        place = folder / "flowers" / name.split("/")[1] / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if number else content[: len(content) // 2])
    (folder / "sentences").mkdir()
    for name, content in islice(tar_members(data("kathleen/audio.tar"), suffix=".flac"), 8):
        (folder / "sentences" / Path(name).name).write_bytes(content)
    (folder / "games").mkdir()
    games = gunzip(data("chess_pgn/Carlsen.pgn.gz")).decode("latin-1").replace("\r", "")
    found = games.split("\n\n[Event")[:40]
    found[7] = found[7].replace("\n\n1.", "\n\n1.e4 e4 1.", 1)
    (folder / "games" / "carlsen.pgn").write_text("\n\n[Event".join(found) + "\n")
    return folder


def spec(sources: Path) -> CorpusSpec:
    return CorpusSpec.model_validate(
        {
            "name": "media",
            "sources": [
                {"path": str(sources / name), "license": "tests only"}
                for name in ("flowers", "sentences", "games")
            ],
            "steps": [{"images": {"shortest": 100}}, {"audio": {"clipping": 0.1}}, "legal"],
            "split": {"validation": 0.2, "test": 0.2},
            "augment": ["flip", {"crop": {"padding": 8}}, {"noise": {"least": 15}}],
        }
    )


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for stage in ("write", "augment")
        for path in sorted((folder / "stages" / stage).rglob("*.parquet"))
    }


def all_rows(folder: Path, stage: str) -> list[dict[str, Any]]:
    return [
        row
        for path in sorted((folder / "stages" / stage).rglob("rows-*.parquet"))
        for row in records.rows(path)
    ]


def test_what_is_damaged_leaves_and_train_alone_is_augmented(sources: Path, tmp_path: Path) -> None:
    build(spec(sources), tmp_path / "one", say=lambda _: None)
    kept, made = all_rows(tmp_path / "one", "write"), all_rows(tmp_path / "one", "augment")
    counted = {m: sum(row["modality"] == m for row in kept) for m in ("image", "audio", "game")}
    assert counted == {"image": 19, "audio": 8, "game": 39}
    decisions = [
        row
        for path in sorted((tmp_path / "one" / "stages" / "read").rglob("decisions.parquet"))
        for row in records.rows(path)
    ]
    assert {row["reason"] for row in decisions if not row["kept"]} == {
        "image cannot be decoded", "illegal move",
    }  # fmt: skip
    splits = {row["id"]: row["split"] for row in kept}
    assert set(splits.values()) == {"train", "validation", "test"}
    assert made
    assert {row["modality"] for row in made} == {"image", "audio"}  # chess has no symmetries
    for row in made:
        assert splits[row["parents"][0]] == row["split"] == "train"
    build(spec(sources), tmp_path / "two", engine="pool", workers=2, say=lambda _: None)
    assert files(tmp_path / "two") == files(tmp_path / "one")
