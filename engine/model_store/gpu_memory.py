"""How much GPU memory each rank of a stream takes, part by part, from a checkpoint's configuration and headers alone.

Every rank holds all weights that a step uses, in 16 or 8 bits, or buffers for a few blocks of them where they are
streamed from the host; what it computes with shrinks with the number of ranks. The parts are compared with what the
model's own code allocates in `tests/unit/engine/generators/flashtalk/test_memory.py`. Without torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from engine.model_store.checkpoint import CheckpointReport

SIZES = ((768, 448), (448, 768), (640, 384), (384, 640), (512, 512), (512, 320), (320, 512))
"""Offered picture sizes (height, width)."""
EIGHT_BITS = ("fp8", "int8")
"""Precisions that keep the blocks' matrices in 8 bits."""
_SET_UP_ONLY = ("text_embedding.", "img_emb.", "time_embedding.", "time_projection.")
_SET_UP_ONLY_IN_BLOCKS = tuple(f".cross_attn.{name}." for name in ("k", "v", "k_img", "v_img", "norm_k", "norm_k_img"))
"""What makes keys, values and modulation once, and never goes to the GPU."""
_MATRICES = re.compile(
    r"blocks\.\d+\.(self_attn\.[qkvo]|cross_attn\.[qo]|audio_cross_attn\.(q_linear|proj)|ffn\.[02])\.weight"
)
"""What can be in 8 bits and streamed, block by block; as in `engine.generators.flashtalk.quantization.linear`."""
_SLOTS = 2
"""Blocks on the device at a time where they are streamed."""
_OTHER_PARAMETERS_BYTES = 0.65e9
"""VAE (127 M parameters, 2 bytes) and speech encoder (94 M, 4 bytes, of rank 0)."""
_VAE_BYTES_PER_PIXEL = 9_000
"""History and work of decoding, 3.1 GB at 768x448."""
_VAE_HISTORY_BYTES_PER_PIXEL = 4_730
"""Of these, what the convolutions remember; a graph needs it in its place also while nothing is decoded."""
_TOKEN_TENSORS, _FFN_TENSORS = 12, 2
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
_TIMESTEPS = 10
"""For which modulation is tabulated, at most."""


@dataclass(frozen=True, kw_only=True)
class MemoryParts:
    """Bytes on one GPU. `buffers` are for streamed blocks; `activations` the larger of a denoising step and of decoding
    pictures, which follow each other; `process` is what CUDA takes before any tensor; `graphs` what recorded steps and
    decoding keep, none of which anything else can use."""

    weights: int
    buffers: int
    conditions: int
    others: int
    activations: int
    process: int
    graphs: int = 0

    @property
    def total(self) -> int:
        """All parts together."""
        kept = self.weights + self.buffers + self.conditions + self.others
        return kept + self.activations + self.process + self.graphs


