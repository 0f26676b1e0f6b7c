"""``model: {family, size}``: a name makes its model, and gives way to the data and to fields."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from modelwright import recipe
from modelwright.errors import ModelwrightError
from modelwright.models.model import checked_fields, config_class, fields_for

FAMILIES = (
    *("board", "convnext", "detector", "dit", "fast_cnn", "inception", "resnet", "rnn", "unet"),
    "vit",
)
NAMED = [(f, s) for f in FAMILIES for s in config_class(f).sizes]


class Codec:
    shape, labels = (32, 32, 3), tuple("abcdefghij")


def made(**model: Any) -> recipe.Recipe:
    return recipe.parse(
        {
            "name": "a",
            "data": {"source": "digits"},
            "model": model,
            "train": {"task": "vector_classification"},
        }
    )


@pytest.mark.parametrize(("family", "size"), NAMED)
def test_every_name_stands_for_fields_of_its_family(family: str, size: str) -> None:
    cls = config_class(family)
    fields = checked_fields(cls, cls.sizes[size])
    assert fields
    needed = {"classes", "features", "outputs", "channels", "vocabulary"}
    config = cls(**{**{k: v for k, v in cls.specimen.items() if k in needed}, **fields})
    with torch.device("meta"):
        assert sum(p.numel() for p in config.build().parameters()) > 0


def test_the_data_and_given_fields_win_over_the_name() -> None:
    cls = config_class("resnet")
    given = {"size": "resnet50", "widths": [8, 8, 8, 8]}
    config = cls(**fields_for(cls, Codec, given))
    assert config == cls(
        classes=10, image=(32, 32), depths=(3, 4, 6, 3), widths=(8, 8, 8, 8), bottleneck=True
    )


def test_channels_must_be_those_of_the_data() -> None:
    cls = config_class("resnet")
    for wrong in (1, 4):
        with pytest.raises(
            ModelwrightError, match=rf"model\.channels: the data need 3, not {wrong}"
        ):
            fields_for(cls, Codec, {"channels": wrong})


def test_a_recipe_names_a_size_in_one_line() -> None:
    assert made(family="resnet", size="resnet18").model == {"family": "resnet", "size": "resnet18"}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"family": "resnet", "size": "resnet81"}, r"no resnet is called 'resnet81' .did you mean"),
        ({"family": "mlp", "size": "large"}, r"no mlp is called 'large'; known: none"),
        ({"family": "vit", "size": "vit-base-16", "parameters": "5M"}, r"give one"),
        ({"family": "vit", "size": 3}, r"no vit is called 3; known: vit-tiny-16"),
    ],
)
def test_other_names_are_refused(model: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelwrightError, match=said):
        made(**model)
