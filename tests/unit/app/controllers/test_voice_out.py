"""Devices that went away: an output chosen again is asked for again, a microphone under another number is taken."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("PySide6", reason="the window needs the gui extra")

from PySide6.QtCore import QObject, Signal

from app.controllers.broadcast import BroadcastController
from app.settings.store import SettingsStore
from engine.protocol import messages as m


class Client(QObject):
    """Notes what is sent; the test answers."""

    ready, lost, state_changed, noticed = Signal(object), Signal(object, int), Signal(object), Signal(object)
    camera_changed, devices_listed, recording_changed = Signal(object), Signal(object), Signal(object)

    def __init__(self):
        super().__init__()
        self.sent = []

    def send(self, command, on_reply=None, **fields):
        self.sent.append(SimpleNamespace(command=command, reply=on_reply, **fields))

    def of(self, command):
        return [sent for sent in self.sent if sent.command is command]


@pytest.fixture
def begun(qapp, tmp_path):
    """(client, controller) with a live session; from the window's settings."""

    def make(settings):
        (tmp_path / "window.toml").write_text(f"version = 1\n{settings}", encoding="utf-8")
        client = Client()
        broadcast = BroadcastController(client, SettingsStore(tmp_path / "window.toml"))
        client.ready.emit(None)
        client.of(m.Start)[0].reply(None)
        return client, broadcast

    return make


def _notice(client, code):
    client.noticed.emit(m.Noticed(reason=m.Reason(code=code, message="So it is."), is_error=False))


def _choose(broadcast):
    broadcast.change(has_voice_out=True, voice_out="Headset", voice_out_host="")


def test_output_that_was_refused_or_lost_is_asked_for_again_when_it_is_chosen_again(begun):
    client, broadcast = begun('has_microphone = false\nhas_voice_out = true\nvoice_out = "Headset"\n')
    failed = []
    broadcast.failed.connect(lambda part, reason: failed.append((part, reason.code)))
    client.of(m.SetVoiceOut)[0].reply(m.Reason(code="voice_out.missing", message="It is not there."))
    assert failed == [("voice_out", "voice_out.missing")]
    _choose(broadcast)
    assert len(client.of(m.SetVoiceOut)) == 2
    client.of(m.SetVoiceOut)[1].reply(None)
    _choose(broadcast)
    assert len(client.of(m.SetVoiceOut)) == 2, "it plays"
    _notice(client, "voice_out.lost")
    broadcast.change(fill="crop")
    assert len(client.of(m.SetVoiceOut)) == 2, "nobody chose it"
    _choose(broadcast)
    assert client.of(m.SetVoiceOut)[2].voice_out.name == "Headset"
    _notice(client, "voice_out.back")
    _choose(broadcast)
    assert len(client.of(m.SetVoiceOut)) == 3


def test_switching_it_off_is_said_once(begun):
    client, broadcast = begun('has_microphone = false\nhas_voice_out = true\nvoice_out = "Headset"\n')
    _notice(client, "voice_out.lost")
    for _ in range(2):
        broadcast.change(has_voice_out=False, voice_out="", voice_out_host="")
    assert [sent.voice_out is None for sent in client.of(m.SetVoiceOut)] == [False, True]


def test_missing_microphone_is_taken_under_another_cards_number(begun):
    client, _broadcast = begun('microphone = "Yeti: USB Audio (hw:1,0)"\n')
    client.of(m.SetSource)[0].reply(m.Reason(code="microphone.missing", message="It is not there."))
    for name, count in (("Webcam (hw:1,0)", 1), ("Yeti: USB Audio (hw:2,0)", 2)):
        listed = [m.AudioDevice(name=name, host_api="ALSA", channels=1, rate_hz=48_000)]
        client.devices_listed.emit(m.DevicesListed(microphones=listed, voice_outs=[], cameras=[]))
        assert len(client.of(m.SetSource)) == count


_PREVIEW = 'has_microphone = false\nhas_voice_out = true\nvoice_out = "Headset"\n'
_TOO_SLOW = "voice_out.too_slow"


def _go_on(client):
    """Answer what ends a session and what begins the next."""
    client.of(m.Stop)[-1].reply(None)
    client.of(m.Start)[-1].reply(None)


def test_session_is_told_of_the_output_that_is_chosen_once_it_is_live(begun):
    client, _ = begun(_PREVIEW)
    start = client.of(m.Start)[0].settings
    assert start.voice_out is None and start.voice_out_to_come == client.of(m.SetVoiceOut)[0].voice_out


def test_voice_that_is_too_late_has_another_session_once_while_nobody_watches(begun):
    client, broadcast = begun(_PREVIEW)
    _notice(client, _TOO_SLOW)
    assert len(client.of(m.Stop)) == 1
    _go_on(client)
    assert broadcast.is_live and len(client.of(m.Start)) == len(client.of(m.SetVoiceOut)) == 2
    _notice(client, _TOO_SLOW)
    assert len(client.of(m.Stop)) == 1, "it would be no better"
    broadcast.change(voice_out="Loudspeakers")
    _notice(client, _TOO_SLOW)
    assert len(client.of(m.Stop)) == 2, "another output"


def test_call_and_recording_are_not_interrupted_for_it(begun):
    client, broadcast = begun(_PREVIEW)
    broadcast.set_camera(True)
    _notice(client, _TOO_SLOW)
    assert not client.of(m.Stop) and broadcast.is_live
    client.recording_changed.emit(m.RecordingChanged(is_recording=True, path="a.mp4"))
    broadcast.set_camera(False)
    assert not client.of(m.Stop), "it is recorded"
    client.recording_changed.emit(m.RecordingChanged(is_recording=False, path="a.mp4"))
    assert len(client.of(m.Stop)) == 1
    _go_on(client)
    assert broadcast.is_live and not broadcast.is_camera_wanted


def test_output_that_is_only_slow_is_not_asked_for_again(begun):
    client, broadcast = begun(_PREVIEW)
    broadcast.set_camera(True)
    client.of(m.SetVoiceOut)[0].reply(None)
    _notice(client, _TOO_SLOW)
    _choose(broadcast)
    assert len(client.of(m.SetVoiceOut)) == 1
