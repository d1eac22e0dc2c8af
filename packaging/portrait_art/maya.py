"""Maya: a young woman with a dark chestnut bob and a teal jumper."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bust import paint_backdrop, paint_folds, paint_knit, paint_neck, paint_rim
from drawing import Drawing, Point, between, moved, resampled, smooth, symmetric, tapered
from face import EyeLook, Lips, Skin, paint_brow, paint_cheeks, paint_eye, paint_face, paint_mouth, paint_nose

SKIN = Skin(light="#fde3cf", base="#f4c9ac", shade="#dba184", deep="#8f4a3c", blush="#e8816f", rim="#fff0dc")
OUTLINE = symmetric([(0, 212), (105, 226), (164, 282), (189, 360), (194, 440), (187, 512), (170, 578), (137, 640),
                     (92, 688), (46, 712), (0, 718)])  # fmt: skip
HAIR = ("#2a1512", "#3a1e18", "#4d2920", "#5f3527", "#6b3d2c")
SHINE = ("#8a5138", "#a0633f", "#b97a50")


def draw() -> Drawing:
    d = Drawing("Maya", seed=7)
    paint_backdrop(d, "#fbe9dc", "#f0cdbb", "#cf9c92", "#f8dcbc")
    _hair_behind(d)
    paint_neck(d, SKIN, 78, OUTLINE)
    d.raised(32)
    _jumper(d)
    d.lowered()
    face = paint_face(d, OUTLINE, SKIN)
    paint_cheeks(d, face, SKIN, 532, 0.4)
    look = EyeLook("#c08a50", "#7d4a26", "#2f1a12", "#20110f", lash_width=7.5, scale=1.06)
    paint_eye(d, (420, 442), look, SKIN, is_right=False)
    paint_eye(d, (604, 442), look, SKIN, is_right=True)
    brow = [(464, 389), (438, 377), (408, 371), (376, 377), (348, 395)]
    for is_right in (False, True):
        paint_brow(d, brow, (11, 15, 13, 9, 2.5), "#5a3527", "#38201a", is_right)
    paint_nose(d, SKIN, 442, 548, 37)
    paint_mouth(d, 611, Lips("#c9605c", "#dd7f78", "#a8443f", "#551a1d", shine=0.85, half_width=70, rise=6), SKIN)
    _hair_front(d, face)
    return d


def _waved(points: Sequence[Point], phase: float = 0.0) -> list[Point]:
    """Bends hair lines into soft waves below the temples."""

    def shift(x: float, y: float) -> float:
        weight = min(max((y - 330) / 220, 0), 1)
        return 11 * weight * math.sin((y - 330) / 44 + phase) * (1 if x > 512 else -1)

    return [(x + shift(x, y), y) for x, y in points]


def _hair_behind(d: Drawing) -> None:
    mass = smooth([(512, 120), (630, 132), (716, 206), (752, 330), (752, 470), (756, 600), (740, 700), (690, 742),
                   (600, 736), (512, 726), (424, 736), (334, 742), (284, 700), (268, 600), (272, 470), (272, 330),
                   (308, 206), (394, 132)])  # fmt: skip
    d.path(mass, d.linear((300, 150), (700, 760), [(0, "#3a1e18", 1), (1, "#1d0d0b", 1)]))
    for sign in (-1, 1):
        inner = [(512 + sign * x, y) for x, y in ((170, 420), (150, 560), (120, 660), (96, 744))]
        outer = [(512 + sign * x, y) for x, y in ((232, 420), (228, 560), (214, 670), (160, 756))]
        d.strands([_waved(inner), _waved(outer)], HAIR, 80, widths=(3, 8), opacity=(0.3, 0.7))


def _jumper(d: Drawing) -> None:
    collar = [(392, 806), (420, 858), (466, 890), (512, 898), (558, 890), (604, 858), (632, 806)]
    cloth = smooth(collar, closed=False) + (
        "C700 830 822 858 884 916C926 956 946 1000 952 1040L72 1040C78 1000 98 956 140 916C202 858 324 830 392 806Z"
    )
    d.path(cloth, d.linear((200, 820), (860, 1040), [(0, "#3fa79d", 1), (0.5, "#28857f", 1), (1, "#145a5c", 1)]))
    d.ellipse((270, 884), 130, 34, "#8ad8c9", blur=30, opacity=0.45, clip=cloth, turn=-18)
    d.ellipse((512, 1012), 220, 60, "#0d4447", blur=36, opacity=0.5, clip=cloth)
    folds = [[(318, 930), (346, 980), (354, 1040)], [(706, 920), (684, 980), (688, 1040)],
             [(176, 950), (206, 990), (214, 1040)], [(852, 940), (830, 990), (826, 1040)]]  # fmt: skip
    paint_folds(d, cloth, folds, "#0e484b", "#5fbcb0")
    paint_knit(d, cloth, collar, "#0e484b", "#7fd0c2", 26)
    paint_rim(d, [(664, 816), (790, 850), (884, 916), (940, 1010)], cloth, "#c9efe2", 5, 0.6)


# Guide curves of the large sweep, from the part to the tips: nearest the face first, outermost last.
SWEEP = [
    [(470, 216), (540, 250), (622, 300), (676, 370), (698, 450), (704, 560), (694, 650), (654, 730)],
    [(470, 190), (560, 216), (650, 276), (700, 360), (720, 460), (728, 570), (720, 660), (674, 746)],
    [(474, 146), (580, 158), (676, 236), (728, 350), (744, 460), (752, 580), (744, 670), (700, 752)],
    [(476, 104), (590, 102), (696, 174), (748, 310), (762, 450), (772, 580), (764, 680), (716, 750)],
]
TUCK = [
    [(468, 216), (430, 256), (378, 316), (340, 384), (326, 460), (320, 560), (330, 650), (368, 730)],
    [(468, 190), (410, 228), (352, 296), (314, 380), (302, 470), (296, 570), (304, 660), (350, 746)],
    [(472, 146), (386, 178), (320, 266), (288, 370), (278, 470), (270, 580), (280, 670), (324, 752)],
    [(476, 104), (372, 118), (300, 202), (268, 330), (258, 450), (250, 580), (260, 680), (308, 750)],
]


def _hair_front(d: Drawing, face: str) -> None:
    for guides, side in ((TUCK, -1), (SWEEP, 1)):
        guides = [_waved(guide) for guide in guides]
        inner, outer = resampled(guides[0], 24), resampled(guides[-1], 24)
        mass = between(inner, outer)
        d.path(smooth(moved(inner + outer[::-1], -9 * side, 13)), SKIN.deep, blur=12, opacity=0.5, clip=face)
        d.path(mass, d.linear((330, 110), (720, 780), [(0, "#5a2d20", 1), (0.4, "#45241a", 1), (1, "#2a1411", 1)]))
        _locks(d, guides)
        d.strands(guides, HAIR, 170, widths=(3, 8), opacity=(0.25, 0.6), length=(0.5, 1), jitter=5, clip=mass)
        d.strands(
            guides, SHINE, 70, widths=(1.5, 4.5), opacity=(0.2, 0.5), part=(0.14, 0.5), length=(0.4, 0.9), clip=mass
        )
        d.strands(
            guides, SHINE, 46, widths=(1, 3), opacity=(0.2, 0.45), part=(0.58, 0.94), length=(0.3, 0.8), clip=mass
        )
        d.strands(guides, ("#dcaa7e", "#c98f60"), 30, widths=(1, 2.2), opacity=(0.3, 0.6), part=(0.2, 0.42),
                  length=(0.5, 0.9), clip=mass)  # fmt: skip
        if side > 0:
            paint_rim(d, outer[5:22], mass, "#e9b58c", 4, 0.5)
    d.path(tapered([(346, 262), (392, 214), (440, 180)], (4, 36, 6)), "#d59c6e", blur=13, opacity=0.32)
    d.path(tapered([(560, 196), (650, 240), (706, 312)], (6, 42, 6)), "#c08357", blur=14, opacity=0.32)
    d.path(tapered([(476, 128), (471, 170), (469, 214)], (0.5, 2.4, 3.4)), "#1d0d0b", opacity=0.55, blur=0.8)
    flyaway = [[(500, 104), (600, 101), (700, 170), (752, 310)], [(450, 106), (372, 115), (298, 198), (266, 330)]]
    for guide in flyaway:
        d.strands([guide, moved(guide, 0, 6)], HAIR[2:], 12, widths=(0.8, 1.5), opacity=(0.3, 0.6), length=(0.3, 0.7))


def _locks(d: Drawing, guides: list[list[Point]]) -> None:
    """Broad tapering locks whose tips break up the hem."""
    rng = d.random
    for k in range(15):
        place = 0.08 + k / 14 * (len(guides) - 1.26)
        i, t = int(place), place - int(place)
        pair = zip(resampled(guides[i], 10), resampled(guides[i + 1], 10), strict=True)
        spine = [(a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t) for a, b in pair]
        tip = spine[-1]
        sign = 1 if tip[0] < 512 else -1
        spine[-1] = (tip[0] + sign * rng.uniform(8, 22), tip[1] + rng.uniform(-6, 5))
        tone = d.linear(spine[0], spine[-1], [(0, rng.choice(HAIR[2:]), 1), (0.55, rng.choice(HAIR[1:4]), 1),
                                              (1, rng.choice(HAIR[:3]), 1)])  # fmt: skip
        d.path(tapered(spine, (5, 16, 20, 22, 22, 18, 2), 13), tone, opacity=0.85)
