"""How late a microphone is, told from how late a busy computer is."""

from __future__ import annotations

import numpy as np
import pytest

from engine.media import AudioBlock
from engine.stream.capture_way import CaptureWay


def _hear(way, seconds, newest_s, *, start_s=0.0, waited_s=0.010, every=1):
    """Blocks of 10 ms (of which `every` come at once) whose ends are `newest_s(t)` old; how often it changed."""
    changes = 0
    for index in range(round(seconds / 0.010 / every)):
        captured_at_s = start_s + 0.010 * every * index
        samples = np.zeros((160 * every, 1), np.float32)
        block = AudioBlock(first_sample=0, samples=samples, rate_hz=16_000, captured_at_s=captured_at_s)
        end_s = captured_at_s + 0.010 * every
        changes += way.note(block, end_s + newest_s(end_s), waited_s)
    return changes


@pytest.mark.parametrize("late_s", [0.0, 0.020, 0.028])
def test_usual_microphone_changes_nothing(late_s):
    way = CaptureWay()
    assert not way.has_begun
    assert _hear(way, 30.0, lambda t: late_s) == 0 and way.extra_s == 0.0 and way.has_begun


@pytest.mark.parametrize("late_s", [0.070, 0.160, 0.300, 0.500])
def test_steady_lateness_is_known_after_three_seconds(late_s):
    way = CaptureWay()
    assert _hear(way, 2.9, lambda t: late_s) == 0
    assert _hear(way, 30.0, lambda t: late_s, start_s=2.9) == 1
    assert way.extra_s == pytest.approx(late_s + 0.010 - 0.040) and way.way_s == pytest.approx(late_s + 0.010)


def test_blocks_that_come_late_and_at_once_are_all_waited_for():
    way = CaptureWay()
    assert _hear(way, 30.0, lambda t: 0.100, every=5) == 1
    assert way.way_s == pytest.approx(0.150)


@pytest.mark.parametrize("seconds", [0.3, 1.2, 2.0, 2.9])
def test_what_a_server_has_kept_at_first_is_no_delay(seconds):
    way = CaptureWay()
    assert _hear(way, 30.0, lambda t: 0.260 if t < seconds else 0.010) == 0 and way.extra_s == 0.0


def test_source_that_turns_out_to_be_quick_is_no_longer_waited_for():
    way = CaptureWay()
    _hear(way, 5.0, lambda t: 0.260)
    assert way.extra_s > 0.2
    assert _hear(way, 20.0, lambda t: 0.010, start_s=5.0) == 1 and way.extra_s == 0.0


def test_slow_source_that_is_quick_now_and_then_stays_waited_for():
    way = CaptureWay()
    _hear(way, 5.0, lambda t: 0.200)
    assert _hear(way, 40.0, lambda t: 0.200 if t % 1.0 < 0.5 else 0.010, start_s=5.0) == 0
    assert way.way_s == pytest.approx(0.210)


def test_busy_computer_is_no_slow_microphone():
    way = CaptureWay()
    for second in range(30):
        _hear(way, 0.8, lambda t: 0.010, start_s=second)
        _hear(way, 0.2, lambda t: 0.200, start_s=second + 0.8, waited_s=0.200)
    assert way.extra_s == 0.0, "the audio thread was kept waiting"
    _hear(way, 9.0, lambda t: 0.200, start_s=30.0)
    _hear(way, 3.0, lambda t: 0.010, start_s=39.0)
    assert way.extra_s == 0.0, "PortAudio's was"


def test_microphone_that_becomes_slower_for_good_is_allowed_it():
    way = CaptureWay()
    _hear(way, 15.0, lambda t: 0.010)
    assert _hear(way, 25.0, lambda t: 0.200, start_s=15.0) == 1
    assert way.extra_s == pytest.approx(0.170)


def test_what_is_no_devices_delay_is_ignored():
    way = CaptureWay()
    assert _hear(way, 15.0, lambda t: 5.0) == 0 and way.extra_s == 0.0
