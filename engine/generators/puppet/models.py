"""The three small face networks: where they lie, whether they are whole, and how OpenCV loads them.

They are Apache-2.0 files of Google's MediaPipe, taken out of its wheel by the set-up; see NOTICE.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.errors import ModelFilesError
from engine.paths import data_folder

logger = logging.getLogger(__name__)

WHEEL = "mediapipe==0.10.21"
"""The newest release that was seen to carry the three files as such (0.10.30 does not)."""


@dataclass(frozen=True, kw_only=True)
class FaceModelFile:
    """One file, as it is named on disk and inside the wheel."""

    name: str
    wheel_path: str
    size_bytes: int
    sha256: str


DETECTOR = FaceModelFile(
    name="face_detection_short_range.tflite",
    wheel_path="mediapipe/modules/face_detection/face_detection_short_range.tflite",
    size_bytes=229_714,
    sha256="bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
)
LANDMARKER = FaceModelFile(
    name="face_landmark.tflite",
    wheel_path="mediapipe/modules/face_landmark/face_landmark.tflite",
    size_bytes=1_242_398,
    sha256="1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
)
SEGMENTER = FaceModelFile(
    name="selfie_segmentation.tflite",
    wheel_path="mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite",
    size_bytes=249_505,
    sha256="9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
)
FACE_MODELS = (DETECTOR, LANDMARKER, SEGMENTER)


def face_models_dir() -> Path:
    """The folder in which the set-up keeps the three files; it need not exist."""
    return data_folder() / "models" / "face"


def read_model(model: FaceModelFile, folder: Path | None = None) -> bytes:
    """The file's bytes, checked by size and hash. Raises `ModelFilesError` (code
    `model_files.face_missing` or `.face_damaged`)."""
    path = (folder or face_models_dir()) / model.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelFilesError(
            f"The face model {model.name} is not installed.",
            code="model_files.face_missing",
            hint="Run the set-up once while online, or place the face's handles by hand.",
            detail=str(error),
        ) from error
    if len(data) != model.size_bytes or hashlib.sha256(data).hexdigest() != model.sha256:
        raise ModelFilesError(
            f"The face model {model.name} is damaged.",
            code="model_files.face_damaged",
            hint=f"Delete {path} and run the set-up again.",
            detail=f"{len(data)} bytes instead of {model.size_bytes}, or another hash",
        )
    return data


def check_face_models(folder: Path | None = None) -> list[ModelFilesError]:
    """What is wrong with the installed files, one error per file; empty when all three are whole."""
    problems = []
    for model in FACE_MODELS:
        try:
            read_model(model, folder)
        except ModelFilesError as error:
            problems.append(error)
    return problems


class FaceModels:
    """The three networks, ready to run. Not thread-safe: one object belongs to one thread at a time."""

    def __init__(self, folder: Path | None = None) -> None:
        """Raises `ModelFilesError` when a file is missing, damaged, or OpenCV cannot load it."""
        self._detector = _load_network(DETECTOR, folder)
        self._landmarker = _load_network(LANDMARKER, folder)
        self._segmenter = _load_network(SEGMENTER, folder)

    def detect(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(1, 3, 128, 128) in -1..1 -> logits (896,), boxes and key points (896, 16)."""
        self._detector.setInput(batch)
        scores, boxes = self._detector.forward(["classificators", "regressors"])
        return scores.reshape(896), boxes.reshape(896, 16)

    def landmarks(self, batch: np.ndarray) -> tuple[np.ndarray, float]:
        """(1, 3, 192, 192) in 0..1 -> points (468, 3) in px of the crop, logit of a face being there."""
        self._landmarker.setInput(batch)
        points, presence = self._landmarker.forward(["conv2d_21", "conv2d_31"])
        return points.reshape(468, 3), float(presence.reshape(-1)[0])

    def segment(self, batch: np.ndarray) -> np.ndarray:
        """(1, 3, 256, 256) in 0..1 -> probability (256, 256) that a pixel shows a person."""
        self._segmenter.setInput(batch)
        return self._segmenter.forward().reshape(256, 256)


def find_face_models(folder: Path | None = None) -> FaceModels | None:
    """The networks, or None (logged) when they are not installed: handles then take the place of detection."""
    try:
        return FaceModels(folder)
    except ModelFilesError as error:
        logger.warning("faces cannot be detected: %s", error)
        return None


def _load_network(model: FaceModelFile, folder: Path | None) -> cv2.dnn.Net:
    read_model(model, folder)
    path = _path_for_opencv((folder or face_models_dir()) / model.name)
    # OpenCV 5's new engine exposes only one of a network's outputs, and loading from memory always takes that engine.
    engine = {"engine": cv2.dnn.ENGINE_CLASSIC} if hasattr(cv2.dnn, "ENGINE_CLASSIC") else {}
    try:
        return cv2.dnn.readNetFromTFLite(path, **engine)
    except cv2.error as error:
        raise ModelFilesError(
            f"OpenCV {cv2.__version__} cannot load the face model {model.name}.",
            code="model_files.face_unreadable",
            hint="Run the set-up again to install the tested version of OpenCV.",
            detail=str(error),
        ) from error


def _path_for_opencv(path: Path) -> str:
    """The path as OpenCV can open it: on Windows it knows ASCII only, so a user's name may need its short form."""
    text = str(path)
    if sys.platform != "win32" or text.isascii():
        return text
    buffer = ctypes.create_unicode_buffer(32_768)
    length = ctypes.windll.kernel32.GetShortPathNameW(text, buffer, len(buffer))
    return buffer.value if length else text
