"""How images and sounds are made into numbers for a published model: preprocessor_config.json.

Only settings: the codec that reads pictures or sounds applies them. timm keeps the same under
``pretrained_cfg`` of its config.json; files of torchvision say nothing, so there it is known here.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.data.picture_settings import RESAMPLING, ImageSettings
from modelwright.data.sound_settings import AudioSettings
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.hub.files import Published, read_json

__all__ = [
    "FILE",
    "AudioSettings",
    "ImageSettings",
    "image_settings",
    "preparation_of",
    "read_settings",
    "settings_file",
]

FILE = "preprocessor_config.json"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # of ImageNet's train split, of 0..1
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
BILINEAR, BICUBIC = 2, 3
# What processors take where their file is silent: mean and deviation, and the filter.
_SILENT = {
    "CLIP": (CLIP, BICUBIC),
    "Bit": (CLIP, BICUBIC),
    "ConvNext": (HALF, BICUBIC),
    "DeiT": (HALF, BICUBIC),
}
WARPED = 384  # ConvNeXt: from this side on the shape is not kept, and nothing is cut away
_CUTS = ("ConvNext",)  # processors whose cut is a share of the side, crop_pct
# Steps of other processors, with the value that means that they are not taken.
_NOT_TAKEN = {
    "do_pad": False,
    "do_flip_channel_order": False,
    "do_reduce_labels": False,
    "rescale_offset": False,
    "do_thumbnail": False,
    "do_align_long_axis": False,
    "do_rand_pad": False,
    "do_image_splitting": False,
}


def read_settings(folder: Path) -> ImageSettings | AudioSettings | None:
    """The settings in a checkpoint's folder; None where there is no such file.

    Raises:
        CorruptError: a field is of a wrong type.
        ModelwrightError: neither of pictures nor of sounds.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    stored = read_json(path)
    try:
        if "sampling_rate" in stored:
            return _audio(stored)
        if any(name.startswith(("image_", "do_", "size")) for name in stored):
            return _image(stored, path)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        line = " ".join(str(error).split())[:100]
        raise CorruptError(f"{path}: a field is of a wrong type ({line}); get it again") from error
    raise ModelwrightError(f"{path}: describes neither pictures nor sounds; leave it out")


def image_settings(published: Published, image: tuple[int, int]) -> ImageSettings:
    """How a published model's pictures are prepared.

    Args:
        published: what ``find`` gave.
        image: height and width by the model's config, for files that state none.

    Raises:
        ModelwrightError: the checkpoint is of sounds, or asks for steps that are not taken here.
    """
    found = read_settings(published.folder)
    if isinstance(found, AudioSettings):
        raise ModelwrightError(f"{published.folder / FILE}: is of sounds, and the task of pictures")
    if found is not None:
        return found
    naming = str(published.config.get("model_type"))
    family = str(published.config.get("model", {}).get("family"))
    if isinstance(stated := published.config.get("pretrained_cfg"), Mapping):
        return _timm(stated, image)
    mean, deviation = IMAGENET
    if naming == "torchvision":
        # Its Inception was trained on -1..1, which its own module makes of ImageNet's scale.
        mean, deviation = HALF if family == "inception" else IMAGENET
        return _cut(image, round(max(image) / 0.875), "bilinear", mean, deviation)
    if naming == "timm":
        mean, deviation = HALF if family in ("vit", "inception") else IMAGENET
        share = 0.9 if family == "vit" else 0.875
        return _cut(image, int(max(image) / share), "bicubic", mean, deviation)
    if naming == "vit":
        mean, deviation = HALF
    return ImageSettings(*image, mean=mean, deviation=deviation)


def preparation_of(codec: object) -> dict[str, bytes]:
    """The preparation that a codec takes as a file of the hub; none where it is of text."""
    settings = getattr(codec, "settings", None)
    if not isinstance(settings, ImageSettings | AudioSettings):
        return {}
    return {FILE: settings_file(settings)}


