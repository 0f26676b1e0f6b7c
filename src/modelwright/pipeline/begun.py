"""Which published checkpoint a run begins with: found once, and pinned in its manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from modelwright.errors import ModelwrightError
from modelwright.hub import keras_file
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
        """Its tokenizer, or its way of preparing pictures, as the codec of a task.

        None where it brings none: a file of Keras.
        """
        if isinstance(self.published, KerasFile):
            return None
        config = config_of(self.published)[1]
        if kind == "images":
            found = picture_codec(self.published, config, train, options, self.model.get("image"))
            return in_order(found, self.published, self.model)
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


def merge_given(
    folder: str | None, published: Published, config: ModelConfig, model: nn.Module
) -> None:
    """Put the adapter that a recipe names (``model.adapter_from``) into its base.

    Raises:
        ModelwrightError: it is for another base.
    """
    if folder is not None:
        merge_adapter(Path(folder), model, config_of(published)[0].layout(config))


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
    if folder := run.recipe.model.get("adapter_from"):
        record["files"] = {**published.hashes(), **adapter_hashes(Path(folder))}
    if run.manifest.get("published") != record:
        run.manifest["published"] = record
        run.save_manifest()
    return Pinned(published, record, run.recipe.model)
