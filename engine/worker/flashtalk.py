"""FlashTalk in ranks: the options of its generator, and how many ranks there are and where."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from engine.errors import UsageError
from engine.generators.base import GeneratorSpec
from engine.generators.flashtalk.config import StreamShape
from engine.media import ChunkSpec
from engine.model_store.catalog import CHINESE_WAV2VEC2, FLASHTALK
from engine.model_store.checkpoint import inspect_checkpoint
from engine.model_store.store import ModelStore
from engine.worker.generator import RankedGenerator
from engine.worker.group import GroupSettings

_GENERATOR = "engine.generators.flashtalk.generator:FlashTalkGenerator"


class RankedFlashTalk(RankedGenerator):
    """Takes the options of `FlashTalkGenerator` and hands them to every rank, and in addition:

    `ranks`, how many processes on this machine; `gpus`, which of its GPUs they use, such as "0,1" (as many ranks then,
    unless told); `ranks_at`, a socket where the ranks of torchrun are awaited instead; `timeout_s`, after which a rank
    that does not answer is given up. Raises `UsageError`.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        fps: int = 25,
        checkpoint: str = "",
        speech_encoder: str = "",
        size: str = "768x448",
        steps: int = 4,
        prompt: str | None = None,
        device: str = "auto",
        attention: str = "auto",
        color_match: float = 1.0,
        ranks: int | None = None,
        gpus: str | int = "",
        ranks_at: str = "",
        timeout_s: float = 20.0,
    ) -> None:
        shape = _shape(size, fps)
        chosen = _chosen(str(gpus), ranks, device)
        options: dict[str, Any] = {
            "checkpoint": checkpoint,
            "speech_encoder": speech_encoder,
            "size": size,
            "steps": steps,
            "device": device,
            "attention": attention,
            "color_match": color_match,
        } | ({} if prompt is None else {"prompt": prompt})
        self._folders = (checkpoint, speech_encoder)
        super().__init__(
            GroupSettings(
                generator=_GENERATOR,
                seed=seed,
                fps=fps,
                options=tuple(options.items()),
                spec=GeneratorSpec(
                    name="flashtalk",
                    width=shape.width,
                    height=shape.height,
                    chunk=ChunkSpec(fps=shape.fps, frames=shape.new_frames),
                    follows_canvas=False,
                ),
                ranks=ranks or max(1, len(chosen)),
                gpus=",".join(chosen),
                ranks_at=ranks_at,
                timeout_s=timeout_s,
            )
        )

    def check(self) -> None:
        """Files and libraries. Raises `ModelFilesError` or `GeneratorError`."""
        super().check()
        checkpoint, speech_encoder = self._folders
        if not checkpoint:
            store = ModelStore()
            checkpoint = str(store.path(FLASHTALK.name))
            speech_encoder = speech_encoder or str(store.path(CHINESE_WAV2VEC2.name))
        speech = Path(speech_encoder).expanduser() if speech_encoder else None
        inspect_checkpoint(Path(checkpoint).expanduser(), speech)


def _shape(size: str, fps: int) -> StreamShape:
    match = re.fullmatch(r"(\d{2,4})x(\d{2,4})", size)
    if match is None:
        raise UsageError(f'"{size}" is not a picture size.', hint="Say height x width, such as 768x448.")
    if fps != StreamShape.fps:
        raise UsageError(f"FlashTalk makes {StreamShape.fps} frames a second, not {fps}.", hint="Choose that.")
    return StreamShape(height=int(match[1]), width=int(match[2]))


def _chosen(gpus: str, ranks: int | None, device: str) -> list[str]:
    chosen = [gpu.strip() for gpu in gpus.split(",") if gpu.strip()]
    if len(set(chosen)) != len(chosen):
        raise UsageError(f'The GPUs "{gpus}" name one of them twice.', hint="Each rank needs one of its own.")
    if chosen and ranks is not None and ranks != len(chosen):
        raise UsageError(f"{ranks} ranks cannot use {len(chosen)} GPUs.", hint="Name as many GPUs as ranks.")
    if device.startswith("cuda:") and (ranks or len(chosen)) > 1:
        raise UsageError(f"Several ranks cannot all use {device}.", hint="Say which GPUs with --gpus 0,1.")
    return chosen
