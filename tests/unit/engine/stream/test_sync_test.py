"""The sync test on devices whose true delay is known: it finds what they do not tell, with the right sign."""

from __future__ import annotations

import numpy as np
import pytest

from engine.audio import sync_memory
from engine.audio.delay_line import DelayLine
from engine.clock import ManualClock
from engine.errors import Cancelled, DeviceError
from engine.settings import VoiceOutSettings
from engine.stream import output_memory, sync_test
from engine.stream.sync_signal import CHIRP_S, ChirpSource, chirp, find_chirp
from engine.stream.sync_test import SyncTest

RATE_HZ = 48_000
BLOCK = 480
CLAIMED_S = 0.030


class Output:
    """Says that it is 30 ms late, and is `hidden_s` later than that; its sound arrives as `heard_as` makes it."""

    label, microphone, has_failed = "Speakers", "", False

    def __init__(self, hidden_s, heard_as=lambda sound: sound):
        self.hidden_s, self.heard_as = hidden_s, heard_as
        self.line = DelayLine(RATE_HZ)
        self.started = self.stopped = 0
        self.blocks = []

    def start(self):
        self.started += 1

    def stop(self):
        self.stopped += 1

    def play_until(self, now_s):
        while len(self.blocks) * BLOCK / RATE_HZ < now_s:
            block = np.zeros((BLOCK, 1), np.float32)
            self.line.fill(block, len(self.blocks) * BLOCK / RATE_HZ + CLAIMED_S)
            self.blocks.append(block[:, 0])


class Ear:
    """Hears the output, from session time 0 on."""

    label, rate_hz = "Headset", RATE_HZ

    def __init__(self, output):
        self._output, self.closed = output, 0

    def stop(self):
        pass

    def recorded(self):
        sound = np.concatenate(self._output.blocks)
        return self._output.heard_as(sound), CLAIMED_S + self._output.hidden_s

    def close(self):
        self.closed += 1


class PlayingClock(ManualClock):
    """Moves on when waited for, and lets the output play meanwhile."""

    def __init__(self, output):
        super().__init__(0.0)
        self._output = output

    def wait_until(self, deadline_s, wake):
        is_woken = super().wait_until(deadline_s, wake)
        self._output.play_until(self.now())
        return is_woken


