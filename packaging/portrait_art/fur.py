"""Short hair as many small strokes inside a region: beards, stubble, tight curls."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from drawing import Drawing, Point, resampled


def is_inside(point: Point, polygon: Sequence[Point]) -> bool:
    """Even-odd rule."""
    x, y = point
    inside = False
    for (ax, ay), (bx, by) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if (ay > y) != (by > y) and x < ax + (y - ay) * (bx - ax) / (by - ay):
            inside = not inside
    return inside


def rounded_polygon(points: Sequence[Point]) -> list[Point]:
    """The smooth closed outline through `points` as a fine polygon."""
    return resampled([*points, points[0]], 8 * len(points))


def _sliver(start: Point, mid: Point, end: Point, width: float) -> str:
    """A thin curved sliver; `mid` is the control point of its two quadratic curves, `width` apart there."""
    length = max(math.dist(start, end), 1e-6)
    nx, ny = (start[1] - end[1]) / length * width / 2, (end[0] - start[0]) / length * width / 2
    return (
        f"M{start[0]:.1f} {start[1]:.1f}Q{mid[0] + nx:.1f} {mid[1] + ny:.1f} {end[0]:.1f} {end[1]:.1f}"
        f"Q{mid[0] - nx:.1f} {mid[1] - ny:.1f} {start[0]:.1f} {start[1]:.1f}Z"
    )


def paint_short_hair(
    d: Drawing, region: Sequence[Point], holes: Sequence[Sequence[Point]], count: int,
    direction: Callable[[float, float], Point], colours: Sequence[str], *, length=(8, 16), width: float = 3.0,
    opacity=(0.35, 0.85), curl: float = 1.5, clip: str = "",
) -> None:  # fmt: skip
    """`count` strokes that start inside `region` but in none of `holes`; `direction` gives a unit vector."""
    rng = d.random
    xs, ys = [x for x, _ in region], [y for _, y in region]
    marks = []
    while len(marks) < count:
        start = (rng.uniform(min(xs), max(xs)), rng.uniform(min(ys), max(ys)))
        if not is_inside(start, region) or any(is_inside(start, hole) for hole in holes):
            continue
        dx, dy = direction(*start)
        turn, reach = rng.gauss(0, 0.28), rng.uniform(*length)
        dx, dy = dx * math.cos(turn) - dy * math.sin(turn), dx * math.sin(turn) + dy * math.cos(turn)
        bend = rng.gauss(0, curl)
        mid = (start[0] + dx * reach / 2 - dy * bend, start[1] + dy * reach / 2 + dx * bend)
        end = (start[0] + dx * reach, start[1] + dy * reach)
        if any(is_inside(end, hole) for hole in holes):
            continue
        data = _sliver(start, mid, end, width)
        marks.append(f'<path d="{data}" fill="{rng.choice(colours)}" opacity="{rng.uniform(*opacity):.2f}"/>')
    d.group(marks, clip)


def paint_curls(
    d: Drawing, region: Sequence[Point], count: int, colours: Sequence[str], *, radius=(4, 8), width: float = 3.0,
    opacity=(0.4, 0.9), light_from: Point = (360, 100), lights: Sequence[str] = (),
) -> None:  # fmt: skip
    """Tight curls: little arcs; those nearer to `light_from` take their colour from `lights` more often."""
    rng = d.random
    xs, ys = [x for x, _ in region], [y for _, y in region]
    marks = []
    while len(marks) < count:
        x, y = rng.uniform(min(xs), max(xs)), rng.uniform(min(ys), max(ys))
        if not is_inside((x, y), region):
            continue
        r, a0 = rng.uniform(*radius), rng.uniform(0, 6.28)
        ends = [(x + r * math.cos(a0 + k * 1.4), y + 0.8 * r * math.sin(a0 + k * 1.4)) for k in (0, 2)]
        mid = (x + 2 * r * math.cos(a0 + 1.4), y + 1.6 * r * math.sin(a0 + 1.4))
        near = max(0.0, 1 - math.hypot(x - light_from[0], y - light_from[1]) / 330)
        is_lit = lights and rng.random() < 0.65 * near
        colour = rng.choice(lights if is_lit else colours)
        data = _sliver(ends[0], mid, ends[1], 1.5 * width)
        marks.append(f'<path d="{data}" fill="{colour}" opacity="{rng.uniform(*opacity):.2f}"/>')
    d.group(marks)
