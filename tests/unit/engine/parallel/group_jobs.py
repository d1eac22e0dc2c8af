"""What each rank does in the tests of groups and bands; runs in processes of its own (tests/fixtures/rank_pool.py)."""

import math

import torch

from engine.generators.flashtalk.attention import choose_attention
from engine.parallel.distributed import DistributedGroup, make_groups
from engine.parallel.launch import RankGroup, rank_group
from engine.parallel.tiles import RowBands
from engine.parallel.topology import plan_ranks

_GROUPS = {}


def group_of(world, heads, tokens, ulysses=None):
    plan = plan_ranks(world=world.size(), heads=heads, tokens=tokens, latent_rows=world.size(), ulysses=ulysses)
    if plan.ulysses not in _GROUPS:
        _GROUPS[plan.ulysses] = make_groups(plan, world)
    return DistributedGroup(plan, _GROUPS[plan.ulysses])


def bands_of(world, latent_rows):
    return RowBands(plan_ranks(world=world.size(), heads=1, tokens=64, latent_rows=latent_rows), world)


class Watched:
    """The model's attention, and what it was asked: how many queries, keys and heads each time."""

    def __init__(self, dtype):
        self._attention, self.asked = choose_attention(torch.device("cpu"), dtype), []

    def __call__(self, q, k, v):
        self.asked.append((*q.shape[:2], len(k)))
        return self._attention(q, k, v)

    def with_lse(self, q, k, v):
        self.asked.append((*q.shape[:2], len(k)))
        return self._attention.with_lse(q, k, v)


def attend(world, q, k, v, ulysses=None, spoil=math.nan):
    """Attention of all of q to all of k and v, with `spoil` in every row of padding; and what the kernel was asked."""
    tokens, heads, _ = q.shape
    group, attention = group_of(world, heads, tokens, ulysses), Watched(q.dtype)
    start, stop = group.token_range(tokens)
    shards = [group.shard(x) for x in (q, k, v)]
    for shard in shards:
        assert len(shard) == stop - start
        shard[max(tokens - start, 0) :] = spoil
    before = group.bytes_sent
    out = group.attend(*shards, attention)
    sent = group.bytes_sent - before
    return {"whole": group.gather(out, tokens), "asked": attention.asked, "sent": sent}


def shard_and_gather(world, x, ulysses=None):
    """(this rank's rows, every row)."""
    group = group_of(world, 4, len(x), ulysses)
    mine = group.shard(x)
    return mine, group.gather(mine, len(x)), group.bytes_sent


def share(world, owner, shapes):
    """What the owner makes of its own rank number, and who was asked to make it."""
    group, asked = group_of(world, 4, 64), []

    def make():
        asked.append(group.rank)
        return tuple(torch.full(shape, 10 + group.rank, dtype=dtype) for shape, dtype in shapes)

    shared = group.share(owner, make, tuple(torch.zeros(shape, dtype=dtype) for shape, dtype in shapes))
    return shared, asked, group.bytes_sent


def wrong_length(world):
    """What is said about a sequence that the plan is not for."""
    group, said = group_of(world, 4, 64), []
    for call in (lambda: group.token_range(63), lambda: group.shard(torch.zeros(65, 1))):
        try:
            call()
        except ValueError as error:
            said.append(str(error))
    return said


def wrong_world(world):
    """What is said about a plan for other ranks."""
    try:
        make_groups(plan_ranks(world=world.size() + 1, heads=1, tokens=64, latent_rows=64), world)
    except ValueError as error:
        return str(error)
    return ""


def bands(world, call, whole, latent_rows, *, layout="contiguous_format", **arguments):
    """`call` of this rank's band of `whole`: (result, its strides' layout is kept, bytes sent)."""
    tiles, layout = bands_of(world, latent_rows), getattr(torch, layout)
    band = tiles.crop(whole).contiguous(memory_format=layout)
    result = getattr(tiles, call)(band, **arguments)
    is_kept = result is None or result.is_contiguous(memory_format=layout)
    return result, is_kept, tiles.bytes_sent


def crop(world, whole, latent_rows, layout):
    """(the band, the layout of `whole` is kept)."""
    band = bands_of(world, latent_rows).crop(whole.contiguous(memory_format=getattr(torch, layout)))
    return band, band.is_contiguous(memory_format=getattr(torch, layout))


def mean(world, whole, latent_rows):
    tiles = bands_of(world, latent_rows)
    return tiles.mean(tiles.crop(whole))


def average(world, whole, latent_rows):
    """Of each band's own mean."""
    tiles = bands_of(world, latent_rows)
    return tiles.average(tiles.crop(whole).mean(dim=(-2, -1)))


def open_ended(world, whole, latent_rows):
    """What decoders and encoders get: (crop, gather, halo) of each."""
    tiles = bands_of(world, latent_rows)
    band = tiles.crop(whole)
    down, up = tiles.for_decoding, tiles.for_encoding
    return {
        "band": band,
        "decoding": (down.crop(whole), down.gather(band), down.with_halo(band, top=1, bottom=1)),
        "encoding": (up.crop(band), up.gather(band), up.with_halo(band, top=0, bottom=1)),
        "halo": tiles.with_halo(band, top=1, bottom=1),
    }


def odd_rows(world):
    """What is said about pictures that are no whole latent rows."""
    try:
        bands_of(world, 4).crop(torch.zeros(1, 3, 1, 9, 8))
    except ValueError as error:
        return str(error)
    return ""


def from_first(world, tensors):
    """Rank 0 alone knows them; the others must not be asked."""
    ranks, received = RankGroup(world), []

    def make(tensor):
        assert world.rank() == 0, "only rank 0 makes"
        return tensor

    for tensor in tensors:
        received.append(ranks.from_first(lambda tensor=tensor: make(tensor), torch.device("cpu")))
    ranks.barrier()
    return received


def planned(world):
    """Plans of two sizes and layouts from one group of ranks: their groups are made once for each degree."""
    ranks = rank_group()
    if ranks is None:
        return None
    made = [ranks.plan(heads=heads, tokens=tokens, latent_rows=8) for heads, tokens in ((4, 24), (4, 31), (1, 24))]
    groups = [group._groups for group, _ in made]
    results = []
    for group, bands in made:
        x = torch.arange(24.0 if group.plan.tokens == 24 else 31.0)[:, None]
        whole = torch.arange(8.0 * 8).view(1, 1, 1, 64, 1)
        results.append((group.gather(group.shard(x), len(x)), bands.gather(bands.crop(whole))))
    degrees = [group.plan.ulysses for group, _ in made]
    return {"same": groups[0] is groups[1], "degrees": degrees, "results": results, "rank": (ranks.rank, ranks.size)}
