# pyright: basic, reportMissingImports=false, reportCallIssue=false
"""Triton form of `residual`: one program for a stretch of one token's channels."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024


@triton.jit
def _part(x_at, branch_at, gate_at, out_at, x_stride, branch_stride, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    x = tl.load(x_at + row * x_stride + column, mask=inside).to(tl.float32)
    branch = tl.load(branch_at + row * branch_stride + column, mask=inside).to(tl.float32)
    out = x + branch * tl.load(gate_at + column, mask=inside)
    tl.store(out_at + row * width + column, out.to(out_at.dtype.element_ty), mask=inside)


def add_gated(x: Tensor, branch: Tensor, gate: Tensor) -> Tensor:
    """See `residual.add_gated`."""
    rows, width = x.shape
    out = torch.empty((rows, width), dtype=x.dtype, device=x.device)
    _part[(rows, triton.cdiv(width, _BLOCK))](
        x, branch, gate, out, x.stride(0), branch.stride(0), width, BLOCK=_BLOCK, num_warps=4
    )
    return out
