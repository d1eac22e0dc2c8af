"""Which setting is best for which use."""

import pytest

from engine.tuning.estimates import USES, Estimate, choose


def estimate(words, frames_per_s=50.0, delay_s=1.0, quality=0.0, load=0.0):
    return Estimate(
        generator="flashtalk", words=words, frames_per_s=frames_per_s, delay_s=delay_s, quality=quality, load=load
    )  # fmt: skip


def chosen(*estimates):
    return {use: found.words for use, found in choose(estimates).items()}


def test_what_does_not_keep_up_is_never_chosen():
    assert choose([estimate("slow", frames_per_s=26)]) == {}
    assert set(chosen(estimate("slow", frames_per_s=26, quality=9), estimate("able")).values()) == {"able"}


def test_from_least_delay_to_best_picture():
    found = chosen(
        estimate("quick", delay_s=0.9, quality=-1),
        estimate("between", delay_s=1.4, quality=1),
        estimate("beautiful", delay_s=2.1, quality=2),
    )
    assert found == {"conversation": "quick", "balanced": "between", "presentation": "beautiful"}


def test_of_equal_delays_the_better_picture_is_taken():
    assert chosen(estimate("quick", delay_s=1.0), estimate("as quick", delay_s=1.05, quality=1))["conversation"] == (
        "as quick"
    )


def test_of_equal_pictures_the_sooner_is_taken():
    assert set(chosen(estimate("late", delay_s=2.0), estimate("soon", delay_s=1.0)).values()) == {"soon"}


def test_a_call_needs_some_of_the_processor():
    light, heavy = estimate("light", load=0.1), estimate("heavy", load=0.5, quality=1)
    assert chosen(light, heavy) == {"conversation": "light", "balanced": "light", "presentation": "heavy"}
    assert set(chosen(estimate("all of it", load=0.9)).values()) == {"all of it"}, "better than nothing"


@pytest.mark.parametrize("use", USES)
def test_one_setting_serves_all_uses(use):
    assert chosen(estimate("only"))[use] == "only"
