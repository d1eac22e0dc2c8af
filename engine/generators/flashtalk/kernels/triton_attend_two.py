# pyright: basic, reportMissingImports=false, reportCallIssue=false
"""Triton form of `attend_two`: one program for a block of queries of one head, which goes through all keys."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_LOG2E = 1.4426950408889634


@triton.jit
def _softmax_of(
    q, k_at, v_at, bias_at, head, keys, k_stride, k_head, v_stride, v_head, scale,
    HAS_BIAS: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Attention of `q` [QUERIES, WIDTH] to all `keys`; logits in powers of two, weights relative to the largest yet."""
    channel = tl.arange(0, WIDTH)
    largest = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    out = tl.zeros((QUERIES, WIDTH), tl.float32)
    for begin in range(0, keys, KEYS):
        key = begin + tl.arange(0, KEYS)
        is_key = key < keys
        k = tl.load(k_at + head * k_head + key[None, :] * k_stride + channel[:, None], mask=is_key[None, :], other=0.0)
        logits = tl.dot(q, k, input_precision="ieee") * scale
        if HAS_BIAS:
            logits += tl.load(bias_at + key, mask=is_key, other=0.0)[None, :].to(tl.float32) * 1.4426950408889634
        logits = tl.where(is_key[None, :], logits, float("-inf"))
        new = tl.maximum(largest, tl.max(logits, axis=1))
        weights = tl.exp2(logits - new[:, None])
        kept = tl.exp2(largest - new)
        total = total * kept + tl.sum(weights, axis=1)
        v = tl.load(v_at + head * v_head + key[:, None] * v_stride + channel[None, :], mask=is_key[:, None], other=0.0)
        out = out * kept[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        largest = new
    return out / total[:, None]


@triton.jit
def _block(
    q_at, k_at, v_at, bias_at, other_k_at, other_v_at, out_at, tokens, keys, others,
    q_stride, q_head, k_stride, k_head, v_stride, v_head, other_k_stride, other_k_head, other_v_stride, other_v_head,
    out_stride, scale, HAS_BIAS: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1).to(tl.int64)
    token = tl.program_id(0).to(tl.int64) * QUERIES + tl.arange(0, QUERIES)
    channel = tl.arange(0, WIDTH)
    is_token = token[:, None] < tokens
    kind = out_at.dtype.element_ty
    q = tl.load(q_at + token[:, None] * q_stride + head * q_head + channel[None, :], mask=is_token, other=0.0)
    one = _softmax_of(
        q, k_at, v_at, bias_at, head, keys, k_stride, k_head, v_stride, v_head, scale,
        HAS_BIAS, QUERIES, KEYS, WIDTH,
    )  # fmt: skip
    other = _softmax_of(
        q, other_k_at, other_v_at, bias_at, head, others, other_k_stride, other_k_head, other_v_stride, other_v_head,
        scale, False, QUERIES, KEYS, WIDTH,
    )  # fmt: skip
    out = one.to(kind).to(tl.float32) + other.to(kind).to(tl.float32)
    place = out_at + token[:, None] * out_stride + head * WIDTH + channel[None, :]
    tl.store(place, out.to(kind), mask=is_token)


def attend_two(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, other_k: Tensor, other_v: Tensor) -> Tensor:
    """See `attend_two.attend_two`. Heads must be a power of two wide, at least 16."""
    tokens, heads, width = q.shape
    if width < 16 or width & (width - 1):
        raise ValueError(f"heads {width} wide do not fit this kernel")
    out = torch.empty((tokens, heads, width), dtype=q.dtype, device=q.device)
    wide = q.element_size() > 2
    queries = 32 if wide else 128
    _block[(triton.cdiv(tokens, queries), heads)](
        q, k, v, k if bias is None else bias, other_k, other_v, out, tokens, len(k), len(other_k),
        q.stride(0), q.stride(1), k.stride(0), k.stride(1), v.stride(0), v.stride(1),
        other_k.stride(0), other_k.stride(1), other_v.stride(0), other_v.stride(1), out.stride(0),
        _LOG2E * width**-0.5, HAS_BIAS=bias is not None, QUERIES=queries, KEYS=32, WIDTH=width,
        num_warps=8, num_stages=2,
    )  # fmt: skip
    return out
