"""The microphone between PortAudio's callback and the session: exact times, no allocation, every way to fail."""

from __future__ import annotations

import gc
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from engine.audio import microphone as microphone_module
from engine.audio import voice_out as voice_out_module
from engine.audio.devices import list_audio_devices, refresh
from engine.audio.microphone import Microphone
from engine.audio.voice_out import VoiceOut
from engine.clock import ManualClock
from engine.errors import MicrophoneError, VoiceOutError


@pytest.fixture
def now(monkeypatch):
    """The machine's clock, moved by hand."""
    time_s = [1000.0]
    for module in (microphone_module, voice_out_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: time_s[0]))
    return time_s


@pytest.fixture
def microphone(sound, now):
    """One in stereo at 48 kHz, started; `microphone.say(values, age_s)` is PortAudio's callback."""
    sound.plug("Yeti", inputs=2)
    refresh()
    made = Microphone("Yeti")
    made.start(ManualClock())
    callback = sound.streams[0].options["callback"]

    def say(samples, age_s=0.010, status=None):
        block = np.repeat(np.asarray(samples, np.float32)[:, None], 2, axis=1)
        callback(block, len(block), SimpleNamespace(currentTime=5.0, inputBufferAdcTime=5.0 - age_s), status)

    made.say = say
    yield made
    made.stop()


@pytest.mark.parametrize(("inputs", "rate_hz", "channels"), [(1, 44_100.0, 1), (2, 48_000.0, 2), (8, 96_000.0, 2)])
def test_opened_at_its_own_rate_in_mono_or_stereo(sound, inputs, rate_hz, channels):
    sound.plug("Yeti", inputs=inputs, rate_hz=rate_hz)
    refresh()
    microphone = Microphone("Yeti")
    microphone.start(ManualClock())
    options = sound.streams[0].options
    assert (microphone.rate_hz, microphone.channels, microphone.label) == (int(rate_hz), channels, "Yeti")
    assert (options["device"], options["samplerate"], options["channels"]) == (0, rate_hz, channels)
    assert options["dtype"] == "float32" and options["blocksize"] == int(rate_hz / 100)
    microphone.stop()


def test_blocks_are_numbered_and_dated_by_their_first_sample(microphone, now):
    assert microphone.read() is None
    microphone.say(np.full(480, 0.1), age_s=0.025)
    now[0] += 0.010
    microphone.say(np.full(480, 0.2), age_s=0.025)
    block = microphone.read()
    assert (block.first_sample, block.rate_hz, block.samples.shape) == (0, 48_000, (960, 2))
    assert block.captured_at_s == pytest.approx(1000.0 - 0.025)
    assert np.allclose(block.samples[[0, 480], 1], [0.1, 0.2]) and microphone.read() is None
    now[0] += 0.010
    microphone.say(np.full(480, 0.3), age_s=0.025)
    block = microphone.read()
    assert block.first_sample == 960 and block.captured_at_s == pytest.approx(1000.02 - 0.025)


@pytest.mark.parametrize("age_s", [-0.001, 17.0, float("nan")])
def test_nonsense_from_the_driver_is_the_length_of_the_buffer(microphone, age_s):
    microphone.say(np.zeros(480), age_s=age_s)
    assert microphone.read().captured_at_s == pytest.approx(1000.0 - 0.010)


def test_nobody_reads_for_seconds(microphone):
    for _ in range(300):
        microphone.say(np.zeros(480))
    assert microphone.overflows == 300 * 480 - 2 * 48_000
    assert len(microphone.read().samples) == 2 * 48_000


def test_drivers_own_overflows_are_counted(microphone):
    microphone.say(np.zeros(480), status="input overflow")
    assert microphone.overflows == 1


def test_callback_allocates_nothing_lasting(microphone):
    """It runs on the sound system's thread, where the collector and the allocator cause dropouts."""
    block = np.zeros((480, 2), np.float32)
    times = SimpleNamespace(currentTime=5.0, inputBufferAdcTime=4.99)
    callback = microphone._stream.options["callback"]
    out = np.zeros((480, 2), np.float32)
    for _ in range(50):
        callback(block, 480, times, None)
        microphone._ring.read_into(out)
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(500):
            callback(block, 480, times, None)
            microphone._ring.read_into(out)
        current, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert current < 2000 and peak < 2000, "less than one block of samples (3840 bytes)"


def _begin(voice, callback, out, times, now):
    """Nothing is played before it is known when it would sound."""
    for _ in range(31):
        now[0] += 0.010
        callback(out, 480, times, None)
    assert not out.any()
    voice.line.steer(0.02, now[0])


