"""Several adapters of one base under names, put into its weights and taken out at run time."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from modelwright import checkpoint
from modelwright.data.codecs import save_codec
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.hub.families import writer_of
from modelwright.hub.names import Layout
from modelwright.hub.peft_files import is_adapter, merge_adapter
from modelwright.models import lora
from modelwright.pipeline import adapters
from modelwright.pipeline.fitted import Fitted, newest_checkpoint
from modelwright.pipeline.pinned import Merging, blend, changed
from modelwright.places import is_run
from modelwright.runs import Run


class NamedAdapters:
    """The adapters that a loaded model has been given.

    The base's own numbers are kept of what any of them changes, so it comes back to the bit.

    Attributes:
        fitted: the model, in whose weights the chosen ones are merged.
        active: names of those with their shares; empty: the base.
    """

    def __init__(self, fitted: Fitted) -> None:
        self.fitted = fitted
        self.active: dict[str, float] = {}
        self._known: dict[str, Merging] = {}
        self._kept: dict[str, Tensor] = {}
        found = checkpoint.load(fitted.path, groups=["model"])
        if adapters.DOCUMENT in found.documents:  # which was merged when it was loaded
            base = adapters.base_model(found, fitted.config)
            _put(fitted.model, base.state_dict())
            name = fitted.path.parent.name
            self.add(name, fitted.path)
            self.use({name: 1.0})

    @property
    def names(self) -> list[str]:
        """All that there are, in the order in which they came."""
        return list(self._known)

    @torch.no_grad()
    def add(self, name: str, source: Path) -> None:
        """Make an adapter known, which changes no answer yet.

        Args:
            name: how it is called here.
            source: a run with a tuned stage, a checkpoint of one, or a folder of PEFT's.

        Raises:
            ModelwrightError: the name is taken, or the adapter is for another base.
        """
        if name in self._known:
            raise ModelwrightError(f"adapter {name!r}: there is one already; choose another name")
        merging = self._merging(source)
        model, active = self.fitted.model, self.active
        self._restore()
        before = {n: t.clone() for n, t in model.state_dict().items()}
        try:
            merging(model)
            self._kept |= {n: before[n] for n in changed(model.state_dict(), before)}
        finally:
            _put(model, before)
            self.use(active)
        self._known[name] = merging

    @torch.no_grad()
    def use(self, shares: Mapping[str, float]) -> None:
        """Let the model answer with these adapters, W + sum of share * (W' - W); none: the base.

        Raises:
            ModelwrightError: a name is unknown.
        """
        for name in shares:
            if name not in self._known:
                hint = did_you_mean(name, self.names)
                there = ", ".join(self.names) or "none"
                raise ModelwrightError(f"adapter {name!r}: unknown{hint}; there are: {there}")
        self._restore()
        if shares:
            blend(self.fitted.model, [(self._known[n], share) for n, share in shares.items()])
        self.active = dict(shares)

    def _restore(self) -> None:
        _put(self.fitted.model, self._kept)
        self.active = {}

    def _merging(self, source: Path) -> Merging:
        fitted = self.fitted
        if is_adapter(source):
            layout = layout_of(fitted)
            return lambda model: merge_adapter(source, model, layout)
        path = newest_checkpoint(Run.open(source)) if is_run(source) else source
        found = checkpoint.load(path, groups=["model"])
        if adapters.DOCUMENT not in found.documents:
            raise ModelwrightError(
                f"{path}: was not tuned with an adapter; name a run that was, or a folder of PEFT's"
            )
        if adapters.is_prompt(found):
            raise ModelwrightError(
                f"{path}: learned prompts are no change of weights; load that run by itself"
            )
        mine = save_codec(fitted.codec)
        if any(found.documents.get(name) != content for name, content in mine.items()):
            raise ModelwrightError(
                f"{path}: was trained with another codec than {fitted.path}; an adapter is of use "
                "on its own base alone"
            )
        return partial(_merge, found=found)


def layout_of(fitted: Fitted) -> Layout:
    """How the model's weights are called where it is published, as adapters of PEFT's name them."""
    run = Run.open(fitted.path.parents[2])
    kind = (run.manifest.get("published") or {}).get("model_type")
    return writer_of(fitted.config, kind).layout(fitted.config)


def _merge(model: nn.Module, found: checkpoint.Checkpoint) -> None:
    """Merge the adapter of a checkpoint into its base; draws no number that anybody else sees."""
    at = next(model.parameters()).device
    learned = {name: p.requires_grad for name, p in model.named_parameters()}
    with torch.random.fork_rng():
        adapters.put_on(model, found)
    lora.fold(model.to(at))
    for name, p in model.named_parameters():
        p.requires_grad_(learned[name])


def _put(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    state = model.state_dict()
    with torch.no_grad():
        for name, tensor in tensors.items():
            state[name].copy_(tensor)
