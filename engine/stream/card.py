"""The standby card: a still picture for the time in which nothing else can be made."""

from __future__ import annotations

import cv2
import numpy as np

from engine.canvas import CanvasComposer
from engine.portrait.load import load_portrait
from engine.settings import SessionSettings

_TEXT = "Back in a moment"
_FONT = cv2.FONT_HERSHEY_DUPLEX
_DIMMED = 0.55


def standby_card(settings: SessionSettings) -> np.ndarray:
    """The portrait on its canvas, darker, with a word to those who wait: RGB uint8 (height, width, 3). Raises
    `PortraitError`."""
    portrait = load_portrait(settings.portrait)
    composer = CanvasComposer(settings.canvas)
    composer.set_backdrop(portrait.image)
    height, width = portrait.image.shape[:2]
    room_w, room_h = composer.room_for((width, height))
    small = cv2.resize(portrait.image, (room_w, room_h), interpolation=cv2.INTER_AREA)
    card = cv2.convertScaleAbs(composer.compose(small), alpha=_DIMMED)
    _write(card, _TEXT)
    return card


def _write(card: np.ndarray, text: str) -> None:
    """Centred in the lower third. Never mirrored: the others would read it the wrong way round."""
    height, width = card.shape[:2]
    scale = height / 500
    thickness = max(1, round(1.5 * scale))
    (text_w, text_h), _ = cv2.getTextSize(text, _FONT, scale, thickness)
    at = ((width - text_w) // 2, round(0.85 * height) + text_h // 2)
    cv2.putText(card, text, at, _FONT, scale, (245, 245, 245), thickness, cv2.LINE_AA)
