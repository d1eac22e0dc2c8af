"""GPU memory that is asked for, against what the model's own code allocates, and what is said when there is less."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import pytest

torch = pytest.importorskip("torch")

from engine.errors import GeneratorError  # noqa: E402
from engine.generators.flashtalk import layers  # noqa: E402
from engine.generators.flashtalk.config import DiTConfig, StreamShape  # noqa: E402
from engine.generators.flashtalk.kernels import attend_two  # noqa: E402
from engine.generators.flashtalk.memory import (  # noqa: E402
    Demand,
    free_bytes,
    needed_bytes,
    no_room_for_graphs,
    streamed_blocks,
)
from engine.generators.flashtalk.quantization.linear import QuantizedLinear, prepare_quantized  # noqa: E402
from engine.generators.flashtalk.quantization.products import INTEGER, SCALED_AFTER, WIDENED  # noqa: E402
from engine.generators.flashtalk.quantization.scheme import FP8, INT8  # noqa: E402
from engine.generators.flashtalk.transformer import DiT, is_set_up_only  # noqa: E402
from engine.generators.flashtalk.vae import Vae  # noqa: E402
from engine.generators.flashtalk.vae_coders import VaeConfig  # noqa: E402
from engine.generators.flashtalk.weights import Precision, precision_for  # noqa: E402
from engine.model_store import gpu_memory  # noqa: E402
from engine.parallel.group import LocalGroup  # noqa: E402

REAL = DiTConfig()
BF16 = precision_for(torch.device("cuda"))
META = torch.device("meta")
TINY = DiTConfig(dim=96, ffn_dim=128, freq_dim=32, num_heads=4, num_layers=2, text_dim=24, intermediate_dim=8)
GB = 1e9


def _demand(height: int = 768, width: int = 448, precision: Precision = BF16, scheme=None, config=REAL) -> Demand:
    shape = StreamShape(height=height, width=width)
    return Demand(config=config, shape=shape, precision=precision, scheme=scheme)


def _needed(height: int, width: int, precision: Precision = BF16, scheme=None) -> float:
    return needed_bytes(REAL, StreamShape(height=height, width=width), precision, scheme) / GB


# ---------------------------------------------------------------------------------- against what the code allocates


def test_the_meter_counts_what_is_alive_at_once(peak_bytes):
    def work() -> torch.Tensor:
        a = torch.zeros(100)
        b = a + 1  # 800 bytes
        view = b[:10]
        del b
        c = torch.zeros(50)  # b's memory is still there
        del a, view
        return torch.cat((c, c))  # 600

    assert peak_bytes(work) == 1000
    given = torch.zeros(4)
    assert peak_bytes(lambda: given.add_(1)[:2]) == 0


@pytest.fixture(scope="module")
def step_bytes(random_conditions, peak_bytes):
    """A function: the most that a denoising step of a model of two blocks takes beside weights and conditions."""

    def attention(q, *_arguments):
        return torch.empty_like(q)  # fused kernels keep nothing in between

    def measure(config: DiTConfig, shape: StreamShape, device: torch.device, dtype: torch.dtype, kind=None) -> int:
        with META:
            dit = DiT(replace(config, num_layers=2)).to(dtype)
            dit.head.head.float()
        if kind is not None:
            prepare_quantized(dit, *kind)
        if device != META:
            dit = dit.to_empty(device=device)
        stream, chunk = random_conditions(dit, shape, 4, device)
        latents = torch.empty(shape.latent, device=device)
        with patch.object(attend_two, "attend_few_keys", attention), patch.object(layers, "_attend_batch", attention):
            return peak_bytes(lambda: dit(latents, 0, stream, chunk, LocalGroup(), attention))

    return measure


@pytest.mark.parametrize(
    "kind",
    [None, (FP8, SCALED_AFTER), (INT8, INTEGER)],
    ids=["bf16", "fp8", "int8"],
)
def test_a_step_of_the_published_model_takes_no_more_than_is_counted(kind, step_bytes):
    """At its full width, on the meta device. With few tokens the rows that are quantised at a time weigh more."""
    shape = StreamShape(height=512, width=320)
    rows = gpu_memory._TOKEN_TENSORS * REAL.dim + gpu_memory._FFN_TENSORS * REAL.ffn_dim
    counted = 2 * shape.tokens * rows
    assert 0.6 * counted < step_bytes(REAL, shape, META, torch.bfloat16, kind) <= counted


def test_decoding_and_encoding_take_no_more_than_is_counted(peak_bytes):
    """The real VAE on the meta device, in bfloat16 as on a GPU."""
    with META:
        vae = Vae(VaeConfig()).bfloat16()
    shape = StreamShape(height=128, width=128)
    latents = torch.empty(shape.latent, device=META)[:, :4]  # its history is full after three
    frames = torch.empty(1, 3, shape.motion_frames, shape.height, shape.width, device=META)

    def decode() -> None:
        for _ in vae.decode(latents):
            pass

    counted = gpu_memory._VAE_BYTES_PER_PIXEL * shape.height * shape.width
    assert 0.4 * counted < peak_bytes(decode) <= 1.02 * counted
    assert peak_bytes(lambda: vae.encode(frames)) <= counted


def test_a_recorded_decoder_keeps_what_is_counted(peak_bytes):
    """History for good, and in the graphs' pool the most that one latent frame takes."""
    with META:
        vae = Vae(VaeConfig()).bfloat16()
        latent = torch.empty(16, 1, 16, 16)
    stream = vae.decode_stream()
    stream.push(latent)
    history = sum(frames.nbytes for frames in stream._history._frames.values())
    assert history == pytest.approx(gpu_memory._VAE_HISTORY_BYTES_PER_PIXEL * 128 * 128, rel=1e-3)
    stream.push(latent)
    work = (gpu_memory._VAE_BYTES_PER_PIXEL - gpu_memory._VAE_HISTORY_BYTES_PER_PIXEL) * 128 * 128
    assert 0.9 * work < peak_bytes(lambda: stream.push(latent)) <= work
    stream.reset()
    assert peak_bytes(lambda: stream.push(latent)) < work


