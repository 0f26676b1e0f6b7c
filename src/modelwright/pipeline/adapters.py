"""A stage that trains adapters: what it begins with, and checkpoints that hold the adapter alone.

Such a checkpoint is small: the adapter's tensors, where its base lies, and the base's fingerprint.
The base is the checkpoint that the stage began with, of the same run, or the published one at the
revision that the run has pinned; an adapter is never put on another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from modelwright import checkpoint
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.hub import keras_file
from modelwright.hub.adapted import through_adapter
from modelwright.hub.files import find, is_keras
from modelwright.hub.loading import fill, plan_of
from modelwright.models import lora
from modelwright.models.model import ModelConfig
from modelwright.pipeline.patience import chosen
from modelwright.pipeline.pinned import merge_given
from modelwright.runs import Run

DOCUMENT = "adapter.json"


@dataclass
class Adapted:
    """A model with adapters in it.

    Attributes:
        model: adapted in place.
        adapter: with the names of the layers as ``targets``, of the parameters as ``trained``.
        base: where the other parameters came from, as ``base_of`` says it.
        fingerprint: SHA-256 of the frozen parameters as the base has them, before they are held
            in fewer bits.
    """

    model: nn.Module
    adapter: lora.Adapter
    base: Mapping[str, Any]
    fingerprint: str

    @property
    def names(self) -> list[str]:
        """What a checkpoint holds."""
        return lora.adapter_names(self.model, self.adapter.trained)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The adapter by those names."""
        state = self.model.state_dict()
        return {name: state[name] for name in self.names}

    def document(self) -> bytes:
        """What a checkpoint says of the adapter."""
        found = {
            "adapter": asdict(self.adapter),
            "base": dict(self.base),
            "fingerprint": self.fingerprint,
        }
        return json.dumps(found, indent=1).encode()

    def load(self, found: checkpoint.Checkpoint) -> None:
        """Take the adapter of a checkpoint.

        Raises:
            CorruptError: it was trained on another base, or has other tensors.
        """
        _require_base(found, _said(found), self.fingerprint)
        where = str(found.path)
        lora.load_adapter(self.model, found.tensors["model"], self.adapter.trained, where)


def base_of(run: Run, name: str) -> dict[str, Any]:
    """Where a stage's base lies: a checkpoint of the run, or a published one.

    Raises:
        ModelwrightError: nothing is trained yet.
    """
    if name != next(iter(run.recipe.stages)):
        folder = run.path / "checkpoints"
        start = chosen(folder / "train")
        if start is None:
            raise ModelwrightError(
                f"{run.path}: nothing trained to tune; run `modelwright train` first"
            )
        return {"checkpoint": start.relative_to(folder).as_posix()}
    pinned, model = run.manifest.get("published") or {}, run.recipe.model
    return {
        "source": str(run.recipe.published),
        "revision": pinned.get("revision"),
        "new_head": model.get("head") == "new",
        "through": model.get("through"),
        "adapter_from": model.get("adapter_from"),
    }


def adapted(
    model: nn.Module, config: ModelConfig, adapter: lora.Adapter, base: Mapping[str, Any], run: Path
) -> Adapted:
    """Give a new model the parameters of its base, and adapters.

    Parameters that the base does not have, a new head, are trained whole.

    Raises:
        CorruptError: the base is gone or damaged.
        ModelwrightError: the adapter does not suit the model.
    """
    fresh = _filled(model, config, base, run)
    whole = [n for n, _ in lora.whole_parameters(model, [*adapter.trained, *fresh])]
    mark = lora.base_fingerprint(model, whole)
    chosen = lora.adapt(model, replace(adapter, trained=whole))
    return Adapted(model, replace(adapter, targets=chosen, trained=whole), base, mark)


def read(found: checkpoint.Checkpoint, model: nn.Module, config: ModelConfig) -> Adapted:
    """The base of an adapter's checkpoint in a new model, with the adapter in it.

    Raises:
        CorruptError: the base is gone or another one, or the checkpoint is none of an adapter.
    """
    said = _said(found)
    made = adapted(model, config, _adapter(found, said), said["base"], found.path.parents[2])
    made.load(found)
    return made


def put_on(model: nn.Module, found: checkpoint.Checkpoint) -> Adapted:
    """Put the adapter of a checkpoint on a plain model that is its base already.

    Raises:
        CorruptError: it was trained on another base; the model is as it was then.
    """
    said = _said(found)
    adapter = _adapter(found, said)
    mark = lora.base_fingerprint(model, adapter.trained)
    _require_base(found, said, mark)
    lora.adapt(model, adapter)
    made = Adapted(model, adapter, said["base"], mark)
    made.load(found)
    return made


def _require_base(found: checkpoint.Checkpoint, said: Mapping[str, Any], mark: str) -> None:
    if said["fingerprint"] != mark:
        raise CorruptError(
            f"{found.path}: the adapter was trained on another base "
            f"({said['fingerprint'][:12]}, this one is {mark[:12]}); bring back "
            f"{_named(said['base'])}, or tune anew"
        )


def _adapter(found: checkpoint.Checkpoint, said: Mapping[str, Any]) -> lora.Adapter:
    try:
        return lora.Adapter(**said["adapter"])
    except TypeError as error:
        raise CorruptError(f"{found.path}: {DOCUMENT} is not understood ({error})") from error


def is_prompt(found: checkpoint.Checkpoint) -> bool:
    """Whether an adapter's checkpoint is one of learned prompts."""
    adapter = _adapter(found, _said(found))
    return bool(adapter.prompt or adapter.prefix)


def base_model(found: checkpoint.Checkpoint, config: ModelConfig) -> nn.Module:
    """The base of an adapter's checkpoint as it is stored, in a new plain model.

    Raises:
        CorruptError: the base is gone, or the checkpoint is none of an adapter.
    """
    model = config.build()
    _filled(model, config, _said(found)["base"], found.path.parents[2])
    return model


def _said(found: checkpoint.Checkpoint) -> dict[str, Any]:
    try:
        said: dict[str, Any] = json.loads(found.documents[DOCUMENT])
        said["adapter"], said["base"], said["fingerprint"]
    except (KeyError, ValueError, TypeError) as error:
        raise CorruptError(f"{found.path}: not an adapter's checkpoint ({error})") from error
    return said


def _named(base: Mapping[str, Any]) -> str:
    return str(base.get("checkpoint") or base.get("source"))


def _filled(
    model: nn.Module, config: ModelConfig, base: Mapping[str, Any], run: Path
) -> tuple[str, ...]:
    """Give a model the parameters of a base; the names of those that it has none for."""
    if name := base.get("checkpoint"):
        path = run / "checkpoints" / name
        if not path.is_dir():
            raise CorruptError(f"{path}: the base of an adapter is gone; bring it back")
        found = checkpoint.load(path, groups=["model"])
        try:
            model.load_state_dict(found.tensors["model"])
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise CorruptError(f"{path}: not the base of this adapter ({reason})") from error
        return ()
    source = str(base["source"])
    if is_keras(source):
        keras_file.find(source).fill(model)
        return ()
    published = find(source, revision=base["revision"])
    if base["through"]:
        published = through_adapter(published)
    plan = plan_of(published, config, model, new_head=bool(base["new_head"]))
    fill(model, plan)
    merge_given(base["adapter_from"], published, config, model)
    parameters = dict(model.named_parameters())
    return tuple(name for name in plan.fresh if name in parameters)
