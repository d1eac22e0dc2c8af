"""The delay line against a simulated output device: on time, without clicks, whatever the two clocks do."""

from __future__ import annotations

import numpy as np
import pytest

from engine.audio.delay_line import MAX_CORRECTION, DelayLine

DELAY_S = 0.150
BLOCK_S = 0.010


class Rig:
    """Source and output device with clocks of their own; session time 0 is real time 0."""

    def __init__(self, *, source_hz=48_000, output_hz=48_000, output_ppm=0.0, latency_s=0.020):
        self.line = DelayLine(output_hz)
        self.source_hz, self.output_hz = source_hz, output_hz
        self._true_hz = output_hz * (1 + output_ppm * 1e-6)
        self._latency_s = latency_s
        self._written = self._played = 0
        self.origin_s = lambda now_s: 0.0
        self.sound, self.times, self.offsets = [], [], []
        self.signal = lambda t: 0.5 * np.sin(2 * np.pi * 300 * t)

    def run(self, seconds, *, steer=True):
        steps = round(seconds / BLOCK_S)
        for _ in range(steps):
            now_s = self._written / self.source_hz
            count = int(BLOCK_S * self.source_hz)
            t = (self._written + np.arange(count)) / self.source_hz
            self.line.write(self.signal(t)[:, None].astype(np.float32), self.source_hz, self._written / self.source_hz)
            self._written += count
            now_s += BLOCK_S
            while self._played / self._true_hz < now_s:
                out = np.zeros((int(BLOCK_S * self.output_hz), 1), np.float32)
                sounds_at_s = self._played / self._true_hz + self._latency_s
                self.line.fill(out, sounds_at_s)
                self.sound.append(out[:, 0].copy())
                self.times.append(sounds_at_s)
                self._played += len(out)
            if steer:
                offset = self.line.steer(DELAY_S, self.origin_s(now_s))
                if offset is not None:
                    self.offsets.append(offset)

    def delay_at_end(self) -> float:
        """Delay of the last half second, from the phase of the 300 Hz tone (period 3.3 ms) and the coarse offset."""
        samples = np.concatenate(self.sound)[-self.output_hz // 2 :]
        start_s = self.times[-1] + BLOCK_S - len(samples) / self._true_hz
        t = start_s + np.arange(len(samples)) / self._true_hz
        phase = np.angle(np.sum(samples * np.exp(-2j * np.pi * 300 * t)))
        return float(((-phase - np.pi / 2) / (2 * np.pi) % 1.0) / 300)


@pytest.mark.parametrize(("source_hz", "output_hz"), [(48_000, 48_000), (44_100, 48_000), (16_000, 44_100)])
def test_voice_comes_out_after_the_delay(source_hz, output_hz):
    rig = Rig(source_hz=source_hz, output_hz=output_hz)
    rig.run(20.0)
    assert abs(rig.offsets[-1]) < 0.002
    # Independent of the line's own bookkeeping: the tone's phase says the same, within its period.
    expected = DELAY_S % (1 / 300)
    error = (rig.delay_at_end() - expected + 1 / 600) % (1 / 300) - 1 / 600
    assert abs(error) < 0.0012


@pytest.mark.parametrize("ppm", [-100.0, 100.0])
def test_drifting_clocks_stay_together_without_clicks(ppm):
    rig = Rig(output_ppm=ppm)
    rig.run(120.0)
    settled = np.array(rig.offsets[2000:])
    assert np.abs(settled).max() < 0.010
    assert rig.line.realigned <= 1
    samples = np.concatenate(rig.sound)[20 * 48_000 :]
    # A click would stand out of a pure tone's second difference.
    largest = 0.5 * (2 * np.pi * 300 / 48_000) ** 2
    assert np.abs(np.diff(samples, 2)).max() < 1.5 * largest
    assert rig.line.underruns <= 30, "only before the voice began"


def test_correction_is_bounded():
    rig = Rig(output_ppm=20_000)  # two percent: more than may be corrected
    rig.run(20.0)
    assert abs(rig.line._speed._to) <= MAX_CORRECTION + 1e-9
    assert rig.line.realigned >= 1, "what cannot be corrected is jumped"


def test_what_the_picture_follows_at_once_the_voice_follows_too():
    """The microphone's clock is known better after some seconds: by then its origin has crept to its place."""
    rig = Rig()
    rig.origin_s = lambda now_s: 0.003 * float(np.clip(now_s - 3.0, 0.0, 4.0))
    rig.run(12.0)
    assert np.abs(rig.offsets[200:]).max() < 0.003 and abs(rig.offsets[-1]) < 0.001


def test_mute_empties_the_pipe():
    rig = Rig()
    rig.run(2.0)
    waiting = rig.line.queue_s
    assert waiting > 0.05
    rig.line.clear()
    out = np.ones((480, 1), np.float32)
    rig.line.fill(out, 2.1)
    assert rig.line.queue_s == 0.0
    assert np.abs(np.diff(out[:, 0])).max() < 0.02, "what was being heard dies away, without a click"
    rig.line.fill(out, 2.11)
    assert not out.any()


def test_nothing_to_play_is_silence():
    line = DelayLine(48_000)
    out = np.ones((480, 1), np.float32)
    line.fill(out, 0.0)
    assert not out.any() and line.steer(DELAY_S, 0.0) is None


def _spoken(t):
    """A tone in words of 0.7 s with pauses of 0.3 s, softly begun and ended."""
    gate = np.clip(np.minimum(t % 1.0, 0.7 - t % 1.0) / 0.02, 0.0, 1.0)
    return 0.5 * np.sin(2 * np.pi * 300 * t) * gate


STEEPEST = 0.5 * (2 * np.pi * 300 / 48_000)


@pytest.mark.parametrize("shift_s", [-0.090, 0.090])
def test_realigns_in_a_pause(shift_s):
    """The output's latency changes by 90 ms (another program has opened it): made good where nothing is said."""
    rig = Rig()
    rig.signal = _spoken
    rig.run(5.9)
    heard, jumped_at = len(rig.sound), None
    rig._latency_s -= shift_s
    for _ in range(300):
        rig.run(BLOCK_S)
        if jumped_at is None and rig.line.realigned:
            jumped_at = len(rig.sound)
    assert 1 <= rig.line.realigned <= 2 and abs(rig.offsets[-1]) < 0.020
    around = np.concatenate(rig.sound[jumped_at - 3 : jumped_at - 1])
    assert np.abs(around).max() < 0.01, "what is heard where it jumps is a pause"
    assert np.abs(np.diff(np.concatenate(rig.sound[heard - 1 :]))).max() < 1.1 * STEEPEST
    assert rig.line.underruns <= 1


@pytest.mark.parametrize("blocks", [15, 18])
def test_voice_that_a_stall_has_put_late_is_in_its_place_after_the_next_pause(blocks):
    """Late by 20 to 60 ms: half a percent of speed would take 4 to 12 s."""
    rig = Rig()
    rig.signal = _spoken
    rig.run(5.0)
    for _ in range(blocks):
        rig.line.fill(np.zeros((480, 1), np.float32), rig._played / 48_000 + 0.020)
        rig._played += 480
    heard, underruns = len(rig.sound), rig.line.underruns
    rig.run(0.65)
    assert underruns > 0 and -0.060 < rig.offsets[-1] < -0.020 and rig.line.realigned == 0
    rig.run(2.0)
    assert abs(rig.offsets[-1]) < 0.015 and rig.line.realigned == 1
    sound = np.concatenate(rig.sound[heard + 50 :])
    assert np.abs(np.diff(sound)).max() < 1.1 * STEEPEST, "no click"


def test_what_has_drifted_apart_is_not_jumped():
    rig = Rig()
    rig.signal = _spoken
    rig.run(15.0)
    rig._latency_s += 0.040
    rig.run(3.0)
    assert rig.line.realigned == 0 and rig.offsets[-1] < -0.015, "nothing was torn: its speed is enough"


@pytest.mark.parametrize("shift_s", [-0.110, 0.110])
def test_without_a_pause_it_jumps_in_the_end_and_does_not_click(shift_s):
    rig = Rig()
    rig.run(3.0)
    heard = len(rig.sound)
    rig._latency_s += shift_s
    rig.run(5.0)
    assert rig.line.realigned == 0, "it waits for a pause"
    rig.run(3.0)
    assert rig.line.realigned == 1 and abs(rig.offsets[-1]) < 0.030
    assert np.abs(np.diff(np.concatenate(rig.sound[heard - 1 :]))).max() < 1.5 * STEEPEST


def test_what_is_far_off_jumps_at_once():
    rig = Rig()
    rig.run(3.0)
    rig._latency_s -= 0.300
    rig.run(1.0)
    assert rig.line.realigned == 1 and abs(rig.offsets[-1]) < 0.010


def test_nothing_is_heard_before_its_time():
    """The first sound is at its place: nothing of it was played too early and then again."""
    rig = Rig()
    rig.signal = lambda t: 0.5 * np.sin(2 * np.pi * 300 * t) * (t >= 0.5)
    rig.run(1.0)
    sound = np.concatenate(rig.sound)
    first_s = rig.times[0] + np.flatnonzero(np.abs(sound) > 0.02)[0] / 48_000
    assert first_s == pytest.approx(0.5 + DELAY_S, abs=0.003)
    assert rig.line.realigned == 0


def test_missing_sound_is_a_gap_and_what_follows_keeps_its_time():
    rig = Rig()
    rig.run(3.0)
    rig._written += 2_880  # 60 ms that the microphone never delivered
    rig.run(BLOCK_S)
    assert abs(rig.line.steer(DELAY_S, 0.0)) < 0.010
    rig.run(2.0)
    assert rig.line.realigned == 0


def test_offset_plays_later_or_sooner():
    rig = Rig()
    rig.line.offset_s = 0.040
    rig.run(10.0)
    assert abs(rig.offsets[-1]) < 0.002
    error = (rig.delay_at_end() - (DELAY_S + 0.040) % (1 / 300) + 1 / 600) % (1 / 300) - 1 / 600
    assert abs(error) < 0.0012
    rig.line.offset_s = -0.010
    rig.run(22.0)
    assert abs(rig.offsets[-1]) < 0.002, "50 ms sooner, at half a percent"
    error = (rig.delay_at_end() - (DELAY_S - 0.010) % (1 / 300) + 1 / 600) % (1 / 300) - 1 / 600
    assert abs(error) < 0.0012 and rig.line.realigned == 0


@pytest.mark.parametrize(
    ("latency_s", "offset_s", "room_s"),
    [(0.090, -0.050, 0.0), (0.200, 0.0, -0.060), (0.300, 0.0, -0.160), (0.050, -0.200, -0.110)],
)
def test_voice_that_cannot_be_early_enough_is_late_but_whole(latency_s, offset_s, room_s):
    """The output and the correction leave `room_s` of the delay of 150 ms and the block of 10: less than must wait."""
    rig = Rig(latency_s=latency_s)
    rig.line.offset_s = offset_s
    rig.run(10.0)
    heard, before = len(rig.sound), (rig.line.underruns, rig.line.realigned)
    assert before[0] < 100 and before[1] == 1, "all within some seconds, and it jumped at once where it can stay"
    rig.run(60.0)
    assert (rig.line.underruns, rig.line.realigned) == before
    samples = np.concatenate(rig.sound[heard:])
    assert np.abs(np.diff(samples, 2)).max() < 1.5 * 0.5 * (2 * np.pi * 300 / 48_000) ** 2, "no click"
    assert rig.offsets[-1] == pytest.approx(-rig.line.late_s, abs=0.002), "and it says how late it is"
    assert 0.020 - room_s - 0.007 < rig.line.late_s < 0.020 - room_s + 0.007
    assert abs(rig.line._speed._to) < 0.0005


def test_voice_is_in_its_place_again_when_there_is_room():
    rig = Rig(latency_s=0.200)
    rig.run(5.0)
    assert rig.line.late_s > 0.060
    rig._latency_s = 0.050
    rig.run(25.0)
    assert rig.line.late_s == 0.0 and abs(rig.offsets[-1]) < 0.005


@pytest.mark.parametrize("seconds", [0.5, 1.0, 1.8])
def test_what_is_short_at_the_start_of_a_device_does_not_move_the_voice(seconds):
    """Sound servers hand out old samples at first, or say that they are later than they are."""
    rig = Rig(latency_s=0.260)
    rig.run(seconds)
    assert rig.line.underruns > 5
    rig._latency_s = 0.050
    for _ in range(300):
        rig.run(BLOCK_S)
        assert rig.line.late_s == 0.0
    rig.run(30.0)
    assert abs(rig.offsets[-1]) < 0.005


def test_another_output_that_is_opened_says_nothing_of_the_one_before():
    rig = Rig(latency_s=0.200)
    rig.signal = _spoken
    rig.run(1.8)
    rig.line.restart()
    rig._latency_s = 0.050
    for _ in range(600):
        rig.run(BLOCK_S)
        assert rig.line.late_s == 0.0
    assert abs(rig.offsets[-1]) < 0.005


def test_single_stalls_do_not_move_the_voice():
    """Every two seconds nothing is written for 50 ms, with 40 ms to spare."""
    rig = Rig(latency_s=0.100)
    rig.run(5.0)
    for _ in range(10):
        for _ in range(5):
            rig.line.fill(np.zeros((480, 1), np.float32), rig._played / 48_000 + 0.100)
            rig._played += 480
        rig.run(2.0)
        assert rig.line.late_s == 0.0
    assert abs(rig.offsets[-1]) < 0.005 and rig.line.realigned == 0


@pytest.mark.parametrize("gap_s", [0.4, 3.0])
def test_hole_in_the_microphones_sound_leaves_the_voice_where_it_was(gap_s):
    rig = Rig()
    rig.run(3.0)
    rig._written += int(gap_s * rig.source_hz)
    rig.run(0.5)
    assert rig.line.late_s == 0.0
    rig.run(6.0)
    assert rig.line.late_s == 0.0 and abs(rig.offsets[-1]) < 0.005
