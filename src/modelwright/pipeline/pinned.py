"""Which published checkpoint a run begins with: found once, and pinned in its manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.hub import keras_file, sounds
from modelwright.hub.adapted import through_adapter
from modelwright.hub.files import Published, find, is_keras
from modelwright.hub.keras_file import KerasFile
from modelwright.hub.labels import in_stored_order
from modelwright.hub.loading import config_of
from modelwright.hub.peft_files import adapter_hashes, merge_adapter
from modelwright.hub.pictures import picture_codec
from modelwright.hub.tokenizer import codec_for
from modelwright.models.model import ModelConfig
from modelwright.runs import Run
from modelwright.types import Codec, Example


@dataclass(frozen=True)
class Pinned:
    """A checkpoint, and what the manifest says of it: source, revision, type, SHA-256 of files.

    ``model`` is what the recipe says of the model.
    """

    published: Published | KerasFile
    record: Mapping[str, Any]
    model: Mapping[str, Any]

    def codec(
        self, kind: str, train: Sequence[Example], options: Mapping[str, Any]
    ) -> Codec | None:
        """Its tokenizer, or its way of preparing pictures or sounds, as the codec of a task.

        None where it brings none: a file of Keras.
        """
        if isinstance(self.published, KerasFile):
            return None
        config = config_of(self.published)[1]
        if kind == "images":
            found = picture_codec(self.published, config, train, options, self.model.get("image"))
            return in_order(found, self.published, self.model)
        if kind in sounds.KINDS:
            return sounds.speech_codec(self.published, config, kind, train, options)
        vocabulary = getattr(config, "vocabulary", None)
        if vocabulary is None:
            raise ModelwrightError(
                f"model.from: {self.published.source} is a {config.family}, which reads no text; "
                "choose a published model of text"
            )
        codec = codec_for(self.published, vocabulary, kind, train, options, config=config)
        return in_order(codec, self.published, self.model)


def in_order(codec: Codec, published: Published, model: Mapping[str, Any]) -> Codec:
    """The codec, its labels numbered as the head numbers them unless that is drawn anew."""
    if model.get("head") != "new":
        in_stored_order(codec, published)
    return codec


Given = str | Mapping[str, float] | None  # ``model.adapter_from``: a folder, or folders with shares
Merging = Callable[[nn.Module], object]  # puts an adapter into the weights of a plain model


def shares_of(given: Given) -> dict[str, float]:
    """The folders of adapters that a recipe names, with the share of each.

    Raises:
        ModelwrightError: a share is no number.
    """
    if given is None or isinstance(given, str):
        return {} if given is None else {given: 1.0}
    if not isinstance(given, Mapping) or not given:
        raise ModelwrightError("model.adapter_from: a folder, or {FOLDER: share, FOLDER: share}")
    for folder, share in given.items():
        if isinstance(share, bool) or not isinstance(share, int | float):
            raise ModelwrightError(f"model.adapter_from: the share of {folder} is no number")
    return {folder: float(share) for folder, share in given.items()}


def merge_given(given: Given, published: Published, config: ModelConfig, model: nn.Module) -> None:
    """Put the adapters that a recipe names (``model.adapter_from``) into their base.

    Raises:
        ModelwrightError: one is for another base.
    """
    if shares := shares_of(given):
        layout = config_of(published)[0].layout(config)
        merge = partial(merge_adapter, layout=layout)
        blend(model, [(partial(merge, Path(folder)), share) for folder, share in shares.items()])
        if hasattr(model, "virtual"):
            raise ModelwrightError(
                "model.adapter_from: learned prompts are no change of weights to begin with; name "
                "a low-rank adapter"
            )


@torch.no_grad()
def blend(model: nn.Module, chosen: Sequence[tuple[Merging, float]]) -> None:
    """Put several adapters into a plain model: W + sum over them of share * (W' - W).

    W' is what an adapter alone makes of W. One alone with a share of 1 is put in as it is, to the
    bit; for LoRA W' - W is s B A.
    """
    if len(chosen) == 1 and chosen[0][1] == 1:
        chosen[0][0](model)
        return
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sums: dict[str, Tensor] = {}
    for merging, share in chosen:
        merging(model)
        state = model.state_dict()
        for name in changed(state, before):
            apart = share * (state[name].float() - before[name].float())
            sums[name] = sums[name] + apart if name in sums else apart
            state[name].copy_(before[name])
    state = model.state_dict()
    for name, apart in sums.items():
        state[name].copy_(before[name].float() + apart)


def changed(state: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> list[str]:
    """The names of the tensors that are other numbers than before."""
    return [name for name, tensor in state.items() if not torch.equal(tensor, before[name])]


def published_of(
    run: Run, say: Callable[[str], None] | None = None
) -> Published | KerasFile | None:
    """The checkpoint that the recipe names, at the revision that was found first."""
    source = run.recipe.published
    if source is None:
        return None
    if is_keras(source):
        return keras_file.find(source)
    kept = run.manifest.get("published") or {}
    same = kept.get("source") == source
    found = find(source, revision=kept.get("revision") if same else None, say=say)
    if run.recipe.model.get("through"):
        return through_adapter(found)
    return found


def pinned(run: Run, say: Callable[[str], None]) -> Pinned | None:
    """The checkpoint, hashed, checked against what the hub states, and written down.

    Raises:
        CorruptError: a file is not what the hub states.
    """
    published = published_of(run, say)
    if published is None:
        return None
    say(f"prepare: hashing {published.source}")
    record = {
        "source": published.source,
        "revision": published.revision,
        "model_type": published.config["model_type"],
        "files": published.hashes(),
    }
    for folder in shares_of(run.recipe.model.get("adapter_from")):
        record["files"] = {**record["files"], **adapter_hashes(Path(folder))}
    if run.manifest.get("published") != record:
        run.manifest["published"] = record
        run.save_manifest()
    return Pinned(published, record, run.recipe.model)
