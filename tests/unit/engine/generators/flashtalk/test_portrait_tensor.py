"""The portrait's cut and range."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from engine.generators.flashtalk.portrait_tensor import cover_and_crop, to_unit_range  # noqa: E402


def _picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("source", "target", "covering", "corner"),
    [
        ((48, 32), (48, 32), (48, 32), (0, 0)),
        ((98, 64), (48, 32), (49, 32), (0, 0)),  # half a pixel goes down to 0
        ((102, 64), (48, 32), (51, 32), (2, 0)),  # one and a half goes up to 2
        ((106, 64), (48, 32), (53, 32), (2, 0)),  # two and a half goes down to 2
        ((60, 133), (48, 32), (48, 107), (0, 38)),
        ((187, 125), (48, 32), (49, 33), (0, 0)),  # the quotient in floating point lies above the whole number
        ((20, 17), (48, 32), (48, 41), (0, 4)),
    ],
)
def test_the_middle_of_the_covering_picture(source: tuple, target: tuple, covering: tuple, corner: tuple) -> None:
    picture = _picture(*source)
    resized = np.asarray(Image.fromarray(picture).resize(covering[::-1], Image.Resampling.BILINEAR))
    (top, left), (height, width) = corner, target
    np.testing.assert_array_equal(
        cover_and_crop(picture, height, width), resized[top : top + height, left : left + width]
    )


def test_the_ends_of_the_range_and_the_layout() -> None:
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[1, 2] = (255, 0, 51)
    video = to_unit_range(picture)
    assert video.shape == (1, 3, 1, 4, 6) and video.dtype == torch.float32 and video.is_contiguous()
    assert video[0, :, 0, 1, 2].tolist() == pytest.approx([1.0, -1.0, -0.6])
    assert video[0, :, 0, 0, 0].tolist() == [-1.0, -1.0, -1.0]


def test_bfloat16_is_rounded_at_every_operation() -> None:
    picture = _picture(16, 16)
    video = to_unit_range(picture, dtype=torch.bfloat16)
    step = (torch.from_numpy(picture).bfloat16() / 255).bfloat16()
    step = ((step - 0.5).bfloat16() * 2).bfloat16()
    torch.testing.assert_close(video[0, :, 0], step.permute(2, 0, 1), rtol=0, atol=0)
    # Not the same as rounding once at the end, which would hide what the published program does.
    assert not torch.equal(video, to_unit_range(picture).bfloat16())


def test_the_picture_is_left_alone() -> None:
    picture = _picture(20, 30)
    before = picture.copy()
    to_unit_range(cover_and_crop(picture, 16, 16)).zero_()
    to_unit_range(picture).zero_()
    np.testing.assert_array_equal(picture, before)
