"""Root-mean-square norm over the full width: normalised in float32, rounded, then weighted, as published."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor

from engine.generators.flashtalk.kernels.registry import FusedKernel
from engine.generators.flashtalk.kernels.samples import WIDTH, tokens, weights


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`x` [..., width], `weight` [width] in the precision of `x` -> like `x`, contiguous.

    Reading as it reduces and rounding as it writes, torch needs no wide copies of `x` for this.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
    inverse = torch.rsqrt(norm.square() / x.shape[-1] + eps)
    return torch.mul(x, inverse, out=torch.empty(x.shape, dtype=x.dtype, device=x.device)).mul_(weight)


def _load() -> Callable[..., Tensor]:
    return import_module("engine.generators.flashtalk.kernels.triton_rms_norm").rms_norm


def _samples(generator: torch.Generator, device: torch.device, dtype: torch.dtype):
    weight = weights(generator, device, dtype)
    packed = tokens(generator, device, dtype, 19, 3 * WIDTH)
    return [(tokens(generator, device, dtype, 19), weight, 1e-6), (packed[5:, WIDTH : 2 * WIDTH], weight, 1e-6)]


RMS_NORM = FusedKernel(name="rms_norm", eager=rms_norm, load=_load, samples=_samples)
