"""The video VAE's fused kernels against their plain forms, float64 and the whole VAE."""

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

from engine.generators.flashtalk.kernels.catalog import VAE_KERNELS  # noqa: E402
from engine.generators.flashtalk.kernels.registry import Kernels, check, choose_kernels, errors_of  # noqa: E402
from engine.generators.flashtalk.kernels.vae_norm import (  # noqa: E402
    ADD_BIAS,
    ADD_NORM_SILU_JOIN,
    NORM_SILU,
    NORM_SILU_JOIN,
    add_bias,
    add_norm_silu_join,
    norm_silu,
    norm_silu_join,
)
from engine.generators.flashtalk.kernels.vae_upsample import (  # noqa: E402
    UPSAMPLE,
    merged_weight,
    transposed,
    upsample_convolve,
)
from engine.generators.flashtalk.vae import Vae, VaeConfig  # noqa: E402

TRITON = [NORM_SILU, NORM_SILU_JOIN, ADD_BIAS, ADD_NORM_SILU_JOIN]
LAST = torch.channels_last_3d


def _drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def test_plain_forms_compute_what_the_specification_says():
    x, before = _drawn(1, 6, 3, 4, 5), _drawn(1, 6, 2, 4, 5, seed=1)
    gamma, bias = _drawn(6, 1, 1, 1, seed=2), _drawn(6, seed=3)
    x[:, :, 0, 0, 0] = 0  # nothing to divide by

    def exact(y):
        length = y.square().sum(1, keepdim=True).sqrt().clamp(min=1e-12)
        normed = y / length * 6**0.5 * gamma
        return normed / (1 + torch.exp(-normed))

    shifted = x + bias.view(6, 1, 1, 1)
    torch.testing.assert_close(norm_silu(x, gamma), exact(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(norm_silu(x, gamma, bias), exact(shifted), rtol=0, atol=1e-12)
    joined = torch.cat((before, exact(shifted)), dim=2)
    torch.testing.assert_close(norm_silu_join(x, before, gamma, bias), joined, rtol=0, atol=1e-12)
    total = 3 * x + bias.view(6, 1, 1, 1)
    torch.testing.assert_close(add_bias(x, 2 * x, bias), total, rtol=0, atol=1e-12)
    both = add_norm_silu_join(x, 2 * x, bias, before, gamma)
    torch.testing.assert_close(both, (total, torch.cat((before, exact(total)), dim=2)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
def test_plain_forms_keep_the_layout_and_round_once(dtype, layout):
    x = _drawn(1, 64, 3, 4, 5, dtype=dtype).contiguous(memory_format=layout)
    before, gamma = x[:, :, :2].contiguous(memory_format=layout), _drawn(64, 1, 1, 1, seed=2, dtype=dtype)
    kept = x.clone()
    bias = gamma.flatten().float()
    results = (norm_silu(x, gamma), norm_silu_join(x, before, gamma), add_bias(x, x, bias))
    results += add_norm_silu_join(x, x, bias, before, gamma)
    for result in results:
        assert result.dtype == dtype and result.is_contiguous(memory_format=layout)
    assert torch.equal(x, kept)
    if dtype == torch.bfloat16:
        exact = norm_silu(x.double(), gamma.double())
        assert (results[0] != exact.to(dtype)).float().mean() < 2e-3


@pytest.mark.parametrize("kernel", TRITON, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_forms_are_as_near_to_float64_as_the_plain_ones(kernel, kernel_device, dtype):
    check(kernel, kernel.load(), kernel_device, dtype)


@pytest.mark.parametrize("kernel", TRITON, ids=lambda kernel: kernel.name)
def test_the_check_tells_when_a_kernel_reads_something_else(kernel, kernel_device):
    fused = kernel.load()
    arguments = kernel.samples(torch.Generator(kernel_device).manual_seed(0), kernel_device, torch.float32)[1]
    for place, value in enumerate(arguments):
        if not isinstance(value, torch.Tensor):
            continue

        def careless(*given, place=place):
            if given[place] is None:
                return fused(*given)
            return fused(*given[:place], torch.zeros_like(given[place]), *given[place + 1 :])

        with pytest.raises(RuntimeError, match="error"):
            check(kernel, careless, kernel_device, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_one_pass_or_two_the_sum_and_its_norm_are_the_same_to_the_last_bit(kernel_device, dtype):
    """Fused or plain, a block hands on the very numbers that it handed on before."""
    drawn = ADD_NORM_SILU_JOIN.samples(torch.Generator(kernel_device).manual_seed(3), kernel_device, dtype)
    for inner, x, bias, before, gamma in drawn:
        total, joined = ADD_NORM_SILU_JOIN.load()(inner, x, bias, before, gamma)
        apart = ADD_BIAS.load()(inner, x, bias)
        assert torch.equal(total, apart)
        normed = NORM_SILU_JOIN.load()(apart, before, gamma)
        # Compiled, the two may sum up the squares of a pixel in another order.
        assert torch.equal(joined, normed) or kernel_device.type == "cuda"
        torch.testing.assert_close(joined, normed)


def test_other_layouts_are_left_to_the_plain_forms(kernel_device):
    x, gamma = _drawn(1, 6, 2, 4, 5).to(kernel_device), _drawn(6, 1, 1, 1, seed=2).to(kernel_device)
    assert torch.equal(NORM_SILU.load()(x, gamma), norm_silu(x, gamma))
    assert torch.equal(NORM_SILU_JOIN.load()(x, x, gamma), norm_silu_join(x, x, gamma))
    given = (x, x, gamma.flatten(), x, gamma)
    assert all(map(torch.equal, ADD_NORM_SILU_JOIN.load()(*given), add_norm_silu_join(*given)))


# ------------------------------------------------------------------------------------------- up-sampling


def test_four_products_are_the_nine():
    frames, weight, bias = _drawn(3, 8, 5, 4), _drawn(6, 8, 3, 3, seed=1), _drawn(6, seed=2)
    wanted = upsample_convolve(frames, weight, bias)
    large = frames.repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(wanted, F.conv2d(large, weight, bias, padding=1))
    merged = merged_weight(weight, torch.float64)
    torch.testing.assert_close(transposed(frames, merged, bias), wanted, rtol=0, atol=1e-12)
    cut = torch.cat(
        [transposed(F.pad(frames, (0, 0, 1, 1))[:, :, n : n + 3], merged, bias, halo=1) for n in range(5)], 2
    )
    torch.testing.assert_close(cut, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merged_up_sampling_keeps_to_the_rule_of_errors(dtype):
    check(UPSAMPLE, UPSAMPLE.load(), torch.device("cpu"), dtype)


def test_weights_that_were_rounded_before_are_less_exact():
    """Why the published weights are needed for it: sums of rounded ones, rounded again, would break the rule."""
    frames, weight, bias = UPSAMPLE.samples(torch.Generator().manual_seed(0), torch.device("cpu"), torch.bfloat16)[0]
    exact = upsample_convolve(frames.double(), weight.double(), bias.double())
    narrow = bias.bfloat16()
    errors = [
        errors_of(transposed(frames, merged_weight(given, torch.bfloat16), narrow), exact).relative
        for given in (weight, weight.bfloat16())
    ]
    assert errors[1] > 1.1 * errors[0]


# ------------------------------------------------------------------------------------------- in the VAE


@pytest.fixture(scope="module")
def weights():
    weights, source = {}, torch.Generator().manual_seed(1)
    for name, value in Vae(VaeConfig(dim=8)).state_dict().items():
        inputs = value[0].numel()
        drawn = torch.randn(value.shape, generator=source) * (0.2 if inputs == 1 else inputs**-0.5)
        weights[name] = drawn + 1.0 if name.endswith("gamma") else drawn
    return weights


@pytest.mark.parametrize("direction", ["encode", "decode_all"])
def test_a_vae_with_all_kernels_is_the_same_vae(weights, kernel_device, direction):
    plain, fused = Vae(VaeConfig(dim=8)), Vae(VaeConfig(dim=8))
    for vae in (plain, fused):
        vae.load_state_dict(weights)
        vae.to(kernel_device)
    fused.use_channels_last()
    fused.merge_upsampling(weights)
    kernels = choose_kernels(VAE_KERNELS, "all", kernel_device, torch.float32)
    assert not kernels.refused and all(kernel in kernels for kernel in TRITON)
    fused.use_kernels(kernels)
    given = _drawn(16, 3, 2, 3) if direction == "decode_all" else _drawn(1, 3, 5, 16, 24).clamp(-1, 1)
    given = given.float().to(kernel_device)
    wanted = getattr(plain, direction)(given)
    assert wanted.std() > 0.1 and (wanted.abs() == 1).float().mean() < 0.5
    assert (getattr(fused, direction)(given) - wanted).abs().max() < 2e-5 * wanted.abs().max()


# ------------------------------------------------------------------------------------- from block to block


class _Noting:
    """The plain forms in the place of the fused ones, and how often each is called."""

    def __init__(self, *kernels):
        self.calls = dict.fromkeys([kernel.name for kernel in kernels], 0)
        self.kernels = Kernels(active={kernel.name: self._noted(kernel) for kernel in kernels})

    def _noted(self, kernel):
        def noted(*arguments):
            self.calls[kernel.name] += 1
            return kernel.eager(*arguments)

        return noted


@pytest.mark.parametrize(
    ("direction", "fused", "alone"), [("decode_all", 10, 4), ("encode", 6, 4)], ids=["decode", "encode"]
)
def test_sums_are_left_to_the_next_norm_where_there_is_one(direction, fused, alone):
    """Between residual blocks and before the head; before attention and resampling they are made alone. Cut into groups
    of any size, and into bands, it is the same picture to the last bit."""
    vae, given = Vae(VaeConfig(dim=8)), _drawn(16, 1, 2, 3) if direction == "decode_all" else _drawn(1, 3, 1, 16, 24)
    torch.manual_seed(1)
    for value in vae.parameters():
        value.data = torch.randn_like(value) * (0.2 if value.dim() == 1 else value[0].numel() ** -0.5)
    apart, together = _Noting(NORM_SILU, NORM_SILU_JOIN, ADD_BIAS), _Noting(*TRITON)
    vae.double().use_kernels(together.kernels)
    getattr(vae, direction)(given)
    assert (together.calls[ADD_NORM_SILU_JOIN.name], together.calls[ADD_BIAS.name]) == (fused, alone)
    given = _drawn(16, 4, 2, 3) if direction == "decode_all" else _drawn(1, 3, 9, 16, 24)
    for tiles in (None, _WholePicture()):
        vae.use_kernels(together.kernels)
        got = getattr(vae, direction)(given, tiles=tiles)
        vae.use_kernels(apart.kernels)
        assert torch.equal(got, getattr(vae, direction)(given, tiles=tiles)) and got.std() > 0.1
    assert apart.calls[ADD_BIAS.name] > fused


class _WholePicture:
    """A band that is all of the picture."""

    def crop(self, x):
        return x

    def gather(self, x):
        return x

    def with_halo(self, x, *, top, bottom):
        return F.pad(x, (0, 0, top, bottom))


def test_the_end_of_a_video_alone_is_the_same_with_sums_left_to_the_next_norm():
    """There, blocks are given no frames at all."""
    vae, given = Vae(VaeConfig(dim=8)).double(), _drawn(16, 5, 2, 2)
    whole = vae.decode_all(given)
    vae.use_kernels(_Noting(*TRITON).kernels)
    torch.testing.assert_close(vae.decode_tail(given, 5), whole[:, :, -5:], rtol=0, atol=1e-12)


def test_what_was_added_up_is_not_kept(peak_bytes):
    """A latent frame takes no more than where every sum is made at once; kernels keep nothing in between."""

    def room(x, frames):
        return x.new_empty((1, x.shape[1], frames, *x.shape[3:]))

    sizes = {
        NORM_SILU: lambda x, *_: room(x, x.shape[2]),
        NORM_SILU_JOIN: lambda x, before, *_: room(x, before.shape[2] + x.shape[2]),
        ADD_BIAS: lambda inner, *_: room(inner, inner.shape[2]),
        ADD_NORM_SILU_JOIN: lambda inner, x, bias, before, gamma: (
            room(inner, inner.shape[2]),
            room(inner, before.shape[2] + inner.shape[2]),
        ),
    }
    peaks = []
    for kernels in (TRITON, TRITON[:3]):
        with torch.device("meta"):
            vae, latent = Vae(VaeConfig()).bfloat16(), torch.empty(16, 1, 16, 16)
        vae.use_kernels(Kernels(active={kernel.name: sizes[kernel] for kernel in kernels}))
        stream = vae.decode_stream()
        stream.push(latent)
        peaks.append(peak_bytes(lambda stream=stream, latent=latent: stream.push(latent)))
    assert peaks[0] <= peaks[1] <= 4_271 * 128 * 128  # what memory is planned with
