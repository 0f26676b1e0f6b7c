"""Copies of pictures are found in another coding, size, brightness or cut; other pictures are not.

Real pictures: photographs of 32 x 32, of flowers, and of blood under a microscope; digits, which
are alike by nature. Recall and precision are printed (``pytest -s``).
"""

from __future__ import annotations

import gzip
import io
from functools import cache
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data import pictures
from modelwright.data.archive import tar_members
from modelwright.data.corpus import alike
from modelwright.data.corpus.gate import audit
from modelwright.data.corpus.sketch import Sketcher, load, wanted
from modelwright.errors import ModelwrightError
from tests.data_stage.test_gate import final
from tests.data_stage.tiny import SETTINGS, deduplicated, row

Image = pytest.importorskip("PIL.Image")
COUNT = {"cifar10": 150, "flowers12": 100, "bccd": 30}  # pictures that are copied
# The least recall of a kind of copy with `images: 6`. One pixel of 32 is a large cut.
KINDS = {
    "cifar10": {"jpeg 75": 0.98, "half": 0.98, "larger": 0.95, "brighter": 0.95, "cropped": 0.2},
    "flowers12": {"jpeg 75": 1, "half": 0.98, "larger": 0.98, "brighter": 0.98, "cropped": 0.95},
    "bccd": {"jpeg 75": 1, "half": 0.98, "larger": 0.98, "brighter": 0.98, "cropped": 0.9},
}
FILES = {"cifar10": "cifar10_train.tar.xz", "flowers12": "flowers12.tar", "bccd": "BCCD.tar"}


def picture(name: str, content: bytes, **more) -> dict:
    return row(name, None, media=content, mime="image/png", modality="image", **more)


def jpeg(pixels, quality: int = 75) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality)
    return out.getvalue()


def scaled(pixels, by: float) -> bytes:
    height, width = (max(8, round(side * by)) for side in pixels.shape[:2])
    made = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    return jpeg(np.asarray(made), 90)


