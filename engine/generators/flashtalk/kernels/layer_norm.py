"""Layer norm with what stands around it in a block: a residual before, an affine map or a modulation after.

The sum is rounded to the tokens' precision before it is normed, and a plain norm is rounded before it is modulated, as
published (specification 3.7); statistics, weights, gates and modulation are float32 or wider.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.generators.flashtalk.kernels.registry import FusedKernel
from engine.generators.flashtalk.kernels.residual import add_gated
from engine.generators.flashtalk.kernels.samples import gates, tokens, weights


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """`x (1 + scale) + shift` in the precision of `scale`, rounded to that of `x`, in one pass."""
    return torch.addcmul(shift, x, 1 + scale, out=torch.empty_like(x))


def norm_modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """Plain layer norm of `x` [tokens, width], modulated by `shift` and `scale` [width]."""
    return modulate(F.layer_norm(x, x.shape[-1:], eps=eps), shift, scale)


def add_norm_modulate(x: Tensor, branch: Tensor, shift: Tensor, scale: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(`x + branch`, `norm_modulate` of it)."""
    added = x + branch
    return added, norm_modulate(added, shift, scale, eps)


def add_norm(x: Tensor, branch: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(`x + branch`, its layer norm with `weight` and `bias`)."""
    added = x + branch
    return added, F.layer_norm(added, x.shape[-1:], weight, bias, eps)


def add_gated_norm(
    x: Tensor, branch: Tensor, gate: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """(`x + branch gate`, its layer norm with `weight` and `bias`)."""
    added = add_gated(x, branch, gate)
    return added, F.layer_norm(added, x.shape[-1:], weight, bias, eps)


_EPS = 1e-6


def _loader(name: str) -> Callable[[], Callable[..., Any]]:
    return lambda: getattr(import_module("engine.generators.flashtalk.kernels.triton_layer_norm"), name)


def _modulated(generator: torch.Generator, device: torch.device, dtype: torch.dtype):
    rows = tokens(generator, device, dtype, 19)
    return [(x, gates(generator, device, dtype), gates(generator, device, dtype), _EPS) for x in (rows, rows[5:])]


def _added_modulated(generator: torch.Generator, device: torch.device, dtype: torch.dtype):
    branch = tokens(generator, device, dtype, 19)
    return [(x, branch[: len(x)], *rest) for x, *rest in _modulated(generator, device, dtype)]


def _added(generator: torch.Generator, device: torch.device, dtype: torch.dtype):
    x, branch = tokens(generator, device, dtype, 19), tokens(generator, device, dtype, 19)
    pair = weights(generator, device, dtype), tokens(generator, device, dtype, 1)[0]
    return [(x, branch, *pair, _EPS), (x[5:], branch[5:], *pair, _EPS)]


def _added_gated(generator: torch.Generator, device: torch.device, dtype: torch.dtype):
    gate = gates(generator, device, dtype)
    return [(x, branch, gate, *rest) for x, branch, *rest in _added(generator, device, dtype)]


NORM_MODULATE = FusedKernel(
    name="norm_modulate", eager=norm_modulate, load=_loader("norm_modulate"), samples=_modulated
)
ADD_NORM_MODULATE = FusedKernel(
    name="add_norm_modulate", eager=add_norm_modulate, load=_loader("add_norm_modulate"), samples=_added_modulated
)
ADD_NORM = FusedKernel(name="add_norm", eager=add_norm, load=_loader("add_norm"), samples=_added)
ADD_GATED_NORM = FusedKernel(
    name="add_gated_norm", eager=add_gated_norm, load=_loader("add_gated_norm"), samples=_added_gated
)
