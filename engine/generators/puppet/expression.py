"""What the face and head do in one frame: the only thing that passes from the voice to the renderer."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True, kw_only=True)
class Expression:
    """One frame's pose, mutable so that one object can serve every frame. All zero is the portrait as it is.

    Mouth and lids are amounts of a displacement basis, 0..1. Lengths of the head pose are in iod (distance between
    the centres of the eyes), angles in radians, in the face's own axes: x to the image's right, y downwards, along
    and across the line of the eyes.
    """

    jaw: float = 0.0
    """Opening of the jaw; 1 is a wide /a/."""
    wide: float = 0.0
    """Spread lips, as in /i/."""
    round: float = 0.0
    """Rounded, narrowed lips, as in /u/."""
    press: float = 0.0
    """Lips pressed together, as in /m/, /p/ and /b/."""
    close: float = 0.0
    """How far the mouth of a portrait that was taken with an open mouth is closed; without effect on others."""
    tuck: float = 0.0
    """Lower lip drawn up and in under the upper teeth, as in /f/ and /v/."""

    blink: float = 0.0
    """0 lids as in the portrait, 1 closed."""
    brow: float = 0.0
    """Brows, -1..1, up is positive."""
    gaze_x: float = 0.0
    """-1..1, towards the image's right is positive."""
    gaze_y: float = 0.0
    """-1..1, downwards is positive."""

    tx: float = 0.0
    """Head to the image's right, iod."""
    ty: float = 0.0
    """Head downwards, iod."""
    roll: float = 0.0
    """Head tilted clockwise as seen in the image, rad."""
    yaw: float = 0.0
    """Head turned: what lies one iod nearer moves this far (iod) to the image's right."""
    pitch: float = 0.0
    """Head nodded: what lies one iod nearer moves this far (iod) downwards."""
    zoom: float = 0.0
    """Head nearer by this fraction of its size."""
    breath: float = 0.0
    """Shoulders and chest downwards, iod."""

    def clear(self) -> None:
        """Back to the portrait as it is."""
        for name in EXPRESSION_FIELDS:
            setattr(self, name, 0.0)

    def as_tuple(self) -> tuple[float, ...]:
        """All values in the order of the fields, for comparing and for tests."""
        return tuple(getattr(self, name) for name in EXPRESSION_FIELDS)


EXPRESSION_FIELDS = tuple(field.name for field in fields(Expression))
"""Names of all values, in order."""
