"""A portrait to geometry, mask and advice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.generators.puppet import analyse
from engine.generators.puppet.analyse import PortraitAnalysis, analyse_portrait, find_faces, turn_of
from engine.generators.puppet.fit_overlay import draw_fit
from engine.generators.puppet.models import FaceModels
from engine.generators.puppet.segment import guided_filter
from engine.generators.puppet.template import default_handles

# Centres of the eyes and of the mouth, read off the pictures in shared/data.
KNOWN_FACES = {
    "dwarven_blacksmith.jpg": ((304, 95), (333, 92), (325, 133)),
    "fashion_blogger.jpg": ((178, 144), (226, 142), (207, 197)),
    "kitchen_grandmother.jpg": ((181, 140), (231, 134), (210, 190)),
}


def read(path: Path) -> np.ndarray:
    return np.ascontiguousarray(cv2.imread(str(path))[:, :, ::-1])


def codes(analysis: PortraitAnalysis) -> set[str]:
    return {warning.code for warning in analysis.warnings}


def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analyse, "find_face_models", lambda: None)


@pytest.mark.parametrize("name", KNOWN_FACES)
def test_right_face_in_real_portraits(face_models: FaceModels, shared_data: Path, name: str) -> None:
    analysis = analyse_portrait(read(shared_data / name), models=face_models)
    assert analysis.is_face_found
    geometry = analysis.geometry
    handles = analysis.handles()
    left, right, mouth = KNOWN_FACES[name]
    reach = 0.3 * geometry.face_frame().iod_px
    assert np.hypot(handles.left_eye.x - left[0], handles.left_eye.y - left[1]) < reach
    assert np.hypot(handles.right_eye.x - right[0], handles.right_eye.y - right[1]) < reach
    middle = (geometry.seam_upper + geometry.seam_lower).mean(axis=0) / 2
    assert np.hypot(*(middle - mouth)) < reach
    assert "portrait.mouth_open" in codes(analysis)
    assert geometry.is_mouth_open
    assert not geometry.is_flat


def test_astronaut(face_models: FaceModels, astronaut: np.ndarray) -> None:
    analysis = analyse_portrait(astronaut, models=face_models)
    geometry = analysis.geometry
    assert geometry.source == "detected"
    assert geometry.is_mouth_open  # teeth of nearly the skin's colour
    assert codes(analysis) == {"portrait.mouth_open"}
    assert geometry.presence_score > 0.95
    assert analysis.person_mask is not None
    assert analysis.person_mask.shape == (512, 512)
    assert analysis.person_mask.dtype == np.float32
    assert analysis.person_mask[110, 225] > 0.95  # her face
    assert analysis.person_mask[60, 40] < 0.05  # the flag behind her
    assert analysis.person_mask.min() >= 0.0
    assert analysis.person_mask.max() <= 1.0


def test_grey_astronaut_is_the_same(face_models: FaceModels, astronaut: np.ndarray) -> None:
    grey = cv2.cvtColor(cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    colour, plain = (analyse_portrait(image, models=face_models).geometry for image in (astronaut, grey))
    assert plain.is_mouth_open
    apart = np.hypot(*(colour.landmarks - plain.landmarks)[:, :2].T).mean()
    assert apart < 0.05 * colour.face_frame().iod_px


def test_large_pictures_answer_in_their_own_px(face_models: FaceModels, astronaut: np.ndarray) -> None:
    large = cv2.resize(astronaut, (2048, 2048), interpolation=cv2.INTER_CUBIC)
    analysis = analyse_portrait(large, models=face_models)
    expected = analyse_portrait(astronaut, models=face_models).geometry.scaled((2048, 2048))
    assert analysis.geometry.image_size == (2048, 2048)
    apart = np.hypot(*(analysis.geometry.landmarks - expected.landmarks)[:, :2].T).mean()
    assert apart < 0.03 * expected.face_frame().iod_px
    assert analysis.person_mask is not None
    assert analysis.person_mask.shape == (2048, 2048)
    faces = find_faces(large, face_models)
    assert np.hypot(*(faces[0].landmarks - expected.landmarks)[:, :2].T).mean() < 0.04 * expected.face_frame().iod_px


def test_drawing_closed_open_and_dots(face_models: FaceModels, draw_cartoon) -> None:
    closed = analyse_portrait(draw_cartoon(), models=face_models)
    assert closed.geometry.is_flat
    assert not closed.geometry.is_mouth_open
    assert closed.warnings == []
    # The stroke: the lower edge of an ellipse around (256, 310), radii 40 and 12.
    x, y = closed.geometry.seam_upper[16:-16].T
    expected = 310 + 12 * np.sqrt(1 - ((x - 256) / 40) ** 2)
    assert np.abs(y - expected).max() < 3.0
    opened = analyse_portrait(draw_cartoon(mouth="open"), models=face_models)
    assert opened.geometry.is_mouth_open
    assert "portrait.mouth_open" in codes(opened)
    dots = analyse_portrait(draw_cartoon(eyes="dots"), models=face_models)
    assert dots.geometry.blink == "squash"
    assert closed.geometry.blink == "lid"


def test_several_faces_take_the_central_one_and_say_so(face_models: FaceModels, astronaut: np.ndarray) -> None:
    head = astronaut[30:230, 120:330]
    picture = np.full((400, 900, 3), 90, np.uint8)
    picture[100:300, 345:555] = head
    small = cv2.resize(head, (147, 140), interpolation=cv2.INTER_AREA)
    picture[20:160, 20:167] = small
    analysis = analyse_portrait(picture, models=face_models)
    assert "portrait.several_faces" in codes(analysis)
    assert 345 < analysis.geometry.face_frame().origin[0] < 555
    text = next(warning.message for warning in analysis.warnings if warning.code == "portrait.several_faces")
    assert "is one more face" in text
    assert len(find_faces(picture, face_models)) == 2


def test_tiny_face_is_remarked(face_models: FaceModels, astronaut: np.ndarray) -> None:
    tiny = cv2.resize(astronaut, (170, 170), interpolation=cv2.INTER_AREA)
    assert "portrait.tiny_face" in codes(analyse_portrait(tiny, models=face_models))


def test_tiny_face_in_a_wide_picture_is_found(face_models: FaceModels, astronaut: np.ndarray) -> None:
    wide = np.full((512, 1280, 3), 128, np.uint8)
    wide[150:350, 1000:1200] = cv2.resize(astronaut, (200, 200), interpolation=cv2.INTER_AREA)
    analysis = analyse_portrait(wide, models=face_models)
    assert analysis.is_face_found
    eye = analysis.handles().left_eye
    assert (eye.x, eye.y) == pytest.approx((1079.5, 189.5), abs=3)


def test_profile_is_remarked(face_models: FaceModels) -> None:
    data = pytest.importorskip("skimage.data")
    grey = data.camera()
    analysis = analyse_portrait(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), models=face_models)
    assert codes(analysis) & {"portrait.profile", "portrait.no_face"}


def test_turn_has_the_sign_of_the_look() -> None:
    points = np.zeros((468, 3))
    points[234], points[454] = (-50, 0, -20), (50, 0, 20)
    assert turn_of(points) > 0.3


@pytest.mark.parametrize("shape", [(1, 1), (64, 1500), (400, 300)])
def test_nothing_in_the_picture_gives_handles_to_drag(face_models: FaceModels, shape: tuple) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    analysis = analyse_portrait(picture, models=face_models)
    assert not analysis.is_face_found
    assert codes(analysis) == {"portrait.no_face"}
    assert analysis.geometry.source == "handles"
    assert analysis.geometry.image_size == shape[::-1]
    assert set(analysis.handles().to_points()) >= {"left_eye", "mouth_left", "chin", "brow"}


@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket"])
def test_cups_cats_and_rockets_are_no_faces(face_models: FaceModels, name: str) -> None:
    data = pytest.importorskip("skimage.data")
    analysis = analyse_portrait(np.ascontiguousarray(getattr(data, name)()), models=face_models)
    assert not analysis.is_face_found


def test_without_models_handles_still_make_a_face(monkeypatch: pytest.MonkeyPatch, draw_cartoon) -> None:
    no_models(monkeypatch)
    picture = draw_cartoon()
    first = analyse_portrait(picture)
    assert codes(first) == {"portrait.no_face_models"}
    assert first.person_mask is None
    assert find_faces(picture) == []
    eye = first.handles().left_eye
    handles = replace(
        default_handles((512, 512)),
        left_eye=replace(eye, x=206, y=225, width=52, height=36),
        right_eye=replace(eye, x=306, y=225, width=52, height=36),
        mouth_left=(216, 318),
        mouth_right=(296, 318),
        lip_top=(256, 312),
        lip_bottom=(256, 332),
        chin=(256, 390),
        jaw_left=(160, 330),
        jaw_right=(352, 330),
    )
    geometry = analyse_portrait(picture, handles).geometry
    assert geometry.source == "handles"
    assert not geometry.is_mouth_open
    np.testing.assert_allclose(geometry.landmarks[152, :2], (256, 390), atol=1.0)
    x, y = geometry.seam_upper[16:-16].T
    assert np.abs(y - (310 + 12 * np.sqrt(1 - ((x - 256) / 40) ** 2))).max() < 3.0
    assert geometry.eye_upper[0][:, 1].min() == pytest.approx(225 - 18, abs=3)


def test_corrected_handles_keep_the_seen_face(face_models: FaceModels, astronaut: np.ndarray) -> None:
    """Handles as found change next to nothing; a moved chin moves only the chin's neighbourhood."""
    found = analyse_portrait(astronaut, models=face_models)
    handles = found.handles()
    again = analyse_portrait(astronaut, handles, models=face_models).geometry
    iod = again.face_frame().iod_px
    assert again.source == "handles"
    assert again.is_mouth_open
    assert np.hypot(*(again.landmarks - found.geometry.landmarks)[:, :2].T).mean() < 0.05 * iod
    moved = replace(handles, chin=(handles.chin[0], handles.chin[1] + 8))
    changed = analyse_portrait(astronaut, moved, models=face_models).geometry
    assert changed.landmarks[152, 1] - again.landmarks[152, 1] == pytest.approx(8, abs=0.5)
    assert abs(changed.landmarks[33, 1] - again.landmarks[33, 1]) < 0.5


