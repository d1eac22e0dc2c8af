"""What is known about one GPU."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.protocol.messages import Reason

OLDEST_WITH_BFLOAT16 = (8, 0)
"""Compute capability of Ampere."""


@dataclass(frozen=True, kw_only=True)
class MigPart:
    """A part of a GPU that MIG has split; `profile` as in "3g.40gb", from which its size is known only nominally."""

    uuid: str
    profile: str

    @property
    def total_bytes(self) -> int:
        """The gigabytes in its name, 0 where it has none."""
        found = re.search(r"(\d+)gb", self.profile)
        return int(found[1]) * 10**9 if found else 0


@dataclass(frozen=True, kw_only=True)
class GpuProcess:
    """A program that computes on a GPU; `used_bytes` is None where the system does not tell (Windows, containers)."""

    pid: int
    name: str
    used_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU that this process may use.

    `index` counts those that CUDA_VISIBLE_DEVICES leaves, as CUDA programs do; `system_index` is nvidia-smi's own.
    What the driver does not tell is None. `links` says by which way each other `index` is reached: "NV18" (that many
    NVLinks), then slower and slower ways over PCIe: "PIX", "PXB", "PHB", "NODE", "SYS".
    """

    index: int
    system_index: int
    uuid: str
    name: str
    total_bytes: int | None
    free_bytes: int | None
    compute_capability: tuple[int, int] | None
    driver: str
    is_split: bool = False
    parts: tuple[MigPart, ...] = ()
    processes: tuple[GpuProcess, ...] = ()
    links: Mapping[int, str] = field(default_factory=dict)

    @property
    def has_bfloat16(self) -> bool:
        """Whether it computes bfloat16 in hardware; one that does not tell its capability is taken for new."""
        return self.compute_capability is None or self.compute_capability >= OLDEST_WITH_BFLOAT16


@dataclass(frozen=True, kw_only=True)
class GpusFound:
    """The GPUs; why there are none or not all; and what is worth knowing about the list."""

    gpus: tuple[Gpu, ...] = ()
    problem: Reason | None = None
    notes: tuple[Reason, ...] = ()
