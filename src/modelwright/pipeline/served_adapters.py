"""Adapters of one served base by request: from runs that were tuned on it, or in PEFT's format."""

from __future__ import annotations

from pathlib import Path

import torch

from modelwright import checkpoint
from modelwright.data.codecs import save_codec
from modelwright.errors import ModelwrightError
from modelwright.hub.peft_files import is_adapter, put_adapter
from modelwright.models import routed
from modelwright.models.quantized import is_packed
from modelwright.pipeline import adapters
from modelwright.pipeline.fitted import Fitted, newest_checkpoint
from modelwright.pipeline.named_adapters import layout_of
from modelwright.runs import Run
from modelwright.serving.engine import Engine


class ServedAdapters:
    """What an engine is told of adapters while it works.

    Args:
        fitted: the base, as the engine has it.
        engine: answers with it.
    """

    def __init__(self, fitted: Fitted, engine: Engine) -> None:
        self._fitted, self._engine = fitted, engine

    def adapt(self, name: str, run: str) -> None:
        """Let requests name the adapter of a run, or of a folder of PEFT's.

        Raises:
            ModelwrightError: there is none, or one whose rows cannot share a batch; or the base is
                in few bits.
            CorruptError: it was trained on another base.
        """
        base = self._fitted.model
        if is_packed(base):  # before all else: no adapter's base looks like it
            raise ModelwrightError(
                f"{run}: the base is served in few bits, and adapters are trained on it as it was; "
                "serve it without --weights, or serve that run by itself"
            )
        if is_adapter(Path(run)):
            twin = routed.twin(base)
            put_adapter(Path(run), twin, layout_of(self._fitted))
            self._engine.adapters[name] = routed.route(base, twin)
            return
        path = newest_checkpoint(Run.open(Path(run)), "tune")
        found = checkpoint.load(path, groups=["model"])
        if adapters.DOCUMENT not in found.documents or adapters.is_prompt(found):
            raise ModelwrightError(
                f"{path}: was not tuned with low-rank matrices; serve that run by itself"
            )
        mine = save_codec(self._fitted.codec)
        if any(found.documents.get(one) != content for one, content in mine.items()):
            raise ModelwrightError(f"{path}: has another codec than the base that is served here")
        twin = routed.twin(base)
        with torch.random.fork_rng():
            made = adapters.put_on(twin, found)
        if made.adapter.quantize is not None:
            raise ModelwrightError(
                f"{path}: was trained on a base in few bits; serve that run by itself"
            )
        self._engine.adapters[name] = routed.route(base, twin, whole=made.adapter.trained)

    def forget(self, name: str) -> None:
        """Let no further request name it; harmless where there is none."""
        self._engine.adapters.pop(name, None)
