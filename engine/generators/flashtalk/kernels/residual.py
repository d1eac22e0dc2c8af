"""A branch added to the tokens through a gate: `x + branch gate`, in the gate's precision, rounded once."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor

from engine.generators.flashtalk.kernels.registry import FusedKernel
from engine.generators.flashtalk.kernels.samples import gates, tokens


def add_gated(x: Tensor, branch: Tensor, gate: Tensor) -> Tensor:
    """`x`, `branch` [tokens, width], `gate` [width] -> [tokens, width].

    Converting as it reads and rounding as it writes, torch needs one pass for this and no wide copies.
    """
    return torch.addcmul(x, branch, gate, out=torch.empty_like(x))


def _load() -> Callable[..., Tensor]:
    return import_module("engine.generators.flashtalk.kernels.triton_residual").add_gated


def _samples(generator: torch.Generator, device: torch.device, dtype: torch.dtype):
    rows = 19
    x, branch = tokens(generator, device, dtype, rows), tokens(generator, device, dtype, rows)
    return [(x, branch, gates(generator, device, dtype)), (x[5:], branch[5:], gates(generator, device, dtype))]


ADD_GATED = FusedKernel(name="add_gated", eager=add_gated, load=_load, samples=_samples)
