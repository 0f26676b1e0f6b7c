"""What of a model is trained, from which step on, and at which rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from modelwright.errors import ModelwrightError
from modelwright.models.lora import HEADS, whole_parameters


class Freezing:
    """Which parameters are trained at a step: a pure function of the step.

    A norm over the batch whose own parameters are frozen normalises by the statistics that it has,
    and leaves them as they are.

    Args:
        model: whose parameters are frozen and trained again.
        freeze: patterns of parameters that are not trained.
        unfreeze: step -> patterns of those that are trained from this step on.

    Raises:
        ModelwrightError: a pattern means nothing, or nothing is left to train.
    """

    def __init__(
        self, model: nn.Module, freeze: Sequence[str], unfreeze: Mapping[int, Sequence[str]]
    ) -> None:
        self.model = model
        self.begins: dict[str, int] = {}  # step at which a frozen parameter begins to be trained
        for name, p in whole_parameters(model, freeze, "freeze"):
            if p.requires_grad:
                self.begins[name] = -1
        for step, patterns in sorted(unfreeze.items(), reverse=True):
            for name, _ in whole_parameters(model, patterns, f"unfreeze.{step}"):
                if name not in self.begins:
                    raise ModelwrightError(f"unfreeze.{step}: {name} is not frozen; leave it out")
                self.begins[name] = step
        self.parameters = {n: p for n, p in model.named_parameters() if n in self.begins}
        self.points = sorted({step for step in self.begins.values() if step > 0})
        self.now: int | None = None
        quiet_norms(model)
        self.ever()
        if not any(p.requires_grad for p in model.parameters()):
            raise ModelwrightError("freeze: nothing is left to train; name fewer parameters")

    def ever(self) -> None:
        """Let all take part that will be trained at some step: for those who list parameters."""
        for name, p in self.parameters.items():
            p.requires_grad_(self.begins[name] >= 0)
        self.now = None

    def at(self, step: int) -> None:
        """Let those take part that are trained at this step (from 0)."""
        period = sum(point <= step for point in self.points)
        if period == self.now:
            return
        for name, p in self.parameters.items():
            p.requires_grad_(0 <= self.begins[name] <= step)
            p.grad = None
        self.now = period
        self.model.train(self.model.training)


class _Quiet(_BatchNorm):
    """A norm over the batch that is in training only while its own parameters are."""

    def train(self, mode: bool = True) -> _Quiet:
        """Training mode where its parameters are trained, evaluation mode otherwise."""
        own = [p for p in self._parameters.values() if p is not None]
        super().train(mode and (not own or any(p.requires_grad for p in own)))
        return self


_QUIET: dict[type[nn.Module], type[_Quiet]] = {}


def quiet_norms(model: nn.Module) -> None:
    """Let norms over the batch keep their statistics while their parameters are frozen."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, _Quiet):
            kind = type(module)
            if kind not in _QUIET:
                _QUIET[kind] = type(f"Quiet{kind.__name__}", (_Quiet, kind), {})
            module.__class__ = _QUIET[kind]


def rates(
    model: nn.Module, *, lora_plus: float = 1.0, layer_decay: float = 1.0
) -> dict[str, float]:
    """Parameter name -> multiple of the learning rate, for those whose multiple is not 1.

    ``lora_plus`` is for the matrices B of adapters. With ``layer_decay`` d, what comes after the
    last block learns at the full rate, block l of L at d^(L - l) of it (l from 0), and what comes
    before the first at d^(L + 1) (arXiv:1801.06146, arXiv:2106.08254).
    """
    found: dict[str, float] = {}
    depths = _depths(model) if layer_decay != 1 else {}
    for name, p in model.named_parameters():
        times = layer_decay ** depths.get(name, 0)
        if name.endswith(".lora_b"):
            times *= lora_plus
        if p.requires_grad and times != 1:
            found[name] = times
    return found


def _depths(model: nn.Module) -> dict[str, int]:
    """Parameter -> how many layers lie above it, the head's being 0.

    Raises:
        ModelwrightError: the model has no blocks.
    """
    stacks = {
        name: list(module._modules)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) or (isinstance(module, nn.Sequential) and name)
    }
    outer = {
        n: names for n, names in stacks.items() if not any(n.startswith(f"{o}.") for o in stacks)
    }
    if not outer:
        raise ModelwrightError("layer_decay: this model has no blocks; leave it out")
    depths: dict[str, int] = {}
    deepest, begun = max(map(len, outer.values())), False
    for name, _ in model.named_parameters():
        inside = next((n for n in outer if name.startswith(f"{n}.")), None)
        if inside is None:
            above = begun or name.partition(".")[0] in HEADS  # some make the head first
            depths[name] = 0 if above else deepest + 1
            continue
        begun = True
        number = outer[inside].index(name.removeprefix(f"{inside}.").partition(".")[0])
        depths[name] = len(outer[inside]) - number
    return depths
