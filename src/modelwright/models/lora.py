"""Low-rank adapters in the layers of a built model: LoRA, rsLoRA and DoRA.

A layer keeps its class's forward and its parameters' names and gains two small matrices beside
them, so a model is adapted in place and its own state dict is a part of the adapted one's:

    W' = W + s B A                     LoRA (arXiv:2106.09685), s = alpha / rank
                                       rsLoRA (arXiv:2312.03732), s = alpha / sqrt(rank)
    W' = m (W + s B A) / |W + s B A|   DoRA (arXiv:2402.09353), a norm and an m for every output

``layer.weight`` reads as W', with its gradient, wherever a model uses a weight by itself (a tied
head, a convolution that is computed otherwise). ``forward`` takes the way through the rank.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

import torch
from torch import Tensor, nn

from modelwright.errors import CorruptError, ModelwrightError, did_you_mean
from modelwright.models import prompts
from modelwright.models.lora_layers import KINDS, LoraConv1d, LoraEmbedding, LoraLayer
from modelwright.models.narrow import hold, release, widen

# Names of the new parameters, in their layer.
PARTS = ("lora_a", "lora_b", "magnitude", *prompts.PARTS)
_OWN = PARTS[:3]
HEADS = ("output", "head", "policy", "value")  # what maps the stream to answers, behind the blocks
_CHOOSING = ("router", "shared_gate")  # of experts, in the blocks


@dataclass(frozen=True)
class Adapter:
    """What is adapted, and how.

    Attributes:
        rank: columns of B and rows of A.
        alpha: the numerator of the scaling s.
        targets: patterns of layers' names; None: the linear layers and convolutions of the blocks.
        dropout: share of the adapter's inputs that is zeroed in training.
        rslora: s = alpha / sqrt(rank).
        dora: learn the norm of every output's weights apart from their direction.
        lora_plus: the rate of B as a multiple of the others' (LoRA+, arXiv:2402.12354).
        trained: patterns of parameters that are trained whole beside the adapters.
        quantize: hold the base in fewer bits, a kind of ``models.narrow`` (QLoRA); None: as it is.
        prompt: learned rows before every text in place of low-rank matrices; 0: none.
        prefix: learned keys and values before every text in their place; see ``models.prompts``.
    """

    rank: int = 16
    alpha: float = 32.0
    targets: Sequence[str] | None = None
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False
    lora_plus: float = 1.0
    trained: Sequence[str] = ()
    quantize: str | None = None
    prompt: int = 0
    prefix: int = 0

    @property
    def scaling(self) -> float:
        """The factor s of B A."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


# Putting adapters in and taking them out ---------------------------------------------------------


def adapt(model: nn.Module, adapter: Adapter) -> list[str]:
    """Put adapters into a model in place; all other parameters are frozen.

    A is drawn from torch's global generator, B is zero: the model computes what it did, or with
    ``quantize`` what it does with rounded weights.

    Returns:
        The names of the layers that have an adapter now.

    Raises:
        ModelwrightError: a pattern matches nothing that can be adapted, a layer shares its weight
            with another, or DoRA is wanted of an embedding.
    """
    if adapter.prompt or adapter.prefix:
        prompts.put(model, prompt=adapter.prompt, prefix=adapter.prefix)
        for _, p in whole_parameters(model, adapter.trained):
            p.requires_grad_(True)
        return []
    chosen = _chosen(model, adapter)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    whole = dict(whole_parameters(model, adapter.trained))
    for name, p in whole.items():
        if _owner(name) in chosen:
            raise ModelwrightError(f"tune.adapter.trained: {name} has an adapter already; drop one")
        p.requires_grad_(True)
    if adapter.quantize is not None:
        hold(model, adapter.quantize, whole, is_head)
    for name, kind in chosen.items():
        layer = model.get_submodule(name)
        layer.__class__ = kind
        cast(LoraLayer, layer).begin(adapter)
    return list(chosen)


