"""The video VAE: against diffusers, against itself however the video is cut, and what its streams promise."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from engine.generators.flashtalk.vae import Vae, VaeConfig

KEYS = Path(__file__).parents[4] / "data" / "golden" / "keys_14b.json"
TINY = VaeConfig(dim=8)
DOUBLE = 1e-12


def random_weights(seed: int) -> dict[str, Tensor]:
    """Weights of order one per output, so that attention, biases and norms all count."""
    source = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in Vae(TINY).state_dict().items()}
    weights = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=source, dtype=torch.float64)
        if name.endswith("gamma"):
            weights[name] = 1 + 0.3 * values
        elif name.endswith("bias"):
            weights[name] = 0.2 * values
        else:
            weights[name] = values * (1.5 if "to_qkv" in name else 1.0) / shape[1:].numel() ** 0.5
    weights["decoder.head.2.weight"] *= 0.9  # most of the frames inside [-1, 1], some beyond
    return weights


def tiny_vae(*, seed: int = 1, dtype: torch.dtype = torch.float64) -> Vae:
    vae = Vae(TINY)
    vae.load_state_dict(random_weights(seed))
    return vae.to(dtype)


@pytest.fixture(scope="module")
def vae() -> Vae:
    return tiny_vae()


def video(frames: int, *, seed: int = 2, rows: int = 32, columns: int = 24) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, frames, rows, columns, generator=source, dtype=torch.float64) * 2 - 1


def latents(count: int, *, seed: int = 3, rows: int = 4, columns: int = 3) -> Tensor:
    return torch.randn(16, count, rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def furthest(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()


def pushed(push: Callable[[Tensor], Tensor], whole: Tensor, groups: list[int], *, axis: int, out_axis: int) -> Tensor:
    return torch.cat([push(group) for group in whole.split(groups, dim=axis)], dim=out_axis)


def test_names_and_shapes_are_the_published_ones():
    with torch.device("meta"):
        state = Vae(VaeConfig()).state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == json.loads(KEYS.read_text())["keys"]["vae"]


def test_depth_and_steps_must_fit():
    with pytest.raises(ValueError, match="3 steps"):
        VaeConfig(temporal_downsample=(True, True))


# Another implementation


def published_name(name: str) -> str:
    """The name in Wan2.1_VAE.pth of a parameter of diffusers."""

    def place_in_decoder(match: re.Match) -> str:
        level, kind, index = match.groups()
        return f"upsamples.{4 * int(level) + (int(index) if kind == 'resnets' else 3)}"

    for old, new in {
        r"\bconv1\.": "residual.2.",
        r"\bconv2\.": "residual.6.",
        r"\bnorm1\.": "residual.0.",
        r"\bnorm2\.": "residual.3.",
        r"post_quant_conv": "conv2",
        r"quant_conv": "conv1",
        r"conv_in": "conv1",
        r"conv_shortcut": "shortcut",
        r"norm_out": "head.0",
        r"conv_out": "head.2",
        r"mid_block\.resnets\.0": "middle.0",
        r"mid_block\.attentions\.0": "middle.1",
        r"mid_block\.resnets\.1": "middle.2",
        r"down_blocks": "downsamples",
        r"up_blocks\.(\d)\.(resnets|upsamplers)\.(\d)": place_in_decoder,
    }.items():
        name = re.sub(old, new, name)
    return name


@pytest.fixture(scope="module")
def oracle(vae):
    """diffusers' model with the same weights."""
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.AutoencoderKLWan(base_dim=TINY.dim, z_dim=16).double().eval()
    for module in model.modules():
        if type(module).__name__ == "WanUpsample":  # it rounds to single precision
            module.forward = partial(torch.nn.Upsample.forward, module)
    weights = vae.state_dict()
    model.load_state_dict({name: weights[published_name(name)] for name in model.state_dict()})
    return model


