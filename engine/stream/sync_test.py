"""Are voice and picture together? Chirps through the whole pipeline, heard again, against the frames' own times."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from engine.audio.hearing import Hearing, open_hearing
from engine.audio.sync_memory import MOST_MS, opened_output, remember_ms
from engine.audio.voice_out import AnyVoiceOut, correction_s, open_voice_out
from engine.clock import Clock, SystemClock
from engine.errors import Cancelled, DeviceError
from engine.generators.base import FrameWriter, GeneratorSpec, Progress
from engine.media import SAMPLE_RATE_HZ, AudioChunk, ChunkSpec, Notice, Portrait, first_sample_of, frame_at
from engine.protocol.messages import SyncMeasured
from engine.settings import MicrophoneSource, SessionSettings, VoiceOutSettings
from engine.sinks.base import PresentedFrame
from engine.stream import output_memory
from engine.stream.graph import Graph
from engine.stream.swap import Scene
from engine.stream.sync_signal import ChirpSource, find_chirp

LEAST_SECONDS = 4.0
_FPS = 25
_QUIET_S = 1.5
"""Until the first chirp: devices start, and the delay line finds its place."""

_STEP_S = 0.002
_TELL_EVERY_S = 0.25
_AUDIO_EVERY_S = 0.010
_FIRST_FRAME_S = 0.050
_LARGEST_SPREAD_S = 0.025


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Of each chirp that was shown: how early it was heard in s, or None where it was not heard."""

    offsets_s: list[float | None]

    @property
    def heard(self) -> list[float]:
        """Offsets of those that were heard."""
        return [offset_s for offset_s in self.offsets_s if offset_s is not None]


