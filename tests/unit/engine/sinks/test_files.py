"""Files that the user asked for: refused before work begins, explained when writing fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from engine.errors import OutputError
from engine.sinks.files import check_writable, output_error


def _code(path: Path, *, may_replace: bool = False) -> str:
    with pytest.raises(OutputError) as caught:
        check_writable(path, may_replace=may_replace)
    assert caught.value.message.endswith(".") and caught.value.hint
    return caught.value.code


def test_new_file_is_fine_and_nothing_is_left(tmp_path):
    check_writable(tmp_path / "a.mp4", may_replace=False)
    assert list(tmp_path.iterdir()) == []


def test_existing_file_only_if_it_may_be_replaced_and_it_is_untouched(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"precious")
    assert _code(tmp_path / "a.mp4") == "output.exists"
    check_writable(tmp_path / "a.mp4", may_replace=True)
    assert (tmp_path / "a.mp4").read_bytes() == b"precious" and len(list(tmp_path.iterdir())) == 1


def test_folder_in_the_files_place_and_no_folder(tmp_path):
    assert _code(tmp_path) == "output.folder"
    assert _code(tmp_path, may_replace=True) == "output.folder"
    assert _code(tmp_path / "no" / "a.mp4") == "output.no_folder"


def test_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "file").touch()
    assert _code(tmp_path / "file" / "a.mp4") == "output.no_folder"


def test_name_that_the_system_does_not_take(tmp_path):
    for name in ("x" * 300 + ".mp4", "a\0b.mp4"):
        assert _code(tmp_path / name) == "output.failed"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_device_that_is_no_place_for_files():
    assert _code(Path("/proc/standin.mp4")) in ("output.permission", "output.failed")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_folder_that_may_not_be_written_to(tmp_path, monkeypatch, number):
    """As root every folder may be written to, so the system's answer is given here."""

    def refuse(self, *arguments, **options):
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "open", refuse)
    assert _code(tmp_path / "a.mp4") == "output.permission"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "output.disk_full"),
        (getattr(errno, "EDQUOT", errno.ENOSPC), "output.disk_full"),
        (errno.EIO, "output.failed"),
    ],
)
def test_failed_write_is_one_sentence(number, code):
    error = output_error(Path("/films/a.mp4"), OSError(number, os.strerror(number)))
    assert error.code == code and error.message.endswith(".") and "a.mp4" in error.message and error.hint


def test_error_without_a_number_keeps_its_words():
    assert "strange" in output_error(Path("/films/a.mp4"), OSError("strange")).message