@pytest.fixture(scope="module")
def scale(oracle) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents, as diffusers has them."""
    values = (oracle.config.latents_mean, oracle.config.latents_std)
    return tuple(torch.tensor(x, dtype=torch.float64).reshape(16, 1, 1, 1) for x in values)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 5, 13])
def test_latents_are_those_of_diffusers(vae, oracle, scale, frames):
    mean, std = scale
    expected = (oracle.encode(video(frames)).latent_dist.mean[0] - mean) / std
    assert expected.std() > 0.1
    assert furthest(vae.encode(video(frames)), expected) < 1e-11


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 2, 4])
def test_frames_are_those_of_diffusers(vae, oracle, scale, count):
    mean, std = scale
    expected = oracle.decode((latents(count) * std + mean)[None]).sample.clamp(-1, 1)
    assert 0 < (expected.abs() == 1).double().mean() < 0.5
    assert furthest(vae.decode_all(latents(count)), expected) < 1e-11


# The same video cut in other ways


@pytest.mark.parametrize("groups", [[17], [1, 16], [5, 4, 8], [9, 8]])
def test_encoding_does_not_depend_on_the_groups(vae, groups):
    whole = video(17)
    assert furthest(pushed(vae.encode_stream().push, whole, groups, axis=2, out_axis=1), vae.encode(whole)) < DOUBLE


@pytest.mark.parametrize("groups", [[5], [1, 4], [2, 3], [3, 1, 1]])
def test_decoding_does_not_depend_on_the_groups(vae, groups):
    whole = latents(5)
    assert furthest(pushed(vae.decode_stream().push, whole, groups, axis=1, out_axis=2), vae.decode_all(whole)) < DOUBLE


def test_a_beginning_is_the_beginning_of_the_whole(vae):
    assert torch.equal(vae.decode_all(latents(5)[:, :2]), vae.decode_all(latents(5))[:, :, :5])
    assert torch.equal(vae.encode(video(13)[:, :, :5]), vae.encode(video(13))[:, :2])


def test_frames_leave_before_later_latents_are_looked_at(vae):
    broken = latents(3)
    broken[:, 2] = torch.nan
    frames = list(vae.decode(broken))
    assert [group.shape for group in frames] == [(1, 3, n, 32, 24) for n in (1, 4, 4)]
    assert [bool(group.isfinite().all()) for group in frames] == [True, True, False]


def test_every_earlier_frame_counts(vae):
    changed = latents(4)
    changed[:, 0] += 0.5
    frames, others = vae.decode_all(latents(4)), vae.decode_all(changed)
    assert ((frames - others).abs().amax((0, 1, 3, 4)) > 1e-6).all()


# Streams


def test_two_streams_side_by_side_do_not_touch_each_other(vae):
    for open_stream, make, axis, groups in (
        (vae.decode_stream, latents, 1, [1, 1, 1]),
        (vae.encode_stream, lambda n, seed: video(4 * n - 3, seed=seed), 2, [1, 4, 4]),
    ):
        inputs = [make(3, seed=seed).split(groups, dim=axis) for seed in (7, 8)]
        streams = [open_stream(), open_stream()]
        together = [[stream.push(parts[n]) for stream, parts in zip(streams, inputs, strict=True)] for n in range(3)]
        for which in (0, 1):
            alone = open_stream()
            for n in range(3):
                assert torch.equal(together[n][which], alone.push(inputs[which][n]))


def test_a_stream_that_was_reset_is_as_good_as_new(vae):
    decoding, encoding = vae.decode_stream(), vae.encode_stream()
    for _ in range(2):
        assert torch.equal(pushed(decoding.push, latents(3), [1, 1, 1], axis=1, out_axis=2), vae.decode_all(latents(3)))
        assert torch.equal(pushed(encoding.push, video(9), [1, 4, 4], axis=2, out_axis=1), vae.encode(video(9)))
        decoding.reset()
        encoding.reset()


@pytest.mark.parametrize("inside_first", [True, False])
def test_a_stream_may_go_in_and_out_of_inference_mode(vae, inside_first):
    stream, inside = vae.decode_stream(), inside_first
    for _ in range(2):
        for latent, expected in zip(latents(3).split(1, dim=1), vae.decode(latents(3)), strict=True):
            with torch.inference_mode(inside):
                assert torch.equal(stream.push(latent), expected)
            inside = not inside
        stream.reset()


class Calls(TorchDispatchMode):
    """Every operation with the shapes that go in."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tensors = [x for arg in args for x in (arg if isinstance(arg, (list, tuple)) else [arg])]
        self.seen.append((str(function), *(tuple(x.shape) for x in tensors if isinstance(x, Tensor))))
        return function(*args, **(kwargs or {}))


HOST_NEEDS_THE_RESULT = re.compile("local_scalar|nonzero|is_nonzero|masked_select|unique|_to_copy|lift_fresh")


