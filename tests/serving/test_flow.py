"""The samplers against flows that are known, guidance by its formula, and who draws what."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from modelwright.data.codecs.generated_images import Codec
from modelwright.data.picture_settings import ImageSettings
from modelwright.errors import ModelwrightError
from modelwright.objectives.flow_matching import Objective
from modelwright.serving.flow import ImageMaker, Sampling, guided, integrate
from modelwright.types import Image, Label, Turn

SHAPE = (2, 3)
GREY = ImageSettings(*SHAPE, mean=(0.5,), deviation=(0.5,))
CODEC = Codec(["dark", "light"], GREY)


class Towards(nn.Module):
    """The velocity of the class's one picture: (x1 - x) / (1 - t), 0 at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor([-1.0, 1.0, 0.0]))  # dark, light, no label
        self.asked: list[Tensor] = []

    def forward(self, noisy: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        self.asked.append(labels.clone())
        left = (times / 1000).view(-1, 1, 1)
        gone = self.at[labels].view(-1, 1, 1) - noisy
        return torch.where(left > 0, gone / left.clamp(min=1e-6), torch.zeros(()))


def maker(**sampling: object) -> ImageMaker:
    return ImageMaker(Towards(), CODEC, Objective(CODEC), Sampling(**sampling))  # type: ignore[arg-type]


@given(steps=st.integers(1, 30), sampler=st.sampled_from(["euler", "heun"]))
def test_a_straight_flow_is_followed_exactly(steps: int, sampler: str) -> None:
    start, end = torch.randn(4, *SHAPE), torch.randn(4, *SHAPE)
    found = integrate(lambda x, t: end - start, start, steps, sampler)
    torch.testing.assert_close(found, end, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_a_straight_flow_is_foreseen_at_every_step(sampler: str) -> None:
    start, end, seen = torch.randn(4, *SHAPE), torch.randn(4, *SHAPE), []
    integrate(lambda x, t: end - start, start, 5, sampler, lambda i, x: seen.append((i, x)))
    assert [i for i, _ in seen] == list(range(5))
    for _, x in seen:
        torch.testing.assert_close(x, end, rtol=1e-5, atol=1e-5)


@given(steps=st.integers(1, 9), looks=st.integers(0, 12))
def test_looks_come_in_order_and_change_nothing(steps: int, looks: int) -> None:
    seen: list[tuple[int, Turn]] = []
    asked = [(Turn("user", (Label("dark"),)),)]
    plain = maker(steps=steps).answer(asked)
    watched = maker(steps=steps).answer(asked, looks, lambda *one: seen.append(one))
    assert [number for number, _ in seen] == list(range(looks))
    (a,), (b,) = plain[0].parts, watched[0].parts
    assert isinstance(a, Image) and isinstance(b, Image) and np.array_equal(a.pixels, b.pixels)


@given(steps=st.integers(1, 30))
def test_heun_is_exact_where_the_velocity_is_linear_in_time(steps: int) -> None:
    start = torch.zeros(1, dtype=torch.float64)
    found = integrate(lambda x, t: torch.full_like(x, 3 * t + 1), start, steps, "heun")
    assert float(found) == pytest.approx(2.5, abs=1e-12)


@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2)])
def test_the_error_falls_as_the_order_says(sampler: str, order: int) -> None:
    def error(steps: int) -> float:
        start = torch.ones(1, dtype=torch.float64)
        found = integrate(lambda x, t: x * math.cos(t), start, steps, sampler)
        return abs(float(found) - math.exp(math.sin(1.0)))

    for steps in (16, 32, 64):
        assert math.log2(error(steps) / error(2 * steps)) == pytest.approx(order, abs=0.15)


def test_guidance_goes_from_without_through_within() -> None:
    without, within = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -2.0])
    assert torch.equal(guided(without, within, 0.0), without)
    assert torch.equal(guided(without, within, 1.0), within)
    assert torch.equal(guided(without, within, 2.5), torch.tensor([6.0, -8.0]))


def test_the_guided_velocity_asks_with_and_without_the_label() -> None:
    drawing = maker(steps=1, sampler="euler", guidance=3.0)
    labels, x = torch.tensor([0, 1]), torch.zeros(2, *SHAPE)
    found = drawing.velocity(labels)(x, 0.0)
    assert drawing.model.asked[0].tolist() == [-1, -1, 0, 1]  # type: ignore[union-attr, index]
    # Without a label it goes to 0, which is where it is; three times the way to the class's own.
    torch.testing.assert_close(found, torch.tensor([-3.0, 3.0]).view(2, 1, 1).expand(2, *SHAPE))


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_a_class_is_drawn_as_its_picture(sampler: str) -> None:
    asked = [(Turn("user", (Label(name),)),) for name in ("light", "dark", "light")]
    drawn = maker(steps=4, sampler=sampler).answer([*asked, ()])
    pictures = [part.pixels for turn in drawn for part in turn.parts if isinstance(part, Image)]
    if sampler == "euler":  # the last step of Heun's asks at the end, where this flow stands still
        assert [set(p.ravel().tolist()) for p in pictures[:3]] == [{255}, {0}, {255}]
    assert all(p.shape == SHAPE and p.dtype == np.uint8 for p in pictures)
    assert pictures[0].mean() > pictures[3].mean() > pictures[1].mean()


def test_the_same_seed_draws_the_same_and_another_seed_another() -> None:
    drawing = maker(steps=1, sampler="heun")
    one, same, other = (drawing.seeded(seed).draw([-1]) for seed in (5, 5, 6))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_drawing_leaves_training_and_the_global_generator_as_they_were() -> None:
    drawing = maker()
    drawing.model.train()
    before = torch.random.get_rng_state()
    drawing.draw([0])
    assert drawing.model.training
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_unknown_class_is_refused_with_the_nearest() -> None:
    with pytest.raises(ModelwrightError, match=r"label 'ligt' .*did you mean 'light'"):
        maker().answer([(Turn("user", (Label("ligt"),)),)])


def test_how_often_the_model_is_asked() -> None:
    assert Sampling(20, "euler").evaluations == 20
    assert Sampling(10, "heun").evaluations == 20
    assert Sampling(10, "heun", guidance=2.0).evaluations == 40
