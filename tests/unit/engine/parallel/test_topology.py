"""The rank plan: every size of the published model on 1 to 16 ranks, and sentences for those that cannot work."""

from fractions import Fraction
from itertools import pairwise

import pytest

from engine.errors import UsageError
from engine.parallel.topology import RankPlan, bytes_sent_per_step, divides_evenly, plan_ranks, preferred_worlds

WORLDS = range(1, 17)
SIZES = [
    pytest.param(40, 12096, 96, id="768x448"),
    pytest.param(40, 10530, 90, id="720x416"),
    pytest.param(40, 3200, 40, id="320x512, 17 frames"),
    pytest.param(12, 4801, 17, id="odd"),
    pytest.param(1, 16, 16, id="one head, one token a rank"),
    pytest.param(6, 19, 23, id="fewer valid tokens than ranks' rows"),
]
DEGREES = {
    1: (1, 1),
    2: (2, 1),
    3: (1, 3),
    4: (4, 1),
    5: (5, 1),
    6: (2, 3),
    7: (1, 7),
    8: (8, 1),
    10: (10, 1),
    16: (8, 2),
}
"""(Ulysses, ring) for 40 heads, from section 8 of the specification."""


def every_plan(world: int, heads: int, tokens: int, rows: int) -> list[RankPlan]:
    """One for each Ulysses degree that divides ranks and heads."""
    degrees = [degree for degree in range(1, world + 1) if world % degree == heads % degree == 0]
    return [plan_ranks(world=world, heads=heads, tokens=tokens, latent_rows=rows, ulysses=degree) for degree in degrees]


@pytest.mark.parametrize(("heads", "tokens", "rows"), SIZES)
@pytest.mark.parametrize("world", WORLDS)
def test_tokens_are_cut_without_gap_or_overlap(world, heads, tokens, rows):
    for plan in every_plan(world, heads, tokens, rows):
        cut = [row for rank in range(world) for row in range(*plan.token_range(rank))]
        assert cut == list(range(tokens + plan.padding))
        assert 0 <= plan.padding < world
        assert {stop - start for start, stop in map(plan.token_range, range(world))} == {plan.tokens_per_rank}


@pytest.mark.parametrize(("heads", "tokens", "rows"), SIZES)
@pytest.mark.parametrize("world", WORLDS)
def test_groups_cover_the_ranks_as_a_grid(world, heads, tokens, rows):
    for plan in every_plan(world, heads, tokens, rows):
        assert plan.ulysses * plan.ring == world and heads % plan.ulysses == 0
        neighbours = [plan.ranks_of_ulysses(index) for index in range(plan.ring)]
        around = [plan.ranks_of_ring(index) for index in range(plan.ulysses)]
        assert sorted(sum(neighbours, ())) == sorted(sum(around, ())) == list(range(world))
        for ring_index, row in enumerate(neighbours):
            for ulysses_index, column in enumerate(around):
                assert set(row) & set(column) == {ring_index * plan.ulysses + ulysses_index}


@pytest.mark.parametrize(("heads", "tokens", "rows"), SIZES)
@pytest.mark.parametrize("world", WORLDS)
def test_valid_tokens_are_those_of_the_groups_ranks(world, heads, tokens, rows):
    """Counted row by row, and all tokens in the end: none is lost, no padding is attended to."""
    for plan in every_plan(world, heads, tokens, rows):
        valid = [plan.valid_tokens(index) for index in range(plan.ring)]
        counted = [
            sum(row < tokens for rank in plan.ranks_of_ulysses(index) for row in range(*plan.token_range(rank)))
            for index in range(plan.ring)
        ]
        assert valid == counted and sum(valid) == tokens and valid[0] > 0


@pytest.mark.parametrize(("heads", "tokens", "rows"), SIZES)
@pytest.mark.parametrize("world", WORLDS)
def test_bands_cut_the_rows_evenly(world, heads, tokens, rows):
    bands = plan_ranks(world=world, heads=heads, tokens=tokens, latent_rows=rows).bands
    assert len(bands) == world and bands[0][0] == 0 and bands[-1][1] == rows
    assert all(above[1] == below[0] for above, below in pairwise(bands))
    heights = [stop - start for start, stop in bands]
    assert heights == sorted(heights, reverse=True) and max(heights) - min(heights) <= 1 and min(heights) > 0


@pytest.mark.parametrize("world", DEGREES)
def test_degrees_of_the_published_model(world):
    plan = plan_ranks(world=world, heads=40, tokens=12096, latent_rows=96)
    assert (plan.ulysses, plan.ring) == DEGREES[world]


