"""What a device can do at most, and how much a denoising step asks of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from engine.generators.flashtalk.config import DiTConfig, StreamShape
from engine.generators.flashtalk.random_models import IMAGE_TOKENS, TEXT_TOKENS

_MATRIX, _COPY_BYTES = 8192, 1 << 30
_PROBE_RUNS = 20


def step_flops(config: DiTConfig, shape: StreamShape) -> float:
    """FLOP of one denoising step with everything hoisted (specification 9.2): 2 per multiply and add."""
    tokens, dim = shape.tokens, config.dim
    linear = 2 * tokens * (8 * dim * dim + 2 * dim * config.ffn_dim)
    keys = tokens + TEXT_TOKENS + IMAGE_TOKENS + config.context_tokens
    return config.num_layers * (linear + 4 * tokens * keys * dim)


def roofline(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """What the device reaches in this run: a large matrix product in `dtype`, and copying memory (bytes read plus
    written)."""
    is_cuda = device.type == "cuda"
    side = _MATRIX if is_cuda else 1024
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.empty((_COPY_BYTES if is_cuda else _COPY_BYTES >> 5) // 4, device=device)
    target = torch.empty_like(source)
    product_s = median_s(device, lambda: torch.mm(a, b))
    copy_s = median_s(device, lambda: target.copy_(source))
    return {
        "matrix_tflop_per_s": round(2 * side**3 / product_s / 1e12, 3),
        "copy_gb_per_s": round(2 * source.numel() * 4 / copy_s / 1e9, 1),
    }


def median_s(device: torch.device, work: Callable[[], object], runs: int = _PROBE_RUNS) -> float:
    """Seconds that `work` takes on `device`, the first quarter of the runs not counted."""
    times = []
    for _ in range(runs):
        _wait(device)
        started_s = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - started_s)
    return statistics.median(times[runs // 4 :])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
