"""Snapshots are whole PNG files or nothing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from engine.errors import OutputError
from engine.sinks.snapshot import write_snapshot


def test_picture_comes_back_exactly_and_says_what_it_is(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (36, 64, 3), np.uint8)
    path = write_snapshot(image, tmp_path / "a.png")
    with Image.open(path) as picture:
        assert np.array_equal(np.asarray(picture), image) and "AI avatar" in picture.info["Comment"]


def test_existing_file_is_kept_unless_allowed(tmp_path):
    image = np.zeros((4, 4, 3), np.uint8)
    write_snapshot(image, tmp_path / "a.png")
    with pytest.raises(OutputError, match="exists already"):
        write_snapshot(image + 1, tmp_path / "a.png")
    write_snapshot(image + 1, tmp_path / "a.png", may_replace=True)
    with Image.open(tmp_path / "a.png") as picture:
        assert np.asarray(picture).max() == 1


def test_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engine.sinks.snapshot.os.replace", full)
    with pytest.raises(OutputError) as caught:
        write_snapshot(np.zeros((4, 4, 3), np.uint8), tmp_path / "a.png")
    assert caught.value.code == "output.disk_full" and list(tmp_path.iterdir()) == []