def test_handles_of_another_size_are_scaled(monkeypatch: pytest.MonkeyPatch, draw_cartoon) -> None:
    no_models(monkeypatch)
    picture = draw_cartoon()
    half = default_handles((256, 256))
    geometry = analyse_portrait(picture, half).geometry
    assert geometry.image_size == (512, 512)
    np.testing.assert_allclose(geometry.landmarks[152, :2], (np.array(half.chin) + 0.5) * 2 - 0.5, atol=0.1)


def test_analysis_is_repeatable(face_models: FaceModels, astronaut: np.ndarray) -> None:
    one, other = (analyse_portrait(astronaut, models=face_models) for _ in range(2))
    assert one.geometry == other.geometry
    np.testing.assert_array_equal(one.person_mask, other.person_mask)


def test_fit_overlay_draws_on_a_copy(face_models: FaceModels, astronaut: np.ndarray) -> None:
    before = astronaut.copy()
    geometry = analyse_portrait(astronaut, models=face_models).geometry
    picture = draw_fit(astronaut, geometry, has_handles=True)
    np.testing.assert_array_equal(astronaut, before)
    changed = np.abs(picture.astype(int) - before).max(axis=2) > 30
    assert changed.sum() > 200
    assert not changed[300:].any()  # only the face


def test_guided_filter_keeps_the_guides_edge() -> None:
    guide = np.zeros((60, 60), np.float32)
    guide[:, 30:] = 1.0
    blurred = cv2.GaussianBlur(guide, (0, 0), 4)
    sharp = guided_filter(guide, blurred, radius_px=6, epsilon=1e-3)
    assert (sharp[30, 31] - sharp[30, 28]) > 1.8 * (blurred[30, 31] - blurred[30, 28])
