"""The canvas: placement, fills, mirroring."""

from __future__ import annotations

import numpy as np
import pytest

from engine.canvas import CanvasComposer
from engine.errors import UsageError
from engine.settings import CANVAS_SIZES, CanvasSettings


@pytest.fixture
def portrait():
    y, x = np.mgrid[0:512, 0:512]
    return np.stack([x // 2, y // 2, (x + y) // 4], axis=-1).astype(np.uint8)


def test_every_offered_size_is_safe_for_call_programs():
    assert all(width % 64 == 0 and height % 2 == 0 and width * 9 == height * 16 for width, height in CANVAS_SIZES)


def test_other_sizes_and_bad_colours_are_refused():
    with pytest.raises(UsageError, match="1280x721"):
        CanvasSettings(width=1280, height=721)
    with pytest.raises(UsageError, match="#rrggbb"):
        CanvasSettings(colour="red")


def test_solid_fill_puts_the_frame_in_the_middle_unchanged(portrait):
    composer = CanvasComposer(CanvasSettings(fill="solid", colour="#102030"))
    size = composer.room_for((512, 512))
    assert size == (720, 720)
    frame = np.random.default_rng(0).integers(0, 255, (720, 720, 3), np.uint8)
    composer.set_backdrop(portrait)
    canvas = composer.compose(frame)
    assert canvas.shape == (720, 1280, 3)
    assert np.array_equal(canvas[:, 280:1000], frame)
    assert (canvas[:, :280] == (16, 32, 48)).all() and (canvas[:, 1000:] == (16, 32, 48)).all()


def test_mirroring_turns_the_whole_canvas(portrait):
    plain, mirrored = (CanvasComposer(CanvasSettings(is_mirrored=flag)) for flag in (False, True))
    frame = np.random.default_rng(0).integers(0, 255, (720, 720, 3), np.uint8)
    for composer in (plain, mirrored):
        composer.set_backdrop(portrait)
    assert np.array_equal(plain.compose(frame)[:, ::-1], mirrored.compose(frame))


def test_blurred_fill_comes_from_the_portrait(portrait):
    composer = CanvasComposer(CanvasSettings())
    composer.set_backdrop(portrait)
    canvas = composer.compose(portrait[:256, :256]).astype(int)
    assert canvas[:, 10, 0].mean() < canvas[:, -10, 0].mean()  # the portrait's red grows to the right
    assert np.abs(np.diff(canvas[:, 20], axis=0)).max() <= 2  # nothing sharp in it


def test_crop_fills_the_canvas_without_distortion(portrait):
    composer = CanvasComposer(CanvasSettings(fill="crop"))
    width, height = composer.room_for((1024, 1024))
    assert width == height and width * height <= 1280 * 720 * 1.01
    circle = np.zeros((height, width, 3), np.uint8)
    y, x = np.mgrid[0:height, 0:width]
    circle[(x - width / 2) ** 2 + (y - height * 0.45) ** 2 < (height * 0.2) ** 2] = 255
    shown = composer.compose(circle)[..., 0] > 127
    assert abs(int(shown.any(axis=0).sum()) - int(shown.any(axis=1).sum())) <= 2
    assert not shown[:, :300].any()


def test_frame_of_another_size_leaves_nothing_of_the_last_one(portrait):
    composer = CanvasComposer(CanvasSettings(fill="solid", colour="#000000"))
    composer.compose(np.full((720, 1280, 3), 200, np.uint8))
    canvas = composer.compose(np.full((720, 720, 3), 100, np.uint8))
    assert set(np.unique(canvas)) == {0, 100}


def test_fixed_size_generator_is_scaled_to_fit():
    composer = CanvasComposer(CanvasSettings(fill="solid", colour="#000000"))
    canvas = composer.compose(np.full((768, 448, 3), 90, np.uint8))
    columns = np.flatnonzero(canvas[360, :, 0])
    assert abs(len(columns) - 420) <= 1 and (canvas[[0, -1]][:, columns] == 90).all()
