"""Published models of pictures are tuned by a recipe, prepared as published, and given back."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from safetensors.torch import save_file

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports transformers

from modelwright import api
from modelwright.data.archive import tar_members
from modelwright.data.codecs.images import Codec
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.exporting import format_named
from modelwright.exporting.subject import Options
from modelwright.hub import timm, torchvision
from modelwright.hub.files import find
from modelwright.hub.loading import config_of
from modelwright.hub.preprocessing import (
    FILE,
    AudioSettings,
    ImageSettings,
    read_settings,
    settings_file,
)
from modelwright.hub.recognised import recognised
from modelwright.models import inception, resnet, vit
from modelwright.models.model import ModelConfig
from modelwright.pipeline.export import export, subject_of
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from modelwright.types import Example, Image, ImageFile, Turn, stack
from tests.hub import small
from tests.hub.test_vision_state_files import PUBLISHED, SMALL, written

STAGE = {"steps": 2, "batch": 4, "threads": 1, "compile": False, "precision": "float32"}
CLASSES, EACH = 3, 8
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
STATED: dict[str, dict[str, Any]] = {
    "ViT": {"image_processor_type": "ViTImageProcessor", "size": {"height": 40, "width": 56}},
    "ViT, old": {"feature_extractor_type": "ViTFeatureExtractor", "size": 48, "resample": 3},
    "DeiT": {
        "image_processor_type": "DeiTImageProcessor",
        "size": {"height": 64, "width": 64},
        "crop_size": {"height": 48, "width": 48},
        "do_center_crop": True,
        **IMAGENET,
        "resample": 3,
    },
    "CLIP": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 60},
        "crop_size": {"height": 48, "width": 40},
        "do_center_crop": True,
        "resample": 3,
    },
    "Bit": {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 50},
        "crop_size": {"height": 44, "width": 44},
        "do_center_crop": True,
        "do_rescale": True,
        "rescale_factor": 1 / 127.5,
        "resample": 2,
    },
    "ConvNeXt": {
        "image_processor_type": "ConvNextImageProcessor",
        "size": {"shortest_edge": 56},
        "crop_pct": 0.875,
        **IMAGENET,
    },
    "ConvNeXt, large": {
        "image_processor_type": "ConvNextImageProcessor",
        "size": {"shortest_edge": 384},
        "crop_pct": 0.9,
        "do_normalize": False,
    },
}


@pytest.fixture(scope="module")
def folder(data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Photographs of three flowers in ImageNet's layout, of several shapes."""
    place = tmp_path_factory.mktemp("flowers")
    counts: dict[str, int] = {}
    for name, content in tar_members(data("flowers12") / "flowers12.tar", suffix=".jpg"):
        label = name.split("/")[1]
        if counts.setdefault(label, 0) == EACH:
            if len(counts) == CLASSES and min(counts.values()) == EACH:
                break
            continue
        if len(counts) > CLASSES:
            break
        counts[label] += 1
        path = place / label / Path(name).name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        if counts[label] % 2:
            with Pillow.open(io.BytesIO(content)) as image:
                image.crop((0, 0, 224, 150)).save(path, "PNG")
    yield place


def recipe(source: Path, model: Path, **fields: Any) -> dict[str, Any]:
    return {
        "name": "pictures",
        "data": {"source": str(source), "split": {"by": "row", "validation": 0.1, "test": 0.3}},
        "model": {"from": str(model), "head": "new", **fields},
        "tune": {"task": "image_classification", **STAGE},
        "evaluate": {"baselines": False},
    }


def state_file(path: Path, config: ModelConfig, naming: Any = torchvision) -> Path:
    torch.manual_seed(0)
    state = written(naming.layout(config), config.build().state_dict())
    save_file({k: v.contiguous() for k, v in state.items()}, path)
    return path


def question(content: bytes) -> Example:
    return Example((Turn("user", (ImageFile(content, "x.jpg"),)),))


