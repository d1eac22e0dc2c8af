"""Blocks whose weights come when their turn does: the same bits as if they were there, and nothing kept too long."""

from __future__ import annotations

import gc
import weakref

import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk import block_streaming  # noqa: E402
from engine.generators.flashtalk.attention import choose_attention  # noqa: E402
from engine.generators.flashtalk.block_streaming import BlockStreamer, free_host_bytes  # noqa: E402
from engine.generators.flashtalk.config import DiTConfig, StreamShape  # noqa: E402
from engine.generators.flashtalk.quantization import store  # noqa: E402
from engine.generators.flashtalk.quantization.scheme import SCHEMES  # noqa: E402
from engine.generators.flashtalk.transformer import DiT  # noqa: E402
from engine.generators.flashtalk.weights import Placement, assign, load_dit  # noqa: E402
from engine.parallel.group import LocalGroup  # noqa: E402

CPU = torch.device("cpu")
SHAPE = StreamShape(height=32, width=48)
CONFIG = DiTConfig(
    dim=64, ffn_dim=96, freq_dim=32, num_heads=2, num_layers=7, text_dim=24, text_len=32, intermediate_dim=8,
    output_dim=40, img_emb_in_dim=32, audio_channels=32,
)  # fmt: skip


class Quiet:
    def update(self, *_arguments):
        """Nothing is told."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A checkpoint of seven blocks."""
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("deep") / "diffusion_pytorch_model.safetensors"
    torch.manual_seed(0)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in DiT(CONFIG).state_dict().items()}
    tensors = {name: torch.randn(shape) / max(1, shape[-1]) ** 0.5 for name, shape in shapes.items()}
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, path)
    return [path]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "quantized_folder", lambda: tmp_path / "cache")


def _load(files, streamed=(), scheme=None) -> DiT:
    placement = Placement(scheme=scheme, streamed=frozenset(streamed))
    return load_dit(CONFIG, files, CPU, torch.bfloat16, Quiet(), placement)


@pytest.fixture
def steps(random_conditions):
    """A function: what a few denoising steps of a model give, always with the same numbers."""

    @torch.no_grad()
    def run(dit: DiT, count: int = 3) -> list[torch.Tensor]:
        torch.manual_seed(1)
        stream, chunk = random_conditions(dit, SHAPE, 4, CPU)
        attention = choose_attention(CPU, torch.bfloat16, "auto")
        latents = torch.randn(SHAPE.latent)
        return [dit(latents, step, stream, chunk, LocalGroup(), attention) for step in range(count)]

    return run


@pytest.mark.parametrize("streamed", [range(7), (0, 2, 4, 6), (3,), (5, 6)], ids=["all", "half", "one", "last"])
@pytest.mark.parametrize("scheme", [None, *SCHEMES.values()], ids=["wide", *SCHEMES])
def test_streamed_blocks_compute_the_same_bits(files, streamed, scheme, steps):
    expected = steps(_load(files, scheme=scheme))
    dit = _load(files, streamed, scheme)
    streamer = BlockStreamer(dit.blocks, streamed, CPU)
    for found, resident in zip(steps(dit), expected, strict=True):
        assert torch.equal(found, resident) and found.isfinite().all()
    assert streamer.misses == 1
    assert streamer.copies == (len(streamed) if len(streamed) <= 2 else 3 * len(streamed) + 2)


@pytest.mark.parametrize("slots", [1, 2, 3, 9])
def test_any_number_of_buffers_will_do(files, slots, steps):
    expected = steps(_load(files))
    dit = _load(files, range(7))
    BlockStreamer(dit.blocks, range(7), CPU, slots=slots)
    assert all(torch.equal(*pair) for pair in zip(steps(dit), expected, strict=True))


def test_between_its_calls_a_streamed_block_has_no_weights(files, steps):
    """Whatever goes round the call fails instead of using another block's."""
    dit = _load(files, (1, 3))
    BlockStreamer(dit.blocks, (1, 3), CPU)
    for _ in range(2):
        assert not dit.blocks[1].ffn[0].weight.numel() and not dit.blocks[3].self_attn.q.weight.numel()
        assert dit.blocks[0].ffn[0].weight.numel() and dit.blocks[1].ffn[0].bias.numel()
        with pytest.raises(RuntimeError):
            dit.blocks[1].ffn(torch.zeros(4, 64).bfloat16())
        steps(dit, 1)


