"""How fast this GPU would be with every combination of settings, from a few measurements of a few blocks.

A step's time is a line in the number of blocks, a block's a parabola in the tokens (linear layers and attention), the
autoencoder's a line in pixels times frames: two depths at two shapes give all of it for one precision. What is chosen
from that can be measured as it stands with `measured`.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from engine.errors import GeneratorError, StandinError
from engine.generators.base import Progress
from engine.generators.flashtalk.bench import BenchSettings, Noise, bench
from engine.generators.flashtalk.config import StreamShape
from engine.generators.flashtalk.generator import FlashTalkGenerator
from engine.generators.flashtalk.memory import free_bytes
from engine.generators.flashtalk.models import choose_device
from engine.generators.flashtalk.options import CHUNKS, STEPS, FlashTalkOptions
from engine.generators.flashtalk.quantization.products import choose_product
from engine.generators.flashtalk.quantization.scheme import SCHEMES
from engine.generators.flashtalk.random_models import Sizes, random_features, random_models
from engine.generators.flashtalk.stages import AUDIO, ChunkTimes
from engine.generators.flashtalk.weights import precision_for
from engine.model_store.gpu_memory import RankMemory

logger = logging.getLogger(__name__)

SIZES = ("768x448", "640x384", "512x512", "512x320")
_DEPTHS = (1, 3)
_SHAPES = (("768x448", 33), ("512x320", 17))
_CHUNKS = 3
"""Measured each time, the first one not counted."""
_MEASURED_CHUNKS = 4
_PUBLISHED_PARAMETERS = 18_882_046_784

# Which picture is better, in steps of doubled size. A judgement: without real weights nobody has seen the difference.
_LESS_FOR_STEPS = {4: 0.0, 3: 0.3, 2: 1.0}
_LESS_FOR_CHUNK = {33: 0.0, 21: 0.3, 17: 0.5}
_LESS_FOR_PRECISION = {"int8": 0.1, "fp8": 0.2}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Seconds of one chunk, by what they depend on."""

    audio_s: float
    step_s: float
    per_token_s: float
    per_pair_s: float
    pictures_s: float
    per_pixel_s: float
    first_share: float

    def chunk_s(self, shape: StreamShape, blocks: int, steps: int) -> float:
        """All stages of a chunk."""
        tokens = shape.tokens
        step_s = self.step_s + blocks * (self.per_token_s * tokens + self.per_pair_s * tokens**2)
        return self.audio_s + steps * step_s + self._decode_s(shape)

    def first_frame_s(self, shape: StreamShape, blocks: int, steps: int) -> float:
        """Until the first frame has left the decoder."""
        return self.chunk_s(shape, blocks, steps) - (1 - self.first_share) * self._decode_s(shape)

    def _decode_s(self, shape: StreamShape) -> float:
        return self.pictures_s + self.per_pixel_s * shape.height * shape.width * shape.frames


def probe(progress: Progress, *, device: str = "auto", sizes: Sizes | None = None) -> list[dict[str, Any]]:
    """What every combination would cost: `options`, `chunk_s`, `first_frame_s`, `memory_bytes`, `quality`, `words`.

    Raises `GeneratorError` where there is no GPU (or a small model is not asked about), `Cancelled` from `progress`.
    """
    place = choose_device(device, _PUBLISHED_PARAMETERS if sizes is None else 0)
    sizes = sizes or Sizes()
    found: list[dict[str, Any]] = []
    precisions = list(_precisions(place))
    for index, precision in enumerate(precisions):
        progress.update("measuring", index, len(precisions), "precisions")
        try:
            cost = cost_of(precision, place, sizes)
        except (StandinError, torch.cuda.OutOfMemoryError) as error:
            logger.warning("%s was left out: %s", precision, error)
            continue
        found += _combinations(precision, cost, place, sizes)
    progress.update("measuring", len(precisions), len(precisions), "precisions")
    if not found:
        raise GeneratorError("FlashTalk cannot run on this GPU.", hint="`standin doctor` says why; use the puppet.")
    return found


def measured(result: dict[str, Any], progress: Progress, *, device: str = "auto") -> dict[str, Any]:
    """The same with the whole model, as it stands. Raises what `bench` raises."""
    options = result["options"] | {"device": device}
    report = bench(BenchSettings(options=options, chunks=_MEASURED_CHUNKS), progress)
    return result | {
        "chunk_s": report["chunk_s"]["median"],
        "first_frame_s": report["first_frame_s"]["p95"],
        "memory_bytes": report["peak_memory_bytes"] or result["memory_bytes"],
        "is_measured": True,
    }


