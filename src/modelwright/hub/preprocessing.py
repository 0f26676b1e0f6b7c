"""How images and sounds are made into numbers for a published model: preprocessor_config.json.

Only settings: the codec that reads pictures or sounds applies them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelwright.errors import CorruptError, ModelwrightError
from modelwright.hub.files import read_json

FILE = "preprocessor_config.json"
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


@dataclass(frozen=True)
class ImageSettings:
    """Of pictures.

    Attributes:
        height, width: of what the model sees, pixels.
        shortest: the shorter side after resizing, before the middle is cut out; None: resized to
            height x width at once.
        crop: whether the middle is cut out after resizing.
        resample: nearest, lanczos, bilinear, bicubic, box or hamming.
        scale: factor of the pixels' bytes, such as 1/255.
        mean, deviation: of every channel, after scaling: x = (scale * pixel - mean) / deviation.
        rest: all other fields of the file, as they were.
    """

    height: int = 224
    width: int = 224
    shortest: int | None = None
    crop: bool = False
    resample: str = "bilinear"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    deviation: tuple[float, ...] = (0.5, 0.5, 0.5)
    rest: Mapping[str, Any] = field(default_factory=dict)

    def written(self) -> dict[str, Any]:
        """The content of preprocessor_config.json."""
        number = {name: code for code, name in _RESAMPLING.items()}[self.resample]
        size: dict[str, int] = {"height": self.height, "width": self.width}
        made: dict[str, Any] = {
            **self.rest,
            "do_resize": True,
            "size": size if self.shortest is None else {"shortest_edge": self.shortest},
            "resample": number,
            "do_center_crop": self.crop,
            "do_rescale": self.scale != 1,
            "rescale_factor": self.scale,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.deviation),
        }
        return {**made, "crop_size": size} if self.crop else made


@dataclass(frozen=True)
class AudioSettings:
    """Of sounds.

    Attributes:
        rate: samples a second.
        normalise: whether every sound is brought to mean 0 and variance 1 (wav2vec2).
        bins: mel bands; 0: the samples themselves are read.
        window, hop: samples of a Fourier window, and between two.
        seconds: to which every sound is padded or cut; None: as long as it is.
        rest: all other fields of the file, as they were.
    """

    rate: int = 16_000
    normalise: bool = False
    bins: int = 0
    window: int = 400
    hop: int = 160
    seconds: float | None = None
    rest: Mapping[str, Any] = field(default_factory=dict)

    def written(self) -> dict[str, Any]:
        """The content of preprocessor_config.json."""
        made: dict[str, Any] = {**self.rest, "sampling_rate": self.rate}
        if not self.bins:
            return {**made, "feature_size": 1, "do_normalize": self.normalise}
        made |= {"feature_size": self.bins, "n_fft": self.window, "hop_length": self.hop}
        if self.seconds is not None:
            length = round(self.seconds * self.rate)
            chunk = int(self.seconds) if self.seconds == int(self.seconds) else self.seconds
            made |= {"chunk_length": chunk, "n_samples": length}
            made["nb_max_frames"] = length // self.hop
        return made


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
            return _image(stored)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        line = " ".join(str(error).split())[:100]
        raise CorruptError(f"{path}: a field is of a wrong type ({line}); get it again") from error
    raise ModelwrightError(f"{path}: describes neither pictures nor sounds; leave it out")


def settings_file(settings: ImageSettings | AudioSettings) -> bytes:
    """``preprocessor_config.json`` of some settings."""
    return json.dumps(settings.written(), indent=2, sort_keys=True).encode() + b"\n"


def _image(stored: Mapping[str, Any]) -> ImageSettings:
    size, crop_size = stored.get("size", 224), stored.get("crop_size")
    shortest = None
    crop = bool(stored.get("do_center_crop", False))
    if isinstance(size, Mapping) and "shortest_edge" in size:
        shortest = int(size["shortest_edge"])
    seen = crop_size if crop and crop_size is not None else size
    if isinstance(seen, Mapping):
        side = seen.get("shortest_edge", 224)
        height, width = int(seen.get("height", side)), int(seen.get("width", side))
    else:
        height = width = int(seen)
    normal = bool(stored.get("do_normalize", True))
    channels = len(stored.get("image_mean", (0, 0, 0)))
    default = ImageSettings()
    known = set(default.written()) | {"crop_size"}
    return ImageSettings(
        height,
        width,
        shortest,
        crop,
        _RESAMPLING[int(stored.get("resample", 2))],
        float(stored.get("rescale_factor", 1 / 255)) if stored.get("do_rescale", True) else 1.0,
        tuple(map(float, stored.get("image_mean", default.mean))) if normal else (0.0,) * channels,
        tuple(map(float, stored.get("image_std", default.deviation)))
        if normal
        else (1.0,) * channels,
        {k: v for k, v in stored.items() if k not in known},
    )


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
        {k: v for k, v in stored.items() if k not in known},
    )
