"""How the head moves as a whole: backward displacement fields on the lattice, linear in the pose."""

from __future__ import annotations

import numpy as np

from engine.generators.puppet import geometry as g
from engine.generators.puppet.bases import FacePoints, radius_about_oval
from engine.generators.puppet.geometry import FaceGeometry
from engine.generators.puppet.lattice import Lattice, smoothstep
from engine.generators.puppet.splines import ThinPlateSpline

POSES = ("tx", "ty", "roll", "yaw", "pitch", "zoom", "breath")

_PIVOT_BELOW_CHIN = 0.45
_DEPTH_KNOTS = (1, 4, 5, 6, 168, 10, 151, 9, 8, 50, 280, 117, 346, 33, 133, 362, 263, 70, 105, 107, 336, 334, 300,
                61, 291, 0, 17, 152, 199, 93, 323, 132, 361, 172, 397, 67, 297)  # fmt: skip
_TORSO_SHARE = 0.25
_EDGE_SHARE = 0.12


def pose_fields(geometry: FaceGeometry, lattice: Lattice, *, is_cut_out: bool) -> np.ndarray:
    """float32 (len(POSES), height, width, 2) px per unit. Without a cut-out the movement fades out around the head and
    towards the frame's edges, so that the background is bent softly and the frame stays where it is."""
    frame = geometry.face_frame()
    face = FacePoints.of(geometry)
    points = frame.to_face(lattice.points)
    y = points[..., 1]
    head = 1.0 - smoothstep(y, face.chin_y, face.chin_y + 1.0)
    torso = smoothstep(y, face.chin_y + 0.1, face.chin_y + 1.3)
    if not is_cut_out:
        radius = radius_about_oval(points, face.landmarks)
        fade = (1.0 - smoothstep(radius, 1.15, 2.3)) * _edge_fade(lattice)
        head, torso = head * fade, torso * fade
    depth = _depth(geometry, face, points)
    dx, dy = points[..., 0], y - (face.chin_y + _PIVOT_BELOW_CHIN)
    zero = np.zeros_like(dx)
    fields = {
        "tx": (-head - _TORSO_SHARE * torso, zero),
        "ty": (zero, -head),
        "roll": (head * dy, -head * dx),
        "yaw": (-head * depth, zero),
        "pitch": (zero, -head * depth),
        "zoom": (-head * dx, -head * dy),
        "breath": (zero, -torso),
    }
    stacked = np.stack([np.stack(fields[name], axis=-1) for name in POSES])
    turned = frame.to_image(stacked) - frame.to_image(np.zeros(2))
    return np.ascontiguousarray(turned, dtype=np.float32)


def _depth(geometry: FaceGeometry, face: FacePoints, points: np.ndarray) -> np.ndarray:
    """How much nearer than the face's outline each point is, in iod: a spline through the landmarks' depths."""
    iod = geometry.face_frame().iod_px
    z = -geometry.landmarks[:, 2].astype(np.float64) / iod
    z -= z[list(g.FACE_OVAL)].mean()
    oval = face.landmarks[list(g.FACE_OVAL)]
    centre = (oval.min(axis=0) + oval.max(axis=0)) / 2
    knots = [face.landmarks[list(_DEPTH_KNOTS)]]
    values = [z[list(_DEPTH_KNOTS)]]
    for scale, depth in ((1.45, -0.25), (2.2, -0.35)):
        knots.append(centre + scale * (oval[::3] - centre))
        values.append(np.full(len(oval[::3]), depth))
    spline = ThinPlateSpline(np.concatenate(knots), np.concatenate(values)[:, None], smoothing=0.02)
    return np.clip(spline(points.reshape(-1, 2)).reshape(points.shape[:2]), -0.6, 1.0)


def _edge_fade(lattice: Lattice) -> np.ndarray:
    width, height = lattice.size
    x, y = lattice.points[..., 0] / (width - 1), lattice.points[..., 1] / (height - 1)
    nearest = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    return smoothstep(nearest, 0.012, _EDGE_SHARE)
