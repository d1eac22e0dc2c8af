"""The card that is shown when nothing else can be."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from engine.settings import CanvasSettings, SessionSettings
from engine.stream.card import standby_card


@pytest.mark.parametrize(("width", "height"), [(640, 360), (1920, 1080)])
def test_card_is_the_portrait_darker_with_a_word_that_fits(tmp_path, width, height):
    Image.new("RGB", (96, 96), (200, 100, 50)).save(tmp_path / "a.png")
    canvas = CanvasSettings(width=width, height=height, fill="solid", is_mirrored=True)
    card = standby_card(SessionSettings(portrait=str(tmp_path / "a.png"), canvas=canvas))
    assert card.shape == (height, width, 3) and card.dtype == np.uint8
    assert card[height // 3, width // 2] == pytest.approx([110, 55, 28], abs=2)
    rows, columns = np.nonzero(card.min(axis=2) > 200)
    assert 0.75 * height < rows.min() and rows.max() < 0.95 * height
    assert 0.2 * width < columns.min() and columns.max() < 0.8 * width


def test_the_word_is_not_mirrored(tmp_path):
    Image.new("RGB", (96, 96), (200, 100, 50)).save(tmp_path / "a.png")
    cards = [
        standby_card(SessionSettings(portrait=str(tmp_path / "a.png"), canvas=CanvasSettings(is_mirrored=is_mirrored)))
        for is_mirrored in (False, True)
    ]
    letters = [card.min(axis=2) > 200 for card in cards]
    assert letters[0].any() and np.array_equal(letters[0], letters[1])
