"""Where a session's delayed voice is played: an output, another one while live, or none any more."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from engine.errors import StandinError
from engine.protocol.messages import Reason, VoiceOutChanged
from engine.settings import VoiceOutSettings
from engine.stream.listener import Listener
from engine.stream.reporter import Reporter

if TYPE_CHECKING:
    from engine.audio.delay_line import DelayLine
    from engine.audio.voice_out import AnyVoiceOut


class SessionVoice:
    """Outputs are opened and closed under `devices_lock`; what the audio thread uses changes under `audio_lock`. Both
    are `SessionSound`'s. `look` is the statistics', the rest the session's."""

    def __init__(
        self,
        settings: VoiceOutSettings | None,
        audio_lock: threading.Lock,
        devices_lock: threading.RLock,
        reporter: Reporter,
    ) -> None:
        self._settings, self._reporter = settings, reporter
        self._audio_lock, self._devices_lock = audio_lock, devices_lock
        self._listener: Listener | None = None
        self._output: AnyVoiceOut | None = None

    @property
    def line(self) -> DelayLine | None:
        """The voice on its way out, if it is played."""
        output = self._output
        return output.line if output is not None else None

    def attach(self, listener: Listener) -> None:
        """What it says is to be played."""
        self._listener = listener

    def change(self, settings: VoiceOutSettings | None) -> None:
        """Play on an output, another one, or nowhere."""
        if settings is not None and self._shifts(settings):
            return
        with self._devices_lock:
            self.play_on(find_voice_out(settings) if settings is not None else None)
            self._settings = settings

    def play_on(self, output: AnyVoiceOut | None) -> None:
        """Start `output` and let it take over. Raises `VoiceOutError`; the one before goes on then."""
        assert self._listener is not None
        if output is not None:
            output.start()
        with self._audio_lock:
            old, self._output = self._output, output
            self._listener.voice = output.line.write if output is not None else None
        if old is not None:
            old.stop()
        if output is not None:
            self._reporter.emit(VoiceOutChanged(is_open=True, label=output.label, microphone=output.microphone))
        elif old is not None:
            self._reporter.emit(VoiceOutChanged(is_open=False))

    def release_device(self) -> AnyVoiceOut | None:
        """Close an output of PortAudio's, which is about to look for devices again; `take_again` opens it."""
        output = self._output
        if output is None or not output.uses_portaudio:
            return None
        with self._audio_lock:
            self._forget()
        output.stop()
        return output

    def take_again(self, output: AnyVoiceOut) -> None:
        """Open what `release_device` returned anew; what fails is told."""
        try:
            self.play_on(find_voice_out(self._settings or VoiceOutSettings(name=output.label)))
        except StandinError as error:
            self._reporter.fail(error)

    def look(self) -> None:
        """An output that is gone plays nothing any more; the picture goes on without it."""
        with self._audio_lock:
            output = self._output
            if output is None or not output.has_failed:
                return
            self._forget()
        output.stop()
        message = f'The sound output "{output.label}" is gone, so your voice is not played.'
        hint = "Connect it again and choose it, or choose another one."
        self._reporter.note(Reason(code="voice_out.lost", message=message, hint=hint), is_error=True)
        self._reporter.emit(VoiceOutChanged(is_open=False))

    def end(self) -> None:
        """Give the output back; after the audio thread has ended."""
        output, self._output = self._output, None
        if output is not None:
            output.stop()

    def _shifts(self, settings: VoiceOutSettings) -> bool:
        """Only the offset is another one: the output goes on, and moves the voice without a click."""
        from engine.audio.voice_out import correction_s

        output, before = self._output, self._settings
        if output is None or before is None or (before.name, before.host_api) != (settings.name, settings.host_api):
            return False
        output.line.offset_s = correction_s(settings)
        self._settings = settings
        return True

    def _forget(self) -> None:
        self._output = None
        if self._listener is not None:
            self._listener.voice = None


def find_voice_out(settings: VoiceOutSettings) -> AnyVoiceOut:
    """The output that the settings name, not yet started. Raises `DeviceError`."""
    from engine.audio.voice_out import open_voice_out

    return open_voice_out(settings)
