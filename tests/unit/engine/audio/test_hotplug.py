"""Waiting for a microphone, following the default, lists from another process."""

from __future__ import annotations

import subprocess
import threading

import pytest

from engine.audio import hotplug
from engine.audio.hotplug import (
    DefaultFollower,
    OutputWaiter,
    Waiter,
    devices_elsewhere,
    devices_now,
    is_output_there,
    is_there,
    why_zeros,
)
from engine.clock import ManualClock
from engine.errors import DeviceError, MicrophoneError, VoiceOutError
from engine.protocol.messages import AudioDevice
from engine.settings import VIRTUAL_MICROPHONE, MicrophoneSource, VoiceOutSettings


def _device(name, host_api="ALSA", *, is_default=False):
    return AudioDevice(name=name, host_api=host_api, channels=1, rate_hz=48_000, is_default=is_default)


class Fake:
    """A microphone that is heard or not."""

    def __init__(self, *, is_heard=True, error=None):
        self.is_heard, self.error = is_heard, error
        self.calls = []
        self.has_ended = False

    def start(self, clock):
        self.calls.append("start")
        if self.error is not None:
            raise self.error

    def read(self):
        return object() if self.is_heard else None

    def stop(self):
        self.calls.append("stop")


class World:
    """What a waiter sees: sources that are opened one after the other, or errors."""

    def __init__(self, *tries, devices=((), ())):
        self.tries, self.devices = list(tries), devices
        self.renewed, self.listed, self.taken = 0, 0, []
        self.done = threading.Event()

    def open_again(self):
        found = self.tries.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def renew(self):
        self.renewed += 1

    def take(self, source):
        self.taken.append(source)
        self.done.set()

    def list(self):
        self.listed += 1
        return self.devices

    def waiter(self, wanted=None, **options):
        return Waiter(
            wanted or MicrophoneSource(name="Yeti"), ManualClock(), open_again=self.open_again, renew=self.renew,
            take=self.take, devices=self.list, first_try_s=0.0, every_s=0.001, **options,
        )  # fmt: skip


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(hotplug, "_FIRST_SOUND_WITHIN_S", 0.02)
    monkeypatch.setattr(hotplug, "_POLL_S", 0.001)


def test_waiter_tries_until_sound_is_heard(quick, caplog):
    missing = MicrophoneError("It is not there.")
    mute, refusing, good = Fake(is_heard=False), Fake(error=missing), Fake()
    world = World(missing, mute, OSError("driver"), refusing, good)
    waiter = world.waiter()
    waiter.start()
    assert world.done.wait(10)
    waiter.join(5)
    assert world.taken == [good] and good.calls == ["start"] and world.renewed == 5
    assert mute.calls == refusing.calls == ["start", "stop"], "what was opened for nothing is given back"
    assert "driver" in caplog.text


def test_waiter_that_was_away_until_after_the_deadline_listens_once_more(monkeypatch):
    """On a busy computer more time passes between two looks than there is for the first sound."""
    monkeypatch.setattr(hotplug, "_FIRST_SOUND_WITHIN_S", -1.0)
    good = Fake()
    world = World(good)
    waiter = world.waiter()
    waiter.start()
    assert world.done.wait(10)
    waiter.join(5)
    assert world.taken == [good] and good.calls == ["start"]


def test_cancelled_waiter_takes_nothing(quick):
    world = World(*[MicrophoneError("no") for _ in range(100_000)])
    waiter = world.waiter()
    waiter.start()
    waiter.cancel()
    waiter.join(5)
    assert not world.taken and waiter.is_cancelled


def test_other_streams_are_left_alone_until_it_is_there(quick, monkeypatch):
    """With a voice out open, PortAudio is started again only once another process has seen the microphone."""
    monkeypatch.setattr(hotplug, "has_open_streams", lambda: True)
    world = World(Fake(), devices=([_device("Other")], []))
    waiter = world.waiter()
    waiter.start()
    while world.listed < 3:
        pass
    assert world.renewed == 0
    world.devices = ([_device("Yeti")], [])
    assert world.done.wait(10) and world.renewed == 1
    waiter.join(5)


class Guard:
    """What an `OwnVoiceGuard` would say, one answer after the other."""

    def __init__(self, choices, looks):
        self.choices, self.looks = list(choices), list(looks)

    def has_choice(self):
        return self.choices.pop(0)

    def look(self):
        return self.looks.pop(0)


def test_our_own_voice_is_not_taken(quick):
    """Nothing is opened where there is no other source, and what turns out to be our own is given back."""
    own, good = Fake(), Fake()
    world = World(own, good)
    waiter = world.waiter(guard=Guard([False, False, True, True], [True, False]))
    waiter.start()
    assert world.done.wait(10)
    waiter.join(5)
    assert world.taken == [good] and own.calls == ["start", "stop"] and world.renewed == 2


class Output(Fake):
    """One that asks for sound or not."""

    uses_portaudio = True

    def __init__(self, *, is_heard=True, error=None):
        super().__init__(is_heard=is_heard, error=error)
        self.has_sounded, self.has_failed = is_heard, False

    def start(self):
        super().start(None)


def _output_waiter(world, wanted=None, every_s=0.001):
    return OutputWaiter(
        wanted or VoiceOutSettings(name="Headset"), open_again=world.open_again, renew=world.renew, take=world.take,
        devices=world.list, first_try_s=0.0, every_s=every_s,
    )  # fmt: skip


def test_output_is_waited_for_and_others_pause_only_after_a_try_without(quick, monkeypatch):
    monkeypatch.setattr(hotplug, "has_open_streams", lambda: True)
    refusing, mute, good = Output(error=VoiceOutError("In use.")), Output(is_heard=False), Output()
    world = World(refusing, mute, good)
    waiter = _output_waiter(world)
    waiter.start()
    while world.listed < 3:
        pass
    assert world.renewed == 0 and not refusing.calls
    world.devices = ([], [_device("Headset")])
    assert world.done.wait(10)
    waiter.join(5)
    assert world.taken == [good] and world.renewed == 2 and refusing.calls == mute.calls == ["start", "stop"]


