"""What a rank takes, against the generator's own count of one that is alone, and against what must shrink."""

from __future__ import annotations

import json
import struct

import pytest

from engine.model_store.checkpoint import inspect_checkpoint
from engine.model_store.gpu_memory import SIZES, RankMemory, rank_memory, resident_parameters, tokens_of

MEMORY = RankMemory()


@pytest.fixture(scope="module")
def published():
    """The 14B transformer without its numbers."""
    torch = pytest.importorskip("torch")
    from engine.generators.flashtalk.config import DiTConfig
    from engine.generators.flashtalk.transformer import DiT

    with torch.device("meta"):
        return DiT(DiTConfig())


def test_resident_parameters_are_those_that_the_loader_keeps(published):
    from engine.generators.flashtalk.transformer import is_set_up_only

    expected = sum(p.numel() for name, p in published.named_parameters() if not is_set_up_only(name))
    assert resident_parameters((name, p.numel()) for name, p in published.named_parameters()) == expected
    assert MEMORY.parameters == expected == pytest.approx(14.45e9, rel=1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_one_rank_agrees_with_the_generator(size):
    torch = pytest.importorskip("torch")
    from engine.generators.flashtalk.config import DiTConfig, StreamShape
    from engine.generators.flashtalk.memory import needed_bytes
    from engine.generators.flashtalk.weights import precision_for

    shape = StreamShape(height=size[0], width=size[1])
    assert tokens_of(*size) == shape.tokens
    own = needed_bytes(DiTConfig(), shape, precision_for(torch.device("cuda")))
    assert MEMORY.needed_bytes(height=size[0], width=size[1]) == pytest.approx(own, rel=0.03)


def test_offered_sizes_are_the_generators():
    pytest.importorskip("torch")
    from engine.generators.flashtalk.options import SIZES as GENERATORS

    assert GENERATORS == SIZES


def test_ranks_share_all_but_the_weights():
    needed = [MEMORY.needed_bytes(world) for world in range(1, 17)]
    assert needed == sorted(needed, reverse=True)
    assert all(bytes_ > MEMORY.weights_bytes for bytes_ in needed)
    without = [bytes_ - MEMORY.weights_bytes for bytes_ in needed]
    assert without[7] < 0.6 * without[0]


def test_pictures_cannot_be_cut_finer_than_rows():
    assert MEMORY.needed_bytes(96) > MEMORY.weights_bytes
    assert RankMemory(dim=64, parameters=1).needed_bytes(2, height=16, width=16) > 0


@pytest.mark.parametrize(
    ("free_gb", "below", "size"),
    [
        (80, (768, 448), (512, 512)),
        (33.15, (768, 448), (640, 384)),
        (33.0, (768, 448), (512, 320)),
        (33.0, (448, 768), (320, 512)),
        (32, (768, 448), None),
        (80, (512, 320), None),
    ],
)
def test_largest_size_that_fits(free_gb, below, size):
    assert MEMORY.fitting_size(int(free_gb * 1e9), below=below) == size


@pytest.mark.parametrize("precision", ["bf16", "fp8", "int8"])
def test_of_the_weights_streaming_leaves_two_blocks(precision):
    memory = MEMORY.at(precision)
    streaming = memory.streaming()
    assert streaming.host_bytes == 40 * memory.block_bytes and memory.host_bytes == 0
    assert memory.needed_bytes() - streaming.needed_bytes() == 38 * memory.block_bytes
    # 351 million parameters to a block, by the shapes of its layers.
    assert memory.block_bytes == (8 * 5120**2 + 2 * 5120 * 13824) * (2 if precision == "bf16" else 1)


@pytest.mark.parametrize(("precision", "free_gb", "streamed"), [("bf16", 36, 0), ("fp8", 20.1, 0), ("int8", 24, 0)])
def test_what_fits_is_not_streamed(precision, free_gb, streamed):
    memory = MEMORY.at(precision).fitting(int(free_gb * 1e9), height=768, width=448)
    assert memory is not None and memory.streamed_blocks == streamed


@pytest.mark.parametrize(("precision", "free_gb"), [("bf16", 15.5), ("bf16", 8), ("int8", 11.5), ("fp8", 7.5)])
def test_as_few_blocks_are_streamed_as_have_no_room(precision, free_gb):
    free, whole = int(free_gb * 1e9), MEMORY.at(precision)
    memory = whole.fitting(free, height=768, width=448)
    assert (
        memory is not None
        and memory.needed_bytes() <= free < whole.streaming(memory.streamed_blocks - 1).needed_bytes()
    )


def test_where_two_blocks_have_no_room_nothing_fits():
    assert MEMORY.fitting(5_000_000_000, height=768, width=448) is None


def test_matrices_are_those_that_the_generator_quantises(published):
    from engine.generators.flashtalk.quantization.linear import is_quantized, is_streamed
    from engine.model_store.gpu_memory import matrix_parameters

    tensors = [(name, p) for name, p in published.named_parameters()]
    expected = sum(p.numel() for name, p in tensors if is_quantized(name, p.shape))
    assert matrix_parameters((name, p.numel()) for name, p in tensors) == expected == MEMORY.matrix_parameters
    assert {name for name, p in tensors if is_quantized(name, p.shape)} == {n for n, _ in tensors if is_streamed(n)}


def test_from_a_checkpoint(tmp_path):
    shapes = {
        "blocks.0.self_attn.q.weight": [64, 64],
        "blocks.0.cross_attn.k_img.weight": [64, 64],
        "text_embedding.0.weight": [64, 4096],
        "head.head.weight": [64, 64],
    }
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * shape[1]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    content = struct.pack("<Q", len(text)) + text + bytes(end)
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(content)
    config = {"model_type": "i2v", "dim": 64, "ffn_dim": 128, "num_heads": 4, "num_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "google" / "umt5-xxl").mkdir(parents=True)
    (tmp_path / "google" / "umt5-xxl" / "tokenizer.json").write_text("{}")
    for name in (
        "models_t5_umt5-xxl-enc-bf16.pth",
        "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
        "Wan2.1_VAE.pth",
    ):
        (tmp_path / name).write_bytes(b"x")
    memory = rank_memory(inspect_checkpoint(tmp_path, needs_speech=False))
    assert (memory.parameters, memory.dim, memory.ffn_dim, memory.layers, memory.heads) == (2 * 64 * 64, 64, 128, 1, 4)
    assert memory.needed_bytes() < 2e9
