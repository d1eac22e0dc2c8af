"""Slow devices are told once, with how slow they are, when that lasts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from engine.clock import ManualClock
from engine.stream.lateness import Lateness


@pytest.fixture
def clock():
    return ManualClock(10.0)


def _listener(label, extra_s):
    return SimpleNamespace(source=SimpleNamespace(label=label), way=SimpleNamespace(extra_s=extra_s))


def test_slow_microphone_is_told_once_for_each(clock):
    lateness = Lateness(clock)
    assert not lateness.of_microphone(SimpleNamespace(source=None, way=SimpleNamespace(extra_s=0.0)))
    assert not lateness.of_microphone(_listener("Yeti", 0.050))
    (notice,) = lateness.of_microphone(_listener("Headset", 0.120))
    assert notice.code == "microphone.slow" and notice.hint and '"Headset"' in notice.message
    assert "120 ms" in notice.message
    assert not lateness.of_microphone(_listener("Headset", 0.160))
    assert lateness.of_microphone(_listener("Other", 0.160))


def test_voice_that_stays_late_is_told_once_for_each_output(clock):
    lateness, voice = Lateness(clock), SimpleNamespace(late_s=0.085)
    assert not lateness.of_voice(None) and not lateness.of_voice(voice)
    clock.advance(2.9)
    assert not lateness.of_voice(voice)
    clock.advance(0.2)
    (notice,) = lateness.of_voice(voice)
    assert notice.code == "voice_out.too_slow" and "85 ms" in notice.message and notice.hint
    clock.advance(60.0)
    assert not lateness.of_voice(voice)
    other = SimpleNamespace(late_s=0.050)
    assert not lateness.of_voice(other)
    clock.advance(3.0)
    assert lateness.of_voice(other)


def test_what_is_soon_over_or_small_is_not_told(clock):
    lateness, voice = Lateness(clock), SimpleNamespace(late_s=0.0)
    for late_s in (0.100, 0.020) * 5:
        voice.late_s = late_s
        assert not lateness.of_voice(voice)
        clock.advance(2.0)
