"""Every fused kernel of the transformer against its plain form and against float64."""

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

from engine.generators.flashtalk.attention import choose_attention  # noqa: E402
from engine.generators.flashtalk.config import DiTConfig  # noqa: E402
from engine.generators.flashtalk.kernels.attend_two import ATTEND_TWO  # noqa: E402
from engine.generators.flashtalk.kernels.catalog import DIT_KERNELS  # noqa: E402
from engine.generators.flashtalk.kernels.layer_norm import (  # noqa: E402
    add_gated_norm,
    add_norm,
    add_norm_modulate,
    norm_modulate,
)
from engine.generators.flashtalk.kernels.linear_gelu import LINEAR_GELU  # noqa: E402
from engine.generators.flashtalk.kernels.norm_rotary import norm_rotary  # noqa: E402
from engine.generators.flashtalk.kernels.registry import Kernels, check, choose_kernels, tensors_of  # noqa: E402
from engine.generators.flashtalk.kernels.residual import add_gated  # noqa: E402
from engine.generators.flashtalk.kernels.rms_norm import rms_norm  # noqa: E402
from engine.generators.flashtalk.rope import rotary_table  # noqa: E402
from engine.generators.flashtalk.transformer import DiT  # noqa: E402
from engine.parallel.group import LocalGroup  # noqa: E402

TRITON = [kernel for kernel in DIT_KERNELS if kernel is not LINEAR_GELU]
ROWS = [kernel for kernel in TRITON if kernel is not ATTEND_TWO]
EPS = 1e-6


def _drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


# --------------------------------------------------------------------------------------------- the plain forms


def _normed(x, eps=EPS):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()


def _assert_close(got, wanted):
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


def test_plain_forms_compute_what_the_specification_says():
    x, branch = 3 + 2 * _drawn(5, 24), _drawn(5, 24, seed=1)
    a, b, gate = (_drawn(24, seed=seed) for seed in (2, 3, 4))
    _assert_close(add_gated(x, branch, gate), x + branch * gate)
    _assert_close(norm_modulate(x, a, b, EPS), _normed(x) * (1 + b) + a)
    for got, added in ((add_norm_modulate(x, branch, a, b, EPS), x + branch),):
        _assert_close(got[0], added)
        _assert_close(got[1], _normed(added) * (1 + b) + a)
    for got, added in (
        (add_norm(x, branch, a, b, EPS), x + branch),
        (add_gated_norm(x, branch, gate, a, b, EPS), x + branch * gate),
    ):
        _assert_close(got[0], added)
        _assert_close(got[1], _normed(added) * a + b)
    rms = x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * a
    _assert_close(rms_norm(x, a, EPS), rms)
    table = rotary_table((1, 1, 5), 8, torch.float64)
    turned = torch.view_as_complex(rms.view(5, 3, 4, 2)) * torch.complex(table[0], table[1])
    _assert_close(norm_rotary(x, a, table, 3, EPS), torch.view_as_real(turned).flatten(-2))


def test_plain_forms_round_where_the_published_model_does():
    """After the sum, after the norm, after the norm's weight and at the end; between these nothing is rounded."""
    kind = torch.bfloat16
    x, branch = (3 + 2 * _drawn(50, 640)).to(kind), _drawn(50, 640, seed=1, dtype=kind)
    shift, scale, gate = (_drawn(640, seed=seed).float() for seed in (2, 3, 4))
    weight = (1 + 0.3 * _drawn(640, seed=5)).to(kind)

    added = (x.double() + branch.double() * gate.double()).to(kind)
    assert (add_gated(x, branch, gate) != added).float().mean() < 1e-4
    summed = (x.double() + branch.double()).to(kind)
    plain = F.layer_norm(summed, (640,), eps=EPS)
    assert (plain != _normed(summed.double()).to(kind)).float().mean() < 1e-3
    wanted = (plain.double() * (1 + scale.double()) + shift.double()).to(kind)
    assert (add_norm_modulate(x, branch, shift, scale, EPS)[1] != wanted).float().mean() < 1e-3
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + EPS).sqrt()
    assert (rms_norm(x, weight, EPS) != exact.to(kind) * weight).float().mean() < 1e-3


# --------------------------------------------------------------------------------------------- the fused forms


@pytest.mark.parametrize("kernel", TRITON, ids=lambda kernel: kernel.name)
def test_fused_forms_are_as_near_to_float64_as_the_plain_ones(kernel, kernel_device):
    check(kernel, kernel.load(), kernel_device, torch.float32)


