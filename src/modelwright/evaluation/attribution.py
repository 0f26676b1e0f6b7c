"""What of an input an answer rests on: Grad-CAM and integrated gradients, by captum.

Grad-CAM (arXiv:1610.02391) of a class c over the last planes A of a network,

    map = relu(sum_k a_k A_k),   a_k = mean over positions of dz_c / dA_k,

z_c the logit of c, brought to the size of the picture. Integrated gradients (arXiv:1703.01365) of
input i between a baseline b and the input x,

    (x_i - b_i) * mean over t in (0, 1) of dz_c / dx_i at b + t (x - b),

which over all i add up to z_c(x) - z_c(b). Both say what a model looked at, not whether that was
right to look at, and maps may hardly change when a model does (arXiv:1810.03292): evidence, no
proof.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelwright.errors import MachineError, ModelwrightError

STEPS = 64  # of an integral
AT_ONCE = 32  # points of it in one pass

Logits = Callable[[Tensor], Tensor]


class Parts(NamedTuple):
    """Integrated gradients, shaped as the input, and what their sum is off the true difference."""

    values: Tensor
    missing: float


def captum() -> Any:
    """The module ``captum.attr``.

    Raises:
        MachineError: it is not installed.
    """
    try:
        import captum.attr  # noqa: PLC0415 - of an extra
    except ImportError as error:
        raise MachineError(
            "explanations need captum: pip install 'modelwright[interpret]'"
        ) from error
    return captum.attr


def of_class(outputs: Tensor, number: int) -> Tensor:
    """The logit of a class, (B,): of outputs (B, classes), or (B, 1) where there are two.

    A single logit z is that of the second class; the first one's is -z then.
    """
    if outputs.shape[1] == 1:
        return outputs[:, 0] if number else -outputs[:, 0]
    return outputs[:, number]


def grad_cam(model: nn.Module, features: Tensor, number: int) -> Tensor:
    """Grad-CAM of a class for pictures, (B, H, W), 0 and more; each divided by its largest value.

    Args:
        model: in evaluation mode, with ``seen()``: the module to look at, and (rows, columns)
            where its output is a stream (B, T, width) whose last T are patches, else None.
        features: (B, H, W[, C]), scaled, as the model reads them.
        number: of the class.

    Raises:
        ModelwrightError: the model has no ``seen``.
        MachineError: captum is not installed.
    """
    attr = captum()
    module, patches = seen(model)
    probe = nn.Identity()  # whose output are planes, whatever the module gives

    def through(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        if patches is None:
            return probe(output)  # type: ignore[no-any-return]
        before = output.shape[1] - patches[0] * patches[1]  # tokens of the model's own
        planes = output[:, before:].transpose(1, 2).reshape(len(output), -1, *patches)
        kept = probe(planes).flatten(2).transpose(1, 2)
        return torch.cat((output[:, :before], kept), dim=1)

    hook = module.register_forward_hook(through)
    try:
        with torch.enable_grad():
            made = attr.LayerGradCam(lambda x: of_class(model(features=x), number), probe)
            found = made.attribute(features.detach(), relu_attributions=True)
    finally:
        hook.remove()
    size = features.shape[1:3]
    maps = F.interpolate(found.detach(), size, mode="bilinear", align_corners=False)[:, 0]
    largest = maps.amax((1, 2), keepdim=True)
    return maps / largest.where(largest > 0, 1.0)


def seen(model: nn.Module) -> tuple[nn.Module, tuple[int, int] | None]:
    """What Grad-CAM looks at; see ``grad_cam``.

    Raises:
        ModelwrightError: the model does not say.
    """
    found = getattr(model, "seen", None)
    if found is None:
        raise ModelwrightError(
            f"Grad-CAM: {type(model).__name__} names no planes to look at (a method `seen`); take"
            " integrated_gradients"
        )
    module, patches = found()
    return module, patches


def integrated_gradients(
    logits: Logits, given: Tensor, number: int, baseline: Tensor, steps: int = STEPS
) -> Parts:
    """Integrated gradients of a class from a baseline, by Gauss-Legendre quadrature.

    Args:
        logits: inputs (B, ...) to outputs (B, classes), differentiable, rows independent.
        given: the one input, (1, ...).
        number: of the class.
        baseline: of the same shape: what stands for nothing.
        steps: points of the integral.

    Raises:
        MachineError: captum is not installed.
    """
    method = captum().IntegratedGradients(lambda x: of_class(logits(x), number))
    with torch.enable_grad():
        values, missing = method.attribute(
            given.detach(),
            baselines=baseline,
            n_steps=steps,
            internal_batch_size=AT_ONCE,
            return_convergence_delta=True,
        )
    return Parts(values.detach().float(), float(missing.abs().max()))


def token_gradients(
    model: nn.Module, inputs: dict[str, Tensor], number: int, nothing: int, steps: int = STEPS
) -> Parts:
    """Integrated gradients of every token of one text, (T,): summed over its vector.

    The baseline is a text of the same length in which every token is ``nothing``: a vector of
    zeros would lie outside of what norms were made for. Where pairs of tokens have vectors too
    (``bigram_embedding``), that of a pair is the later token's.

    Args:
        model: in evaluation mode, with an ``embedding`` and the inputs of packed documents.
        inputs: ``tokens`` (T,), and ``types`` (T,) where the model knows some.
        number: of the class.
        nothing: the token that stands for no word.
        steps: points of the integral.

    Raises:
        ModelwrightError: the model has no table of tokens.
        MachineError: captum is not installed.
    """
    table = getattr(model, "embedding", None)
    if not isinstance(table, nn.Embedding):
        raise ModelwrightError(
            f"explain: {type(model).__name__} has no table of tokens, so there is nothing to weigh"
        )
    pairs: nn.Embedding | None = getattr(model, "bigram_embedding", None)

    def through(tokens: Tensor, hooks: Mapping[nn.Module, Callable[[Tensor], Tensor]]) -> Tensor:
        """The model's outputs, what its tables give changed on the way."""
        others = {k: v[None].expand(len(tokens), -1) for k, v in inputs.items() if k == "types"}
        with ExitStack() as put:
            for module, change in hooks.items():
                hook = partial(_changed, change)
                put.callback(module.register_forward_hook(hook).remove)
            outputs: Tensor = model(tokens=tokens, **others)
        return outputs

    def words(tokens: Tensor) -> Tensor:
        """The vectors (1, T, width) of a text, pairs included."""
        found: Tensor = table(tokens)
        if pairs is not None:
            caught: list[Tensor] = []

            def keep(out: Tensor) -> Tensor:
                caught.append(out)
                return out

            through(tokens, {pairs: keep})
            found = found + caught[0].view_as(found)
        return found

    tokens = inputs["tokens"][None]

    def logits(vectors: Tensor) -> Tensor:
        hooks: dict[nn.Module, Callable[[Tensor], Tensor]] = {
            table: lambda _: vectors.flatten(0, 1)
        }
        if pairs is not None:
            hooks[pairs] = torch.zeros_like
        return through(tokens.expand(len(vectors), -1), hooks)

    with torch.no_grad():
        given, baseline = words(tokens), words(torch.full_like(tokens, nothing))
    found = integrated_gradients(logits, given, number, baseline, steps)
    return Parts(found.values[0].sum(dim=1), found.missing)


def _changed(
    change: Callable[[Tensor], Tensor],
    module: nn.Module,  # noqa: ARG001 - as a hook is called
    given: object,  # noqa: ARG001
    out: Tensor,
) -> Tensor:
    return change(out)
