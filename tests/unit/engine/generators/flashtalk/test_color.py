"""Colour match: Lab against scikit-image and a plain float64 twin, statistics, blending, and values at the edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from engine.generators.flashtalk.color import ColorMatch, lab_to_srgb, srgb_to_lab


def pictures(frames: int, *, seed: int, dtype: torch.dtype = torch.float64, spread: float = 0.5) -> torch.Tensor:
    """[1, 3, frames, 12, 10] in [-1, 1], each frame with a cast of its own."""
    source = torch.Generator().manual_seed(seed)
    cast = torch.rand(1, 3, frames, 1, 1, generator=source, dtype=torch.float64) - 0.5
    noise = torch.rand(1, 3, frames, 12, 10, generator=source, dtype=torch.float64) * 2 - 1
    return (cast + spread * noise).clamp(-1, 1).to(dtype)


def lab_twin(rgb: np.ndarray) -> np.ndarray:
    """Lab of [..., 3] in float64, written for a reader and not for speed."""
    linear = np.array([((v + 0.055) / 1.055) ** 2.4 if v > 0.04045 else v / 12.92 for v in rgb.ravel()])
    to_xyz = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                       [0.0193339, 0.1191920, 0.9503041]])  # fmt: skip
    xyz = np.clip(linear.reshape(rgb.shape) @ to_xyz.T / [0.95047, 1.0, 1.08883], 1e-8, 1)
    f = np.array([v ** (1 / 3) if v > 0.008856 else (903.3 * v + 16) / 116 for v in xyz.ravel()]).reshape(rgb.shape)
    fx, fy, fz = np.moveaxis(f, -1, 0)
    return np.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], axis=-1)


def srgb_twin(lab: np.ndarray) -> np.ndarray:
    """[..., 3] in [0, 1] of Lab."""
    fy = (lab[..., 0] + 16) / 116
    f = np.stack([lab[..., 1] / 500 + fy, fy, fy - lab[..., 2] / 200], axis=-1)
    xyz = np.array([v**3 if v**3 > 0.008856 else (116 * v - 16) / 903.3 for v in f.ravel()]).reshape(f.shape)
    y = [((v + 16) / 116) ** 3 if v > 903.3 * 0.008856 else v / 903.3 for v in lab[..., 0].ravel()]
    xyz[..., 1] = np.reshape(y, lab.shape[:-1])
    to_rgb = np.array([[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560],
                       [0.0556434, -0.2040259, 1.0572252]])  # fmt: skip
    linear = (xyz * [0.95047, 1.0, 1.08883]) @ to_rgb.T
    rgb = np.array([1.055 * v ** (1 / 2.4) - 0.055 if v > 0.0031308 else 12.92 * v for v in linear.ravel()])
    return np.clip(rgb.reshape(linear.shape), 0, 1)


def channels_last(x: torch.Tensor) -> np.ndarray:
    return x.movedim(1, -1).numpy()


def test_lab_is_what_scikit_image_says():
    rgb = torch.rand(1, 3, 2, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = rgb2lab(channels_last(rgb))
    assert np.abs(channels_last(srgb_to_lab(rgb)) - expected).max() < 0.02  # its matrix has other last digits


def test_lab_equals_its_twin_and_returns():
    levels = torch.linspace(0, 1, 9, dtype=torch.float64) ** 2  # dense near black, where the lines are
    rgb = torch.cartesian_prod(levels, levels, levels).T.reshape(1, 3, 9, 9, 9)
    lab = srgb_to_lab(rgb)
    np.testing.assert_allclose(channels_last(lab), lab_twin(channels_last(rgb)), rtol=0, atol=1e-11)
    np.testing.assert_allclose(channels_last(lab_to_srgb(lab)), channels_last(rgb), rtol=0, atol=2e-4)


def test_colours_beyond_the_screen_are_cut_off_as_in_the_twin():
    lab = torch.rand(1, 3, 3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    lab = lab * torch.tensor([120, 300, 300]).reshape(3, 1, 1, 1) - torch.tensor([10, 150, 150]).reshape(3, 1, 1, 1)
    expected = srgb_twin(channels_last(lab))
    assert (expected == 0).any() and (expected == 1).any()
    np.testing.assert_allclose(channels_last(lab_to_srgb(lab)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_the_match_equals_its_twin(strength):
    frames, portrait = pictures(3, seed=3), pictures(1, seed=4)[..., :5, :3]  # another size: spreads divide by N
    source, target = (lab_twin((channels_last(x) + 1) / 2) for x in (frames, portrait))
    centred = source - source.mean((2, 3), keepdims=True)
    stretch = target.std((2, 3), keepdims=True) / source.std((2, 3), keepdims=True)
    matched = srgb_twin(centred * stretch + target.mean((2, 3), keepdims=True)) * 2 - 1
    expected = (1 - strength) * channels_last(frames) + strength * matched
    result = ColorMatch(portrait).apply(frames, strength)
    np.testing.assert_allclose(channels_last(result), expected, rtol=0, atol=1e-12)


def test_single_precision_is_close_to_double():
    frames, portrait = pictures(2, seed=5), pictures(1, seed=6)
    exact = ColorMatch(portrait).apply(frames)
    single = ColorMatch(portrait.float()).apply(frames.float())
    assert single.dtype == torch.float32
    assert (single - exact).abs().max() < 1e-5


def test_matched_frames_have_the_portraits_statistics():
    portrait = pictures(1, seed=7, spread=0.15) * 0.5
    matched = ColorMatch(portrait).apply(pictures(3, seed=8, spread=0.2))
    lab, target = srgb_to_lab((matched + 1) / 2), srgb_to_lab((portrait + 1) / 2)
    for measure in (torch.mean, lambda x, dim: torch.std(x, dim, correction=0)):
        difference = measure(lab, dim=(-2, -1)) - measure(target, dim=(-2, -1))
        assert difference.abs().max() < 0.1


def test_rows_here_and_there_are_matched_as_whole_pictures():
    """Two exchanges: what the parts say in each, counted by their rows, is what is true of the whole."""
    frames, match = pictures(2, seed=17), ColorMatch(pictures(1, seed=18))
    lab = srgb_to_lab((frames + 1) / 2)
    mean = lab.mean((-2, -1), keepdim=True)
    truths, said, parts = [mean, (lab - mean).square().mean((-2, -1), keepdim=True)], [0, 0], []
    for start, stop in ((0, 5), (5, 12)):
        left = [0, 1]

        def average(mine, share=(stop - start) / 12, left=left):
            number = left.pop(0)
            said[number] = said[number] + share * mine
            return truths[number]

        parts.append(match.apply(frames[..., start:stop, :], 1.0, average))
        assert not left
    for number in (0, 1):
        assert (said[number] - truths[number]).abs().max() < 1e-10
    assert (torch.cat(parts, dim=-2) - match.apply(frames)).abs().max() < 1e-12


def test_every_frame_stands_for_itself():
    frames, match = pictures(5, seed=9), ColorMatch(pictures(1, seed=10))
    whole = match.apply(frames)
    parts = [match.apply(frames[:, :, :1]), match.apply(frames[:, :, 1:])]
    assert (whole - torch.cat(parts, dim=2)).abs().max() < 1e-12


def test_strength_zero_leaves_frames_alone():
    frames, match = 1e-9 * pictures(2, seed=11, dtype=torch.float32), ColorMatch(pictures(1, seed=12))
    assert torch.equal(match.apply(frames, 0.0), frames)


def test_bfloat16_frames_are_matched_in_single_precision():
    frames, portrait = pictures(2, seed=13, dtype=torch.bfloat16), pictures(1, seed=14, dtype=torch.bfloat16)
    result = ColorMatch(portrait).apply(frames)
    assert result.dtype == torch.float32
    assert torch.equal(result, ColorMatch(portrait.float()).apply(frames.float()))


@pytest.mark.parametrize("value", [-1.0, -0.999, 0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_plain_frames_and_wild_portraits_stay_numbers(value, dtype):
    frames = torch.full((1, 3, 2, 12, 10), value, dtype=dtype)
    frames[:, :, 1] = pictures(1, seed=15, dtype=dtype)[:, :, 0].sign()
    for portrait in (pictures(1, seed=16, dtype=dtype).sign(), torch.full((1, 3, 1, 12, 10), value, dtype=dtype)):
        result = ColorMatch(portrait).apply(frames)
        assert result.isfinite().all() and result.abs().max() <= 1
