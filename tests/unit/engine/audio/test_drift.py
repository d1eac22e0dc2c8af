"""Eight hours of two devices whose clocks differ, in seconds: the voice stays with the picture and stays clean.

The oracle is the tone itself: its phase says which moment of the microphone's sound is heard when, whatever the delay
line and the sample clock believe.
"""

from __future__ import annotations

import numpy as np
import pytest

from engine.audio.delay_line import DelayLine
from engine.media import SAMPLE_RATE_HZ
from engine.stream.sample_clock import SampleClock

RATE_HZ = 4000
STEP_S = 0.100
DELAY_S = 0.200
LATENCY_S = 0.030
TONE_HZ = 40.0
"""Its period, 25 ms, is wider than the bound on both sides together."""


class Devices:
    """A microphone and an output of `RATE_HZ` each, wrong by so many ppm; callbacks come up to 4 ms late."""

    def __init__(self, microphone_ppm: float, output_ppm: float) -> None:
        self.microphone_hz = RATE_HZ * (1 + microphone_ppm * 1e-6)
        self.output_hz = RATE_HZ * (1 + output_ppm * 1e-6)
        self.line, self.clock = DelayLine(RATE_HZ), SampleClock(0.0)
        self.reported_s: list[float] = []
        self._block = round(STEP_S * RATE_HZ)
        self._captured = self._played = 0
        self._tone = 0.5 * np.sin(2 * np.pi * TONE_HZ * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32)[:, None]
        self._late = np.random.default_rng(1)

    def run(self, seconds: float) -> np.ndarray:
        """Go on for so long; what was heard, float64 (n,)."""
        heard = np.zeros((round(seconds / STEP_S * 1.01) * self._block, 1), np.float32)
        first = self._played
        for late_s in self._late.uniform(0, 0.004, round(seconds / STEP_S)):
            start = self._captured % RATE_HZ
            self.clock.observe(self._captured * SAMPLE_RATE_HZ // RATE_HZ, self._captured / self.microphone_hz + late_s)
            self.line.write(self._tone[start : start + self._block], RATE_HZ, self._captured / RATE_HZ)
            self._captured += self._block
            now_s = self._captured / self.microphone_hz
            while self._played / self.output_hz < now_s:
                at = self._played - first
                sounds_at_s = self._played / self.output_hz + LATENCY_S + late_s - 0.002
                self.line.fill(heard[at : at + self._block], sounds_at_s)
                self._played += self._block
            offset_s = self.line.steer(DELAY_S, self.clock.time_of(0))
            if offset_s is not None:
                self.reported_s.append(offset_s)
        return heard[: self._played - first, 0].astype(float)

    def offset_s(self, heard: np.ndarray) -> float:
        """Voice against picture in the middle of what was heard last, early above 0: what sounds there was captured
        when its phase says; the picture of it is shown when the sample clock says."""
        middle_s = (self._played - len(heard) / 2) / self.output_hz + LATENCY_S
        t = middle_s + (np.arange(len(heard)) - (len(heard) - 1) / 2) / self.output_hz
        phase = np.angle(np.sum(heard * np.hanning(len(heard)) * np.exp(-2j * np.pi * TONE_HZ * t)))
        capture_s = middle_s + (phase + np.pi / 2) / (2 * np.pi * TONE_HZ)  # on the microphone's own scale
        period_s = 1 / TONE_HZ
        shown_s = self.clock.time_of(0) + capture_s + DELAY_S
        return float((shown_s - middle_s + period_s / 2) % period_s - period_s / 2)


def distortion_db(heard: np.ndarray) -> float:
    """All that lies more than 10 Hz beside the tone (harmonics, noise, what a click spreads), against the tone."""
    power = np.abs(np.fft.rfft(heard * np.blackman(len(heard)))) ** 2
    is_tone = np.abs(np.fft.rfftfreq(len(heard), 1 / RATE_HZ) - TONE_HZ) < 10
    return float(10 * np.log10(power[~is_tone].sum() / power[is_tone].sum()))


def test_the_measure_of_distortion_sees_a_click():
    tone = 0.5 * np.sin(2 * np.pi * TONE_HZ * np.arange(4 * RATE_HZ) / RATE_HZ)
    assert distortion_db(tone) < -120
    jump = np.concatenate([tone[: 2 * RATE_HZ], tone[2 * RATE_HZ + 4 :]])
    assert distortion_db(jump) > -50, "one millisecond left out"


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("hours", "microphone_ppm", "output_ppm"), [(8, 0.0, 100.0), (1, 100.0, -100.0)])
def test_hours_of_drift_stay_within_10_ms_without_a_click(hours, microphone_ppm, output_ppm):
    devices = Devices(microphone_ppm, output_ppm)
    devices.run(60.0)
    offsets, distortions, steepest = [], [], 0.0
    for _ in range(hours * 60):
        heard = devices.run(60.0)
        window = heard[-4 * RATE_HZ :]
        offsets.append(devices.offset_s(window))
        distortions.append(distortion_db(window))
        steepest = max(steepest, np.abs(np.diff(heard)).max())
    assert np.abs(offsets).max() < 0.010
    assert np.abs(devices.reported_s[600:]).max() < 0.010
    assert max(distortions) < -60
    assert steepest < 1.02 * 0.5 * 2 * np.pi * TONE_HZ / RATE_HZ, "steeper than the tone is a click"
    assert devices.line.realigned == 0 and devices.line.underruns == 0
