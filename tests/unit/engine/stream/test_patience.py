"""Waiting before repairs: longer each time, short again after a minute that went well."""

from __future__ import annotations

from engine.stream.patience import Patience

MINUTE = 60 * 25


def test_waits_grow_and_the_longest_stays():
    patience = Patience(25)
    waits = [patience.failed(0) for _ in range(7)]
    assert waits == sorted(waits) and waits[0] < 1.0 and waits[-1] == waits[-2] == 60.0


def test_a_minute_of_frames_is_forgiven():
    patience = Patience(25)
    first, second = patience.failed(10), patience.failed(10)
    patience.recovered(10)
    assert patience.failed(10 + MINUTE) == first
    assert patience.failed(10 + MINUTE) == second


def test_less_than_a_minute_is_not():
    patience = Patience(25)
    waits = [patience.failed(0)]
    for run in range(1, 4):
        patience.recovered(run * 1000)
        waits.append(patience.failed(run * 1000 + MINUTE - 1))
    assert len(set(waits)) == 4 and waits == sorted(waits)


def test_frames_shown_while_it_is_broken_do_not_count():
    patience = Patience(25)
    first = patience.failed(0)
    assert patience.failed(10 * MINUTE) > first


def test_the_first_failure_of_a_long_session_is_helped_at_once():
    assert Patience(30).failed(30 * 3600) == Patience(30).failed(0)
