"""How much GPU memory each rank of a stream takes, from a checkpoint's configuration and headers, without torch.

Every rank holds all weights that a step uses; what it computes with shrinks with the number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from engine.model_store.checkpoint import CheckpointReport

SIZES = ((768, 448), (448, 768), (640, 384), (384, 640), (512, 512), (512, 320), (320, 512))
"""Offered picture sizes (height, width)."""
_ITEM_BYTES = 2
_SET_UP_ONLY = ("text_embedding.", "img_emb.", "time_embedding.", "time_projection.")
_SET_UP_ONLY_IN_BLOCKS = tuple(f".cross_attn.{name}." for name in ("k", "v", "k_img", "v_img", "norm_k", "norm_k_img"))
"""What makes keys, values and modulation once, and never goes to the GPU."""
_OTHER_PARAMETERS_BYTES = 0.65e9
"""VAE (127 M parameters, 2 bytes) and speech encoder (94 M, 4 bytes, of rank 0)."""
_VAE_BYTES_PER_PIXEL = 9_000
"""History and work of decoding, 3.1 GB at 768x448."""
_TOKEN_TENSORS, _FFN_TENSORS = 14, 2
"""Tensors of a token's width and of the feed-forward's that are alive at once in a block."""
_EXCHANGED_TENSORS = 8
"""q, k, v and the result on their way to other ranks and from them."""
_HALO_ROWS = 2
"""Latent rows that a rank has of its neighbours' bands, above and below together."""
_PROCESS_BYTES, _COMMUNICATION_BYTES = 0.6e9, 0.6e9
"""Taken before any tensor: CUDA's context with its libraries, and NCCL's buffers where there are several ranks. Both
depend on driver and GPU; these are round figures on the safe side."""
_FRAMES = 9
_TEXT_AND_IMAGE_KEYS = 64 + 257


@dataclass(frozen=True, kw_only=True)
class RankMemory:
    """Sizes that count, by default those of the published 14B model. `parameters` are those that stay on the GPU."""

    parameters: int = 14_446_254_144
    dim: int = 5120
    ffn_dim: int = 13824
    layers: int = 40
    heads: int = 40
    context_tokens: int = 32
    sizes: tuple[tuple[int, int], ...] = field(default=SIZES)

    @property
    def weights_bytes(self) -> int:
        """The transformer's, the same on every rank."""
        return self.parameters * _ITEM_BYTES

    def needed_bytes(self, world: int = 1, *, height: int = 768, width: int = 448) -> int:
        """For one of `world` ranks while it streams pictures of that size, px: weights, tokens, pictures, process."""
        tokens = -(-tokens_of(height, width) // world)
        # Keys and values of text, portrait and voice: all of them on every rank.
        keys = 2 * self.dim * self.layers * (_TEXT_AND_IMAGE_KEYS + _FRAMES * self.context_tokens)
        rows = _TOKEN_TENSORS * self.dim + _FFN_TENSORS * self.ffn_dim
        if world > 1:
            rows += _EXCHANGED_TENSORS * self.dim
        constant = 4 * tokens * self.dim
        small = min(1.0, self.dim / RankMemory.dim)
        pictures = _VAE_BYTES_PER_PIXEL * height * width * _share_of_rows(height // 8, world)
        process = _PROCESS_BYTES + (_COMMUNICATION_BYTES if world > 1 else 0.0)
        computed = (self.parameters + keys + tokens * rows) * _ITEM_BYTES + constant
        return int(computed + (pictures + _OTHER_PARAMETERS_BYTES) * small + process)

    def fitting_size(self, free_bytes: int, world: int = 1, *, below: tuple[int, int]) -> tuple[int, int] | None:
        """The largest offered size (height, width) smaller than `below` for which that much is enough."""
        smaller = [size for size in self.sizes if size[0] * size[1] < below[0] * below[1]]
        fitting = [size for size in smaller if self.needed_bytes(world, height=size[0], width=size[1]) <= free_bytes]
        is_upright = below[0] >= below[1]
        return max(fitting, key=lambda size: (size[0] * size[1], (size[0] >= size[1]) == is_upright), default=None)


def rank_memory(report: CheckpointReport) -> RankMemory:
    """Of a checkpoint that `inspect_checkpoint` has read."""
    config = report.config
    standard = RankMemory()
    return RankMemory(
        parameters=resident_parameters((name, tensor.parameters) for name, tensor in report.tensors.items()),
        dim=int(config.get("dim", standard.dim)),
        ffn_dim=int(config.get("ffn_dim", standard.ffn_dim)),
        layers=int(config.get("num_layers", standard.layers)),
        heads=int(config.get("num_heads", standard.heads)),
        context_tokens=int(config.get("context_tokens", standard.context_tokens)),
    )


def resident_parameters(tensors: Iterable[tuple[str, int]]) -> int:
    """Parameters that streaming needs on the GPU, of all with their names and counts."""
    return sum(
        count
        for name, count in tensors
        if not name.startswith(_SET_UP_ONLY) and not any(part in name for part in _SET_UP_ONLY_IN_BLOCKS)
    )


def tokens_of(height: int, width: int) -> int:
    """Tokens of a chunk of 33 frames, whose 9 latent frames are cut into patches of 16x16 px."""
    return _FRAMES * (height // 16) * (width // 16)


def _share_of_rows(rows: int, world: int) -> float:
    """Of the picture, the part that the rank with the tallest band works on."""
    return 1.0 if world == 1 else min(1.0, (-(-rows // world) + _HALO_ROWS) / rows)
