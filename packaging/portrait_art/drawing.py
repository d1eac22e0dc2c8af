"""A small SVG writer for painted portraits: smooth curves, tapered strokes, blurred shading, hair strands."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
from collections.abc import Iterable, Sequence

Point = tuple[float, float]
Stop = tuple[float, str, float]  # offset 0..1, colour, opacity
SIZE_PX = 1024
# The figures are drawn a little small; they are enlarged about this point.
ZOOM, ZOOM_CENTRE = 1.1, (512.0, 552.0)


def mirrored(points: Iterable[Point], axis_x: float = 512.0) -> list[Point]:
    return [(2 * axis_x - x, y) for x, y in points]


def symmetric(half: Sequence[Point], axis_x: float = 512.0) -> list[Point]:
    """A closed outline from its right half, top to bottom; x counts from the axis."""
    right = [(axis_x + x, y) for x, y in half]
    inner = right[1:-1] if half[0][0] == 0 and half[-1][0] == 0 else right
    return right + mirrored(reversed(inner), axis_x)


def moved(points: Iterable[Point], dx: float, dy: float) -> list[Point]:
    return [(x + dx, y + dy) for x, y in points]


def placed(points: Iterable[Point], centre: Point, scale: float = 1.0, flip: bool = False) -> list[Point]:
    sign = -1.0 if flip else 1.0
    return [(centre[0] + sign * scale * x, centre[1] + scale * y) for x, y in points]


def resampled(points: Sequence[Point], count: int) -> list[Point]:
    """`count` points evenly spaced along the smooth (Catmull-Rom) curve through `points`."""
    dense: list[Point] = []
    for i in range(len(points) - 1):
        p0, p1, p2, p3 = (points[min(max(i + k, 0), len(points) - 1)] for k in (-1, 0, 1, 2))
        for step in range(12):
            dense.append(_catmull(p0, p1, p2, p3, step / 12))
    dense.append(points[-1])
    lengths = [0.0]
    for a, b in itertools.pairwise(dense):
        lengths.append(lengths[-1] + math.dist(a, b))
    out, j = [], 0
    for k in range(count):
        target = lengths[-1] * k / (count - 1)
        while j < len(dense) - 2 and lengths[j + 1] < target:
            j += 1
        span = max(lengths[j + 1] - lengths[j], 1e-9)
        t = (target - lengths[j]) / span
        a, b = dense[j], dense[j + 1]
        out.append((a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t))
    return out


def _catmull(p0: Point, p1: Point, p2: Point, p3: Point, t: float) -> Point:
    def one(a: float, b: float, c: float, d: float) -> float:
        return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t * t + (3 * b - a - 3 * c + d) * t**3)

    return one(p0[0], p1[0], p2[0], p3[0]), one(p0[1], p1[1], p2[1], p3[1])


def smooth(points: Sequence[Point], closed: bool = True) -> str:
    """Path data of the smooth curve through `points` (Catmull-Rom as cubic Beziers)."""
    n = len(points)

    def at(i: int) -> Point:
        return points[i % n] if closed else points[min(max(i, 0), n - 1)]

    parts = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for i in range(n if closed else n - 1):
        p0, p1, p2, p3 = at(i - 1), at(i), at(i + 1), at(i + 2)
        c1 = (p1[0] + (p2[0] - p0[0]) / 6, p1[1] + (p2[1] - p0[1]) / 6)
        c2 = (p2[0] - (p3[0] - p1[0]) / 6, p2[1] - (p3[1] - p1[1]) / 6)
        parts.append(f"C{c1[0]:.1f} {c1[1]:.1f} {c2[0]:.1f} {c2[1]:.1f} {p2[0]:.1f} {p2[1]:.1f}")
    return "".join(parts) + ("Z" if closed else "")


def between(upper: Sequence[Point], lower: Sequence[Point]) -> str:
    """A shape bounded by two open smooth curves that run the same way; corners stay sharp."""
    back = smooth(list(reversed(lower)), closed=False)
    return smooth(upper, closed=False) + "L" + back[1:] + "Z"


def tapered(points: Sequence[Point], widths: Sequence[float], count: int = 9) -> str:
    """A brush stroke along `points` whose width follows `widths` (evenly spread along it)."""
    spine = resampled(points, count)
    left, right = [], []
    for k, (x, y) in enumerate(spine):
        ax, ay = spine[max(k - 1, 0)]
        bx, by = spine[min(k + 1, count - 1)]
        length = max(math.hypot(bx - ax, by - ay), 1e-6)
        nx, ny = (ay - by) / length, (bx - ax) / length
        half = sampled(widths, k / (count - 1)) / 2
        left.append((x + nx * half, y + ny * half))
        right.append((x - nx * half, y - ny * half))
    return between(left, right)


def sampled(values: Sequence[float], t: float) -> float:
    """`values`, evenly spread over 0..1, at `t`."""
    place = t * (len(values) - 1)
    i = min(int(place), len(values) - 2)
    return values[i] + (values[i + 1] - values[i]) * (place - i)


class Drawing:
    """Collects elements of the layers `background` and `figure`, bottom to top."""

    def __init__(self, title: str, seed: int) -> None:
        self.title = title
        self.random = random.Random(seed)
        self._defs: list[str] = []
        self._known: dict[str, str] = {}
        self._layers: dict[str, list[str]] = {"background": [], "figure": []}
        self.layer = "figure"
        self.contours: dict[str, list[Point]] = {}
        """Where lips and lids are, exactly: kept in the SVG's metadata for the face geometry."""

    def note(self, name: str, curve: Sequence[Point]) -> None:
        """Keeps an open curve, given as its control points, as a contour that runs from left to right."""
        points = [
            (ZOOM_CENTRE[0] + ZOOM * (x - ZOOM_CENTRE[0]), ZOOM_CENTRE[1] + ZOOM * (y - ZOOM_CENTRE[1]))
            for x, y in resampled(curve, 65)
        ]
        self.contours[name] = points if points[0][0] < points[-1][0] else points[::-1]

    def _define(self, body: str) -> str:
        """Adds a definition once; `body` has {id} where its id belongs."""
        if body not in self._known:
            self._known[body] = f"d{len(self._known)}"
            self._defs.append(body.replace("{id}", self._known[body]))
        return f"url(#{self._known[body]})"

    def blur(self, sigma: float, data: str, width: float) -> str:
        """A Gaussian blur whose region just holds the path: small regions render many times faster."""
        numbers = [float(number) for number in re.findall(r"-?[0-9.]+", data)]
        reach = 3.2 * sigma + width / 2 + 2
        x0, x1 = min(numbers[0::2]) - reach, max(numbers[0::2]) + reach
        y0, y1 = min(numbers[1::2]) - reach, max(numbers[1::2]) + reach
        return self._define(
            f'<filter id="{{id}}" filterUnits="userSpaceOnUse" x="{x0:.0f}" y="{y0:.0f}" width="{x1 - x0:.0f}"'
            f' height="{y1 - y0:.0f}" color-interpolation-filters="sRGB">'
            f'<feGaussianBlur stdDeviation="{sigma:g}"/></filter>'
        )

    def clip(self, data: str) -> str:
        return self._define(f'<clipPath id="{{id}}"><path d="{data}"/></clipPath>')

    def linear(self, start: Point, end: Point, stops: Sequence[Stop]) -> str:
        return self._define(
            f'<linearGradient id="{{id}}" gradientUnits="userSpaceOnUse" x1="{start[0]:g}" y1="{start[1]:g}"'
            f' x2="{end[0]:g}" y2="{end[1]:g}">{_stops(stops)}</linearGradient>'
        )

    def radial(self, centre: Point, radius: float, stops: Sequence[Stop]) -> str:
        return self._define(
            f'<radialGradient id="{{id}}" gradientUnits="userSpaceOnUse" cx="{centre[0]:g}" cy="{centre[1]:g}"'
            f' r="{radius:g}">{_stops(stops)}</radialGradient>'
        )

    def path(
        self, data: str, fill: str = "none", *, opacity: float = 1.0, blur: float = 0.0, clip: str = "",
        stroke: str = "", width: float = 0.0, rule: str = "",
    ) -> None:  # fmt: skip
        bits = [f'd="{data}" fill="{fill}"']
        if stroke:
            bits.append(f'stroke="{stroke}" stroke-width="{width:.2g}" stroke-linecap="round"')
        if opacity < 1.0:
            bits.append(f'opacity="{opacity:.2g}"')
        if blur:
            bits.append(f'filter="{self.blur(blur, data, width)}"')
        if rule:
            bits.append(f'fill-rule="{rule}"')
        element = f"<path {' '.join(bits)}/>"
        # The clip goes on a group around the element so that a blurred edge is cut after the blur.
        if clip:
            element = f'<g clip-path="{self.clip(clip)}">{element}</g>'
        self._layers[self.layer].append(element)

    def ellipse(self, centre: Point, rx: float, ry: float, fill: str, *, turn: float = 0.0, **options) -> None:
        """`turn` in degrees, clockwise."""
        cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        points = []
        for k in range(12):
            x, y = rx * math.cos(k * math.pi / 6), ry * math.sin(k * math.pi / 6)
            points.append((centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos))
        self.path(smooth(points), fill, **options)

    def strands(
        self, guides: Sequence[Sequence[Point]], colours: Sequence[str], count: int, *, widths=(1.0, 3.0),
        opacity=(0.25, 0.7), part=(0.0, 1.0), length=(0.6, 1.0), jitter: float = 6.0, clip: str = "",
    ) -> None:  # fmt: skip
        """Hair: strokes between neighbouring guide curves. `part` limits where along the guides they lie."""
        rng = self.random
        curves = [resampled(guide, 16) for guide in guides]
        marks = []
        for _ in range(count):
            place = rng.uniform(0, len(curves) - 1.001)
            i, t = int(place), place - int(place)
            span = (part[1] - part[0]) * rng.uniform(*length)
            begin = rng.uniform(part[0], part[1] - span)
            bend = (rng.gauss(0, jitter), rng.gauss(0, jitter))
            spine = []
            for k in range(6):
                s = begin + span * k / 5
                ax, ay = _along(curves[i], s)
                bx, by = _along(curves[i + 1], s)
                lift = math.sin(math.pi * k / 5)
                spine.append((ax + (bx - ax) * t + bend[0] * lift, ay + (by - ay) * t + bend[1] * lift))
            w = rng.uniform(*widths)
            data = tapered(spine, (0.3, w, w, 0.2), 7)
            marks.append(f'<path d="{data}" fill="{rng.choice(colours)}" opacity="{rng.uniform(*opacity):.2f}"/>')
        self.group(marks, clip)

    def raised(self, dy: float) -> None:
        """What follows is drawn `dy` px higher, until `lowered`."""
        self._layers[self.layer].append(f'<g transform="translate(0 {-dy:g})">')

    def lowered(self) -> None:
        self._layers[self.layer].append("</g>")

    def group(self, marks: Sequence[str], clip: str = "") -> None:
        """Adds ready elements as one group."""
        attribute = f' clip-path="{self.clip(clip)}"' if clip else ""
        self._layers[self.layer].append(f"<g{attribute}>{''.join(marks)}</g>")

    def _contours_json(self) -> str:
        rounded = {name: [[round(x, 2), round(y, 2)] for x, y in points] for name, points in self.contours.items()}
        return json.dumps(rounded, separators=(",", ":"))

    def svg(self) -> str:
        x, y = (centre * (1 - ZOOM) for centre in ZOOM_CENTRE)
        zoom = {"figure": f' transform="translate({x:.4g} {y:.4g}) scale({ZOOM})"'}
        layers = "\n".join(
            f'<g id="{name}"{zoom.get(name, "")}>\n' + "\n".join(items) + "\n</g>"
            for name, items in self._layers.items()
        )
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE_PX} {SIZE_PX}" width="{SIZE_PX}"'
            f' height="{SIZE_PX}">\n<title>{self.title}</title>\n<metadata>{self._contours_json()}</metadata>'
        )
        definitions = "\n".join(self._defs)
        return f"{head}\n<defs>\n{definitions}\n</defs>\n{layers}\n</svg>\n"


def _along(curve: Sequence[Point], s: float) -> Point:
    place = min(max(s, 0.0), 1.0) * (len(curve) - 1)
    i = min(int(place), len(curve) - 2)
    t = place - i
    return curve[i][0] + (curve[i + 1][0] - curve[i][0]) * t, curve[i][1] + (curve[i + 1][1] - curve[i][1]) * t


def _stops(stops: Sequence[Stop]) -> str:
    return "".join(
        f'<stop offset="{offset:g}" stop-color="{colour}"'
        + (f' stop-opacity="{opacity:g}"' if opacity < 1 else "") + "/>"
        for offset, colour, opacity in stops
    )  # fmt: skip
