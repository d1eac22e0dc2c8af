"""Takes sound from the source to everything that needs it: timeline, meter, voice out, recording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import soxr  # pyright: ignore[reportMissingTypeStubs]

from engine.audio.gate import HeldBackGate, NoiseGate
from engine.audio.level import LevelMeter
from engine.audio.sources import AudioSource
from engine.audio.suppression import RATE_HZ as SUPPRESSION_RATE_HZ
from engine.audio.suppression import Suppressor
from engine.audio.talk import TalkKey
from engine.clock import Clock
from engine.media import SAMPLE_RATE_HZ, AudioBlock
from engine.settings import GateSettings
from engine.sinks.base import AudioSink
from engine.stream.capture_way import MOST_S, CaptureWay
from engine.stream.sample_clock import RESYNC_S, SampleClock
from engine.stream.timeline import CAPTURE_S, Timeline

_STARVED_S = 0.150
"""A microphone that delivers nothing must not stop the picture: past this the timeline goes on without it. Sound
servers under load deliver up to 100 ms at once; cutting into that would cost words."""

_AHEAD_S = 0.040
"""The timeline may be this far ahead of a block (rounding, starvation) before the block is placed anew."""

_FUTURE_S = 0.200
"""No sound belongs this long after its capture. It would where a server hands out at once what it has kept for a
program that was stopped, as if it had just been said."""

VoiceWriter = Callable[[np.ndarray, int, float], None]


class Listener:
    """The pure part is `step`; the audio thread calls it every 10 ms. Other methods come from the session's thread,
    and only while the audio thread is told to pause (`Broadcast` holds one lock around both)."""

    def __init__(self, timeline: Timeline, sample_clock: SampleClock, clock: Clock) -> None:
        self._timeline = timeline
        self._sample_clock = sample_clock
        self._clock = clock
        self._source: AudioSource | None = None
        self._start_s: float | None = None
        self._taken_s = self._looked_s = 0.0
        self.way = CaptureWay()
        self._resampler: _ToMono16k | _Suppressed | None = None
        self._gate: NoiseGate | None = None
        self._heard_gate: HeldBackGate | None = None
        self.meter = LevelMeter()
        self.is_muted = False
        self.has_suppression = False
        """Noise suppression in front of the generator; set before `take_from`."""
        self.talk_key = TalkKey()
        self.recorder: AudioSink | None = None
        self.voice: VoiceWriter | None = None
        self.missing_samples = 0
        self._is_starved = False
        self.heard_until = 0
        self.zero_s = 0.0
        """How long the source has delivered nothing but exact zeros."""

    @property
    def source(self) -> AudioSource | None:
        """Where sound comes from now."""
        return self._source

    @property
    def gate(self) -> NoiseGate | None:
        """The gate in front of the generator, if there is one."""
        return self._gate

    def take_from(self, source: AudioSource, gate: GateSettings | None = None) -> None:
        """From now on listen to `source`, which has been started, through a gate if there are settings of one."""
        self._source = source
        self._start_s = None
        self._taken_s, self.way = self._clock.now(), CaptureWay()
        self.zero_s = 0.0
        self._resampler = self._new_resampler(source.rate_hz)
        self.set_gate(gate)

    def set_gate(self, gate: GateSettings | None) -> None:
        """Put another gate in front of the generator, or (None, or "off") none."""
        self._gate = self._heard_gate = None
        if gate is None or gate.mode == "off":
            return
        self._gate = NoiseGate(gate, SAMPLE_RATE_HZ)
        if gate.is_heard and self._source is not None:
            self._heard_gate = HeldBackGate(gate, self._source.rate_hz, self._source.channels)

    def step(self) -> None:
        """Pass on what has been captured; keep the timeline going if nothing has."""
        block = self._source.read() if self._source is not None else None
        if block is not None:
            self._pass_on(block)
            self._is_starved = False
        self._looked_s = self._clock.now()
        behind = self._sample_clock.sample_at(self._clock.now()) - self._timeline.end
        self._is_starved |= behind > _STARVED_S * SAMPLE_RATE_HZ
        missing = behind - int(CAPTURE_S * SAMPLE_RATE_HZ)
        if self._is_starved and missing > 0:
            self._timeline.append_silence(missing)
            if self._source is not None and not self._source.has_ended and not self._is_awaited():
                self.missing_samples += missing
            self._start_s = None  # whatever comes next is put where it was captured

    def _is_awaited(self) -> bool:
        """Whether the source's first sound may still be on its way: then nothing is missing."""
        return not self.way.has_begun and self._clock.now() - self._taken_s < MOST_S

    def silence_from(self, sample: int) -> None:
        """What was said from `sample` on must not be shown any more (mute)."""
        self._timeline.silence_from(sample)
        self._forget_gated()

    def _pass_on(self, block: AudioBlock) -> None:
        assert self._resampler is not None
        self.zero_s = 0.0 if block.samples.any() else self.zero_s + len(block.samples) / block.rate_hz
        samples = np.zeros_like(block.samples) if self.is_muted else _finite(block.samples)
        samples = self.talk_key.applied(samples, block.captured_at_s, block.rate_hz)
        self.meter.push(samples, block.rate_hz)
        now_s = self._clock.now()
        if self.way.note(block, now_s, now_s - self._looked_s):
            self._start_s = None
        block = replace(block, captured_at_s=block.captured_at_s + self.way.extra_s)
        start_s, samples = self._placed(block, samples)
        if len(samples) == 0:
            return
        self._let_hear(samples, block.rate_hz, start_s)
        mono, redo = self._resampler.push(samples), 0
        if self._gate is not None:
            redo, mono = self._gate.push(mono)
        self._timeline.append(mono, redo)
        self.heard_until = self._timeline.end

    def _let_hear(self, samples: np.ndarray, rate_hz: int, start_s: float) -> None:
        """To the delayed voice and the recording, through the gate if others are to hear it."""
        if self._heard_gate is not None:
            held, samples = self._heard_gate.push(samples)
            start_s -= held / rate_hz
            if len(samples) == 0:
                return
        if self.voice is not None:
            self.voice(samples, rate_hz, start_s)
        if self.recorder is not None:
            self.recorder.write_audio(samples, round(start_s * rate_hz), rate_hz)

    def _placed(self, block: AudioBlock, samples: np.ndarray) -> tuple[float, np.ndarray]:
        """The block's time on the session's scale, and its samples, cut where the timeline has gone on without it."""
        if self._start_s is not None:
            start_s = self._start_s + block.first_sample / block.rate_hz
            deviation_s = self._sample_clock.observe(round(start_s * SAMPLE_RATE_HZ), block.captured_at_s)
            ahead_s = self._timeline.end / SAMPLE_RATE_HZ - start_s
            future_s = self._sample_clock.time_of(round(start_s * SAMPLE_RATE_HZ)) - block.captured_at_s
            if abs(deviation_s) < RESYNC_S and ahead_s < _AHEAD_S and future_s < _FUTURE_S:
                return start_s, samples
        return self._placed_anew(block, samples)

    def _placed_anew(self, block: AudioBlock, samples: np.ndarray) -> tuple[float, np.ndarray]:
        """Put the block where it was captured: silence before it, or without what came too late."""
        self._resampler = self._new_resampler(block.rate_hz)
        self._forget_gated()
        self._sample_clock.forget_deviation()
        target = self._sample_clock.sample_at(block.captured_at_s)
        if target > self._timeline.end:
            self._timeline.append_silence(target - self._timeline.end)
        late = min(len(samples), round((self._timeline.end - target) * block.rate_hz / SAMPLE_RATE_HZ))
        start_s = self._timeline.end / SAMPLE_RATE_HZ
        self._start_s = start_s - (block.first_sample + late) / block.rate_hz
        return start_s, samples[late:]

    def _new_resampler(self, rate_hz: int) -> _ToMono16k | _Suppressed:
        return _Suppressed(rate_hz) if self.has_suppression else _ToMono16k(rate_hz)

    def _forget_gated(self) -> None:
        for gate in (self._gate, self._heard_gate):
            if gate is not None:
                gate.forget()


