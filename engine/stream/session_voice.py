"""Where a session's delayed voice is played: an output, another one while live, or none any more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.errors import StandinError, VoiceOutError
from engine.protocol.messages import Reason, VoiceOutChanged
from engine.settings import VoiceOutSettings
from engine.stream import output_memory
from engine.stream.listener import Listener
from engine.stream.reporter import Reporter

if TYPE_CHECKING:
    from engine.audio.delay_line import DelayLine
    from engine.audio.hotplug import OutputWaiter
    from engine.audio.voice_out import AnyVoiceOut

_ABSENT = ("voice_out.none", "voice_out.missing", "voice_out.no_cable")


class SessionVoice:
    """Outputs are opened and closed under `devices_lock`; what the audio thread uses changes under `audio_lock`. Both
    are `SessionSound`'s. `look` is the statistics', the rest the session's. `renew` lets PortAudio look again, while
    what it has open pauses."""

    def __init__(
        self,
        settings: VoiceOutSettings | None,
        audio_lock: threading.Lock,
        devices_lock: threading.RLock,
        reporter: Reporter,
        *,
        renew: Callable[[], None],
    ) -> None:
        self._settings, self._reporter, self._renew = settings, reporter, renew
        self._audio_lock, self._devices_lock = audio_lock, devices_lock
        self._listener: Listener | None = None
        self._output: AnyVoiceOut | None = None
        self._waiter: OutputWaiter | None = None

    @property
    def line(self) -> DelayLine | None:
        """The voice on its way out, if it is played."""
        output = self._output
        return output.line if output is not None else None

    def attach(self, listener: Listener) -> None:
        """What it says is to be played."""
        self._listener = listener

    def change(self, settings: VoiceOutSettings | None) -> None:
        """Play on an output, another one, or nowhere. Raises `DeviceError`; the one before goes on then, or is waited
        for as before."""
        if settings is not None and self._shifts(settings):
            return
        with self._devices_lock:
            output = self._found(settings) if settings is not None else None
            self.play_on(output)
            self._settings = settings
        if settings is not None and output is not None:
            output_memory.remember_correction(settings, output.line.offset_s)

    def play_on(self, output: AnyVoiceOut | None) -> None:
        """Start `output` and let it take over. Raises `VoiceOutError`; the one before goes on then."""
        if output is not None:
            output.start()
        self._let_play(output)

    def _let_play(self, output: AnyVoiceOut | None) -> None:
        assert self._listener is not None
        self._wait_no_more()
        with self._audio_lock:
            old, self._output = self._output, output
            self._listener.voice = output.line.write if output is not None else None
        if old is not None:
            old.stop()
        if output is not None:
            self._reporter.emit(VoiceOutChanged(is_open=True, label=output.label, microphone=output.microphone))
        elif old is not None:
            self._reporter.emit(VoiceOutChanged(is_open=False))

    def _found(self, settings: VoiceOutSettings) -> AnyVoiceOut:
        """Also one that came after PortAudio had looked."""
        from engine.audio.devices import has_open_streams
        from engine.audio.hotplug import devices_elsewhere, is_output_there

        try:
            return find_voice_out(settings)
        except VoiceOutError as error:
            if error.code not in _ABSENT or not has_open_streams():
                raise
            if not is_output_there(settings, devices_elsewhere()):
                raise
        self._renew()
        return find_voice_out(settings)

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
        """Open what `release_device` returned anew; what fails is told, and waited for."""
        wanted = self._wanted(output)
        try:
            self.play_on(find_voice_out(wanted))
        except StandinError as error:
            self._reporter.fail(error)
            self._reporter.emit(VoiceOutChanged(is_open=False))
            self._wait(wanted)

    def look(self) -> None:
        """An output that is gone plays nothing until it is there again; the picture goes on without it."""
        if not self._devices_lock.acquire(blocking=False):  # somebody opens a device, which takes seconds: next time
            return
        try:
            self._look()
        finally:
            self._devices_lock.release()

    def _look(self) -> None:
        with self._audio_lock:
            output = self._output
            if output is None or not output.has_failed:
                return
            self._forget()
        output.stop()
        message = f'The sound output "{output.label}" is gone, so your voice is not played.'
        hint = "It is taken again as soon as it is connected; or choose another one."
        self._reporter.note(Reason(code="voice_out.lost", message=message, hint=hint), is_error=True)
        self._reporter.emit(VoiceOutChanged(is_open=False))
        self._wait(self._wanted(output))

    def remember_need(self, needed_s: float) -> None:
        """Keep for the next session with how much delay the voice would be in time."""
        output, wanted = self._output, self._settings
        if output is not None and wanted is not None:
            output_memory.remember(wanted, needed_s, output.line.offset_s)

    def end(self) -> None:
        """Give the output back; after the audio thread has ended."""
        with self._devices_lock:
            self._wait_no_more()
            output, self._output = self._output, None
        if output is not None:
            output.stop()

    def _wait(self, wanted: VoiceOutSettings) -> None:
        """Under `devices_lock`."""
        from engine.audio.hotplug import OutputWaiter

        self._wait_no_more()

        def take(output: AnyVoiceOut) -> None:
            self._take_back(output, waiter)

        waiter = self._waiter = OutputWaiter(
            wanted,
            open_again=lambda: find_voice_out(wanted),
            renew=self._renew,
            take=take,
        )
        waiter.start()

    def _take_back(self, output: AnyVoiceOut, waiter: OutputWaiter) -> None:
        with self._devices_lock:
            if not waiter.is_cancelled:
                self._let_play(output)
                message = f'Your voice is played on "{output.label}" again.'
                self._reporter.note(Reason(code="voice_out.back", message=message), is_error=False)
                return
        output.stop()

    def _wait_no_more(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.cancel()

    def _wanted(self, output: AnyVoiceOut) -> VoiceOutSettings:
        return self._settings or VoiceOutSettings(name=output.label)

    def _shifts(self, settings: VoiceOutSettings) -> bool:
        """Only the offset is another one: the output goes on, and moves the voice without a click."""
        from engine.audio.voice_out import correction_s

        output, before = self._output, self._settings
        if output is None or before is None or (before.name, before.host_api) != (settings.name, settings.host_api):
            return False
        output.line.offset_s = correction_s(settings)
        self._settings = settings
        output_memory.remember_correction(settings, output.line.offset_s)
        return True

    def _forget(self) -> None:
        self._output = None
        if self._listener is not None:
            self._listener.voice = None


def find_voice_out(settings: VoiceOutSettings) -> AnyVoiceOut:
    """The output that the settings name, not yet started. Raises `DeviceError`."""
    from engine.audio.voice_out import open_voice_out

    return open_voice_out(settings)
