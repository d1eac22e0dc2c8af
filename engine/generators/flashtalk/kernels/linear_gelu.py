"""The feed-forward's first linear layer with its activation in the matrix product's last step.

The fused form is torch's own call of cuBLASLt with a GELU epilogue: one write of the widest tensor of a block instead
of two and a read. On a CPU that call uses the other GELU, which the check there finds out in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.generators.flashtalk.kernels.registry import FusedKernel


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """GELU (tanh form) of the linear layer: `x` [tokens, width], `weight` [hidden, width], `bias` [hidden]."""
    return F.gelu(F.linear(x, weight, bias), approximate="tanh")


def _with_epilogue(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.ops.aten._addmm_activation(bias, x, weight.t(), use_gelu=True)


def _load() -> Callable[..., Tensor]:
    return _with_epilogue


def _samples(generator: torch.Generator, device: torch.device, dtype: torch.dtype):
    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    # A wide spread of what the activation sees: most of it near zero, where the two forms of it are furthest apart.
    weight = (drawn(768, 512) * 512**-0.5).to(dtype)
    bias = drawn(768).to(dtype)
    return [(drawn(37, 512).to(dtype), weight, bias), (3 * drawn(128, 512).to(dtype), weight, bias)]


LINEAR_GELU = FusedKernel(name="linear_gelu", eager=linear_gelu, load=_load, samples=_samples, is_compilable=False)
