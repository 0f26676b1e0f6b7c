"""A corpus from real text: same bytes on all engines, every row accounted for, work kept."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelwright.data.corpus import records, spec
from modelwright.data.corpus.build import build
from modelwright.data.corpus.open import corpus_rows
from modelwright.data.corpus.plan import plan
from modelwright.data.corpus.proof import prove_read, prove_write
from modelwright.data.corpus.tally import Ids, id_hash
from modelwright.data.corpus.unit import Commit
from modelwright.data.corpus.why import why
from modelwright.data.inputs import input_hashes
from modelwright.data.sources import read_rows
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.reporting.corpus_facts import collect
from tests.data_stage.corpora import LETTER, MODULES, finish, make_sources, pieces, start, tree


def quiet(line: str) -> None:
    """Say nothing."""


def made(
    description: Path, folder: Path, engine: str = "inline", workers: int = 1
) -> dict[str, Any]:
    return build(spec.read(description), folder, engine=engine, workers=workers, say=quiet)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources, and a finished corpus beside them that no test changes."""
    folder = tmp_path_factory.mktemp("library")
    made(make_sources(folder), folder / "corpus")
    return folder


@pytest.fixture
def copied(place: Path, tmp_path: Path) -> Path:
    """A copy of the finished corpus and its description, to be changed."""
    shutil.copytree(place / "corpus", tmp_path / "corpus")
    shutil.copy(place / "library.yaml", tmp_path / "library.yaml")
    return tmp_path


def commits(corpus: Path, stage: str) -> dict[str, dict[str, Any]]:
    return {p.stem: json.loads(p.read_bytes()) for p in (corpus / "stages" / stage).glob("*.json")}


def marked(corpus: Path) -> dict[str, tuple[str, int]]:
    """Unit -> mark and time of its commit record."""
    return {
        f"{p.parent.name}/{p.stem}": (json.loads(p.read_bytes())["mark"], p.stat().st_mtime_ns)
        for p in (corpus / "stages").glob("*/*.json")
    }


def redone(before: dict[str, tuple[str, int]], corpus: Path) -> set[str]:
    return {name.split("/")[0] for name, mark in marked(corpus).items() if before.get(name) != mark}


def test_a_pool_leaves_the_same_bytes(place: Path, tmp_path: Path):
    made(place / "library.yaml", tmp_path / "corpus", "pool", 2)
    assert tree(tmp_path / "corpus") == tree(place / "corpus")
    assert len(tree(place / "corpus")) > 100


def test_rows_are_kept_dropped_or_set_aside(place: Path):
    """Counted from the tables alone, without what the units say of themselves."""
    corpus = place / "corpus"
    given = {row["id"] for module in MODULES for row in pieces(module)}
    came, kept, final = set(), set(), set()
    for unit, commit in commits(corpus, "read").items():
        read = corpus / "stages" / "read" / unit
        decisions = list(records.rows(read / records.DECISIONS))
        assert {d["reason"] is None for d in decisions if d["kept"]} <= {True}
        came |= {d["id"] for d in decisions}
        kept |= {d["id"] for d in decisions if d["kept"]}
        ids = Ids()
        for decision in decisions:
            ids.add(id_hash(decision["id"]))
        assert commit["facts"]["in"] == ids.facts()
        assert [r["id"] for r in records.rows(read / records.RECORDS)] == [
            d["id"] for d in decisions if d["kept"]
        ]
    assert len(came) == len(given) + 2 * len(MODULES) + 2
    for unit in commits(corpus, "write"):
        path = corpus / "stages" / "write" / unit / "rows-00000.parquet"
        rows = list(records.rows(path))
        assert {row["split"] for row in rows} <= {"train", "validation", "test"}
        assert not final & {row["id"] for row in rows}
        final |= {row["id"] for row in rows}
    left = set()
    for path in (corpus / "stages" / "resolve" / "all").glob("*.parquet"):
        left |= {fate["id"] for fate in records.rows(path) if not fate["kept"]}
    assert final | left == kept
    assert not final & left


