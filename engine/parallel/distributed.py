"""The ranks of one stream: every collective that the model needs is here, over process groups that are passed in.

Collectives are named in the order in which all ranks must call them. Nothing here reads the environment or the
default process group, and nothing waits for the host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from engine.parallel.group import Attention
from engine.parallel.ring import OnlineSoftmax
from engine.parallel.topology import RankPlan

_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
"""torch 2.13 renamed it."""


@dataclass(frozen=True, kw_only=True)
class RankGroups:
    """This rank's process groups: all ranks, those it exchanges heads with, and those that keys go round."""

    world: dist.ProcessGroup
    ulysses: dist.ProcessGroup
    ring: dist.ProcessGroup


def make_groups(plan: RankPlan, world: dist.ProcessGroup) -> RankGroups:
    """The groups of `plan`; every rank of `world`, whose size must be the plan's, calls this at the same point."""
    if world.size() != plan.world:
        raise ValueError(f"the plan is for {plan.world} ranks and the group has {world.size()}")
    numbers = dist.get_process_group_ranks(world)
    mine = {}
    layout = {
        "ulysses": [plan.ranks_of_ulysses(index) for index in range(plan.ring)],
        "ring": [plan.ranks_of_ring(index) for index in range(plan.ulysses)],
    }
    for kind, groups in layout.items():
        for ranks in groups:
            # All ranks must take part in making every group, also those that they are not in.
            group = dist.new_group([numbers[rank] for rank in ranks])
            if world.rank() in ranks:
                mine[kind] = group
    return RankGroups(world=world, **mine)


class DistributedGroup:
    """Implements `SequenceGroup` for one rank and one plan."""

    def __init__(self, plan: RankPlan, groups: RankGroups) -> None:
        self.plan, self._groups = plan, groups
        self.rank, self.size = groups.world.rank(), plan.world
        self._ring_index, self._ulysses_index = divmod(self.rank, plan.ulysses)
        self.bytes_sent = 0
        """By the collectives of this group so far, for the benchmark."""
        used = (groups.world, groups.ulysses, groups.ring)
        self.is_capturable = all("nccl" in dist.get_backend(group) for group in used)
        """Whether a CUDA graph can hold the collectives: gloo's go through the host."""

    def token_range(self, tokens: int) -> tuple[int, int]:
        """This rank's rows; the last ones may lie beyond `tokens`."""
        self._check(tokens)
        return self.plan.token_range(self.rank)

    def shard(self, x: Tensor) -> Tensor:
        """This rank's rows, filled up with zeros."""
        start, stop = self.token_range(len(x))
        rows = x[min(start, len(x)) : stop]
        missing = stop - start - len(rows)
        return torch.cat((rows, rows.new_zeros(missing, *rows.shape[1:]))) if missing else rows

    def gather(self, x: Tensor, tokens: int) -> Tensor:
        """Every rank's rows without the padding."""
        self._check(tokens)
        whole = x.new_empty(self.plan.world * len(x), *x.shape[1:])
        _all_gather(whole, x.contiguous(), group=self._groups.world)
        self._count(x, self.plan.world - 1)
        return whole[:tokens]

    def share(self, owner: int, make: Callable[[], tuple[Tensor, ...]], like: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What rank `owner` makes, on every rank. `like` are tensors of the same shapes and dtypes to receive in."""
        made = make() if self.rank == owner else like
        for tensor in made:
            dist.broadcast(tensor, group_src=owner, group=self._groups.world)
            if self.rank == owner:
                self._count(tensor, self.plan.world - 1)
        return made

    def attend(self, q: Tensor, k: Tensor, v: Tensor, attention: Attention) -> Tensor:
        """See `SequenceGroup.attend`. One exchange brings q, k and v, one brings the result back; between them each
        rank has all tokens of its Ulysses group for its share of the heads.

        Queries, keys and values are copied once, to where they are sent from; the attention reads them where they were
        received, as views, unless keys and values go round a ring, for which they must lie by themselves.
        """
        if self.size == 1:
            return attention(q, k, v)
        if self.plan.ulysses == 1:
            return self._ring(q, k, v, attention)
        received = self._heads_for_tokens(q, k, v)
        q, k, v = received.flatten(0, 1).unbind(1)
        if self.plan.ring == 1:
            valid = self.plan.valid_tokens(0)
            out = attention(q, k[:valid], v[:valid])
        else:
            out = self._ring(q, k, v, attention)
        return self._tokens_for_heads(out, received)

    def _heads_for_tokens(self, *parts: Tensor) -> Tensor:
        """Each [rows, heads, head_dim] -> [ranks of the Ulysses group, their rows, parts, its heads, head_dim]."""
        rows, heads, width = parts[0].shape
        degree = self.plan.ulysses
        send = parts[0].new_empty(degree, rows, len(parts), heads // degree, width)
        for number, part in enumerate(parts):
            send[:, :, number] = part.unflatten(1, (degree, -1)).movedim(1, 0)
        return self._exchange(send, torch.empty_like(send))

    def _tokens_for_heads(self, out: Tensor, used: Tensor) -> Tensor:
        """[rows of the Ulysses group, its heads, head_dim] -> [rows, heads, head_dim].

        What comes is received in the memory of `used`, which has room for it and is needed no more: whatever read it
        is before the exchange on this rank's stream, and nothing of it is handed out.
        """
        send = out.unflatten(0, (self.plan.ulysses, -1)).contiguous()
        received = self._exchange(send, used.flatten()[: send.numel()].view_as(send))
        return received.movedim(0, 1).flatten(1, 2)

    def _exchange(self, send: Tensor, received: Tensor) -> Tensor:
        dist.all_to_all_single(received, send, group=self._groups.ulysses)
        self._count(send[0], self.plan.ulysses - 1)
        return received

    def _ring(self, q: Tensor, k: Tensor, v: Tensor, attention: Attention) -> Tensor:
        """Each group's keys and values visit every rank; the next ones travel while these are attended to.

        Two buffers take turns: what is received next goes where the ones lie that were sent and attended to last, after
        both is over, on this rank's stream too.
        """
        ring, softmax = self.plan.ring, OnlineSoftmax()
        here = torch.stack((k, v))
        coming = torch.empty_like(here)
        for step in range(ring):
            travelling = self._pass_on(here, coming) if step + 1 < ring else []
            valid = self.plan.valid_tokens((self._ring_index - step) % ring)
            if valid:
                softmax.add(*attention.with_lse(q, here[0, :valid], here[1, :valid]))
            for work in travelling:
                work.wait()
            here, coming = coming, here
        return softmax.result(q.dtype)

    def _pass_on(self, here: Tensor, coming: Tensor) -> list[dist.Work]:
        ring, group = self.plan.ring, self._groups.ring
        self._count(here, 1)
        return dist.batch_isend_irecv(
            [
                dist.P2POp(dist.isend, here, group=group, group_peer=(self._ring_index + 1) % ring),
                dist.P2POp(dist.irecv, coming, group=group, group_peer=(self._ring_index - 1) % ring),
            ]
        )

    def _count(self, sent: Tensor, times: int) -> None:
        self.bytes_sent += sent.numel() * sent.element_size() * times

    def _check(self, tokens: int) -> None:
        if self.size > 1 and tokens != self.plan.tokens:
            raise ValueError(f"the plan is for {self.plan.tokens} tokens and the sequence has {tokens}")
