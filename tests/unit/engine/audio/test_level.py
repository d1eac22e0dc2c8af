"""The meter: dB of known signals, and a needle that falls at its own speed."""

from __future__ import annotations

import numpy as np
import pytest

from engine.audio.level import FLOOR_DBFS, LevelMeter


def test_begins_and_stays_at_the_floor_in_silence():
    meter = LevelMeter()
    for _ in range(10):
        meter.push(np.zeros((480, 1), np.float32), 48_000)
    assert meter.rms_dbfs == meter.peak_dbfs == FLOOR_DBFS


@pytest.mark.parametrize(("amplitude", "peak", "rms"), [(1.0, 0.0, -3.01), (0.5, -6.02, -9.03), (0.01, -40.0, -43.01)])
@pytest.mark.parametrize("channels", [1, 2])
def test_sine(amplitude, peak, rms, channels):
    """A sine's RMS is 3.01 dB below its peak."""
    sine = amplitude * np.sin(2 * np.pi * 1000 * np.arange(4800) / 48_000)
    meter = LevelMeter()
    meter.push(np.repeat(sine[:, None], channels, axis=1).astype(np.float32), 48_000)
    assert meter.peak_dbfs == pytest.approx(peak, abs=0.01) and meter.rms_dbfs == pytest.approx(rms, abs=0.01)


def test_negative_peaks_count():
    meter = LevelMeter()
    samples = np.zeros(100, np.float32)
    samples[50] = -1.0
    meter.push(samples, 16_000)
    assert meter.peak_dbfs == 0.0 and meter.rms_dbfs == pytest.approx(-20.0)


@pytest.mark.parametrize("block", [160, 16_000, 1])
def test_falls_24_db_a_second_whatever_the_blocks(block):
    meter = LevelMeter()
    meter.push(np.ones((160, 1), np.float32), 16_000)
    for _ in range(16_000 // block):
        meter.push(np.zeros((block, 2), np.float32), 16_000)
    assert meter.peak_dbfs == pytest.approx(-24.0, abs=0.01)
    for _ in range(10):
        meter.push(np.zeros((16_000, 1), np.float32), 16_000)
    assert meter.peak_dbfs == FLOOR_DBFS


def test_rises_at_once():
    meter = LevelMeter()
    meter.push(np.full((160, 1), 0.01, np.float32), 16_000)
    meter.push(np.full((160, 1), 0.9, np.float32), 16_000)
    assert meter.peak_dbfs == pytest.approx(-0.92, abs=0.01)


def test_empty_block_changes_nothing():
    meter = LevelMeter()
    meter.push(np.full((160, 1), 0.5, np.float32), 16_000)
    before = meter.peak_dbfs, meter.rms_dbfs
    meter.push(np.zeros((0, 1), np.float32), 16_000)
    assert (meter.peak_dbfs, meter.rms_dbfs) == before
