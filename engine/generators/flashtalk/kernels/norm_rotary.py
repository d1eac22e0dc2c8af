"""Queries and keys made ready for self-attention: norm over the full width, then rotary positions, head by head."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor

from engine.generators.flashtalk.kernels.registry import FusedKernel
from engine.generators.flashtalk.kernels.rms_norm import rms_norm
from engine.generators.flashtalk.kernels.samples import HEADS, WIDTH, tokens, weights
from engine.generators.flashtalk.rope import rotary_table, rotate


def norm_rotary(x: Tensor, weight: Tensor, table: Tensor, heads: int, eps: float) -> Tensor:
    """`x` [tokens, width], `weight` [width], `table` [2, tokens, 1, head_dim / 2] -> [tokens, heads, head_dim].

    Rounded after the norm, after its weight and after the rotation, as published; each is computed in float32.
    """
    return rotate(rms_norm(x, weight, eps).unflatten(-1, (heads, -1)), table)


def _load() -> Callable[..., Tensor]:
    return import_module("engine.generators.flashtalk.kernels.triton_norm_rotary").norm_rotary


def _samples(generator: torch.Generator, device: torch.device, dtype: torch.dtype):
    wide = torch.promote_types(dtype, torch.float32)
    table = rotary_table((2, 3, 3), WIDTH // HEADS, wide).to(device)
    weight = weights(generator, device, dtype)
    packed = tokens(generator, device, dtype, 18, 3 * WIDTH)
    return [
        (packed[:, WIDTH : 2 * WIDTH], weight, table, HEADS, 1e-6),
        (packed[8:, :WIDTH].contiguous(), weight, table[:, 8:], HEADS, 1e-6),
    ]


NORM_ROTARY = FusedKernel(name="norm_rotary", eager=norm_rotary, load=_load, samples=_samples)