def _finite(samples: np.ndarray) -> np.ndarray:
    """Drivers have been seen to deliver what is no number; in a filter it would stay for good."""
    finite = np.isfinite(samples)
    return samples if finite.all() else np.where(finite, samples, np.float32(0))


class _ToMono16k:
    """Mono or stereo blocks of one rate -> mono at 16 kHz; soxr keeps its state, so no sample is lost in the long run.

    soxr's low-delay recipe holds 20 ms back where its better ones hold 40: speech needs none of what they add.
    """

    def __init__(self, rate_hz: int) -> None:
        is_needed = rate_hz != SAMPLE_RATE_HZ
        self._resampler = (
            soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="LQ") if is_needed else None
        )

    def push(self, samples: np.ndarray) -> np.ndarray:
        mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
        if self._resampler is None:
            return mono
        return self._resampler.resample_chunk(np.ascontiguousarray(mono))


class _Suppressed:
    """As `_ToMono16k`, without the room's noise; holds `HELD_S` more back."""

    def __init__(self, rate_hz: int) -> None:
        is_needed = rate_hz != SUPPRESSION_RATE_HZ
        self._to_48k = (
            soxr.ResampleStream(rate_hz, SUPPRESSION_RATE_HZ, 1, dtype="float32", quality="LQ") if is_needed else None
        )
        self._suppressor = Suppressor()
        self._to_16k = _ToMono16k(SUPPRESSION_RATE_HZ)

    def push(self, samples: np.ndarray) -> np.ndarray:
        mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
        if self._to_48k is not None:
            mono = self._to_48k.resample_chunk(np.ascontiguousarray(mono))
        return self._to_16k.push(self._suppressor.push(mono)[:, None])
