"""What lies between two convolutions of the video VAE: RMS norm over the channels, SiLU, and the frames before.

Videos are [1, C, T, H, W], of any dense layout; the fused forms take channels last and leave the others to the twins.
A `bias` [C] is that of the convolution before, when it has not added it itself: on a GPU that would be a pass of its
own. Inside, everything is float32 at least, and rounded once at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.generators.flashtalk.kernels.registry import FusedKernel

NORM_FLOOR = 1e-12
"""Least length of a pixel's channels; section 4.1 of the specification."""


def rms_norm(x: Tensor, gamma: Tensor) -> Tensor:
    """gamma sqrt(C) x / |x| over the channels, axis 1 -> like `x`."""
    return (x * _scale(x)).mul_(gamma).to(x.dtype)


def norm_silu(x: Tensor, gamma: Tensor, bias: Tensor | None = None) -> Tensor:
    """SiLU of gamma sqrt(C) y / |y|, y = `x` + `bias`; `gamma` [C, 1, 1, 1] -> like `x`, in its layout."""
    return _write(torch.empty_like(x), x, gamma, bias)


def norm_silu_join(x: Tensor, before: Tensor, gamma: Tensor, bias: Tensor | None = None) -> Tensor:
    """`norm_silu` of `x` [1, C, n, H, W] behind the frames `before` [1, C, m, H, W], in the layout of `before`."""
    earlier, joined = before.shape[2], room_like(before, before.shape[2] + x.shape[2])
    joined[:, :, :earlier].copy_(before)
    _write(joined[:, :, earlier:], x, gamma, bias)
    return joined


def add_bias(inner: Tensor, x: Tensor, bias: Tensor) -> Tensor:
    """`inner` + `x` + `bias`, the last one [C] in float32 at least -> like `inner`; rounded once."""
    wide = torch.promote_types(inner.dtype, torch.float32)
    return (inner.to(wide) + x + bias.reshape(-1, 1, 1, 1)).to(inner.dtype)


def add_norm_silu_join(inner: Tensor, x: Tensor, bias: Tensor, before: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """`add_bias` of the first three, and `norm_silu_join` of that behind `before`, which may have no frames.

    The end of one residual block and the beginning of the next. The sum is rounded before it is normed, as when the two
    are done one after the other, so that the results are the same to the last bit.
    """
    total = add_bias(inner, x, bias)
    return total, norm_silu_join(total, before, gamma)


def room_like(x: Tensor, frames: int) -> Tensor:
    """Empty [1, C, frames, H, W] in the layout of `x` [1, C, T, H, W]."""
    is_last = x.stride(1) == 1 and x.shape[1] > 1
    layout = torch.channels_last_3d if is_last else torch.contiguous_format
    shape = (*x.shape[:2], frames, *x.shape[3:])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)


def _write(out: Tensor, x: Tensor, gamma: Tensor, bias: Tensor | None) -> Tensor:
    """Into `out`, in as few passes as torch needs for it."""
    wide = torch.promote_types(x.dtype, torch.float32)
    if bias is not None:
        x = x.to(wide) + bias.reshape(-1, 1, 1, 1)
    scale = _scale(x)
    if out.dtype == wide:
        return F.silu(torch.mul(x, scale, out=out).mul_(gamma), inplace=True)
    return out.copy_(F.silu((x * scale).mul_(gamma), inplace=True))


def _scale(x: Tensor) -> Tensor:
    """sqrt(C) / |x| of every pixel."""
    wide = torch.promote_types(x.dtype, torch.float32)
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=wide)
    return math.sqrt(x.shape[1]) / length.clamp_(min=NORM_FLOOR)


def _triton(name: str) -> Callable[[], Callable[..., Any]]:
    return lambda: getattr(import_module("engine.generators.flashtalk.kernels.triton_vae_norm"), name)


def _drawn(generator: torch.Generator, device: torch.device, dtype: torch.dtype, channels: int, frames: int) -> Tensor:
    """Pixels of very different lengths, an odd number of them, channels last."""
    x = torch.randn(1, channels, frames, 5, 7, generator=generator, device=device)
    x = x * torch.exp(2 * torch.randn(1, 1, frames, 5, 7, generator=generator, device=device))
    return x.to(dtype).contiguous(memory_format=torch.channels_last_3d)


def _row(generator: torch.Generator, device: torch.device, channels: int, dtype: torch.dtype) -> Tensor:
    return (1 + 0.3 * torch.randn(channels, generator=generator, device=device)).to(dtype)


def _norm_samples(generator: torch.Generator, device: torch.device, dtype: torch.dtype):
    samples = []
    for channels, has_bias in ((96, False), (192, True), (384, True)):
        gamma = _row(generator, device, channels, dtype).reshape(-1, 1, 1, 1)
        bias = _row(generator, device, channels, dtype) if has_bias else None
        samples.append((_drawn(generator, device, dtype, channels, 4), gamma, bias))
    return samples


def _join_samples(generator: torch.Generator, device: torch.device, dtype: torch.dtype):
    samples = []
    for x, gamma, bias in _norm_samples(generator, device, dtype):
        samples.append((x, _drawn(generator, device, dtype, x.shape[1], 2), gamma, bias))
    x, before, gamma, bias = samples[-1]
    return [*samples, (x[:, :, :1], before, gamma, bias)]


def _add_samples(generator: torch.Generator, device: torch.device, dtype: torch.dtype):
    wide = torch.promote_types(dtype, torch.float32)
    return [
        (
            _drawn(generator, device, dtype, channels, 4),
            _drawn(generator, device, dtype, channels, 4),
            _row(generator, device, channels, wide),
        )
        for channels in (96, 384)
    ]


def _add_join_samples(generator: torch.Generator, device: torch.device, dtype: torch.dtype):
    """Behind two frames and behind none."""
    samples = []
    for inner, x, bias in _add_samples(generator, device, dtype):
        gamma = _row(generator, device, x.shape[1], dtype).reshape(-1, 1, 1, 1)
        samples.append((inner, x, bias, _drawn(generator, device, dtype, x.shape[1], 2), gamma))
    inner, x, bias, before, gamma = samples[-1]
    return [*samples, (inner[:, :, :1], x[:, :, :1], bias, before[:, :, :0], gamma)]


NORM_SILU = FusedKernel(name="vae_norm_silu", eager=norm_silu, load=_triton("norm_silu"), samples=_norm_samples)
NORM_SILU_JOIN = FusedKernel(
    name="vae_norm_silu_join", eager=norm_silu_join, load=_triton("norm_silu_join"), samples=_join_samples
)
ADD_BIAS = FusedKernel(name="vae_add_bias", eager=add_bias, load=_triton("add_bias"), samples=_add_samples)
ADD_NORM_SILU_JOIN = FusedKernel(
    name="vae_add_norm_silu_join",
    eager=add_norm_silu_join,
    load=_triton("add_norm_silu_join"),
    samples=_add_join_samples,
)
