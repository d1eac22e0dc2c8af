"""The user's pictures: copied in, shown, put aside and taken back; the originals are never touched."""

from __future__ import annotations

import stat
import struct
import sys
import zlib

import pytest
from PIL import Image
from PySide6.QtGui import QColor, QImage

from app.controllers.portrait_library import THUMBNAIL_PX, PortraitLibrary


@pytest.fixture
def library(qapp, tmp_path):
    library = PortraitLibrary(tmp_path / "portraits")
    yield library
    library.wait()


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "me.jpg"
    Image.new("RGB", (400, 300), "#336699").save(path)
    return path


def _add(qtbot, library, path):
    with qtbot.waitSignal(library.added, timeout=10_000) as added:
        library.add_file(str(path))
    return added.args[0]


def test_samples_come_first_and_own_pictures_are_copies(qtbot, library, picture):
    entry = _add(qtbot, library, picture)
    assert [e.is_sample for e in library.entries()] == [True] * (len(library.entries()) - 1) + [False]
    assert entry.title == "me" and entry.path.read_bytes() == picture.read_bytes() and entry.path != picture
    assert _add(qtbot, library, picture) == entry, "the same picture twice is one"


def test_a_removed_picture_can_be_taken_back(qtbot, library, picture):
    entry = _add(qtbot, library, picture)
    library.remove(entry.ref)
    assert not entry.path.exists()
    assert picture.exists() and all(e.is_sample for e in library.entries())
    with qtbot.waitSignal(library.added, timeout=10_000) as added:
        library.restore(entry.ref)
    assert added.args[0] == entry and entry.path.read_bytes() == picture.read_bytes()


def test_removed_pictures_go_for_good_with_the_next_opening(qtbot, library, picture):
    entry = _add(qtbot, library, picture)
    library.remove(entry.ref)
    library.wait()
    assert list(library.folder.rglob("*.jpg")) != []
    again = PortraitLibrary(library.folder)
    qtbot.waitUntil(lambda: list(library.folder.iterdir()) == [], timeout=10_000)
    again.wait()


def test_a_picture_removed_before_the_worker_gets_going_can_be_taken_back(qtbot, library, picture, monkeypatch):
    """What the last opening left goes nevertheless."""
    old = _add(qtbot, library, picture)
    library.remove(old.ref)
    new = _add(qtbot, library, picture)
    library.wait()
    kept, run = [], PortraitLibrary._run
    monkeypatch.setattr(PortraitLibrary, "_run", lambda _library, work: kept.append(work))
    again = PortraitLibrary(library.folder)
    monkeypatch.setattr(PortraitLibrary, "_run", run)
    again.remove(new.ref)
    for work in kept:
        work()
    again.restore(new.ref)
    again.wait()
    assert [path for path in library.folder.rglob("*") if path.is_file()] == [new.path]


def test_what_could_not_be_discarded_goes_with_a_later_opening(qtbot, library, picture, monkeypatch):
    """The window was closed before the worker had come to it."""
    entry = _add(qtbot, library, picture)
    library.remove(entry.ref)
    library.wait()
    with monkeypatch.context() as patch:
        patch.setattr(PortraitLibrary, "_run", lambda *_: None)
        PortraitLibrary(library.folder).wait()
    assert list(library.folder.rglob("*.jpg")) != []
    again = PortraitLibrary(library.folder)
    qtbot.waitUntil(lambda: list(library.folder.iterdir()) == [])
    again.wait()


def test_removing_a_sample_or_a_file_elsewhere_does_nothing(library, picture):
    library.remove("sample:maya")
    library.remove(str(picture))
    library.wait()
    assert picture.exists()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("none.png", None, "none.png is not a file."),
        ("text.png", b"no picture", "text.png is not a picture that can be read."),
        ("empty.jpg", b"", "empty.jpg is not a picture that can be read."),
    ],
)
def test_what_is_no_picture_is_refused_in_one_sentence(qtbot, library, tmp_path, name, data, message):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with qtbot.waitSignal(library.refused, timeout=10_000) as refused:
        library.add_file(str(tmp_path / name))
    assert refused.args[0] == message and refused.args[1]


def _chunk(content: bytes) -> bytes:
    return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))


def test_huge_pictures_are_refused_before_they_are_decoded(qtbot, library, tmp_path):
    header = struct.pack(">II5B", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR" + header) + _chunk(b"IDAT" + zlib.compress(bytes(100)))
    (tmp_path / "huge.png").write_bytes(data)
    with qtbot.waitSignal(library.refused, timeout=20_000) as refused:
        library.add_file(str(tmp_path / "huge.png"))
    assert refused.args[0] == "huge.png is too large (30000 x 30000)."


def test_a_pasted_picture_is_kept(qtbot, library):
    image = QImage(300, 300, QImage.Format.Format_RGB32)
    image.fill(QColor("#123456"))
    with qtbot.waitSignal(library.added, timeout=10_000) as added:
        library.add_image(image)
    assert QImage(str(added.args[0].path)).pixelColor(5, 5) == QColor("#123456")


def test_pictures_are_upright_and_reduced_but_never_enlarged(qtbot, library, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (1200, 600)).save(tmp_path / "turned.jpg", exif=exif)
    entry = _add(qtbot, library, tmp_path / "turned.jpg")
    with qtbot.waitSignal(library.thumbnail_ready, timeout=10_000) as thumbnail:
        library.request_thumbnail(entry)
    assert (thumbnail.args[1].width(), thumbnail.args[1].height()) == (THUMBNAIL_PX, 2 * THUMBNAIL_PX)
    with qtbot.waitSignal(library.picture_ready, timeout=10_000) as shown:
        library.request_picture(entry)
    assert (shown.args[1].width(), shown.args[1].height()) == (600, 1200)


def test_a_folder_that_cannot_be_written_is_told(qtbot, tmp_path, picture):
    (tmp_path / "portraits").write_text("a file where the folder should be")
    library = PortraitLibrary(tmp_path / "portraits")
    with qtbot.waitSignal(library.refused, timeout=10_000) as refused:
        library.add_file(str(picture))
    assert refused.args[0] == "me.jpg could not be copied."
    image = QImage(30, 30, QImage.Format.Format_RGB32)
    with qtbot.waitSignal(library.refused, timeout=10_000) as refused:
        library.add_image(image)
    assert refused.args[0] == "The pasted picture could not be kept."
    library.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps profiles apart by itself")
def test_own_pictures_are_private(qtbot, library, picture):
    picture.chmod(0o644)
    with qtbot.waitSignal(library.added, timeout=10_000) as pasted:
        library.add_image(QImage(80, 80, QImage.Format.Format_RGB32))
    for entry in (_add(qtbot, library, picture), pasted.args[0]):
        assert stat.S_IMODE(entry.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(library.folder.stat().st_mode) == 0o700
