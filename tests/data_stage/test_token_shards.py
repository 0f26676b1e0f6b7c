"""Token shards: what was written is read, and whatever has changed since is found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.token_files import HEADER, Shard, ShardWriter, dtype_of
from modelwright.data.token_shards import Joined, TokenShards
from modelwright.errors import CorruptError, ModelwrightError

MARK = bytes(range(16))


def write(folder: Path, name: str, documents: list[list[int]], *, vocabulary=1000, masks=None):
    folder.mkdir(exist_ok=True, parents=True)
    with ShardWriter(folder, name, vocabulary=vocabulary, fingerprint=MARK) as writer:
        for i, ids in enumerate(documents):
            mask = None if masks is None else masks[i]
            learn = None if mask is None else np.array(mask, dtype=np.bool_)
            writer.add(np.array(ids, dtype=np.uint32), f"s{i % 2}", 10 * i, learn)
        return writer.close()


DOCUMENTS = st.lists(st.lists(st.integers(0, 999), min_size=1, max_size=9), min_size=1, max_size=9)


@settings(max_examples=60, deadline=None)
@given(shards=st.lists(DOCUMENTS, min_size=1, max_size=4), picks=st.data())
def test_what_was_written_is_read(tmp_path_factory, shards, picks):
    folder = tmp_path_factory.mktemp("shards")
    for i, documents in enumerate(shards):
        write(folder, f"part-{i}", documents)
    stream = [t for documents in shards for d in documents for t in d]
    found = TokenShards(folder)
    found.verify()
    assert len(found) == sum(map(len, shards)) and len(found.tokens) == len(stream)
    everything = [d for documents in shards for d in documents]
    assert [found.document(i).tolist() for i in range(len(found))] == everything
    places = [(f"s{i % 2}", 10 * i) for documents in shards for i in range(len(documents))]
    assert list(found.places()) == places
    low, high = sorted(picks.draw(st.tuples(*[st.integers(0, len(stream))] * 2)))
    assert found.tokens[low:high].tolist() == stream[low:high]
    where = picks.draw(st.lists(st.integers(0, len(stream) - 1), min_size=1, max_size=12))
    index = np.array(where).reshape(-1, 1)
    assert found.tokens[index].ravel().tolist() == [stream[i] for i in where]
    assert found.learn[index].all() and found.learn[index].shape == index.shape
    size = picks.draw(st.integers(1, 20))
    assert [t for w in found.windows(size) for t in w.tolist()] == stream
    assert {len(w) for w in list(found.windows(size))[:-1]} <= {size}


@settings(max_examples=60, deadline=None)
@given(documents=DOCUMENTS, cuts=st.data())
def test_many_at_once_are_as_one_after_the_other(tmp_path_factory, documents, cuts):
    folder = tmp_path_factory.mktemp("many")
    names = ["unused", "b", "a", "?"]
    sources = cuts.draw(st.lists(st.integers(1, 3), min_size=len(documents), max_size=9))
    cut = cuts.draw(st.integers(0, len(documents)))
    masked = cuts.draw(st.booleans())
    facts = []
    for name in ("one", "many"):
        with ShardWriter(folder, name, vocabulary=1000, fingerprint=MARK) as writer:
            if masked:
                writer.add(np.array([7, 8]), "a", 0, np.array([True, False]))
            for low, high in ((0, cut), (cut, len(documents))):
                part = range(low, high)
                if name == "many":
                    writer.add_many(
                        np.array([t for i in part for t in documents[i]], np.uint32),
                        np.array([len(documents[i]) for i in part], np.int64),
                        np.array([sources[i] for i in part], np.int32),
                        names,
                        np.array([10 * i for i in part], np.int64),
                    )
                else:
                    for i in part:
                        writer.add(np.array(documents[i]), names[sources[i]], 10 * i)
            facts.append(writer.close())
    assert facts[0] == facts[1]
    for path in folder.glob("one.*"):
        assert path.read_bytes() == (folder / f"many{path.suffix}").read_bytes()


def test_faults_among_many_name_their_row(tmp_path):
    with ShardWriter(tmp_path, "a", vocabulary=10, fingerprint=MARK) as writer:
        same, rows = np.zeros(3, np.int32), np.array([4, 5, 6])
        with pytest.raises(ModelwrightError, match="row 5 has an id beyond"):
            writer.add_many(np.array([1, 2, 10, 3]), np.array([1, 2, 1]), same, ["s"], rows)
        with pytest.raises(ModelwrightError, match="row 6 has no tokens"):
            writer.add_many(np.array([1, 2, 9]), np.array([1, 2, 0]), same, ["s"], rows)


def test_nothing_is_read_before_it_is_used(tmp_path):
    write(tmp_path, "a", [[1, 2, 3]] * 1000)
    write(tmp_path, "b", [[4, 5]] * 1000)
    found = TokenShards(tmp_path)
    assert isinstance(found.tokens, Joined)
    for part in found.tokens.parts:
        assert not part.flags.owndata and not part.flags.writeable


def test_masks_are_kept(tmp_path):
    documents = [[1, 2, 3], [4], [5, 6, 7, 8, 9]]
    masks = [None, [False], [True, False, True, True, False]]
    write(tmp_path, "a", documents, masks=masks)
    write(tmp_path, "b", documents)
    expected = [True] * 3 + [False, True, False, True, True, False] + [True] * 9
    found = TokenShards(tmp_path)
    assert found.learn[:].tolist() == expected
    assert found.learn[2:7].tolist() == expected[2:7]
    assert (tmp_path / "a.msk").stat().st_size == HEADER.size + 2
    assert not (tmp_path / "b.msk").exists()


def test_sixteen_bits_hold_65536_ids_and_no_more(tmp_path):
    assert dtype_of(65_536).itemsize == 2 and dtype_of(65_537).itemsize == 4
    with pytest.raises(ModelwrightError, match="65,537 ids do not fit 16 bits"):
        ShardWriter(tmp_path, "a", vocabulary=65_537, fingerprint=MARK, dtype=np.dtype("u2"))
    write(tmp_path / "wide", "a", [[65_536, 0]], vocabulary=65_537)
    assert TokenShards(tmp_path / "wide").tokens[:].tolist() == [65_536, 0]
    with pytest.raises(ModelwrightError, match="beyond the vocabulary"):
        write(tmp_path / "beyond", "a", [[1000]])


def test_a_forged_header_that_would_wrap_ids_is_refused(tmp_path):
    write(tmp_path, "a", [[1, 2]])
    path = tmp_path / "a.tok"
    fields = list(HEADER.unpack(path.read_bytes()[: HEADER.size]))
    fields[4] = 70_000  # the vocabulary, with two bytes an id
    path.write_bytes(HEADER.pack(*fields) + path.read_bytes()[HEADER.size :])
    with pytest.raises(CorruptError, match=r"a\.tok: 2 bytes an id of 70,000"):
        TokenShards(tmp_path)


@pytest.mark.parametrize("suffix", [".tok", ".idx", ".msk"])
def test_every_flipped_bit_and_every_cut_is_found(tmp_path, suffix):
    documents, masks = [[1, 2, 3], [4, 5]], [[True, False, True], [False, True]]
    write(tmp_path, "a", documents, masks=masks)
    path = tmp_path / f"a{suffix}"
    sound = path.read_bytes()
    TokenShards(tmp_path).verify()
    for at in range(len(sound)):
        damaged = bytearray(sound)
        damaged[at] ^= 1 << (at % 8)
        path.write_bytes(damaged)
        with pytest.raises(CorruptError, match=r"a\.(tok|idx|msk)"):
            TokenShards(tmp_path).verify()
    for size in range(len(sound)):
        path.write_bytes(sound[:size])
        with pytest.raises(CorruptError, match=r"a\.(tok|idx|msk)"):
            TokenShards(tmp_path).verify()
    path.write_bytes(sound + b"\0")
    with pytest.raises(CorruptError, match=r"a\.(tok|idx|msk)"):
        TokenShards(tmp_path).verify()


def test_files_of_other_shards_and_of_other_tokenizers_are_found(tmp_path):
    write(tmp_path / "x", "a", [[1, 2, 3]])
    write(tmp_path / "y", "a", [[1, 2]])
    (tmp_path / "x" / "a.idx").write_bytes((tmp_path / "y" / "a.idx").read_bytes())
    with pytest.raises(CorruptError, match="belongs to another shard"):
        TokenShards(tmp_path / "x")
    write(tmp_path / "y", "b", [[1, 2]], vocabulary=500)
    with pytest.raises(CorruptError, match="another tokenizer"):
        TokenShards(tmp_path / "y")
    (tmp_path / "y" / "b.idx").unlink()
    with pytest.raises(CorruptError, match=r"b\.idx: cannot be read"):
        Shard(tmp_path / "y" / "b.tok")
    with pytest.raises(ModelwrightError, match="no token shards"):
        TokenShards(tmp_path)


def test_a_finished_corpus_says_what_there_is_not_its_folders(tmp_path):
    stage = tmp_path / "stages" / "tokens"
    for name in ("two", "one", "half-done"):
        write(stage / name, "train", [[len(name)] * 2])
        write(stage / name, "test", [[3]])
        files = {"train.tok": "", "train.idx": "", "test.tok": ""}
        (stage / f"{name}.json").write_text(json.dumps({"files": files}))
    with pytest.raises(ModelwrightError, match="not finished"):
        TokenShards(tmp_path)
    finished = {"stages": {"tokens": {"two": "", "one": ""}}}
    (tmp_path / "corpus.json").write_text(json.dumps(finished))
    assert len(TokenShards(tmp_path, "train")) == 2
    assert TokenShards(tmp_path, "test").tokens[:].tolist() == [3, 3]
    assert list(TokenShards(tmp_path).checksums()) == [
        "stages/tokens/two/test.tok",
        "stages/tokens/two/train.tok",
        "stages/tokens/one/test.tok",
        "stages/tokens/one/train.tok",
    ]
    with pytest.raises(ModelwrightError, match="no token shards of validation"):
        TokenShards(tmp_path, "validation")
    (stage / "one.json").write_text("{")
    with pytest.raises(CorruptError, match=r"one\.json: missing or damaged"):
        TokenShards(tmp_path)
