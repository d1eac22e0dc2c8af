"""The microphone's own sound, played so much later that it arrives with the picture."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import soxr

from engine.audio.devices import OpenStream, find_device, sound_library
from engine.audio.ring import SampleRing
from engine.errors import VoiceOutError

logger = logging.getLogger(__name__)

MAX_CORRECTION = 0.005
"""Half a percent of speed: nobody hears it, and it makes good 5 ms a second."""

_CORRECTION_PER_S = 0.25
_REALIGN_S = 0.060
_FADE_S = 0.005
_SLEW_S = 0.1
_JUMP_S = 0.002
_RING_S = 6.0
_LARGEST_OUTPUT_LATENCY_S = 1.0


class DelayLine:
    """Samples with their session times in, a stream at the output's rate out, steered to play each on time.

    `write` and `steer` belong to the audio thread, `fill` to the output's callback. Offsets are in seconds; positive
    means that the voice is early.
    """

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self._ring = SampleRing(int(_RING_S * rate_hz))
        self._speed: _VariableSpeed | None = None
        self._given_s = 0.0  # session time at which the next block should begin
        self._end_s = 0.0  # session time of the next sample that the ring will get
        self._gain = np.linspace(0.0, 1.0, max(2, int(_FADE_S * rate_hz)), dtype=np.float32)[:, None]
        self._fade_in = True
        self._pending_skip = 0
        self._pending_wait = 0
        # (samples read, time at which the next one sounds): replaced whole by the callback, read by `steer`.
        self._mark: tuple[int, float] | None = None
        self._smooth_s: float | None = None
        self.underruns = 0
        self.realigned = 0

    @property
    def queue_s(self) -> float:
        """Seconds of voice that wait."""
        return len(self._ring) / self.rate_hz

    def write(self, samples: np.ndarray, rate_hz: int, start_s: float) -> None:
        """Add float32 (n, channels) that begins at session time `start_s`."""
        mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
        if self._speed is None or self._speed.source_rate_hz != rate_hz:
            self._speed = _VariableSpeed(rate_hz, self.rate_hz)
            self._given_s = self._end_s = start_s
        if abs(start_s - self._given_s) > _JUMP_S:
            self._end_s += start_s - self._given_s
        self._given_s = start_s + len(mono) / rate_hz
        out, consumed_s = self._speed.push(mono)
        self._ring.write(out[:, None])
        self._end_s += consumed_s

    def steer(self, delay_s: float, origin_s: float) -> float | None:
        """Compare what sounds with what should; adjust the speed. Returns the offset in s, None before any sound.

        The sample of session time t should sound at `origin_s + t + delay_s`.
        """
        if self._pending_wait or self._pending_skip:
            self._mark = None  # a jump is under way: what was measured before it is over says nothing
            return None
        mark = self._mark
        if mark is None or self._speed is None:
            return None
        read, sounds_at_s = mark
        session_s = self._end_s - (self._ring.written - read) / self.rate_hz
        offset_s = (origin_s + session_s + delay_s) - sounds_at_s
        smooth = offset_s if self._smooth_s is None else 0.9 * self._smooth_s + 0.1 * offset_s
        self._smooth_s = smooth
        if abs(smooth) > _REALIGN_S:
            self._realign(offset_s)
            return offset_s
        # Early voice must be slowed down: fewer samples of input for one of output.
        self._speed.correct(float(np.clip(-_CORRECTION_PER_S * smooth, -MAX_CORRECTION, MAX_CORRECTION)))
        return smooth

    def clear(self) -> None:
        """Forget what waits: it must not be heard any more."""
        self._pending_skip = len(self._ring)
        self._smooth_s = None

    def fill(self, out: np.ndarray, sounds_at_s: float) -> None:
        """The callback: fill float32 (n, 1) with what is due; silence, faded, where nothing is."""
        if self._pending_skip:
            self._ring.skip(self._pending_skip)
            self._pending_skip = 0
            self._fade_in = True
        wait = min(self._pending_wait, len(out))
        self._pending_wait -= wait
        out[:wait] = 0.0
        count = self._ring.read_into(out[wait:])
        self._mark = (self._ring.position, sounds_at_s + len(out) / self.rate_hz)
        heard = out[wait : wait + count]
        ramp = self._gain[: len(heard)]
        if self._fade_in and count:
            heard[: len(ramp)] *= ramp
            self._fade_in = False
        if wait + count < len(out):
            out[wait + count :] = 0.0
            if count:
                heard[-len(ramp) :] *= ramp[::-1]
            if self._ring.written:
                self.underruns += 1
            self._fade_in = True

    def _realign(self, offset_s: float) -> None:
        """Jump: skip what is late, or wait where the voice is early; the callback fades around it."""
        self.realigned += 1
        self._smooth_s = None
        self._mark = None
        samples = round(abs(offset_s) * self.rate_hz)
        if offset_s > 0:
            self._pending_wait += samples
            self._fade_in = True
        else:
            self._pending_skip = samples


class _VariableSpeed:
    """Mono blocks of one rate to another, a little faster or slower than they came; knows what it has consumed."""

    def __init__(self, source_rate_hz: int, rate_hz: int) -> None:
        self.source_rate_hz = source_rate_hz
        self._rate_hz = rate_hz
        self._slew = int(_SLEW_S * rate_hz)
        top = source_rate_hz * (1 + 2 * MAX_CORRECTION)
        self._resampler = soxr.ResampleStream(top, rate_hz, 1, dtype="float32", vr=True)
        self._resampler.set_io_ratio(source_rate_hz, rate_hz, 0)
        self._from = self._to = 0.0
        self._since = self._slew

    def push(self, mono: np.ndarray) -> tuple[np.ndarray, float]:
        """Output for float32 (n,), and how many seconds of source it stands for (some ms stay inside)."""
        out = self._resampler.resample_chunk(np.ascontiguousarray(mono))
        before, self._since = self._since, self._since + len(out)
        return out, (len(out) + self._extra(self._since) - self._extra(before)) / self._rate_hz

    def correct(self, correction: float) -> None:
        """Change the speed to 1 + `correction`, over 0.1 s; ignored while an earlier change is under way."""
        if self._since < self._slew or abs(correction - self._to) < 1e-5:
            return
        self._from, self._to, self._since = self._to, correction, 0
        self._resampler.set_io_ratio(self.source_rate_hz * (1 + correction), self._rate_hz, self._slew)

    def _extra(self, count: int) -> float:
        """Integral of the correction over the first `count` output samples since it began to change."""
        ramp = min(count, self._slew)
        change = self._to - self._from
        return self._from * ramp + change * ramp * ramp / (2 * self._slew) + self._to * (count - ramp)


class VoiceOut:
    """A `DelayLine` played on an output device, chosen by name and host API."""

    def __init__(self, name: str = "", host_api: str = "") -> None:
        self._index, device = find_device("output", name, host_api)
        self.label = device.name
        self.channels = min(2, device.channels)
        self.line = DelayLine(device.rate_hz)
        self._mono = np.zeros((1, 1), np.float32)
        self._stream: Any = None
        self.has_failed = False

    def start(self) -> None:
        """Open the device. Raises `VoiceOutError` with the cause."""
        library = sound_library()
        try:
            self._stream = library.OutputStream(
                device=self._index,
                samplerate=self.line.rate_hz,
                channels=self.channels,
                dtype="float32",
                blocksize=int(0.010 * self.line.rate_hz),
                latency="low",
                callback=self._callback,
                finished_callback=self._on_finished,
            )
            self._stream.start()
        except library.PortAudioError as error:
            if self._stream is not None:
                self._stream.close(ignore_errors=True)
                self._stream = None
            raise VoiceOutError(
                f'The sound output "{self.label}" could not be opened.',
                code="voice_out.failed",
                hint="It may be in use or gone: choose another one.",
                detail=str(error),
            ) from error
        OpenStream.opened()

    def stop(self) -> None:
        """Give the device back; safe to call twice."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        try:
            stream.abort(ignore_errors=True)
            stream.close(ignore_errors=True)
        except Exception as error:  # noqa: BLE001 - a device that is gone may fail in any way
            logger.warning("closing the sound output %s failed: %s", self.label, error)
        OpenStream.closed()

    def _callback(self, out: np.ndarray, frames: int, times: Any, status: Any) -> None:
        ahead_s = times.outputBufferDacTime - times.currentTime
        if not 0.0 <= ahead_s <= _LARGEST_OUTPUT_LATENCY_S:
            ahead_s = frames / self.line.rate_hz
        if len(self._mono) != frames:
            self._mono = np.zeros((frames, 1), np.float32)
        self.line.fill(self._mono, time.monotonic() + ahead_s)
        out[:] = self._mono

    def _on_finished(self) -> None:
        self.has_failed = self._stream is not None
