"""The number of ranks changes nothing but the order of sums: random small models of random sizes, in float64."""

from pathlib import Path

import pytest
import torch

# On a machine that is busy with other things, ranks take a minute to start.
pytestmark = [pytest.mark.ranks, pytest.mark.timeout(600)]

JOBS = Path(__file__).with_name("parallel_jobs.py")
TOLERANCE = 1e-11
WORLDS = [2, 3, 4]


@pytest.fixture(scope="module")
def jobs(module_at):
    """The job file itself, for one rank in this process."""
    return module_at(JOBS)


def assert_alike(result, expected):
    assert result.dtype == expected.dtype and result.shape == expected.shape
    error = ((result - expected).abs().max() / expected.abs().max()).item()
    assert error <= TOLERANCE, f"{error:.3g}"


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("seed", range(8))
def test_transformer(seed, world, rank_pools, jobs):
    config, _ = jobs.dit_case(seed)
    with torch.no_grad():
        expected = jobs.velocity(None, seed)
    assert expected.abs().max() > 0.1
    for ulysses in range(1, world + 1):
        if world % ulysses or config.num_heads % ulysses:
            continue
        results = rank_pools(world).run(JOBS, "velocity", {"seed": seed, "ulysses": ulysses})
        for result in results:
            assert_alike(result, expected)
            assert torch.equal(result, results[0]), "a latent that differs in one bit would grow apart"


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("seed", range(5))
def test_pictures(seed, world, rank_pools, jobs):
    expected = jobs.pictures(None, seed)
    results = rank_pools(world).run(JOBS, "pictures", {"seed": seed})
    for result in results:
        for value, wanted in zip(result, expected, strict=True):
            assert_alike(value, wanted)
        for value, first in zip(result[1:], results[0][1:], strict=True):
            assert torch.equal(value, first), "gathered once, so every rank has the same bits"


def test_sizes_are_of_every_kind(jobs):
    """Tokens and heads that divide and that do not, for each number of ranks."""
    sizes = [jobs.dit_case(seed) for seed in range(8)]
    for world in WORLDS:
        for divisible in (True, False):
            assert any((config.num_heads % world == 0) == divisible for config, _ in sizes)
            assert any((grid[0] * grid[1] * grid[2] % world == 0) == divisible for _, grid in sizes)