def test_planted_copies_leave_and_say_of_what(place: Path):
    fates = {}
    for path in (place / "corpus" / "stages" / "resolve" / "all").glob("*.parquet"):
        fates |= {fate["id"]: fate for fate in records.rows(path)}
    for module in MODULES:
        name = f"pieces/{module.__name__}.jsonl:{module.__name__}"
        copy, near = fates[f"{name}:copy"], fates[f"{name}:near"]
        assert (copy["kept"], copy["reason"]) == (False, "exact duplicate")
        assert copy["kept_id"] == f"{name}:0"
        assert (near["kept"], near["reason"]) == (False, "near duplicate")
        assert near["kept_id"] == f"{name}:40"
        assert near["similarity"] > 0.8


def test_a_row_lost_or_doubled_fails_the_proof(place: Path):
    corpus = place / "corpus"
    read = {n: Commit(**c) for n, c in commits(corpus, "read").items()}
    written = {n: Commit(**c) for n, c in commits(corpus, "write").items()}
    prove_write(read, written)
    name = next(n for n, c in written.items() if c.facts["kept"]["rows"] > 1)
    facts = written[name].facts
    other = facts | {"kept": facts["kept"] | {"ids": "0123456789abcdef"}}  # the count is right
    with pytest.raises(CorruptError, match=f"write/{name}"):
        prove_write(read, written | {name: Commit(name, "", {}, other)})
    with pytest.raises(CorruptError, match="rows came in"):
        prove_write(read, {n: c for n, c in written.items() if n != name})
    description = spec.read(place / "library.yaml")
    lost = read[name].facts | {"in": {"rows": 0, "ids": "0" * 16}}
    with pytest.raises(CorruptError, match=f"read/{name}"):
        prove_read(description, [], [], {name: Commit(name, "", {}, lost)}, corpus)


def test_masked_text_is_what_is_kept(place: Path):
    texts = {row["id"]: row["text"] for row in corpus_rows(place / "corpus")}
    letter = next(text for id_, text in texts.items() if "letter" in id_)
    assert "alice@example.com" in LETTER
    assert "alice@example.com" not in letter
    assert letter.startswith("Write to [EMAIL]")


@pytest.mark.parametrize(
    ("old", "new", "stages"),
    [
        ("seed: 3", "seed: 3", set()),
        ("name: library", "name: books", set()),
        ("validation: 0.2, test: 0.2", "validation: 0.4, test: 0.4",
         {"resolve", "write", "tokenizer", "tokens"}),
        ("vocabulary: 400", "vocabulary: 300", {"tokenizer", "tokens"}),
        ("license: CC0-1.0", "license: MIT", {"read", "write"}),
    ],
)  # fmt: skip
def test_a_change_redoes_what_depends_on_it(copied: Path, old: str, new: str, stages: set[str]):
    before = marked(copied / "corpus")
    path = copied / "library.yaml"
    path.write_text(path.read_text().replace(old, new))
    made(path, copied / "corpus")
    changed = redone(before, copied / "corpus")
    assert stages <= changed | {"tokenizer", "tokens"} if "license" in old else changed == stages
    if "license" in old:  # only the source that it is the licence of
        after = marked(copied / "corpus")
        assert {n for n in after if n.startswith("read/pieces") and after[n] != before[n]} == set()


def test_a_new_step_gives_what_a_fresh_run_gives(copied: Path, tmp_path: Path):
    path = copied / "library.yaml"
    path.write_text(path.read_text().replace("[repair, pii]", "[pii]"))
    made(path, copied / "corpus")
    made(path, tmp_path / "fresh")
    assert tree(copied / "corpus") == tree(tmp_path / "fresh")
    assert (copied / "corpus" / "previous.json").is_file()


def test_an_input_that_is_gone_leaves_no_trace(tmp_path: Path):
    path = make_sources(tmp_path / "in", MODULES[:3])
    made(path, tmp_path / "corpus")
    (tmp_path / "in" / "pieces" / "calendar.jsonl").unlink()
    made(path, tmp_path / "corpus")
    made(path, tmp_path / "fresh")
    assert tree(tmp_path / "corpus") == tree(tmp_path / "fresh")


