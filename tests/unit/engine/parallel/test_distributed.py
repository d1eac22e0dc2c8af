"""Groups of real gloo processes: rows spread and joined, attention over all of them, padding that never shows."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.parallel.topology import bytes_sent_per_step, plan_ranks

pytestmark = pytest.mark.ranks

JOBS = Path(__file__).with_name("group_jobs.py")
HEADS, WIDTH = 12, 4
DEGREES = [(world, degree) for world in (1, 2, 3, 4) for degree in range(1, world + 1) if world % degree == 0]


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention by its definition, in float64."""
    q, k, v = (x.double() for x in (q, k, v))
    weights = torch.softmax(torch.einsum("thw,khw->htk", q, k) / math.sqrt(q.shape[-1]), dim=-1)
    return torch.einsum("htk,khw->thw", weights, v)


@pytest.mark.parametrize(("world", "ulysses"), DEGREES)
@pytest.mark.parametrize("tokens", [4, 5, 6, 13, 24])
def test_attention_is_that_of_one_rank(world, ulysses, tokens, rank_pools):
    """Every degree; 5 tokens leave the last of 4 ranks nothing but padding, which is full of NaN here."""
    q, k, v = (normal(tokens, HEADS, WIDTH, seed=seed) for seed in range(3))
    results = rank_pools(world).run(JOBS, "attend", {"q": 3 * q, "k": k, "v": v, "ulysses": ulysses})
    for result in results:
        torch.testing.assert_close(result["whole"], exact(3 * q, k, v), rtol=0, atol=1e-13)
        assert torch.equal(result["whole"], results[0]["whole"]), "gathered once, so every rank has the same bits"


@pytest.mark.parametrize(("world", "ulysses"), DEGREES)
def test_work_and_bytes_are_as_planned(world, ulysses, rank_pools):
    """All keys once, none of the padding, for this rank's share of the heads; and the plan's bytes."""
    tokens = 13
    q, k, v = (normal(tokens, HEADS, WIDTH, seed=seed) for seed in range(3))
    plan = plan_ranks(world=world, heads=HEADS, tokens=tokens, latent_rows=world, ulysses=ulysses)
    for result in rank_pools(world).run(JOBS, "attend", {"q": q, "k": k, "v": v, "ulysses": ulysses}):
        rows = plan.tokens_per_rank * ulysses
        assert all((queries, heads) == (rows, HEADS // ulysses) for queries, heads, _ in result["asked"])
        assert sum(keys for *_, keys in result["asked"]) == tokens
        assert result["sent"] == bytes_sent_per_step(plan, dim=HEADS * WIDTH, layers=1, item_bytes=8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("world", "ulysses"), [(2, 2), (2, 1), (3, 1), (4, 2)])
def test_other_precisions(dtype, world, ulysses, rank_pools):
    q, k, v = (normal(13, HEADS, WIDTH, seed=seed, dtype=dtype) for seed in range(3))
    wanted = exact(q, k, v)
    bound = 4 * torch.finfo(dtype).eps * wanted.abs().max().item()
    for result in rank_pools(world).run(JOBS, "attend", {"q": q, "k": k, "v": v, "ulysses": ulysses}):
        assert result["whole"].dtype == dtype
        torch.testing.assert_close(result["whole"].double(), wanted, rtol=0, atol=bound)


@pytest.mark.parametrize("spoil", [math.inf, -1e30, 7.0])
def test_no_value_in_the_padding_changes_a_bit(spoil, rank_pools):
    q, k, v = (normal(9, HEADS, WIDTH, seed=seed) for seed in range(3))
    for ulysses in (1, 2, 4):
        arguments = {"q": q, "k": k, "v": v, "ulysses": ulysses}
        clean, spoiled = (rank_pools(4).run(JOBS, "attend", {**arguments, "spoil": value}) for value in (0.0, spoil))
        assert torch.equal(clean[0]["whole"], spoiled[0]["whole"])


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("tokens", [4, 5, 11, 12])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.complex64])
def test_rows_spread_and_joined(world, tokens, dtype, rank_pools):
    x = torch.arange(1, 1 + tokens * 6).view(tokens, 2, 3).to(dtype)
    per_rank = -(-tokens // world)
    padded = torch.cat((x, torch.zeros(per_rank * world - tokens, 2, 3, dtype=dtype)))
    for rank, (mine, whole, sent) in enumerate(rank_pools(world).run(JOBS, "shard_and_gather", {"x": x})):
        assert torch.equal(mine, padded[rank * per_rank : (rank + 1) * per_rank])
        assert whole.dtype == dtype and torch.equal(whole, x)
        assert sent == (world - 1) * per_rank * 6 * x.element_size()


@pytest.mark.parametrize("world", [2, 3, 4])
def test_one_rank_makes_and_all_have_it(world, rank_pools):
    shapes = [((3, 2), torch.float32), ((5,), torch.bfloat16), ((1, 4), torch.uint8)]
    size_bytes = 6 * 4 + 5 * 2 + 4
    for owner in range(world):
        results = rank_pools(world).run(JOBS, "share", {"owner": owner, "shapes": shapes})
        for rank, (shared, asked, sent) in enumerate(results):
            assert asked == ([owner] if rank == owner else [])
            assert sent == ((world - 1) * size_bytes if rank == owner else 0)
            for tensor, (shape, dtype) in zip(shared, shapes, strict=True):
                assert torch.equal(tensor, torch.full(shape, 10 + owner, dtype=dtype))


def test_a_sequence_of_another_length_is_refused(rank_pools):
    for said in rank_pools(2).run(JOBS, "wrong_length", {}):
        assert len(said) == 2 and all("64 tokens" in text for text in said)
        assert "63" in said[0] and "65" in said[1]


def test_a_plan_for_other_ranks_is_refused(rank_pools):
    for said in rank_pools(2).run(JOBS, "wrong_world", {}):
        assert "3 ranks" in said and "has 2" in said
