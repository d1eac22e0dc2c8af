"""Neck, shoulders, ears, clothes' shading and the backdrop."""

from __future__ import annotations

from collections.abc import Sequence

from drawing import Drawing, Point, between, moved, placed, resampled, smooth, symmetric, tapered
from face import AXIS, Skin


def paint_backdrop(d: Drawing, light: str, mid: str, dark: str, glow: str) -> None:
    """A calm studio wall: soft light from the upper left, a glow behind the shoulders, a darker rim."""
    d.layer = "background"
    d.path("M0 0H1024V1024H0Z", d.radial((380, 330), 900, [(0, light, 1), (0.5, mid, 1), (1, dark, 1)]))
    everything = "M0 0H1024V1024H0Z"
    for centre, radius, colour, strength in (((790, 740), 520, glow, 0.6), ((150, 170), 460, light, 0.7)):
        stops = [(t, colour, strength * (1 - t * t) ** 2) for t in (0, 0.2, 0.4, 0.6, 0.8)] + [(1, colour, 0)]
        d.path(everything, d.radial(centre, radius, stops))
    d.layer = "figure"


def paint_neck(d: Drawing, skin: Skin, half_width: float, face: Sequence[Point]) -> str:
    """Neck down to the collar bones, with the shadow that the jaw throws."""
    w = half_width
    neck = smooth(symmetric([(0, 560), (w + 4, 570), (w, 680), (w + 2, 735), (w + 30, 783), (w + 120, 826),
                             (w + 150, 920), (0, 980)]))  # fmt: skip
    d.path(
        neck, d.linear((AXIS - w, 700), (AXIS + w, 760), [(0, skin.base, 1), (0.4, skin.base, 1), (1, skin.shade, 1)])
    )
    d.path(smooth(moved(face, 8, 46)), skin.deep, blur=20, opacity=0.62, clip=neck)
    d.path(smooth(moved(face, 16, 18)), skin.deep, blur=12, opacity=0.35, clip=neck)
    edge = [(AXIS + w + 2, 600), (AXIS + w, 700), (AXIS + w + 4, 750), (AXIS + w + 60, 806)]
    d.path(tapered(edge, (40, 46, 40, 20)), skin.deep, blur=16, opacity=0.4, clip=neck)
    for sign in (-1, 1):
        sinew = [(AXIS + sign * (w - 14), 730), (AXIS + sign * (w - 38), 785), (AXIS + sign * 26, 836)]
        d.path(tapered(sinew, (3, 10, 4)), skin.shade, blur=8, opacity=0.5, clip=neck)
        bone = [(AXIS + sign * 24, 840), (AXIS + sign * 80, 830), (AXIS + sign * 150, 816)]
        d.path(tapered(bone, (3, 8, 2)), skin.deep, blur=5, opacity=0.32, clip=neck)
        d.path(
            tapered(moved(bone, 0, -12), (3, 8, 2)), skin.light, blur=5, opacity=0.42 if sign < 0 else 0.2, clip=neck
        )
    d.path(smooth([(474, 830), (512, 826), (550, 830), (512, 864)]), skin.deep, blur=10, opacity=0.25, clip=neck)
    return neck


def paint_ear(d: Drawing, skin: Skin, centre: Point, scale: float, is_right: bool) -> None:
    """An ear seen from the front; the shape is of the image-left ear."""

    def at(points):
        return placed(points, centre, scale, is_right)

    ear = smooth(at([(22, -50), (2, -58), (-18, -44), (-23, -16), (-17, 12), (-10, 34), (4, 52), (16, 46), (24, 20)]))
    tone = skin.base if not is_right else skin.shade
    d.path(ear, d.linear(at([(-22, 0)])[0], at([(24, 0)])[0], [(0, tone, 1), (1, skin.shade, 1)]))
    d.path(
        smooth(at([(14, -36), (-2, -42), (-11, -22), (-6, 4), (2, 26), (12, 24), (10, -4)])),
        skin.deep,
        blur=5,
        opacity=0.5,
        clip=ear,
    )
    d.path(
        tapered(at([(10, -46), (-6, -46), (-16, -24), (-12, 6), (-4, 28)]), (1, 5, 5, 3, 0.5)),
        skin.light,
        blur=2,
        opacity=0.55,
        clip=ear,
    )
    d.path(
        tapered(at([(14, -24), (2, -16), (4, 6), (12, 16)]), (1, 4, 4, 1)), skin.light, blur=2.5, opacity=0.4, clip=ear
    )
    d.ellipse(at([(3, 40)])[0], 7, 8, skin.blush, blur=4, opacity=0.4, clip=ear)
    if is_right:
        d.path(
            tapered(at([(2, -57), (-18, -44), (-23, -16), (-16, 14)]), (1, 3, 3, 0.5)),
            skin.rim,
            blur=1.2,
            opacity=0.7,
            clip=ear,
        )


def paint_rim(
    d: Drawing, outline: Sequence[Point], inside: str, colour: str, width: float = 5.0, opacity: float = 0.7
) -> None:
    """Light from behind along an open line on the side away from the main light."""
    d.path(tapered(outline, (0.4, width, width, 0.4), 15), colour, blur=2.4, opacity=opacity, clip=inside)
    d.path(tapered(outline, (1, 4 * width, 4 * width, 1), 15), colour, blur=9, opacity=0.4 * opacity, clip=inside)


def paint_folds(d: Drawing, cloth: str, folds: Sequence[Sequence[Point]], dark: str, light: str) -> None:
    for fold in folds:
        d.path(tapered(fold, (1, 10, 26, 30)), dark, blur=13, opacity=0.24, clip=cloth)
        d.path(tapered(moved(fold, -20, -4), (1, 8, 18, 22)), light, blur=13, opacity=0.2, clip=cloth)


def paint_knit(d: Drawing, cloth: str, collar: Sequence[Point], dark: str, light: str, drop: float) -> None:
    """A ribbed neckline: two lines along `collar` (open, left to right) and short ribs between them."""
    low = [(x, y + drop) for x, y in collar]
    wide = [(AXIS + (x - AXIS) * 1.09, y) for x, y in low]
    band = between(collar, wide)
    d.path(band, dark, opacity=0.28, clip=cloth)
    d.path(tapered(moved(wide, 0, 2), (3, 4, 4, 3)), dark, blur=2, opacity=0.7, clip=cloth)
    d.path(tapered(moved(collar, 0, 3), (2, 4, 4, 2)), light, blur=1.6, opacity=0.6, clip=cloth)
    top, bottom = resampled(collar, 46), resampled(wide, 46)
    for a, b in zip(top, bottom, strict=True):
        d.path(
            tapered([a, ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2), b], (1.5, 3, 1.5), 4),
            dark,
            blur=0.9,
            opacity=0.34,
            clip=cloth,
        )
