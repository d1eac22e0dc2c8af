"""The parts of a live session and how they are connected, without a thread of its own.

Tests step through it with a `ManualClock`; `Broadcast` gives each step its thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from engine.audio.sources import AudioSource
from engine.audio.suppression import HELD_S
from engine.audio.voice_out import DelayLine
from engine.clock import Clock
from engine.errors import StandinError
from engine.media import SAMPLE_RATE_HZ, ChunkSpec, Notice, first_sample_of
from engine.protocol.messages import Stats
from engine.settings import GateSettings, SessionSettings
from engine.sinks.base import PresentedFrame
from engine.stream.deadlines import needed_delay_s
from engine.stream.frame_queue import FrameQueue
from engine.stream.lateness import VOICE_TOO_SLOW, Lateness
from engine.stream.listener import Listener
from engine.stream.pace import Pace
from engine.stream.pacer import Pacer
from engine.stream.runner import GeneratorRunner
from engine.stream.sample_clock import SampleClock
from engine.stream.swap import Scene
from engine.stream.timeline import CAPTURE_S, Timeline

_SPEECH_DBFS = -50.0
_FEWEST_SLOTS = 16
"""Frames of a quick generator that may wait: those of its lead, and some."""


class Graph:
    """Built for one prepared scene; `go_live` starts its clock. `listener.step`, `runner.step` and `pacer.tick`
    are then called by one thread each."""

    def __init__(
        self,
        scene: Scene,
        settings: SessionSettings,
        clock: Clock,
        *,
        present: Callable[[PresentedFrame], None],
        on_failure: Callable[[StandinError], None],
        on_notice: Callable[[Notice], None] | None = None,
        standby: Scene | None = None,
        coming: tuple[ChunkSpec, float] | None = None,
        least_delay_s: float = 0.0,
        on_pace: Callable[[Pace], None] | None = None,
    ) -> None:
        """`coming` is what a generator that is still to take over wants, and the seconds to its first frame: the
        session's delay is made for it, because a delay that changes on the way is seen and heard. `least_delay_s` is
        what the voice out needs of it."""
        wants = [(scene.generator.spec.chunk, scene.first_frame_s), *([coming] if coming is not None else [])]
        self._clock = clock
        self._on_notice = on_notice
        self._fps = settings.fps
        capture_s = CAPTURE_S + (HELD_S if settings.sound.has_noise_suppression else 0.0)
        needed_s = max(needed_delay_s(spec, first_frame_s, capture_s) for spec, first_frame_s in wants)
        self.delay_s = max(needed_s, least_delay_s)
        self.sample_clock = SampleClock(clock.now())
        self.timeline = Timeline(kept_s=max(4.0, 3 * self.delay_s))
        self.queue = FrameQueue(slots=self._slots(wants))
        self.listener = Listener(self.timeline, self.sample_clock, clock)
        self.listener.has_suppression = settings.sound.has_noise_suppression
        self.runner = GeneratorRunner(
            scene,
            self.timeline,
            self.queue,
            self.sample_clock,
            clock,
            delay_s=self.delay_s,
            on_failure=on_failure,
            on_notice=on_notice,
            standby=standby,
            on_pace=on_pace,
        )
        self.pacer = Pacer(
            self.queue,
            self.sample_clock,
            fps=settings.fps,
            delay_s=self.delay_s,
            compose=_compose,
            present=present,
        )
        self._live_s = clock.now()
        self._counted = (clock.now(), 0)
        self._shown_fps = 0.0
        self._voice_offset_s: float | None = None
        self._lateness = Lateness(clock)

    def _slots(self, wants: list[tuple[ChunkSpec, float]]) -> int:
        """A frame waits for less than the delay, so that no more of them than that can be waiting."""
        most_frames = max(spec.frames for spec, _ in wants)
        return max(_FEWEST_SLOTS, 2 * most_frames, math.ceil(self.delay_s * self._fps) + 1)

    def go_live(self, source: AudioSource, gate: GateSettings | None = None) -> None:
        """Sample 0 is now; `source` has just been started, and is heard through `gate`."""
        self._live_s = self._clock.now()
        self._counted = (self._live_s, 0)
        self.sample_clock.begin(self._live_s)
        self.listener.take_from(source, gate)

    def steer(self, voice: DelayLine) -> None:
        """Keep the voice with the picture; called by the audio thread after each step."""
        self._voice_offset_s = voice.steer(self.delay_s, self.sample_clock.time_of(0))

    def silence_unpresented(self) -> None:
        """What has been said but not shown yet is not shown: its sound becomes silence, and pictures that have been
        made of it are dropped. The last one is held until there are others, at most about as long as a chunk takes."""
        self.listener.silence_from(max(0, self.sample_clock.sample_at(self._clock.now() - self.delay_s)))
        self.runner.begin_anew()

    def look(self, voice: DelayLine | None) -> float | None:
        """Tell once of devices that are slower than the session's delay; called a few times a second. The delay in s
        with which the voice would be in time, when it has just been told that it is not."""
        notices = self._lateness.of_microphone(self.listener) + self._lateness.of_voice(voice)
        if self._on_notice is not None:
            for notice in notices:
                self._on_notice(notice)
        is_told = any(notice.code == VOICE_TOO_SLOW for notice in notices)
        return self.delay_s + voice.late_s if is_told and voice is not None else None

    def is_shown(self, sample: int) -> bool:
        """Whether `sample` has been presented."""
        return self._clock.now() > self.sample_clock.time_of(sample) + self.delay_s + 1 / self._fps

    def stats(self, voice: DelayLine | None) -> Stats:
        """A snapshot of all counters; called by one thread, a few times a second."""
        now_s = self._clock.now()
        pacer, runner, meter = self.pacer, self.runner, self.listener.meter
        since_s, presented = self._counted
        if now_s - since_s >= 1.0:
            self._shown_fps = (pacer.presented - presented) / (now_s - since_s)
            self._counted = (now_s, pacer.presented)
        source, gate = self.listener.source, self.listener.gate
        latency_s = pacer.latency_s()
        is_loud = meter.rms_dbfs > _SPEECH_DBFS
        ahead = self.timeline.end - first_sample_of(runner.next_frame, self._fps)
        return Stats(
            time_s=round(now_s - self._live_s, 3),
            fps=round(self._shown_fps, 2),
            ticks=pacer.ticks,
            presented=pacer.presented,
            held=pacer.held,
            dropped=pacer.dropped + self.queue.dropped,
            late=pacer.late,
            skipped_samples=runner.skipped_samples,
            generator=runner.scene.generator.spec.name,
            recoveries=runner.recoveries,
            missing_samples=self.listener.missing_samples,
            overflows=source.overflows if source is not None else 0,
            delay_ms=round(1000 * self.delay_s, 1),
            latency_ms=round(1000 * (latency_s + self.listener.way.extra_s), 1) if pacer.presented else 0.0,
            generate_ms=round(1000 * runner.generate_s, 2),
            av_offset_ms=None if voice is None else self._av_offset_ms(latency_s),
            level_dbfs=round(meter.rms_dbfs, 1),
            peak_dbfs=round(meter.peak_dbfs, 1),
            is_speaking=is_loud if gate is None else gate.is_open,
            gate_dbfs=None if gate is None else round(gate.threshold_dbfs, 1),
            is_talking=self.listener.talk_key.is_held,
            audio_queue_ms=round(max(0, ahead) * 1000 / SAMPLE_RATE_HZ, 1),
            frame_queue_ms=round(len(self.queue) * 1000 / self._fps, 1),
            voice_queue_ms=round(1000 * voice.queue_s, 1) if voice is not None else 0.0,
        )

    def _av_offset_ms(self, latency_s: float) -> float | None:
        """Voice against picture, as they are played and shown after `latency_s`; None before any sound."""
        if self._voice_offset_s is None:
            return None
        late_s = latency_s - self.delay_s if self.pacer.presented else 0.0
        return round(1000 * (self._voice_offset_s + late_s), 1)


def _compose(image: np.ndarray, canvas: Any) -> np.ndarray:
    return canvas.compose(image)
