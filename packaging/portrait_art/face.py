"""The parts of a painted face: skin, eyes, brows, nose and mouth. Light comes from the upper left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from drawing import Drawing, Point, between, mirrored, moved, placed, resampled, sampled, smooth, tapered

AXIS = 512.0


@dataclass(frozen=True)
class Skin:
    light: str
    base: str
    shade: str  # soft shadow
    deep: str  # creases, nostrils
    blush: str
    rim: str  # light from behind


def paint_face(d: Drawing, outline: Sequence[Point], skin: Skin) -> str:
    """Skin of the face with its soft modelling; returns the outline as path data, for clipping."""
    face = smooth(outline)
    top, bottom = min(y for _, y in outline), max(y for _, y in outline)
    d.path(face, d.radial((455, top + 0.36 * (bottom - top)), 430,
                          [(0, skin.light, 1), (0.5, skin.base, 1), (1, skin.shade, 1)]))  # fmt: skip
    # The form turns away at the edge, more on the side away from the light.
    d.path(face, stroke=skin.shade, width=64, blur=24, opacity=0.55, clip=face)
    away = [
        (642, top),
        (655, 420),
        (640, 540),
        (585, 640),
        (500, 706),
        (470, bottom + 60),
        (800, bottom + 60),
        (800, top),
    ]
    d.path(smooth(away), skin.shade, blur=34, opacity=0.55, clip=face)
    d.path(smooth([(560, bottom - 8), (640, 640), (690, 560), (720, 640), (620, bottom + 40)]),
           skin.deep, blur=30, opacity=0.22, clip=face)  # fmt: skip
    return face


def paint_cheeks(d: Drawing, face: str, skin: Skin, y: float, strength: float) -> None:
    d.ellipse((404, y), 58, 40, skin.blush, blur=28, opacity=strength, clip=face, turn=-22)
    d.ellipse((620, y), 58, 40, skin.blush, blur=28, opacity=0.85 * strength, clip=face, turn=22)
    d.ellipse((396, y - 24), 44, 18, skin.light, blur=13, opacity=0.55, clip=face, turn=-24)
    d.ellipse((622, y - 24), 34, 14, skin.light, blur=12, opacity=0.28, clip=face, turn=24)


@dataclass(frozen=True)
class EyeLook:
    iris_light: str
    iris: str
    iris_dark: str
    lash: str
    lash_width: float = 7.0
    has_lashes: bool = True
    lash_length: float = 1.0
    scale: float = 1.0
    lid_fold: float = 13.0  # px from lid line to crease
    openness: float = 1.0


UPPER_LID = [(-48, 3), (-38, -12), (-20, -22.5), (2, -25), (23, -18), (38, -4), (47, 9)]
LOWER_LID = [(-48, 3), (-36, 12), (-16, 18.5), (6, 19.5), (26, 15.5), (39, 11), (47, 9)]


def paint_eye(d: Drawing, centre: Point, look: EyeLook, skin: Skin, is_right: bool) -> None:
    """One eye; the shapes are of the image-left eye (nose to the right) and mirrored for the other."""

    def at(points):
        return placed([(x, y * look.openness) for x, y in points], centre, look.scale, is_right)

    def spot(x: float, y: float) -> Point:  # not mirrored: reflections sit on the same side in both eyes
        return centre[0] + look.scale * x, centre[1] + look.scale * y

    s = look.scale
    _paint_socket(d, at, skin)
    opening = between(at(UPPER_LID), at(LOWER_LID))
    d.path(opening, d.radial(spot(-4, 0), 52 * s, [(0, "#fdfaf7", 1), (0.6, "#f3ece7", 1), (1, "#cfc0ba", 1)]))
    d.path(smooth(at([(37, 4), (46, 6), (50, 11), (42, 13), (36, 11)])), "#dd9a8e", opacity=0.85, blur=1, clip=opening)
    _paint_iris(d, spot, look, opening)
    # Shadow of the upper lid on the ball.
    d.path(smooth(at(UPPER_LID), closed=False), stroke="#3a2524", width=15 * s, blur=3.6, opacity=0.5, clip=opening)
    _paint_glints(d, spot, s, opening)
    d.path(tapered(at(LOWER_LID[1:]), (2, 3, 2.6, 1)), skin.light, opacity=0.55, blur=0.6)
    lower = moved(at(LOWER_LID), 0, 2.2)
    d.path(tapered(lower, (2.6, 2.2, 1.5, 1.2, 0.4)), look.lash, opacity=0.5, blur=0.6)
    wing = [(-56, -3), (-49, 1)] if look.has_lashes else [(-50, 2)]
    lid = at(wing + UPPER_LID[1:])
    w = look.lash_width * s
    d.path(tapered(lid, (0.4 * w, w, 1.05 * w, 0.95 * w, 0.75 * w, 0.5 * w, 0.2 * w), 13), look.lash)
    side = "right" if is_right else "left"
    d.note(f"eye_upper_{side}", moved(at(UPPER_LID), 0, 0.4 * w))  # the lower edge of the lash line
    d.note(f"eye_lower_{side}", at(LOWER_LID))
    if look.has_lashes:
        _paint_lashes(d, at, look)
    fold = at(
        [
            (x * 1.02 - 1, y - look.lid_fold * lift)
            for (x, y), lift in zip(UPPER_LID, (0.55, 0.85, 1, 1, 0.95, 0.8, 0.55), strict=True)
        ]
    )
    d.path(tapered(fold, (0.6, 3.2, 3.4, 3, 2.4, 0.8)), skin.deep, opacity=0.62, blur=0.8)
    d.path(tapered(moved(fold, 0, -3), (2, 9, 10, 9, 4)), skin.shade, opacity=0.5, blur=4)
    glow = at([(-26, -23 - 0.42 * look.lid_fold), (-4, -26 - 0.45 * look.lid_fold), (16, -21 - 0.45 * look.lid_fold)])
    d.path(tapered(glow, (0.5, 5, 0.5)), skin.light, opacity=0.6, blur=1.8)


def _paint_socket(d: Drawing, at, skin: Skin) -> None:
    d.path(
        smooth(at([(20, -50), (58, -44), (66, -4), (50, 10), (44, -12), (18, -30)])), skin.shade, blur=11, opacity=0.75
    )
    d.path(smooth(at([(-60, -10), (-40, -34), (0, -44), (34, -34), (44, -8), (0, -18), (-40, -10)])),
           skin.shade, blur=8, opacity=0.6)  # fmt: skip
    d.path(smooth(at([(-40, 24), (0, 33), (38, 24), (30, 40), (0, 44), (-34, 36)])), skin.shade, blur=7, opacity=0.42)
    d.path(smooth(at([(-50, -48), (-20, -58), (14, -52), (-16, -44)])), skin.light, blur=7, opacity=0.5)


def _paint_iris(d: Drawing, spot, look: EyeLook, opening: str) -> None:
    s, centre = look.scale, spot(0, -4)
    d.ellipse(centre, 22.5 * s, 22.5 * s, look.iris_dark, clip=opening, blur=0.7)
    tones = d.radial(spot(2, 4), 21 * s, [(0, look.iris_light, 1), (0.55, look.iris, 1), (1, look.iris_dark, 1)])
    d.ellipse(centre, 20.5 * s, 20.5 * s, tones, clip=opening)
    rays = []
    for k in range(26):
        angle = k * 6.2832 / 26 + d.random.uniform(-0.08, 0.08)
        inner, outer = d.random.uniform(9, 11), d.random.uniform(14, 19)
        rays.append((angle, inner, outer))
    for angle, inner, outer in rays:
        a = spot(inner * math.cos(angle), -4 + inner * math.sin(angle))
        b = spot(outer * math.cos(angle), -4 + outer * math.sin(angle))
        d.path(
            f"M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}",
            stroke=look.iris_light,
            width=1.1,
            opacity=0.4,
            clip=opening,
        )
    d.ellipse(spot(2, 8), 11 * s, 5.5 * s, look.iris_light, blur=2.4, opacity=0.75, clip=opening)
    d.ellipse(centre, 9.6 * s, 9.6 * s, "#120c0c", clip=opening, blur=0.4)


def _paint_glints(d: Drawing, spot, s: float, opening: str) -> None:
    d.ellipse(spot(-7.5, -11.5), 6 * s, 5.4 * s, "#ffffff", clip=opening, blur=0.4, opacity=0.96)
    d.ellipse(spot(8, 4.5), 2.8 * s, 2.4 * s, "#ffffff", clip=opening, blur=0.5, opacity=0.7)


def _paint_lashes(d: Drawing, at, look: EyeLook) -> None:
    roots = [
        (-52, -1),
        (-47, -4),
        (-41, -10),
        (-34, -15.5),
        (-26, -20.5),
        (-17, -24),
        (-7, -26),
        (4, -26),
        (14, -24),
        (24, -19),
    ]
    for k, (x, y) in enumerate(roots):
        reach = (13 - 0.8 * k) * look.lash_length
        lean = (-9 + 1.15 * k) * look.lash_length
        stroke = at([(x, y + 2), (x + 0.35 * lean, y - 0.42 * reach), (x + lean, y - 0.85 * reach)])
        d.path(tapered(stroke, (2.4, 1.7, 0.3), 5), look.lash, opacity=0.92)


def paint_brow(
    d: Drawing, spine: Sequence[Point], thick: Sequence[float], colour: str, dark: str, is_right: bool, count: int = 70
) -> None:
    """A brow from its inner end outwards; `spine` is of the image-left brow in image px."""
    spine = mirrored(spine) if is_right else list(spine)
    d.path(tapered(spine, thick, 11), colour, opacity=0.62, blur=1.8)
    sign = -1.0 if is_right else 1.0
    curve = resampled(spine, 40)
    for _ in range(count):
        t = d.random.random()
        k = min(int(t * 39), 38)
        x, y = curve[k]
        bx, by = curve[k + 1]
        half = sampled(thick, t) / 2
        off = d.random.uniform(-0.5, 0.95)
        reach = d.random.uniform(13, 21) * (1 - 0.35 * t)
        up = 0.7 * (1 - t) ** 1.5 * (0.6 + off) - 0.5 * min(off, 0) * t * -1
        start = (x, y + off * half)
        dx, dy = (bx - x), (by - y)
        norm = max((dx * dx + dy * dy) ** 0.5, 1e-6)
        end = (start[0] + reach * dx / norm * (1 - 0.55 * (1 - t)), start[1] + reach * dy / norm - reach * 0.62 * up)
        mid = ((start[0] + end[0]) / 2 + sign * 0.8, (start[1] + end[1]) / 2 - 1.2)
        d.path(tapered([start, mid, end], (1.9, 1.6, 0.3), 4), d.random.choice((colour, dark, dark)), opacity=0.7)


def paint_nose(d: Drawing, skin: Skin, eye_y: float, base_y: float, half_width: float, contrast: float = 1.0) -> None:
    """Bridge, wings, tip and nostrils; `base_y` is where the nose meets the lip's groove."""
    _paint_bridge(d, skin, eye_y, base_y, half_width, contrast)
    _paint_nose_base(d, skin, base_y, half_width, contrast)
    for is_right in (False, True):
        _paint_wing(d, skin, base_y, half_width, contrast, is_right)
    x0 = AXIS
    ridge = [(x0 - 4, eye_y - 22), (x0 - 4, eye_y + 30), (x0 - 4, base_y - 40)]
    d.path(tapered(ridge, (5, 10, 14)), skin.light, blur=4.5, opacity=0.7)
    d.ellipse((x0 - 5, base_y - 25), 12, 8.5, skin.light, blur=4, opacity=0.85)
    d.ellipse((x0 - 6, base_y - 28), 4.6, 3.2, "#ffffff", blur=1.8, opacity=0.55)


