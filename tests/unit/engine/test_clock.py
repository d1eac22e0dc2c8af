"""Time that stands still, and time that does not."""

from __future__ import annotations

import threading
import time

import pytest

from engine.clock import ManualClock, SystemClock


def test_manual_clock_moves_only_by_hand():
    clock = ManualClock(5.0)
    assert clock.now() == clock.now() == 5.0
    clock.advance(0.25)
    assert clock.now() == 5.25


def test_waiting_moves_the_manual_clock_forward_never_back():
    clock, wake = ManualClock(5.0), threading.Event()
    assert clock.wait_until(7.0, wake) is False and clock.now() == 7.0
    assert clock.wait_until(6.0, wake) is False and clock.now() == 7.0


def test_event_that_is_set_ends_the_wait_at_once():
    clock, wake = ManualClock(5.0), threading.Event()
    wake.set()
    assert clock.wait_until(7.0, wake) is True and clock.now() == 5.0
    assert SystemClock().wait_until(time.monotonic() + 60, wake) is True


def test_system_clock_is_the_machines_and_waits_for_its_deadline():
    clock, wake = SystemClock(), threading.Event()
    before = time.monotonic()
    assert before <= clock.now() <= time.monotonic()
    deadline_s = clock.now() + 0.02
    assert clock.wait_until(deadline_s, wake) is False
    assert clock.now() == pytest.approx(deadline_s, abs=5) and clock.now() >= deadline_s - 0.001


def test_deadline_in_the_past_does_not_wait():
    assert SystemClock().wait_until(time.monotonic() - 100, threading.Event()) is False