def settings_file(settings: ImageSettings | AudioSettings) -> bytes:
    """``preprocessor_config.json`` of some settings."""
    made = _image_file(settings) if isinstance(settings, ImageSettings) else settings.written()
    return json.dumps(made, indent=2, sort_keys=True).encode() + b"\n"


def _image_file(s: ImageSettings) -> dict[str, Any]:
    """The content of preprocessor_config.json: of a ConvNeXt's as it was, else in full."""
    number = {name: code for code, name in RESAMPLING.items()}[s.resample]
    size = {"height": s.height, "width": s.width}
    cut = s.shortest is not None or s.resized_to != (s.height, s.width)
    high, wide = s.resized_to
    made: dict[str, Any] = {
        **s.rest,
        "do_resize": True,
        "size": {"height": high, "width": wide} if s.shortest is None else s.shortest,
        "resample": number,
        "do_rescale": s.scale != 1,
        "rescale_factor": s.scale,
        "do_normalize": True,
        "image_mean": list(s.mean),
        "image_std": list(s.deviation),
        "do_convert_rgb": len(s.mean) == 3,
    }
    if isinstance(made["size"], int):
        made["size"] = {"shortest_edge": s.shortest}
    if _of_share(s.rest):
        return {**made, "size": {"shortest_edge": s.height}}
    # The general one: it resizes either way, and cuts where it is told to.
    made["image_processor_type"] = "CLIPImageProcessor" if cut else "ViTImageProcessor"
    made.pop("feature_extractor_type", None)
    return {**made, "do_center_crop": cut, **({"crop_size": size} if cut else {})}


def _of_share(stored: Mapping[str, Any]) -> bool:
    """Whether the cut is a share of the side."""
    return "crop_pct" in stored and _kind(stored).startswith(_CUTS)


def _kind(stored: Mapping[str, Any]) -> str:
    """The class that a file names, such as "ViTImageProcessor"; "" if it names none."""
    return str(stored.get("image_processor_type") or stored.get("feature_extractor_type") or "")


def _cut(
    image: tuple[int, int],
    shortest: int,
    resample: str,
    mean: tuple[float, ...],
    deviation: tuple[float, ...],
) -> ImageSettings:
    """The middle of ``image`` pixels, cut of pictures whose shorter side is ``shortest``."""
    shortest = max(*image, shortest)
    return ImageSettings(
        *image, shortest=shortest, resample=resample, mean=mean, deviation=deviation
    )


def _timm(stated: Mapping[str, Any], image: tuple[int, int]) -> ImageSettings:
    """``pretrained_cfg`` of timm's config.json: input_size (channels, height, width) and so on."""
    try:
        _, height, width = stated.get("input_size") or (3, *image)
        mean = tuple(map(float, stated.get("mean", IMAGENET[0])))
        deviation = tuple(map(float, stated.get("std", IMAGENET[1])))
        resample, share = str(stated.get("interpolation", "bilinear")), stated.get("crop_pct")
        if stated.get("crop_mode", "center") == "squash":
            return ImageSettings(height, width, resample=resample, mean=mean, deviation=deviation)
        shortest = int(max(height, width) / float(share or 0.875))
        return _cut((height, width), shortest, resample, mean, deviation)
    except (TypeError, ValueError) as error:
        raise CorruptError(
            f"config.json: pretrained_cfg is of a wrong form ({error}); get it again"
        ) from error


