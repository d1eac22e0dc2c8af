"""A session's sound: microphones that come and go, mute, the key, the voice out."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import pytest

from engine.audio import hotplug, voice_out
from engine.audio.voice_out import DelayLine
from engine.errors import AudioFileError, MicrophoneError, UsageError
from engine.protocol.messages import SessionState
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
    monkeypatch.setattr(MicrophoneWatch.__init__, "__kwdefaults__", {"waiter": quick})
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


def test_voice_out_that_is_gone_is_told_once_and_the_picture_goes_on(session, monkeypatch):
    class Voice:
        label, microphone, has_failed, stopped = "Speakers", "", False, 0

        def __init__(self, name, host_api):
            self.asked, self.line = (name, host_api), DelayLine(48_000)

        def start(self):
            pass

        def stop(self):
            self.stopped += 1

    monkeypatch.setattr(voice_out, "VoiceOut", Voice)
    live = session(voice_out=VoiceOutSettings(name="Speakers", host_api="ALSA"))
    live.broadcast.start()
    voice = live.broadcast._sound.voice._output
    assert voice.asked == ("Speakers", "ALSA")
    live.until(lambda: live.broadcast.stats().voice_queue_ms > 0)
    voice.has_failed = True
    live.until(lambda: live.codes() == ["voice_out.lost"])
    live.until_presented(10)
    assert live.codes() == ["voice_out.lost"] and voice.stopped == 1
    assert live.broadcast.stats().voice_queue_ms == 0 and live.broadcast.state is SessionState.LIVE


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
