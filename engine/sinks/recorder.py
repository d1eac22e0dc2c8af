"""Picture and sound of a session into an MP4 (H.264 + AAC) that plays everywhere and survives a crash."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from fractions import Fraction
from pathlib import Path

import av
import av.container
import av.error
import numpy as np
import soxr

from engine.errors import OutputError
from engine.media import CanvasFormat
from engine.paths import expanded
from engine.sinks.base import PresentedFrame
from engine.sinks.boxes import cut_broken_end
from engine.sinks.files import check_writable, output_error

logger = logging.getLogger(__name__)

AUDIO_RATE_HZ = 48_000
_AAC_FRAME = 1024
_AAC_PRIMING = 1024
"""Samples by which FFmpeg's AAC encoder runs behind. The first 21 ms of sound make room for them: the other ways are
an edit list, which players ignore, and moving the picture, which is wrong."""
_JOIN_SAMPLES = AUDIO_RATE_HZ // 200
"""Blocks within 5 ms of where the last one ended are joined without a seam: clocks jitter by that much."""

_PATIENCE_S = 0.5
"""Sound that is later than this behind its picture becomes silence: without sound FFmpeg would keep every picture in
memory, and a crash would lose them."""

_FRAGMENTED = "frag_keyframe+empty_moov+default_base_moof"
_HYBRID = "hybrid_fragmented"
"""Fragmented while it grows (playable after a crash), an ordinary MP4 once closed; FFmpeg 7.1 and later."""

_MOST_SOUND_S = 20.0
"""Sound comes the session's delay before its picture, some seconds at most."""

_SLEPT_S = 300.0
"""So long without a picture is a computer that slept (on Windows the clock goes on meanwhile): a night of nothing is no
part of a recording. What is shorter stays as it was."""


