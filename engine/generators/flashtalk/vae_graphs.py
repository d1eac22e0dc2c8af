"""The VAE's decoder from CUDA graphs: one for a chunk's first latent frame, one for each that follows.

The two share a history whose buffers never move; the first one begins by clearing it, so that every chunk is a stream
of its own as before. See `graphs` for what may be recorded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import torch
from torch import Tensor

from engine.generators.flashtalk.graphs import GraphedCall, Recorder
from engine.generators.flashtalk.vae import Vae

logger = logging.getLogger(__name__)

TOLERANCE = 0.03
"""Relative, of any latent frame's pictures. With random weights bfloat16 rounds by 0.02 at most, and one buffer
of the history that is not cleared does about 0.05 or more; a library may take another kernel while it is recorded."""
_BEFORE, _COMPARED = 2, 3
"""Latent frames of the video that comes before the one that is compared, and of that: first, second and any other."""


class RecordedDecoder:
    """Decodes chunk after chunk of one size from graphs, whole pictures only.

    Owns a decoding stream, so its history, and the graphs; both live as long as it does. One thread.
    """

    def __init__(self, vae: Vae, like: Tensor, recorder: Recorder) -> None:
        """Records for latents of the size of `like` [16, n, h, w]; raises what the recorder raises."""
        self._stream = vae.decode_stream()
        like = like[:, :1]
        # Buffers are made here, in memory of the present CUDA stream, not of one that the recorder warms up on.
        self._stream.push(like)
        self._first = GraphedCall(self._begin, (like,), recorder)
        self._later = GraphedCall(self._stream.push, (like,), recorder)

    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """As `Vae.decode`: what comes out belongs to the caller, and what is not asked for is not computed."""
        for number, latent in enumerate(latents.split(1, dim=1)):
            graph = self._later if number else self._first
            yield graph(latent).clone()

    def _begin(self, latent: Tensor) -> Tensor:
        self._stream.reset()
        return self._stream.push(latent)


def record_decoder(vae: Vae, like: Tensor, recorder: Recorder) -> tuple[RecordedDecoder | None, str]:
    """A decoder for latents like `like` [16, n, h, w], compared with the VAE's own; or why there is none, also told.

    Takes the time of some latent frames, and waits for the device.
    """
    try:
        decoder = RecordedDecoder(vae, like, recorder)
        refused = _difference(decoder, vae, like)
    except Exception as error:  # noqa: BLE001 - libraries and drivers refuse in any way they like
        refused = (str(error) or type(error).__name__).split("\n")[0]
    else:
        if not refused:
            logger.info("frames are decoded from graphs")
            return decoder, ""
    logger.warning("frames are decoded without a graph: %s", refused)
    return None, refused


def _difference(decoder: RecordedDecoder, vae: Vae, like: Tensor) -> str:
    """What is wrong with `decoder` on other latents than it was recorded with; nothing if it is right."""
    drawn = torch.randn(like.shape[0], _BEFORE + _COMPARED, *like.shape[2:], device=like.device).to(like.dtype)
    before, compared = drawn.split((_BEFORE, _COMPARED), dim=1)
    for _ in decoder.decode(before):
        pass
    errors = []
    for got, wanted in zip(decoder.decode(compared), vae.decode(compared), strict=True):
        got, wanted = got.float(), wanted.float()
        errors.append(torch.linalg.vector_norm(got - wanted) / torch.linalg.vector_norm(wanted))
    worst = torch.stack(errors).max().item()
    return "" if worst <= TOLERANCE else f"its frames are off by {worst:.3g}"
