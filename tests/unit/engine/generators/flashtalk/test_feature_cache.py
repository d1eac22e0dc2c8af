"""Features on disk: found again, made again when damaged, never in the way when the disk refuses."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk import feature_cache  # noqa: E402
from engine.generators.flashtalk.feature_cache import (  # noqa: E402
    content_key,
    read_entry,
    remember,
    remove_oldest,
    weights_key,
    write_entry,
)
from engine.generators.flashtalk.quantization import tensor_file  # noqa: E402
from engine.generators.flashtalk.quantization.tensor_file import TensorFileWriter  # noqa: E402

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


def _no_room(*_, **__):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("when", ["before", "opening", "in the middle", "at the end"])
def test_a_full_disk_is_logged_and_leaves_nothing_behind(tmp_path, caplog, monkeypatch, when):
    if when == "before":
        monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    elif when == "opening":
        monkeypatch.setattr(tensor_file.os, "open", _no_room)
    elif when == "in the middle":
        monkeypatch.setattr(TensorFileWriter, "write", _no_room)
    else:
        monkeypatch.setattr(tensor_file.os, "fsync", _no_room)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(remember("key", Maker(), tmp_path), FEATURES)
    assert ("are needed" if when == "before" else "No space left") in caplog.text and not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_a_file_that_may_not_grow_is_no_error(tmp_path, caplog):
    """A real error of a real write, as of a full disk."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    large = Maker(torch.zeros(1 << 20))
    with caplog.at_level(logging.WARNING):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
        try:
            assert torch.equal(remember("key", large, tmp_path), large.features)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "could not be stored" in caplog.text and not list(tmp_path.iterdir())


def test_one_flipped_bit_is_noticed(tmp_path, caplog):
    remember("key", Maker(), tmp_path)
    path = tmp_path / "key.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(remember("key", make := Maker(), tmp_path), FEATURES)
    assert make.made == 1 and "checksum differs" in caplog.text


def test_two_writers_of_one_entry_do_not_mix(tmp_path):
    """Each has a draft of its own, whatever the processes' numbers; the last to be done has its name."""
    path = tmp_path / "key.safetensors"
    layout = {"features": (torch.float32, (3, 4))}
    metadata = {"crc32": feature_cache._checksum({"features": FEATURES})}
    one, other = (TensorFileWriter(path, layout, metadata) for _ in range(2))
    for writer in (other, one):
        writer.write("features", FEATURES)
    one.close()
    assert torch.equal(read_entry(path, ("features",))["features"], FEATURES)
    other.close()
    assert torch.equal(read_entry(path, ("features",))["features"], FEATURES)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_drafts_of_killed_writers_are_removed_and_others_are_not(tmp_path):
    old, new = tmp_path / "old.1-ab.tmp", tmp_path / "new.2-cd.tmp"
    for draft in (old, new):
        draft.write_bytes(b"half")
    os.utime(old, (1, 1))
    remember("key", Maker(), tmp_path)
    assert not old.exists() and new.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="rights of another kind")
def test_entries_are_for_this_user_alone(tmp_path):
    before = os.umask(0)
    try:
        remember("key", Maker(), tmp_path / "cache")
    finally:
        os.umask(before)
    assert (tmp_path / "cache" / "key.safetensors").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


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


def test_the_oldest_go_when_they_take_too_much_room(tmp_path):
    for number in range(4):
        assert write_entry(tmp_path / f"{number}.safetensors", {"x": torch.zeros(1000)})
        os.utime(tmp_path / f"{number}.safetensors", (number, number))
    one = (tmp_path / "0.safetensors").stat().st_size
    for most_bytes, left in ((4 * one, "0123"), (4 * one - 1, "123"), (2 * one, "23"), (1, "3")):
        remove_oldest(tmp_path, most_bytes=most_bytes)
        assert {path.stem for path in tmp_path.iterdir()} == set(left)


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