# Preparation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STATED)
def test_pictures_are_prepared_as_transformers_prepares_them(
    name: str, folder: Path, tmp_path: Path
) -> None:
    """From the file on, and again after the settings were written by us."""
    transformers = pytest.importorskip("transformers")
    (tmp_path / FILE).write_text(json.dumps(STATED[name]))
    settings = read_settings(tmp_path)
    assert isinstance(settings, ImageSettings)
    codec = Codec(["a", "b"], settings)
    again = tmp_path / "again"
    again.mkdir()
    (again / FILE).write_bytes(settings_file(settings))
    assert read_settings(again) is not None
    for path in sorted(folder.rglob("*.*"))[:4]:
        ours = codec.tensors(stack([codec.encode(question(path.read_bytes()))], ()))["features"][0]
        for place in (tmp_path, again):
            processor = transformers.AutoImageProcessor.from_pretrained(place, backend="pil")
            with Pillow.open(path) as image:
                theirs = processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
            assert ours.shape == theirs.permute(1, 2, 0).shape
            assert (ours - theirs.permute(1, 2, 0)).abs().max() < 2e-6 * max(
                1.0, float(theirs.abs().max())
            )


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"do_pad": True}, "do_pad = True is not taken here"),
        ({"do_resize": False}, "do_resize is false"),
        ({"size": {"longest_edge": 30}}, "lets pictures keep their shape"),
        ({"size": {"shortest_edge": 30}}, "cuts nothing, so pictures keep their shape"),
        ({"image_std": [0.5, 0.0, 0.5]}, "deviations above 0"),
    ],
)
def test_what_is_not_prepared_here_is_named(more: dict[str, Any], why: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({**STATED["ViT"], **more}))
    with pytest.raises(ModelwrightError, match=why):
        read_settings(tmp_path)


@pytest.mark.parametrize("more", [{"resample": 9}, {"image_mean": ["x"]}, {"size": "large"}])
def test_fields_of_a_wrong_type_are_corrupt(more: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({**STATED["ViT"], **more}))
    with pytest.raises(CorruptError, match="a field is of a wrong type"):
        read_settings(tmp_path)