@pytest.mark.parametrize("direction", ["decode", "encode"])
def test_after_the_first_call_all_calls_are_alike_and_never_wait_for_the_host(vae, direction):
    stream = getattr(vae, f"{direction}_stream")()
    parts = latents(5).split(1, dim=1) if direction == "decode" else video(17).split([1, 4, 4, 4, 4], dim=2)
    stream.push(parts[0])
    buffers = {conv: frames.data_ptr() for conv, frames in stream._history._frames.items()}
    recorded = []
    for part in (*parts[1:], *parts):
        if part is parts[0]:
            stream.reset()
        with Calls() as calls:
            stream.push(part)
        recorded.append(calls.seen)
    later = recorded[:4] + recorded[5:]
    assert all(calls == later[0] for calls in later)
    assert len(later[0]) > 50 and not [call for call in later[0] if HOST_NEEDS_THE_RESULT.search(call[0])]
    assert {conv: frames.data_ptr() for conv, frames in stream._history._frames.items()} == buffers


def test_no_gradients_are_recorded(vae):
    assert not vae.encode(video(5)).requires_grad
    assert not vae.decode_all(latents(2)).requires_grad


@pytest.mark.parametrize("shape", [(1, 3, 4, 32, 24), (1, 3, 1, 30, 24), (1, 4, 1, 32, 24), (3, 1, 32, 24)])
def test_wrong_videos_are_refused(vae, shape):
    with pytest.raises(ValueError, match="frames"):
        vae.encode(torch.zeros(shape, dtype=torch.float64))


def test_streams_keep_to_their_size_and_grouping(vae):
    encoding, decoding = vae.encode_stream(), vae.decode_stream()
    encoding.push(video(1))
    decoding.push(latents(1))
    with pytest.raises(ValueError, match=r"4k \+ 0 frames, not 5"):
        encoding.push(video(5))
    with pytest.raises(ValueError, match="rows and columns"):
        encoding.push(video(4, rows=24))
    with pytest.raises(ValueError, match="rows and columns"):
        decoding.push(latents(1, columns=4))
    with pytest.raises(ValueError, match="latents are"):
        decoding.push(latents(1)[:15])


# Types and layouts


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.12)])
def test_narrow_types_follow_double_precision(vae, dtype, tolerance):
    narrow = tiny_vae(dtype=dtype)
    encoded, decoded = narrow.encode(video(9).to(dtype)), narrow.decode_all(latents(3).float())
    assert encoded.dtype == torch.float32
    assert decoded.dtype == dtype
    expected = vae.encode(video(9).to(dtype).double())
    assert furthest(encoded.double(), expected) < tolerance * expected.abs().max()
    assert furthest(decoded.double(), vae.decode_all(latents(3).float().double())) < 2 * tolerance


@pytest.fixture
def layouts_of_cudnn(monkeypatch) -> list[tuple[tuple, bool]]:
    """Convolutions answer channels last when input or weight is, as on a GPU; notes every input's shape and layout."""
    seen = []

    def like_cudnn(convolve: Callable, last: torch.memory_format) -> Callable:
        def convolved(x, weight, *args, **kwargs):
            seen.append((tuple(x.shape), x.is_contiguous(memory_format=last)))
            result = convolve(x, weight, *args, **kwargs)
            follows = x.stride(1) == 1 or weight.stride(1) == 1
            return result.contiguous(memory_format=last) if follows else result

        return convolved

    monkeypatch.setattr(F, "conv2d", like_cudnn(F.conv2d, torch.channels_last))
    monkeypatch.setattr(F, "conv3d", like_cudnn(F.conv3d, torch.channels_last_3d))
    return seen


def test_channels_last_stays_so_and_changes_nothing(vae, layouts_of_cudnn):
    expected = vae.encode(video(9)), vae.decode_all(latents(3))
    laid_out = tiny_vae()
    laid_out.use_channels_last()
    layouts_of_cudnn.clear()
    assert furthest(laid_out.encode(video(9)), expected[0]) < DOUBLE
    assert furthest(laid_out.decode_all(latents(3)), expected[1]) < DOUBLE
    strayed = [shape for shape, is_last in layouts_of_cudnn if not is_last]
    assert len(layouts_of_cudnn) > 200 and not strayed


# Bands of rows


