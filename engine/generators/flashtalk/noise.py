"""Normal noise from a counter: any draw of any chunk of any seed, the same on every device and rank.

Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) in tensor operations, so that
nothing waits for the host, no generator's state has to be agreed on, and a stream can be begun anew at any chunk.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = 0xFFFFFFFF


def philox(counter: tuple[Tensor, ...], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Four words of 32 random bits (int64 tensors) for four counter words (int64 tensors of one shape) and a key."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # The product's lower 64 bits are right in two's complement; the mask undoes the sign of the shift.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32 & _LOW) ^ c1 ^ k0, p1 & _LOW, (p0 >> 32 & _LOW) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return c0, c1, c2, c3


def normal(shape: tuple[int, ...], seed: int, chunk: int, draw: int, device: torch.device | str = "cpu") -> Tensor:
    """Standard normal float32 of `shape`: draw number `draw` of chunk number `chunk` of the stream seeded `seed`."""
    count = math.prod(shape)
    index = torch.arange(-(-count // 4), device=device, dtype=torch.int64)
    zero = torch.zeros_like(index)
    words = philox(
        (index, zero + (draw & _LOW), zero + (chunk & _LOW), zero + (chunk >> 32)), (seed & _LOW, seed >> 32 & _LOW)
    )
    # 24 bits, moved off zero by half a step: the logarithm stays finite and float32 holds the value exactly.
    u = [((word >> 8).float() + 0.5) * 2.0**-24 for word in words]
    parts = []
    for radius, angle in ((u[0], u[1]), (u[2], u[3])):
        length, turn = torch.sqrt(-2.0 * torch.log(radius)), 2.0 * math.pi * angle
        parts += [length * torch.cos(turn), length * torch.sin(turn)]
    return torch.stack(parts, dim=-1).flatten()[:count].view(shape)


class SeededNoise:
    """The draws of one chunk of a seeded stream, as the sampler asks for them."""

    def __init__(self, seed: int, shape: tuple[int, ...], device: torch.device | str) -> None:
        self._seed, self._shape, self._device = seed, shape, device
        self.chunk = 0

    def __call__(self, draw: int) -> Tensor:
        """Draw number `draw` of the present chunk."""
        return normal(self._shape, self._seed, self.chunk, draw, self._device)
