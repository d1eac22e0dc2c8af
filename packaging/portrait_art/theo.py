"""Theo: a man with short curls, a trimmed beard and a mustard jumper."""

from __future__ import annotations

import math

from bust import paint_backdrop, paint_ear, paint_folds, paint_knit, paint_neck, paint_rim
from drawing import Drawing, Point, mirrored, moved, smooth, symmetric, tapered
from face import EyeLook, Lips, Skin, paint_brow, paint_cheeks, paint_eye, paint_face, paint_mouth, paint_nose
from fur import paint_curls, paint_short_hair, rounded_polygon

SKIN = Skin(light="#c78f66", base="#a06a47", shade="#744529", deep="#3a1a10", blush="#a8492f", rim="#ffd2a0")
OUTLINE = symmetric([(0, 208), (108, 222), (166, 282), (186, 360), (190, 440), (186, 520), (176, 592), (152, 654),
                     (110, 704), (56, 732), (0, 738)])  # fmt: skip
HAIR = ("#120c0b", "#1b1210", "#241815")
HAIR_LIT = ("#5a4234", "#7a5b46", "#46332a")
MOUTH_Y = 626.0


def draw() -> Drawing:
    d = Drawing("Theo", seed=23)
    paint_backdrop(d, "#dfe9ec", "#a9c3cd", "#6b8c9e", "#cfe0dc")
    paint_neck(d, SKIN, 104, OUTLINE)
    d.raised(22)
    _jumper(d)
    d.lowered()
    for is_right in (False, True):
        paint_ear(d, SKIN, (317 if not is_right else 707, 470), 1.0, is_right)
    _sides(d)
    face = paint_face(d, OUTLINE, SKIN)
    paint_cheeks(d, face, SKIN, 530, 0.3)
    d.ellipse((462, 300), 74, 36, "#d9a27a", blur=26, opacity=0.6, clip=face)
    d.ellipse((394, 508), 40, 15, "#e0ab83", blur=12, opacity=0.5, clip=face, turn=-24)
    d.ellipse((626, 510), 28, 11, "#d9a27a", blur=11, opacity=0.3, clip=face, turn=24)
    _beard(d, face)
    look = EyeLook("#8a5a34", "#50301d", "#1d0f0a", "#140b09", lash_width=6.2, has_lashes=False, scale=1.0,
                   lid_fold=11, openness=0.92)  # fmt: skip
    paint_eye(d, (420, 444), look, SKIN, is_right=False)
    paint_eye(d, (604, 444), look, SKIN, is_right=True)
    brow = [(468, 398), (440, 386), (408, 380), (374, 385), (346, 402)]
    for is_right in (False, True):
        paint_brow(d, brow, (7, 17, 19, 14, 4), "#1e1311", "#120b0a", is_right, count=110)
    paint_nose(d, SKIN, 444, 560, 48, contrast=0.95)
    lips = Lips("#8a4a3c", "#a9604e", "#6d3529", "#2a0f0c", shine=0.5, half_width=72, rise=9, upper_height=17,
                lower_height=27)  # fmt: skip
    paint_mouth(d, MOUTH_Y, lips, SKIN)
    _hair(d, face)
    paint_rim(d, [(699, 380), (703, 440), (698, 520), (688, 592), (664, 654), (622, 704)], face, SKIN.rim, 4, 0.4)
    return d


def _jumper(d: Drawing) -> None:
    collar = [(372, 800), (404, 852), (456, 884), (512, 892), (568, 884), (620, 852), (652, 800)]
    cloth = smooth(collar, closed=False) + (
        "C742 826 868 850 936 906C982 950 1000 1000 1006 1040L18 1040C24 1000 42 950 88 906C156 850 282 826 372 800Z"
    )
    d.path(cloth, d.linear((180, 820), (880, 1040), [(0, "#eab54c", 1), (0.5, "#d0922c", 1), (1, "#96611a", 1)]))
    d.ellipse((250, 880), 140, 34, "#ffdf94", blur=30, opacity=0.5, clip=cloth, turn=-16)
    d.ellipse((512, 1016), 240, 60, "#7c4d12", blur=36, opacity=0.42, clip=cloth)
    folds = [[(300, 930), (330, 980), (338, 1040)], [(724, 920), (700, 980), (704, 1040)],
             [(150, 950), (184, 990), (194, 1040)], [(880, 940), (856, 990), (850, 1040)]]  # fmt: skip
    paint_folds(d, cloth, folds, "#8a5716", "#f6cd74")
    paint_knit(d, cloth, collar, "#8a5716", "#ffdf94", 28)
    paint_rim(d, [(690, 812), (830, 840), (936, 906), (994, 1010)], cloth, "#fff0cc", 5, 0.6)


def _sides(d: Drawing) -> None:
    """The clipped sides behind the temples, fading towards the ears."""
    for is_right in (False, True):
        side = [(330, 250), (318, 330), (320, 400), (328, 452), (360, 452), (380, 300)]
        side = mirrored(side) if is_right else side
        d.path(smooth(side), HAIR[1])


