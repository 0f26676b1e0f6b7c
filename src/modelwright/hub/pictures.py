"""The codec of a published model of pictures: prepared as its authors prepared them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelwright.data.codecs import images
from modelwright.errors import ModelwrightError
from modelwright.hub.files import Published
from modelwright.hub.preprocessing import image_settings
from modelwright.models.model import ModelConfig
from modelwright.options import checked
from modelwright.types import Example


def picture_codec(
    published: Published,
    config: ModelConfig,
    train: Sequence[Example],
    options: Mapping[str, Any],
    image: Any = None,
) -> images.Codec:
    """The codec of a task of pictures, with the preparation of a checkpoint.

    Args:
        published: what ``find`` gave.
        config: ours of it.
        train: examples of the train split, for the labels.
        options: the recipe's ``codec``: size, resample, mean and deviation may be replaced.
        image: height and width by the recipe's ``model``, where it gives them.

    Raises:
        ModelwrightError: the model reads no pictures, an option is unknown, or the preparation is
            one that is not known here.
    """
    size = getattr(config, "image", None)
    if size is None:
        raise ModelwrightError(
            f"model.from: {published.source} is a {config.family}, which reads no pictures; choose"
            " a published model of pictures, or another task"
        )
    around = images.Codec.around
    given = checked("codec images", around, options, apart=("settings", "examples"))
    if image is not None:
        given.setdefault("size", tuple(image))
    settings = image_settings(published, size)
    channels = getattr(config, "channels", 3)
    if settings.channels != channels:
        raise ModelwrightError(
            f"{published.source}: its pictures have {settings.channels} channels by"
            f" preprocessor_config.json, the model reads {channels}; correct image_mean and"
            " image_std in your copy"
        )
    return around(settings, train, **given)
