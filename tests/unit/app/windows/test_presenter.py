"""Portraits as a person handles them."""

from __future__ import annotations

import pytest
from PIL import Image
from PySide6.QtCore import Qt

from engine.protocol import messages as m


@pytest.fixture
def application(qtbot, make_window):
    application = make_window(settings="has_microphone = false\nhas_consented = true\n")
    qtbot.waitUntil(lambda: application.broadcast.is_live, timeout=10_000)
    return application


@pytest.fixture
def own(qtbot, application, tmp_path):
    """A picture of the user's own, added and chosen."""
    Image.new("RGB", (300, 300), "#336699").save(tmp_path / "me.png")
    with qtbot.waitSignal(application.library.added, timeout=10_000) as added:
        application.presenter.add_files([str(tmp_path / "me.png")])
    return added.args[0].ref


def test_an_added_picture_is_chosen_and_shown(qtbot, application, own, commands):
    assert application.window.gallery.refs()[-1] == own and application.store.settings.portrait == own
    qtbot.waitUntil(lambda: [c.portrait for c in commands.of(m.SetPortrait)] == [own])


def test_a_removed_picture_comes_back_by_undo(qtbot, application, own):
    window = application.window
    qtbot.keyClick(window.gallery, Qt.Key.Key_Delete)
    assert own not in window.gallery.refs() and application.store.settings.portrait == "sample:maya"
    assert window.banner.message.text() == "me was removed."
    qtbot.mouseClick(window.banner.action_button, Qt.MouseButton.LeftButton)
    assert window.gallery.refs()[-1] == own and application.store.settings.portrait == own


def test_samples_stay(qtbot, application):
    before = application.window.gallery.refs()
    qtbot.mouseClick(application.window.remove_button, Qt.MouseButton.LeftButton)
    assert application.window.gallery.refs() == before
    assert application.window.banner.message.text().startswith("The samples stay")


def test_without_consent_nothing_is_added(qtbot, application, tmp_path, monkeypatch):
    application.broadcast.change(has_consented=False)
    before = application.window.gallery.refs()
    monkeypatch.setattr(application.presenter, "ask_consent", lambda: False)
    application.window.gallery.files_dropped.emit([str(tmp_path / "me.png")])
    qtbot.wait(100)
    assert application.window.gallery.refs() == before and not application.store.settings.has_consented


def test_a_portrait_that_gives_way_to_a_sample_is_no_longer_marked(qtbot, make_window):
    application = make_window("refuses_portrait", settings='has_microphone = false\nportrait = "sample:theo"\n')
    qtbot.waitUntil(lambda: application.broadcast.is_live, timeout=10_000)
    window = application.window
    assert window.gallery.currentItem().text() == window.gallery.item(0).text()
    assert window.banner.message.text() == "The picture is damaged."


def test_settings_are_kept_between_runs(qtbot, application, make_window):
    from app.settings.store import SettingsStore

    window = application.window
    window.mirror_box.click()
    window.resize(1100, 700)
    application.finish()
    kept = SettingsStore(application.store.path).settings
    assert kept.is_preview_mirrored is False and kept.geometry
