"""Ingrid: an older woman with short silver hair, pearl ear-rings and a plum cardigan."""

from __future__ import annotations

from bust import paint_backdrop, paint_ear, paint_folds, paint_neck, paint_rim
from drawing import Drawing, between, mirrored, moved, resampled, smooth, symmetric, tapered
from face import EyeLook, Lips, Skin, paint_brow, paint_cheeks, paint_eye, paint_face, paint_mouth, paint_nose

SKIN = Skin(light="#fde6da", base="#f3cbb9", shade="#d6a08c", deep="#8d4f45", blush="#e5837a", rim="#fff6ea")
OUTLINE = symmetric([(0, 212), (105, 226), (164, 284), (188, 360), (193, 440), (188, 520), (176, 586), (148, 648),
                     (102, 696), (52, 720), (0, 726)])  # fmt: skip
HAIR = ("#8f9299", "#a9acb3", "#c3c6cb", "#7a7d86")
SHINE = ("#eceef0", "#f8f9fa", "#d9dce0")


def draw() -> Drawing:
    d = Drawing("Ingrid", seed=5)
    paint_backdrop(d, "#eef1e4", "#c6d3bd", "#8fa58f", "#f3ead0")
    _hair_behind(d)
    paint_neck(d, SKIN, 82, OUTLINE)
    d.raised(58)
    _clothes(d)
    d.lowered()
    for is_right in (False, True):
        paint_ear(d, SKIN, (315 if not is_right else 709, 478), 0.92, is_right)
        _pearl(d, 313 if not is_right else 711, 534)
    face = paint_face(d, OUTLINE, SKIN)
    paint_cheeks(d, face, SKIN, 536, 0.46)
    look = EyeLook("#9fbccb", "#5f87a0", "#27404f", "#3a2a28", lash_width=6.0, lash_length=0.7, scale=0.99,
                   lid_fold=11, openness=0.9)  # fmt: skip
    paint_eye(d, (420, 446), look, SKIN, is_right=False)
    paint_eye(d, (604, 446), look, SKIN, is_right=True)
    _lines_of_age(d, face)
    brow = [(462, 398), (436, 387), (406, 381), (376, 386), (350, 402)]
    for is_right in (False, True):
        paint_brow(d, brow, (6, 13, 12, 8, 2.5), "#9a8d88", "#766963", is_right)
    paint_nose(d, SKIN, 446, 556, 39)
    lips = Lips("#b9585c", "#cf7a7b", "#9a4347", "#4f1b20", shine=0.6, half_width=71, rise=10, upper_height=15,
                lower_height=24)  # fmt: skip
    paint_mouth(d, 618, lips, SKIN)
    _hair_front(d, face)
    return d


def _lines_of_age(d: Drawing, face: str) -> None:
    """Kind wrinkles: crow's feet, smile lines, under the eyes, a hint on the forehead."""
    for is_right in (False, True):
        side = (lambda points: mirrored(points)) if is_right else (lambda points: points)
        feet = (
            [(366, 448), (354, 441), (342, 438)],
            [(366, 455), (354, 456), (341, 459)],
            [(370, 464), (358, 471), (347, 480)],
        )
        for foot in feet:
            d.path(tapered(side(foot), (1, 2.4, 0.4)), SKIN.deep, opacity=0.25, blur=1, clip=face)
        smile = side([(464, 552), (444, 574), (428, 602), (424, 626)])
        d.path(tapered(smile, (1.5, 4, 4, 1)), SKIN.deep, opacity=0.36, blur=2, clip=face)
        d.path(
            tapered(moved(smile, 9 if is_right else -9, -2), (3, 12, 12, 3)), SKIN.light, opacity=0.5, blur=5, clip=face
        )
        bag = side([(382, 474), (404, 487), (432, 488), (456, 478)])
        d.path(tapered(bag, (0.5, 2.4, 2.4, 0.5)), SKIN.deep, opacity=0.3, blur=1.4, clip=face)
        jowl = side([(410, 648), (406, 668), (412, 690)])
        d.path(tapered(jowl, (1, 6, 1)), SKIN.shade, opacity=0.6, blur=4, clip=face)
    for y, reach in ((318, 84), (343, 70)):
        brow_line = [
            (512 - reach, y + 5),
            (512 - reach / 2, y),
            (512, y + 2),
            (512 + reach / 2, y),
            (512 + reach, y + 5),
        ]
        d.path(tapered(brow_line, (0.5, 3, 1.6, 3, 0.5)), SKIN.shade, opacity=0.42, blur=2.2, clip=face)
        d.path(tapered(moved(brow_line, 0, 4), (0.5, 3, 1.6, 3, 0.5)), SKIN.light, opacity=0.4, blur=2.2, clip=face)


