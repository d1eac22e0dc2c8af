"""A portrait to everything the renderer needs: the face found or placed by hand, the person's mask, advice."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from engine.generators.puppet import candidates as judging
from engine.generators.puppet.candidates import FaceCandidate
from engine.generators.puppet.contours import (
    FacePatch,
    Seam,
    eye_contrast,
    find_dot_eyes,
    find_eyes,
    find_seam,
    flatness,
    mouth_evidence,
    straighten,
)
from engine.generators.puppet.crops import ImagePyramid
from engine.generators.puppet.geometry import (
    LOWER_INNER_LIP,
    UPPER_INNER_LIP,
    FaceGeometry,
    frame_of_landmarks,
)
from engine.generators.puppet.landmarks import square_of_landmarks
from engine.generators.puppet.models import FaceModels, find_face_models
from engine.generators.puppet.segment import person_mask
from engine.generators.puppet.template import (
    FaceHandles,
    default_handles,
    handles_of_geometry,
    handles_of_landmarks,
    landmarks_from_handles,
)
from engine.media import Notice

logger = logging.getLogger(__name__)

ANALYSED_SIDE_PX = 1280
"""Longer pictures are analysed at this size; the answer is in the given picture's px."""

FLAT_FROM = 0.72
_TINY_IOD_PX = 24.0
_STRONG_TURN_RAD = math.radians(32.0)
_UNSURE = 0.65
_OTHER_MOUTH_IOD = 0.12
_WORTH_SHOWING = 0.2
"""Confidence from which a refused candidate is at least where the handles start."""

_OTHER_FACE = 0.5
"""Confidence from which a second face is worth a remark."""

PortraitWarning = Notice


@dataclass(frozen=True, kw_only=True, eq=False)
class PortraitAnalysis:
    """`geometry` is always there: without a face it is an average one where heads mostly are, to be dragged into place.

    `person_mask` is float32 (height, width) 0..1 of the given picture, or None when it cannot be told.
    """

    geometry: FaceGeometry
    person_mask: np.ndarray | None
    warnings: list[PortraitWarning] = field(default_factory=list)
    is_face_found: bool = True

    def handles(self) -> FaceHandles:
        """Where the ten handles are, ready to be shown and dragged."""
        return handles_of_geometry(self.geometry)


def find_faces(image: np.ndarray, models: FaceModels | None = None) -> list[FaceCandidate]:
    """All faces of an RGB picture, the one that it is of first; empty without a face or without the models.

    Landmarks are in px of the given picture.
    """
    models = models or find_face_models()
    if models is None:
        return []
    reduced, factor = _reduced(image)
    pyramid = ImagePyramid(reduced)
    faces = _faces_among(_judged(pyramid, models), pyramid.size)
    return [_enlarged(face, 1.0 / factor) for face in faces]


def analyse_portrait(
    image_rgb: np.ndarray, handles: FaceHandles | None = None, *, models: FaceModels | None = None
) -> PortraitAnalysis:
    """Find the face, or take it from `handles` (in px of their own image_size), and judge the picture.

    `models` saves loading the networks again; without them (not installed) handles or the average face are used.
    Blocks for half a second or so. Raises PortraitError (`portrait.bad_handles`) for impossible handles only.
    """
    height, width = image_rgb.shape[:2]
    models = models or find_face_models()
    reduced, factor = _reduced(image_rgb)
    pyramid = ImagePyramid(reduced)
    if handles is not None:
        found = _from_handles(pyramid, models, handles.scaled(pyramid.size))
    else:
        found = _detected(pyramid, models)
    mask = None
    if models is not None:
        mask = person_mask(pyramid, models, found.geometry.landmarks if found.is_face_found else None)
        if float(mask.mean()) < 0.005:
            mask = None
    if factor < 1.0:
        found = replace(found, geometry=found.geometry.scaled((width, height)))
        mask = None if mask is None else cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
    return replace(found, person_mask=mask)


