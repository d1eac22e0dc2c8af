"""A session's sound: microphones that come and go, mute, the key, the voice out."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import pytest

from engine.audio import devices, hotplug, voice_out
from engine.audio.voice_out import DelayLine
from engine.errors import AudioFileError, MicrophoneError, UsageError, VoiceOutError
from engine.protocol.messages import AudioDevice, SessionState, VoiceOutChanged
from engine.settings import FileSource, MicrophoneSource, SilentSource, SoundSettings, VoiceOutSettings
from engine.stream import session_sound as sound_module
from engine.stream.microphone_watch import MicrophoneWatch


def test_mute_empties_the_pipe_once(session, monkeypatch):
    live = session()
    live.broadcast.start()
    live.until_presented()
    emptied = []
    monkeypatch.setattr(live.broadcast._graph, "silence_unpresented", lambda: emptied.append(1))
    for is_muted in (True, True, False, True):
        live.broadcast.set_muted(is_muted)
    assert len(emptied) == 2


def test_talking_and_gate_change_while_live(session):
    live = session(sound=SoundSettings(is_push_to_talk=True))
    live.broadcast.start()
    live.broadcast.set_talking(True)
    assert live.broadcast.stats().is_talking
    live.broadcast.set_talking(False)
    assert not live.broadcast.stats().is_talking
    live.broadcast.set_talking(True)
    live.broadcast.set_sound(SoundSettings())
    assert not live.broadcast.stats().is_talking and live.broadcast.stats().gate_dbfs is None, "no microphone, no gate"
    with pytest.raises(UsageError):
        live.broadcast.set_sound(SoundSettings(has_noise_suppression=True))


def test_source_that_cannot_be_opened_leaves_the_old_one(session, tmp_path):
    live = session()
    live.broadcast.start()
    with pytest.raises(AudioFileError):
        live.broadcast.set_source(FileSource(path=str(tmp_path / "none.wav")))
    live.until_presented(3)


def test_microphone_that_is_gone_is_told_once_and_the_portrait_rests(session, plain_source, monkeypatch):
    microphone, real = plain_source(), sound_module.open_source
    monkeypatch.setattr(
        sound_module, "open_source", lambda s: microphone if isinstance(s, MicrophoneSource) else real(s)
    )
    live = session(source=MicrophoneSource(name="plain"))
    live.broadcast.start()
    live.until_presented()
    microphone.has_ended = True
    live.until(lambda: live.codes() == ["microphone.lost"])
    live.until_presented(10)
    assert microphone.stopped == 1 and not live.broadcast.has_ended.is_set()
    assert live.codes() == ["microphone.lost"] and live.broadcast.state is SessionState.LIVE


@pytest.fixture
def yeti(plain_source, monkeypatch):
    """Microphones in the order in which they are opened; the last one again and again. Nothing is really looked for."""
    made, real = [], sound_module.open_source

    class Heard(plain_source):
        def read(self):
            return super().read() or self.say(np.zeros(160), time.monotonic())

    def open_source(source):
        if not isinstance(source, MicrophoneSource):
            return real(source)
        made.append(Heard())
        return made[-1]

    monkeypatch.setattr(sound_module, "open_source", open_source)
    monkeypatch.setattr(sound_module.SessionSound, "_renew_devices", lambda self: None)
    quick = partial(hotplug.Waiter, first_try_s=0.01, every_s=0.01)
    defaults = MicrophoneWatch.__init__.__kwdefaults__ | {"waiter": quick}
    monkeypatch.setattr(MicrophoneWatch.__init__, "__kwdefaults__", defaults)
    return made


def test_microphone_that_is_back_is_listened_to_again(session, yeti):
    live = session(source=MicrophoneSource(name="plain"))
    live.broadcast.start()
    for count in (1, 2):
        yeti[-1].has_ended = True
        live.until(lambda count=count: live.codes().count("microphone.back") == count)
        assert live.broadcast._graph.listener.source is yeti[-1] and yeti[-1].stopped == 0
    assert live.codes() == ["microphone.lost", "microphone.back"] * 2
    assert [microphone.stopped for microphone in yeti[:-1]] == [1] * (len(yeti) - 1), "the others are given back"


def test_microphone_that_is_named_but_not_there_is_waited_for(session, yeti, monkeypatch):
    """Silence meanwhile, and it is said; another error is one."""
    found, errors = sound_module.open_source, [MicrophoneError("Not there.", code="microphone.missing")]

    def open_source(source):
        if isinstance(source, MicrophoneSource) and errors:
            raise errors[0]
        return found(source)

    monkeypatch.setattr(sound_module, "open_source", open_source)
    live = session(source=MicrophoneSource(name="plain"))
    live.broadcast.start()
    live.until_presented(5)
    assert live.codes() == ["microphone.lost"] and yeti == []
    errors.clear()
    live.until(lambda: live.codes()[-1] == "microphone.back")
    assert live.broadcast._graph.listener.source is yeti[-1]
    errors.append(MicrophoneError("In use.", code="microphone.busy"))
    with pytest.raises(MicrophoneError):
        session(source=MicrophoneSource(name="plain")).broadcast.start()


def test_who_chooses_another_source_is_not_given_the_old_microphone_back(session, yeti):
    live = session(source=MicrophoneSource(name="plain"))
    live.broadcast.start()
    held = live.broadcast._sound._devices_lock
    with held:
        yeti[0].has_ended = True
        time.sleep(0.3)  # the watch may not look now
        live.broadcast._sound._microphone.look(live.broadcast._graph.listener)
        live.until(lambda: len(yeti) > 1)
        live.broadcast.set_source(SilentSource())
    live.until_presented(5)
    assert live.codes() == ["microphone.lost"] and live.broadcast._graph.listener.source not in yeti
    live.until(lambda: all(microphone.stopped for microphone in yeti))


@pytest.fixture
def speakers(monkeypatch):
    """Outputs in the order in which they were opened. `missing` has errors for the next ones that are looked for."""

    class Voice:
        microphone, uses_portaudio, has_sounded = "", True, True
        made, missing = [], []

        def __init__(self, name, host_api):
            if Voice.missing:
                raise Voice.missing.pop(0)
            self.asked, self.label, self.line = (name, host_api), name, DelayLine(48_000)
            self.has_failed, self.calls = False, []
            Voice.made.append(self)

        def start(self):
            self.calls.append("start")

        def stop(self):
            self.calls.append("stop")

    monkeypatch.setattr(voice_out, "VoiceOut", Voice)
    monkeypatch.setattr(hotplug, "OutputWaiter", partial(hotplug.OutputWaiter, first_try_s=0.01, every_s=0.01))
    monkeypatch.setattr(sound_module.SessionSound, "_renew_for_voice", lambda self: None)
    return Voice


def _gone():
    return VoiceOutError("It is not there.", code="voice_out.missing")


def test_voice_out_that_is_gone_is_told_once_and_taken_again_when_it_is_back(session, speakers):
    live = session(voice_out=VoiceOutSettings(name="Speakers", host_api="ALSA"))
    live.broadcast.start()
    (voice,) = speakers.made
    assert voice.asked == ("Speakers", "ALSA")
    live.until(lambda: live.broadcast.stats().voice_queue_ms > 0)
    away = speakers.missing = [_gone() for _ in range(100_000)]
    voice.has_failed = True
    live.until(lambda: live.codes() == ["voice_out.lost"])
    live.until_presented(10)
    assert live.codes() == ["voice_out.lost"] and voice.calls == ["start", "stop"]
    assert live.broadcast.stats().voice_queue_ms == 0 and live.broadcast.state is SessionState.LIVE
    away.clear()
    live.until(lambda: live.codes() == ["voice_out.lost", "voice_out.back"])
    live.until(lambda: live.broadcast.stats().voice_queue_ms > 0)
    assert speakers.made[-1].asked == ("Speakers", "ALSA") and speakers.made[-1].calls == ["start"]
    opened = [event.is_open for event in live.events if isinstance(event, VoiceOutChanged)]
    assert opened == [True, False, True]


@pytest.mark.parametrize("other", [None, VoiceOutSettings(name="Headset")])
def test_voice_out_that_was_lost_does_not_come_back_over_another_choice(session, speakers, other):
    live = session(voice_out=VoiceOutSettings(name="Speakers"))
    live.broadcast.start()
    away = speakers.missing = [_gone() for _ in range(100_000)]
    speakers.made[0].has_failed = True
    live.until(lambda: live.codes() == ["voice_out.lost"])
    live.until(lambda: live.broadcast._sound.voice._waiter is not None)
    waiter = live.broadcast._sound.voice._waiter
    with live.broadcast._sound._devices_lock:
        away.clear()
        live.until(lambda: len(speakers.made) == 2)  # it has it, and may not give it yet
        live.broadcast.set_voice_out(other)
    waiter.join(10)
    assert waiter.is_cancelled and speakers.made[1].calls == ["start", "stop"]
    playing = [voice for voice in speakers.made if "stop" not in voice.calls]
    assert [voice.label for voice in playing] == ([other.name] if other else [])
    assert live.codes() == ["voice_out.lost"]


def test_who_stops_is_not_given_the_output_back(session, speakers):
    live = session(voice_out=VoiceOutSettings(name="Speakers"))
    live.broadcast.start()
    speakers.missing = [_gone() for _ in range(100_000)]
    speakers.made[0].has_failed = True
    live.until(lambda: live.broadcast._sound.voice._waiter is not None)
    waiter = live.broadcast._sound.voice._waiter
    live.broadcast.stop()
    waiter.join(10)
    assert waiter.is_cancelled and len(speakers.made) == 1


def test_output_that_came_after_portaudio_had_looked_is_found(session, speakers, monkeypatch):
    """A headset that is plugged in while a stream is open; one that is not listed anywhere stays an error."""
    listed = [AudioDevice(name="Headset", host_api="ALSA", channels=2, rate_hz=48_000)]
    renewed = []
    monkeypatch.setattr(devices, "has_open_streams", lambda: True)
    monkeypatch.setattr(hotplug, "devices_elsewhere", lambda: ([], listed))
    monkeypatch.setattr(sound_module.SessionSound, "_renew_for_voice", lambda self: renewed.append(1))
    live = session(voice_out=VoiceOutSettings(name="Speakers"))
    live.broadcast.start()
    speakers.missing = [_gone()]
    live.broadcast.set_voice_out(VoiceOutSettings(name="Headset"))
    assert renewed == [1] and speakers.made[-1].label == "Headset" and speakers.made[0].calls == ["start", "stop"]
    speakers.missing = [_gone()]
    with pytest.raises(VoiceOutError):
        live.broadcast.set_voice_out(VoiceOutSettings(name="Nothing"))
    assert renewed == [1] and speakers.made[-1].calls == ["start"], "the one in use goes on"


def test_microphone_is_opened_again_after_portaudio_has_looked_for_an_output(session, yeti, monkeypatch):
    """Or waited for, if that fails."""
    found = sound_module.open_source
    live = session(source=MicrophoneSource(name="plain"))
    live.broadcast.start()
    sound = live.broadcast._sound

    def renew(self):
        self._hearing().listener.source.stop()
        self._has_stopped_microphone = True

    monkeypatch.setattr(sound_module.SessionSound, "_renew_devices", renew)
    sound._renew_for_voice()
    assert len(yeti) == 2 and yeti[0].stopped and live.broadcast._graph.listener.source is yeti[1]
    assert not sound._has_stopped_microphone and live.codes() == []
    errors = [MicrophoneError("In use.", code="microphone.busy")]

    def open_source(source):
        if isinstance(source, MicrophoneSource) and errors:
            raise errors.pop()
        return found(source)

    monkeypatch.setattr(sound_module, "open_source", open_source)
    sound._renew_for_voice()
    monkeypatch.setattr(sound_module.SessionSound, "_renew_devices", lambda self: None)
    live.until(lambda: live.codes() == ["microphone.back"])
    assert live.broadcast._graph.listener.source is yeti[-1]


def test_muted_from_the_start_and_while_live(session, plain_source, monkeypatch):
    """The generator hears nothing of a loud microphone, and hears it again afterwards."""
    microphone = plain_source()
    position = 0

    def read():
        nonlocal position
        count = int((time.monotonic() - started_s) * 16_000) - position
        if count <= 0:
            return None
        position += count
        microphone.say(np.full(count, 0.5), started_s + (position - count) / 16_000)
        return microphone.blocks.pop()

    microphone.read = read
    monkeypatch.setattr(sound_module, "open_source", lambda _: microphone)
    live = session(is_muted=True)
    started_s = time.monotonic()
    live.broadcast.start()

    def heard():
        return [bool(chunk.samples.any()) for chunk in live.generators[0].chunks]

    live.until(lambda: len(heard()) >= 10)
    assert not any(heard())
    live.broadcast.set_muted(False)
    live.until(lambda: any(heard()))
    live.broadcast.set_muted(True)
    seen = len(heard()) + 5
    live.until(lambda: len(heard()) >= seen + 5)
    assert not any(heard()[seen:])