@pytest.mark.parametrize("world", WORLDS)
def test_bytes_follow_the_specification(world):
    """4 (L / world) dim 2 (world - 1) / world bytes a layer where heads alone are exchanged."""
    plan = plan_ranks(world=world, heads=world, tokens=720720, latent_rows=96)
    assert (plan.ulysses, plan.padding) == (world, 0)
    dim, layers = 128 * world, 3
    wanted = layers * 4 * Fraction(720720, world) * dim * 2 * Fraction(world - 1, world)
    assert bytes_sent_per_step(plan, dim=dim, layers=layers, item_bytes=2) == wanted


def test_bytes_of_the_published_model():
    """The specification says 54 MB a layer and 8.7 GB a chunk of four steps at 8 ranks."""
    plan = plan_ranks(world=8, heads=40, tokens=12096, latent_rows=96)
    assert bytes_sent_per_step(plan, dim=5120, layers=1, item_bytes=2) == 54_190_080
    assert 4 * bytes_sent_per_step(plan, dim=5120, layers=40, item_bytes=2) == pytest.approx(8.7e9, rel=0.01)


@pytest.mark.parametrize("ulysses", [1, 2, 4, 8])
def test_bytes_with_a_ring(ulysses):
    """Every rank's share of heads for its group's keys and values, to each next group, and 3 + 1 shares of its rows."""
    plan = plan_ranks(world=8, heads=40, tokens=12096, latent_rows=96, ulysses=ulysses)
    ring, share = 8 // ulysses, 5120 // ulysses
    passed = (ring - 1) * 2 * (12096 // ring) * share
    exchanged = (ulysses - 1) * 4 * 1512 * share
    assert bytes_sent_per_step(plan, dim=5120, layers=1, item_bytes=2) == 2 * (passed + exchanged)


def test_one_rank_sends_nothing():
    plan = plan_ranks(world=1, heads=40, tokens=12096, latent_rows=96)
    assert bytes_sent_per_step(plan, dim=5120, layers=40, item_bytes=2) == 0
    assert plan.token_range(0) == (0, 12096) and plan.bands == ((0, 96),)


@pytest.mark.parametrize(
    ("asked", "code", "numbers", "hint"),
    [
        ({"world": 0}, "usage", ["0 ranks"], "1 or more"),
        ({"world": -2}, "usage", ["-2 ranks"], "1 or more"),
        ({"world": 4, "ulysses": 3}, "ranks.ulysses", ["3 of 4", "40 heads"], "4 works"),
        ({"world": 6, "ulysses": 6}, "ranks.ulysses", ["6 of 6", "40 heads"], "2 works"),
        ({"world": 4, "ulysses": 0}, "ranks.ulysses", ["0 of 4", "40 heads"], "4 works"),
        ({"world": 5, "latent_rows": 4}, "ranks.too_many", ["32 rows", "5 bands"], "at most 4"),
        ({"world": 5, "tokens": 4}, "ranks.too_many", ["4 tokens", "5 ranks"], "at most 4"),
    ],
)
def test_what_cannot_work_is_explained(asked, code, numbers, hint):
    with pytest.raises(UsageError) as raised:
        plan_ranks(**{"heads": 40, "tokens": 12096, "latent_rows": 96, **asked})
    assert raised.value.code == code
    for number in numbers:
        assert number in str(raised.value)
    assert hint in raised.value.hint


@pytest.mark.parametrize(
    ("world", "tokens", "text"),
    [
        (1, 12096, "1 rank"),
        (2, 12096, "2 ranks, heads over 2, 6048 tokens each"),
        (6, 12096, "6 ranks, heads over 2, ring of 3, 2016 tokens each"),
        (4, 10530, "4 ranks, heads over 4, 2633 tokens each, 2 rows of padding in all"),
    ],
)
def test_description(world, tokens, text):
    assert plan_ranks(world=world, heads=40, tokens=tokens, latent_rows=90).describe() == text


def test_preferred_numbers_of_ranks():
    """Evenly first, the largest first; every number that can work is there once and can be planned."""
    assert preferred_worlds(8, heads=40, tokens=12096, latent_rows=96) == [8, 4, 2, 1, 7, 6, 5, 3]
    assert preferred_worlds(4, heads=40, tokens=10530, latent_rows=90) == [2, 1, 4, 3]
    assert preferred_worlds(16, heads=40, tokens=12096, latent_rows=3) == [2, 1, 3]
    assert preferred_worlds(0, heads=40, tokens=12096, latent_rows=96) == []
    for world in preferred_worlds(16, heads=6, tokens=12, latent_rows=23):
        plan = plan_ranks(world=world, heads=6, tokens=12, latent_rows=23)
        assert divides_evenly(world, heads=6, tokens=12) == (plan.ring == 1 and plan.padding == 0)
