# pyright: basic, reportMissingImports=false, reportCallIssue=false
"""Triton form of `rms_norm`: one program for each token."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _row(x_at, weight_at, out_at, x_stride, width, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    kind = out_at.dtype.element_ty
    x = tl.load(x_at + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    normed = x * (1.0 / tl.sqrt(tl.sum(x * x, axis=0) / width + eps))
    weight = tl.load(weight_at + column, mask=inside, other=0.0).to(tl.float32)
    out = normed.to(kind).to(tl.float32) * weight
    tl.store(out_at + row * width + column, out.to(kind), mask=inside)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """See `rms_norm.rms_norm`; `x` may be some columns of a wider tensor."""
    flat = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
    rows, width = flat.shape
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _row[(rows,)](flat, weight, out, flat.stride(0), width, eps, BLOCK=triton.next_power_of_2(width), num_warps=8)
    return out
