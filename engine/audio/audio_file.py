"""Sound files of any common format, decoded through PyAV in blocks of float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import av.container
import av.error
import numpy as np

from engine.errors import AudioFileError
from engine.media import Notice
from engine.paths import expanded

_CHOOSE = "Choose a WAV, FLAC, MP3, OGG or M4A file with speech."
_SILENCE = 10 ** (-70 / 20)
_LOWEST_RATE_HZ, _HIGHEST_RATE_HZ = 1_000, 768_000
"""What is stored anywhere; a rate of 1 Hz would become thousands of times its samples."""
_CONTAINERS = (
    "wav", "w64", "flac", "mp3", "ogg", "mov", "matroska", "aac", "aiff", "au", "caf", "asf", "avi", "amr", "ac3",
    "eac3", "mpegts", "mpeg", "wv", "ape", "tta", "dsf", "dts", "flv",
)  # fmt: skip
"""FFmpeg's names of what holds sound by itself; playlists and descriptions of streams are not among them."""


class AudioFile:
    """A sound file that has been opened and looked at; `blocks` decodes it from the start, any number of times.

    `rate_hz` is the file's own rate, `channels` 1 or 2 (more are averaged into one). Raises `AudioFileError`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = expanded(path)
        _check_readable(self.path)
        with self._opened() as container, _guarded(self.path):
            stream = _audio_stream(container, self.path)
            self.rate_hz = int(stream.rate)
            self.channels = int(stream.channels) if stream.channels <= 2 else 1
            self.duration_s = _duration(container, stream)
        self._bad_samples = 0
        self._clipped_samples = 0
        self._peak = 0.0

    def blocks(self) -> Iterator[np.ndarray]:
        """Blocks of float32 (n, channels) in [-1, 1] until the end; not-a-number samples become silence.

        Damage in the middle ends the file there; a file without a single sample raises `AudioFileError`.
        """
        self._bad_samples = self._clipped_samples = 0
        self._peak = 0.0
        count = 0
        try:
            with self._opened() as container:
                stream = _audio_stream(container, self.path)
                for block in _decoded(container, stream, self.channels):
                    count += len(block)
                    yield self._cleaned(block)
        except (GeneratorExit, AudioFileError):
            raise
        except Exception as error:  # damage makes FFmpeg and PyAV raise nearly anything
            if count == 0:
                raise _damaged(self.path, error) from error
        if count == 0:
            raise AudioFileError(
                f"The sound file {self.path.name} holds no sound.", code="audio_file.empty", hint=_CHOOSE
            )

    def read_all(self) -> np.ndarray:
        """The whole file, float32 (n, channels)."""
        return np.concatenate(list(self.blocks()))

    def notices(self) -> list[Notice]:
        """What was odd about the samples decoded so far."""
        found = []
        if self._bad_samples:
            found.append(
                Notice(
                    code="audio_file.not_a_number",
                    message=f"{self._bad_samples} samples of {self.path.name} were not numbers and became silence.",
                )
            )
        if self._clipped_samples > self.rate_hz // 100:
            found.append(
                Notice(
                    code="audio_file.clipped",
                    message=f"{self.path.name} is recorded too loud: parts of it are cut off.",
                    hint="Record it again with less gain for a better mouth.",
                )
            )
        if self._peak < _SILENCE:
            found.append(
                Notice(
                    code="audio_file.silent",
                    message=f"{self.path.name} is silent, so the portrait will not speak.",
                    hint="Check that you chose the right file.",
                )
            )
        return found

    def _opened(self) -> av.container.InputContainer:
        try:
            # FFmpeg takes names like "concat:..." for instructions, and playlists name further files to be read.
            options = {"protocol_whitelist": "file", "format_whitelist": ",".join(_CONTAINERS)}
            return av.open(f"file:{self.path}", metadata_errors="replace", options=options)
        except Exception as error:  # damage makes PyAV raise more than FFmpeg's errors
            raise AudioFileError(
                f"{self.path.name} is not a sound file that Standin can read.",
                code="audio_file.not_audio",
                hint=_CHOOSE,
                detail=str(error),
            ) from error

    def _cleaned(self, block: np.ndarray) -> np.ndarray:
        finite = np.isfinite(block)
        if not finite.all():
            self._bad_samples += int(block.size - finite.sum())
            block = np.where(finite, block, np.float32(0))
        magnitude = np.abs(block)
        self._peak = max(self._peak, float(magnitude.max(initial=0.0)))
        self._clipped_samples += int((magnitude >= 0.9999).sum())
        return np.clip(block, -1.0, 1.0, out=block)


def to_mono(samples: np.ndarray) -> np.ndarray:
    """Float32 (n,) from (n, channels): the mean of the channels."""
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    try:
        yield
    except AudioFileError:
        raise
    except Exception as error:  # as above
        raise _damaged(path, error) from error


def _check_readable(path: Path) -> None:
    try:
        if path.is_dir():
            raise AudioFileError(f"{path} is a folder, not a sound file.", code="audio_file.folder", hint=_CHOOSE)
        if path.exists() and not path.is_file():  # a named pipe would be waited for
            raise AudioFileError(f"{path} is a device, not a sound file.", code="audio_file.device", hint=_CHOOSE)
        with path.open("rb") as file:
            if not file.read(1):
                raise AudioFileError(
                    f"The sound file {path.name} is empty (0 bytes).", code="audio_file.empty", hint=_CHOOSE
                )
    except FileNotFoundError as error:
        raise AudioFileError(
            f"There is no sound file at {path}.",
            code="audio_file.missing",
            hint="Check the path, or choose it again.",
        ) from error
    except PermissionError as error:
        raise AudioFileError(
            f"The sound file {path} may not be read.",
            code="audio_file.permission",
            hint="Check the file's permissions.",
        ) from error
    except (OSError, ValueError) as error:
        raise AudioFileError(f"The sound file {path} cannot be read: {error}.", code="audio_file.unreadable") from error


def _audio_stream(container: av.container.InputContainer, path: Path) -> av.AudioStream:
    streams = container.streams.audio
    stream = streams[0] if streams else None
    # PyAV's streams lack these for a codec that it does not know.
    if stream is None or not getattr(stream, "rate", 0) or not getattr(stream, "channels", 0):
        raise AudioFileError(f"{path.name} has no sound in it.", code="audio_file.no_audio", hint=_CHOOSE)
    if not _LOWEST_RATE_HZ <= stream.rate <= _HIGHEST_RATE_HZ:
        raise AudioFileError(
            f"{path.name} claims {stream.rate} samples a second.", code="audio_file.rate", hint=_CHOOSE
        )
    return stream


def _duration(container: av.container.InputContainer, stream: av.AudioStream) -> float | None:
    """Seconds, or None where the file does not say, or says nonsense."""
    if stream.duration and stream.time_base:
        claimed_s = float(stream.duration * stream.time_base)
    else:
        claimed_s = container.duration / av.time_base if container.duration else 0.0
    return claimed_s if claimed_s > 0 else None


def _decoded(container: av.container.InputContainer, stream: av.AudioStream, channels: int) -> Iterator[np.ndarray]:
    """Float32 (n, channels) blocks, whatever the file's sample format and layout.

    Converted here because PyAV's resampler crashes on layouts without a name, which WAV files with four or more
    channels often have.
    """
    for frame in container.decode(stream):
        values = frame.to_ndarray()
        by_channel = values if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels).T
        scaled = _to_float(by_channel)
        if scaled.shape[0] != channels:
            scaled = np.repeat(scaled.mean(axis=0, keepdims=True), channels, axis=0)
        yield np.ascontiguousarray(scaled.T, dtype=np.float32)


def _to_float(values: np.ndarray) -> np.ndarray:
    """Integer samples scaled to [-1, 1); unsigned bytes are centred at 128 (RIFF WAVE)."""
    if values.dtype.kind == "f":
        return values
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128.0) / 128.0
    return values / np.float64(-float(np.iinfo(values.dtype).min))


def _damaged(path: Path, error: Exception) -> AudioFileError:
    return AudioFileError(
        f"The sound file {path.name} is damaged or incomplete.",
        code="audio_file.damaged",
        hint="Save or download it again, or choose another one.",
        detail=str(error),
    )