def cropped(pixels) -> bytes:
    """2 % of every side's length is cut off, one pixel at least."""
    cut = [max(1, round(side * 0.02)) for side in pixels.shape[:2]]
    inner = [slice(c // 2, side - (c - c // 2)) for c, side in zip(cut, pixels.shape, strict=False)]
    return jpeg(np.ascontiguousarray(pixels[tuple(inner)]), 90)


def brighter(pixels) -> bytes:
    return jpeg(np.clip(pixels * 1.1 + 8, 0, 255).astype(np.uint8), 90)


COPIES = {
    "jpeg 75": jpeg,
    "half": lambda pixels: scaled(pixels, 0.5),
    "larger": lambda pixels: scaled(pixels, 1.5),
    "brighter": brighter,
    "cropped": cropped,
}


@cache
def originals(path, most: int = 8000, every: int = 1) -> tuple[bytes, ...]:
    members = tar_members(path, suffix=".jpg")
    return tuple(content for _, content in islice(members, 0, most, every))


@pytest.mark.parametrize("name", KINDS)
def test_planted_copies_leave_and_others_stay(tmp_path, data, name):
    contents = originals(data(name) / FILES[name], every=4 if name == "cifar10" else 1)
    rows = [picture(f"s/{i}", content) for i, content in enumerate(contents)]
    before, _ = deduplicated(tmp_path / "before", [rows])  # some sets hold copies already
    own = {one for one, fate in before.items() if not fate["kept"]}
    rows = [one for one in rows if one["id"] not in own]
    chosen = rows[:: len(rows) // COUNT[name]][: COUNT[name]]
    planted = [
        picture(f"s/{one['id'][2:]} {kind}", make(pictures.decode(one["media"])[0]))
        for one in chosen
        for kind, make in COPIES.items()
    ]
    fates, facts = deduplicated(tmp_path / "after", [rows, planted])
    found = dict.fromkeys(COPIES, 0)
    for one in planted:
        kept_id = fates[one["id"]]["kept_id"]
        original, kind = one["id"].split(" ", 1)
        found[kind] += kept_id == original
    recall = {kind: count / len(chosen) for kind, count in found.items()}
    left = {one for one, fate in fates.items() if not fate["kept"]}
    right = {one for one in left if " " in one and fates[one]["kept_id"] == one.split(" ")[0]}
    print(
        f"\n{name}: {len(rows)} pictures, {len(own)} copies of its own, {len(planted)} planted; "
        f"precision {len(right) / len(left):.4f}, recall "
        + ", ".join(f"{kind} {share:.3f}" for kind, share in recall.items())
    )
    assert all(recall[kind] >= least for kind, least in KINDS[name].items()), recall
    assert len(right) >= 0.995 * len(left)
    assert facts["near"] + facts["exact"] == len(left)


def test_digits_are_not_taken_for_copies_of_each_other(tmp_path, data):
    content = gzip.decompress((data("mnist") / "t10k-images-idx3-ubyte.gz").read_bytes())
    digits = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28)[:2000]
    rows = [picture(f"s/{i}", pictures.encode_png(one)) for i, one in enumerate(digits)]
    _, facts = deduplicated(tmp_path, [rows])
    print(f"\n{facts['near']} of 2000 digits leave")
    assert facts["near"] <= 4


def test_copies_stay_on_one_side_and_the_gate_sees_those_that_do_not(tmp_path, data):
    contents = originals(data("bccd") / FILES["bccd"])[:30]
    rows = [picture(f"s/{i}", content) for i, content in enumerate(contents)]
    copies = [
        picture(f"s/{i}c", jpeg(pictures.decode(content)[0], 60))
        for i, content in enumerate(contents)
    ]
    together = SETTINGS | {"deduplicate": None, "split": {"validation": 0.3, "test": 0.3}}
    fates, _ = deduplicated(tmp_path / "corpus", [rows, copies], together)
    assert len({fate["split"] for fate in fates.values()}) == 3
    for i in range(30):
        assert fates[f"s/{i}"]["split"] == fates[f"s/{i}c"]["split"]
    sides = [one | {"split": fates[one["id"]]["split"]} for one in rows + copies]
    folder = tmp_path / "gate"
    folder.mkdir()
    assert audit(folder, together, final(folder, sides)).holds
    torn = [one | {"split": "train"} for one in rows] + [one | {"split": "test"} for one in copies]
    gate = audit(folder, together, final(folder, torn))
    assert gate.near >= 30
    assert not gate.holds
    equal = SETTINGS | {"deduplicate": {"threshold": 0.8, "images": 0}}
    assert audit(folder, equal, final(folder, torn)).holds


def test_what_was_found_does_not_depend_on_the_buckets(tmp_path, data):
    contents = originals(data("flowers12") / FILES["flowers12"])
    rows = [picture(f"s/{i}", content) for i, content in enumerate(contents[:200])]
    rows += [picture(f"s/{i}c", scaled(pictures.decode(c)[0], 0.5)) for i, c in
             enumerate(contents[:60])]  # fmt: skip
    one, facts = deduplicated(tmp_path / "one", [rows])
    many, _ = deduplicated(tmp_path / "many", [rows[:99], rows[99:]], memory=200_000)
    assert len(list((tmp_path / "many/stages/pairs").iterdir())) > 5
    assert facts["near"] >= 58
    assert {k: v["kept_id"] for k, v in one.items()} == {k: v["kept_id"] for k, v in many.items()}


@settings(max_examples=200, deadline=None)
@given(
    value=st.integers(0, 2**64 - 1),
    bits=st.sets(st.integers(0, 63), max_size=alike.BITS),
    seed=st.integers(0, 5),
)
def test_hashes_within_six_bits_always_share_a_key(value, bits, seed):
    other = value ^ sum(1 << bit for bit in bits)
    hashes = np.array([value, other], np.uint64)
    keys = alike.keys(hashes, seed)
    assert (keys[0] == keys[1]).any()
    assert (
        alike.distances(hashes[:1], hashes[1:])[0] == len(bits) == pictures.distance(value, other)
    )


def test_many_copies_of_one_picture_cost_a_multiple_of_their_number():
    rows = np.arange(3000)
    found = alike.candidates(np.zeros(3000, np.uint64), rows, np.zeros(3000, np.uint64))
    assert len(found) < 9 * 3000
    assert set(found[:, 1].tolist()) == set(range(1, 3000))
    assert (found[:, 0] < found[:, 1]).all()


def test_flat_and_damaged_pictures():
    flat = [np.full((32, 32, 3), level, np.uint8) for level in (10, 10, 200)]
    shown = np.stack([alike.small(pictures.encode_png(one)) for one in flat])
    assert alike.likeness(shown[:1], shown[1:2])[0] == 1
    assert alike.likeness(shown[:1], shown[2:])[0] == 0
    assert alike.picture_hash(picture("a", b"\x89PNG")) is None
    assert alike.picture_hash(row("a", "a text")) is None
    assert not alike.small(b"no picture").any()


def test_the_hash_that_a_step_has_written_is_taken(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    content = pictures.encode_png(pixels)
    hashed = f"{pictures.phash(pixels):016x}"
    for name, one in (
        ("decoded", picture("a", content)),
        ("told", picture("a", content, attributes={"images.phash": hashed})),
    ):
        sketcher = Sketcher(SETTINGS)
        sketcher.add(one)
        (tmp_path / name).mkdir()
        sketcher.save(tmp_path / name)
    for array in ("image_keys", "image_hashes"):
        np.testing.assert_array_equal(
            load(tmp_path / "decoded", array), load(tmp_path / "told", array)
        )
    assert len(load(tmp_path / "told", "image_keys")) == len(alike.BANDS)


@pytest.mark.parametrize("images", [-1, 11])
def test_a_distance_that_finds_nothing_or_anything_is_refused(images):
    with pytest.raises(ModelwrightError, match="images .*from 0 to 10"):
        wanted({"deduplicate": {"images": images}})
