"""Microphones that come and go on a real sound server, in a session that goes on."""

from __future__ import annotations

import subprocess
import time

import pytest

from engine.protocol.messages import DevicesListed, ListDevices, Noticed, SetSource, SetVoiceOut, Start, Stats, Stop
from engine.settings import CanvasSettings, MicrophoneSource, SessionSettings, VoiceOutSettings


def _pactl(server, *words):
    done = subprocess.run(
        ["pactl", *words], env={"PATH": "/usr/bin:/bin", **server.environment}, capture_output=True, text=True,
        timeout=10, check=True,
    )  # fmt: skip
    return done.stdout


def _unplug(server):
    for line in _pactl(server, "list", "short", "modules").splitlines():
        number, name, *rest = line.split("\t")
        if name == "module-remap-source" and "source_name=fakemic" in " ".join(rest):
            _pactl(server, "unload-module", number)
            return
    raise AssertionError("there is no such module")


def _plug(server):
    _pactl(server, "load-module", "module-remap-source", "master=mic_feed.monitor", "source_name=fakemic")


def _add_late_microphone(server, folder):
    """A microphone "latemic", which hears what "fakemic" does."""
    settings = folder / "sound" / "asound.conf"
    late = 'pcm.latemic { type pulse device latemic hint { show on description "LateMic" } }\n'
    settings.write_text(settings.read_text() + late)
    _pactl(server, "load-module", "module-remap-source", "master=mic_feed.monitor", "source_name=latemic")


def _notice(process, code, after=0, timeout_s=40):
    seen = [0]

    def fits(event):
        seen[0] += 1
        return seen[0] > after and isinstance(event, Noticed) and event.reason.code == code

    return process.wait(fits, timeout_s)


def _last(process) -> Stats:
    return [event for event in process.events if isinstance(event, Stats)][-1]


def _start(process, source, **settings):
    small = SessionSettings(portrait="sample:", canvas=CanvasSettings(width=640, height=360), source=source, **settings)
    assert process.ask(Start, settings=small).error is None


def _heard_after(process, count):
    """Sound arrives after the first `count` events."""
    process.wait(lambda e: getattr(e, "level_dbfs", -99) > -30 and any(e is x for x in process.events[count:]), 40)


def _goes_on(process):
    """A whole second comes without a missing sample: of a microphone that has stopped some are missing in each, until
    it is called lost, and on a busy machine in some."""
    deadline_s = time.monotonic() + 20
    is_whole = False
    while not is_whole:
        assert time.monotonic() < deadline_s, "the microphone in use misses samples all the time"
        before = _last(process)
        process.wait(lambda e, end_s=before.time_s + 1.0: isinstance(e, Stats) and e.time_s >= end_s)
        is_whole = _last(process).missing_samples == before.missing_samples
    assert not any(isinstance(e, Noticed) and e.reason.code == "microphone.lost" for e in process.events)


@pytest.mark.slow
@pytest.mark.parametrize("has_voice_out", [False, True])
def test_lost_microphone_is_taken_again_by_itself(sound_server, engine, hum, tmp_path, has_voice_out):
    """The sound server ends and begins again; the picture goes on meanwhile, and the voice is heard again."""
    process = engine()
    _start(process, MicrophoneSource(name="fakemic"))
    if has_voice_out:
        assert process.ask(SetVoiceOut, voice_out=VoiceOutSettings(name="fakeout")).error is None
    sound_server.speak(hum)
    _heard_after(process, 0)
    before = len(process.events)
    sound_server.stop()
    lost = _notice(process, "microphone.lost", before)
    assert "fakemic" in lost.reason.message and lost.is_error
    ticks = _last(process).ticks
    time.sleep(4.0)
    process.wait(lambda e: isinstance(e, Stats) and e.ticks > ticks + 60)  # the picture goes on
    assert _last(process).level_dbfs < -60
    sound_server.begin()
    back = _notice(process, "microphone.back", before)
    assert "fakemic" in back.reason.message and not back.is_error
    after = len(process.events)
    sound_server.speak(hum)
    _heard_after(process, after)
    assert process.ask(Stop).error is None


def test_microphone_that_comes_after_the_start_is_taken(sound_server, engine, hum, tmp_path):
    """Named, but not plugged in yet: the portrait is silent until it is."""
    process = engine()
    began = len(process.events)
    _start(process, MicrophoneSource(name="latemic"))
    notice = _notice(process, "microphone.lost", began)
    assert "latemic" in notice.reason.message and notice.is_error
    ticks = process.wait(lambda event: isinstance(event, Stats)).ticks
    _add_late_microphone(sound_server, tmp_path)
    notice = _notice(process, "microphone.back", began)
    assert notice.reason.message == 'The microphone "latemic" is there now.' and not notice.is_error
    process.wait(lambda e: isinstance(e, Stats) and e.ticks > ticks)  # the picture has gone on
    after = len(process.events)
    sound_server.speak(hum)
    _heard_after(process, after)
    assert process.ask(Stop).error is None


@pytest.mark.slow
def test_unplugged_source_is_heard_again_when_it_is_back(sound_server, engine, hum):
    """The server moves the stream of a source that vanishes to another one, and back when it is there again."""
    process = engine()
    _start(process, MicrophoneSource(name="fakemic"))
    sound_server.speak(hum)
    _heard_after(process, 0)
    _unplug(sound_server)
    process.wait(lambda e: e is _last(process) and e.level_dbfs < -60)
    after = len(process.events)
    _plug(sound_server)
    _heard_after(process, after)
    assert process.ask(Stop).error is None


def test_devices_are_listed_anew_and_taken_while_live(sound_server, engine, tmp_path):
    """A microphone that came after the session had begun is in the list, and can be chosen."""
    process = engine()
    _start(process, MicrophoneSource(name="fakemic"))
    _add_late_microphone(sound_server, tmp_path)
    assert process.ask(ListDevices).error is None
    listed = process.wait(lambda e: isinstance(e, DevicesListed))
    assert "latemic" in [device.name for device in listed.microphones]
    assert process.ask(SetSource, source=MicrophoneSource(name="latemic")).error is None
    error = process.ask(SetSource, source=MicrophoneSource(name="nomic")).error
    assert error.code == "microphone.missing"
    _goes_on(process)
    assert process.ask(Stop).error is None


def test_exact_silence_is_explained_once(sound_server, engine):
    """Nothing plays into the null sink: its monitor delivers zeros, as macOS does where it forbids the microphone."""
    process = engine()
    _start(process, MicrophoneSource(name="fakemic"))
    notice = _notice(process, "microphone.all_zero")
    assert "fakemic" in notice.reason.message and notice.reason.hint and not notice.is_error
    time.sleep(4.0)
    assert sum(isinstance(e, Noticed) and e.reason.code == "microphone.all_zero" for e in process.events) == 1
    assert process.ask(Stop).error is None


def test_default_follows_the_systems_choice(sound_server, engine, hum):
    """The server moves the stream of who asked for no microphone by name."""
    _pactl(sound_server, "load-module", "module-null-sink", "sink_name=other_feed", "rate=48000", "channels=1")
    _pactl(sound_server, "load-module", "module-remap-source", "master=other_feed.monitor", "source_name=othermic")
    process = engine()
    _start(process, MicrophoneSource())
    sound_server._start("paplay", "-d", "other_feed", "--latency-msec=20", str(hum))
    time.sleep(2.0)
    assert _last(process).level_dbfs < -60
    _pactl(sound_server, "set-default-source", "othermic")
    _heard_after(process, len(process.events))
    assert process.ask(Stop).error is None
