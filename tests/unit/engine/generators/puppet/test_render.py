"""The renderer: what moves, what stays, what never happens (folds, holes, slivers)."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace

import cv2
import numpy as np
import pytest

from engine.generators.puppet.bases import BASES
from engine.generators.puppet.expression import EXPRESSION_FIELDS, Expression
from engine.generators.puppet.geometry import FaceGeometry
from engine.generators.puppet.lattice import Lattice, PixelMap
from engine.generators.puppet.render import PuppetRenderer
from engine.portrait.load import load_portrait

SIZE = (512, 512)


@pytest.fixture(scope="module", params=["maya", "theo", "ingrid"])
def sample(request):
    portrait = load_portrait(f"sample:{request.param}")
    return portrait, FaceGeometry.from_dict(json.loads(portrait.annotations["puppet"])["geometry"])


@pytest.fixture(scope="module")
def cut_out(sample):
    portrait, geometry = sample
    return PuppetRenderer(portrait.image, geometry, size=SIZE, person_mask=portrait.person_mask)


@pytest.fixture(scope="module")
def whole(sample):
    portrait, geometry = sample
    return PuppetRenderer(portrait.image, geometry, size=SIZE)


def _resized(portrait) -> np.ndarray:
    return cv2.resize(portrait.image, SIZE, interpolation=cv2.INTER_AREA)


def _frame(renderer, **values) -> np.ndarray:
    out = np.empty((SIZE[1], SIZE[0], 3), np.uint8)
    expression = Expression()
    for name, value in values.items():
        setattr(expression, name, value)
    renderer.render(expression, out)
    return out


def _psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((one.astype(float) - other.astype(float)) ** 2)
    return 99.0 if error == 0 else 10 * np.log10(255**2 / error)


def test_rest_is_the_portrait_itself(sample, whole, cut_out):
    portrait, _ = sample
    assert np.array_equal(_frame(whole), _resized(portrait))
    assert _psnr(_frame(cut_out), _resized(portrait)) >= 36


def test_closed_mouth_has_no_hole_and_an_open_one_grows_with_the_jaw(whole):
    areas = []
    for jaw in (0.0, 0.2, 0.5, 0.8):
        _frame(whole, jaw=jaw)
        areas.append(whole.mouth_hole_area())
    assert areas[0] == 0.0
    assert 0.01 < areas[1] < areas[2] < areas[3] < 0.3
    _frame(whole, press=1.0)
    assert whole.mouth_hole_area() < 0.003


def _mouth_width(sample, renderer, **values) -> float:
    """Width in px of what differs from the closed mouth's lips: the dark and bright inside of the opening."""
    _frame(renderer, **values)
    columns = (renderer._hole > 0.5).any(axis=0)
    return float(columns.sum())


def test_i_is_wider_and_u_rounder_than_a(sample, whole):
    a = _mouth_width(sample, whole, jaw=0.7)
    i = _mouth_width(sample, whole, jaw=0.3, wide=0.7)
    u = _mouth_width(sample, whole, jaw=0.25, round=0.9)
    assert i > 1.08 * a and u < 0.75 * a


def test_background_is_exactly_still(sample, cut_out):
    portrait, geometry = sample
    iod = geometry.scaled(SIZE).face_frame().iod_px
    mask = cv2.resize(portrait.person_mask, SIZE, interpolation=cv2.INTER_AREA) > 10
    radius = int(0.5 * iod)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    outside = cv2.dilate(mask.astype(np.uint8), kernel) == 0
    assert outside.sum() > 1000
    rest = _frame(cut_out)
    moved = _frame(cut_out, jaw=0.8, tx=0.034, roll=0.018, yaw=0.08, pitch=0.05, breath=0.018)
    assert np.array_equal(rest[outside], moved[outside])
    assert np.array_equal(rest[outside], _resized(portrait)[outside])


def test_frame_border_stays_without_a_cut_out(sample, whole):
    rest = _frame(whole)
    moved = _frame(whole, jaw=0.8, tx=0.034, ty=0.02, roll=0.018, yaw=0.08, pitch=0.05, zoom=0.006, breath=0.018)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        assert np.array_equal(rest[edge], moved[edge])


def test_upper_face_hardly_moves_with_the_jaw(sample, whole):
    _, geometry = sample
    brow_y = int(geometry.scaled(SIZE).landmarks[[105, 334], 1].max())
    assert _psnr(_frame(whole)[:brow_y], _frame(whole, jaw=0.8)[:brow_y]) >= 50


def test_warp_never_folds(whole):
    """The determinant of the map's Jacobian stays positive on every sheet, for 200 expressions beyond speech's."""
    rng = np.random.default_rng(1)
    for _ in range(200):
        expression = Expression()
        for name in EXPRESSION_FIELDS:
            setattr(expression, name, 0.0)
        expression.jaw, expression.wide, expression.round = rng.uniform(0, (0.9, 0.8, 0.95))
        expression.press, expression.brow = rng.uniform(0, 0.5), rng.uniform(-1, 1)
        expression.tx, expression.ty, expression.roll = rng.uniform(-0.035, 0.035, 3)
        expression.yaw, expression.pitch = rng.uniform(-0.09, 0.09, 2)
        stride = whole._lattice.stride
        for total in whole._warp.update(expression)[:2]:
            dx = np.diff(total, axis=1)[:-1] / stride
            dy = np.diff(total, axis=0)[:, :-1] / stride
            determinant = (1 + dx[..., 0]) * (1 + dy[..., 1]) - dx[..., 1] * dy[..., 0]
            assert determinant.min() > 0.02


