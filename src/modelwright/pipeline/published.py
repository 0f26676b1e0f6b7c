"""The road from a published checkpoint into a training: its shape, then its weights."""

from __future__ import annotations

from typing import Any

import torch

from modelwright import runtime
from modelwright.errors import ModelwrightError
from modelwright.hub.files import Published
from modelwright.hub.keras_file import KerasFile
from modelwright.hub.loading import NEW_HEAD, config_of, fill, load, plan_of
from modelwright.models.keras import config_for
from modelwright.models.model import ModelConfig, checked_fields, fields_for
from modelwright.pipeline.fitted import Fitted, load_fitted, newest_checkpoint
from modelwright.pipeline.pinned import merge_given, published_of
from modelwright.recipe import Recipe
from modelwright.runs import Run
from modelwright.training.parallel import Placed
from modelwright.types import Codec

__all__ = ["begin", "load_base", "load_published", "published_of", "start_config"]

_SIZES = ("classes", "outputs")  # of a head, by the names that families give them


def new_head(recipe: Recipe) -> bool:
    """Whether the recipe draws the head anew."""
    return recipe.model.get("head") == "new"


def start_config(recipe: Recipe, published: Published | KerasFile, codec: Codec) -> ModelConfig:
    """The config of a training that begins with a checkpoint.

    It is the stored one with the fields that the recipe gives; with a new head also what the data
    decide of it.

    Raises:
        ModelwrightError: the head does not suit the data, or a field is unknown.
    """
    if isinstance(published, KerasFile):
        return config_for(published.architecture, codec, published.source)
    stored = config_of(published)[1]
    cls, fresh = type(stored), new_head(recipe)
    ours = {"from", "through", "adapter_from", *(["head"] if fresh else [])}
    given = {k: v for k, v in recipe.model.items() if k not in ours}
    fields: dict[str, Any] = {k: v for k, v in stored.to_dict().items() if k != "family"}
    fields |= checked_fields(cls, given)
    needed = fields_for(cls, codec, {})
    labelled = any(name in needed for name in _SIZES)
    if "image" in needed and "image" not in given:
        fields["image"] = needed["image"]  # as its pictures are prepared
    if fresh:
        fields |= {k: v for k, v in needed.items() if k in (*_SIZES, "head")}
        if "head" in fields and labelled and "head" not in needed:
            fields["head"] = "classification"
    for name in (*_SIZES, "head"):
        if name in needed and fields.get(name) != needed[name]:
            raise ModelwrightError(
                f"model.from: the head of {published.source} has {name} = {fields.get(name)}, the "
                f"data need {needed[name]}; to draw a new one write {NEW_HEAD} under model"
            )
    if labelled and fields.get("head", "classification") != needed.get("head", "classification"):
        raise ModelwrightError(
            f"model.from: {published.source} has no head for labels but one for "
            f"{fields['head']}; to draw a new one write {NEW_HEAD} under model"
        )
    return cls(**fields_for(cls, codec, fields))


def begin(run: Run, config: ModelConfig, held: Placed) -> None:
    """Give a freshly built model the published weights, if the recipe begins with some.

    With a new head, the head keeps the values that were drawn for it.
    """
    published = published_of(run)
    if published is None:
        return
    if isinstance(published, KerasFile):
        if held.sharded:
            raise ModelwrightError(
                "parallel.shard: models of Keras are copied, not cut; set it to none"
            )
        published.fill(held.model)
        return
    fresh, given = new_head(run.recipe), run.recipe.model.get("adapter_from")
    if not held.sharded:
        fill(held.model, plan_of(published, config, held.model, new_head=fresh))
        merge_given(given, published, config, held.model)
        return
    # Every process reads the whole once and keeps its part; a new head is drawn alike in all.
    torch.manual_seed(runtime.derived_seed(run.recipe.seed, "head"))
    whole = load(published, config=config, dtype=torch.float32, new_head=fresh).model
    merge_given(given, published, config, whole)
    held.load_whole(whole.state_dict())


def load_base(run: Run, tuned: Fitted) -> Fitted:
    """What a tuned model began with: the trained one, or the published one."""
    if run.recipe.train is not None:
        return load_fitted(newest_checkpoint(run, "train"))
    return load_published(run, tuned)


def load_published(run: Run, tuned: Fitted) -> Fitted:
    """What the first training of a run begins with: the published model of its recipe.

    Raises:
        ModelwrightError: it begins with none.
    """
    published = published_of(run)
    if published is None:
        raise ModelwrightError(f"{run.path}: nothing that was tuned; add a train part")
    config = start_config(run.recipe, published, tuned.codec)
    torch.manual_seed(runtime.derived_seed(run.recipe.seed, "head"))
    if isinstance(published, KerasFile):
        model = config.build()
        published.fill(model)
    else:
        fresh = new_head(run.recipe)
        model = load(published, config=config, dtype=torch.float32, new_head=fresh).model
        merge_given(run.recipe.model.get("adapter_from"), published, config, model)
    model.to(runtime.device())
    return Fitted(model, config, tuned.codec, tuned.task, tuned.objective, published.folder, step=0)
