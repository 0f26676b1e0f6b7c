"""Which model a state file without a config holds, by the names and shapes of its tensors.

ResNet, Inception v3, ConvNeXt and Vision Transformer as torchvision and timm name them. What the
tensors do not say is as published: ResNets and ConvNeXts read 224 x 224 pixels, Inception 299 x
299, and a head of attention has 64 numbers unless the width is that of a named size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from modelwright.errors import ModelwrightError
from modelwright.models import convnext, inception, resnet, vit
from modelwright.models.model import ModelConfig

Shapes = Mapping[str, Sequence[int]]
HEAD = 64  # numbers of a head of attention


def recognised(shapes: Shapes, where: str) -> tuple[str, ModelConfig]:
    """Whose names the tensors bear, "torchvision" or "timm", and the config of the model.

    Args:
        shapes: of the file's tensors by name.
        where: the file, for messages.

    Raises:
        ModelwrightError: none of these models, or one of another form than the published.
    """
    try:
        if "AuxLogits.conv0.conv.weight" in shapes or "Mixed_7c.branch1x1.conv.weight" in shapes:
            return "torchvision", _inception(shapes)
        if "conv1.weight" in shapes and "layer1.0.conv1.weight" in shapes:
            return "torchvision", _resnet(shapes)
        if "features.0.0.weight" in shapes and "classifier.2.weight" in shapes:
            return "torchvision", _convnext(shapes, r"features\.(\d+)\.(\d+)\.block", 1)
        if "stem.0.weight" in shapes and "stages.0.blocks.0.conv_dw.weight" in shapes:
            return "timm", _convnext(shapes, r"stages\.(\d+)\.blocks\.(\d+)\.", 0)
        if "cls_token" in shapes and "patch_embed.proj.weight" in shapes:
            return "timm", _vit(shapes, "patch_embed.proj", "pos_embed", r"blocks\.(\d+)\.", "head")
        if "class_token" in shapes and "conv_proj.weight" in shapes:
            block = r"encoder\.layers\.encoder_layer_(\d+)\."
            return "torchvision", _vit(
                shapes, "conv_proj", "encoder.pos_embedding", block, "heads.head"
            )
    except (KeyError, IndexError, ValueError) as error:
        line = " ".join(str(error).split())[:120]
        raise ModelwrightError(
            f"{where}: its tensors are nearly those of a known model, but not quite ({line}); give"
            " a file of an unchanged model of torchvision or timm"
        ) from error
    few = ", ".join(sorted(shapes)[:3])
    raise ModelwrightError(
        f"{where}: no state file of a known model; ResNet, Inception v3, ConvNeXt and Vision"
        f" Transformers are known by torchvision's and timm's names, it has {few}, ...; give the"
        " folder of a published checkpoint with its config.json"
    )


def _blocks(shapes: Shapes, pattern: str) -> list[int]:
    """The number of blocks of every stage, by the numbers in the names."""
    found: dict[int, int] = {}
    for name in shapes:
        if match := re.match(pattern, name):
            stage, block = int(match[1]), int(match[2])
            found[stage] = max(found.get(stage, 0), block + 1)
    return [found[stage] for stage in sorted(found)]


def _resnet(shapes: Shapes) -> ModelConfig:
    bottleneck = "layer1.0.conv3.weight" in shapes
    depths = _blocks(shapes, r"layer(\d+)\.(\d+)\.conv1\.")
    stem, channels = shapes["conv1.weight"][:2]
    return resnet.Config(
        classes=shapes["fc.weight"][0],
        channels=channels,
        depths=tuple(depths),
        widths=tuple(shapes[f"layer{i + 1}.0.conv1.weight"][0] for i in range(len(depths))),
        stem_width=stem,
        bottleneck=bottleneck,
        stem="large",
    )


def _inception(shapes: Shapes) -> ModelConfig:
    made = {f"Conv2d_{name}.conv.weight": channels for name, channels, *_ in inception.STEM}
    for block, plan in inception.BLOCKS.items():
        for branch in plan.branches:
            for place in branch:
                for layer in (place,) if isinstance(place, inception.Layer) else place:
                    made[f"Mixed_{block}.{layer.name}.conv.weight"] = layer.made
    # Each layer has max(1, round(width * channels)): the widths that give all of them.
    low = max((shapes[n][0] - 0.5) / c if shapes[n][0] > 1 else 0.0 for n, c in made.items())
    high = min((shapes[n][0] + 0.5) / c for n, c in made.items())
    if low >= high:
        raise ValueError("its channels are no share of the published ones")
    return inception.Config(
        classes=shapes["fc.weight"][0],
        channels=shapes["Conv2d_1a_3x3.conv.weight"][1],
        width=1.0 if low <= 1 <= high else (low + high) / 2,
        auxiliary="AuxLogits.fc.weight" in shapes,
    )


def _convnext(shapes: Shapes, block: str, dimension: int) -> ModelConfig:
    """``dimension``: 1 where scales and stages are numbered as torchvision does, 0 in timm."""
    depths = _blocks(shapes, block)
    first = "features.0.0.weight" if dimension else "stem.0.weight"
    width, channels, patch, _ = shapes[first]
    widths = [width]
    for i in range(1, len(depths)):
        name = f"features.{2 * i}.1.weight" if dimension else f"stages.{i}.downsample.1.weight"
        widths.append(shapes[name][0])
    head = "classifier.2.weight" if dimension else "head.fc.weight"
    return convnext.Config(
        classes=shapes[head][0],
        channels=channels,
        depths=tuple(depths),
        widths=tuple(widths),
        patch=patch,
    )


def _vit(shapes: Shapes, patch: str, positions: str, block: str, head: str) -> ModelConfig:
    width, channels, side, _ = shapes[f"{patch}.weight"]
    count = shapes[positions][1] - 1  # the class token's apart
    across = math.isqrt(count)
    if across**2 != count:
        raise ValueError(f"{count} positions of patches are no square")
    depth = 1 + max(int(m[1]) for n in shapes if (m := re.match(block, n)))
    named = {s["width"]: s["heads"] for s in vit.Config.sizes.values()}
    up = next(n for n in shapes if re.match(block + r"mlp\.(fc1|0)\.weight", n))
    return vit.Config(
        classes=shapes[f"{head}.weight"][0],
        image=(across * side, across * side),
        channels=channels,
        patch=side,
        width=width,
        depth=depth,
        heads=named.get(width, max(1, width // HEAD)),
        hidden=0 if shapes[up][0] == 4 * width else shapes[up][0],
    )