def _image(stored: Mapping[str, Any], where: Path) -> ImageSettings:
    for name, value in _NOT_TAKEN.items():
        if stored.get(name) not in (None, value):
            raise ModelwrightError(
                f"{where}: {name} = {stored[name]!r} is not taken here; prepare the pictures so"
                " and set it to false in your copy, or choose another model"
            )
    if not stored.get("do_resize", True):
        raise ModelwrightError(
            f"{where}: do_resize is false, so the size of its pictures is unknown; set it to true"
            " in your copy, with size"
        )
    kind = _kind(stored)
    usual, filtered = next((v for k, v in _SILENT.items() if kind.startswith(k)), (HALF, BILINEAR))
    channels = len(stored.get("image_mean") or usual[0])
    mean, deviation = (0.0,) * channels, (1.0,) * channels
    if stored.get("do_normalize", True):
        mean = tuple(map(float, stored.get("image_mean") or usual[0]))
        deviation = tuple(map(float, stored.get("image_std") or usual[1]))
    height, width, shortest, stretched = _sizes(stored, where)
    scaled = stored.get("do_rescale", True)
    return ImageSettings(
        height,
        width,
        shortest=shortest,
        stretched=stretched,
        resample=RESAMPLING[int(stored.get("resample", filtered))],
        scale=float(stored.get("rescale_factor", 1 / 255)) if scaled else 1.0,
        mean=mean,
        deviation=deviation,
        rest={k: v for k, v in stored.items() if k not in _READ},
    )


_READ = {
    *("size", "crop_size", "do_resize", "do_center_crop", "resample", "do_rescale"),
    *("rescale_factor", "do_normalize", "image_mean", "image_std", "do_convert_rgb"),
}


def _sizes(
    stored: Mapping[str, Any], where: Path
) -> tuple[int, int, int | None, tuple[int, int] | None]:
    """Height and width that are seen, the shorter side, and the sides of resizing at once."""
    size = stored.get("size", 224)
    if isinstance(size, Mapping) and not {"shortest_edge", "height"} & size.keys():
        raise ModelwrightError(
            f"{where}: size {dict(size)} lets pictures keep their shape; this task needs one size,"
            " as height and width or as shortest_edge with do_center_crop"
        )
    edge = isinstance(size, Mapping) and "shortest_edge" in size
    kind = _kind(stored)
    if kind.startswith(_CUTS):
        side = int(size["shortest_edge"]) if edge else _pair(size)[0]
        if side >= WARPED:
            return side, side, None, None
        return side, side, int(side / float(stored.get("crop_pct") or 224 / 256)), None
    shaped = edge or (isinstance(size, int) and kind.startswith(("CLIP", "Bit")))
    if not shaped:
        whole = _pair(size)
        if not stored.get("do_center_crop", False):
            return *whole, None, None
        seen = _pair(stored.get("crop_size", size))
        return *seen, None, whole if whole != seen else None
    if not stored.get("do_center_crop", kind.startswith(("CLIP", "Bit"))):
        raise ModelwrightError(
            f"{where}: resizes the shorter side and cuts nothing, so pictures keep their shape;"
            " this task needs one size, set do_center_crop and crop_size in your copy"
        )
    shortest = int(size["shortest_edge"]) if edge else int(size)
    return *_pair(stored.get("crop_size", 224)), shortest, None


def _pair(size: Any) -> tuple[int, int]:
    """Height and width of a size, written as one number, a pair, or by name."""
    if isinstance(size, Mapping):
        side = size.get("shortest_edge", 224)
        return int(size.get("height", side)), int(size.get("width", side))
    if isinstance(size, list | tuple):
        return int(size[0]), int(size[-1])
    return int(size), int(size)


def _audio(stored: Mapping[str, Any]) -> AudioSettings:
    bins = int(stored.get("feature_size", 1))
    rate, chunk = int(stored["sampling_rate"]), stored.get("chunk_length")
    written = dataclasses.replace(AudioSettings(), bins=80 if bins > 1 else 0, seconds=30.0)
    known = set(written.written())
    return AudioSettings(
        rate,
        bool(stored.get("do_normalize", False)) and bins == 1,
        bins if bins > 1 else 0,
        int(stored.get("n_fft", 400)),
        int(stored.get("hop_length", 160)),
        None if chunk is None else float(chunk),
        rest={k: v for k, v in stored.items() if k not in known},
    )