def geometry_of_landmarks(
    image: np.ndarray,
    landmarks: np.ndarray,
    *,
    source: str,
    detection_score: float = 0.0,
    presence_score: float = 0.0,
    is_mouth_open: bool | None = None,
    keeps_eyes: bool = False,
) -> FaceGeometry:
    """Snap the contours of (468, 3) landmarks to the picture. `keeps_eyes`: the eyes are where a person put them."""
    patch = straighten(image, landmarks)
    is_flat = flatness(patch) > FLAT_FROM
    seam = find_seam(patch, is_open=is_mouth_open, is_flat=is_flat)
    to_image = patch.frame.to_image
    uppers, lowers = find_eyes(patch, is_snapped=not keeps_eyes)
    dots = find_dot_eyes(patch) if is_flat and not keeps_eyes else None
    if dots is not None:
        uppers, lowers = (dots[0][0], dots[1][0]), (dots[0][1], dots[1][1])
    landmarks = _with_seam(np.asarray(landmarks, np.float64), patch, seam)
    return FaceGeometry(
        image_size=(image.shape[1], image.shape[0]),
        landmarks=landmarks,
        seam_upper=to_image(seam.upper),
        seam_lower=to_image(seam.lower),
        eye_upper=tuple(to_image(eye) for eye in uppers),
        eye_lower=tuple(to_image(eye) for eye in lowers),
        is_mouth_open=seam.is_open,
        is_flat=is_flat,
        blink="lid" if dots is None else "squash",
        source=source,
        detection_score=detection_score,
        presence_score=presence_score,
    )


def _with_seam(landmarks: np.ndarray, patch: FacePatch, seam: Seam) -> np.ndarray:
    """The inner lips' landmarks laid onto the snapped seam, so that every user of them sees one mouth."""
    landmarks = landmarks.copy()
    for indices, line in ((UPPER_INNER_LIP, seam.upper), (LOWER_INNER_LIP, seam.lower)):
        inner = list(indices[1:-1])
        points = patch.points[inner].copy()
        points[:, 1] = np.interp(points[:, 0], line[:, 0], line[:, 1])
        landmarks[inner, :2] = patch.frame.to_image(points)
    return landmarks


def _detected(pyramid: ImagePyramid, models: FaceModels | None) -> PortraitAnalysis:
    if models is None:
        return _nothing_found(pyramid, _no_models())
    judged = _judged(pyramid, models)
    faces = _faces_among(judged, pyramid.size)
    if not faces:
        return _nothing_found(pyramid, _no_face(), judged)
    main = _best_reading(pyramid, models, faces[0])
    geometry = geometry_of_landmarks(
        pyramid.image,
        main.landmarks,
        source="detected",
        detection_score=main.detection_score,
        presence_score=main.presence_score,
    )
    warnings = _advice(geometry, faces)
    return PortraitAnalysis(geometry=geometry, person_mask=None, warnings=warnings)


def _judged(pyramid: ImagePyramid, models: FaceModels) -> list[FaceCandidate]:
    judged = judging.find_candidates(pyramid, models)
    for candidate in judged:
        logger.debug(
            "face candidate at %s: detector %.2f, presence %.2f, spread %.3f, confidence %.2f",
            np.round(candidate.box), candidate.detection_score, candidate.presence_score, candidate.spread,
            candidate.confidence,
        )  # fmt: skip
    return judged


def _faces_among(judged: list[FaceCandidate], size: tuple[int, int]) -> list[FaceCandidate]:
    """Faces only, the one that the picture is of first."""
    faces = [face for face in judged if face.confidence >= judging.MIN_CONFIDENCE]
    return sorted(faces, key=lambda face: -judging.prominence(face, size))


def _best_reading(pyramid: ImagePyramid, models: FaceModels, face: FaceCandidate) -> FaceCandidate:
    """Of several readings of one face the one whose eyes and mouth the picture shows best."""

    def worth(reading: FaceCandidate) -> float:
        patch = straighten(pyramid.image, reading.landmarks)
        return reading.confidence * (0.5 + mouth_evidence(patch)) * (0.5 + min(1.0, eye_contrast(patch) / 40.0))

    def has_other_mouth(reading: FaceCandidate) -> bool:
        here, there = (each.landmarks[list(UPPER_INNER_LIP + LOWER_INNER_LIP), :2] for each in (face, reading))
        return float(np.hypot(*(here - there).T).mean()) > _OTHER_MOUTH_IOD * face.frame.iod_px

    others = [reading for reading in judging.other_readings(pyramid, models, face) if has_other_mouth(reading)]
    return max([face, *others], key=worth) if others else face


