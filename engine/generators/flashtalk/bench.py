"""What a chunk costs on this device, stage by stage, and what the device can do at most.

The generator itself is measured, as it runs in a session. With a checkpoint its weights are used; without one, random
weights of the published size, which is all that time and memory depend on.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from engine.errors import GeneratorError, UsageError
from engine.generators.base import GeneratorSpec, Progress
from engine.generators.flashtalk.config import DiTConfig
from engine.generators.flashtalk.generator import FlashTalkGenerator
from engine.generators.flashtalk.models import choose_device
from engine.generators.flashtalk.options import FlashTalkOptions
from engine.generators.flashtalk.random_models import Sizes, random_features, random_models
from engine.generators.flashtalk.roofline import roofline, step_flops
from engine.generators.flashtalk.stages import ChunkTimes
from engine.media import SAMPLE_RATE_HZ, AudioChunk, Notice
from engine.portrait.load import load_portrait

_WARM_UP = 2
_PUBLISHED_PARAMETERS = 18_882_046_784


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """`options` of `FlashTalkOptions`, without a checkpoint random weights at the published size; how many `chunks`."""

    options: dict[str, Any] = field(default_factory=dict)
    chunks: int = 20


def bench(settings: BenchSettings, progress: Progress, sizes: Sizes | None = None) -> dict:
    """The report of `standin bench --generator flashtalk`: seconds, bytes, FLOP/s; `sizes` of random models, the
    published ones by default, which need a GPU.

    Raises `UsageError`, `GeneratorError`, `ModelFilesError`, or `Cancelled` from `progress`.
    """
    if settings.chunks < 1:
        raise UsageError(f"{settings.chunks} chunks are nothing to measure.", hint="Give a number above 0.")
    options = FlashTalkOptions.of(settings.options)
    generator, notices, load_s = _prepared(options, progress, sizes)
    try:
        models, total = generator.models, _WARM_UP + settings.chunks
        if models.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(models.device)
        times = generator.measure()
        source = Noise(generator.spec)
        for index in range(total):
            generator.generate(source.chunk(index), source)
            progress.update("chunks", index + 1, total, "chunks")
        config, device, dtype = models.dit.config, models.device, models.precision.dit
        told = [*notices, *generator.take_notices()]
        return _report(settings, options, times[_WARM_UP:]) | {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "dtype": str(dtype).removeprefix("torch."),
            "attention": models.attention.name,
            "load_s": round(load_s, 2),
            "peak_memory_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
            "streamed_blocks": 0 if models.streamer is None else len(models.streamer.streamed),
            "notices": [notice.message for notice in told],
            **_efficiency(config, options, times[_WARM_UP:], roofline(device, dtype)),
        }
    finally:
        generator.close()


def _prepared(
    options: FlashTalkOptions, progress: Progress, sizes: Sizes | None
) -> tuple[FlashTalkGenerator, list[Notice], float]:
    """Ready to generate; what it told; and how long that took, in s."""
    started_s = time.perf_counter()
    generator = FlashTalkGenerator(seed=0, **options.as_dict())
    if options.checkpoint:
        shape = options.shape
        notices = generator.prepare(load_portrait("sample:"), (shape.width, shape.height), progress)
    else:
        device = choose_device(options.device, _PUBLISHED_PARAMETERS if sizes is None else 0)
        if device.type != "cuda" and sizes is None:
            raise GeneratorError(
                "Random weights at the published size need a GPU.", hint="Give a small model with --checkpoint."
            )
        with torch.no_grad():
            progress.update("random weights", 0, 1)
            models = random_models(options, device, sizes)
            notices = generator.prepare_from(models, *random_features(models.dit.config, options.shape, device))
            progress.update("random weights", 1, 1)
    return generator, notices, time.perf_counter() - started_s


def _report(settings: BenchSettings, options: FlashTalkOptions, times: list[ChunkTimes]) -> dict[str, Any]:
    shape = options.shape
    total, late = _summary(chunk.total_s for chunk in times), _summary(chunk.late_s for chunk in times)
    heard_s = shape.new_frames / shape.fps
    return {
        "torch": torch.__version__,
        "weights": options.checkpoint or "random",
        "size": options.size,
        "steps": options.steps,
        "chunk_frames": options.chunk,
        "options": {name: value for name, value in options.as_dict().items() if value != ""},
        "chunks": settings.chunks,
        "chunk_s": total,
        "frames_per_s": round(shape.new_frames / total["median"], 2),
        "first_frame_s": _summary(chunk.first_frame_s for chunk in times),
        "stages_s": {stage: _summary(chunk.stages_s.get(stage, 0.0) for chunk in times) for stage in times[0].stages_s},
        "heard_s": round(heard_s, 3),
        "delay_s": round(heard_s + late["p95"], 3),
    }


def _efficiency(
    config: DiTConfig, options: FlashTalkOptions, times: list[ChunkTimes], roof: dict[str, float]
) -> dict[str, Any]:
    steps = [seconds for chunk in times for stage, seconds in chunk.stages_s.items() if stage.startswith("step")]
    flops = step_flops(config, options.shape)
    reached = flops / statistics.median(steps) / 1e12
    return {
        "step_tflop": round(flops / 1e12, 4),
        "step_tflop_per_s": round(reached, 3),
        "roofline": roof,
        "step_share_of_matrix_rate": round(reached / roof["matrix_tflop_per_s"], 3),
    }


def _summary(values: Iterable[float]) -> dict[str, float]:
    seconds = sorted(values)
    return {
        "median": round(statistics.median(seconds), 5),
        "p95": round(seconds[min(len(seconds) - 1, int(0.95 * len(seconds)))], 5),
    }


class Noise:
    """Sound as loud as speech, chunk after chunk, and a `FrameWriter` that keeps nothing."""

    def __init__(self, spec: GeneratorSpec) -> None:
        self._chunk, self._random = spec.chunk, np.random.default_rng(0)
        self._image = np.empty((spec.height, spec.width, 3), np.uint8)

    def chunk(self, index: int) -> AudioChunk:
        """Number `index`, to be asked for in order."""
        frames = self._chunk.frames
        count = frames * SAMPLE_RATE_HZ // self._chunk.fps
        return AudioChunk(
            first_frame=index * frames,
            frames=frames,
            first_sample=index * count,
            samples=self._random.normal(0, 0.1, count).astype(np.float32),
        )

    def next_image(self) -> np.ndarray:
        """See `FrameWriter`."""
        return self._image

    def commit(self, frame: int) -> None:
        """See `FrameWriter`."""
