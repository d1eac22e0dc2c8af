"""In which precision weights are kept, and where: from the options `precision` and `offload` to how they are loaded."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from engine.generators.flashtalk.block_ring import spread
from engine.generators.flashtalk.block_streaming import BlockStreamer
from engine.generators.flashtalk.config import DiTConfig
from engine.generators.flashtalk.quantization.products import WIDENED, choose_product
from engine.generators.flashtalk.quantization.scheme import SCHEMES, Scheme
from engine.generators.flashtalk.transformer import DiT
from engine.generators.flashtalk.weights import Placement
from engine.media import Notice

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Storage:
    """`precision` and `offload` as they were chosen, `streamed` the number of blocks that memory leaves no room for,
    `sharers` how many processes of this machine do the same. Models that differ in the first two are not shared."""

    precision: str = "auto"
    offload: str = "auto"
    streamed: int = 0
    sharers: int = 1

    @property
    def scheme(self) -> Scheme | None:
        """Of 8-bit weights."""
        return SCHEMES.get(self.precision)


def placement_for(
    storage: Storage, config: DiTConfig, device: torch.device, dtype: torch.dtype, rank: int, notices: list[Notice]
) -> Placement:
    """What `load_dit` is to do. Tries 8-bit products on `device`; adds to `notices` what people should know."""
    scheme, product = storage.scheme, WIDENED
    if scheme is not None:
        product = choose_product(scheme, device, dtype)
        logger.info("the blocks' layers work in %s by %s", scheme.name, product.name)
        if device.type == "cuda" and not product.is_native:
            notices.append(_not_native(scheme))
    total = config.num_layers
    streamed = frozenset(range(total)) - spread(total - storage.streamed, total)
    if streamed and storage.offload == "auto":
        notices.append(_streamed(len(streamed), total))

    def tell(reason: str) -> None:
        notices.append(_not_stored(reason))

    return Placement(scheme=scheme, product=product, streamed=streamed, keeps=rank == 0, tell=tell)


def stream_blocks(dit: DiT, placement: Placement, device: torch.device, storage: Storage) -> BlockStreamer | None:
    """Set streaming up where `placement` wants it; blocks that stay get their projections packed."""
    if not placement.streamed:
        return None
    streamer = BlockStreamer(list(dit.blocks), placement.streamed, device, sharers=storage.sharers)
    for index, block in enumerate(dit.blocks):
        if index not in placement.streamed:
            block.self_attn.pack()  # type: ignore[operator, union-attr]
    return streamer


def _not_native(scheme: Scheme) -> Notice:
    message = f"This GPU has no {scheme.name} products that agree with ours; {scheme.name} saves memory here, no time."
    hint = "INT8 is fast on every GPU since RTX 30." if scheme.name == "fp8" else "bf16 is as fast and more exact."
    return Notice(code="flashtalk.precision", message=message, hint=hint)


def _streamed(count: int, total: int) -> Notice:
    return Notice(
        code="flashtalk.offload",
        message=f"GPU memory is short: {count} of the model's {total} blocks are brought from the computer's memory at "
        "every step, which takes longer.",
        hint="precision=int8 or fp8 halves what is brought, or avoids it; so may a smaller size.",
    )


def _not_stored(reason: str) -> Notice:
    return Notice(
        code="flashtalk.8bit_cache",
        message=f"The 8-bit weights could not be kept for the next start: {reason}.",
        hint="It works without; the next start takes as long as this one.",
    )
