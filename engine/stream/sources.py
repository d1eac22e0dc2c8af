"""Settings of a source -> the source."""

from __future__ import annotations

from engine.audio.audio_file import AudioFile
from engine.audio.sources import AudioSource, FileInRealTime, Silence
from engine.settings import FileSource, MicrophoneSource, Source


def open_source(settings: Source) -> AudioSource:
    """Find the microphone or file, not yet started. Raises `MicrophoneError`, `DeviceError` or `AudioFileError`."""
    if isinstance(settings, MicrophoneSource):
        from engine.audio.microphone import Microphone

        return Microphone(settings.name, settings.host_api)
    if isinstance(settings, FileSource):
        return FileInRealTime(AudioFile(settings.path), is_looped=settings.is_looped)
    return Silence()
