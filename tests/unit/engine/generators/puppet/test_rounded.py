"""Rounded lips: a smile is given up, and no half-transparent teeth stand between them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from engine.generators.puppet.analyse import analyse_portrait
from engine.generators.puppet.bases import BASES, displacement_bases
from engine.generators.puppet.expression import Expression
from engine.generators.puppet.geometry import FaceGeometry
from engine.generators.puppet.lattice import Lattice
from engine.generators.puppet.render import PuppetRenderer
from engine.portrait.load import load_portrait

SIZE = (512, 512)


def _sample(name: str):
    portrait = load_portrait(f"sample:{name}")
    return portrait, FaceGeometry.from_dict(json.loads(portrait.annotations["puppet"])["geometry"])


def _inside(renderer: PuppetRenderer, **values: float) -> np.ndarray:
    """RGB (n, 3) of what is seen between the lips."""
    expression, out = Expression(), np.empty((SIZE[1], SIZE[0], 3), np.uint8)
    for name, value in values.items():
        setattr(expression, name, value)
    renderer.render(expression, out)
    return out[renderer._mouth.window][renderer._hole > 0.95].astype(float)


@pytest.mark.parametrize("name", ["maya", "theo", "ingrid"])
def test_no_grey_between_rounded_lips(name):
    portrait, geometry = _sample(name)
    renderer = PuppetRenderer(portrait.image, geometry, size=SIZE)
    for rounding in (0.4, 0.5, 0.6):
        seen = _inside(renderer, jaw=0.3, round=rounding)
        assert len(seen) > 50
        is_grey = (np.ptp(seen, axis=1) < 0.25 * seen.max(axis=1)) & (seen.max(axis=1) > 60) & (seen.max(axis=1) < 170)
        assert is_grey.mean() < 0.3


@pytest.mark.parametrize("name", ["maya", "theo", "ingrid"])
def test_a_round_open_mouth_shows_more_than_a_hole(name):
    portrait, geometry = _sample(name)
    seen = _inside(PuppetRenderer(portrait.image, geometry, size=SIZE), jaw=0.45, round=0.8)
    darkest, lightest = np.percentile(seen.sum(axis=1), (10, 90))
    assert lightest > 1.6 * darkest


def _corner_fall(geometry: FaceGeometry) -> float:
    """How far (iod) rounding draws the mouth's corners down against its middle."""
    scaled, lattice = geometry.scaled(SIZE), Lattice(SIZE)
    upper, _ = displacement_bases(scaled, lattice)
    down = upper[BASES.index("round"), ..., 1]
    at = np.round((scaled.seam_upper[[0, 32, 64]] - (lattice.stride - 1) / 2) / lattice.stride).astype(int)
    left, middle, right = (down[y, x] for x, y in at)
    return float((left + right) / 2 - middle) / scaled.face_frame().iod_px


def test_rounding_takes_a_smile_back(astronaut, face_models):
    smiling = analyse_portrait(astronaut, models=face_models).geometry
    assert _corner_fall(smiling) > 0.04
    assert abs(_corner_fall(_sample("maya")[1])) < 0.03
