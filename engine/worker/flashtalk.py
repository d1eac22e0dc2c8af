"""FlashTalk in ranks: the options of its generator, and how many ranks there are and where."""

from __future__ import annotations

from typing import Any

from engine.errors import UsageError
from engine.generators.base import GeneratorSpec
from engine.generators.flashtalk.options import checked_shape, find_checkpoint
from engine.media import ChunkSpec
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
        shape = checked_shape(fps=fps, size=size, steps=steps, color_match=color_match, device=device)
        chosen = _chosen(str(gpus), ranks, str(device))
        # What was typed as KEY=VALUE may have become a number, such as a folder's name.
        options: dict[str, Any] = {
            "checkpoint": str(checkpoint),
            "speech_encoder": str(speech_encoder),
            "size": str(size),
            "steps": int(steps),
            "device": str(device),
            "attention": str(attention),
            "color_match": color_match,
        } | ({} if prompt is None else {"prompt": str(prompt)})
        self._folders = (str(checkpoint), str(speech_encoder))
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
        find_checkpoint(*self._folders)


def _chosen(gpus: str, ranks: int | None, device: str) -> list[str]:
    chosen = [gpu.strip() for gpu in gpus.split(",") if gpu.strip()]
    if len(set(chosen)) != len(chosen):
        raise UsageError(f'The GPUs "{gpus}" name one of them twice.', hint="Each rank needs one of its own.")
    if chosen and ranks is not None and ranks != len(chosen):
        raise UsageError(f"{ranks} ranks cannot use {len(chosen)} GPUs.", hint="Name as many GPUs as ranks.")
    if device.startswith("cuda:") and (ranks or len(chosen)) > 1:
        raise UsageError(f"Several ranks cannot all use {device}.", hint="Say which GPUs with --gpus 0,1.")
    return chosen