class Recorder:
    """A `VideoSink` and `AudioSink` that writes one file. Times are the session's: the first picture is 0 s.

    `send`, `open` and `close` belong to the mailbox thread, `write_audio` to the audio thread. Sound is encoded up to
    the picture's time only, so that both end together. `quality` is x264's constant rate factor.
    """

    name = "recorder"

    def __init__(
        self,
        path: str | Path,
        *,
        may_replace: bool = False,
        preset: str = "veryfast",
        quality: int = 20,
        title: str = "",
    ) -> None:
        self.path = expanded(path)
        if self.path.suffix.lower() not in (".mp4", ".m4v", ".mov"):
            raise OutputError(
                f"{self.path.name} does not end in .mp4.",
                code="output.format",
                hint="Give the recording a name ending in .mp4.",
            )
        check_writable(self.path, may_replace=may_replace)
        # B-frames would need an edit list to start at 0 s, and several players ignore those.
        self._options = {"preset": preset, "crf": str(quality), "bf": "0"}
        self._title = title
        self._lock = threading.Lock()
        self._blocks: deque[tuple[np.ndarray, int, int]] = deque()
        self._is_silenced = False
        self._container: av.container.OutputContainer | None = None
        self._first_tick = 0
        self._last_tick = -1
        self._is_broken = False

    def open(self, canvas: CanvasFormat) -> None:
        """Get ready; the file itself begins with the first picture (FFmpeg cannot close one without)."""
        self._canvas = canvas
        self._track = _SoundTrack()

    def _begin(self, tick: int) -> av.container.OutputContainer:
        self._first_tick = tick
        try:
            self._container = self._created(_HYBRID)
        except (av.error.FFmpegError, ValueError) as error:
            if isinstance(error, OSError) and error.errno:
                raise output_error(self.path, error) from error
            logger.info("this FFmpeg writes no hybrid MP4 (%s); the recording stays fragmented", error)
            self._container = self._created(_FRAGMENTED)
        return self._container

    def send(self, frame: PresentedFrame) -> None:
        """Encode one picture at `tick / fps` after the first one, and the sound up to its end."""
        container = self._container or self._begin(frame.tick)
        tick = frame.tick - self._first_tick
        if tick <= self._last_tick:
            return
        picture = av.VideoFrame.from_ndarray(frame.image, format="rgb24").reformat(
            format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
        )
        picture.time_base = Fraction(1, self._canvas.fps)
        try:
            if tick - self._last_tick > _SLEPT_S * self._canvas.fps:
                self._leave_out(tick - self._last_tick - 1, container)
                tick = self._last_tick + 1
            self._last_tick = picture.pts = tick
            container.mux(self._video.encode(picture))
            self._drain_audio((tick + 1) / self._canvas.fps, container)
        except OSError as error:  # PyAV's file errors are OSErrors too
            self._is_broken = True
            raise output_error(self.path, error) from error

    def _leave_out(self, ticks: int, container: av.container.OutputContainer) -> None:
        """So many ticks after the last picture: what comes is joined to what there is, sound with its picture."""
        between_s = (self._first_tick + self._last_tick + ticks / 2) / self._canvas.fps
        with self._lock:
            blocks, self._blocks = self._blocks, deque()
            later = [block for block in blocks if block[1] / block[2] >= between_s]
            self._blocks.extend(block for block in blocks if block[1] / block[2] < between_s)
        self._drain_audio((self._last_tick + 1) / self._canvas.fps, container)
        with self._lock:
            self._blocks.extendleft(reversed(later))
        self._first_tick += ticks

    def write_audio(self, samples: np.ndarray, first_sample: int, rate_hz: int) -> None:
        """Queue a copy of float32 (n, channels), starting `first_sample / rate_hz` seconds into the session. Where a
        disk takes nothing for so long that too much waits, the oldest becomes silence."""
        with self._lock:
            self._blocks.append((np.array(samples, dtype=np.float32), first_sample, rate_hz))
            while first_sample / rate_hz - self._blocks[0][1] / self._blocks[0][2] > _MOST_SOUND_S:
                self._blocks.popleft()

    def silence(self) -> None:
        """What has been said but whose picture has not been recorded yet is not recorded. From the audio thread."""
        with self._lock:
            self._blocks = deque((np.zeros_like(block), first, rate_hz) for block, first, rate_hz in self._blocks)
            self._is_silenced = True

    def close(self) -> None:
        """Complete the file, if there was a picture. Raises `OutputError` where the end could not be written; what
        was recorded until then plays."""
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            self._complete(container)
        except OSError as error:
            self._is_broken = True
            with contextlib.suppress(OSError):
                container.close()  # or it would try again, and complain, when it is collected
            raise output_error(self.path, error) from error
        finally:
            if self._is_broken:
                self._mend()

    def _complete(self, container: av.container.OutputContainer) -> None:
        end_s = (self._last_tick + 1) / self._canvas.fps
        self._drain_audio(end_s, container)
        for block in self._track.finish(end_s):
            self._encode_audio(block, container)
        container.mux(self._audio.encode(None))
        container.mux(self._video.encode(None))
        container.close()

    def _mend(self) -> None:
        try:
            cut = cut_broken_end(self.path)
        except OSError as error:
            logger.warning("the end of the recording could not be mended: %s", error)
        else:
            logger.info("cut %d bytes of an unfinished fragment from the recording", cut)

    def _created(self, flags: str) -> av.container.OutputContainer:
        # Flushed, or a crash would lose up to 256 kB more, which is ten seconds of a calm picture.
        options = {"movflags": flags, "flush_packets": "1"}
        container = av.open(str(self.path), "w", format="mp4", options=options)
        container.metadata["comment"] = "AI avatar made with Standin"
        container.metadata["title"] = self._title or self.path.stem
        self._video = container.add_stream("libx264", rate=self._canvas.fps, options=self._options)
        self._video.width, self._video.height = self._canvas.width, self._canvas.height
        self._video.pix_fmt = "yuv420p"
        self._video.codec_context.gop_size = 2 * self._canvas.fps
        self._video.codec_context.time_base = Fraction(1, self._canvas.fps)
        # Without these flags players guess, and skin looks slightly off.
        context = self._video.codec_context
        context.color_primaries = context.color_trc = context.colorspace = 1  # ITU-R BT.709
        context.color_range = 1
        self._audio = container.add_stream("aac", rate=AUDIO_RATE_HZ, layout="mono")
        self._audio.bit_rate = 128_000
        container.start_encoding()
        return container

    def _drain_audio(self, until_s: float, container: av.container.OutputContainer) -> None:
        with self._lock:
            blocks, self._blocks = list(self._blocks), deque()
            is_silenced, self._is_silenced = self._is_silenced, False
        if is_silenced:
            self._track.silence()
        start_s = self._first_tick / self._canvas.fps
        for samples, first_sample, rate_hz in blocks:
            self._track.add(samples, first_sample / rate_hz - start_s, rate_hz)
        for block in self._track.take(until_s):
            self._encode_audio(block, container)

    def _encode_audio(self, block: np.ndarray, container: av.container.OutputContainer) -> None:
        frame = av.AudioFrame.from_ndarray(block[None, :], format="fltp", layout="mono")
        frame.sample_rate = AUDIO_RATE_HZ
        frame.pts = self._track.encoded
        frame.time_base = Fraction(1, AUDIO_RATE_HZ)
        self._track.encoded += len(block)
        container.mux(self._audio.encode(frame))