def test_lids_cover_the_eyes(sample, whole):
    """At a full blink nothing of the eyeball is left: the eye's inside looks like the skin of the lid above it."""
    _, geometry = sample
    scaled = geometry.scaled(SIZE)
    closed, opened = (cv2.cvtColor(_frame(whole, blink=b), cv2.COLOR_RGB2LAB).astype(float) for b in (1.0, 0.0))
    for upper, lower in zip(scaled.eye_upper, scaled.eye_lower, strict=True):
        inside = np.zeros((SIZE[1], SIZE[0]), np.uint8)
        outline = np.concatenate([upper, lower[::-1]])
        cv2.fillPoly(inside, [np.round(outline).astype(np.int32)], 1)
        inside = cv2.erode(inside, np.ones((3, 3), np.uint8)) > 0
        skin = np.median(
            opened[int(upper[:, 1].min()) - 9 : int(upper[:, 1].min()) - 5, int(upper[:, 0].mean())], axis=0
        )
        # White of the eye and highlights are far brighter than the lid; lashes may be darker.
        brighter = closed[inside][:, 0] - skin[0]
        assert np.mean(brighter > 40) < 0.01


def test_half_a_blink_leaves_the_eyeball_where_it_is(sample, whole):
    _, geometry = sample
    scaled = geometry.scaled(SIZE)
    half, opened = _frame(whole, blink=0.4), _frame(whole)
    for upper, lower in zip(scaled.eye_upper, scaled.eye_lower, strict=True):
        x = int(upper[:, 0].mean())
        rim = int(np.interp(x, lower[:, 0], lower[:, 1]))
        y = rim - int(0.3 * (rim - np.interp(x, upper[:, 0], upper[:, 1])))
        patch = np.s_[y - 1 : y + 1, x - 3 : x + 3]
        assert np.abs(half[patch].astype(int) - opened[patch].astype(int)).mean() < 16


def test_same_inputs_give_the_same_bits_and_two_renderers_do_not_disturb_each_other(sample, whole):
    portrait, geometry = sample
    other = PuppetRenderer(portrait.image, geometry, size=SIZE)
    values = {"jaw": 0.5, "wide": 0.3, "yaw": 0.05, "blink": 0.7}
    first = _frame(whole, **values)
    _frame(other, jaw=0.9, round=0.5)
    assert np.array_equal(_frame(whole, **values), first)
    assert np.array_equal(_frame(other, **values), first)


def test_frames_need_no_memory_of_their_own(cut_out):
    """What is left are the lids' tables and numpy's casts, a quarter of an RGBA frame at most."""
    values = {"jaw": 0.6, "wide": 0.3, "blink": 0.6}
    out, expression = np.empty((SIZE[1], SIZE[0], 3), np.uint8), Expression()
    for name, value in values.items():
        setattr(expression, name, value)
    cut_out.render(expression, out)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        cut_out.render(expression, out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 0.25 * SIZE[0] * SIZE[1] * 4


def test_small_changes_make_small_differences(whole):
    previous = _frame(whole, jaw=0.0)
    for step in range(1, 17):
        frame = _frame(whole, jaw=step * 0.05, tx=step * 0.002)
        assert np.abs(frame.astype(int) - previous.astype(int)).mean() < 4
        previous = frame


def test_squash_blink_flattens_dots(sample):
    portrait, geometry = sample
    renderer = PuppetRenderer(portrait.image, replace(geometry, blink="squash"), size=SIZE)
    opened, closed = _frame(renderer), _frame(renderer, blink=1.0)
    upper, lower = geometry.scaled(SIZE).eye_upper[0], geometry.scaled(SIZE).eye_lower[0]
    box = np.s_[int(upper[:, 1].min()) : int(lower[:, 1].max()), int(upper[:, 0].min()) : int(upper[:, 0].max())]
    # The dark iris takes much less room.
    assert (closed[box].mean(axis=-1) < 90).sum() < 0.8 * (opened[box].mean(axis=-1) < 90).sum()


@pytest.mark.parametrize("size", [(512, 512), (448, 768), (1280, 720)])
def test_enlarging_the_lattice_is_exact_for_linear_fields(size):
    lattice = Lattice(size)
    field = (0.25 * lattice.points + np.array([3.0, -2.0])).astype(np.float32)
    pixels = PixelMap(lattice, (100, 40, 301, 222))
    rows, columns = pixels.window
    grid = np.stack(np.meshgrid(np.arange(columns.start, columns.stop), np.arange(rows.start, rows.stop)), axis=-1)
    assert np.abs(pixels.update(field) - (1.25 * grid + np.array([3.0, -2.0]))).max() < 2e-3


def test_every_basis_moves_something(whole):
    rest = _frame(whole)
    for name in BASES:
        if name in ("close", "blink"):
            continue  # one needs an open mouth, the other only lifts the lower lid a little
        assert (np.abs(_frame(whole, **{name: 0.8}).astype(int) - rest.astype(int)).max()) > 8, name


def test_photograph_at_rest_is_the_photograph(astronaut, face_models):
    from engine.generators.puppet.analyse import analyse_portrait

    found = analyse_portrait(astronaut, models=face_models)
    renderer = PuppetRenderer(astronaut, found.geometry, size=SIZE, person_mask=found.person_mask)
    assert _psnr(_frame(renderer), astronaut) >= 36
