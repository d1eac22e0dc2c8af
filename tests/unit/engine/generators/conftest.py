"""Faces for the tests of generators: the networks that find them, and a drawn one with known places."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from engine.errors import ModelFilesError
from engine.generators.puppet.models import FaceModels


@pytest.fixture(scope="session")
def face_models() -> FaceModels:
    """The three networks; tests that want them are skipped where the set-up could not bring them."""
    try:
        return FaceModels()
    except ModelFilesError as error:
        pytest.skip(f"the face models are not here: {error}")


@pytest.fixture(scope="session")
def draw_cartoon() -> Callable[..., np.ndarray]:
    """A flat drawing of a face whose eyes lie at (206, 225), (306, 225) and mouth at (256, 320) of 512 x 512 px."""
    return _draw_cartoon


def _draw_cartoon(*, eyes: str = "oval", mouth: str = "stroke", skin: tuple = (250, 205, 170)) -> np.ndarray:
    factor = 4
    picture = np.full((512 * factor, 512 * factor, 3), (150, 190, 225), np.uint8)

    def ellipse(centre: tuple, radii: tuple, colour: tuple, width: int = -1, start: int = 0, end: int = 360) -> None:
        centre, radii = (tuple(value * factor for value in pair) for pair in (centre, radii))
        thickness = width if width < 0 else width * factor
        cv2.ellipse(picture, centre, radii, 0, start, end, colour, thickness, cv2.LINE_AA)

    shade = tuple(int(value * 0.9) for value in skin)
    ellipse((256, 210), (150, 165), (70, 45, 30))
    cv2.rectangle(picture, (215 * factor, 330 * factor), (297 * factor, 460 * factor), shade, -1)
    ellipse((256, 520), (200, 110), (60, 110, 90))
    ellipse((256, 240), (122, 150), skin)
    ellipse((256, 240), (122, 150), (60, 40, 30), 3)
    ellipse((256, 120), (120, 50), (70, 45, 30))
    for x in (206, 306):
        if eyes == "oval":
            ellipse((x, 225), (26, 18), (255, 255, 255))
            ellipse((x, 225), (26, 18), (40, 30, 25), 3)
            ellipse((x, 225), (12, 13), (80, 110, 60))
            ellipse((x, 225), (6, 7), (10, 10, 10))
        else:
            ellipse((x, 225), (10, 14), (20, 20, 20))
        ellipse((x, 192), (28, 8), (60, 40, 30), 5, 190, 350)
    ellipse((256, 272), (14, 10), shade, 3, 20, 160)
    if mouth == "stroke":
        ellipse((256, 310), (40, 12), (120, 50, 50), 4, 15, 165)
    else:
        ellipse((256, 322), (36, 20), (90, 20, 25))
        ellipse((256, 312), (28, 7), (250, 250, 250))
        ellipse((256, 322), (36, 20), (170, 70, 70), 4)
    return cv2.resize(picture, (512, 512), interpolation=cv2.INTER_AREA)