def _pearl(d: Drawing, x: float, y: float) -> None:
    d.ellipse((x, y), 12, 12, d.radial((x - 4, y - 5), 17, [(0, "#ffffff", 1), (0.5, "#efe6df", 1), (1, "#a9968f", 1)]))
    d.ellipse((x - 4, y - 5), 3, 2.5, "#ffffff", blur=0.7)


def _clothes(d: Drawing) -> None:
    blouse = smooth([(392, 800), (430, 850), (476, 900), (512, 950), (548, 900), (594, 850), (632, 800), (700, 850),
                     (640, 1060), (384, 1060), (324, 850)])  # fmt: skip
    d.path(blouse, d.linear((400, 800), (640, 1030), [(0, "#fffaf1", 1), (0.6, "#f1e6d8", 1), (1, "#cfbfae", 1)]))
    for sign in (-1, 1):
        flap = [
            (512 + sign * x, y)
            for x, y in ((124, 796), (150, 840), (128, 900), (66, 944), (0, 950), (44, 892), (88, 846))
        ]
        d.path(smooth(moved(flap, 2, 10)), "#a8917f", blur=7, opacity=0.5)
        d.path(smooth(flap), d.linear((420, 800), (600, 960), [(0, "#ffffff", 1), (1, "#e9dccc", 1)]))
    d.path(tapered([(512, 950), (513, 990), (512, 1030)], (2, 2.4, 2)), "#b8a593", opacity=0.8, blur=0.8)
    d.ellipse((520, 992), 6, 6, "#d9c8b6"), d.ellipse((519, 991), 3.4, 3.4, "#fffaf1", blur=0.8)
    for sign in (-1, 1):
        half = ((150, 812), (250, 832), (360, 868), (436, 936), (478, 1060), (86, 1060), (104, 990), (140, 910))
        wing = [(512 + sign * x, y) for x, y in half]
        cloth = smooth(wing)
        d.path(smooth(moved(wing, -sign * 6, 6)), "#7a6a60", blur=9, opacity=0.4, clip=blouse)
        ends = ((512 - 440, 840), (512 - 80, 1040)) if sign < 0 else ((512 + 80, 840), (512 + 460, 1040))
        tones = ("#9a5a86", "#7b3f6a") if sign < 0 else ("#7b3f6a", "#4f2446")
        d.path(cloth, d.linear(*ends, [(0, tones[0], 1), (1, tones[1], 1)]))
        if sign < 0:
            d.ellipse((190, 890), 100, 26, "#e2b3d2", blur=26, opacity=0.4, turn=-22, clip=cloth)
        else:
            paint_rim(d, [(740, 828), (870, 866), (946, 934), (984, 1030)], cloth, "#f0cfe4", 5, 0.6)
        edge = [(512 + sign * x, y) for x, y in ((146, 822), (128, 910), (98, 990), (84, 1050))]
        d.path(tapered(moved(edge, sign * 16, 0), (3, 3, 3, 3)), "#3f1b38", blur=2, opacity=0.5, clip=cloth)
        d.path(tapered(edge, (3, 4, 4, 3)), "#d59cc2", blur=1.6, opacity=0.6, clip=cloth)
        paint_folds(
            d,
            cloth,
            [[(512 + sign * 250, 900), (512 + sign * 226, 970), (512 + sign * 220, 1050)]],
            "#3f1b38",
            "#b9759f",
        )


