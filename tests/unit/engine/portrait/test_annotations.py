"""What generators keep with a portrait."""

from __future__ import annotations

import pytest

from engine.errors import OutputError
from engine.portrait.annotations import load_annotations, store_annotation

DIGEST = "ab" * 32


def test_round_trip_and_removal(tmp_path):
    folder = tmp_path / "new" / "folder"
    assert load_annotations(DIGEST, folder) == {}
    store_annotation(DIGEST, "puppet", '{"a": "ü"}', folder)
    store_annotation("cd" * 32, "puppet", "{}", folder)
    assert load_annotations(DIGEST, folder) == {"puppet": '{"a": "ü"}'}
    store_annotation(DIGEST, "puppet", "", folder)
    store_annotation(DIGEST, "puppet", "", folder)
    assert load_annotations(DIGEST, folder) == {}


def test_folder_that_cannot_be_made_is_an_output_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError) as caught:
        store_annotation(DIGEST, "puppet", "{}", tmp_path / "file")
    assert caught.value.code == "output.annotations"


def test_failed_write_keeps_the_old_text(tmp_path, monkeypatch):
    store_annotation(DIGEST, "puppet", "old", tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engine.portrait.annotations.os.replace", full)
    with pytest.raises(OutputError, match="No space left"):
        store_annotation(DIGEST, "puppet", "new", tmp_path)
    assert load_annotations(DIGEST, tmp_path) == {"puppet": "old"}