class SyncTest:
    """One measurement. `run` is called once; `cancel` by any thread."""

    def __init__(
        self,
        voice_out: VoiceOutSettings,
        microphone: MicrophoneSource | None,
        *,
        seconds: float = 8.0,
        is_stored: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self._voice_out, self._microphone = voice_out, microphone
        self._seconds, self._is_stored = max(LEAST_SECONDS, seconds), is_stored
        self._clock = clock or SystemClock()
        self._cancelled = threading.Event()
        self._opened = ("", "")

    def cancel(self) -> None:
        """End a running test with `Cancelled` soon."""
        self._cancelled.set()

    def run(self, progress: Progress) -> SyncMeasured:
        """Play, listen, compare, store. Raises `DeviceError` and its kinds where a device cannot be used or the
        chirps were not heard well enough to say anything, and `Cancelled`."""
        voice = open_voice_out(self._voice_out)
        self._opened = opened_output(self._voice_out.name, self._voice_out.host_api)
        voice.start()
        try:
            hearing = open_hearing(voice, self._microphone)
            try:
                compared = self._measure(voice, hearing, progress)
            finally:
                hearing.close()
        finally:
            voice.stop()
        return self._judged(compared, voice, hearing)

    def _measure(self, voice: AnyVoiceOut, hearing: Hearing, progress: Progress) -> Comparison:
        rig = _Rig(voice, self._clock, output_memory.delay_for(self._voice_out, voice.line.offset_s))
        source = ChirpSource(self._seconds, _QUIET_S)
        rig.begin(source)
        started_s, told_s = self._clock.now(), -1.0
        while (passed_s := self._clock.now() - started_s) < self._seconds + rig.graph.delay_s + 0.5:
            if self._clock.wait_until(min(self._clock.now() + _STEP_S, rig.frame_due_s), self._cancelled):
                raise Cancelled("The sync test was stopped.")
            rig.step()
            if passed_s - told_s >= _TELL_EVERY_S and passed_s < self._seconds:
                told_s = passed_s
                progress.update("sync test", passed_s, self._seconds, "s")
        progress.update("sync test", self._seconds, self._seconds, "s")
        hearing.stop()
        if self._is_stored and voice.line.late_s > 0.0:
            needed_s = rig.graph.delay_s + voice.line.late_s
            output_memory.remember(self._voice_out, needed_s, voice.line.offset_s)
        return compare(source.begins_s, rig, hearing)

    def _judged(self, compared: Comparison, voice: AnyVoiceOut, hearing: Hearing) -> SyncMeasured:
        heard = compared.heard
        if len(heard) < max(2, len(compared.offsets_s) // 2):
            raise _not_heard(len(heard), len(compared.offsets_s), voice, hearing)
        # What this test's own delay was too short for is no correction: the next one is made for it.
        offset_s = float(np.median(heard)) + voice.line.late_s
        spread_s = float(np.subtract(*np.percentile(heard, [75, 25])))
        if spread_s > _LARGEST_SPREAD_S:
            raise DeviceError(
                f"The clicks were heard unevenly, {1000 * spread_s:.0f} ms apart, so nothing can be said from them.",
                code="sync.unsteady",
                hint="Close programs that keep the computer busy, and test again.",
            )
        correction_ms = 1000 * (correction_s(self._voice_out) + offset_s)
        if abs(correction_ms) > MOST_MS:
            raise DeviceError(
                f"The sound is {abs(1000 * offset_s):.0f} ms too {'early' if offset_s > 0 else 'late'}, "
                "which is more than can be made good.",
                code="sync.too_far",
                hint="Choose another sound output; Bluetooth ones are late by that much.",
            )
        return SyncMeasured(
            offset_ms=round(1000 * offset_s, 1),
            spread_ms=round(1000 * spread_s, 1),
            played=len(compared.offsets_s),
            heard=len(heard),
            correction_ms=round(correction_ms, 1),
            is_stored=self._is_stored and self._store(correction_ms),
        )

    def _store(self, correction_ms: float) -> bool:
        output_memory.remember_correction(self._voice_out, 1e-3 * correction_ms)
        try:
            remember_ms(*self._opened, correction_ms)
        except OSError as error:
            raise DeviceError(
                "The correction could not be stored.",
                code="sync.not_stored",
                hint="Free some space, or see who may write into the folder of Standin's data.",
                detail=str(error),
            ) from error
        return True


def compare(begins_s: list[float], rig: _Rig, hearing: Hearing) -> Comparison:
    """Each chirp by when its frame was shown and when it was heard. `begins_s` is where to look in the sound."""
    timeline = rig.marker.heard_sound()
    sound, sound_at_s = hearing.recorded()
    offsets_s: list[float | None] = []
    for begin_s in begins_s:
        begins = find_chirp(timeline, SAMPLE_RATE_HZ, begin_s, 0.3)
        shown_s = rig.shown_at(round(begins * SAMPLE_RATE_HZ)) if begins is not None else None
        if shown_s is None:
            continue
        heard_s = find_chirp(sound, hearing.rate_hz, shown_s - sound_at_s)
        offsets_s.append(None if heard_s is None else shown_s - (sound_at_s + heard_s))
    return Comparison(offsets_s=offsets_s)


class _Rig:
    """A session without a portrait: the real pipeline with a generator that marks its frames, in one thread."""

    def __init__(self, voice: AnyVoiceOut, clock: Clock, least_delay_s: float) -> None:
        self._voice, self._clock = voice, clock
        self._shown_s: dict[int, float] = {}
        self._failure: Exception | None = None
        self._audio_due_s = 0.0
        self.frame_due_s = 0.0
        """When the next frame is to be shown."""
        self.marker = MarkerGenerator(_FPS)
        self.graph = Graph(
            Scene(generator=self.marker, canvas=_AsItIs, generate_s=0.001, first_frame_s=0.001),
            SessionSettings(portrait="", fps=_FPS),
            clock,
            present=self._present,
            on_failure=self._failed,
            coming=(self.marker.spec.chunk, _FIRST_FRAME_S),
            least_delay_s=least_delay_s,
        )
        self.graph.listener.voice = voice.line.write

    def begin(self, source: ChirpSource) -> None:
        source.start(self._clock)
        self.graph.go_live(source)
        self._audio_due_s = self.frame_due_s = self._clock.now()

    def step(self) -> None:
        """What is due; called every few ms. Raises what the pipeline failed with."""
        now_s = self._clock.now()
        if now_s >= self._audio_due_s:
            self._audio_due_s = max(self._audio_due_s + _AUDIO_EVERY_S, now_s)
            self.graph.listener.step()
            self.graph.steer(self._voice.line)
        while self.graph.runner.step():
            pass
        now_s = self._clock.now()
        if now_s >= self.frame_due_s:
            self.frame_due_s = self.graph.pacer.tick(now_s)
        if self._failure is not None:
            raise self._failure
        if self._voice.has_failed:
            raise DeviceError(f'The sound output "{self._voice.label}" is gone.', code="voice_out.lost")

    def shown_at(self, sample: int) -> float | None:
        """When the moment of `sample` was shown: its frame's hand-over, and the rest of that frame's time."""
        frame = frame_at(sample, _FPS)
        handed_over_s = self._shown_s.get(frame)
        return (
            None if handed_over_s is None else handed_over_s + (sample - first_sample_of(frame, _FPS)) / SAMPLE_RATE_HZ
        )

    def _present(self, frame: PresentedFrame) -> None:
        self._shown_s.setdefault(frame.frame, self._clock.now())

    def _failed(self, error: Exception) -> None:
        self._failure = error


class _AsItIs:
    @staticmethod
    def compose(image: np.ndarray) -> np.ndarray:
        return image


class MarkerGenerator:
    """A `Generator` of frames that flash where there is sound; it keeps what it has heard, by timeline sample."""

    def __init__(self, fps: int) -> None:
        chunk = ChunkSpec(fps=fps, frames=1)
        self.spec = GeneratorSpec(name="marker", width=64, height=36, chunk=chunk)
        self._parts: list[tuple[int, np.ndarray]] = []

    def heard_sound(self) -> np.ndarray:
        """float32 (n,) at 16 kHz from timeline sample 0; what was skipped is silent."""
        end = max((first + len(part) for first, part in self._parts), default=0)
        sound = np.zeros(end, np.float32)
        for first, part in self._parts:
            sound[first : first + len(part)] = part
        return sound

    def check(self) -> None:
        pass

    def prepare(self, portrait: Portrait, size: tuple[int, int], progress: Progress) -> list[Notice]:
        return []

    def generate(self, chunk: AudioChunk, frames: FrameWriter) -> None:
        self._parts.append((chunk.first_sample, np.array(chunk.samples)))
        frames.next_image()[:] = 255 if np.abs(chunk.samples).max(initial=0.0) > 0.1 else 0
        frames.commit(chunk.first_frame)

    def take_notices(self) -> list[Notice]:
        return []

    def reset(self) -> None:
        pass

    def close(self) -> None:
        pass


def _not_heard(heard: int, played: int, voice: AnyVoiceOut, hearing: Hearing) -> DeviceError:
    what = "None" if heard == 0 else f"Only {heard}"
    sound, _ = hearing.recorded()
    if len(sound) == 0 or not sound.any():
        hint = f'"{hearing.label}" delivers exact silence: see whether it is muted, or choose another microphone.'
    else:
        hint = f'Turn up the volume of "{voice.label}" and hold the microphone to it, or choose another one of the two.'
    return DeviceError(
        f'{what} of the {played} clicks played on "{voice.label}" could be heard through "{hearing.label}".',
        code="sync.not_heard",
        hint=hint,
    )
