"""Standin's own microphone is no microphone: a lost one is waited for, though the server offers another."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from engine.protocol.messages import Noticed, SetVoiceOut, Start, Stats, Stop, VoiceOutChanged
from engine.settings import CanvasSettings, MicrophoneSource, SessionSettings, VoiceOutSettings

VIRTUAL = VoiceOutSettings(name="standin:virtual")

pytestmark = pytest.mark.skipif(shutil.which("pactl") is None, reason="pactl is not installed")


class Desk:
    """One microphone, which can be unplugged, and an engine that listens to it."""

    def __init__(self, server, process):
        self.server, self.process = server, process

    def pactl(self, *words):
        environment = os.environ | self.server.environment
        done = subprocess.run(
            ["pactl", *words], env=environment, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout

    def plug(self):
        self.pactl("load-module", "module-remap-source", "master=mic_feed.monitor", "source_name=fakemic")

    def unplug(self):
        for line in self.pactl("list", "short", "modules").splitlines():
            if "source_name=fakemic" in line:
                self.pactl("unload-module", line.split("\t")[0])

    def begin(self, name, voice_out):
        settings = SessionSettings(
            portrait="sample:", canvas=CanvasSettings(width=640, height=360), source=MicrophoneSource(name=name)
        )
        assert self.process.ask(Start, settings=settings).error is None
        assert self.process.ask(SetVoiceOut, voice_out=voice_out).error is None

    def now(self):
        return len(self.process.events)

    def codes(self):
        return [event.reason.code for event in self.process.events if isinstance(event, Noticed)]

    def notice(self, code, after):
        return self.process.wait(
            lambda e: isinstance(e, Noticed) and e.reason.code == code and self.is_after(e, after), 30
        )

    def heard(self, after):
        self.process.wait(lambda e: isinstance(e, Stats) and e.level_dbfs > -30 and self.is_after(e, after), 30)

    def silent(self, after):
        self.process.wait(lambda e: isinstance(e, Stats) and e.level_dbfs < -60 and self.is_after(e, after), 10)

    def last(self):
        return [event for event in self.process.events if isinstance(event, Stats)][-1]

    def is_after(self, event, after):
        """Equal events come more than once."""
        return any(event is other for other in self.process.events[after:])


@pytest.fixture
def desk(sound_server, engine):
    made = Desk(sound_server, engine())
    made.pactl("set-default-source", "fakemic")
    return made


@pytest.mark.parametrize(
    ("name", "voice_out"),
    [("", VIRTUAL), ("fakemic", VIRTUAL), ("", VoiceOutSettings(name="fakeout"))],
    ids=["default", "named", "monitor"],
)
def test_lost_microphone_does_not_become_an_echo(desk, hum, name, voice_out):
    """The server moves the stream of the only microphone to ours, or to the monitor of what the voice is played on."""
    desk.begin(name, voice_out)
    desk.server.speak(hum)
    desk.heard(0)
    time.sleep(1.0)  # and sound is on its way round
    at = desk.now()
    desk.unplug()
    lost = desk.notice("microphone.lost", at)
    assert lost.is_error and "the portrait is silent" in lost.reason.message and lost.reason.hint
    desk.silent(at)
    time.sleep(3.5)  # the waiter has tried more than once
    assert desk.last().level_dbfs < -60 and desk.codes().count("microphone.back") == 0
    at = desk.now()
    desk.plug()
    desk.notice("microphone.back", at)
    desk.heard(at)
    assert desk.process.ask(Stop).error is None


@pytest.mark.parametrize("is_killed", [False, True])
def test_nobody_follows_the_servers_events_after_the_session(desk, is_killed):
    desk.begin("", VIRTUAL)
    _until(lambda: len(_followers(desk.server)) == 1)
    if is_killed:
        desk.process.process.kill()
    else:
        assert desk.process.ask(Stop).error is None
    _until(lambda: not _followers(desk.server))


def _followers(server):
    """Processes `pactl subscribe` of this server."""
    found, place = [], f"PULSE_SERVER={server.environment['PULSE_SERVER']}".encode()
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            is_one = (folder / "cmdline").read_bytes() == b"pactl\0subscribe\0"
            if is_one and place in (folder / "environ").read_bytes().split(b"\0"):
                found.append(folder.name)
    return found


def _until(condition):
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.05)


def test_default_that_is_our_own_microphone_is_not_listened_to(desk, hum):
    """There is no microphone at all when the session begins; one that comes is taken."""
    desk.unplug()
    desk.begin("", VIRTUAL)
    desk.notice("microphone.lost", 0)
    assert "standin_microphone" in desk.pactl("list", "short", "sources"), "and there is nothing else"
    at = desk.now()
    desk.plug()
    desk.pactl("set-default-source", "fakemic")
    desk.notice("microphone.back", at)
    desk.server.speak(hum)
    desk.heard(at)
    assert desk.process.ask(Stop).error is None


def test_microphone_that_somebody_else_chose_is_followed(desk, hum):
    """As before: only our own voice is refused."""
    desk.pactl("load-module", "module-null-sink", "sink_name=other_feed", "rate=48000", "channels=1")
    desk.pactl("load-module", "module-remap-source", "master=other_feed.monitor", "source_name=othermic")
    desk.begin("", VIRTUAL)
    desk.server._start("paplay", "-d", "other_feed", "--latency-msec=20", str(hum))
    time.sleep(2.0)
    desk.pactl("set-default-source", "othermic")
    desk.heard(desk.now())
    assert "microphone.lost" not in desk.codes()
    assert desk.process.ask(Stop).error is None


def test_output_that_comes_after_the_start_can_be_chosen_and_comes_back(desk, hum, tmp_path):
    """PortAudio looked before it was there; and when the server has ended and begun again it is played on again."""
    desk.begin("", VoiceOutSettings(name="fakeout"))
    settings = tmp_path / "sound" / "asound.conf"
    late = 'pcm.headset { type pulse device headset hint { show on description "Headset" } }\n'
    settings.write_text(settings.read_text() + late)
    desk.pactl("load-module", "module-null-sink", "sink_name=headset", "rate=48000", "channels=2")
    assert desk.process.ask(SetVoiceOut, voice_out=VoiceOutSettings(name="headset")).error is None
    desk.server.speak(hum)
    desk.heard(desk.now())  # the microphone is heard again after the pause
    at = desk.now()
    desk.server.stop()
    desk.notice("voice_out.lost", at)
    desk.server.begin()
    desk.pactl("load-module", "module-null-sink", "sink_name=headset", "rate=48000", "channels=2")
    desk.notice("voice_out.back", at)
    opened = desk.process.wait(lambda e: isinstance(e, VoiceOutChanged) and e.is_open and desk.is_after(e, at), 30)
    assert opened.label == "headset"
    desk.notice("microphone.back", at)
    assert desk.process.ask(Stop).error is None
