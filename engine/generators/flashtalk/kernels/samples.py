"""Random input for the checks of kernels, in the widths of the published model."""

from __future__ import annotations

import torch
from torch import Tensor

WIDTH = 5120
HEADS = 40


def gates(generator: torch.Generator, device: torch.device, dtype: torch.dtype, width: int = WIDTH) -> Tensor:
    """A row of modulation: of order one, float32 or wider."""
    wide = torch.promote_types(dtype, torch.float32)
    return torch.randn(width, generator=generator, device=device, dtype=wide)


def tokens(
    generator: torch.Generator, device: torch.device, dtype: torch.dtype, rows: int, width: int = WIDTH
) -> Tensor:
    """Tokens [rows, width] like hidden states: off their mean, of very different sizes, a few channels far out."""
    x = torch.randn(rows, width, generator=generator, device=device)
    sizes = torch.exp(torch.randn(rows, 1, generator=generator, device=device))
    x = x * sizes + 0.5 * torch.randn(rows, 1, generator=generator, device=device)
    x[:, :: width // 8] *= 20.0
    return x.to(dtype)


def weights(generator: torch.Generator, device: torch.device, dtype: torch.dtype, width: int = WIDTH) -> Tensor:
    """Weights of a norm [width], around one."""
    return (1.0 + 0.3 * torch.randn(width, generator=generator, device=device)).to(dtype)