def test_a_block_that_fails_lets_the_next_attempt_through(files, steps):
    dit = _load(files, range(7))
    BlockStreamer(dit.blocks, range(7), CPU)
    handle = dit.blocks[3].norm3.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(ValueError("stop")))
    real = dit.blocks[3].self_attn.o.forward
    dit.blocks[3].self_attn.o.forward = lambda _x: (_ for _ in ()).throw(ValueError("stop"))
    with pytest.raises(ValueError, match="stop"):
        steps(dit)
    assert not dit.blocks[3].ffn[0].weight.numel()
    handle.remove()
    dit.blocks[3].self_attn.o.forward = real
    assert all(torch.equal(*pair) for pair in zip(steps(dit), steps(_load(files)), strict=True))


def test_only_buffers_and_small_parameters_are_on_the_device(files):
    """The bytes that streaming is for."""
    dit = _load(files, range(7))
    streamer = BlockStreamer(dit.blocks, range(7), CPU)
    matrices = 8 * CONFIG.dim**2 + 2 * CONFIG.dim * CONFIG.ffn_dim
    assert streamer.block_bytes == 2 * matrices and streamer.slot_bytes == 2 * streamer.block_bytes
    names = {n.split(".", 1)[1] for n, p in dit.blocks.named_parameters() if p.numel() and p.dim() == 2}
    assert names == {f"cross_attn.{name}.weight" for name in ("k", "v", "k_img", "v_img")} | {
        "audio_cross_attn.kv_linear.weight"
    }


def test_a_dropped_model_is_freed_at_once(files, steps):
    """Without waiting for the garbage collector: on a GPU these are gigabytes."""
    dit = _load(files, range(7))
    streamer = BlockStreamer(dit.blocks, range(7), CPU)
    steps(dit, 1)
    gone = [weakref.ref(dit.blocks[2]), weakref.ref(streamer)]
    gc.disable()
    try:
        del dit, streamer
        assert [ref() for ref in gone] == [None, None]
    finally:
        gc.enable()


def test_memory_is_pinned_only_where_the_host_keeps_enough(monkeypatch):
    monkeypatch.setattr(block_streaming, "free_host_bytes", lambda: 10_000)
    assert block_streaming._may_pin(7_000) and not block_streaming._may_pin(7_001)
    monkeypatch.setattr(block_streaming, "free_host_bytes", lambda: None)
    assert not block_streaming._may_pin(1)


def test_this_computer_says_how_much_memory_is_free():
    free = free_host_bytes()
    assert free is None or 1 << 26 < free < 1 << 46


class _Cuda:
    """The calls that lock and unlock pages; `fails` from the so-manieth on."""

    def __init__(self, fails: int = 99) -> None:
        self.locked: dict[int, int] = {}
        self.fails, self.calls = fails, 0

    def cudaHostRegister(self, address, size, flags):
        self.calls += 1
        if self.calls >= self.fails:
            return 2
        self.locked[address] = size
        return 0

    def cudaHostUnregister(self, address):
        del self.locked[address]
        return 0


@pytest.mark.parametrize("fails", [99, 1, 2])
def test_pinned_memory_is_a_copy_of_exactly_that_size_or_nothing(fails, monkeypatch):
    cuda = _Cuda(fails)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    blocks = [[torch.randn(8, 4).bfloat16(), torch.randint(-9, 9, (4, 4), dtype=torch.int8)] for _ in range(3)]
    copies, locked = block_streaming._pinned(blocks)
    if fails < 99:
        assert copies is blocks and not locked and not cuda.locked
        return
    assert [flat.nbytes for flat in locked] == [80, 80, 80] and sorted(cuda.locked.values()) == [80, 80, 80]
    for block, copied in zip(blocks, copies, strict=True):
        assert all(torch.equal(*pair) and pair[0].dtype == pair[1].dtype for pair in zip(block, copied, strict=True))
        assert all(tensor.data_ptr() != copy.data_ptr() for tensor, copy in zip(block, copied, strict=True))
    block_streaming._unpin(locked)
    assert not cuda.locked


def test_assigned_weights_are_what_is_streamed(files, steps):
    """`assign` is how every loader puts weights in; hooks must not have kept older ones."""
    dit = _load(files, range(7))
    assign(dit, {name: tensor * 2 for name, tensor in dit.state_dict().items()})
    expected = steps(dit)
    BlockStreamer(dit.blocks, range(7), CPU)
    assert all(torch.equal(*pair) for pair in zip(steps(dit), expected, strict=True))