def test_sounds_are_written_as_transformers_reads_them(
    data: Callable[[str], Path], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    made = (
        transformers.WhisperFeatureExtractor(feature_size=80, chunk_length=2),
        transformers.Wav2Vec2FeatureExtractor(do_normalize=True),
    )
    from modelwright.data.spoken import read_wave

    (content,) = [
        c
        for _, (_, c) in zip(
            range(1), tar_members(data("fsdd") / "recordings.tar.xz", suffix=".wav"), strict=False
        )
    ]
    samples, _ = read_wave(content, "one.wav")
    for number, theirs in enumerate(made):
        place = tmp_path / str(number)
        theirs.save_pretrained(place)
        settings = read_settings(place)
        assert isinstance(settings, AudioSettings)
        (place / FILE).write_bytes(settings_file(settings))
        again = transformers.AutoFeatureExtractor.from_pretrained(place)
        assert type(again) is type(theirs)
        found = [e(samples, sampling_rate=16_000, return_tensors="np") for e in (theirs, again)]
        assert all(np.array_equal(found[0][k], found[1][k]) for k in found[0])


# State files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("naming", "config"), SMALL)
def test_a_small_state_file_is_recognised(naming: str, config: Any) -> None:
    layout = {"torchvision": torchvision, "timm": timm}[naming].layout(config)
    state = written(layout, config.build().state_dict())
    if isinstance(config, vit.Config) and config.image[0] != config.image[1]:
        with pytest.raises(ModelwrightError, match="6 positions of patches are no square"):
            recognised({k: tuple(v.shape) for k, v in state.items()}, "x.safetensors")
        return
    found = recognised({k: tuple(v.shape) for k, v in state.items()}, "x.safetensors")
    shapes = {k: v.shape for k, v in found[1].build().state_dict().items()}
    assert shapes == {k: v.shape for k, v in config.build().state_dict().items()}


@pytest.mark.parametrize(("family", "size", "more", "count"), PUBLISHED)
def test_published_sizes_are_recognised(
    family: Any, size: str, more: dict[str, Any], count: int
) -> None:
    config = family.Config(classes=1000, **family.Config.sizes[size], **more)
    naming = torchvision
    with torch.device("meta"):
        state = config.build().state_dict()
    shapes = {k: tuple(v.shape) for k, v in written(naming.layout(config), state).items()}
    name, found = recognised(shapes, "x.safetensors")
    assert name == "torchvision"
    with torch.device("meta"):
        ours = found.build()
    assert sum(p.numel() for p in ours.parameters()) == count
    assert getattr(found, "heads", 0) == getattr(config, "heads", 0)


def test_files_that_are_no_state_files(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "resnet50.pth").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    cut = state_file(tmp_path / "cut.safetensors", SMALL[0][1])
    for name, why in (
        ("other.safetensors", "no state file of a known model.*it has a, b"),
        ("resnet50.pth", "a pickle can run code"),
        ("notes.txt", r"no folder and no \.safetensors file"),
        ("none.safetensors", "no such folder"),
    ):
        with pytest.raises(ModelwrightError, match=why):
            find(str(tmp_path / name))
    cut.write_bytes(cut.read_bytes()[:-1])
    with pytest.raises(CorruptError, match=r"cut\.safetensors"):
        find(str(cut))
    names = {"conv1.weight": torch.zeros(4, 3, 7, 7), "layer1.0.conv1.weight": torch.zeros(4)}
    save_file(names, tmp_path / "half.safetensors")
    with pytest.raises(ModelwrightError, match=r"nearly those of a known model.*fc\.weight"):
        find(str(tmp_path / "half.safetensors"))


# From a recipe -----------------------------------------------------------------------------------


def both_answer(run: Any, out: Path, picture: Path) -> None:
    """Our answer to a picture's file, and that of transformers from the exported folder."""
    transformers = pytest.importorskip("transformers")
    ours = api.load(run).probabilities(str(picture))
    processor = transformers.AutoImageProcessor.from_pretrained(out, backend="pil")
    model = small.quietly(transformers.AutoModelForImageClassification.from_pretrained, out).eval()
    with Pillow.open(picture) as image, torch.no_grad():
        logits = model(**processor(image.convert("RGB"), return_tensors="pt")).logits[0]
    theirs = {model.config.id2label[i]: float(p) for i, p in enumerate(logits.softmax(0))}
    assert theirs == pytest.approx(ours, abs=1e-5)


def test_a_resnet_of_torchvision(folder: Path, tmp_path: Path) -> None:
    """Tuned, evaluated, asked, exported, and read by transformers; what is planted is caught."""
    config = resnet.Config(7, depths=(1, 1), widths=(8, 12), bottleneck=True, stem="large")
    place = tmp_path / "resnet"
    place.mkdir()
    state_file(place / "resnet50-11ad3fa6.safetensors", config)
    values = recipe(folder, place, image=[64, 48])
    run = api.run(values, out=tmp_path / "run")
    facts = json.loads((run.path / "data" / "codec" / "images.json").read_text())["settings"]
    assert (facts["height"], facts["width"]) == (64, 48)
    assert facts["mean"] == IMAGENET["image_mean"]
    assert run.manifest["published"]["model_type"] == "torchvision"
    names = [m["name"] for m in run.read_json("evaluation.json")["measures"]]
    assert names == ["test accuracy", "test macro-F1", "test calibration error"]
    out = tmp_path / "out"
    proof = export(run, out, lambda _: None, to="hub")
    assert proof.samples == 4
    both_answer(run, out, sorted(folder.rglob("*.*"))[0])
    subject = subject_of(run, load_fitted(newest_checkpoint(run)))
    assert isinstance(subject.examples[0].given[-1].parts[0], ImageFile)
    form = format_named("hub")
    for field, value in (
        ("image_mean", [0.485, 0.456, 0.41]),
        ("resample", 3),
        ("crop_size", {"height": 64, "width": 50}),
        ("size", {"shortest_edge": 80}),
    ):
        stated = json.loads((out / FILE).read_text())
        (out / FILE).write_text(json.dumps({**stated, field: value}))
        with pytest.raises(ModelwrightError, match=r"prepares sample \d of tune/test otherwise"):
            form.check(out, subject, Options())
        (out / FILE).write_text(json.dumps(stated))
    (out / FILE).unlink()
    with pytest.raises(ModelwrightError, match=r"no preprocessor_config\.json"):
        form.check(out, subject, Options())


def test_an_inception_with_its_second_head(folder: Path, tmp_path: Path) -> None:
    config = inception.Config(7, width=0.05, auxiliary=True)
    path = state_file(tmp_path / "inception_v3.safetensors", config)
    run = api.run(recipe(folder, path), out=tmp_path / "run")
    facts = json.loads((run.path / "data" / "codec" / "images.json").read_text())["settings"]
    assert (facts["height"], facts["shortest"], facts["mean"]) == (299, 342, [0.5] * 3)
    fitted = load_fitted(newest_checkpoint(run))
    assert fitted.config.to_dict()["auxiliary"]
    assert fitted.model.auxiliary.head.out_features == CLASSES  # type: ignore[union-attr]
    out = tmp_path / "out"
    assert export(run, out, lambda _: None, to="hub").samples == 4
    assert config_of(find(str(out)))[1] == fitted.config
    tuned = recipe(folder, out)  # what was given back is begun with again, its head kept
    del tuned["model"]["head"]
    again = api.train({**tuned, "train": tuned.pop("tune")}, out=tmp_path / "again")
    kept = load_fitted(newest_checkpoint(again))
    assert kept.codec.labels == fitted.codec.labels  # type: ignore[attr-defined]
    assert kept.codec.settings.mean == (0.5,) * 3  # type: ignore[attr-defined]


def test_a_vit_of_the_hub(folder: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    fields = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.ViTConfig(image_size=48, intermediate_size=64, num_labels=9, **fields)
    place = tmp_path / "vit"
    small.quietly(transformers.ViTForImageClassification(config).save_pretrained, place)
    stated = {**STATED["ViT"], "size": {"height": 48, "width": 48}, "image_mean": [0.4, 0.5, 0.6]}
    (place / FILE).write_text(json.dumps(stated))
    run = api.run(recipe(folder, place), out=tmp_path / "run")
    assert FILE in run.manifest["published"]["files"]
    assert export(run, tmp_path / "out", lambda _: None, to="hub").samples == 4
    for picture in sorted(folder.rglob("*.*"))[:2]:
        both_answer(run, tmp_path / "out", picture)
    without_head = recipe(folder, place)
    del without_head["model"]["head"]
    with pytest.raises(ModelwrightError, match=r"classes = 9, the data need 3.*head: new"):
        api.run(without_head, out=tmp_path / "kept")


def test_a_vit_of_timm_says_how_its_pictures_are_prepared(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "timm"
    place.mkdir()
    config = vit.Config(5, (48, 48), width=32, depth=1, heads=2, patch=16)
    state_file(place / "model.safetensors", config, timm)
    prepared = {
        "input_size": [3, 48, 48],
        "mean": [0.1, 0.2, 0.3],
        "std": [0.5, 0.6, 0.7],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
    }
    stated = {"architecture": "vit_tiny_patch16_224", "pretrained_cfg": prepared}
    (place / "config.json").write_text(json.dumps(stated))
    run = api.run(recipe(folder, place, heads=2), out=tmp_path / "run")
    settings = load_fitted(newest_checkpoint(run)).codec.settings  # type: ignore[attr-defined]
    assert (settings.shortest, settings.resample) == (53, "bicubic")
    assert (settings.mean, settings.deviation) == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    export(run, tmp_path / "out", lambda _: None, to="hub")
    both_answer(run, tmp_path / "out", sorted(folder.rglob("*.*"))[0])


def test_what_does_not_belong_together_is_said(folder: Path, tmp_path: Path) -> None:
    small.gpt2(tmp_path / "gpt2")
    with pytest.raises(ModelwrightError, match="is a gpt2, which reads no pictures"):
        api.run(recipe(folder, tmp_path / "gpt2"), out=tmp_path / "one")
    config = resnet.Config(7, channels=1, depths=(1,), widths=(8,), stem="large")
    path = state_file(tmp_path / "grey.safetensors", config)
    with pytest.raises(ModelwrightError, match="pictures have 3 channels.*the model reads 1"):
        api.run(recipe(folder, path), out=tmp_path / "two")
    values = {**recipe(folder, path), "codec": {"vocabulary": 9}}
    with pytest.raises(ModelwrightError, match="codec images: no option 'vocabulary'"):
        api.run(values, out=tmp_path / "three")


def test_labels_are_numbered_as_a_kept_head_numbers_them(folder: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    names = sorted(p.name for p in folder.iterdir())[::-1]
    fields = {"embedding_size": 8, "hidden_sizes": [8], "depths": [1], "layer_type": "basic"}
    for number, labels in enumerate(([*names, "rose"], ["tulip", *names[1:], "rose"])):
        config = transformers.ResNetConfig(
            **fields,
            id2label=dict(enumerate(labels)),
            label2id={n: i for i, n in enumerate(labels)},
        )
        place = tmp_path / str(number)
        small.quietly(transformers.ResNetForImageClassification(config).save_pretrained, place)
        values = recipe(folder, place, image=[32, 32])
        del values["model"]["head"]
        if number:
            with pytest.raises(ModelwrightError, match=f"knows no label '{names[0]}'.*head: new"):
                api.run(values, out=tmp_path / "run-1")
            continue
        run = api.run(values, out=tmp_path / "run-0")
        assert load_fitted(newest_checkpoint(run)).codec.labels == labels  # type: ignore[attr-defined]


def test_arrays_are_prepared_too(tmp_path: Path) -> None:
    codec = Codec(["a", "b"], ImageSettings(8, 8, shortest=10))
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20), dtype=np.uint8)
    grey = codec.encode(Example((Turn("user", (Image(pixels),)),)))["features"]
    assert grey.shape == (8, 8, 3)
    assert np.array_equal(grey[:, :, 0], grey[:, :, 2])
