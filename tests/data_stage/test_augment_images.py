"""Transforms of images and boards: shapes and ranges, what they are by definition, group laws."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data import pictures
from modelwright.data.archive import tar_members
from modelwright.data.augment import chain, generator, names, transform_class
from modelwright.data.augment.batches import Augment, check
from modelwright.data.augment.images_randomly import OPERATIONS, colour, moved
from modelwright.data.augment.transforms import boards, images
from modelwright.data.games import begin, replay
from modelwright.errors import ModelwrightError

KINDS = [n for n in names() if transform_class(n).kind == "image" and n != "symmetry"]
MIXES = [n for n in names() if transform_class(n).kind == "mix"]
SHAPES = st.sampled_from([(1, 8, 8), (5, 12, 9), (3, 7, 10, 3), (4, 16, 16, 1), (6, 32, 32, 3)])


def drawn(shape: tuple[int, ...], seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, size=shape, dtype=np.uint8)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=25, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 99))
def test_shape_kind_and_seed(name: str, shape: tuple[int, ...], seed: int) -> None:
    """Same shape, same type, the same again from the same seed, and the originals untouched."""
    batch = drawn(shape, seed)
    before = batch.copy()
    (transform,) = chain([name])
    one, two = (transform(batch, generator(seed, "a")) for _ in range(2))
    assert (one.shape, one.dtype) == (batch.shape, np.uint8)
    assert np.array_equal(one, two)
    assert np.array_equal(batch, before)


@pytest.mark.parametrize("name", KINDS)
def test_images_get_views_of_their_own(name: str) -> None:
    """Of 16 copies of one image at least two come out otherwise than the first."""
    (transform,) = chain([{name: {"probability": 1.0}} if name == "erase" else name])
    batch = np.repeat(drawn((1, 24, 24, 3), 1), 16, axis=0)
    found = transform(batch, generator(3))
    assert len({view.tobytes() for view in found}) > 1


@settings(max_examples=30, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 99))
def test_flips_undo_themselves(shape: tuple[int, ...], seed: int) -> None:
    batch = drawn(shape, seed)
    for flip in (images.Flip(1.0, 0.0), images.Flip(0.0, 1.0), images.Flip(1.0, 1.0)):
        once = flip(batch, generator(seed))
        assert np.array_equal(flip(once, generator(seed)), batch)
    assert np.array_equal(images.Flip(1.0)(batch, generator(0)), batch[:, :, ::-1])
    assert np.array_equal(images.Flip(0.0)(batch, generator(0)), batch)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), fill=st.sampled_from(["zero", "reflect", "edge"]))
def test_a_crop_is_one_of_the_windows_of_the_padded_image(seed: int, fill: Any) -> None:
    batch = drawn((3, 6, 7, 2), seed)
    padded = np.pad(
        batch,
        ((0, 0), (2, 2), (2, 2), (0, 0)),
        mode={"zero": "constant", "reflect": "reflect", "edge": "edge"}[fill],
    )
    found = images.Crop(2, fill)(batch, generator(seed))
    for i, view in enumerate(found):
        windows = [padded[i, y : y + 6, x : x + 7] for y in range(5) for x in range(5)]
        assert any(np.array_equal(view, window) for window in windows)


def test_colours_by_their_definition() -> None:
    batch = drawn((4, 9, 9, 3), 2)
    ones, none = np.ones((3, 4)), np.zeros(4)
    assert np.array_equal(colour(batch, ones, none), batch)
    dark = ones.copy()
    dark[0] = 0.5
    assert np.abs(colour(batch, dark, none).astype(float) - batch / 2).max() <= 0.5
    grey = ones.copy()
    grey[2] = 0
    assert np.ptp(colour(batch, grey, none), axis=3).max() == 0
    turned = colour(batch // 4 + 96, ones, np.full(4, 1.0))  # once around
    assert np.abs(turned.astype(int) - (batch // 4 + 96)).max() <= 1


def test_no_strength_changes_nothing_and_shifts_are_shifts() -> None:
    batch = drawn((5, 12, 12, 3), 4)
    for name, operation in OPERATIONS.items():
        out = operation(batch, np.zeros(5))
        if name not in ("autocontrast", "equalize"):  # which have no strength
            assert np.abs(out.astype(int) - batch).max() <= 1, name
    matrix = np.tile(np.array([[1.0, 0, 2], [0, 1, 0]]), (5, 1, 1))  # from two rows below
    assert np.array_equal(moved(batch, matrix)[:, :-2], batch[:, 2:])
    assert (moved(batch, matrix)[:, -2:] == 128).all()
    quarter = np.tile(np.array([[0.0, 1, 0], [-1, 0, 0]]), (5, 1, 1))
    assert np.array_equal(moved(batch, quarter), np.rot90(batch, 1, axes=(1, 2)))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999))
def test_what_is_erased_is_one_rectangle_of_the_meant_area(seed: int) -> None:
    batch = np.full((6, 32, 32), 200, np.uint8)
    out = images.Erase(1.0, 0.1, 0.3, "zero")(batch, generator(seed))
    for view in out:
        gone = view == 0
        assert gone[np.ix_(gone.any(axis=1), gone.any(axis=0))].all()  # a rectangle
        assert 0.05 < gone.mean() < 0.35
        assert (view[~gone] == 200).all()


@pytest.mark.parametrize("name", MIXES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999))
def test_a_mixture_is_of_two_rows_and_weighed_by_their_shares(name: str, seed: int) -> None:
    """With all pixels of row i equal to i the mean pixel tells the shares."""
    batch = np.arange(1, 9, dtype=np.float32)[:, None, None] * np.ones((1, 16, 16), np.float32)
    (transform,) = chain([name])
    mixed, partner, weight = transform(batch, generator(seed))
    first = np.arange(1, 9)
    assert sorted(partner) == list(range(8))
    assert ((weight >= 0) & (weight <= 1)).all()
    expected = weight * first + (1 - weight) * first[partner]
    assert np.allclose(mixed.mean(axis=(1, 2)), expected, atol=1e-5)


def test_numbers_that_are_no_bytes_are_refused_where_bytes_are_meant() -> None:
    batch = np.zeros((2, 8, 8), np.float32)
    for name in ("erase", "rand_augment", "colour_jitter"):
        with pytest.raises(ModelwrightError, match="needs pixels as bytes"):
            chain([name])[0](batch, generator(1))
    assert chain(["flip"])[0](batch, generator(1)).dtype == np.float32


def test_real_images_keep_most_of_what_they_show(data: Callable[[str], Path]) -> None:
    """A flip and a crop leave the histogram nearly as it was; RandAugment alters most pixels."""
    members = islice(tar_members(data("cifar10/cifar10_train.tar.xz"), suffix=".jpg"), 64)
    batch = np.stack([pictures.decode(content)[0] for _, content in members])
    out = batch
    for transform in chain([{"crop": {"padding": 2}}, "flip"]):
        out = transform(out, generator(5))
    assert np.abs(out.mean(axis=(1, 2)) - batch.mean(axis=(1, 2))).max() < 16
    strong = images.RandAugment(2, 15)(batch, generator(6))
    assert (strong != batch).any(axis=(1, 2, 3)).mean() > 0.8


# -- boards -----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(a=st.integers(0, 7), b=st.integers(0, 7), size=st.integers(2, 9), seed=st.integers(0, 99))
def test_the_symmetries_are_a_group(a: int, b: int, size: int, seed: int) -> None:
    board = np.random.default_rng(seed).permutation(size * size).reshape(1, size, size)
    assert np.array_equal(boards.turned(boards.turned(board, a), boards.inverse(a)), board)
    both = boards.turned(boards.turned(board, a), b)
    assert sum(np.array_equal(both, boards.turned(board, k)) for k in range(8)) == 1
    assert len({boards.turned(board, k).tobytes() for k in range(8)}) == 8
    to = boards.squares(size, a)
    assert np.array_equal(boards.turned(board, a).ravel()[to], board.ravel())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999))
def test_each_board_gets_one_of_the_eight(seed: int) -> None:
    batch = drawn((10, 8, 8, 2), seed)
    out = boards.Symmetry()(batch, generator(seed))
    for one, other in zip(batch, out, strict=True):
        assert any(np.array_equal(boards.turned(one[None], k)[0], other) for k in range(8))


def test_only_squares_are_turned() -> None:
    with pytest.raises(ModelwrightError, match="symmetry is for squares, these are 8 x 9"):
        boards.Symmetry()(drawn((2, 8, 9), 1), generator(1))


@settings(max_examples=25, deadline=None)
@given(random=st.randoms(use_true_random=False), seed=st.integers(0, 99))
def test_a_turned_game_of_othello_is_legal_and_ends_the_same(random: Any, seed: int) -> None:
    state, moves = begin("othello"), []
    while state.result() is None:
        move = random.choice(state.legal_moves())
        moves.append(state.write(move))
        state = state.play(move)
    turned = boards.GameSymmetry()(moves, generator(seed))
    assert turned != moves
    *_, (last, move) = replay(begin("othello"), turned)
    assert last.play(move).result() == state.result()


# Parts of random area -----------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    size=st.tuples(st.integers(4, 60), st.integers(4, 60)),
    scale=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)).map(sorted),
    ratio=st.tuples(st.floats(0.3, 3), st.floats(0.3, 3)).map(sorted),
    seed=st.integers(0, 999),
)
def test_parts_lie_inside_and_have_the_area_and_ratio_that_were_asked(
    size: tuple[int, int], scale: list[float], ratio: list[float], seed: int
) -> None:
    height, width = size
    crop = images.ResizedCrop((scale[0], scale[1]), (ratio[0], ratio[1]))
    left, top, right, bottom = crop.parts(20, size, generator(seed)).T
    slack = 1e-9 * max(size)
    assert (left >= -slack).all() and (top >= -slack).all()
    assert (right <= width + slack).all() and (bottom <= height + slack).all()
    shape = (right - left) / (bottom - top)
    assert (shape >= ratio[0] * (1 - 1e-9)).all() and (shape <= ratio[1] * (1 + 1e-9)).all()
    share = (right - left) * (bottom - top) / (height * width)
    assert (share <= scale[1] * (1 + 1e-9)).all() or (share < 1).any()
    centred = np.isclose(left + right, width) & np.isclose(top + bottom, height)
    assert ((share >= scale[0] * (1 - 1e-9)) | centred).all()  # else the largest in the middle


def test_areas_are_drawn_evenly_and_ratios_in_their_logarithm() -> None:
    crop = images.ResizedCrop()
    left, top, right, bottom = crop.parts(20_000, (300, 300), generator(1)).T
    wide, tall = right - left, bottom - top
    ratio = np.log(wide / tall)
    assert abs(ratio.mean()) < 0.01 and abs(ratio).max() <= np.log(4 / 3) + 1e-9
    share = wide * tall / 300**2
    fits = share[share < 3 / 4]  # of larger areas not every ratio fits, so fewer are drawn
    counts, _ = np.histogram(fits, bins=5, range=(0.08, 0.75))
    assert np.abs(counts / len(fits) - 0.2).max() < 0.02
    assert abs(left.mean() - (300 - right).mean()) < 1


def test_the_whole_as_a_part_is_the_picture_itself() -> None:
    batch = drawn((3, 24, 24, 3), 5)
    whole = images.ResizedCrop((1.0, 1.0), (1.0, 1.0))
    assert np.array_equal(whole(batch, generator(2)), batch)
    assert np.array_equal(whole(batch[..., 0], generator(2)), batch[..., 0])


def test_a_part_of_a_slope_is_a_slope_between_its_edges() -> None:
    slope = np.repeat(np.arange(0, 240, 2, dtype=np.uint8)[None, None], 90, axis=1)
    crop = images.ResizedCrop((0.2, 0.5))
    (part,) = crop.parts(1, (90, 120), generator(7))
    (view,) = crop(slope, generator(7), (30, 30))
    at = part[0] + (np.arange(30) + 0.5) * (part[2] - part[0]) / 30 - 0.5
    assert view.shape == (30, 30)
    assert np.abs(view[15, 1:-1] - 2 * at[1:-1]).max() <= 2


@pytest.mark.parametrize(
    ("settings_", "why"),
    [
        ({"scale": [0.5, 0.1]}, r"resized_crop\.scale: \[0\.5, 0\.1\], the lesser number"),
        ({"ratio": [2, 1]}, r"resized_crop\.ratio: \[2\.0, 1\.0\], the lesser number"),
        ({"scale": [0, 2]}, "scale"),
    ],
)
def test_limits_of_parts_that_cannot_be(settings_: dict[str, Any], why: str) -> None:
    with pytest.raises(ModelwrightError, match=why) as caught:
        chain([{"resized_crop": settings_}])
    assert "\n" not in str(caught.value)


def test_a_part_is_cut_from_the_larger_picture_that_the_codec_keeps() -> None:
    larger, seen = drawn((5, 48, 48, 3), 1), np.zeros((5, 16, 16, 3), np.uint8)
    columns = {"features": seen, "larger": larger, "label": np.arange(5)}
    augment = Augment(["resized_crop", "flip"], "images", 3)
    found = augment(columns, 9)
    assert found.keys() == {"features", "label"}
    assert np.asarray(found["features"]).shape == (5, 16, 16, 3)
    assert np.asarray(found["features"]).any()  # of what is seen there would be black alone
    again = Augment(["resized_crop", "flip"], "images", 3)(columns, 9)
    assert np.array_equal(np.asarray(again["features"]), np.asarray(found["features"]))
    plain = Augment(["flip"], "images", 3)(columns, 9)
    assert plain.keys() == {"features", "label"}
    assert not np.asarray(plain["features"]).any()


@pytest.mark.parametrize(
    ("lines", "codec", "why"),
    [
        (["flip", "resized_crop"], "images", "stands in the first line, once"),
        (["resized_crop", "resized_crop"], "images", "stands in the first line, once"),
        (["resized_crop"], "boxes", "ResizedCrop moves pixels and not their boxes"),
    ],
)
def test_where_a_part_may_be_cut(lines: list[str], codec: str, why: str) -> None:
    with pytest.raises(ModelwrightError, match=why) as caught:
        check(lines, codec)
    assert "\n" not in str(caught.value)