def _paint_bridge(d: Drawing, skin: Skin, eye_y: float, base_y: float, w: float, contrast: float) -> None:
    x0 = AXIS
    away = [(x0 + 17, eye_y - 34), (x0 + 15, eye_y + 20), (x0 + 22, base_y - 50), (x0 + w + 5, base_y - 18),
            (x0 + w + 12, base_y - 30), (x0 + 40, base_y - 70), (x0 + 32, eye_y)]  # fmt: skip
    d.path(smooth(away), skin.shade, blur=9, opacity=0.85 * contrast)
    lit = [(x0 - 20, eye_y - 30), (x0 - 19, eye_y + 16), (x0 - 27, base_y - 60), (x0 - 38, base_y - 44),
           (x0 - 34, eye_y)]  # fmt: skip
    d.path(smooth(lit), skin.shade, blur=9, opacity=0.38 * contrast)


def _paint_nose_base(d: Drawing, skin: Skin, base_y: float, w: float, contrast: float) -> None:
    x0 = AXIS
    cast = [(x0 - w, base_y - 4), (x0 - 20, base_y + 4), (x0, base_y + 7), (x0 + 20, base_y + 4),
            (x0 + w + 2, base_y - 4), (x0 + w - 2, base_y + 8),
            (x0, base_y + 17), (x0 - w + 4, base_y + 8)]  # fmt: skip
    d.path(smooth(cast), skin.deep, blur=6, opacity=0.38 * contrast)
    under = [(x0 - 26, base_y - 10), (x0, base_y - 3), (x0 + 30, base_y - 10), (x0 + 24, base_y + 2),
             (x0, base_y + 5), (x0 - 22, base_y + 2)]  # fmt: skip
    d.path(smooth(under), skin.shade, blur=4, opacity=0.85 * contrast)