def cost_of(precision: str, device: torch.device, sizes: Sizes) -> Cost:
    """From chunks of models of two depths at two shapes. Raises what `random_models` raises."""
    runs = [
        (shape, [_medians(_options(size, chunk, precision, device), device, sizes, depth) for depth in _DEPTHS])
        for size, chunk in _SHAPES
        for shape in [_options(size, chunk, precision, device).shape]
    ]
    (large, (large_1, large_3)), (small, (small_1, small_3)) = runs
    more = _DEPTHS[1] - _DEPTHS[0]
    blocks = [max(0.0, (deep["step"] - flat["step"]) / more) for flat, deep in ((large_1, large_3), (small_1, small_3))]
    # t / n = p + q n at two n.
    per = [seconds / shape.tokens for seconds, shape in zip(blocks, (large, small), strict=True)]
    per_pair_s = max(0.0, (per[0] - per[1]) / (large.tokens - small.tokens))
    pixels = [shape.height * shape.width * shape.frames for shape in (large, small)]
    per_pixel_s = max(0.0, (large_1["pictures"] - small_1["pictures"]) / (pixels[0] - pixels[1]))
    return Cost(
        audio_s=max(large_1[AUDIO], small_1[AUDIO]),
        step_s=max(0.0, large_1["step"] - blocks[0]),
        per_token_s=max(0.0, per[0] - per_pair_s * large.tokens),
        per_pair_s=per_pair_s,
        pictures_s=max(0.0, large_1["pictures"] - per_pixel_s * pixels[0]),
        per_pixel_s=per_pixel_s,
        first_share=large_1["first_share"],
    )


def _options(size: str, chunk: int, precision: str, device: torch.device) -> FlashTalkOptions:
    values = {"size": size, "chunk": chunk, "precision": precision, "steps": 2, "device": str(device)}
    return FlashTalkOptions.of(values | {"graphs": "off", "offload": "none"})


def _medians(options: FlashTalkOptions, device: torch.device, sizes: Sizes, depth: int) -> dict[str, float]:
    generator = FlashTalkGenerator(seed=0, **options.as_dict())
    sizes = replace(sizes, config=replace(sizes.config, num_layers=depth))
    with torch.no_grad():
        models = random_models(options, device, sizes)
        generator.prepare_from(models, *random_features(sizes.config, options.shape, device))
    try:
        times = generator.measure()
        sound = Noise(generator.spec)
        for index in range(_CHUNKS):
            generator.generate(sound.chunk(index), sound)
        return _stages(times[1:])
    finally:
        generator.close()


def _stages(times: list[ChunkTimes]) -> dict[str, float]:
    def median(of: Callable[[ChunkTimes], float]) -> float:
        return statistics.median(of(chunk) for chunk in times)

    def steps(chunk: ChunkTimes) -> list[float]:
        return [seconds for stage, seconds in chunk.stages_s.items() if stage.startswith("step")]

    def pictures(chunk: ChunkTimes) -> float:
        return chunk.total_s - chunk.stages_s.get(AUDIO, 0.0) - sum(steps(chunk))

    def first_share(chunk: ChunkTimes) -> float:
        waited_s = chunk.first_frame_s - (chunk.total_s - pictures(chunk))
        return min(1.0, max(0.0, waited_s / max(pictures(chunk), 1e-9)))

    return {
        AUDIO: median(lambda chunk: chunk.stages_s.get(AUDIO, 0.0)),
        "step": median(lambda chunk: statistics.median(steps(chunk))),
        "pictures": median(pictures),
        "first_share": median(first_share),
    }


def _precisions(device: torch.device) -> Iterator[str]:
    yield "auto"
    if device.type == "cuda":
        dtype = precision_for(device).dit
        yield from (name for name, scheme in SCHEMES.items() if choose_product(scheme, device, dtype).is_native)


def _combinations(precision: str, cost: Cost, device: torch.device, sizes: Sizes) -> Iterator[dict[str, Any]]:
    free = free_bytes(device)
    blocks = sizes.config.num_layers
    for size in SIZES:
        for chunk in CHUNKS:
            shape = _options(size, chunk, precision, device).shape
            memory = RankMemory().at(precision).parts(height=shape.height, width=shape.width, frames=shape.latent[1])
            if device.type == "cuda" and memory.total > free:
                continue
            for steps in STEPS:
                yield {
                    "options": {"size": size, "chunk": chunk, "steps": steps, "precision": precision},
                    "frames": shape.new_frames,
                    "pixels": shape.height * shape.width,
                    "chunk_s": cost.chunk_s(shape, blocks, steps),
                    "first_frame_s": cost.first_frame_s(shape, blocks, steps),
                    "memory_bytes": memory.total,
                    "quality": _quality(shape, chunk, steps, precision),
                    "words": _words(size, chunk, steps, precision),
                    "is_measured": False,
                }


def _quality(shape: StreamShape, chunk: int, steps: int, precision: str) -> float:
    doublings = math.log2(shape.height * shape.width / (512 * 320))
    less = _LESS_FOR_STEPS[steps] + _LESS_FOR_CHUNK[chunk] + _LESS_FOR_PRECISION.get(precision, 0.0)
    return round(doublings - less, 3)


def _words(size: str, chunk: int, steps: int, precision: str) -> str:
    parts = [size.replace("x", " x "), f"{steps} steps"]
    if precision in _LESS_FOR_PRECISION:
        parts.append(precision.upper())
    if chunk != CHUNKS[0]:
        parts.append(f"chunks of {chunk} frames")
    return ", ".join(parts)
