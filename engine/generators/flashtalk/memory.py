"""How much GPU memory a stream needs and how many of its weights can stay there, told before anything is loaded.

The arithmetic is `engine.model_store.gpu_memory`'s, which needs no torch; here it is asked about a model and a device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from engine.errors import GeneratorError
from engine.generators.flashtalk.config import DiTConfig, StreamShape
from engine.generators.flashtalk.quantization.scheme import Scheme
from engine.generators.flashtalk.transformer import DiT
from engine.generators.flashtalk.weights import Precision
from engine.model_store.gpu_memory import (
    SIZES,
    MemoryParts,
    RankMemory,
    matrix_parameters,
    resident_parameters,
)

HISTORY_PER_PIXEL = 1404
"""Numbers that the video encoder's convolutions remember between two groups of frames, for each pixel of a frame."""
ALL_RESIDENT = "none"
"""Value of the option `offload`: nothing is streamed, or it is an error."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a stream of `shape` asks of the device. `scheme` is that of the weights, if they are in 8 bits; `world` the
    number of ranks that share the work."""

    config: DiTConfig
    shape: StreamShape
    precision: Precision
    scheme: Scheme | None = None
    world: int = 1

    @property
    def memory(self) -> RankMemory:
        """With all weights on the device."""
        config, item = self.config, self.precision.dit.itemsize
        with torch.device("meta"):
            parameters = DiT(replace(config, num_layers=1)).named_parameters()
        # All blocks are like the first.
        counts = [(n, p.numel() * (config.num_layers if n.startswith("blocks.") else 1)) for n, p in parameters]
        return RankMemory(
            parameters=resident_parameters(counts),
            matrix_parameters=matrix_parameters(counts),
            dim=config.dim,
            ffn_dim=config.ffn_dim,
            layers=config.num_layers,
            heads=config.num_heads,
            context_tokens=config.context_tokens,
            item_bytes=item,
            matrix_bytes=item if self.scheme is None else 1,
        )

    def parts(self, memory: RankMemory | None = None) -> MemoryParts:
        """Of `memory`, by default with all weights on the device; without what the process took before. What ranks
        exchange data with is not of that: NCCL takes its memory when it is first used."""
        memory = memory or self.memory
        parts = memory.parts(self.world, height=self.shape.height, width=self.shape.width, frames=self.shape.latent[1])
        return replace(parts, process=parts.process - memory.parts().process)


def free_bytes(device: torch.device) -> int | None:
    """What this process could still take there, with what torch keeps for it; None where it does not matter."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def streamed_blocks(demand: Demand, free_bytes: int | None, offload: str) -> int:
    """How many blocks are to be streamed on a device with so much free memory (None: enough), by the option `offload`:
    "auto" (as few as possible), "none", or the number of blocks that stay.

    Raises `GeneratorError` with what is needed, what is free, and what would fit.
    """
    memory = demand.memory
    least = 0 if offload in ("auto", ALL_RESIDENT) else max(0, memory.layers - int(offload))
    most = memory.layers if offload == "auto" else least
    if free_bytes is None:
        return least
    for blocks in range(least, most + 1):
        if demand.parts(memory.streaming(blocks)).total <= free_bytes:
            return blocks
    raise _too_little(demand, memory.streaming(most), free_bytes, offload)


def _too_little(demand: Demand, memory: RankMemory, free_bytes: int, offload: str) -> GeneratorError:
    shape = demand.shape
    hint = _what_would_fit(demand, memory, free_bytes, offload)
    return GeneratorError(
        f"FlashTalk needs {demand.parts(memory).total / 1e9:.1f} GB of GPU memory at {shape.height}x{shape.width}, "
        f"and {free_bytes / 1e9:.1f} GB are free.",
        code="flashtalk.memory",
        hint=f"{hint} Or close other programs that use the GPU." if hint else _NOTHING_FITS,
    )


_NOTHING_FITS = "Close other programs that use the GPU, or choose the puppet."


def _what_would_fit(demand: Demand, memory: RankMemory, free_bytes: int, offload: str) -> str:
    """Fewer blocks on the device, 8 bits; if neither is enough a smaller picture."""
    hints = []
    if offload != "auto":
        for blocks in range(memory.streamed_blocks + 1, memory.layers + 1):
            if demand.parts(memory.streaming(blocks)).total <= free_bytes:
                hints.append(f"With offload={memory.layers - blocks} or auto it would fit, more slowly.")
                break
    if demand.scheme is None and demand.parts(memory.at("fp8")).total <= free_bytes:
        hints.append("With precision=fp8 or int8 it would fit.")
    shape = demand.shape
    for height, width in () if hints else sorted(SIZES, key=lambda size: -size[0] * size[1]):
        smaller = replace(demand, shape=replace(shape, height=height, width=width))
        if height * width < shape.height * shape.width and smaller.parts(memory).total <= free_bytes:
            return f"The size {height}x{width} would fit."
    return " ".join(hints)


def no_room_for_graphs(demand: Demand, free_bytes: int | None) -> str:
    """Why a stream that is ready to begin cannot record its steps and its decoding; nothing where it can.

    With so much memory free (None: enough). The work of the first chunk, whose steps are not recorded, has to fit
    beside what graphs keep.
    """
    if free_bytes is None:
        return ""
    parts = demand.parts(replace(demand.memory, has_graphs=True))
    needed = parts.graphs + parts.activations
    if needed <= free_bytes:
        return ""
    return f"{needed / 1e9:.1f} GB of GPU memory are needed for it, and {free_bytes / 1e9:.1f} GB are free"


def has_room_beside(demand: Demand, free_bytes: int | None) -> bool:
    """Whether another stream's chunk can be made while what the encoder remembers of a portrait is kept, with so much
    memory free (None: enough)."""
    if free_bytes is None:
        return True
    pixels = demand.shape.height * demand.shape.width / demand.world
    history = HISTORY_PER_PIXEL * pixels * demand.precision.vae.itemsize
    return demand.parts().activations + history <= free_bytes


def needed_bytes(config: DiTConfig, shape: StreamShape, precision: Precision, scheme: Scheme | None = None) -> int:
    """Memory of one stream and the models on its device, all of them there, while streaming."""
    return Demand(config=config, shape=shape, precision=precision, scheme=scheme).parts().total