def test_voice_outs_callback_allocates_nothing_lasting(sound, now):
    sound.plug("Speakers", outputs=2)
    refresh()
    voice = VoiceOut("Speakers")
    voice.start()
    callback = sound.streams[0].options["callback"]
    times = SimpleNamespace(currentTime=1.0, outputBufferDacTime=1.02)
    voice.line.write(np.full((5 * 48_000, 1), 0.25, np.float32), 48_000, 0.0)
    out = np.zeros((480, 2), np.float32)
    _begin(voice, callback, out, times, now)
    for _ in range(50):
        callback(out, 480, times, None)
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(400):
            callback(out, 480, times, None)
        current, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert out.any() and current < 1900 and peak < 1900, "less than one block of samples (1920 bytes)"
    voice.stop()


def test_unplugged_ends_the_source_after_the_last_sample(microphone, sound):
    microphone.say(np.zeros(480))
    sound.streams[0].unplug()
    assert not microphone.has_ended, "there is sound left"
    microphone.read()
    assert microphone.has_ended


def test_callback_that_is_silent_for_seconds_ends_the_source(microphone, now):
    microphone.say(np.zeros(480))
    microphone.read()
    now[0] += 1.9
    assert not microphone.has_ended
    now[0] += 0.2
    assert microphone.has_ended
    microphone.say(np.zeros(480))
    microphone.read()
    assert not microphone.has_ended, "it was only slow"


def test_stop_gives_the_device_back_once(microphone, sound):
    microphone.stop()
    microphone.stop()
    assert sound.streams[0].calls == ["start", "abort", "close"] and not microphone.has_ended
    sound.plug("New", inputs=1)
    assert "New" in [d.name for d in list_audio_devices()[0]], "and devices can be looked for again"


def test_device_that_is_gone_may_fail_to_close(microphone, sound, caplog):
    sound.refuse_close = OSError("gone")
    microphone.stop()
    assert "gone" in caplog.text
    sound.plug("New", inputs=1)
    assert "New" in [d.name for d in list_audio_devices()[0]]


@pytest.mark.parametrize(
    ("text", "number", "code"),
    [
        ("Error opening InputStream: Device unavailable", -9985, "busy"),
        ("Error opening InputStream: Unanticipated host error: Permission denied", -9999, "permission"),
        ("Error opening InputStream: Invalid sample rate", -9997, "rate"),
        ("Error opening InputStream: Invalid device", -9996, "missing"),
        ("Error opening InputStream: Internal PortAudio error", -9986, "failed"),
    ],
)
@pytest.mark.parametrize("step", ["refuse_open", "refuse_start"])
def test_cause_of_a_failure_is_named_and_nothing_stays_open(sound, text, number, code, step):
    sound.plug("Yeti", inputs=1)
    refresh()
    setattr(sound, step, sound.PortAudioError(text, number))
    microphone = Microphone("Yeti")
    with pytest.raises(MicrophoneError) as caught:
        microphone.start(ManualClock())
    error = caught.value
    assert error.code == f"microphone.{code}" and "Yeti" in error.message and error.hint and text in error.detail
    if step == "refuse_start":
        assert sound.streams[0].calls == ["start", "abort", "close"]
    before = sound.restarts
    refresh()
    assert sound.restarts == before + 1, "no stream counts as open"
    microphone.stop()


def test_failed_voice_out_is_explained_and_counts_as_closed(sound):
    sound.plug("Speakers", outputs=2)
    refresh()
    sound.refuse_start = sound.PortAudioError("Device unavailable", -9985)
    with pytest.raises(VoiceOutError) as caught:
        VoiceOut("Speakers").start()
    assert caught.value.code == "voice_out.failed" and "Speakers" in caught.value.message
    before = sound.restarts
    refresh()
    assert sound.restarts == before + 1


def test_voice_out_fills_every_channel_and_notices_that_it_is_unplugged(sound, now):
    sound.plug("Speakers", outputs=6)
    refresh()
    voice = VoiceOut("Speakers")
    voice.start()
    voice.line.write(np.full((4800, 1), 0.25, np.float32), 48_000, 0.0)
    out = np.ones((480, 2), np.float32)
    times = SimpleNamespace(currentTime=1.0, outputBufferDacTime=1.02)
    callback = sound.streams[0].options["callback"]
    _begin(voice, callback, out, times, now)
    for _ in range(3):
        callback(out, 480, times, None)
    assert np.array_equal(out[:, 0], out[:, 1]) and out.max() == pytest.approx(0.25, abs=0.01)
    sound.streams[0].unplug()
    assert voice.has_failed
    voice.stop()
    voice.stop()
    assert sound.streams[0].calls == ["start", "abort", "close"]
