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
    from engine.generators.flashtalk.generator import SIZES as GENERATORS

    assert GENERATORS == SIZES


def test_ranks_share_all_but_the_weights():
    needed = [MEMORY.needed_bytes(world) for world in range(1, 17)]
    assert needed == sorted(needed, reverse=True)
    assert all(bytes_ > MEMORY.weights_bytes for bytes_ in needed)
    without = [bytes_ - MEMORY.weights_bytes for bytes_ in needed]
    assert without[7] < 0.5 * without[0]


def test_pictures_cannot_be_cut_finer_than_rows():
    assert MEMORY.needed_bytes(96) > MEMORY.weights_bytes
    assert RankMemory(dim=64, parameters=1).needed_bytes(2, height=16, width=16) > 0


@pytest.mark.parametrize(
    ("free_gb", "below", "size"),
    [
        (80, (768, 448), (512, 512)),
        (35, (768, 448), (640, 384)),
        (34.0, (768, 448), (512, 320)),
        (34.0, (448, 768), (320, 512)),
        (33, (768, 448), None),
        (80, (512, 320), None),
    ],
)
def test_largest_size_that_fits(free_gb, below, size):
    assert MEMORY.fitting_size(int(free_gb * 1e9), below=below) == size


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
