"""Kernels that make tokens 8-bit as they write them, against the plain way and against float64."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk.attention import choose_attention  # noqa: E402
from engine.generators.flashtalk.config import DiTConfig  # noqa: E402
from engine.generators.flashtalk.kernels.catalog import DIT_KERNELS, dit_kernels  # noqa: E402
from engine.generators.flashtalk.kernels.quantize import QUANTIZING  # noqa: E402
from engine.generators.flashtalk.kernels.registry import (  # noqa: E402
    EAGER,
    Kernels,
    check,
    choose_kernels,
    errors_of,
    tensors_of,
)
from engine.generators.flashtalk.quantization.linear import quantize_module  # noqa: E402
from engine.generators.flashtalk.quantization.products import WIDENED  # noqa: E402
from engine.generators.flashtalk.quantization.scheme import SCHEMES, quantize_tokens, rotated  # noqa: E402
from engine.generators.flashtalk.transformer import DiT  # noqa: E402
from engine.parallel.group import LocalGroup  # noqa: E402

EVERY = [kernel for kernels in QUANTIZING.values() for kernel in kernels.values()]
OF_INT8 = list(QUANTIZING["int8"].values())
"""The same code and more."""


def _few_rows(kernel, device, dtype, rows=6):
    """Arguments with so few tokens that the interpreter does not take long."""
    arguments = kernel.samples(torch.Generator(device).manual_seed(3), device, dtype)[-1]
    return tuple(x[:rows] if isinstance(x, torch.Tensor) and x.dim() == 2 else x for x in arguments)


def _with_few_rows(kernel, rows=2):
    return replace(kernel, samples=lambda generator, device, dtype: [_few_rows(kernel, device, dtype, rows)])


# ---------------------------------------------------------------------------------------------- against float64


@pytest.mark.parametrize("kernel", OF_INT8, ids=lambda kernel: kernel.name)
def test_in_float32_they_are_as_near_to_float64_as_the_plain_way(kernel, kernel_device):
    check(_with_few_rows(kernel, 5), kernel.load(), kernel_device, torch.float32)


@pytest.mark.parametrize("kernel", EVERY, ids=lambda kernel: kernel.name)
def test_they_give_the_numbers_of_the_plain_way(kernel, kernel_device):
    """But for the few that another order of a sum tips over a tie, and those by one step; so the error is the same."""
    arguments = _few_rows(kernel, kernel_device, torch.bfloat16)
    exact = kernel.exact(*(x.double() if isinstance(x, torch.Tensor) else x for x in arguments))
    fused, plain = (tensors_of(function(*arguments)) for function in (kernel.load(), kernel.eager))
    for got, wanted in zip(fused[:-2], plain[:-2], strict=True):
        assert (got != wanted).float().mean() < 2e-3
    codes, wanted_codes = fused[-2].float(), plain[-2].float()
    assert (codes != wanted_codes).float().mean() < 2e-3
    torch.testing.assert_close(codes, wanted_codes, rtol=0.126, atol=1.0)
    torch.testing.assert_close(fused[-1], plain[-1], rtol=2e-2, atol=0)
    errors = [errors_of(kernel.values(result)[-2], exact[-2]).relative for result in (fused, plain)]
    assert errors[0] < 1.01 * errors[1]


@pytest.mark.parametrize("kernel", OF_INT8, ids=lambda kernel: kernel.name)
def test_the_check_tells_when_a_kernel_reads_something_else(kernel, kernel_device):
    kernel, fused = _with_few_rows(kernel), kernel.load()
    for place, value in enumerate(_few_rows(kernel, kernel_device, torch.float32)):
        if not isinstance(value, torch.Tensor):
            continue

        def careless(*given, place=place):
            return fused(*given[:place], torch.zeros_like(given[place]), *given[place + 1 :])

        with pytest.raises(RuntimeError, match="error"):
            check(kernel, careless, kernel_device, torch.float32)


@pytest.mark.parametrize("name", QUANTIZING)
def test_the_check_tells_when_the_last_step_is_wrong(name, kernel_device):
    """Cut off instead of rounded, a scale that is a hundredth too large, scales of other rows, one wrong number."""
    kernel = QUANTIZING[name]["rows"]

    def cut_off(x):
        values, scales = kernel.eager(x)
        turned = (rotated(x) if SCHEMES[name].is_rotated else x).float() / scales
        lower = turned.sign() * (turned.abs() * 0.95 if values.is_floating_point() else turned.abs().floor())
        return lower.to(values.dtype), scales

    def one_wrong(x):
        values, scales = kernel.eager(x)
        values.view(torch.uint8)[3, 5] ^= 0x80
        values.view(torch.uint8)[3, 5] |= 0x60
        return values, scales

    for wrong in (
        cut_off,
        one_wrong,
        lambda x: (kernel.eager(x)[0], 1.01 * kernel.eager(x)[1]),
        lambda x: (kernel.eager(x)[0], kernel.eager(x)[1].roll(1, 0)),
    ):
        with pytest.raises(RuntimeError, match="error"):
            check(kernel, wrong, kernel_device, torch.float32)


# --------------------------------------------------------------------------------------------- what they are for


@pytest.mark.parametrize("name", QUANTIZING)
def test_they_are_another_kernel_and_then_8_bits(name):
    """The plain way is the kernel of the same name, then `quantize_tokens`; GELU is its tanh form."""
    cpu = torch.device("cpu")
    plain = {kernel.name: kernel for kernel in DIT_KERNELS}
    for part, kernel in QUANTIZING[name].items():
        arguments = _few_rows(kernel, cpu, torch.float32)
        assert kernel.name == f"{part}_{name}" and not kernel.is_compilable
        if part == "gelu":
            x = arguments[0].double()
            wanted = ((0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))).float(),)
        else:
            wanted = arguments if part == "rows" else tensors_of(plain[part].eager(*arguments))
        *before, values, scales = kernel.eager(*arguments)
        wanted_values, wanted_scales = quantize_tokens(wanted[-1], SCHEMES[name])
        assert len(before) == len(wanted) - 1 and all(map(torch.equal, before, wanted))
        torch.testing.assert_close(scales, wanted_scales, rtol=1e-5, atol=0)
        assert (values.float() != wanted_values.float()).float().mean() < 1e-3


@pytest.mark.parametrize("name", QUANTIZING)
@pytest.mark.parametrize("width", [96, 320, 80, 1024])
def test_other_widths(name, width, kernel_device):
    """Blocks of 16, 64 and 256, with and without columns that fill no block; columns of a wider tensor."""
    x = torch.randn(5, 2 * width, device=kernel_device, generator=torch.Generator(kernel_device).manual_seed(1))
    for part in (x[:, :width], x[1:, width:]):
        kernel = QUANTIZING[name]["rows"]
        got, wanted = kernel.load()(part), kernel.eager(part)
        assert (got[0].float() != wanted[0].float()).float().mean() < 2e-3
        torch.testing.assert_close(got[1], wanted[1], rtol=1e-5, atol=0)


@pytest.mark.filterwarnings("ignore:invalid value")  # of numpy, in which the interpreter computes
@pytest.mark.parametrize("name", QUANTIZING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zeros_stay_zeros_and_no_numbers_stay_none(name, dtype, kernel_device):
    x = torch.zeros(4, 96, dtype=dtype, device=kernel_device)
    x[1, 5], x[3, 7] = float("nan"), float("inf")
    values, scales = QUANTIZING[name]["rows"].load()(x)
    assert torch.equal((values.float() * scales)[[0, 2]].cpu(), torch.zeros(2, 96))
    assert scales[[1, 3]].isnan().all() and not scales[[0, 2]].isnan().any()


def test_int8_rows_without_blocks_are_refused(kernel_device):
    with pytest.raises(ValueError, match="do not fit"):
        QUANTIZING["int8"]["rows"].load()(torch.zeros(2, 36, device=kernel_device))


def test_they_are_tried_only_for_their_scheme():
    assert dit_kernels(None) == DIT_KERNELS
    for name, scheme in SCHEMES.items():
        assert dit_kernels(scheme)[len(DIT_KERNELS) :] == tuple(QUANTIZING[name].values())
    chosen = choose_kernels(EVERY, "auto", torch.device("cpu"), torch.bfloat16)
    assert not chosen.active and not chosen.refused


@pytest.mark.gpu
@pytest.mark.parametrize("name", QUANTIZING)
def test_every_one_is_used_on_a_gpu(name):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    kernels = choose_kernels(QUANTIZING[name].values(), "all", torch.device("cuda"), torch.bfloat16)
    assert not kernels.refused and len(kernels.active) == len(QUANTIZING[name])


# ------------------------------------------------------------------------------------------------- a whole step

CONFIG = DiTConfig(
    dim=64, ffn_dim=80, freq_dim=32, num_heads=4, num_layers=2, text_dim=24, text_len=32, intermediate_dim=8,
    output_dim=40, context_tokens=6, img_emb_in_dim=32, audio_blocks=3, audio_channels=16,
)  # fmt: skip


def _scene(device):
    """A small transformer and what a step of it takes."""
    torch.manual_seed(0)
    dit = DiT(CONFIG).to(device)
    for name, parameter in dit.named_parameters():
        if "modulation" in name:
            parameter.normal_()

    def drawn(*shape):
        return torch.randn(*shape).to(device)

    group, attention = LocalGroup(), choose_attention(device, torch.float32)
    stream = dit.stream_conditions(drawn(5, 24), drawn(9, 32), drawn(20, 3, 4, 6), drawn(2), group)
    chunk = dit.chunk_conditions(drawn(1, 5, 3, 16), drawn(2, 8, 3, 16))
    return dit, (drawn(16, 3, 4, 6), 1, stream, chunk, group, attention, 1)


@pytest.mark.parametrize(("name", "is_packed"), [("fp8", True), ("int8", False)])
def test_a_whole_step_of_them_is_the_plain_step(name, is_packed, kernel_device):
    """Each is called where its tokens are made, once for q, k and v, and no tokens are made 8-bit elsewhere."""
    dit, given = _scene(kernel_device)
    exact = dit(*given)
    quantize_module(dit, SCHEMES[name], WIDENED)
    if is_packed:
        dit.pack_projections()
    wanted = dit(*given)
    calls = dict.fromkeys(QUANTIZING[name], 0)

    def counted(part, function):
        def call(*arguments):
            calls[part] += 1
            return function(*arguments)

        return call

    active = {kernel.name: counted(part, kernel.load()) for part, kernel in QUANTIZING[name].items()}
    dit.use_kernels(Kernels(active=active))
    got = dit(*given)
    assert calls == {
        "norm_modulate": 2, "add_gated_norm": 2, "add_norm": 2, "add_norm_modulate": 2, "gelu": 2, "rows": 6,
    }  # fmt: skip
    assert errors_of(got, wanted).relative < 5e-3
    assert errors_of(got, exact).relative < 1.02 * errors_of(wanted, exact).relative
    dit.use_kernels(EAGER)
    assert torch.equal(dit(*given), wanted)


def test_a_kernel_that_is_refused_leaves_its_plain_parts_in_use(kernel_device):
    """Norms that are fused stay so, and their tokens are made 8-bit after them."""
    dit, given = _scene(kernel_device)
    quantize_module(dit, SCHEMES["fp8"], WIDENED)
    wanted, calls = dit(*given), []
    norm = next(kernel for kernel in DIT_KERNELS if kernel.name == "norm_modulate")
    rows = QUANTIZING["fp8"]["rows"]

    def called(kernel):
        return lambda *arguments: (calls.append(kernel.name), kernel.eager(*arguments))[1]

    dit.use_kernels(Kernels(active={kernel.name: called(kernel) for kernel in (norm, rows)}))
    assert torch.equal(dit(*given), wanted)
    assert calls.count("norm_modulate") == 2 and calls.count("rows_fp8") == 2 * 8


def test_gelu_in_8_bits_is_not_made_for_layers_in_16(kernel_device):
    """Where a width is no multiple of 16 the second layer of the feed-forward stays as it is."""
    dit, given = _scene(kernel_device)
    quantize_module(dit, SCHEMES["int8"], WIDENED)
    block = dit.blocks[0]
    block.ffn[2] = torch.nn.Linear(80, 64).to(kernel_device)
    wanted = dit(*given)
    dit.use_kernels(Kernels(active={"gelu_int8": QUANTIZING["int8"]["gelu"].eager}))
    torch.testing.assert_close(dit(*given), wanted)