@pytest.mark.parametrize("kernel", ROWS, ids=lambda kernel: kernel.name)
def test_fused_forms_round_like_the_plain_ones(kernel, kernel_device):
    """Not only as near: the same numbers, but for sums that another order tips over a tie."""
    check(kernel, kernel.load(), kernel_device, torch.bfloat16)
    generator = torch.Generator(kernel_device).manual_seed(3)
    for arguments in kernel.samples(generator, kernel_device, torch.bfloat16):
        fused, plain = (tensors_of(function(*arguments)) for function in (kernel.load(), kernel.eager))
        for got, wanted in zip(fused, plain, strict=True):
            assert got.is_contiguous() and (got != wanted).float().mean() < 2e-3


@pytest.mark.parametrize("kernel", TRITON, ids=lambda kernel: kernel.name)
def test_the_check_tells_when_a_kernel_reads_something_else(kernel, kernel_device):
    """Each of its tensors matters to the check: a zero in its place is found out."""
    fused = kernel.load()
    # Triton's interpreter cannot multiply matrices of bfloat16.
    dtype = torch.float32 if kernel is ATTEND_TWO and kernel_device.type == "cpu" else torch.bfloat16
    arguments = kernel.samples(torch.Generator(kernel_device).manual_seed(0), kernel_device, dtype)[0]
    for place, value in enumerate(arguments):
        if not isinstance(value, torch.Tensor):
            continue

        def careless(*given, place=place):
            return fused(*given[:place], torch.zeros_like(given[place]), *given[place + 1 :])

        with pytest.raises(RuntimeError, match="error"):
            check(kernel, careless, kernel_device, dtype)


def test_the_other_gelu_of_the_cpu_is_found_out():
    kernels = choose_kernels([LINEAR_GELU], "all", torch.device("cpu"), torch.float32)
    assert LINEAR_GELU not in kernels and "error" in kernels.refused["linear_gelu"]


def test_two_attentions_are_two_softmaxes():
    q, k, v = _drawn(5, 2, 16), _drawn(7, 2, 16, seed=1), _drawn(7, 2, 16, seed=2)
    bias, other_k, other_v = _drawn(7, seed=3), _drawn(9, 2, 16, seed=4), _drawn(9, 2, 16, seed=5)

    def seen(k, v, bias):
        logits = torch.einsum("thc,khc->htk", q, k) / 4 + bias
        return torch.einsum("htk,khc->thc", logits.softmax(-1), v)

    _assert_close(ATTEND_TWO.eager(q, k, v, bias, other_k, other_v), seen(k, v, bias) + seen(other_k, other_v, 0.0))


@pytest.mark.parametrize("width", [24, 8])
def test_heads_that_the_attention_kernel_cannot_take_are_refused(width, kernel_device):
    x = torch.randn(3, 1, width, device=kernel_device)
    with pytest.raises(ValueError, match="do not fit"):
        ATTEND_TWO.load()(x, x, x, None, x, x)


@pytest.mark.gpu
def test_every_kernel_is_used_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    kernels = choose_kernels(DIT_KERNELS, "all", torch.device("cuda"), torch.bfloat16)
    assert not kernels.refused and len(kernels.active) == len(DIT_KERNELS)


def test_a_whole_step_of_fused_kernels_is_the_plain_step(kernel_device):
    """Every one of them is called, with the arguments that its plain form takes."""
    torch.manual_seed(0)
    config = DiTConfig(
        dim=64, ffn_dim=80, freq_dim=32, num_heads=4, num_layers=2, text_dim=24, text_len=32, intermediate_dim=8,
        output_dim=40, context_tokens=6, img_emb_in_dim=32, audio_blocks=3, audio_channels=16,
    )  # fmt: skip
    dit = DiT(config).to(kernel_device)
    for name, parameter in dit.named_parameters():
        if "modulation" in name:
            parameter.normal_()
    dit.pack_projections()

    def drawn(*shape):
        return torch.randn(*shape).to(kernel_device)

    group, attention = LocalGroup(), choose_attention(kernel_device, torch.float32)
    stream = dit.stream_conditions(drawn(5, 24), drawn(9, 32), drawn(20, 3, 4, 6), drawn(2), group)
    chunk = dit.chunk_conditions(drawn(1, 5, 3, 16), drawn(2, 8, 3, 16))
    given = (drawn(16, 3, 4, 6), 1, stream, chunk, group, attention, 1)
    wanted = dit(*given)
    calls = dict.fromkeys((kernel.name for kernel in TRITON), 0)

    def counted(kernel):
        function = kernel.load()

        def call(*arguments):
            calls[kernel.name] += 1
            return function(*arguments)

        return call

    dit.use_kernels(Kernels(active={kernel.name: counted(kernel) for kernel in TRITON}))
    got = dit(*given)
    assert ((got - wanted).norm() / wanted.norm()).item() < 1e-6
    assert calls == {
        "norm_rotary": 4, "norm_modulate": 2, "add_gated_norm": 2, "add_norm": 2, "add_norm_modulate": 2,
        "add_gated": 2, "rms_norm": 2, "attend_two": 2,
    }  # fmt: skip
