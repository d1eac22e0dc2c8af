"""What a chunk costs on this device, stage by stage, and what the device can do at most.

With a checkpoint its weights are used; without one, random weights of the published size, which is all that time and
memory depend on. What only conditions need is then left out: random keys and values stand for it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from engine.errors import GeneratorError, UsageError
from engine.generators.base import Progress
from engine.generators.flashtalk.attention import choose_attention
from engine.generators.flashtalk.color import ColorMatch
from engine.generators.flashtalk.config import DiTConfig, StreamShape
from engine.generators.flashtalk.layers import KeyValue
from engine.generators.flashtalk.models import choose_device, load_speech_encoder, load_vae
from engine.generators.flashtalk.noise import SeededNoise
from engine.generators.flashtalk.rope import rotary_table
from engine.generators.flashtalk.sampler import denoise, timesteps
from engine.generators.flashtalk.speech_buffer import SpeechBuffer
from engine.generators.flashtalk.speech_encoder import SpeechEncoder, SpeechEncoderConfig, build_speech_encoder
from engine.generators.flashtalk.stream import to_bytes
from engine.generators.flashtalk.transformer import DiT, StreamConditions, frame_runs, is_set_up_only
from engine.generators.flashtalk.vae import Vae
from engine.generators.flashtalk.vae_coders import VaeConfig
from engine.generators.flashtalk.weights import load_dit, precision_for
from engine.model_store.checkpoint import inspect_checkpoint
from engine.parallel.group import LocalGroup
from engine.paths import expanded

_WARM_UP = 2
_TEXT_KEYS, _IMAGE_KEYS = 24, 257
_MATRIX, _COPY_BYTES = 8192, 1 << 30
_PROBE_RUNS = 20


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What to measure; `checkpoint` empty means random weights at the published size."""

    checkpoint: str = ""
    speech_encoder: str = ""
    size: str = "768x448"
    steps: int = 4
    chunks: int = 20
    device: str = "auto"
    attention: str = "auto"


@torch.no_grad()
def bench(settings: BenchSettings, progress: Progress) -> dict:
    """The report of `standin bench --generator flashtalk`. Raises `UsageError`, `GeneratorError`, `ModelFilesError`."""
    if settings.chunks < 1:
        raise UsageError(f"{settings.chunks} chunks are nothing to measure.", hint="Give a number above 0.")
    height, width = (int(side) for side in settings.size.split("x"))
    shape = StreamShape(height=height, width=width)
    run = _Run(settings, shape, progress)
    for index in range(_WARM_UP + settings.chunks):
        run.chunk(is_counted=index >= _WARM_UP)
        progress.update("chunks", index + 1, _WARM_UP + settings.chunks, "chunks")
    return run.report()


