"""Features on disk: found again, made again when damaged, never in the way when the disk refuses."""

from __future__ import annotations

import logging
import os
import shutil
import zipfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk import feature_cache  # noqa: E402
from engine.generators.flashtalk.feature_cache import content_key, remember, weights_key  # noqa: E402

FEATURES = torch.arange(12.0).view(3, 4)


class Maker:
    """Counts how often the features had to be made."""

    def __init__(self, features=FEATURES) -> None:
        self.features, self.made = features, 0

    def __call__(self):
        self.made += 1
        return self.features


def test_features_are_made_once(tmp_path):
    make = Maker()
    for _ in range(3):
        assert torch.equal(remember("key", make, tmp_path), FEATURES)
    assert make.made == 1 and [path.name for path in tmp_path.iterdir()] == ["key.safetensors"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_stored_ones_are_the_same_bits(tmp_path, dtype):
    made = torch.randn(5, 6).to(dtype).T  # not contiguous
    first, second = (remember("key", Maker(made), tmp_path) for _ in range(2))
    assert first.dtype == second.dtype == dtype and torch.equal(first, made) and torch.equal(second, made)


def test_they_are_kept_in_the_users_cache_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "cache_folder", lambda: tmp_path / "cache")
    remember("key", Maker())
    assert (tmp_path / "cache" / "flashtalk" / "key.safetensors").is_file()


@pytest.mark.parametrize("damage", ["empty", "cut off", "noise", "another file", "other name", "folder"])
def test_a_damaged_entry_is_made_again(tmp_path, caplog, damage):
    from safetensors.torch import save_file

    path = tmp_path / "key.safetensors"
    remember("key", Maker(), tmp_path)
    whole = path.read_bytes()
    if damage == "other name":
        save_file({"something": FEATURES}, path)
    elif damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes({"empty": b"", "cut off": whole[:-5], "noise": os.urandom(90), "another file": b"{}"}[damage])
    make = Maker()
    with caplog.at_level(logging.WARNING):
        assert torch.equal(remember("key", make, tmp_path), FEATURES)
    assert make.made == 1 and "made again" in caplog.text
    if damage != "folder":
        assert torch.equal(remember("key", make, tmp_path), FEATURES) and make.made == 1


def test_a_full_disk_is_logged_and_leaves_nothing_behind(tmp_path, caplog, monkeypatch):
    def save(tensors, path):
        Path(path).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feature_cache, "save_file", save)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(remember("key", Maker(), tmp_path), FEATURES)
    assert "No space left" in caplog.text and not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_really_full_disk_is_no_error(tmp_path, caplog, monkeypatch):
    """The draft is a link to the device that is always full."""
    draft = tmp_path / f"key.{os.getpid()}.tmp"
    draft.symlink_to("/dev/full")
    with caplog.at_level(logging.WARNING):
        assert torch.equal(remember("key", Maker(), tmp_path), FEATURES)
    assert not draft.is_symlink()


@pytest.mark.parametrize("place", ["file", "below a file"])
def test_a_cache_that_cannot_be_a_folder_is_no_error(tmp_path, caplog, place):
    (tmp_path / "cache").write_bytes(b"")
    folder = tmp_path / "cache" if place == "file" else tmp_path / "cache" / "flashtalk"
    with caplog.at_level(logging.WARNING):
        assert torch.equal(remember("key", Maker(), folder), FEATURES)
    assert "could not be stored" in caplog.text


def test_an_entry_that_may_not_be_touched_is_still_used(tmp_path, monkeypatch):
    """A cache that others own can be read though its times cannot be changed."""
    remember("key", Maker(), tmp_path)

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(feature_cache.os, "utime", refuse)
    make = Maker()
    assert torch.equal(remember("key", make, tmp_path), FEATURES) and make.made == 0


def test_an_error_while_making_is_not_swallowed(tmp_path):
    def fail():
        raise OSError("the weights cannot be read")

    with pytest.raises(OSError, match="the weights"):
        remember("key", fail, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_oldest_go_when_there_are_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "_KEPT", 3)
    for number in range(3):
        remember(f"key{number}", Maker(), tmp_path)
        os.utime(tmp_path / f"key{number}.safetensors", (number, number))
    remember("key0", Maker(), tmp_path)  # used again, so it is no longer the oldest
    remember("key3", Maker(), tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == {"key0", "key2", "key3"}


# -------------------------------------------------------------------------------------------------------------- keys


def test_texts_are_told_apart_from_their_neighbours():
    keys = [
        content_key(*parts)
        for parts in (("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("", "abc"), ("1:a",), ("a",))
    ]
    assert len(set(keys)) == len(keys)
    assert content_key("ab", "c") == keys[0] and len(keys[0]) == 64


def _weights(path: Path, tensor, *, is_zip: bool) -> str:
    torch.save({"weight": tensor}, path, _use_new_zipfile_serialization=is_zip)
    return weights_key(path)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "old pickle"])
def test_the_key_of_weights_is_that_of_their_content(tmp_path, is_zip):
    """Not of the file's name or time; one changed number changes it."""
    tensor = torch.randn(1000)
    one = _weights(tmp_path / "one.pth", tensor, is_zip=is_zip)
    os.utime(tmp_path / "one.pth", (1, 1))
    assert weights_key(tmp_path / "one.pth") == one
    shutil.copy(tmp_path / "one.pth", tmp_path / "other.pth")
    assert weights_key(tmp_path / "other.pth") == one
    tensor[500] += 1e-3
    assert _weights(tmp_path / "one.pth", tensor, is_zip=is_zip) != one
    assert zipfile.is_zipfile(tmp_path / "one.pth") == is_zip


def test_a_zip_is_known_by_its_directory(tmp_path):
    """Gigabytes are not read: tensors that are damaged without their checksums do not show."""
    path = tmp_path / "large.pth"
    torch.save({"weight": torch.ones(1 << 20)}, path)
    before = weights_key(path)
    with path.open("r+b") as file:
        file.seek(2 << 20)
        file.write(b"unread")
    assert weights_key(path) == before
