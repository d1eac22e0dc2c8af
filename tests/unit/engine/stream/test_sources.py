"""Settings of a source open the right one."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from engine.audio import microphone
from engine.audio.sources import FileInRealTime, Silence
from engine.clock import ManualClock
from engine.errors import AudioFileError
from engine.settings import FileSource, MicrophoneSource, SilentSource
from engine.stream.sources import open_source


def test_silence():
    assert isinstance(open_source(SilentSource()), Silence)


def test_file_once_or_again_and_again(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(1600, np.float32), 16_000)
    for is_looped in (False, True):
        clock = ManualClock()
        source = open_source(FileSource(path=str(tmp_path / "a.wav"), is_looped=is_looped))
        assert isinstance(source, FileInRealTime) and source.label == "a.wav"
        source.start(clock)
        clock.advance(0.25)
        assert len(source.read().samples) == (4000 if is_looped else 1600)


def test_missing_file_fails_at_once():
    with pytest.raises(AudioFileError):
        open_source(FileSource(path="/nowhere/a.wav"))


def test_microphone_by_name_and_host_api(monkeypatch):
    asked = []
    monkeypatch.setattr(microphone, "Microphone", lambda *names: asked.append(names))
    open_source(MicrophoneSource(name="Yeti", host_api="ALSA"))
    open_source(MicrophoneSource())
    assert asked == [("Yeti", "ALSA"), ("", "")]
