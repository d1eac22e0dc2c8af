"""The schedule of the distilled model and its denoising loop, as functions: no state, no seed, no device chosen."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SHIFT = 5.0
_RAW = {2: (1000.0, 500.0), 4: (1000.0, 750.0, 500.0, 250.0)}
"""The schedules that the model was distilled for; other step counts are spread evenly."""

Velocity = Callable[[Tensor, int], Tensor]
"""(noisy latents, step number) -> velocity: noise minus clean latents."""
Noise = Callable[[int], Tensor]
"""Draw number -> standard normal latents; draw 0 begins a chunk, draw j + 1 follows step j."""


def timesteps(steps: int, shift: float = SHIFT) -> Tensor:
    """The `steps` timesteps, 1000 first, and a final 0: float32 [steps + 1].

    With u = t / 1000 the shifted one is shift u / (1 + (shift - 1) u).
    """
    raw = torch.tensor(_RAW[steps]) if steps in _RAW else torch.linspace(1000.0, 1.0, steps)
    u = torch.cat((raw, torch.zeros(1))) / 1000.0
    return 1000.0 * (shift * u / (1.0 + (shift - 1.0) * u))


def denoise(velocity: Velocity, noise: Noise, motion: Tensor, schedule: Tensor) -> Tensor:
    """Clean latents [channels, frames, rows, columns] of one chunk.

    The first latent frames are `motion`'s [channels, m, rows, columns] at every step: what they were predicted to be
    is overwritten. Each step takes the model's clean estimate and adds fresh noise for the next level; the last level
    has none, so its draw is not made.
    """
    tau = (schedule / 1000.0).tolist()
    latents = _continue(noise(0), motion)
    for step in range(len(tau) - 1):
        clean = latents - velocity(latents, step) * tau[step]
        if tau[step + 1]:
            clean = clean.mul_(1.0 - tau[step + 1]).add_(noise(step + 1), alpha=tau[step + 1])
        latents = _continue(clean, motion)
    return latents


def _continue(latents: Tensor, motion: Tensor) -> Tensor:
    return torch.cat((motion, latents[:, motion.shape[1] :]), dim=1)
