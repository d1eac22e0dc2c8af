"""A session's delay leaves room for its voice out; one that needed more has it the next time."""

from __future__ import annotations

import pytest

from engine.audio.delay_line import DelayLine
from engine.settings import VoiceOutSettings
from engine.stream import broadcast, lateness, output_memory, session_voice


class Output:
    """Plays nothing; `line` is as late as it is told to be."""

    label, microphone, has_failed, uses_portaudio = "Headset", "", False, False

    def __init__(self, correction_s):
        self.line = DelayLine(48_000, correction_s)

    def start(self):
        pass

    def stop(self):
        pass


@pytest.fixture
def live_on(session, monkeypatch, tmp_path):
    """Makes live sessions that play on such an output: (session, output)."""
    monkeypatch.setattr(output_memory, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(lateness, "_LASTING_S", 0.0)

    def make(correction_s=0.0, *, is_later=False):
        output = Output(correction_s)
        monkeypatch.setattr(broadcast, "find_voice_out", lambda settings: output)
        monkeypatch.setattr(session_voice, "find_voice_out", lambda settings: output)
        wanted = VoiceOutSettings(name="Headset")
        live = session(**{"voice_out_to_come" if is_later else "voice_out": wanted})
        live.broadcast.start()
        if is_later:
            live.broadcast.set_voice_out(wanted)
        return live, output

    return make


def test_correction_below_zero_makes_the_delay_longer(live_on):
    live, _ = live_on(-0.200)
    assert live.broadcast.stats().delay_ms == pytest.approx(330)


def test_correction_of_an_output_that_is_chosen_later_is_known_the_next_time(live_on):
    """As the window does it: no device holds up the first picture."""
    live, _ = live_on(-0.200, is_later=True)
    assert live.broadcast.stats().delay_ms < 200
    live.broadcast.stop()
    again, _ = live_on(-0.200, is_later=True)
    assert again.broadcast.stats().delay_ms == pytest.approx(330)


@pytest.mark.parametrize("is_later", [False, True])
def test_output_that_is_too_slow_is_told_and_has_its_delay_the_next_time(live_on, is_later):
    live, output = live_on(is_later=is_later)
    output.line.late_s = 0.300
    live.until(lambda: "voice_out.too_slow" in live.codes())
    needed_ms = live.broadcast.stats().delay_ms + 300
    live.broadcast.stop()
    assert live.codes().count("voice_out.too_slow") == 1
    again, _ = live_on(is_later=is_later)
    assert again.broadcast.stats().delay_ms == pytest.approx(needed_ms + 10, abs=1)
