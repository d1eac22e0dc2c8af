"""Attention to the few keys of the text and, with a softmax of its own, of the portrait; the two results added.

Each result is rounded before they are added, as published. The fused form reads the queries once and writes one result,
where two calls of a kernel and a sum read and write three times as much.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor

from engine.generators.flashtalk.attention import attend_few_keys
from engine.generators.flashtalk.kernels.registry import FusedKernel

_HEADS, _HEAD_DIM = 3, 128


def attend_two(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, other_k: Tensor, other_v: Tensor) -> Tensor:
    """Of `q` [tokens, heads, head_dim] to `k`, `v` [keys, heads, head_dim] with `bias` [keys] on the logits, plus the
    same to `other_k`, `other_v` without one -> like `q`."""
    return attend_few_keys(q, k, v, bias) + attend_few_keys(q, other_k, other_v)


def _load() -> Callable[..., Tensor]:
    return import_module("engine.generators.flashtalk.kernels.triton_attend_two").attend_two


def _samples(generator: torch.Generator, device: torch.device, dtype: torch.dtype):
    def drawn(tokens: int) -> Tensor:
        return torch.randn(tokens, _HEADS, _HEAD_DIM, generator=generator, device=device).to(dtype)

    keys, padded, others = 21, 24, 70
    bias = torch.zeros(padded, device=device, dtype=torch.promote_types(dtype, torch.float32))
    bias[keys - 1], bias[keys:] = 6.1875, float("-inf")
    image = (drawn(others), drawn(others))
    text = drawn(padded), drawn(padded)
    # Keys that resemble queries, so that some weights are large.
    q = drawn(150) + 2 * text[0][torch.arange(150, device=device) % keys]
    return [(q, *text, bias, *image), (q[:32], *text, None, *image)]


ATTEND_TWO = FusedKernel(name="attend_two", eager=attend_two, load=_load, samples=_samples, is_compilable=False)