def test_the_meta_device_allocates_as_a_real_one(step_bytes):
    shape = StreamShape(height=64, width=48)
    on = {device: step_bytes(TINY, shape, torch.device(device), torch.float32) for device in ("meta", "cpu")}
    assert on["cpu"] == pytest.approx(on["meta"], rel=0.02)


@pytest.mark.parametrize("scheme", [None, FP8, INT8], ids=["bf16", "fp8", "int8"])
def test_weights_and_buffers_are_what_modules_hold(scheme):
    """Every tensor of the published model that stays on the device, counted one by one."""
    with META:
        dit = DiT(REAL).bfloat16()
    if scheme is not None:
        prepare_quantized(dit, scheme, WIDENED)
    tensors = {**dict(dit.named_parameters()), **dict(dit.named_buffers())}
    held = sum(tensor.nbytes for name, tensor in tensors.items() if not is_set_up_only(name))
    demand = _demand(scheme=scheme)
    assert demand.parts().weights == pytest.approx(held, rel=1e-4)
    block = dit.blocks[0]
    layers = [block.self_attn.q, block.self_attn.k, block.self_attn.v, block.self_attn.o, block.cross_attn.q]
    layers += [
        block.cross_attn.o,
        block.audio_cross_attn.q_linear,
        block.audio_cross_attn.proj,
        block.ffn[0],
        block.ffn[2],
    ]
    matrices = sum((x.quantized if isinstance(x, QuantizedLinear) else x.weight).nbytes for x in layers)
    streaming = demand.parts(demand.memory.streaming())
    assert streaming.buffers == 2 * matrices
    assert demand.parts().weights - streaming.weights == 40 * matrices


# -------------------------------------------------------------------------------------------------- the sums themselves


def test_the_models_own_size_needs_what_the_tables_add_up_to():
    """Specification 9.1 and 9.4: 28.9 GB of weights stay, 0.65 GB of other models, 0.21 + 0.24 GB of image and audio
    keys and a little text, 0.25 GB of constant patches, 2.6 to 3.6 GB in the decoder, which is more than in a step."""
    weights, keys, constant = 28.9 + 0.25 + 0.38, 0.21 + 0.24 + 0.05, 0.25
    assert weights + keys + constant + 2.6 < _needed(768, 448) < weights + keys + constant + 3.6


def test_16_bits_fit_in_40_gb_8_bits_in_20_and_streamed_ones_in_less():
    """What is asked of one card at 768x448, with what CUDA itself takes."""
    memory = _demand().memory
    needed = {name: memory.at(name).needed_bytes() / GB for name in ("bf16", "fp8", "int8")}
    assert needed["bf16"] < 40 and needed["fp8"] == needed["int8"] < 20
    assert memory.streaming().needed_bytes() < 8 * GB and memory.at("fp8").streaming().needed_bytes() < 7 * GB
    card = 15.5 * GB
    assert memory.fitting(int(card), height=768, width=448).streamed_blocks < 40
    assert memory.at("int8").fitting(int(11.5 * GB), height=768, width=448).streamed_blocks < 40


def test_graphs_need_a_pool_of_their_own_and_16_bits_still_fit_in_40_gb():
    plain, recorded = _demand().memory, replace(_demand().memory, has_graphs=True)
    parts = recorded.parts()
    # By hand, of 12096 tokens, 768x448 px and 288 tokens of the voice: step 2.15 GB, history 1.63, voice 0.24.
    assert parts.graphs / GB == pytest.approx(2.15 + 1.63 + 0.24, abs=0.02)
    assert recorded.needed_bytes() == plain.needed_bytes() + parts.graphs < 40 * GB
    assert recorded.streaming(1).parts().graphs == 0
    shared = recorded.parts(4).graphs  # ranks decode without
    assert shared < recorded.parts().activations < parts.graphs