def _hair(d: Drawing, face: str) -> None:
    top = [(330, 372), (316, 330), (318, 262), (344, 190), (398, 138), (470, 114), (552, 114), (626, 138), (680, 190),
           (706, 262), (708, 330), (694, 372)]  # fmt: skip
    line = [(676, 318), (656, 268), (616, 246), (562, 238), (512, 240), (462, 238), (408, 246), (368, 268), (348, 318)]
    mass = rounded_polygon(top + line)
    d.path(smooth(moved(top + line, 0, 13)), SKIN.deep, blur=11, opacity=0.6, clip=face)
    d.path(
        smooth(top + line),
        d.radial((420, 150), 380, [(0, "#33241e", 1), (0.6, "#1d1412", 1), (1, "#120c0b", 1)]),
        blur=1.2,
    )
    for is_right in (False, True):
        burn = [(322, 330), (318, 400), (322, 470), (332, 500), (341, 460), (345, 400), (348, 350), (358, 304)]
        burn = mirrored(burn) if is_right else burn
        d.path(smooth(burn), HAIR[1], blur=4, opacity=0.8, clip=face)
        fade = rounded_polygon(burn)
        paint_short_hair(d, fade, [], 130, _beard_direction, HAIR, length=(6, 11), width=2.6, clip=face)
    outside = rounded_polygon([(x + (x - 512) * 0.004, y) for x, y in top] + line)
    paint_curls(d, outside, 1000, HAIR, radius=(3, 6), width=3.2)
    paint_curls(d, mass, 620, HAIR, radius=(3.5, 7), width=2.4, lights=HAIR_LIT, light_from=(420, 130))
    fringe = [(680, 322), (658, 266), (616, 244), (562, 236), (512, 238), (462, 236), (408, 244), (366, 266),
              (344, 322), (352, 324), (372, 278), (412, 256), (464, 248), (512, 250), (560, 248), (612, 256),
              (652, 278), (672, 324)]  # fmt: skip
    edge = rounded_polygon(fringe)
    paint_curls(d, edge, 170, HAIR, radius=(2, 4.5), width=1.8, opacity=(0.35, 0.8))
    paint_rim(d, [(626, 138), (680, 190), (706, 262), (708, 330)], smooth(top + line), "#d9b58f", 5, 0.5)


def _beard_direction(x: float, y: float) -> Point:
    """Growth: down the cheeks, outwards and down on the chin, sideways on the moustache."""
    across = (x - 512) / 190
    if y < MOUTH_Y - 6 and abs(across) < 0.55:
        angle = math.copysign(0.72, across) if abs(across) > 0.05 else 0.3 * across
        return math.sin(angle), math.cos(angle)
    angle = -0.35 * across if y > 640 else 0.12 * across
    return math.sin(angle), math.cos(angle)


def _beard(d: Drawing, face: str) -> None:
    half = [(0, 578), (34, 574), (66, 592), (92, 614), (124, 604), (150, 566), (166, 510), (172, 450), (194, 446),
            (192, 520), (181, 596), (157, 660), (114, 711), (58, 740), (0, 746)]  # fmt: skip
    region = rounded_polygon(symmetric(half))
    lips = [(436, MOUTH_Y - 6), (470, MOUTH_Y - 18), (498, MOUTH_Y - 23), (512, MOUTH_Y - 19), (526, MOUTH_Y - 23),
            (554, MOUTH_Y - 18), (588, MOUTH_Y - 6), (562, MOUTH_Y + 18), (530, MOUTH_Y + 33), (494, MOUTH_Y + 33),
            (462, MOUTH_Y + 18)]  # fmt: skip
    hole = rounded_polygon(lips)
    soft = [(0, 588), (34, 584), (62, 600), (92, 624), (126, 616), (154, 580), (172, 510), (180, 450), (230, 446),
            (230, 600), (160, 740), (60, 780), (0, 780)]  # fmt: skip
    outer = smooth(symmetric(soft)) + smooth(lips)
    d.path(outer, HAIR[1], blur=7, opacity=0.72, clip=face, rule="evenodd")
    trim = smooth([(512 + (x - 512) * 1.012, y + (4 if y > 640 else 0)) for x, y in OUTLINE])
    patches = [[(478, 650), (512, 646), (546, 650), (534, 690), (512, 700), (490, 690)]]
    for patch in patches:
        d.path(smooth(patch), HAIR[0], blur=7, opacity=0.35, clip=face)
    cheek = [
        rounded_polygon([(440, 640), (470, 668), (478, 690), (440, 670)]),
        rounded_polygon(mirrored([(440, 640), (470, 668), (478, 690), (440, 670)])),
    ]
    paint_short_hair(
        d, region, [hole], 2100, _beard_direction, HAIR, length=(6, 11), width=3.0, opacity=(0.35, 0.8), clip=trim
    )
    paint_short_hair(
        d,
        region,
        [hole, *cheek],
        420,
        _beard_direction,
        HAIR_LIT,
        length=(6, 11),
        width=2.2,
        opacity=(0.3, 0.6),
        clip=trim,
    )
    d.path(tapered([(380, 640), (420, 700), (480, 734)], (2, 22, 4)), "#7a5a44", blur=12, opacity=0.28, clip=face)