class Band:
    """One of several bands of rows, each in a thread of its own; whole pictures pass from hand to hand."""

    def __init__(self, rank: int, shared: list, barrier: threading.Barrier) -> None:
        self.rank, self.shared, self.barrier = rank, shared, barrier

    def crop(self, x: Tensor) -> Tensor:
        return x.chunk(len(self.shared), dim=-2)[self.rank]

    def gather(self, x: Tensor) -> Tensor:
        self.shared[self.rank] = x
        self.barrier.wait()
        whole = torch.cat(self.shared, dim=-2)
        self.barrier.wait()
        return whole

    def with_halo(self, x: Tensor, *, top: int, bottom: int) -> Tensor:
        begin = self.rank * x.shape[-2]
        return F.pad(self.gather(x), (0, 0, top, bottom))[..., begin : begin + x.shape[-2] + top + bottom, :]


def in_bands(ranks: int, work: Callable[[Band], Tensor]) -> list[Tensor]:
    shared, barrier = [None] * ranks, threading.Barrier(ranks, timeout=30)

    def run(rank: int) -> Tensor:
        try:
            return work(Band(rank, shared, barrier))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(run, range(ranks)))


@pytest.mark.parametrize(("ranks", "is_merged"), [(2, False), (3, True), (6, False)])
def test_bands_of_rows_give_the_whole_picture_on_every_rank(ranks, is_merged):
    vae = tiny_vae()
    if is_merged:
        vae.merge_upsampling()
    frames, codes = video(9, rows=48, columns=16), latents(3, rows=6, columns=2)
    encoded, decoded = vae.encode(frames), vae.decode_all(codes)
    for result in in_bands(ranks, lambda band: vae.encode(frames, tiles=band)):
        assert furthest(result, encoded) < DOUBLE
    for result in in_bands(ranks, lambda band: vae.decode_all(codes, tiles=band)):
        assert furthest(result, decoded) < DOUBLE


# The end of a video alone


@pytest.mark.parametrize("frames", [5, 1, 17, 29, 33])
def test_the_tail_is_the_tail_of_the_whole(vae, frames):
    whole = vae.decode_all(latents(9, rows=2, columns=2))
    assert furthest(vae.decode_tail(latents(9, rows=2, columns=2), frames), whole[:, :, -frames:]) < DOUBLE


def test_the_tail_takes_two_thirds_of_the_work(vae, monkeypatch):
    """Products in convolutions; widths grow as in the published model, so shares are the same."""
    work = []

    def counted(convolve: Callable) -> Callable:
        def convolved(x, weight, *args, **kwargs):
            result = convolve(x, weight, *args, **kwargs)
            work.append(result.numel() * weight[0].numel())
            return result

        return convolved

    for name in ("conv2d", "conv3d"):
        monkeypatch.setattr(F, name, counted(getattr(F, name)))
    codes = latents(9, rows=1, columns=1)
    vae.decode_all(codes)
    whole = sum(work)
    work.clear()
    vae.decode_tail(codes, 5)
    assert sum(work) / whole == pytest.approx(0.66, abs=0.02)


def test_less_context_is_only_nearly_the_same(vae):
    whole = vae.decode_all(latents(6, rows=2, columns=2))[:, :, -5:]
    errors = [
        furthest(vae.decode_tail(latents(6, rows=2, columns=2), 5, context=context), whole) for context in (2, 4, 6)
    ]
    assert errors[0] > errors[1] > 1e-6 and errors[2] < DOUBLE
    with pytest.raises(ValueError, match="1 latent frames have 1 frames, not 5"):
        vae.decode_tail(latents(6), 5, context=1)


def test_the_tail_in_bands_of_rows(vae):
    codes = latents(4, rows=4, columns=2)
    expected = vae.decode_all(codes)[:, :, -5:]
    for result in in_bands(2, lambda band: vae.decode_tail(codes, 5, tiles=band)):
        assert furthest(result, expected) < DOUBLE


def test_a_stream_that_is_reset_gives_everything_again(vae):
    stream = vae.decode_stream()
    stream.leave_out_before(5)
    given = pushed(stream.push, latents(3), [1, 1, 1], axis=1, out_axis=2)
    assert furthest(given, vae.decode_all(latents(3))[:, :, 5:]) < DOUBLE
    stream.reset()
    assert torch.equal(pushed(stream.push, latents(3), [1, 1, 1], axis=1, out_axis=2), vae.decode_all(latents(3)))
