"""Files that are nobody else's business."""

from __future__ import annotations

import logging
import os
import stat
import sys
from pathlib import Path

import pytest

from engine.audio import sync_memory
from engine.paths import annotations_folder, cache_folder, data_folder, expanded, open_private, private_folder
from engine.portrait.annotations import load_annotations, store_annotation
from engine.settings import GeneratorSettings
from engine.stream import pace_memory

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps profiles apart by itself")
DIGEST = "ab" * 32


def rights(path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def _open_umask(monkeypatch, tmp_path):
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    before = os.umask(0o000)
    yield
    os.umask(before)


def test_a_home_of_nobody_is_a_plain_name(tmp_path):
    assert expanded("~/x") == tmp_path / "home" / "x"
    assert expanded(Path("~nobody-of-that/x")) == Path("~nobody-of-that/x")
    assert expanded("shot.png~") == Path("shot.png~")


def test_folders_are_made_for_one_user(tmp_path):
    private_folder(tmp_path / "a" / "b")
    assert rights(tmp_path / "a") == rights(tmp_path / "a" / "b") == 0o700


def test_an_older_folder_of_ours_is_closed_and_one_of_others_left(tmp_path):
    ours, theirs = data_folder() / "portraits", tmp_path / "shared"
    ours.mkdir(parents=True)
    theirs.mkdir()
    private_folder(ours)
    private_folder(theirs)
    assert rights(ours) == 0o700 and rights(theirs) == 0o777


def test_a_file_is_private_even_where_an_open_one_was(tmp_path):
    path = tmp_path / "a"
    path.write_text("old and longer")
    with open_private(path) as file:
        file.write("é")
    assert rights(path) == 0o600 and path.read_text(encoding="utf-8") == "é"


def test_a_link_in_the_files_place_is_not_followed(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    open_private(tmp_path / "link").close()
    assert not (tmp_path / "elsewhere").exists() and not (tmp_path / "link").is_symlink()


def test_face_adjustments_are_private():
    store_annotation(DIGEST, "puppet", "{}")
    assert [rights(path) for path in annotations_folder().iterdir()] == [0o600]
    assert rights(annotations_folder()) == rights(annotations_folder().parent) == 0o700


def test_an_adjustment_that_cannot_be_read_is_ignored(caplog):
    store_annotation(DIGEST, "puppet", "{}")
    (annotations_folder() / f"{DIGEST}.other.json").write_bytes(b"\xff")
    with caplog.at_level(logging.WARNING):
        assert load_annotations(DIGEST) == {"puppet": "{}"}
    assert "other.json" in caplog.text


def test_what_was_measured_is_private():
    pace_memory.remember(GeneratorSettings(name="x"), 1.0)
    sync_memory.remember_ms("Speakers", "ALSA", 12.0)
    assert pace_memory.recall(GeneratorSettings(name="x")) == 1.0 and sync_memory.recall_ms("Speakers", "ALSA") == 12.0
    files = [cache_folder() / "pace.json", data_folder() / "sync.json"]
    assert {rights(path) for path in files} == {0o600} and {rights(path.parent) for path in files} == {0o700}
