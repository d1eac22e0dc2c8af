"""Makes the face geometry of the sample portraits: assets/portraits/NAME.json.

The face models find the landmarks; lips and lids are then put exactly where the drawing has them (the SVG's metadata).
Writes a picture of the fit for checking when --show names a folder.

Usage: python packaging/portrait_geometry.py [NAME ...] [--show FOLDER]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PORTRAITS = ROOT / "assets" / "portraits"
sys.path.insert(0, str(ROOT))

from engine.generators.puppet import geometry as g  # noqa: E402
from engine.generators.puppet.crops import ImagePyramid  # noqa: E402
from engine.generators.puppet.detect import detect_faces  # noqa: E402
from engine.generators.puppet.landmarks import fit_landmarks, square_of_detection  # noqa: E402
from engine.generators.puppet.models import FaceModels  # noqa: E402

# Landmarks that lie on a drawn curve.
ON_CURVE = (
    ("lip_upper", g.UPPER_OUTER_LIP),
    ("lip_lower", g.LOWER_OUTER_LIP),
    ("seam", g.UPPER_INNER_LIP),
    ("seam", g.LOWER_INNER_LIP),
    ("eye_upper_left", g.LEFT_EYE_UPPER),
    ("eye_lower_left", g.LEFT_EYE_LOWER),
    ("eye_upper_right", g.RIGHT_EYE_UPPER),
    ("eye_lower_right", g.RIGHT_EYE_LOWER),
)


def contours_of(svg: str) -> dict[str, np.ndarray]:
    """The drawing's own curves, each (65, 2), left to right, in px with pixel centres at integers."""
    found = re.search(r"<metadata>(.*?)</metadata>", svg, re.DOTALL)
    if not found:
        raise ValueError("the drawing has no metadata with its contours")
    # SVG counts from the pixels' edges.
    return {name: np.array(points) - 0.5 for name, points in json.loads(found.group(1)).items()}


def put_on_curves(landmarks: np.ndarray, contours: dict[str, np.ndarray]) -> np.ndarray:
    """Moves the lips' and lids' landmarks to the curves, keeping how they are spread between the corners."""
    out = landmarks.copy()
    for name, indices in ON_CURVE:
        curve, x = contours[name], landmarks[list(indices), 0]
        place = np.clip((x - x[0]) / (x[-1] - x[0]), 0.0, 1.0)
        along = (curve[:, 0] - curve[0, 0]) / (curve[-1, 0] - curve[0, 0])
        out[list(indices), 0] = np.interp(place, along, curve[:, 0])
        out[list(indices), 1] = np.interp(place, along, curve[:, 1])
    return out


def geometry_of(image: np.ndarray, contours: dict[str, np.ndarray]) -> g.FaceGeometry:
    models, pyramid = FaceModels(), ImagePyramid(image)
    best = max(detect_faces(pyramid, models), key=lambda found: found.score)
    fit = fit_landmarks(pyramid, models, square_of_detection(best), rounds=4)
    height, width = image.shape[:2]
    return g.FaceGeometry(
        image_size=(width, height),
        landmarks=put_on_curves(fit.points, contours).round(2),
        seam_upper=contours["seam"].round(2),
        seam_lower=contours["seam"].round(2),
        eye_upper=tuple(contours[f"eye_upper_{side}"][::2].round(2) for side in ("left", "right")),
        eye_lower=tuple(contours[f"eye_lower_{side}"][::2].round(2) for side in ("left", "right")),
        is_mouth_open=False,
        is_flat=False,
        source="stored",
        detection_score=round(float(best.score), 3),
        presence_score=round(float(fit.presence), 3),
    )


def draw_fit(image: np.ndarray, face: g.FaceGeometry) -> np.ndarray:
    """The portrait at twice its size with the geometry over it, RGB."""
    shown = cv2.resize(image, None, fx=2, fy=2)
    for x, y in face.landmarks[:, :2]:
        cv2.circle(shown, (round(2 * x), round(2 * y)), 2, (0, 90, 255), -1, cv2.LINE_AA)
    lines = [face.seam_upper, *face.eye_upper, *face.eye_lower, face.landmarks[list(g.FACE_OVAL), :2]]
    lines += [face.landmarks[list(row), :2] for row in (g.UPPER_OUTER_LIP, g.LOWER_OUTER_LIP)]
    lines += [
        face.landmarks[list(row), :2]
        for row in (g.LEFT_BROW_TOP, g.LEFT_BROW_BOTTOM, g.RIGHT_BROW_TOP, g.RIGHT_BROW_BOTTOM)
    ]
    for line in lines:
        cv2.polylines(shown, [np.round(2 * line).astype(np.int32)], False, (0, 255, 60), 1, cv2.LINE_AA)
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--show", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    for name in options.names or [path.stem for path in sorted(PORTRAITS.glob("*.svg"))]:
        image = cv2.cvtColor(cv2.imread(str(PORTRAITS / f"{name}.png")), cv2.COLOR_BGR2RGB)
        face = geometry_of(image, contours_of((PORTRAITS / f"{name}.svg").read_text(encoding="utf-8")))
        (PORTRAITS / f"{name}.json").write_text(face.to_json() + "\n", encoding="utf-8")
        frame = face.face_frame()
        print(f"{name}: eyes {frame.iod_px:.0f} px apart, scores {face.detection_score}, {face.presence_score}")
        if options.show:
            cv2.imwrite(str(options.show / f"{name}_fit.png"), cv2.cvtColor(draw_fit(image, face), cv2.COLOR_RGB2BGR))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
