"""Which smaller sizes are offered to whom, and at what cost."""

from __future__ import annotations

import pytest

from engine.generators.factory import smaller_sizes


def _offered(**options):
    return [size.name for size in smaller_sizes("flashtalk", options, follows_canvas=False)]


def test_sizes_of_the_same_shape_largest_first():
    assert _offered() == ["640x384", "512x320"]
    assert _offered(size="448x768") == ["384x640", "320x512"]
    assert _offered(size="512x320") == [] and _offered(size="512x512") == []


def test_cost_is_that_of_the_chunks_arithmetic():
    """Counted by hand from the model's dimensions, four steps and the decoder: 1990, 1327 and 835 TFLOP."""
    costs = [size.cost for size in smaller_sizes("flashtalk", {}, follows_canvas=False)]
    assert costs == pytest.approx([1327 / 1990, 835 / 1990], abs=0.005)


def test_each_is_asked_for_by_the_option_that_means_it():
    assert [s.options for s in smaller_sizes("flashtalk", {"steps": 2}, follows_canvas=False)] == [
        {"size": "640x384"}, {"size": "512x320"},
    ]  # fmt: skip


@pytest.mark.parametrize("options", [{"size": "large"}, {"steps": "many"}])
def test_options_that_nobody_takes_have_no_smaller_ones(options):
    assert smaller_sizes("flashtalk", options, follows_canvas=False) == []


def test_one_that_fills_the_canvas_is_given_half_of_it():
    (half,) = smaller_sizes("puppet", {}, follows_canvas=True)
    assert half.room == 0.5 and half.options == {}
    assert smaller_sizes("other", {}, follows_canvas=False) == []
