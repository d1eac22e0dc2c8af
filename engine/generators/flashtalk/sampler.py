"""The schedules of the distilled model and its denoising loop: no state, no seed, no device chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule:
    """One way from noise to a picture: `timesteps` float32 [steps + 1] as of the function, and for each step the row
    of its timestep in `Schedules.table`."""

    timesteps: Tensor
    rows: tuple[int, ...]

    @property
    def steps(self) -> int:
        """How often the model is asked."""
        return len(self.rows)


class Schedules:
    """Every number of steps that a stream may use, with one table of all their timesteps (float32, none twice), for
    which modulation is made once. The first of `counts` comes first in it."""

    def __init__(self, counts: Sequence[int], shift: float = SHIFT) -> None:
        found: list[float] = []
        made: dict[int, Schedule] = {}
        for count in counts:
            moments = timesteps(count, shift)
            found += [moment for moment in moments[:-1].tolist() if moment not in found]
            made[count] = Schedule(timesteps=moments, rows=tuple(map(found.index, moments[:-1].tolist())))
        self._made, self.table = made, torch.tensor(found)
        self.first = made[counts[0]]

    def __getitem__(self, steps: int) -> Schedule:
        return self._made[steps]


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
