"""Pictures cut into bands of rows, one for each rank: what the video VAE and the colour match need of their neighbours.

Bands are whole latent rows and may differ in height by one. Convolutions get the rows that they see beyond their band
from the neighbours, so that the result is that of one rank; the reference's tiles overlap by a little instead, and
their picture is not.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from engine.parallel.topology import RankPlan


class RowBands:
    """This rank's side of the cut; rows are the last axis but one. All ranks make the same calls in the same order."""

    def __init__(self, plan: RankPlan, world: dist.ProcessGroup) -> None:
        self.plan, self._world = plan, world
        self.rank = world.rank()
        self._latent_rows = plan.bands[-1][1]
        self.bytes_sent = 0

    def crop(self, x: Tensor) -> Tensor:
        """This rank's rows [..., rows of the band, W] of whole pictures [..., rows, W]."""
        scale = self._scale(x.shape[-2], self._latent_rows)
        start, stop = self.plan.bands[self.rank]
        return _in_layout_of(x, x[..., start * scale : stop * scale, :])

    def with_halo(self, x: Tensor, *, top: int, bottom: int) -> Tensor:
        """The band with `top` rows of the band above and `bottom` of the one below; zeros beyond the picture.

        Each rank sends what its neighbours ask for, which is the same for all: its last `top` and first `bottom` rows.
        """
        above = x.new_zeros(*x.shape[:-2], top, x.shape[-1])
        below = x.new_zeros(*x.shape[:-2], bottom, x.shape[-1])
        operations = []
        if self.rank > 0:
            operations += self._swap(x[..., :bottom, :], above, self.rank - 1)
        if self.rank + 1 < self.plan.world:
            operations += self._swap(x[..., x.shape[-2] - top :, :], below, self.rank + 1)
        _run(operations)
        return torch.cat((_in_layout_of(x, above), x, _in_layout_of(x, below)), dim=-2)

    def gather(self, x: Tensor) -> Tensor:
        """Whole pictures from every rank's band, on every rank."""
        parts = self._empty_parts(x)
        parts[self.rank].copy_(x)
        # Heights may differ, so every rank sends its band round in its turn.
        for owner, part in enumerate(parts):
            dist.broadcast(part, group_src=owner, group=self._world)
        self._count(x, self.plan.world - 1)
        return _in_layout_of(x, torch.cat(parts, dim=-2))

    def gather_first(self, x: Tensor) -> Tensor | None:
        """Whole pictures on rank 0, None elsewhere."""
        parts = self._empty_parts(x) if self.rank == 0 else []
        # In one batch, because NCCL makes a communicator of its own for every pair that sends outside of one.
        if self.rank:
            self._count(x, 1)
            operations = [dist.P2POp(dist.isend, x.contiguous(), group=self._world, group_peer=0)]
        else:
            parts[0] = x
            operations = [
                dist.P2POp(dist.irecv, part, group=self._world, group_peer=owner)
                for owner, part in enumerate(parts)
                if owner
            ]
        _run(operations)
        return torch.cat(parts, dim=-2) if parts else None

    def mean(self, x: Tensor) -> Tensor:
        """Mean over rows and columns of the whole pictures, kept as axes of length 1."""
        scale = self._scale(x.shape[-2], self._height(self.rank))
        pixels = self._latent_rows * scale * x.shape[-1]
        total = x.sum(dim=(-2, -1), keepdim=True).div_(pixels)
        dist.all_reduce(total, group=self._world)
        self._count(total, 1)
        return total

    def agree(self, x: Tensor) -> Tensor:
        """Rank 0's `x` on every rank. What all ranks compute alike may differ in a last bit, and what a stream feeds
        on must not."""
        x = x.contiguous()
        dist.broadcast(x, group_src=0, group=self._world)
        self._count(x, self.plan.world - 1 if self.rank == 0 else 0)
        return x

    def average(self, x: Tensor) -> Tensor:
        """Mean of what the ranks found on their bands, each weighted by its rows."""
        weighted = x * (self._height(self.rank) / self._latent_rows)
        dist.all_reduce(weighted, group=self._world)
        self._count(weighted, 1)
        return weighted

    @property
    def for_decoding(self) -> _OpenEnded:
        """The same bands for a decoder whose pictures stay cut."""
        return _OpenEnded(self, crops=True, gathers=False)

    @property
    def for_encoding(self) -> _OpenEnded:
        """The same bands for an encoder whose pictures are cut already."""
        return _OpenEnded(self, crops=False, gathers=True)

    def _swap(self, mine: Tensor, theirs: Tensor, peer: int) -> list[dist.P2POp]:
        operations = []
        if mine.shape[-2]:
            self._count(mine, 1)
            operations.append(dist.P2POp(dist.isend, mine.contiguous(), group=self._world, group_peer=peer))
        if theirs.shape[-2]:
            operations.append(dist.P2POp(dist.irecv, theirs, group=self._world, group_peer=peer))
        return operations

    def _empty_parts(self, x: Tensor) -> list[Tensor]:
        scale = self._scale(x.shape[-2], self._height(self.rank))
        return [x.new_empty(*x.shape[:-2], self._height(rank) * scale, x.shape[-1]) for rank in range(self.plan.world)]

    def _height(self, rank: int) -> int:
        start, stop = self.plan.bands[rank]
        return stop - start

    def _scale(self, rows: int, latent_rows: int) -> int:
        scale, rest = divmod(rows, latent_rows)
        if rest:
            raise ValueError(f"{rows} rows are not a multiple of {latent_rows} latent rows")
        return scale

    def _count(self, sent: Tensor, times: int) -> None:
        self.bytes_sent += sent.numel() * sent.element_size() * times


class _OpenEnded:
    """Bands whose pictures come cut, or stay cut."""

    def __init__(self, bands: RowBands, *, crops: bool, gathers: bool) -> None:
        self._bands, self._crops, self._gathers = bands, crops, gathers

    def crop(self, x: Tensor) -> Tensor:
        return self._bands.crop(x) if self._crops else x

    def with_halo(self, x: Tensor, *, top: int, bottom: int) -> Tensor:
        return self._bands.with_halo(x, top=top, bottom=bottom)

    def gather(self, x: Tensor) -> Tensor:
        return self._bands.gather(x) if self._gathers else x


def _run(operations: list[dist.P2POp]) -> None:
    """All at once; on a GPU this waits for nothing but the present stream does."""
    for work in dist.batch_isend_irecv(operations) if operations else []:
        work.wait()


def _in_layout_of(x: Tensor, part: Tensor) -> Tensor:
    """`part` in one piece, its channels last if those of `x` are: convolutions follow what they are given, and what is
    joined in different layouts is copied twice."""
    if x.dim() == 5 and x.is_contiguous(memory_format=torch.channels_last_3d):
        return part.contiguous(memory_format=torch.channels_last_3d)
    return part.contiguous()
