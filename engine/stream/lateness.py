"""Devices that are slower than the session's delay: told once, when it is sure."""

from __future__ import annotations

from engine.audio.delay_line import DelayLine
from engine.clock import Clock
from engine.media import Notice
from engine.stream.listener import Listener

VOICE_TOO_SLOW = "voice_out.too_slow"

_NOTICED_S = 0.060
"""So much later in all, a call feels slower."""

_VOICE_LATE_S = 0.030
_LASTING_S = 3.0


class Lateness:
    """Of one session. `of_microphone` and `of_voice` are called by one thread, a few times a second."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told_label: str | None = None
        self._voice: DelayLine | None = None
        self._late_since_s: float | None = None
        self._is_voice_told = False

    def of_microphone(self, listener: Listener) -> list[Notice]:
        """Of the source in use."""
        source, extra_s = listener.source, listener.way.extra_s
        if source is None or extra_s < _NOTICED_S or source.label == self._told_label:
            return []
        self._told_label = source.label
        message = (
            f'The microphone "{source.label}" is slow, so picture and voice come {1000 * extra_s:.0f} ms later '
            "than they could."
        )
        hint = "Choose another one: those with a cable are quicker than those over Bluetooth."
        return [Notice(code="microphone.slow", message=message, hint=hint)]

    def of_voice(self, voice: DelayLine | None) -> list[Notice]:
        """Of the output in use."""
        if voice is not self._voice:
            self._voice, self._late_since_s, self._is_voice_told = voice, None, False
        if voice is None or voice.late_s < _VOICE_LATE_S:
            self._late_since_s = None
            return []
        now_s = self._clock.now()
        since_s = self._late_since_s = now_s if self._late_since_s is None else self._late_since_s
        if self._is_voice_told or now_s - since_s < _LASTING_S:
            return []
        self._is_voice_told = True
        message = f"The sound output is slow, so your voice is heard {1000 * voice.late_s:.0f} ms after the picture."
        hint = "The next time you start, the picture waits for it; or choose another output."
        return [Notice(code=VOICE_TOO_SLOW, message=message, hint=hint)]