class _SoundTrack:
    """Blocks of any rate with their times -> one gapless mono track at 48 kHz, cut into AAC frames."""

    def __init__(self) -> None:
        self.encoded = _AAC_PRIMING
        self._pending = np.zeros(0, np.float32)
        self._end = _AAC_PRIMING  # where the next sample goes, in samples from 0 s
        self._overlap = _AAC_PRIMING
        self._rate_hz = 0
        self._resampler: soxr.ResampleStream | None = None

    def add(self, samples: np.ndarray, start_s: float, rate_hz: int) -> None:
        mono = samples.mean(axis=1, dtype=np.float32) if samples.ndim == 2 else samples
        is_joined = rate_hz == self._rate_hz and abs(start_s - self._source_end_s) * AUDIO_RATE_HZ <= _JOIN_SAMPLES
        if self._resampler is None or not is_joined:
            self._flush_resampler()
            self._rate_hz = rate_hz
            self._resampler = soxr.ResampleStream(rate_hz, AUDIO_RATE_HZ, 1, dtype="float32")
            self._place(round(start_s * AUDIO_RATE_HZ))
            self._source_end_s = start_s
        self._source_end_s += len(mono) / rate_hz
        self._append(self._resampler.resample_chunk(mono))

    def silence(self) -> None:
        """Everything that has been added and not taken."""
        self._flush_resampler()
        self._pending = np.zeros_like(self._pending)

    def take(self, until_s: float) -> list[np.ndarray]:
        """AAC frames that lie wholly before `until_s`."""
        self._fill(until_s - _PATIENCE_S)
        ready = min(len(self._pending), round(until_s * AUDIO_RATE_HZ) - (self._end - len(self._pending)))
        count = max(0, ready) // _AAC_FRAME
        blocks = [self._pending[i * _AAC_FRAME : (i + 1) * _AAC_FRAME] for i in range(count)]
        self._pending = self._pending[count * _AAC_FRAME :]
        return blocks

    def finish(self, until_s: float) -> list[np.ndarray]:
        """The rest up to `until_s`, silence where there was no sound."""
        self._flush_resampler()
        self._fill(until_s)
        wanted = round(until_s * AUDIO_RATE_HZ) - (self._end - len(self._pending))
        rest = self._pending[: max(0, wanted)]
        return [rest[i : i + _AAC_FRAME] for i in range(0, len(rest), _AAC_FRAME)]

    def _fill(self, until_s: float) -> None:
        missing = round(until_s * AUDIO_RATE_HZ) - self._end
        if missing > 0:
            self._flush_resampler()
            self._overlap = 0
            self._append(np.zeros(max(0, round(until_s * AUDIO_RATE_HZ) - self._end), np.float32))

    def _append(self, samples: np.ndarray) -> None:
        cut = min(self._overlap, len(samples))
        self._overlap -= cut
        self._pending = np.concatenate([self._pending, samples[cut:]])
        self._end += len(samples) - cut

    def _place(self, start: int) -> None:
        """Make the next sample land at `start`: silence before it, or skip what is already there."""
        self._overlap = max(0, self._end - start)
        if start > self._end:
            self._append(np.zeros(start - self._end, np.float32))

    def _flush_resampler(self) -> None:
        if self._resampler is not None:
            self._append(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
            self._resampler = None
            self._rate_hz = 0