def test_where_graphs_have_no_room_it_is_said_why():
    demand = _demand()
    parts = demand.parts(replace(demand.memory, has_graphs=True))
    needed = parts.graphs + parts.activations
    assert no_room_for_graphs(demand, needed) == no_room_for_graphs(demand, None) == ""
    assert no_room_for_graphs(demand, int(3 * GB)) == "7.1 GB of GPU memory are needed for it, and 3.0 GB are free"
    assert no_room_for_graphs(demand, needed - 1)


def test_fp32_weights_need_twice_as_much():
    full = precision_for(torch.device("cpu"))
    assert 1.8 * _needed(768, 448) < _needed(768, 448, full) < 2 * _needed(768, 448)


def test_larger_pictures_need_more_and_landscape_as_much():
    needed = [_needed(*size) for size in ((256, 256), (512, 320), (640, 384), (512, 512), (768, 448), (1280, 720))]
    assert needed == sorted(needed) and needed[-1] - needed[0] > 5
    assert _needed(448, 768) == _needed(768, 448)


def test_a_small_model_needs_little():
    assert needed_bytes(TINY, StreamShape(height=64, width=48), BF16) < 0.1 * GB


def test_what_ranks_exchange_data_with_is_still_to_be_taken_when_memory_is_looked_at():
    """NCCL's 0.6 GB: unlike CUDA's own, which the process has by then."""
    alone, shared = _demand(), replace(_demand(), world=2)
    assert alone.parts().process == 0
    assert shared.parts().process == gpu_memory._COMMUNICATION_BYTES == 0.6 * GB
    assert shared.parts().total == shared.memory.needed_bytes(2) - gpu_memory._PROCESS_BYTES
    assert streamed_blocks(shared, shared.parts().total, "auto") == 0
    assert streamed_blocks(shared, int(shared.parts().total - 0.3 * GB), "auto") > 0


# -------------------------------------------------------------------------------------- what is done when it is short


def test_enough_is_enough_and_a_little_less_is_streamed():
    demand = _demand()
    total = demand.parts().total
    assert streamed_blocks(demand, total, "auto") == streamed_blocks(demand, total, "none") == 0
    assert streamed_blocks(demand, None, "auto") == 0
    for missing in (1, 3 * GB, 20 * GB):
        blocks = streamed_blocks(demand, int(total - missing), "auto")
        memory = demand.memory
        assert demand.parts(memory.streaming(blocks)).total <= total - missing
        assert demand.parts(memory.streaming(blocks - 1)).total > total - missing


def test_so_many_blocks_stay_as_are_asked_for():
    demand = _demand()
    plenty = int(100 * GB)
    assert [streamed_blocks(demand, plenty, offload) for offload in ("40", "31", "0", "99")] == [0, 9, 40, 0]


def test_without_streaming_it_is_said_what_would_fit():
    demand = _demand()
    with pytest.raises(GeneratorError, match=r"34\.\d GB|33\.\d GB") as raised:
        streamed_blocks(demand, int(24 * GB), "none")
    assert raised.value.code == "flashtalk.memory" and "24.0 GB are free" in raised.value.message
    assert "offload=" in raised.value.hint and "would fit" in raised.value.hint
    with pytest.raises(GeneratorError) as raised:
        streamed_blocks(_demand(), int(24 * GB), "39")
    assert "offload=2" in raised.value.hint


def test_where_even_streaming_does_not_fit_a_smaller_picture_does():
    with pytest.raises(GeneratorError) as raised:
        streamed_blocks(_demand(scheme=INT8), int(5.6 * GB), "auto")
    assert "768x448" in raised.value.message and "precision=" not in raised.value.hint
    assert "The size 512x512 would fit" in raised.value.hint or "The size 640x384 would fit" in raised.value.hint


def test_8_bits_are_named_where_they_would_do():
    demand = _demand()
    least = demand.parts(demand.memory.at("fp8")).total
    with pytest.raises(GeneratorError, match="precision=fp8 or int8") as raised:
        streamed_blocks(demand, least, "40")
    assert "offload=" in raised.value.hint
    with pytest.raises(GeneratorError, match="precision=fp8 or int8"):
        streamed_blocks(demand, int(6.4 * GB), "auto")


def test_where_nothing_fits_the_puppet_is_named():
    with pytest.raises(GeneratorError) as raised:
        streamed_blocks(_demand(), int(2 * GB), "auto")
    assert "2.0 GB are free" in raised.value.message and "puppet" in raised.value.hint


def test_a_processor_has_room_for_anything():
    assert free_bytes(torch.device("cpu")) is None
