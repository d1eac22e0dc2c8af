"""What can be chosen of FlashTalk, and where its files are: known at once, and without torch."""

from __future__ import annotations

import re
from pathlib import Path

from engine.errors import UsageError
from engine.generators.flashtalk.config import StreamShape
from engine.model_store.catalog import CHINESE_WAV2VEC2, FLASHTALK
from engine.model_store.checkpoint import CheckpointReport, inspect_checkpoint
from engine.model_store.store import ModelStore

SIZES = ((768, 448), (448, 768), (640, 384), (384, 640), (512, 512), (512, 320), (320, 512))
"""Offered picture sizes (height, width), the model's own first."""
STEPS = (4, 3, 2)
PROMPT = "A person is talking. Only the foreground characters are moving, the background remains static."
"""The prompt that the model is published with."""
FPS = 25


def checked_shape(
    *, fps: int = FPS, size: str = "768x448", steps: int = 4, color_match: float = 1.0, device: str = "auto"
) -> StreamShape:
    """The picture that these options make. Raises `UsageError` for what is not offered.

    What was typed as KEY=VALUE may be of any type.
    """
    if fps != FPS:
        raise UsageError(f"FlashTalk makes {FPS} frames a second, not {fps}.", hint=f"Choose {FPS}.")
    if steps not in STEPS:
        raise UsageError(f"FlashTalk cannot work in {steps} steps.", hint="Choose 4, 3 or 2.")
    if not isinstance(color_match, (int, float)) or not 0.0 <= color_match <= 1.0:
        raise UsageError(f"A colour match of {color_match} is not possible.", hint="Choose 0 to 1.")
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(device)) is None:
        raise UsageError(f'"{device}" is not a device.', hint="Say auto, cuda, cuda:1 or cpu.")
    sides = re.fullmatch(r"(\d{2,4})x(\d{2,4})", str(size))
    if sides is None:
        offered = ", ".join(f"{height}x{width}" for height, width in SIZES)
        raise UsageError(f'"{size}" is not a picture size.', hint=f"Say height x width, such as one of: {offered}.")
    return StreamShape(height=int(sides[1]), width=int(sides[2]), fps=fps)


def find_checkpoint(checkpoint: str, speech_encoder: str) -> CheckpointReport:
    """The files in these folders; without them, the model store's. Raises `ModelFilesError`."""
    if not checkpoint:
        store = ModelStore()
        checkpoint = str(store.path(FLASHTALK.name))
        speech_encoder = speech_encoder or str(store.path(CHINESE_WAV2VEC2.name))
    elif not speech_encoder:
        # Beside or in the checkpoint comes first; the store's is for a checkpoint that has none.
        report = inspect_checkpoint(Path(checkpoint).expanduser(), needs_speech=False)
        stored = ModelStore().state(CHINESE_WAV2VEC2.name).path
        if report.speech_directory is None and stored is not None:
            speech_encoder = str(stored)
    speech = Path(speech_encoder).expanduser() if speech_encoder else None
    return inspect_checkpoint(Path(checkpoint).expanduser(), speech)