def _paint_wing(d: Drawing, skin: Skin, base_y: float, w: float, contrast: float, is_right: bool) -> None:
    def at(points):
        return mirrored(points) if is_right else points

    x0 = AXIS
    wing = [(x0 - w + 3, base_y - 30), (x0 - w - 3, base_y - 16), (x0 - w + 2, base_y - 3), (x0 - w + 11, base_y + 1)]
    strength = (0.5 if is_right else 0.36) * contrast
    d.path(tapered(at(wing), (0.6, 5, 6, 2)), skin.deep, opacity=strength, blur=2.6)
    nostril = at([(x0 - w + 12, base_y - 2), (x0 - 20, base_y - 6.5), (x0 - 11, base_y + 0.5)])
    d.path(tapered(nostril, (1.2, 5.6, 1.4)), skin.deep, opacity=0.92, blur=0.9)
    shine = at([(x0 - w + 9, base_y - 16)])[0]
    d.ellipse(shine, 5, 6.5, skin.light, blur=3.4, opacity=0.25 if is_right else 0.55)


@dataclass(frozen=True)
class Lips:
    upper: str
    lower: str
    edge: str
    seam: str
    shine: float = 0.6
    half_width: float = 68.0
    rise: float = 4.0  # how much higher the corners are
    upper_height: float = 19.0
    lower_height: float = 29.0