def _from_handles(pyramid: ImagePyramid, models: FaceModels | None, handles: FaceHandles) -> PortraitAnalysis:
    landmarks = landmarks_from_handles(handles)
    detection, presence, is_open = 0.0, 0.0, None
    if models is not None:
        # Where the network sees the same face, its landmarks bend less than the average face's would have to.
        seen = judging.judge(pyramid, models, square_of_landmarks(landmarks), 1.0)
        iod = frame_of_landmarks(landmarks).iod_px
        away = np.hypot(*(seen.landmarks - landmarks)[:, :2].T).mean() / iod
        if seen.confidence >= _UNSURE and away < 0.35:
            landmarks = landmarks_from_handles(handles, seen.landmarks)
            presence = seen.presence_score
        else:
            is_open = False
    geometry = geometry_of_landmarks(
        pyramid.image,
        landmarks,
        source="handles",
        detection_score=detection,
        presence_score=presence,
        is_mouth_open=is_open,
        keeps_eyes=True,
    )
    if presence == 0.0:
        geometry = replace(geometry, blink="squash")
    return PortraitAnalysis(geometry=geometry, person_mask=None, warnings=_advice(geometry, []))


def _nothing_found(pyramid: ImagePyramid, warning: Notice, judged: Sequence[FaceCandidate] = ()) -> PortraitAnalysis:
    """An average face where heads mostly are, or where the best of the refused candidates is."""
    handles = default_handles(pyramid.size)
    if judged and judged[0].confidence >= _WORTH_SHOWING:
        handles = handles_of_landmarks(pyramid.size, judged[0].landmarks)
    geometry = geometry_of_landmarks(
        pyramid.image,
        landmarks_from_handles(handles),
        source="handles",
        is_mouth_open=False,
        keeps_eyes=True,
    )
    geometry = replace(geometry, blink="squash")
    return PortraitAnalysis(geometry=geometry, person_mask=None, warnings=[warning], is_face_found=False)


# --- advice ---


def _advice(geometry: FaceGeometry, faces: list[FaceCandidate]) -> list[Notice]:
    warnings = []
    others = [face for face in faces[1:] if face.confidence >= _OTHER_FACE]
    if others:
        warnings.append(_several(others))
    if faces and faces[0].confidence < _UNSURE:
        warnings.append(
            Notice(
                code="portrait.unsure_face",
                message="The face in this picture was not found for certain.",
                hint="Look whether the marks sit on the eyes and the mouth, and drag them where they do not.",
            )
        )
    if abs(turn_of(geometry.landmarks)) > _STRONG_TURN_RAD:
        warnings.append(
            Notice(
                code="portrait.profile",
                message="The face is turned far to the side.",
                hint="A portrait that looks into the camera moves better.",
            )
        )
    if geometry.is_mouth_open:
        warnings.append(
            Notice(
                code="portrait.mouth_open",
                message="The mouth in this portrait is open, so it cannot close completely.",
                hint="A neutral portrait with closed lips does better.",
            )
        )
    if geometry.face_frame().iod_px < _TINY_IOD_PX:
        warnings.append(
            Notice(
                code="portrait.tiny_face",
                message="The face is very small in this picture.",
                hint="Crop the picture to head and shoulders, or choose one with a larger face.",
            )
        )
    return warnings


def turn_of(landmarks: np.ndarray) -> float:
    """How far the head is turned about its upright axis, rad; positive when it looks to the image's right."""
    points = np.asarray(landmarks, np.float64)
    across = points[454] - points[234]
    return math.atan2(across[2], math.hypot(across[0], across[1]))


def _several(others: list[FaceCandidate]) -> Notice:
    places = "; ".join(f"at {(f.box[0] + f.box[2]) / 2:.0f}, {(f.box[1] + f.box[3]) / 2:.0f} px" for f in others[:5])
    count = "is one more face" if len(others) == 1 else f"are {len(others)} more faces"
    return Notice(
        code="portrait.several_faces",
        message=f"The largest face near the middle was taken; there {count} ({places}).",
        hint="Crop the picture to choose another face.",
    )


def _no_face() -> Notice:
    return Notice(
        code="portrait.no_face",
        message="No face was found in this picture.",
        hint="Choose a portrait that looks into the camera, or drag the marks onto the eyes, mouth and chin.",
    )


def _no_models() -> Notice:
    return Notice(
        code="portrait.no_face_models",
        message="Faces cannot be found because the face models are not installed.",
        hint="Run the set-up again while online, or drag the marks onto the eyes, mouth and chin.",
    )


# --- size ---


def _reduced(image: np.ndarray) -> tuple[np.ndarray, float]:
    height, width = image.shape[:2]
    factor = min(1.0, ANALYSED_SIDE_PX / max(width, height))
    if factor == 1.0:
        return image, 1.0
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), factor


def _enlarged(face: FaceCandidate, factor: float) -> FaceCandidate:
    half = np.array([0.5, 0.5, 0.0])
    return replace(face, landmarks=(face.landmarks + half) * factor - half)