class _Run:
    """Models, conditions and timings of one measurement."""

    def __init__(self, settings: BenchSettings, shape: StreamShape, progress: Progress) -> None:
        self._settings, self._shape = settings, shape
        started_s = time.perf_counter()
        self._dit, self._vae, self._speech, self._device = _models(settings, progress)
        self._load_s = time.perf_counter() - started_s
        self._attention = choose_attention(self._device, self._dit.dtype, settings.attention)
        self._stream = random_conditions(self._dit, shape, settings.steps, self._device)
        self._color = ColorMatch(torch.rand(1, 3, 1, shape.height, shape.width, device=self._device) * 2 - 1)
        self._noise = SeededNoise(0, shape.latent, self._device)
        self._motion = torch.randn(16, 2, *shape.latent[2:], device=self._device)
        self._buffer = SpeechBuffer(self._speech, shape, self._device)
        self._schedule = timesteps(settings.steps)
        self._watch = Stopwatch(self._device)
        self._sound = np.random.default_rng(0)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def chunk(self, *, is_counted: bool) -> None:
        """One chunk as the stream makes it, with marks between the stages."""
        watch, group = self._watch, LocalGroup()
        watch.begin()
        self._buffer.push(self._sound.normal(0, 0.1, self._shape.chunk_samples).astype(np.float32))
        conditions = self._dit.chunk_conditions(*self._buffer.slices())
        watch.mark("audio")

        def velocity(latents: Tensor, step: int) -> Tensor:
            out = self._dit(latents, step, self._stream, conditions, group, self._attention)
            watch.mark(f"step {step + 1}")
            return out

        latents = denoise(velocity, self._noise, self._motion, self._schedule)
        tail: list[Tensor] = []
        skip = self._shape.motion_frames
        for raw in self._vae.decode(latents):
            watch.mark("decode")
            matched = self._color.apply(raw)
            watch.mark("colour")
            tail = [*tail, matched][-2:]
            if skip <= 0:
                to_bytes(matched).to("cpu", non_blocking=True)
                watch.mark("copy out", is_frame=True)
            skip -= raw.shape[2]
        self._motion = self._vae.encode(torch.cat(tail, dim=2)[:, :, -self._shape.motion_frames :])
        watch.mark("encode")
        self._noise.chunk += 1
        watch.end(is_counted=is_counted)

    def report(self) -> dict:
        """Everything, in seconds, bytes and FLOP/s."""
        watch, shape = self._watch, self._shape
        total = watch.summary("chunk")
        step_s = statistics.median([watch.summary(name)["median"] for name in watch.stages if name.startswith("step")])
        flops = step_flops(self._dit.config, shape)
        roof = roofline(self._device, self._dit.dtype)
        peak = torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else None
        return {
            "device": torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else "cpu",
            "torch": torch.__version__,
            "weights": self._settings.checkpoint or "random",
            "dtype": str(self._dit.dtype).removeprefix("torch."),
            "attention": self._attention.name,
            "size": f"{shape.height}x{shape.width}",
            "steps": self._settings.steps,
            "chunks": self._settings.chunks,
            "load_s": round(self._load_s, 2),
            "chunk_s": total,
            "frames_per_s": round(shape.new_frames / total["median"], 2),
            "first_frame_s": watch.summary("first frame"),
            "stages_s": {name: watch.summary(name) for name in watch.stages},
            "peak_memory_bytes": peak,
            "step_tflop": round(flops / 1e12, 4),
            "step_tflop_per_s": round(flops / step_s / 1e12, 3),
            "roofline": roof,
            "step_share_of_matrix_rate": round(flops / step_s / 1e12 / roof["matrix_tflop_per_s"], 3),
        }


