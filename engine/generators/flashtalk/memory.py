"""How much GPU memory a stream needs, told before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

from engine.errors import GeneratorError
from engine.generators.flashtalk.config import DiTConfig, StreamShape
from engine.generators.flashtalk.transformer import DiT, is_set_up_only
from engine.generators.flashtalk.weights import Precision

_OTHER_PARAMETERS_BYTES = 0.65e9
"""VAE (127 M parameters, 2 bytes) and speech encoder (94 M, 4 bytes)."""
_VAE_BYTES_PER_PIXEL = 9_000
"""What decoding keeps and works with: 1.6 GB of history and about as much again at 768x448 (specification, 9.4)."""
_TOKEN_TENSORS, _FFN_TENSORS = 14, 2
"""Tensors of a token's width and of the feed-forward's that are alive at once in a block, float32 ones twice."""


def needed_bytes(config: DiTConfig, shape: StreamShape, precision: Precision) -> int:
    """Memory of one stream and the models on its device, while streaming."""
    item = precision.dit.itemsize
    with torch.device("meta"):
        dit = DiT(config)
    resident = sum(parameter.numel() for name, parameter in dit.named_parameters() if not is_set_up_only(name))
    frames = shape.latent[1]
    keys = 2 * config.dim * config.num_layers * (257 + 64 + frames * config.context_tokens)
    tokens = shape.tokens * (_TOKEN_TENSORS * config.dim + _FFN_TENSORS * config.ffn_dim)
    constant = 4 * shape.tokens * config.dim
    small = config.dim / DiTConfig().dim
    vae = _VAE_BYTES_PER_PIXEL * shape.height * shape.width * min(1.0, small)
    return int((resident + keys + tokens) * item + constant + vae + _OTHER_PARAMETERS_BYTES * min(1.0, small))


def check_memory(
    config: DiTConfig,
    shape: StreamShape,
    precision: Precision,
    free_bytes: int,
    smaller: Iterable[tuple[int, int]],
) -> None:
    """Raises `GeneratorError` with what is needed, what is free and, of the `smaller` sizes (height, width), the
    largest that would fit."""
    needed = needed_bytes(config, shape, precision)
    if needed <= free_bytes:
        return
    hint = "Close other programs that use the GPU, or choose the puppet."
    for height, width in sorted(smaller, key=lambda size: -size[0] * size[1]):
        other = replace(shape, height=height, width=width)
        if height * width < shape.height * shape.width and needed_bytes(config, other, precision) <= free_bytes:
            hint = f"The size {height}x{width} would fit; or close other programs that use the GPU."
            break
    raise GeneratorError(
        f"FlashTalk needs {needed / 1e9:.1f} GB of GPU memory at {shape.height}x{shape.width}, "
        f"and {free_bytes / 1e9:.1f} GB are free.",
        code="flashtalk.memory",
        hint=hint,
    )