def test_an_id_that_two_files_make_is_refused(tmp_path: Path):
    """The same id from a file and a key: "a.jsonl" with "b.jsonl:1", "a.jsonl:b.jsonl" with "1"."""
    path = make_sources(tmp_path / "in", MODULES[:1])
    pieces_ = tmp_path / "in" / "pieces"
    (pieces_ / "a.jsonl").write_text('{"id": "b.jsonl:1", "text": "one text"}\n')
    (pieces_ / "a.jsonl:b.jsonl").write_text('{"id": "1", "text": "and another"}\n')
    with pytest.raises(ModelwrightError, match=r"two rows have the id 'pieces/a.jsonl:b.jsonl:1'"):
        made(path, tmp_path / "corpus")


def test_redirects_are_counted_and_told(tmp_path: Path, data: Callable[[str], Path]):
    path = tmp_path / "wiki.yaml"
    path.write_text(f"sources: [{{path: {data('wiki_xml')}, name: wiki}}]\n")
    made(path, tmp_path / "corpus")
    (commit,) = commits(tmp_path / "corpus", "read").values()
    facts = commit["facts"]
    assert facts["passed"] == {"redirect": 99, "page of another namespace": 1}
    assert facts["items"] == 206 == facts["in"]["rows"] + facts["bad"] + 100
    first = collect(tmp_path / "corpus")["waterfall"][0]
    assert (first["rows_in"], first["rows_out"]) == (206, 106)
    assert first["dropped"]["redirect"] == {"rows": 99, "bytes": 0}
    lost = facts | {"items": 207}
    with pytest.raises(CorruptError, match="the reader gave 207 records and 206 of them"):
        prove_read(spec.read(path), [], [], {"u": Commit("u", "", {}, lost)}, tmp_path / "corpus")


def test_why_tells_every_fate(place: Path):
    corpus = place / "corpus"
    name = "pieces/shlex.jsonl:shlex"
    kept = why(corpus, f"{name}:80")
    assert "kept" in kept[0]
    assert any(line.startswith("resolve: kept, in ") for line in kept)
    assert kept[-1].startswith("write: ")
    gone = why(corpus, f"{name}:copy")
    assert gone[-1].startswith(f"resolve: left: exact duplicate of {name}:0")
    masked = why(corpus, "notes/letter.txt:1")
    assert any("pii.email=1" in line for line in masked)
    with pytest.raises(ModelwrightError, match=rf"did you mean '{name}:80'"):
        why(corpus, f"{name}:81")
    with pytest.raises(ModelwrightError, match="ids begin with a source: notes, pieces"):
        why(corpus, "nobody/1")
    with pytest.raises(ModelwrightError, match="no corpus"):
        why(place / "pieces", "x")


def test_a_recipe_reads_a_corpus(place: Path, copied: Path):
    rows = list(read_rows(str(place / "corpus")))
    assert {row["split"] for row in rows} <= {"train", "validation", "test"}
    assert all(isinstance(row["text"], str) and row["group"] for row in rows)
    assert (
        input_hashes(str(place / "corpus")).popitem()[1]
        == (input_hashes(str(copied / "corpus")).popitem()[1])
    )
    (copied / "corpus" / "corpus.json").unlink()
    with pytest.raises(ModelwrightError, match="not finished; run `modelwright data run`"):
        list(read_rows(str(copied / "corpus")))