class Stopwatch:
    """Times between marks, by events on a GPU, where the host runs ahead, and by the clock elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._marks: list[tuple[str, torch.cuda.Event | float]] = []
        self._first: int | None = None
        self._seconds: dict[str, list[float]] = {}
        self.stages: list[str] = []

    def begin(self) -> None:
        """A chunk begins."""
        self._marks, self._first = [("", self._now())], None

    def mark(self, stage: str, *, is_frame: bool = False) -> None:
        """`stage` ends here; the first one that `is_frame` ends the wait for the first frame."""
        self._marks.append((stage, self._now()))
        if is_frame and self._first is None:
            self._first = len(self._marks) - 1

    def end(self, *, is_counted: bool) -> None:
        """The chunk is done: wait for it, and add up its stages."""
        if self._is_cuda:
            torch.cuda.synchronize()
        if not is_counted:
            return
        spent: dict[str, float] = {}
        for (_, before), (stage, after) in zip(self._marks, self._marks[1:], strict=False):
            spent[stage] = spent.get(stage, 0.0) + self._between(before, after)
        begin = self._marks[0][1]
        spent["chunk"] = self._between(begin, self._marks[-1][1])
        if self._first is not None:
            spent["first frame"] = self._between(begin, self._marks[self._first][1])
        self.stages = [stage for stage in spent if stage not in ("chunk", "first frame")]
        for stage, seconds in spent.items():
            self._seconds.setdefault(stage, []).append(seconds)

    def summary(self, stage: str) -> dict[str, float]:
        """Median and 95th percentile over the chunks, in seconds."""
        seconds = sorted(self._seconds[stage])
        return {
            "median": round(statistics.median(seconds), 5),
            "p95": round(seconds[min(len(seconds) - 1, int(0.95 * len(seconds)))], 5),
        }

    def _now(self) -> torch.cuda.Event | float:
        if not self._is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, before: torch.cuda.Event | float, after: torch.cuda.Event | float) -> float:
        if isinstance(before, float) or isinstance(after, float):
            return float(after) - float(before)  # type: ignore[arg-type]
        return before.elapsed_time(after) / 1000


def step_flops(config: DiTConfig, shape: StreamShape) -> float:
    """FLOP of one denoising step with everything hoisted (specification 9.2): 2 per multiply and add."""
    tokens, dim = shape.tokens, config.dim
    linear = 2 * tokens * (8 * dim * dim + 2 * dim * config.ffn_dim)
    keys = tokens + _TEXT_KEYS + _IMAGE_KEYS + config.context_tokens
    return config.num_layers * (linear + 4 * tokens * keys * dim)


def roofline(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """What the device reaches in this run: a large matrix product, and copying memory (bytes read plus written)."""
    is_cuda = device.type == "cuda"
    side = _MATRIX if is_cuda else 1024
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.empty((_COPY_BYTES if is_cuda else _COPY_BYTES >> 5) // 4, device=device)
    target = torch.empty_like(source)
    product_s = _best_s(device, lambda: torch.mm(a, b))
    copy_s = _best_s(device, lambda: target.copy_(source))
    return {
        "matrix_tflop_per_s": round(2 * side**3 / product_s / 1e12, 3),
        "copy_gb_per_s": round(2 * source.numel() * 4 / copy_s / 1e9, 1),
    }


def _best_s(device: torch.device, work: Callable[[], object]) -> float:
    times = []
    for _ in range(_PROBE_RUNS):
        with _timed(device) as seconds:
            work()
        times.append(seconds[0])
    return statistics.median(times[_PROBE_RUNS // 4 :])


@contextmanager
def _timed(device: torch.device) -> Iterator[list[float]]:
    seconds: list[float] = []
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started_s = time.perf_counter()
    yield seconds
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds.append(time.perf_counter() - started_s)


def random_conditions(dit: DiT, shape: StreamShape, steps: int, device: torch.device) -> StreamConditions:
    """Conditions of the right shapes; gates of order one, so that every branch matters."""
    config, grid = dit.config, shape.grid
    heads = (config.num_heads, config.head_dim)

    def keys(count: int) -> list[KeyValue]:
        pair = [torch.randn(count, *heads, device=device, dtype=dit.dtype) for _ in range(2)]
        return [KeyValue(k=pair[0].clone(), v=pair[1].clone()) for _ in range(config.num_layers)]

    return StreamConditions(
        text=keys(_TEXT_KEYS),
        image=keys(_IMAGE_KEYS),
        modulation=0.5 * torch.randn(steps, config.num_layers, 6, config.dim, device=device),
        head_modulation=0.5 * torch.randn(steps, 2, config.dim, device=device),
        patches=torch.randn(shape.tokens, config.dim, device=device),
        table=rotary_table(grid, config.head_dim).to(device),
        grid=grid,
        runs=frame_runs(0, shape.tokens, grid[1] * grid[2], grid[0]),
    )


def _models(settings: BenchSettings, progress: Progress) -> tuple[DiT, Vae, SpeechEncoder, torch.device]:
    if settings.checkpoint:
        return _loaded(settings, progress)
    device = choose_device(settings.device, 18_882_046_784)
    if device.type != "cuda":
        raise GeneratorError(
            "Random weights at the published size need a GPU.", hint="Give a small model with --checkpoint."
        )
    precision = precision_for(device)
    dit = _random(lambda: DiT(DiTConfig()), device, precision.dit)
    dit.head.head.float()
    vae = _random(lambda: Vae(VaeConfig()), device, precision.vae)
    vae.use_channels_last()
    speech = _random(lambda: build_speech_encoder(SpeechEncoderConfig()), device, torch.float32)
    return dit, vae, speech, device


def _loaded(settings: BenchSettings, progress: Progress) -> tuple[DiT, Vae, SpeechEncoder, torch.device]:
    folder = expanded(settings.checkpoint)
    report = inspect_checkpoint(folder, settings.speech_encoder or None)
    device = choose_device(settings.device, report.transformer_parameters)
    precision = precision_for(device)
    assert report.speech_directory is not None and report.speech_weights is not None
    return (
        load_dit(DiTConfig.from_dict(report.config), report.transformer_files, device, precision.dit, progress),
        load_vae(report.vae, device, precision.vae),
        load_speech_encoder(report.speech_directory, report.speech_weights, device),
        device,
    )


def _random(build: Callable[[], nn.Module], device: torch.device, dtype: torch.dtype):
    """A module with random weights that keep the size of what goes through; what no step uses stays without memory."""
    with torch.device("meta"):
        module = build()
    for name, parameter in list(module.named_parameters()):
        if is_set_up_only(name):
            continue
        owner = module.get_submodule(name.rpartition(".")[0])
        value = torch.empty(parameter.shape, device=device, dtype=dtype)
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 0
        value.normal_(0.0 if fan_in else 1.0, fan_in**-0.5 if fan_in else 0.1)
        setattr(owner, name.rpartition(".")[2], nn.Parameter(value, requires_grad=False))
    return module.eval()
