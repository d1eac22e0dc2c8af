"""The last seconds of sound, and what the transformer hears of them for each chunk."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor

from engine.generators.flashtalk.config import StreamShape
from engine.generators.flashtalk.loudness import normalize_loudness
from engine.generators.flashtalk.speech_encoder import WINDOW, SpeechEncoder, audio_slices, encode_speech

logger = logging.getLogger(__name__)

_TOLERANCE = 1e-3
"""Relative. On another CUDA stream a library may add up in another order; what was read too early is far off."""


class SpeechBuffer:
    """Rolls over `shape.audio_history_s` seconds, silent at first. The encoder normalises over all of them and looks
    both ways, so each chunk is encoded with its whole history anew. A rank that has no encoder can only make slices of
    rows that another one encoded. One stream, one thread.

    On a GPU encoding has a CUDA stream of its own: when chunks follow each other without a pause it runs while the
    last frames of the chunk before are encoded for the next one. The first time it is done both ways and compared.
    """

    def __init__(self, encoder: SpeechEncoder | None, shape: StreamShape, device: torch.device) -> None:
        self._encoder, self._shape, self._device = encoder, shape, device
        self._samples = np.zeros(shape.history_samples, np.float32)
        self._side: torch.cuda.Stream | None = None
        self._is_compared = False
        if device.type == "cuda" and encoder is not None:
            self._side = torch.cuda.Stream(device)
            # The weights may still be on their way.
            self._side.wait_stream(torch.cuda.current_stream(device))

    def clear(self) -> None:
        """Forget everything."""
        self._samples.fill(0.0)

    def push(self, samples: np.ndarray) -> None:
        """The next mono float32 `samples` at 16 kHz; as many of the oldest are forgotten."""
        kept = samples[-len(self._samples) :]
        self._samples[: -len(kept) or None] = self._samples[len(kept) :]
        self._samples[len(self._samples) - len(kept) :] = kept

    def skip(self, count: int) -> None:
        """`count` samples were never heard: silence takes their place."""
        self.push(np.zeros(min(count, len(self._samples)), np.float32))

    def newest(self, count: int) -> np.ndarray:
        """The last `count` samples; not a copy."""
        return self._samples[-count:]

    def embedding(self) -> Tensor:
        """Speech features [history frames, layers, channels] of the whole buffer, on the device."""
        assert self._encoder is not None
        loud = normalize_loudness(self._samples).astype(np.float32)
        waveform = torch.from_numpy(loud).to(self._device, non_blocking=True)
        # Convolutions would otherwise round to 10 bits of mantissa on a GPU.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return encode_speech(self._encoder, waveform, self._shape.history_frames)

    def slices(self) -> tuple[Tensor, Tensor]:
        """What the newest chunk's latent frames hear: [1, 5, layers, channels] and [frames - 1, 8, ...]."""
        return self.slices_of(self.rows())

    def rows(self) -> Tensor:
        """The newest chunk's speech features and their neighbours before it: [frames + 2, layers, channels]."""
        if self._side is None:
            return self._rows()
        rows = self._rows_beside(self._side)
        if self._is_compared:
            return rows
        self._is_compared = True
        plain = self._rows()
        if (rows - plain).abs().max() <= _TOLERANCE * plain.abs().max():
            return rows
        logger.warning("speech is not encoded beside other work: that gave other features")
        self._side = None
        return plain

    def _rows(self) -> Tensor:
        return self.embedding()[-self.row_count(self._shape) :]

    def _rows_beside(self, side: torch.cuda.Stream) -> Tensor:
        """The same on the stream `side`; what the present stream is given from now on waits for it."""
        present = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(side):
            rows = self._rows()
        present.wait_stream(side)
        rows.record_stream(present)
        return rows

    def slices_of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """`slices`, from rows that may have been made elsewhere."""
        return audio_slices(rows, len(rows) - self._shape.frames, self._shape.frames)

    @staticmethod
    def row_count(shape: StreamShape) -> int:
        """Rows that a chunk needs: its own frames and two before them, if there are any."""
        return min(shape.history_frames, shape.frames + WINDOW // 2)
