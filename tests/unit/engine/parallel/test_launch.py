"""What a rank has before it knows the picture: tensors from rank 0, plans, and groups that are made once."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from engine.parallel.group import LocalGroup
from engine.parallel.launch import rank_group

JOBS = Path(__file__).with_name("group_jobs.py")
TENSORS = [
    torch.arange(6.0).view(2, 3),
    torch.arange(24).view(1, 2, 3, 4).to(torch.bfloat16),
    torch.arange(5, dtype=torch.uint8),
    torch.arange(4.0, dtype=torch.float64).view(2, 2).t(),
    torch.zeros(0, 7),
    torch.tensor(3),
    torch.tensor([True, False]),
]


@pytest.mark.ranks
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_tensors_of_any_form_from_rank_0(world, rank_pools):
    for received in rank_pools(world).run(JOBS, "from_first", {"tensors": TENSORS}):
        for tensor, wanted in zip(received, TENSORS, strict=True):
            assert tensor.dtype == wanted.dtype and torch.equal(tensor, wanted)


@pytest.mark.ranks
@pytest.mark.parametrize("world", [2, 3, 4])
def test_plans_share_process_groups(world, rank_pools):
    for rank, planned in enumerate(rank_pools(world).run(JOBS, "planned", {})):
        assert planned["rank"] == (rank, world)
        assert planned["same"], "another size needs no new process groups"
        assert planned["degrees"] == {2: [2, 2, 1], 3: [1, 1, 1], 4: [4, 4, 1]}[world]
        for tokens, (rows, pictures) in zip((24, 31, 24), planned["results"], strict=True):
            assert torch.equal(rows, torch.arange(float(tokens))[:, None])
            assert torch.equal(pictures, torch.arange(64.0).view(1, 1, 1, 64, 1).long().float())


@pytest.mark.ranks
def test_a_world_of_one_is_no_group(rank_pools):
    assert rank_pools(1).run(JOBS, "planned", {}) == [None]


def test_no_process_group_is_no_group():
    assert not dist.is_initialized()
    assert rank_group() is None


def test_one_rank_needs_no_group():
    """The group of one hands everything back and calls nothing but what it is asked to."""
    group, x = LocalGroup(), torch.randn(5, 2, 3)
    assert (group.rank, group.size) == (0, 1)
    assert group.token_range(5) == (0, 5)
    assert group.shard(x) is x and group.gather(x, 5) is x
    assert group.share(0, lambda: (x,), ())[0] is x
    assert group.attend(1, 2, 3, lambda q, k, v: (q, k, v)) == (1, 2, 3)
