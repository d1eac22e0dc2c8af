"""The stream watch on a real portrait: what a living picture may do, and what is a collapse."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk.portrait_tensor import cover_and_crop, to_unit_range  # noqa: E402
from engine.generators.flashtalk.watch import Bounds, collapse_of, look_of, measure  # noqa: E402
from engine.portrait.load import load_portrait  # noqa: E402

SIZE = (384, 224)


@pytest.fixture(scope="module", params=["sample:maya", "sample:"])
def picture(request) -> np.ndarray:
    return cover_and_crop(load_portrait(request.param).image, *SIZE)


def _frames(*pictures):
    return torch.cat([to_unit_range(picture) for picture in pictures], dim=2)


def _verdict(frames, portrait) -> str:
    return collapse_of(look_of(measure(frames)), look_of(measure(_frames(portrait))))


def _uint8(values) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)


LIVING = {
    "itself": lambda p: p,
    "moved": lambda p: np.roll(p, (12, -9), axis=(0, 1)),
    "turned": lambda p: cv2.warpAffine(
        p, cv2.getRotationMatrix2D((112, 192), 8, 1.05), SIZE[::-1], borderMode=cv2.BORDER_REPLICATE
    ),
    "blurred": lambda p: cv2.GaussianBlur(p, (0, 0), 1.5),
    "sharpened": lambda p: _uint8(p + 1.0 * (p.astype(float) - cv2.GaussianBlur(p, (0, 0), 2))),
    "brighter by a tenth": lambda p: _uint8(p * 1.1),
    "darker by a tenth": lambda p: _uint8(p * 0.9),
    "flatter": lambda p: _uint8(128 + (p.astype(float) - 128) * 0.7),
    "warmer": lambda p: _uint8(p * np.array([1.1, 1.0, 0.9])),
    "grainy": lambda p: _uint8(p + np.random.default_rng(0).normal(0, 6, p.shape)),
}


@pytest.mark.parametrize("change", LIVING.values(), ids=LIVING)
def test_a_living_picture_gives_no_alarm(picture, change):
    assert _verdict(_frames(change(picture)), picture) == ""
    assert _verdict(_frames(picture, change(picture), change(picture), picture), picture) == ""


def _noise(picture):
    return _uint8(np.random.default_rng(1).uniform(0, 256, picture.shape))


def _speckled(picture):
    """Noise of the portrait's own mean, about its own contrast."""
    random = np.random.default_rng(2).normal(0, picture.std(), picture.shape)
    return _uint8(picture.mean((0, 1)) + random)


COLLAPSED = {
    "noise": (_noise, "noise|brightness|colour|contrast"),
    "speckles in its colours": (_speckled, "noise"),
    "black": (np.zeros_like, "black|brightness"),
    "white": (lambda p: np.full_like(p, 255), "burnt|brightness"),
    "burnt out": (lambda p: _uint8(p.astype(float) * 4 + 60), "burnt|brightness"),
    "washed out": (lambda p: _uint8(p.mean() + (p - p.mean()) * 0.08), "contrast"),
    "a plain grey": (lambda p: np.full_like(p, 128), "contrast|brightness"),
    "melted": (lambda p: cv2.GaussianBlur(p, (0, 0), 40), "blur|contrast"),
    "a green one": (lambda p: np.broadcast_to(np.array([0, 200, 0], np.uint8), p.shape).copy(), "colour|brightness"),
}


@pytest.mark.parametrize(("change", "reason"), COLLAPSED.values(), ids=COLLAPSED)
def test_a_collapsed_picture_is_told_with_its_reason(picture, change, reason):
    verdict = _verdict(_frames(change(picture), change(picture)), picture)
    assert any(word in verdict for word in reason.split("|")), verdict


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [(0, 0, 0, 0, 0), (0, 1, 1, 5, 7), (0, 2, 1, -1, -1)])
def test_a_single_number_that_is_none_is_seen(picture, value, place):
    """Also where colours are not looked at: every fourth pixel is enough for those."""
    frames = _frames(picture, picture)
    frames[place] = value
    look = look_of(measure(frames))
    assert not look.is_finite
    assert collapse_of(look, look_of(measure(_frames(picture)))) == "it held numbers that are none"


def test_numbers_are_those_of_the_picture(picture):
    """Against OpenCV's Lab and plain numpy."""
    look = look_of(measure(_frames(picture)))
    lab = cv2.cvtColor(picture[::4, ::4].astype(np.float32) / 255, cv2.COLOR_RGB2Lab).reshape(-1, 3)
    assert look.mean == pytest.approx(lab.mean(0), abs=0.3) and look.spread == pytest.approx(lab.std(0), abs=0.3)
    row = picture[::4].astype(np.float64) / 127.5
    assert look.sharpness == pytest.approx(np.abs(np.diff(row, axis=1)).mean(), rel=1e-5)
    sparse = picture[::4, ::4] / 127.5 - 1
    assert look.black == pytest.approx((sparse < -0.98).all(-1).mean(), abs=1e-6)
    assert look.saturated == pytest.approx((sparse > 0.98).mean(), abs=1e-6)
    assert look.is_finite


def test_measuring_changes_nothing_and_stays_in_16_bits_range(picture):
    frames = _frames(picture)
    kept = frames.clone()
    numbers = measure(frames.bfloat16())
    assert torch.equal(frames, kept) and numbers.dtype == torch.float32 and numbers.shape == (10,)
    assert look_of(numbers).mean == pytest.approx(look_of(measure(frames)).mean, abs=0.5)


def test_a_dark_portrait_may_be_dark():
    """Shares are compared with the portrait's own, not with nothing."""
    dark = np.zeros((*SIZE, 3), np.uint8)
    dark[150:250, 80:150] = 180
    assert _verdict(_frames(dark), dark) == ""
    assert _verdict(_frames(np.roll(dark, 10, axis=1)), dark) == ""
    assert _verdict(_frames(np.zeros_like(dark)), dark) != ""


def test_bounds_can_be_drawn_tighter(picture):
    looks = [look_of(measure(_frames(p))) for p in (_uint8(picture * 0.9), picture)]
    assert collapse_of(*looks) == "" and collapse_of(*looks, Bounds(lightness_shift=1.0)) != ""
