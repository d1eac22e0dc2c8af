"""One portrait and one expression to one frame: a two-sheet inverse warp, mouth and lids, over a still background.

The upper sheet (head, upper lip) and the lower sheet (lower lip, chin) are warped by themselves and joined along the
mouth's seam by a signed distance that travels with each: closed lips meet without a gap, and where the sheets part the
inner mouth shows. Every pixel is read from the portrait once, so the picture stays sharp.
"""

from __future__ import annotations

import cv2
import numpy as np

from engine.generators.puppet.background import cut_out_alpha, filled_background
from engine.generators.puppet.bases import BASES, FacePoints, displacement_bases, hold_glasses_still
from engine.generators.puppet.expression import Expression
from engine.generators.puppet.eyelids import Eyelid
from engine.generators.puppet.geometry import FaceGeometry
from engine.generators.puppet.glasses import find_glasses
from engine.generators.puppet.inner_mouth import InnerMouth
from engine.generators.puppet.inside_picture import InsideMemory
from engine.generators.puppet.lattice import Lattice, PixelMap, smoothstep
from engine.generators.puppet.pose import POSES, pose_fields

_INVERSIONS = 4
_REACH_IOD = 0.22
"""How far anything moves at most: regions are widened by this."""

_PARTED_PX = 0.2
"""Where the sheets differ by less than this at most, one is as good as the other."""

_SEAM_SOFT_IOD = 0.10
_VISIBLE_HOLE = 0.02
_ROUND_TONGUE = 0.4
"""How clearly the tongue shows within rounded lips."""

_AO_BOXES_IOD = (0.055, 0.045)