class Told:
    def __init__(self):
        self.updates = []

    def update(self, stage, done, total, unit=""):
        self.updates.append((stage, done, total, unit))


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """Makes a test of an output; corrections are kept in an empty folder."""
    monkeypatch.setattr(sync_memory, "data_folder", lambda: tmp_path)
    monkeypatch.setattr(output_memory, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(sync_test, "opened_output", lambda name, host_api: (name, host_api))

    def make(output, **options):
        settings = VoiceOutSettings(name="Speakers")
        ear = Ear(output)
        monkeypatch.setattr(sync_test, "open_voice_out", lambda wanted: output)
        monkeypatch.setattr(sync_test, "open_hearing", lambda voice, microphone: ear)
        output.line.offset_s = sync_test.correction_s(settings)
        return SyncTest(settings, None, clock=PlayingClock(output), **options), ear

    return make


@pytest.mark.parametrize("hidden_s", [-0.041, 0.0, 0.073])
def test_what_a_device_hides_is_found_with_its_sign_and_stored(bench, hidden_s):
    test, ear = bench(output := Output(hidden_s))
    told = Told()
    measured = test.run(told)
    assert measured.offset_ms == pytest.approx(-1000 * hidden_s, abs=1.5), "late sound is below 0"
    assert measured.correction_ms == measured.offset_ms and measured.is_stored
    assert measured.heard == measured.played >= 6 and measured.spread_ms < 1
    assert sync_memory.recall_ms("Speakers", "") == measured.correction_ms
    assert (output.started, output.stopped, ear.closed) == (1, 1, 1)
    assert told.updates[-1] == ("sync test", 8.0, 8.0, "s") and len(told.updates) < 50


def test_second_test_finds_nothing_left_and_keeps_the_correction(bench):
    first, _ = bench(Output(0.050))
    found = first.run(Told())
    again, _ = bench(Output(0.050))
    measured = again.run(Told())
    assert abs(measured.offset_ms) < 1.5
    assert measured.correction_ms == pytest.approx(found.correction_ms, abs=1.5)


def test_correction_that_needs_a_longer_delay_gets_it(bench):
    """A second test with 200 ms sooner stored: its own delay leaves room for that, or it would find them again."""
    hidden_s = 0.200
    first, _ = bench(Output(hidden_s))
    found = first.run(Told())
    assert found.correction_ms == pytest.approx(-200, abs=1.5)
    again, _ = bench(output := Output(hidden_s))
    measured = again.run(Told())
    assert abs(measured.offset_ms) < 1.5 and output.line.late_s == 0.0 and output.line.underruns < 50
    assert measured.correction_ms == pytest.approx(-200, abs=3)


def test_what_the_tests_own_delay_was_too_short_for_is_not_stored(bench, monkeypatch):
    """The output says itself that it is 200 ms late, and that is true: nothing is to be corrected."""
    monkeypatch.setitem(globals(), "CLAIMED_S", 0.200)
    test, _ = bench(output := Output(0.0))
    measured = test.run(Told())
    assert output.line.late_s > 0.060, "the delay of the test was too short"
    assert measured.correction_ms == pytest.approx(0.0, abs=3)
    again, _ = bench(output := Output(0.0))
    assert again.run(Told()).correction_ms == pytest.approx(0.0, abs=3)
    assert output.line.late_s == 0.0, "the next one has the delay for it"


def test_correction_is_the_devices_that_was_opened(bench, monkeypatch):
    monkeypatch.setattr(sync_test, "opened_output", lambda name, host_api: ("Speakers (USB)", "ALSA"))
    test, _ = bench(Output(0.050))
    measured = test.run(Told())
    assert sync_memory.recall_ms("Speakers (USB)", "ALSA") == measured.correction_ms
    assert sync_memory.recall_ms("Speakers", "") == 0.0


def test_only_told_when_asked_so(bench):
    test, _ = bench(Output(0.050), is_stored=False)
    assert not test.run(Told()).is_stored and sync_memory.recall_ms("Speakers", "") == 0.0


def _noisy(level):
    def hear(sound):
        rng = np.random.default_rng(0)
        return 0.05 * sound + rng.normal(0, level, len(sound)).astype(np.float32)

    return hear


def test_faint_in_a_noisy_room_with_an_echo(bench):
    def hear(sound):
        echo = np.zeros_like(sound)
        echo[1_440:] = 0.6 * sound[:-1_440]  # 30 ms, a wall five metres away
        return _noisy(0.002)(sound + echo)

    test, _ = bench(Output(0.020, hear))
    assert test.run(Told()).offset_ms == pytest.approx(-20, abs=2)


@pytest.mark.parametrize(
    ("heard_as", "code", "hint"),
    [
        (np.zeros_like, "sync.not_heard", "exact silence"),
        (lambda sound: np.zeros(0, np.float32), "sync.not_heard", "exact silence"),
        (lambda sound: _noisy(0.1)(0 * sound), "sync.not_heard", "volume"),
        (lambda sound: np.sin(np.arange(len(sound)) / 9).astype(np.float32), "sync.not_heard", "volume"),
    ],
)
def test_nothing_heard_is_one_sentence_and_stores_nothing(bench, heard_as, code, hint):
    test, ear = bench(output := Output(0.0, heard_as))
    with pytest.raises(DeviceError) as caught:
        test.run(Told())
    assert caught.value.code == code and hint in caught.value.hint
    assert "Speakers" in caught.value.message and "Headset" in caught.value.message
    assert output.stopped == ear.closed == 1 and sync_memory.recall_ms("Speakers", "") == 0.0


def test_what_cannot_be_made_good_is_refused(bench):
    sync_memory.remember_ms("Speakers", "", 10.0)
    test, _ = bench(Output(0.330))
    with pytest.raises(DeviceError) as caught:
        test.run(Told())
    assert caught.value.code == "sync.too_far" and "late" in caught.value.message
    assert sync_memory.recall_ms("Speakers", "") == 10.0


def test_uneven_clicks_say_nothing(bench):
    def stretched(sound):
        return np.interp(np.arange(len(sound)) * 1.02 - 9_600, np.arange(len(sound)), sound).astype(np.float32)

    test, _ = bench(Output(0.0, stretched))
    with pytest.raises(DeviceError) as caught:
        test.run(Told())
    assert caught.value.code == "sync.unsteady"


def test_cancelled_gives_the_devices_back(bench):
    test, ear = bench(output := Output(0.0))
    told = Told()
    told.update = lambda *progress: test.cancel()
    with pytest.raises(Cancelled):
        test.run(told)
    assert output.stopped == ear.closed == 1


def test_output_that_is_lost_ends_the_test(bench):
    test, ear = bench(output := Output(0.0))
    told = Told()
    told.update = lambda *progress: setattr(output, "has_failed", True)
    with pytest.raises(DeviceError) as caught:
        test.run(told)
    assert caught.value.code == "voice_out.lost" and output.stopped == ear.closed == 1


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
def test_chirp_is_found_to_the_sample_and_only_near_where_it_is_looked_for(rate_hz):
    rng = np.random.default_rng(3)
    sound = rng.normal(0, 0.02, 3 * rate_hz).astype(np.float32)
    sound[rate_hz : rate_hz + len(chirp(rate_hz))] -= 0.3 * chirp(rate_hz)  # a cable may turn it upside down
    assert find_chirp(sound, rate_hz, 1.2) == pytest.approx(1.0, abs=1.5 / rate_hz)
    assert find_chirp(sound, rate_hz, 2.2) is None
    assert find_chirp(sound, rate_hz, 9.0) is None and find_chirp(sound[:10], rate_hz, 0.0) is None


def test_chirps_come_when_they_say():
    clock, source = ManualClock(5.0), ChirpSource(4.0, 1.0)
    source.start(clock)
    assert source.read() is None
    clock.advance(6.0)
    block = source.read()
    assert block.captured_at_s == 5.0 and len(block.samples) == 6 * RATE_HZ
    assert len(source.begins_s) >= 3 and source.begins_s[0] == 1.0
    for begins_s in source.begins_s:
        assert find_chirp(block.samples[:, 0], RATE_HZ, begins_s) == pytest.approx(begins_s, abs=1e-4)
    assert max(source.begins_s) + CHIRP_S < 4.0
