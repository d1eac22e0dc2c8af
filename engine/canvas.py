"""The fixed picture that others see: the generator's frame on a blurred, solid or cropped canvas."""

from __future__ import annotations

import cv2
import numpy as np

from engine.settings import CanvasSettings

_BLUR_SHARE = 0.035
_BACKDROP_BRIGHTNESS = 0.72


class CanvasComposer:
    """Places frames on the canvas. One thread composes; the returned canvas is valid until the next call.

    All that does not change from frame to frame (backdrop, position, maps) is made by `set_backdrop`.
    """

    def __init__(self, settings: CanvasSettings) -> None:
        self.settings = settings
        self._backdrop = np.empty((settings.height, settings.width, 3), np.uint8)
        self._backdrop[:] = _rgb(settings.colour)
        self._canvas = self._backdrop.copy()
        self._scratch: np.ndarray | None = None
        self._shown_size: tuple[int, int] | None = None

    @property
    def room(self) -> tuple[int, int]:
        """Width and height that a generator of free size should stay within."""
        return self.settings.width, self.settings.height

    def room_for(self, portrait_size: tuple[int, int]) -> tuple[int, int]:
        """Size for a generator that keeps the portrait's shape: inside the canvas, or, when cropped, covering it
        as far as that costs no more pixels than the canvas has. Even numbers."""
        width, height = portrait_size
        room_w, room_h = self.room
        inside = min(room_w / width, room_h / height)
        if self.settings.fill == "crop":
            cover = max(room_w / width, room_h / height)
            inside = min(cover, (room_w * room_h / (width * height)) ** 0.5)
        return max(2, round(width * inside / 2) * 2), max(2, round(height * inside / 2) * 2)

    def set_backdrop(self, portrait: np.ndarray) -> None:
        """Make what lies behind the frame from the portrait, RGB uint8 (h, w, 3)."""
        if self.settings.fill == "blur":
            self._backdrop = _blurred(portrait, self.settings)
        self._shown_size = None

    def compose(self, image: np.ndarray) -> np.ndarray:
        """The canvas, RGB uint8 (height, width, 3), with `image` (h, w, 3) on it."""
        size = (image.shape[1], image.shape[0])
        if size != self._shown_size:
            self._canvas[:] = self._backdrop
            self._shown_size = size
        if self.settings.fill == "crop":
            self._compose_cropped(image)
        else:
            self._compose_inside(image)
        return self._canvas

    def _compose_inside(self, image: np.ndarray) -> None:
        room_w, room_h = self.room
        scale = min(room_w / image.shape[1], room_h / image.shape[0])
        width, height = round(image.shape[1] * scale), round(image.shape[0] * scale)
        if abs(width - image.shape[1]) <= 1 and abs(height - image.shape[0]) <= 1:
            width, height = min(image.shape[1], room_w), min(image.shape[0], room_h)
            image = image[:height, :width]
        else:
            image = self._resized(image, (width, height))
        x, y = (room_w - width) // 2, (room_h - height) // 2
        self._place(image, self._canvas[y : y + height, x : x + width])

    def _compose_cropped(self, image: np.ndarray) -> None:
        room_w, room_h = self.room
        scale = max(room_w / image.shape[1], room_h / image.shape[0])
        if abs(scale - 1) > 1e-3:
            width = max(room_w, round(image.shape[1] * scale))
            height = max(room_h, round(image.shape[0] * scale))
            image = self._resized(image, (width, height))
        # A face sits above the middle of its portrait: keep more of the top than of the bottom.
        x, y = (image.shape[1] - room_w) // 2, (image.shape[0] - room_h) // 3
        self._place(image[y : y + room_h, x : x + room_w], self._canvas)

    def _resized(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        if self._scratch is None or self._scratch.shape[:2] != (size[1], size[0]):
            self._scratch = np.empty((size[1], size[0], 3), np.uint8)
        shrinks = size[0] < image.shape[1]
        return cv2.resize(image, size, dst=self._scratch, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)

    def _place(self, image: np.ndarray, target: np.ndarray) -> None:
        if self.settings.is_mirrored:
            cv2.flip(image, 1, dst=target)
        else:
            np.copyto(target, image)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _blurred(portrait: np.ndarray, settings: CanvasSettings) -> np.ndarray:
    """The portrait covering the canvas, out of focus and darker, so that the figure stands out."""
    # Blurred small and enlarged: the same look, a fraction of the time.
    width, height = settings.width // 4, settings.height // 4
    scale = max(width / portrait.shape[1], height / portrait.shape[0])
    size = (max(width, round(portrait.shape[1] * scale)), max(height, round(portrait.shape[0] * scale)))
    small = cv2.resize(portrait, size, interpolation=cv2.INTER_AREA)
    x, y = (size[0] - width) // 2, (size[1] - height) // 3
    small = small[y : y + height, x : x + width]
    small = cv2.GaussianBlur(small, (0, 0), _BLUR_SHARE * width, borderType=cv2.BORDER_REPLICATE)
    large = cv2.resize(small, (settings.width, settings.height), interpolation=cv2.INTER_CUBIC)
    if settings.is_mirrored:
        large = large[:, ::-1]
    return np.ascontiguousarray(cv2.convertScaleAbs(large, alpha=_BACKDROP_BRIGHTNESS))