@dataclass(frozen=True, kw_only=True)
class RankMemory:
    """Sizes that count, by default those of the published 14B model in 16 bits, all of it on the GPU.

    `parameters` are those that stay on the GPU, `matrix_parameters` those of them in the blocks' matrices, which take
    `matrix_bytes` each and all others `item_bytes`, as tokens do. `streamed_blocks` of the `layers` stay on the host.
    With `has_graphs` steps and decoding are recorded, unless blocks are streamed.
    """

    parameters: int = 14_446_254_144
    matrix_parameters: int = 14_050_918_400
    dim: int = 5120
    ffn_dim: int = 13824
    layers: int = 40
    heads: int = 40
    context_tokens: int = 32
    item_bytes: int = 2
    matrix_bytes: int = 2
    streamed_blocks: int = 0
    has_graphs: bool = False
    sizes: tuple[tuple[int, int], ...] = field(default=SIZES)

    def at(self, precision: str) -> RankMemory:
        """With that precision of the weights: one of `EIGHT_BITS`, "fp32", or any other for 16 bits."""
        item_bytes = 4 if precision == "fp32" else self.item_bytes
        return replace(self, item_bytes=item_bytes, matrix_bytes=1 if precision in EIGHT_BITS else item_bytes)

    def streaming(self, blocks: int | None = None) -> RankMemory:
        """With so many blocks on the host, all of them by default."""
        return replace(self, streamed_blocks=self.layers if blocks is None else blocks)

    @property
    def block_bytes(self) -> int:
        """The matrices of one block: what is copied to the GPU for each streamed block at every step."""
        return self.matrix_parameters * self.matrix_bytes // self.layers

    @property
    def weights_bytes(self) -> int:
        """The transformer's, the same on every rank."""
        scales = 4 * self.layers * (9 * self.dim + self.ffn_dim) if self.matrix_bytes == 1 else 0
        matrices = self.block_bytes * (self.layers - self.streamed_blocks)
        return (self.parameters - self.matrix_parameters) * self.item_bytes + matrices + scales

    @property
    def host_bytes(self) -> int:
        """Of the streamed blocks, on the host."""
        return self.block_bytes * self.streamed_blocks

    def parts(self, world: int = 1, *, height: int = 768, width: int = 448, frames: int = _FRAMES) -> MemoryParts:
        """For one of `world` ranks while it streams pictures of that size, px, in chunks of `frames` latent frames."""
        tokens = -(-tokens_of(height, width, frames) // world)
        # Keys and values of text, portrait and voice: all of them on every rank.
        voice = 2 * self.dim * self.layers * frames * self.context_tokens
        keys = 2 * self.dim * self.layers * _TEXT_AND_IMAGE_KEYS + voice
        constant = 4 * tokens * (self.dim + self.dim // max(1, self.heads))
        modulation = 4 * _TIMESTEPS * 6 * self.layers * self.dim
        rows = _TOKEN_TENSORS * self.dim + _FFN_TENSORS * self.ffn_dim
        if world > 1:
            rows += _EXCHANGED_TENSORS * self.dim
        small = min(1.0, self.dim / RankMemory.dim)
        pixels = height * width * _share_of_rows(height // 8, world) * small
        step, pictures = tokens * rows * self.item_bytes, _VAE_BYTES_PER_PIXEL * pixels
        # Steps and decoding work in one pool, which is as large as the larger of them.
        graphs = voice * self.item_bytes + step
        if world == 1:  # several ranks decode without
            history = _VAE_HISTORY_BYTES_PER_PIXEL * pixels
            graphs += history + max(0.0, pictures - history - step)
        return MemoryParts(
            weights=self.weights_bytes,
            buffers=min(_SLOTS, self.streamed_blocks) * self.block_bytes,
            conditions=keys * self.item_bytes + constant + modulation,
            others=int(_OTHER_PARAMETERS_BYTES * small),
            activations=int(max(step, pictures)),
            process=int(_PROCESS_BYTES + (_COMMUNICATION_BYTES if world > 1 else 0.0)),
            graphs=int(graphs) if self.has_graphs and not self.streamed_blocks else 0,
        )

    def needed_bytes(self, world: int = 1, *, height: int = 768, width: int = 448) -> int:
        """All parts of `parts` together."""
        return self.parts(world, height=height, width=width).total

    def fitting(self, free_bytes: int, world: int = 1, *, height: int, width: int) -> RankMemory | None:
        """The same with as few streamed blocks as that much is enough for; None where even all are not few enough."""
        for blocks in range(self.layers + 1):
            streaming = self.streaming(blocks)
            if streaming.needed_bytes(world, height=height, width=width) <= free_bytes:
                return streaming
        return None

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
    counts = [(name, tensor.parameters) for name, tensor in report.tensors.items()]
    return RankMemory(
        parameters=resident_parameters(counts),
        matrix_parameters=matrix_parameters(counts),
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


def matrix_parameters(tensors: Iterable[tuple[str, int]]) -> int:
    """Those of the blocks' matrices that every token goes through, of all with their names and counts."""
    return sum(count for name, count in tensors if _MATRICES.fullmatch(name))


def tokens_of(height: int, width: int, frames: int = _FRAMES) -> int:
    """Tokens of a chunk of `frames` latent frames (33 frames make 9), cut into patches of 16x16 px."""
    return frames * (height // 16) * (width // 16)


def _share_of_rows(rows: int, world: int) -> float:
    """Of the picture, the part that the rank with the tallest band works on."""
    return 1.0 if world == 1 else min(1.0, (-(-rows // world) + _HALO_ROWS) / rows)
