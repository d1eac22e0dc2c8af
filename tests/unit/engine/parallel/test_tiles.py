"""Bands of rows between real gloo processes, against the same pictures in one piece."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.parallel.topology import plan_ranks

pytestmark = pytest.mark.ranks

JOBS = Path(__file__).with_name("group_jobs.py")
WORLDS = [1, 2, 3, 4]
DTYPES = [torch.uint8, torch.bfloat16, torch.float16, torch.float32, torch.float64]
LATENT_ROWS = 7
"""Uneven for 2, 3 and 4 ranks."""


def pictures(rows: int, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Random [1, 3, 2, rows, 5]."""
    source = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, 3, 2, rows, 5), generator=source).to(dtype)


def bands_of(world: int, rows: int, scale: int = 1) -> list[tuple[int, int]]:
    plan = plan_ranks(world=world, heads=1, tokens=64, latent_rows=rows)
    return [(start * scale, stop * scale) for start, stop in plan.bands]


def on_ranks(pool, call: str, whole: Tensor, **arguments) -> list:
    return pool.run(JOBS, "bands", {"call": call, "whole": whole, "latent_rows": LATENT_ROWS, **arguments})


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("scale", [1, 8])
@pytest.mark.parametrize("layout", ["contiguous_format", "channels_last_3d"])
def test_crop_is_this_rank_s_rows(world, scale, layout, rank_pools):
    whole = pictures(LATENT_ROWS * scale)
    arguments = {"whole": whole, "latent_rows": LATENT_ROWS, "layout": layout}
    results = rank_pools(world).run(JOBS, "crop", arguments)
    for (band, is_kept), (start, stop) in zip(results, bands_of(world, LATENT_ROWS, scale), strict=True):
        assert is_kept and torch.equal(band, whole[..., start:stop, :])


@pytest.mark.parametrize("world", WORLDS)
def test_no_halo_is_no_message(world, rank_pools):
    results = on_ranks(rank_pools(world), "with_halo", pictures(LATENT_ROWS), top=0, bottom=0)
    for (band, _, sent), (start, stop) in zip(results, bands_of(world, LATENT_ROWS), strict=True):
        assert torch.equal(band, pictures(LATENT_ROWS)[..., start:stop, :]) and sent == 0


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("top", "bottom"), [(1, 1), (0, 1), (2, 0), (1, 2)])
def test_halo_is_the_neighbours_rows_and_zeros_beyond(world, dtype, top, bottom, rank_pools):
    scale = 2
    whole = pictures(LATENT_ROWS * scale, dtype=dtype)
    framed = F.pad(whole.double(), (0, 0, top, bottom)).to(dtype)
    results = on_ranks(rank_pools(world), "with_halo", whole, top=top, bottom=bottom)
    row_bytes = whole[..., :1, :].numel() * whole.element_size()
    for rank, ((band, _, sent), (start, stop)) in enumerate(
        zip(results, bands_of(world, LATENT_ROWS, scale), strict=True)
    ):
        assert band.dtype == dtype and torch.equal(band, framed[..., start : stop + top + bottom, :])
        assert sent == row_bytes * (bottom * (rank > 0) + top * (rank + 1 < world))


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gather_is_the_whole_on_every_rank(world, dtype, rank_pools):
    whole = pictures(LATENT_ROWS * 8, dtype=dtype)
    for (result, _, sent), (start, stop) in zip(
        on_ranks(rank_pools(world), "gather", whole), bands_of(world, LATENT_ROWS, 8), strict=True
    ):
        assert result.dtype == dtype and torch.equal(result, whole)
        assert sent == (world - 1) * whole[..., start:stop, :].numel() * whole.element_size()


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gather_first_is_for_rank_0_alone(world, dtype, rank_pools):
    whole = pictures(LATENT_ROWS * 8, dtype=dtype)
    first, *others = on_ranks(rank_pools(world), "gather_first", whole)
    assert torch.equal(first[0], whole) and first[2] == 0
    for (result, _, sent), (start, stop) in zip(others, bands_of(world, LATENT_ROWS, 8)[1:], strict=True):
        assert result is None and sent == whole[..., start:stop, :].numel() * whole.element_size()


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("call", "arguments"), [("with_halo", {"top": 1, "bottom": 1}), ("gather", {})])
def test_channels_stay_last(world, call, arguments, rank_pools):
    """Convolutions on tensor cores want them there; a copy before each would cost more than the exchange."""
    results = on_ranks(rank_pools(world), call, pictures(56), layout="channels_last_3d", **arguments)
    for result, is_kept, _ in results:
        assert is_kept
        if call == "gather":
            assert torch.equal(result, pictures(56))


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_mean_is_that_of_whole_pictures(world, dtype, rank_pools):
    whole = torch.rand(1, 3, 2, 56, 5, generator=torch.Generator().manual_seed(1), dtype=dtype) - 0.3
    results = rank_pools(world).run(JOBS, "mean", {"whole": whole, "latent_rows": LATENT_ROWS})
    wanted = whole.double().mean(dim=(-2, -1), keepdim=True)
    for result in results:
        assert result.dtype == dtype and torch.equal(result, results[0]), "colours would drift apart"
        torch.testing.assert_close(result.double(), wanted, rtol=0, atol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("world", WORLDS)
def test_average_counts_rows(world, rank_pools):
    """The mean of bands' means is not the mean where one band is taller."""
    whole = pictures(56, seed=2)
    results = rank_pools(world).run(JOBS, "average", {"whole": whole, "latent_rows": LATENT_ROWS})
    for result in results:
        assert torch.equal(result, results[0])
        torch.testing.assert_close(result, whole.mean(dim=(-2, -1)), rtol=1e-14, atol=0)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_pictures_stay_cut_between_decoder_and_encoder(world, rank_pools):
    whole = pictures(56, seed=3)
    for result in rank_pools(world).run(JOBS, "open_ended", {"whole": whole, "latent_rows": LATENT_ROWS}):
        band, halo = result["band"], result["halo"]
        cropped, kept, decoder_halo = result["decoding"]
        assert torch.equal(cropped, band) and torch.equal(kept, band) and torch.equal(decoder_halo, halo)
        kept, gathered, encoder_halo = result["encoding"]
        assert torch.equal(kept, band) and torch.equal(gathered, whole)
        assert torch.equal(encoder_halo, halo[..., 1:, :])


@pytest.mark.parametrize("world", [2, 3, 4])
def test_a_row_of_height_one_is_enough(world, rank_pools):
    """The flattest picture that many ranks can share: every band is one row, and each its neighbours' halo."""
    whole = pictures(world, seed=4)
    arguments = {"call": "with_halo", "whole": whole, "latent_rows": world, "top": 1, "bottom": 1}
    framed = F.pad(whole, (0, 0, 1, 1))
    for rank, (band, *_) in enumerate(rank_pools(world).run(JOBS, "bands", arguments)):
        assert torch.equal(band, framed[..., rank : rank + 3, :])


def test_pictures_of_no_whole_latent_rows_are_refused(rank_pools):
    for said in rank_pools(2).run(JOBS, "odd_rows", {}):
        assert "9 rows" in said and "4 latent rows" in said


def test_uneven_bands_are_what_is_tested():
    for world in WORLDS[1:]:
        heights = {stop - start for start, stop in bands_of(world, LATENT_ROWS)}
        assert len(heights) == 2
        assert all(above[1] == below[0] for above, below in pairwise(bands_of(world, LATENT_ROWS)))
