"""Which output the settings mean, and by how much its voice is moved."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from engine.audio import sync_memory, voice_out
from engine.audio.devices import refresh
from engine.audio.virtual_voice_out import VirtualVoiceOut
from engine.audio.voice_out import correction_s, open_voice_out
from engine.errors import UsageError, VoiceOutError
from engine.settings import VIRTUAL_MICROPHONE, VoiceOutSettings


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """Corrections are kept in an empty folder."""
    monkeypatch.setattr(sync_memory, "data_folder", lambda: tmp_path / "data")
    return tmp_path / "data"


def test_virtual_is_ours_on_linux_and_a_cable_elsewhere(sound, monkeypatch):
    sound.host_apis = [{"name": "Core Audio"}]
    sound.plug("Speakers", outputs=2)
    sound.plug("BlackHole 2ch", inputs=2, outputs=2)
    refresh()
    settings = VoiceOutSettings(name=VIRTUAL_MICROPHONE)
    monkeypatch.setattr(voice_out.sys, "platform", "linux")
    assert isinstance(open_voice_out(settings), VirtualVoiceOut)
    monkeypatch.setattr(voice_out.sys, "platform", "darwin")
    monkeypatch.setattr(voice_out, "present_cable", lambda: voice_out_cable("darwin"))
    voice = open_voice_out(settings)
    assert (voice.label, voice.microphone) == ("BlackHole 2ch", "BlackHole 2ch")
    assert open_voice_out(VoiceOutSettings(name="Speakers")).microphone == ""


def voice_out_cable(platform):
    from engine.audio.devices import list_audio_devices
    from engine.audio.virtual_microphone import find_cable

    return find_cable(list_audio_devices()[1], platform)


def test_missing_output_is_said(sound):
    with pytest.raises(VoiceOutError):
        open_voice_out(VoiceOutSettings(name="Gone"))


def test_stored_correction_is_applied_to_its_output_alone(sound, folder):
    sound.plug("Speakers", outputs=2)
    sound.plug("Cable", outputs=2)
    refresh()
    sync_memory.remember_ms("Speakers", "", 42.04)
    sync_memory.remember_ms("Cable", "ALSA", -17.0)
    assert open_voice_out(VoiceOutSettings(name="Speakers")).line.offset_s == pytest.approx(0.042)
    assert open_voice_out(VoiceOutSettings(name="Cable", host_api="ALSA")).line.offset_s == pytest.approx(-0.017)
    assert correction_s(VoiceOutSettings(name="Cable")) == pytest.approx(-0.017)
    assert correction_s(VoiceOutSettings(name="Speakers", offset_ms=5.0)) == pytest.approx(0.005), "set by hand"
    assert [path.name for path in folder.iterdir()] == ["sync.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"/Speakers": "x"}', '{"/Speakers": 4000}', '{"/Speakers": null}'])
def test_damaged_corrections_are_none(folder, text):
    folder.mkdir()
    (folder / "sync.json").write_text(text)
    assert correction_s(VoiceOutSettings(name="Speakers")) == 0.0
    sync_memory.remember_ms("Speakers", "", 7.0)
    assert correction_s(VoiceOutSettings(name="Speakers")) == pytest.approx(0.007)


@pytest.mark.parametrize("offset_ms", [-300.5, 301, float("nan"), float("inf")])
def test_offsets_beyond_reason_are_refused(offset_ms):
    with pytest.raises(UsageError):
        VoiceOutSettings(offset_ms=offset_ms)


def test_output_whose_callback_is_silent_for_seconds_has_failed(sound, monkeypatch):
    """As a microphone's: not every driver says that the device is gone."""
    time_s = [1000.0]
    monkeypatch.setattr(voice_out, "time", SimpleNamespace(monotonic=lambda: time_s[0]))
    sound.plug("Speakers", outputs=2)
    refresh()
    voice = open_voice_out(VoiceOutSettings(name="Speakers"))
    assert not voice.has_failed, "it has not begun"
    voice.start()
    time_s[0] += 1.9
    assert not voice.has_failed and not voice.has_sounded
    times = SimpleNamespace(currentTime=1.0, outputBufferDacTime=1.02)
    sound.streams[0].options["callback"](np.zeros((480, 2), np.float32), 480, times, None)
    assert voice.has_sounded
    time_s[0] += 1.9
    assert not voice.has_failed
    time_s[0] += 0.2
    assert voice.has_failed
    voice.stop()
    assert not voice.has_failed
