"""How tensors are handed to a compiled kernel, and which tensors may be."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from modelwright.kernels.build import hollow, library

DTYPES = (torch.float32, torch.bfloat16)


def plain(x: Tensor, *parameters: Tensor) -> bool:
    """Whether a kernel can take it: plain tensors on a CPU, no tracing.

    Parameters are float32, each in one piece.
    """
    return (
        not torch.compiler.is_compiling()
        and (type(x) is Tensor or hollow(x))
        and x.device.type == "cpu"
        and x.dtype in DTYPES
        and all(_held(p) for p in parameters)
    )


def _held(p: Tensor) -> bool:
    fits = type(p) in (Tensor, torch.nn.Parameter) or hollow(p)
    return fits and p.dtype == torch.float32 and p.is_contiguous()


def applied(function: type[torch.autograd.Function], *given: object) -> Tensor:
    """What a function with a backward pass of its own makes."""
    made: Tensor = function.apply(*given)  # type: ignore[no-untyped-call]
    return made


def call(kernel: str, needs: tuple[str, ...], name: str, *given: object) -> None:
    """Call a function of a kernel; hollow tensors are left as they are.

    Args:
        kernel: the library, which can run here.
        needs: its processor flags.
        name: of the function, which returns 0 or, short of memory, another number.
        given: tensors by their address, None as no address, whole numbers as long, floats as
            float, a dtype as an int: whether it is bfloat16. The number of threads comes last.

    Raises:
        MemoryError: there was no memory for its scratch.
    """
    if any(hollow(x) for x in given):
        return
    functions = library(kernel, needs)
    assert functions is not None  # noqa: S101 - asked before
    arguments = [_argument(x) for x in given]
    if getattr(functions, name)(*arguments, ctypes.c_int(torch.get_num_threads())):
        raise MemoryError(f"{name}: not enough memory for its scratch")


def _argument(x: object) -> object:
    if x is None or isinstance(x, Tensor):
        return ctypes.c_void_p(None if x is None else x.data_ptr())
    if isinstance(x, torch.dtype):
        return ctypes.c_int(x == torch.bfloat16)
    return ctypes.c_float(x) if isinstance(x, float) else ctypes.c_long(x)  # type: ignore[arg-type]
