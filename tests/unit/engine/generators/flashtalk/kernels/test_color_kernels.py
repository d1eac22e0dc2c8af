"""The fused colour match and the conversion to bytes against their plain forms and float64."""

import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk.color import ColorMatch, match_frames  # noqa: E402
from engine.generators.flashtalk.kernels.color_match import COLOR_MATCH, TO_BYTES, to_bytes  # noqa: E402
from engine.generators.flashtalk.kernels.registry import check  # noqa: E402


def _pictures(frames, seed, dtype=torch.float32):
    source = torch.Generator().manual_seed(seed)
    noise = torch.rand(1, 3, frames, 40, 36, generator=source) * 1.4 - 0.7
    return (noise + 0.3 * torch.rand(1, 3, frames, 1, 1, generator=source)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kernel", [COLOR_MATCH, TO_BYTES], ids=lambda kernel: kernel.name)
def test_fused_forms_are_as_near_to_float64_as_the_plain_ones(kernel, kernel_device, dtype):
    check(kernel, kernel.load(), kernel_device, dtype)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_check_tells_when_the_match_reads_something_else(kernel_device, place):
    fused = COLOR_MATCH.load()

    def careless(*given):
        return fused(*given[:place], torch.ones_like(given[place]), *given[place + 1 :])

    with pytest.raises(RuntimeError, match="error"):
        check(COLOR_MATCH, careless, kernel_device, torch.float32)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_parts_of_frames_in_any_layout(kernel_device, layout):
    portrait = _pictures(1, 1).to(kernel_device)
    whole = _pictures(2, 2).to(kernel_device).contiguous(memory_format=layout)
    for part in (whole[:, :, 1:], whole[..., 8:24, :], whole[..., 3:20]):
        wanted = ColorMatch(portrait).apply(part)
        assert (ColorMatch(portrait, COLOR_MATCH.load()).apply(part) - wanted).abs().max() < 1e-5
        bytes_apart = (TO_BYTES.load()(part).int() - to_bytes(part).int()).abs()
        assert bytes_apart.max() == 0 and to_bytes(part).float().std() > 10


def test_ranks_agree_with_whole_pictures(kernel_device):
    """The exchange between the passes gets the same numbers as in the plain form."""
    frames, portrait = _pictures(2, 3).to(kernel_device), _pictures(1, 4).to(kernel_device)
    said = {}
    for name, match in (("plain", match_frames), ("fused", COLOR_MATCH.load())):
        given = said[name] = []
        ColorMatch(portrait, match).apply(frames, 1.0, lambda x, given=given: given.append(x) or x)
    for plain, fused in zip(said["plain"], said["fused"], strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-4)


def test_a_frame_without_any_contrast_is_moved_and_stays_a_number(kernel_device):
    """Its spread is nothing or nothing but rounding; what the match makes of that must be in range."""
    frames = torch.full((1, 3, 1, 40, 36), 0.25, device=kernel_device)
    result = ColorMatch(_pictures(1, 5).to(kernel_device), COLOR_MATCH.load()).apply(frames)
    assert result.isfinite().all() and result.abs().max() <= 1