def test_bad_records_are_set_aside_within_the_budget(tmp_path: Path):
    path = make_sources(tmp_path, MODULES[:1])
    bad = tmp_path / "pieces" / "bad.jsonl"
    good = [
        json.dumps({"id": i, "text": f"the line of number {i}, and what it says"})
        for i in range(97)
    ]
    wrong = ['{"text": ', "[1, 2]", '{"words": 1}']
    bad.write_text("\n".join([*good[:50], wrong[0], *good[50:], *wrong[1:]]) + "\n")
    with pytest.raises(
        ModelwrightError, match=r"source pieces: \d+ of \d+ records are bad"
    ) as told:
        made(path, tmp_path / "corpus")
    assert "bad.jsonl: line 51" in str(told.value)
    assert "quarantine.jsonl" in str(told.value)
    assert not (tmp_path / "corpus" / "corpus.json").exists()
    before = marked(tmp_path / "corpus")
    path.write_text(
        path.read_text().replace("    license: PSF", "    budget: 0.1\n    license: PSF")
    )
    made(path, tmp_path / "corpus")
    assert "read" not in redone(before, tmp_path / "corpus")
    unit = next(c for c in commits(tmp_path / "corpus", "read").values() if c["facts"]["bad"])
    assert unit["facts"]["in"]["rows"] == 97
    listed = (
        tmp_path / "corpus" / "stages" / "read" / unit["unit"] / "quarantine.jsonl"
    ).read_text()
    assert len(listed.splitlines()) == unit["facts"]["bad"] == 3


def test_a_row_that_breaks_a_step_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Fragile:
        def begin(self) -> Any:
            def step(row: dict[str, Any]) -> None:
                if row["id"].endswith(":40"):
                    raise ValueError(f"cannot take {row['text']}")

            return step

    monkeypatch.setattr("modelwright.data.corpus.read.make_operation", lambda *_: Fragile())
    path = make_sources(tmp_path, MODULES[:1])
    with pytest.raises(ModelwrightError, match="step repair: ValueError at test_corpus") as told:
        made(path, tmp_path / "corpus")
    assert "cannot take" not in str(told.value)  # it may quote what was to be masked
    path.write_text(
        path.read_text().replace("    license: PSF", "    budget: 0.5\n    license: PSF")
    )
    made(path, tmp_path / "corpus")
    (line, *_) = why(tmp_path / "corpus", "pieces/argparse.jsonl:argparse:40")
    assert "set aside: step repair: ValueError" in line


def test_two_rows_of_one_id_are_refused(tmp_path: Path):
    path = make_sources(tmp_path, MODULES[:1])
    twice = json.dumps({"id": "a", "text": "the same name for two rows"}) + "\n"
    (tmp_path / "pieces" / "twice.jsonl").write_text(twice * 2)
    with pytest.raises(ModelwrightError, match="two rows have the id 'pieces/twice.jsonl:a'"):
        made(path, tmp_path / "corpus")


def test_an_empty_or_missing_source_is_named(tmp_path: Path):
    path = make_sources(tmp_path, MODULES[:1])
    (tmp_path / "pieces" / "empty.jsonl").touch()
    with pytest.raises(ModelwrightError, match="empty"):
        made(path, tmp_path / "corpus")
    path.write_text(path.read_text().replace("/pieces", "/peices"))
    with pytest.raises(ModelwrightError, match="did you mean 'pieces'"):
        made(path, tmp_path / "corpus")


def test_a_damaged_table_is_noticed(copied: Path):
    corpus = copied / "corpus"
    unit = next(n for n, c in commits(corpus, "write").items() if c["facts"]["kept"]["rows"] > 5)
    path = corpus / "stages" / "write" / unit / "rows-00000.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(CorruptError, match=r"rows-00000\.parquet: damaged"):
        list(corpus_rows(corpus))


def test_the_plan_tells_what_is_done(place: Path, tmp_path: Path):
    lines = plan(spec.read(place / "library.yaml"), place / "corpus", quiet)
    units = len(MODULES) + 2
    assert f"read: {units} units, {units} done, 0 to do" in lines
    fresh = plan(spec.read(place / "library.yaml"), tmp_path / "none", quiet)
    assert f"read: {units} units, 0 done, {units} to do" in fresh
    assert not (tmp_path / "none").exists()
    assert "disk needed" in fresh[-1]


def test_no_torch_in_a_worker():
    """Its second of importing and its memory would be paid by every worker."""
    process = start("plan", "nowhere.yaml")
    assert finish(process)[0] == 2
    import subprocess

    code = "import sys, modelwright.data.corpus.worker, modelwright.data.corpus.read\n"
    code += "print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