def _hair_behind(d: Drawing) -> None:
    mass = smooth([(512, 120), (620, 124), (706, 176), (740, 270), (738, 380), (716, 440), (680, 500), (640, 560),
                   (384, 560), (344, 500), (308, 440), (286, 380), (284, 270), (318, 176), (404, 134)])  # fmt: skip
    d.path(mass, d.linear((300, 150), (720, 620), [(0, "#8f929a", 1), (1, "#4d5059", 1)]))


# Guide curves from the parting on the image's left over the forehead to the right, and down the left side; their
# tips go behind the ears.
SWEEP = [
    [(424, 217), (470, 249), (550, 260), (624, 284), (672, 328), (698, 384), (704, 424), (700, 452)],
    [(424, 186), (490, 206), (590, 218), (664, 260), (706, 326), (722, 396), (720, 440), (706, 472)],
    [(426, 154), (510, 148), (616, 166), (696, 226), (736, 316), (744, 404), (734, 462), (712, 500)],
    [(428, 112), (520, 86), (640, 104), (724, 178), (762, 290), (764, 396), (748, 474), (716, 524)],
]
TUCK = [
    [(424, 217), (398, 250), (366, 288), (342, 336), (328, 382), (320, 420), (320, 440), (324, 454)],
    [(424, 186), (380, 216), (338, 268), (314, 334), (302, 396), (302, 440), (308, 462), (318, 476)],
    [(426, 154), (360, 170), (308, 234), (284, 318), (278, 400), (286, 460), (298, 486), (312, 502)],
    [(428, 112), (350, 116), (286, 186), (258, 296), (258, 396), (272, 470), (288, 502), (308, 524)],
]


def _hair_front(d: Drawing, face: str) -> None:
    for guides, side in ((TUCK, -1), (SWEEP, 1)):
        inner, outer = resampled(guides[0], 24), resampled(guides[-1], 24)
        mass = between(inner, outer)
        d.path(smooth(moved(inner + outer[::-1], -7 * side, 13)), SKIN.deep, blur=11, opacity=0.4, clip=face)
        d.path(mass, d.linear((330, 110), (740, 600), [(0, "#d0d2d7", 1), (0.45, "#abaeb6", 1), (1, "#7b7e88", 1)]))
        _locks(d, guides)
        d.strands(guides, HAIR, 150, widths=(2, 6), opacity=(0.25, 0.6), length=(0.4, 0.9), jitter=7, clip=mass)
        d.strands(
            guides, SHINE, 120, widths=(1.5, 4.5), opacity=(0.3, 0.7), part=(0.08, 0.55), length=(0.4, 0.9), clip=mass
        )
        d.strands(guides, SHINE, 50, widths=(1, 3), opacity=(0.25, 0.6), part=(0.5, 0.98), length=(0.4, 0.9), clip=mass)
        d.strands(
            guides, ("#5d606a", "#6d7079"), 60, widths=(0.8, 2), opacity=(0.25, 0.5), length=(0.3, 0.8), clip=mass
        )
        if side > 0:
            paint_rim(d, outer[5:22], mass, "#ffffff", 4, 0.6)
    d.path(tapered([(300, 262), (350, 200), (410, 166)], (4, 40, 6)), "#ffffff", blur=15, opacity=0.35)
    d.path(tapered([(500, 172), (610, 196), (690, 264)], (6, 46, 6)), "#ffffff", blur=15, opacity=0.35)


def _locks(d: Drawing, guides) -> None:
    rng = d.random
    for k in range(13):
        place = 0.1 + k / 12 * (len(guides) - 1.3)
        i, t = int(place), place - int(place)
        pair = zip(resampled(guides[i], 10), resampled(guides[i + 1], 10), strict=True)
        spine = [(a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t) for a, b in pair]
        sign = 1 if spine[-1][0] > 512 else -1
        curl = rng.uniform(-12, 2)
        spine[-1] = (spine[-1][0] + sign * curl, spine[-1][1] + rng.uniform(-2, 10))
        tone = d.linear(spine[0], spine[-1], [(0, rng.choice(("#d5d7db", "#c3c6cb")), 1), (0.5, rng.choice(HAIR), 1),
                                              (1, rng.choice(("#b9bcc2", "#8f9299")), 1)])  # fmt: skip
        d.path(tapered(spine, (4, 14, 19, 21, 21, 18, 2), 13), tone, opacity=0.75)
