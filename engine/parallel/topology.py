"""How one stream is spread over ranks, as plain numbers: no torch, no processes, the same answer everywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class RankPlan:
    """What every rank does.

    Tokens are cut into `world` equal runs; the last ones may end in padding that no attention looks at. Self-attention
    goes over `ulysses` neighbouring ranks by exchanging heads for tokens, and over `ring` such groups by passing keys
    and values round. Pictures are cut into `bands` of latent rows (first, one past the last), one for each rank.
    """

    world: int
    heads: int
    tokens: int
    ulysses: int
    bands: tuple[tuple[int, int], ...]

    @property
    def ring(self) -> int:
        """Groups that keys and values go round."""
        return self.world // self.ulysses

    @property
    def tokens_per_rank(self) -> int:
        """Rows that each rank computes, padding included."""
        return -(-self.tokens // self.world)

    @property
    def padding(self) -> int:
        """Rows that are computed in vain, on all ranks together."""
        return self.tokens_per_rank * self.world - self.tokens

    def token_range(self, rank: int) -> tuple[int, int]:
        """First and one past the last row of `rank`, padding included."""
        return rank * self.tokens_per_rank, (rank + 1) * self.tokens_per_rank

    def valid_tokens(self, ring_index: int) -> int:
        """Rows that are no padding in the ranks of one Ulysses group."""
        per_group = self.tokens_per_rank * self.ulysses
        return min(max(self.tokens - ring_index * per_group, 0), per_group)

    def ranks_of_ulysses(self, ring_index: int) -> tuple[int, ...]:
        """Neighbours, which are on one machine wherever that is possible."""
        return tuple(range(ring_index * self.ulysses, (ring_index + 1) * self.ulysses))

    def ranks_of_ring(self, ulysses_index: int) -> tuple[int, ...]:
        """The ranks that hold the same heads."""
        return tuple(range(ulysses_index, self.world, self.ulysses))

    def describe(self) -> str:
        """One line for people."""
        parts = [f"{self.world} rank{'s' if self.world > 1 else ''}"]
        if self.world > 1:
            parts.append(
                f"heads over {self.ulysses}" if self.ring == 1 else f"heads over {self.ulysses}, ring of {self.ring}"
            )
            parts.append(f"{self.tokens_per_rank} tokens each")
        if self.padding:
            parts.append(f"{self.padding} row{'s' if self.padding > 1 else ''} of padding in all")
        return ", ".join(parts)


def plan_ranks(*, world: int, heads: int, tokens: int, latent_rows: int, ulysses: int | None = None) -> RankPlan:
    """The plan for `world` ranks, heads exchanged over as many as divide both them and `heads`, unless told.

    Raises `UsageError` with the numbers where it cannot work.
    """
    if world < 1:
        raise UsageError(f"{world} ranks cannot make a picture.", hint="Choose 1 or more.")
    degree = math.gcd(world, heads) if ulysses is None else ulysses
    if degree < 1 or heads % degree or world % degree:
        raise UsageError(
            f"Heads cannot be exchanged over {degree} of {world} ranks: {heads} heads and {world} ranks must both be "
            f"multiples of it.",
            code="ranks.ulysses",
            hint=f"{math.gcd(world, heads)} works.",
        )
    if world > latent_rows:
        raise UsageError(
            f"A picture of {latent_rows * 8} rows cannot be cut into {world} bands of at least 8 rows.",
            code="ranks.too_many",
            hint=f"Choose at most {latent_rows} ranks, or a taller picture.",
        )
    if world > tokens:
        raise UsageError(
            f"{tokens} tokens cannot be shared by {world} ranks.",
            code="ranks.too_many",
            hint=f"Choose at most {tokens} ranks, or a larger picture.",
        )
    return RankPlan(world=world, heads=heads, tokens=tokens, ulysses=degree, bands=_bands(latent_rows, world))


def preferred_worlds(most: int, *, heads: int, tokens: int, latent_rows: int) -> list[int]:
    """Numbers of ranks up to `most` that can share a picture: first those that heads and tokens divide by, which need
    no ring and no padding, then the others; within each the largest first."""
    possible = range(min(most, latent_rows, tokens), 0, -1)
    even = [world for world in possible if divides_evenly(world, heads=heads, tokens=tokens)]
    return even + [world for world in possible if world not in even]


def divides_evenly(world: int, *, heads: int, tokens: int) -> bool:
    """Whether `world` ranks need neither a ring nor padding."""
    return heads % world == 0 and tokens % world == 0


def bytes_sent_per_step(plan: RankPlan, *, dim: int, layers: int, item_bytes: int) -> int:
    """Bytes that one rank sends in the self-attention of one denoising step.

    Ulysses: q, k, v one way and the result back, of which each rank keeps its own share; ring: keys and values of a
    group, passed on ring - 1 times.
    """
    rows = plan.tokens_per_rank
    exchanged = 4 * rows * dim * (plan.ulysses - 1) // plan.ulysses
    passed = 2 * rows * plan.ulysses * (dim // plan.ulysses) * (plan.ring - 1)
    return (exchanged + passed) * layers * item_bytes


def _bands(rows: int, world: int) -> tuple[tuple[int, int], ...]:
    """As equal as possible, the taller ones first."""
    height, taller = divmod(rows, world)
    starts = [rank * height + min(rank, taller) for rank in range(world + 1)]
    return tuple((starts[rank], starts[rank + 1]) for rank in range(world))
