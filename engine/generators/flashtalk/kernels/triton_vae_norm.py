# pyright: basic, reportMissingImports=false, reportCallIssue=false
"""Triton forms of `vae_norm`: channels last, so a pixel's channels lie side by side and a program takes some pixels."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.generators.flashtalk.kernels import vae_norm
from engine.generators.flashtalk.kernels.vae_norm import NORM_FLOOR, room_like

_TILE = 4096
"""Numbers that one program holds; at eight warps 16 for each thread."""


@triton.jit
def _pixels(
    x_at, other_at, before_at, gamma_at, bias_at, sum_at, out_at, old, pixels, width, root, floor,
    HAS_OTHER: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    channel = tl.arange(0, CHANNELS)[None, :]
    is_channel = channel < width
    is_old = (pixel < old) & is_channel
    is_new = (pixel >= old) & (pixel < pixels) & is_channel
    kind = out_at.dtype.element_ty
    own = (pixel - old) * width + channel
    x = tl.load(x_at + own, mask=is_new, other=0.0).to(tl.float32)
    if HAS_OTHER:
        x += tl.load(other_at + own, mask=is_new, other=0.0).to(tl.float32)
    if HAS_BIAS:
        x += tl.where(is_new, tl.load(bias_at + channel, mask=is_channel, other=0.0).to(tl.float32), 0.0)
    if HAS_OTHER:
        total = x.to(kind)
        tl.store(sum_at + own, total, mask=is_new)
        x = total.to(tl.float32)
    length = tl.maximum(tl.sqrt(tl.sum(x * x, axis=1)), floor)[:, None]
    gamma = tl.load(gamma_at + channel, mask=is_channel, other=0.0).to(tl.float32)
    y = x * (root / length) * gamma
    y = y / (1.0 + tl.exp(-y))
    at = out_at + pixel * width + channel
    tl.store(at, y.to(kind), mask=is_new)
    tl.store(at, tl.load(before_at + pixel * width + channel, mask=is_old, other=0.0), mask=is_old)


@triton.jit
def _sum(inner_at, x_at, bias_at, out_at, count, width, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    total = tl.load(inner_at + at, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(x_at + at, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(bias_at + at % width, mask=inside, other=0.0)
    tl.store(out_at + at, total.to(out_at.dtype.element_ty), mask=inside)


def norm_silu(x: Tensor, gamma: Tensor, bias: Tensor | None = None) -> Tensor:
    """See `vae_norm.norm_silu`."""
    if not _is_last(x):
        return vae_norm.norm_silu(x, gamma, bias)
    out = torch.empty_like(x)
    _launch(x, None, None, gamma, bias, None, out)
    return out


def norm_silu_join(x: Tensor, before: Tensor, gamma: Tensor, bias: Tensor | None = None) -> Tensor:
    """See `vae_norm.norm_silu_join`; one pass that joins, norms and bends."""
    if not (_is_last(x) and _is_last(before)):
        return vae_norm.norm_silu_join(x, before, gamma, bias)
    joined = room_like(before, before.shape[2] + x.shape[2])
    _launch(x, None, before, gamma, bias, None, joined)
    return joined


def add_norm_silu_join(inner: Tensor, x: Tensor, bias: Tensor, before: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """See `vae_norm.add_norm_silu_join`; one pass for both results."""
    if not (_is_last(inner) and _is_last(x) and _is_last(before)):
        return vae_norm.add_norm_silu_join(inner, x, bias, before, gamma)
    total, joined = torch.empty_like(inner), room_like(before, before.shape[2] + x.shape[2])
    _launch(inner, x, before, gamma, bias, total, joined)
    return total, joined


def add_bias(inner: Tensor, x: Tensor, bias: Tensor) -> Tensor:
    """See `vae_norm.add_bias`."""
    if not (_is_last(inner) and _is_last(x)):
        return vae_norm.add_bias(inner, x, bias)
    out = torch.empty_like(inner)
    count = inner.numel()
    _sum[(triton.cdiv(count, _TILE),)](inner, x, bias, out, count, inner.shape[1], BLOCK=_TILE, num_warps=8)
    return out


def _launch(
    x: Tensor,
    other: Tensor | None,
    before: Tensor | None,
    gamma: Tensor,
    bias: Tensor | None,
    total: Tensor | None,
    out: Tensor,
) -> None:
    """What is not there is never read; `x` or `out` stand in for its address."""
    width, in_frame = x.shape[1], x.shape[3] * x.shape[4]
    earlier = 0 if before is None else before.shape[2]
    pixels, channels = (earlier + x.shape[2]) * in_frame, triton.next_power_of_2(width)
    block = max(1, _TILE // channels)
    _pixels[(triton.cdiv(pixels, block),)](
        x, x if other is None else other, before if earlier else x, gamma, gamma if bias is None else bias,
        out if total is None else total, out, earlier * in_frame, pixels, width, math.sqrt(width), NORM_FLOOR,
        HAS_OTHER=other is not None, HAS_BIAS=bias is not None, BLOCK=block, CHANNELS=channels, num_warps=8,
    )  # fmt: skip


def _is_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last_3d)