def layers(model: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    """The adapted layers with their names."""
    return ((n, m) for n, m in model.named_modules() if isinstance(m, LoraLayer))


def merge(model: nn.Module) -> None:
    """Let every adapted layer compute as a plain one; ``unmerge`` undoes it bit by bit."""
    for _, layer in layers(model):
        layer.merge()


def unmerge(model: nn.Module) -> None:
    """Undo ``merge``."""
    for _, layer in layers(model):
        layer.unmerge()


def fold(model: nn.Module) -> None:
    """Merge for good: plain layers with the weights W', and nothing else is left.

    Learned prompts cannot be merged; they stay.
    """
    for _, layer in list(layers(model)):
        layer.merge()
        _strip(layer)
    widen(model)


def plain(model: nn.Module) -> nn.Module:
    """Take the adapters out: the same model with its base's layers and weights.

    A base in few bits becomes plain layers of the rounded weights.
    """
    prompts.remove(model)
    for _, layer in list(layers(model)):
        layer.unmerge()
        _strip(layer)
    widen(model)
    return model


def _strip(layer: LoraLayer) -> None:
    if layer.narrow is not None and not layer.merged:
        release(layer)
    else:
        del layer.narrow
    for name in (*_OWN, "scaling", "dropped", "merged", "kept"):
        delattr(layer, name)
    layer.__class__ = layer.plain


def adapter_names(model: nn.Module, trained: Sequence[str]) -> list[str]:
    """The names in the state dict that belong to an adapter: its matrices, and what is whole."""
    own = [n for n in model.state_dict() if n.rpartition(".")[2] in PARTS]
    return own + [n for n, _ in whole_parameters(model, trained)]


def load_adapter(
    model: nn.Module, tensors: Mapping[str, Tensor], trained: Sequence[str], where: str
) -> None:
    """Give an adapted model the tensors of an adapter.

    Raises:
        CorruptError: they are those of another adapter.
    """
    state = model.state_dict()
    names = adapter_names(model, trained)
    same = set(names) == set(tensors)
    if not same or any(state[n].shape != tensors[n].shape for n in names):
        odd = sorted(set(names) ^ set(tensors)) or ["a tensor of another shape"]
        raise CorruptError(f"{where}: does not fit its adapter.json ({odd[0]})")
    with torch.no_grad():
        for name in names:
            state[name].copy_(tensors[name])


def base_fingerprint(model: nn.Module, trained: Sequence[str]) -> str:
    """SHA-256 over the parameters and buffers that adapters leave as they are.

    Equal for the plain and the adapted model, unless that holds its base in few bits. An adapter
    is of use on this base alone.
    """
    beside = {n for n, _ in whole_parameters(model, trained)}
    whole = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name in beside or name.rpartition(".")[2] in PARTS:
            continue
        whole.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        whole.update(flat.view(torch.uint8).numpy().data)
    return whole.hexdigest()


# Names -------------------------------------------------------------------------------------------


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern (``fnmatch``) means this name, or one that it ends with: PEFT's rule."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def whole_parameters(
    model: nn.Module, patterns: Sequence[str], field: str = "tune.adapter.trained"
) -> list[tuple[str, nn.Parameter]]:
    """The parameters that patterns mean, by their own names or by those of what they lie in.

    Raises:
        ModelwrightError: a pattern means none.
    """
    named = [(n, p) for n, p in model.named_parameters() if n.rpartition(".")[2] not in PARTS]
    found: dict[str, nn.Parameter] = {}
    for pattern in patterns:
        inside = {n: p for n, p in named if matches(n, pattern) or matches(n, f"{pattern}.*")}
        if not inside:
            raise ModelwrightError(_nothing(field, pattern, [n for n, _ in named]))
        found |= inside
    return list(found.items())


def is_head(name: str) -> bool:
    """Whether a layer is left alone unless it is named: a head, or what chooses experts.

    ``value`` in a block is a projection of attention.
    """
    last = name.rpartition(".")[2]
    return last in _CHOOSING or (last in HEADS and not _repeats(name))


def _repeats(name: str) -> bool:
    """Whether a layer is of the blocks: what repeats has a number in its name."""
    return any(part.isdigit() for part in name.split("."))


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def kind_of(module: nn.Module) -> type[LoraLayer] | None:
    """How a layer is adapted; None: it cannot be. A class of its own may compute otherwise."""
    if isinstance(module, nn.Conv1d | nn.Conv2d) and module.groups > 1:
        return None
    return next((kind for kind in KINDS if type(module) is kind.plain), None)


def _chosen(model: nn.Module, adapter: Adapter) -> dict[str, type[LoraLayer]]:
    """The layers that get an adapter, and of which kind."""
    kinds = {n: kind for n, m in model.named_modules() if (kind := kind_of(m)) is not None}
    chosen: dict[str, type[LoraLayer]] = {}
    for pattern in adapter.targets or ():
        found = {n: kind for n, kind in kinds.items() if matches(n, pattern)}
        if not found:
            other = next((n for n, _ in model.named_modules() if matches(n, pattern)), "")
            if other:
                raise ModelwrightError(
                    f"tune.adapter.targets: {other} is no linear layer, embedding or convolution"
                    f" of all channels; tune.adapter.trained=[{pattern}] trains it whole"
                )
            raise ModelwrightError(_nothing("tune.adapter.targets", pattern, list(kinds)))
        chosen |= found
    if adapter.targets is None:
        chosen = _usual(kinds)
        beside = {_owner(n) for n, _ in whole_parameters(model, adapter.trained)}
        chosen = {n: kind for n, kind in chosen.items() if n not in beside}
    if not chosen:
        raise ModelwrightError(
            "tune.adapter: this model has no linear layer, embedding or convolution to adapt; "
            "tune it whole"
        )
    refuse_shared(model, chosen)
    if adapter.dora and LoraEmbedding in chosen.values():
        name = next(n for n, kind in chosen.items() if kind is LoraEmbedding)
        raise ModelwrightError(
            f"tune.adapter.dora: not for the embedding {name}; leave it out of the targets"
        )
    return chosen


def _usual(kinds: Mapping[str, type[LoraLayer]]) -> dict[str, type[LoraLayer]]:
    """The linear layers and convolutions of the blocks, or of a model without blocks all.

    Convolutions over time read the sound before the blocks; they are adapted where they are named.
    """
    seldom = (LoraEmbedding, LoraConv1d)
    able = {n: kind for n, kind in kinds.items() if kind not in seldom and not is_head(n)}
    blocks = {n: k for n, k in able.items() if _repeats(n)}
    return blocks or able or {n: k for n, k in kinds.items() if k is not LoraEmbedding}


def refuse_shared(model: nn.Module, chosen: Mapping[str, type[LoraLayer]]) -> None:
    """An adapter on one name of a tied weight would part what belongs together."""
    users: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        weight: Any = module._parameters.get("weight")
        if weight is not None:
            users.setdefault(id(weight), []).append(name)
    for name in chosen:
        same = users[id(model.get_submodule(name)._parameters["weight"])]
        if len(same) > 1:
            other = next(n for n in same if n != name)
            raise ModelwrightError(
                f"tune.adapter.targets: {name} shares its weight with {other}; leave it out"
            )


def _nothing(field: str, pattern: str, known: Sequence[str]) -> str:
    ends = sorted({n.rpartition(".")[2] for n in known} | set(known))
    hint = did_you_mean(pattern, ends)
    return (
        f"{field}: {pattern!r} means nothing here{hint}; there are such as {', '.join(known[:4])}"
    )