def paint_mouth(d: Drawing, y: float, lips: Lips, skin: Skin) -> None:
    """A closed mouth with a hint of a smile: the seam's middle is at `y`."""
    w, x0 = lips.half_width, AXIS
    uh, lh, r = lips.upper_height, lips.lower_height, lips.rise
    seam = _across(w, [(0, 3.0), (0.22, 0.2), (0.45, 1.0), (0.72, 0.4), (1, -r)], y)
    bow = _across(w, [(0, -0.72 * uh), (0.2, -uh), (0.42, -0.78 * uh), (0.74, -0.33 * uh - 0.4 * r), (1, -r)], y)
    low = _across(w, [(0, lh), (0.25, 0.96 * lh), (0.5, 0.75 * lh), (0.78, 0.34 * lh), (1, -r)], y)
    for name, curve in (("seam", seam), ("lip_upper", bow), ("lip_lower", low)):
        d.note(name, curve)
    # Shadow under the lower lip, groove above, soft edge around.
    d.ellipse((x0 + 3, y + lh + 15), 46, 9, skin.deep, blur=7, opacity=0.36)
    groove = [
        (x0 - 8, y - uh - 33), (x0 + 9, y - uh - 33), (x0 + 11, y - uh - 2), (x0, y - 0.7 * uh), (x0 - 10, y - uh - 2),
    ]  # fmt: skip
    d.path(smooth(groove), skin.shade, blur=5, opacity=0.7)
    d.path(between(bow, low), lips.edge, blur=3, opacity=0.5)
    upper, lower = between(bow, seam), between(seam, low)
    d.path(upper, d.linear((x0, y - uh), (x0, y + 4), [(0, lips.upper, 1), (1, lips.edge, 1)]), blur=0.7)
    d.path(
        lower,
        d.linear(
            (x0, y), (x0, y + lh), [(0, lips.edge, 1), (0.34, lips.lower, 1), (0.75, lips.lower, 1), (1, lips.upper, 1)]
        ),
        blur=0.7,
    )
    sheen = [(-48, 7), (-20, 8), (6, 10), (16, 17), (-4, 21), (-30, 18)]
    d.path(smooth(moved(sheen, x0, y)),
           "#fff2ec", blur=5, opacity=0.42 * lips.shine, clip=lower)  # fmt: skip
    d.path(
        tapered([(x0 - 27, y + 12), (x0 - 12, y + 13.5), (x0 - 2, y + 13)], (0.5, 4.6, 0.5)),
        "#ffffff",
        blur=1.5,
        opacity=0.75 * lips.shine,
    )
    d.path(tapered(moved(bow[1:-1], 0, -3), (0.5, 2.6, 3, 2.6, 3, 2.6, 0.5), 13), skin.light, blur=1.6, opacity=0.55)
    d.path(
        smooth([(x0 - 34, y - 8), (x0 - 14, y - 13), (x0 - 4, y - 9), (x0 - 16, y - 6)]),
        "#fff2ec",
        blur=3,
        opacity=0.3 * lips.shine,
        clip=upper,
    )
    d.path(tapered(seam, (1.4, 2.4, 3.2, 3.4, 3.6, 3.4, 3.2, 2.4, 1.4), 17), lips.seam, blur=0.55)
    for sign in (-1, 1):
        corner = (x0 + sign * w, y - r)
        d.ellipse((corner[0] + sign * 2, corner[1] + 1), 6, 5, skin.deep, blur=3, opacity=0.55)
        x, cy = corner
        tuck = [(x - sign * 4, cy + 1), (x + sign * 3, cy - 1.5), (x + sign * 7, cy - 6)]
        d.path(tapered(tuck, (2.6, 2.2, 0.4), 5), lips.seam, opacity=0.75, blur=0.8)
        dimple = [(x + sign * 15, cy - 14), (x + sign * 19, cy), (x + sign * 15, cy + 14)]
        d.path(tapered(dimple, (0.5, 6, 0.5), 5), skin.shade, opacity=0.6, blur=3.5)


def _across(half_width: float, profile: Sequence[Point], y: float) -> list[Point]:
    right = [(AXIS + t * half_width, y + dy) for t, dy in profile]
    return mirrored(reversed(right[1:])) + right