class PuppetRenderer:
    """Built once per portrait and size (about a second, any thread); `render` is the hot path of one thread.

    `image_rgb` uint8 (h, w, 3) and `geometry` may be larger than `size` (width, height). With a `person_mask` (uint8 or
    float32 0..1) the figure moves before a still background; without, the movement fades out around the head. Equal
    inputs give equal bits.
    """

    def __init__(
        self,
        image_rgb: np.ndarray,
        geometry: FaceGeometry,
        *,
        size: tuple[int, int],
        person_mask: np.ndarray | None = None,
    ) -> None:
        glasses = find_glasses(image_rgb, geometry)
        if (image_rgb.shape[1], image_rgb.shape[0]) != size:
            shrinks = size[0] < image_rgb.shape[1]
            image_rgb = cv2.resize(image_rgb, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        geometry = geometry.scaled(size)
        self.size = size
        self._iod_px = geometry.face_frame().iod_px
        self._lattice = Lattice(size)
        cut_out = None if person_mask is None else cut_out_alpha(person_mask, geometry, size)
        alpha, figure = cut_out if cut_out is not None else (None, None)
        background = None if figure is None else filled_background(image_rgb, figure, self._iod_px)
        self._source = np.dstack([image_rgb, np.full(image_rgb.shape[:2], 255, np.uint8) if alpha is None else alpha])
        upper, lower = displacement_bases(geometry, self._lattice)
        if glasses is not None:
            hold_glasses_still(glasses, geometry, self._lattice, (upper, lower))
        pose = pose_fields(geometry, self._lattice, is_cut_out=alpha is not None)
        self._warp = _Warp(self._lattice, upper, lower, pose)
        self._prepare_regions(geometry, upper, lower, pose, alpha)
        self._background = background
        self._behind = None if background is None else np.ascontiguousarray(background[self._figure.window])
        self._prepare_mouth(image_rgb, geometry)
        openings = (None, None) if glasses is None else glasses.openings
        self._eyes = [
            _EyeRegion(Eyelid(geometry, side, size, opening), self._source, self._figure, self._reach_px)
            for side, opening in enumerate(openings)
        ]
        self._hole_px = 0.0

    def render(self, expression: Expression, out: np.ndarray) -> None:
        """Write RGB uint8 (height, width, 3) into `out`."""
        upper, lower, head = self._warp.update(expression)
        source_map = self._figure.update(upper)
        cv2.remap(self._source, source_map, None, cv2.INTER_LINEAR, dst=self._frame, borderMode=cv2.BORDER_REPLICATE)
        if expression.blink > 0.01:
            for eye in self._eyes:
                eye.draw(self._source, source_map, self._frame, min(1.0, expression.blink))
        self._draw_mouth(expression, lower, head, source_map)
        self._compose(out)

    def mouth_hole_area(self) -> float:
        """The opening between the lips in the last frame, iod squared."""
        return self._hole_px / self._iod_px**2

    # ----------------------------------------------------------------------------------------------- preparation

    def _prepare_regions(self, geometry, upper, lower, pose, alpha) -> None:
        self._reach_px = _REACH_IOD * self._iod_px
        if alpha is None:
            moved = np.abs(upper).max(axis=(0, 3)) + np.abs(lower).max(axis=(0, 3)) + np.abs(pose).max(axis=(0, 3))
            figure = _box(moved > 1e-3, self._lattice.stride, 0)
        else:
            figure = _box(alpha > 0, 1, self._reach_px)
        self._figure = PixelMap(self._lattice, figure)
        # Above the seam the upper sheet covers whatever the lower one does.
        frame = geometry.face_frame()
        seam_top = float(frame.to_face(geometry.seam_upper)[:, 1].min())
        is_below = frame.to_face(self._lattice.points)[..., 1] > seam_top - 0.12
        parted = (np.abs(upper - lower).max(axis=(0, 3)) > _PARTED_PX) & is_below
        mouth = _box(parted, self._lattice.stride, 0.5 * self._reach_px)
        window = self._figure
        mouth = (max(mouth[0], window.x0), max(mouth[1], window.y0), min(mouth[2], window.x1), min(mouth[3], window.y1))
        self._mouth = PixelMap(self._lattice, mouth)
        self._mouth_head = PixelMap(self._lattice, mouth)
        self._frame = np.empty((window.y1 - window.y0, window.x1 - window.x0, 4), np.uint8)
        shape = self._frame.shape[:2]
        self._rgb, self._composed = np.empty((*shape, 3), np.uint8), np.empty((*shape, 3), np.uint8)
        self._alpha = np.empty(shape, np.uint8)
        self._weight, self._rest = np.empty(shape, np.float32), np.empty(shape, np.float32)
        rows, columns = self._mouth.window
        self._mouth_inside = (
            slice(rows.start - window.y0, rows.stop - window.y0),
            slice(columns.start - window.x0, columns.stop - window.x0),
        )

    def _prepare_mouth(self, image: np.ndarray, geometry: FaceGeometry) -> None:
        face, frame = FacePoints.of(geometry), geometry.face_frame()
        rows, columns = self._mouth.window
        grid = np.stack(np.meshgrid(np.arange(columns.start, columns.stop), np.arange(rows.start, rows.stop)), axis=-1)
        points = frame.to_face(grid)
        x, iod = points[..., 0], self._iod_px
        middle = (face.corner_x[0] + face.corner_x[1]) / 2
        half = (face.corner_x[1] - face.corner_x[0]) / 2
        soft = 1.0 + _SEAM_SOFT_IOD * iod * smoothstep(np.abs(x - middle) / half, 0.97, 1.35)
        signed = [(points[..., 1] - face.seam_at(x, seam)) * iod / soft for seam in (face.seam_upper, face.seam_lower)]
        self._seam_upper, self._seam_lower = (np.clip(s, -8, 8).astype(np.float32) for s in signed)
        self._inner = InnerMouth(image, geometry, self._mouth.window)
        shape = self._mouth.map.shape[:2]
        self._lower_sheet, self._joined = np.empty((*shape, 4), np.uint8), np.empty((*shape, 4), np.uint8)
        self._local = np.empty((*shape, 2), np.float32)
        self._cover_upper, self._cover_lower = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self._show_upper, self._show_lower = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self._hole = np.empty(shape, np.float32)
        self._inside = InsideMemory(shape)

    # -------------------------------------------------------------------------------------------------- hot path

    def _draw_mouth(self, expression: Expression, lower: np.ndarray, head: np.ndarray, source_map: np.ndarray) -> None:
        origin = (float(self._mouth.x0), float(self._mouth.y0), 0.0, 0.0)
        upper_map = source_map[self._mouth_inside]
        lower_map = self._mouth.update(lower)
        cv2.subtract(upper_map, origin, dst=self._local)
        self._cover(self._seam_upper, self._cover_upper, sign=-1.0)
        cv2.subtract(lower_map, origin, dst=self._local)
        self._cover(self._seam_lower, self._cover_lower, sign=1.0)
        cv2.subtract(1.0, self._cover_upper, dst=self._show_upper)
        cv2.subtract(1.0, self._cover_lower, dst=self._show_lower)
        cv2.multiply(self._show_upper, self._show_lower, dst=self._hole)
        self._hole_px = float(cv2.sumElems(self._hole)[0])
        sheet = cv2.remap(
            self._source, lower_map, None, cv2.INTER_LINEAR, dst=self._lower_sheet, borderMode=cv2.BORDER_REPLICATE
        )
        if self._hole_px > 0.5:
            self._draw_inside(expression, head, sheet)
        region = self._frame[self._mouth_inside]
        region[:] = cv2.blendLinear(region, sheet, self._cover_upper, self._show_upper, dst=self._joined)

    def _cover(self, seam: np.ndarray, out: np.ndarray, *, sign: float) -> None:
        """How much a sheet covers: 1 on its own side of the seam, falling off over one (softened) pixel."""
        cv2.remap(seam, self._local, None, cv2.INTER_LINEAR, dst=out, borderMode=cv2.BORDER_REPLICATE)
        out *= sign
        out += 1.0
        np.clip(out, 0.0, 1.0, out=out)

    def _draw_inside(self, expression: Expression, head: np.ndarray, sheet: np.ndarray) -> None:
        visible = cv2.compare(self._hole, _VISIBLE_HOLE, cv2.CMP_GT)
        x, y, width, height = cv2.boundingRect(visible)
        if width == 0:
            return
        margin = int(0.12 * self._iod_px)
        box = (slice(max(0, y - margin), y + height + margin), slice(max(0, x - margin), x + width + margin))
        head_map = self._mouth_head.update(head)[box]
        inner, at = self._inner, self._inside.shaped(*head_map.shape[:2])
        np.subtract(head_map, np.array([self._mouth.x0, self._mouth.y0], np.float32), out=at.where)
        at.colour[:] = inner.cavity * (0.55 if expression.jaw < 0.05 else 0.85)
        deep = float(smoothstep(np.float64(expression.jaw), 0.14, 0.40))
        plain = max(0.0, 1.0 - 1.4 * expression.round)
        np.subtract(at.where, inner.jaw_shift_px(expression.jaw).astype(np.float32), out=at.shifted)
        for layer, strength in ((inner.tongue, _ROUND_TONGUE * deep * (1.0 - plain)), (inner.lower, deep * plain)):
            if strength > 0.01:
                at.lay_over(layer, at.shifted, strength)
        np.subtract(at.where, inner.upper_shift_px(expression.round).astype(np.float32), out=at.shifted)
        at.lay_over(inner.upper, at.shifted, inner.upper_shown(expression.round))
        if not inner.is_flat:
            sides = [max(1, round(size * self._iod_px)) | 1 for size in _AO_BOXES_IOD]
            at.shade(self._hole[box], inner.shadow, sides)
        at.finish()
        cv2.blendLinear(sheet[box], at.picture, self._cover_lower[box], self._show_lower[box], dst=at.blended)
        sheet[box] = at.blended

    def _compose(self, out: np.ndarray) -> None:
        cv2.cvtColor(self._frame, cv2.COLOR_RGBA2RGB, dst=self._rgb)
        window = self._figure.window
        if self._background is None:
            if self._rgb.shape != out.shape:
                np.copyto(out, self._source[..., :3])
            out[window] = self._rgb
            return
        np.copyto(out, self._background)
        cv2.extractChannel(self._frame, 3, dst=self._alpha)
        cv2.multiply(self._alpha, 1.0, dst=self._weight, scale=1.0 / 255.0, dtype=cv2.CV_32F)
        cv2.subtract(1.0, self._weight, dst=self._rest)
        out[window] = cv2.blendLinear(self._rgb, self._behind, self._weight, self._rest, dst=self._composed)


class _Warp:
    """Expression -> total displacement of both sheets and of the head alone, on the lattice."""

    def __init__(self, lattice: Lattice, upper: np.ndarray, lower: np.ndarray, pose: np.ndarray) -> None:
        self._lattice = lattice
        self._sheets = [sheet.reshape(len(BASES), -1) for sheet in (upper, lower)]
        self._pose = pose.reshape(len(POSES), -1)
        shape = upper.shape[1:]
        self._amounts = np.zeros(len(BASES), np.float32)
        self._poses = np.zeros(len(POSES), np.float32)
        self._forward, self._inverse, self._next, self._head = (np.zeros(shape, np.float32) for _ in range(4))
        self._totals = [np.zeros(shape, np.float32) for _ in range(2)]

    def update(self, expression: Expression) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(upper, lower, head): float32 (height, width, 2) px to look away from each node."""
        for index, name in enumerate(BASES):
            self._amounts[index] = getattr(expression, name)
        for index, name in enumerate(POSES):
            self._poses[index] = getattr(expression, name)
        np.dot(self._poses, self._pose, out=self._head.reshape(-1))
        for sheet, total in zip(self._sheets, self._totals, strict=True):
            np.dot(self._amounts, sheet, out=self._forward.reshape(-1))
            inverse = self._inverted()
            self._lattice.sample(inverse, self._head, total)
            cv2.add(total, self._head, dst=total)
        return self._totals[0], self._totals[1], self._head

    def _inverted(self) -> np.ndarray:
        """The backward field d with d(p) = -F(p + d), by iteration: |grad F| < 1 (no folds), so it converges."""
        np.negative(self._forward, out=self._inverse)
        for _ in range(_INVERSIONS):
            self._lattice.sample(self._forward, self._inverse, self._next)
            np.negative(self._next, out=self._inverse)
        return self._inverse


class _EyeRegion:
    """One eye's lid, drawn where the warped eye is."""

    def __init__(self, lid: Eyelid, source: np.ndarray, figure: PixelMap, reach_px: float) -> None:
        self._lid = lid
        self._painted = lid.painted(source)
        rows, columns = lid.window
        margin = int(reach_px)
        self._inside = (
            slice(max(0, rows.start - margin - figure.y0), max(1, min(figure.y1, rows.stop + margin) - figure.y0)),
            slice(
                max(0, columns.start - margin - figure.x0), max(1, min(figure.x1, columns.stop + margin) - figure.x0)
            ),
        )
        self._origin = (float(columns.start), float(rows.start), 0.0, 0.0)
        shape = (self._inside[0].stop - self._inside[0].start, self._inside[1].stop - self._inside[1].start)
        self._local, self._away = np.empty((*shape, 2), np.float32), np.empty((*shape, 2), np.float32)
        self._found = np.empty((*shape, 4), np.float32)
        self._share, self._rest = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self._lid_rgba, self._skin_rgba, self._painted_lid, self._mixed = (
            np.empty((*shape, 4), np.uint8) for _ in range(4)
        )

    def draw(self, source: np.ndarray, source_map: np.ndarray, frame: np.ndarray, blink: float) -> None:
        table = self._lid.close(blink)
        here = source_map[self._inside]
        local, found, away = self._local, self._found, self._away
        cv2.subtract(here, self._origin, dst=local)
        cv2.remap(table, local, None, cv2.INTER_LINEAR, dst=found, borderMode=cv2.BORDER_CONSTANT)
        np.add(found[..., :2], here, out=away)
        lid, skin = self._lid_rgba, self._skin_rgba
        cv2.remap(source, away, None, cv2.INTER_LINEAR, dst=lid, borderMode=cv2.BORDER_REPLICATE)
        if self._painted is not None:
            cv2.remap(self._painted, local, None, cv2.INTER_LINEAR, dst=skin, borderMode=cv2.BORDER_REPLICATE)
            lid = self._mix(skin, lid, 3, self._painted_lid)
        region = frame[self._inside]
        region[:] = self._mix(lid, region, 2, self._mixed)

    def _mix(self, over: np.ndarray, under: np.ndarray, channel: int, out: np.ndarray) -> np.ndarray:
        """`over` as far as a channel of the table says, else `under`."""
        cv2.extractChannel(self._found, channel, dst=self._share)
        cv2.subtract(1.0, self._share, dst=self._rest)
        return cv2.blendLinear(over, under, self._share, self._rest, dst=out)


def _box(mask: np.ndarray, stride: int, margin_px: float) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) px around the set nodes or pixels, widened; the whole picture if none is set."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return 0, 0, mask.shape[1] * stride, mask.shape[0] * stride
    margin = int(np.ceil(margin_px))
    return (
        max(0, int(columns[0]) * stride - margin),
        max(0, int(rows[0]) * stride - margin),
        (int(columns[-1]) + 1) * stride + margin,
        (int(rows[-1]) + 1) * stride + margin,
    )