def test_nothing_pauses_for_the_servers_virtual_microphone(quick, monkeypatch):
    monkeypatch.setattr(hotplug.sys, "platform", "linux")
    monkeypatch.setattr(hotplug, "has_open_streams", lambda: True)
    world = World(Output(error=VoiceOutError("No server.")), Output())
    waiter = _output_waiter(world, VoiceOutSettings(name=VIRTUAL_MICROPHONE))
    waiter.start()
    assert world.done.wait(10) and world.renewed == 0
    waiter.join(5)


def test_output_that_does_not_work_makes_others_pause_ever_more_seldom(quick, monkeypatch):
    monkeypatch.setattr(hotplug, "has_open_streams", lambda: True)
    world = World(devices=([], [_device("Headset")]))
    waiter = _output_waiter(world, every_s=2.0)
    for _ in range(8):
        assert waiter._is_there()
        waiter._prepare()
    assert world.renewed == 7 and waiter._every_s == 30.0


@pytest.mark.parametrize(
    ("name", "host_api", "expected"),
    [("Yeti", "", True), ("Yeti", "WASAPI", True), ("Yeti", "MME", False), ("Yet", "", False), ("", "", True)],
)
def test_is_there(name, host_api, expected):
    devices = ([_device("Yeti", "WASAPI"), _device("Headset", "MME")], [_device("Speakers")])
    assert is_there(MicrophoneSource(name=name, host_api=host_api), devices) is expected


@pytest.mark.parametrize("name", ["Yeti", "Yeti: USB Audio (hw:1,0)", "Yeti: USB Audio"])
def test_it_is_there_whatever_its_cards_number(name):
    listed = [_device("Yeti: USB Audio (hw:2,0)")]
    assert is_there(MicrophoneSource(name=name), (listed, []))
    assert is_output_there(VoiceOutSettings(name=name), ([], listed))
    assert not is_output_there(VoiceOutSettings(name=name), (listed, []))


def test_virtual_output_is_there_if_it_can_be_made():
    virtual, cable = VoiceOutSettings(name=VIRTUAL_MICROPHONE), [_device("BlackHole 2ch")]
    assert is_output_there(virtual, ([], []), "linux")
    assert is_output_there(virtual, ([], cable), "darwin") and not is_output_there(virtual, ([], []), "darwin")


def test_no_default_without_any_microphone():
    assert not is_there(MicrophoneSource(), ([], [_device("Speakers")]))


def test_another_default_is_told_once():
    changes, devices = [], [([_device("A", is_default=True), _device("B")], [])]
    follower = DefaultFollower(changes.append, devices=lambda: devices[0])
    follower.look()
    follower.look()
    assert not changes
    devices[0] = ([_device("A"), _device("B", is_default=True)], [])
    follower.look()
    follower.look()
    assert [device.name for device in changes] == ["B"]
    devices[0] = ([], [])
    follower.look()
    devices[0] = ([_device("B", is_default=True)], [])
    follower.look()
    assert len(changes) == 1, "gone and back is the same"
    follower.end()
    devices[0] = ([_device("C", is_default=True)], [])
    follower.look()
    assert len(changes) == 1


@pytest.mark.parametrize(
    ("source", "platform", "expected"),
    [
        (MicrophoneSource(), "darwin", True),
        (MicrophoneSource(), "win32", True),
        (MicrophoneSource(), "linux", False),
        (MicrophoneSource(name="Yeti"), "darwin", False),
        (MicrophoneSource(follows_default=False), "darwin", False),
    ],
)
def test_follower_is_needed_only_where_the_system_does_not_follow(source, platform, expected):
    assert DefaultFollower.is_needed(source, platform) is expected


def test_list_comes_from_this_process_unless_a_stream_is_open(sound, monkeypatch):
    sound.plug("Yeti", inputs=1)
    monkeypatch.setattr(hotplug, "devices_elsewhere", lambda: ([_device("Elsewhere")], []))
    assert [d.name for d in devices_now()[0]] == ["Yeti"]
    monkeypatch.setattr(hotplug, "has_open_streams", lambda: True)
    assert [d.name for d in devices_now()[0]] == ["Elsewhere"]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b'{"error": {"message": "None.", "code": "audio.x", "hint": "Install.", "detail": ""}}', "audio.x"),
        (b"ALSA lib: nonsense", "audio.hangs"),
        (b"{}", "audio.hangs"),
        (b'{"microphones": [1], "outputs": []}', "audio.hangs"),
        (b"[]", "audio.hangs"),
        (subprocess.TimeoutExpired("x", 1), "audio.hangs"),
        (subprocess.CalledProcessError(1, "x"), "audio.hangs"),
        (OSError("no python"), "audio.hangs"),
    ],
)  # fmt: skip
def test_bad_answers_of_the_other_process_are_one_sentence(monkeypatch, answer, code):
    def run(*_args, **_options):
        if isinstance(answer, Exception):
            raise answer
        return subprocess.CompletedProcess([], 0, answer, b"")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(DeviceError) as caught:
        devices_elsewhere()
    assert caught.value.code == code and caught.value.hint


def test_zeros_are_explained_for_each_system():
    hints = {why_zeros("Yeti", platform).hint for platform in ("darwin", "win32", "linux")}
    assert len(hints) == 3 and all("Yeti" in why_zeros("Yeti", p).message for p in ("darwin", "linux"))
    assert "Privacy" in why_zeros("Yeti", "darwin").hint
