"""The record of what a model consists of survives, and nonsense in its place is no record."""

from __future__ import annotations

import json

import pytest

from engine.model_store.lock import try_lock
from engine.model_store.manifest import MANIFEST_NAME, FileRecord, Manifest, read_manifest, write_manifest
from engine.model_store.shelf import Pin, Shelf

MANIFEST = Manifest(
    name="m",
    repository="o/m",
    commit="ab" * 20,
    licence="mit",
    files=(FileRecord(path="a/b.bin", size_bytes=3, sha256="cd" * 32), FileRecord(path="c", size_bytes=4)),
    damaged=("c",),
)


def test_it_is_read_as_it_was_written(tmp_path):
    write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path) == MANIFEST and MANIFEST.size_bytes == 7
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST_NAME], "nothing is left beside it"


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("commit"),
        lambda content: content.update(format=2),
        lambda content: content.update(files=[{"path": "../x", "size_bytes": 1}]),
        lambda content: content.update(files=[1]),
        lambda content: content.update(files=[{"path": "x", "size_bytes": "1"}]),
        lambda content: content.update(surprise=1),
    ],
)
def test_what_cannot_be_trusted_is_no_manifest(tmp_path, change):
    write_manifest(tmp_path, MANIFEST)
    content = json.loads((tmp_path / MANIFEST_NAME).read_text())
    change(content)
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(content))
    assert read_manifest(tmp_path) is None


def test_a_lost_pin_is_the_commit_that_is_there(tmp_path):
    shelf = Shelf(tmp_path, "m")
    assert shelf.pin == Pin()
    (tmp_path / "m" / ("ab" * 20)).mkdir(parents=True)
    (tmp_path / "m" / ("cd" * 20 + ".part")).mkdir()
    assert shelf.pin == Pin(commit="ab" * 20)
    (tmp_path / "m" / "pin.json").write_text('{"commit": "../../etc"}')
    assert shelf.pin == Pin(commit="ab" * 20)


def test_a_lock_has_one_holder(tmp_path):
    path = tmp_path / "deeper" / "a.lock"
    with try_lock(path) as mine:
        assert mine
        with try_lock(path) as second:
            assert not second
    with try_lock(path) as again:
        assert again
