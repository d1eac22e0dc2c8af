"""The ranks of a process that has joined a process group, before it is known what they will share."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from engine.parallel.distributed import DistributedGroup, RankGroups, make_groups
from engine.parallel.tiles import RowBands
from engine.parallel.topology import plan_ranks


class RankGroup:
    """All ranks of one stream. Every rank makes the same calls in the same order."""

    def __init__(self, world: dist.ProcessGroup) -> None:
        self._world = world
        self.rank, self.size = world.rank(), world.size()
        self._groups: dict[int, RankGroups] = {}

    def plan(self, *, heads: int, tokens: int, latent_rows: int) -> tuple[DistributedGroup, RowBands]:
        """Who does what for a picture of that size. Raises `UsageError` where these ranks cannot share it."""
        plan = plan_ranks(world=self.size, heads=heads, tokens=tokens, latent_rows=latent_rows)
        if plan.ulysses not in self._groups:
            # Process groups are slow to make and are never given back, so each layout has them once.
            self._groups[plan.ulysses] = make_groups(plan, self._world)
        return DistributedGroup(plan, self._groups[plan.ulysses]), RowBands(plan, self._world)

    def from_first(self, make: Callable[[], Tensor], device: torch.device) -> Tensor:
        """What rank 0 makes, on `device` of every rank; for set-up, because the others wait to be told the shape."""
        made = make().to(device).contiguous() if self.rank == 0 else None
        form = [None if made is None else (made.shape, made.dtype)]
        dist.broadcast_object_list(form, group_src=0, group=self._world, device=_object_device(device))
        assert form[0] is not None
        shape, dtype = form[0]
        tensor = torch.empty(shape, dtype=dtype, device=device) if made is None else made
        dist.broadcast(tensor, group_src=0, group=self._world)
        return tensor

    def barrier(self) -> None:
        """Wait for all."""
        dist.barrier(group=self._world)


def rank_group() -> RankGroup | None:
    """The ranks of the default process group, None where this process is alone."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    assert dist.group.WORLD is not None
    return RankGroup(dist.group.WORLD)


def _object_device(device: torch.device) -> torch.device | None:
    """NCCL carries objects over its own device only."""
    return device if device.type == "cuda" else None
