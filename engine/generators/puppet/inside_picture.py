"""What is seen between the lips, put together in memory that is reused for every frame."""

from __future__ import annotations

from dataclasses import dataclass, fields

import cv2
import numpy as np


@dataclass(slots=True, kw_only=True, eq=False)
class InsidePicture:
    """The opening's surroundings in one frame: layers are laid over `colour`, shaded and finished as `picture`."""

    where: np.ndarray
    """float32 (h, w, 2): where in the mouth's window each pixel reads; `shifted` is a second one."""
    shifted: np.ndarray
    colour: np.ndarray
    """float32 (h, w, 3), 0..1 until it is finished."""
    layer: np.ndarray
    light: np.ndarray
    share: np.ndarray
    more: np.ndarray
    picture: np.ndarray
    """uint8 (h, w, 4), opaque; `blended` is a second one."""
    blended: np.ndarray

    def lay_over(self, layer: np.ndarray, where: np.ndarray, strength: float) -> None:
        """A premultiplied RGBA layer, read at `where`, over `colour` (both float32 0..1)."""
        cv2.remap(layer, where, None, cv2.INTER_LINEAR, dst=self.layer, borderMode=cv2.BORDER_CONSTANT)
        self.layer *= strength
        np.subtract(1.0, self.layer[..., 3], out=self.more)
        self.colour *= self.more[..., None]
        self.colour += self.layer[..., :3]

    def shade(self, hole: np.ndarray, shadow: np.ndarray, sides: list[int]) -> None:
        """Darker towards the lips, ending in a warm shadow of theirs: flat colours in a mouth look pasted in."""
        occlusion, other = hole, (self.share, self.light)
        for side, buffer in zip(sides, other, strict=True):
            occlusion = cv2.blur(occlusion, (side, side), dst=buffer, borderType=cv2.BORDER_CONSTANT)
        _smooth_into(occlusion, 0.08, 0.66, self.share, self.more)
        self.light *= 0.32
        self.light += 0.74
        np.clip(self.light, 0.0, 1.0, out=self.light)
        self.colour *= self.light[..., None]
        self.colour -= shadow
        self.colour *= self.share[..., None]
        self.colour += shadow

    def finish(self) -> None:
        """`colour` as `picture`, RGBA uint8."""
        colour = self.colour
        colour *= 255.0
        colour += 0.5
        np.clip(colour, 0, 255, out=colour)
        np.copyto(self.picture[..., :3], colour, casting="unsafe")


class InsideMemory:
    """Memory for an `InsidePicture` of any size up to `shape`; rows follow each other without gaps."""

    _CHANNELS = (2, 2, 3, 4, 1, 1, 1, 4, 4)
    _BYTES = ("picture", "blended")

    def __init__(self, shape: tuple[int, int]) -> None:
        pixels = shape[0] * shape[1]
        self._flat = {
            field.name: np.full(pixels * channels, 255, np.uint8 if field.name in self._BYTES else np.float32)
            for field, channels in zip(fields(InsidePicture), self._CHANNELS, strict=True)
        }

    def shaped(self, height: int, width: int) -> InsidePicture:
        """A picture of this size; it shares its memory with all others."""
        views = {}
        for (name, flat), channels in zip(self._flat.items(), self._CHANNELS, strict=True):
            shape = (height, width, channels) if channels > 1 else (height, width)
            views[name] = flat[: height * width * channels].reshape(shape)
        return InsidePicture(**views)


def _smooth_into(values: np.ndarray, low: float, high: float, out: np.ndarray, work: np.ndarray) -> None:
    """`smoothstep` without memory of its own."""
    np.subtract(values, low, out=out)
    out /= high - low
    np.clip(out, 0.0, 1.0, out=out)
    np.multiply(out, -2.0, out=work)
    work += 3.0
    out *= out
    out *= work
