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
    camera_changed, devices_listed = Signal(object), Signal(object)

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
