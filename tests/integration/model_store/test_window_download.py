"""FlashTalk chosen in the window on a computer without its model: downloaded there, from a hub on this machine, and
taken up. With the real engine, which begins to start a rank: in line with the tests that use `rank_pools`."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("PySide6", reason="the window needs the gui extra")
pytest.importorskip("torch", reason="FlashTalk needs the gpu extra")

from PySide6.QtCore import Qt

from engine.model_store.store import ModelStore

REPOSITORY = "Soul-AILab/SoulX-FlashTalk-14B"
_WITHIN_MS = 60_000

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="where the models lie is set by XDG_DATA_HOME here")


@pytest.fixture
def models(hub, tiny_checkpoint, tmp_path, monkeypatch) -> ModelStore:
    """The user's own, empty but for the speech encoder: that of the catalogue is known by hash, and not imitated."""
    model, speech = tiny_checkpoint
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    files = [path for path in model.rglob("*") if path.is_file()]
    hub.repositories[REPOSITORY].files = {path.relative_to(model).as_posix(): path.read_bytes() for path in files}
    store = ModelStore(endpoint=hub.address)
    store.register("chinese-wav2vec2-base", speech)
    return store


@pytest.fixture
def application(qtbot, models, tmp_path):
    from app.bootstrap import Application

    settings = tmp_path / "window.toml"
    options = '{\\"size\\": \\"32x32\\", \\"device\\": \\"cpu\\", \\"ranks\\": 1}'
    chosen = f'generator = "flashtalk"\ngenerator_options = "{options}"\n'
    settings.write_text(f"version = 1\nhas_microphone = false\n{chosen}", encoding="utf-8")
    application = Application(settings_path=settings, library_folder=tmp_path / "portraits")
    qtbot.addWidget(application.window)
    application.open()
    yield application
    application.finish()


def test_downloaded_from_the_window_it_is_taken_up(qtbot, application, models, hub, fault):
    window, reasons = application.window, []
    application.client.state_changed.connect(lambda event: reasons.append(event.reason.code))
    qtbot.waitUntil(lambda: window.preview.frames > 5 and window.model_note.isVisible(), timeout=_WITHIN_MS)
    slow = fault(path="models_t5", times=9, piece_bytes=4096, gate_at=4096)
    hub.faults.append(slow)
    qtbot.mouseClick(window.model_note.action_button, Qt.MouseButton.LeftButton)
    page = application.presenter.dialog
    qtbot.waitUntil(page.action_button.isEnabled, timeout=_WITHIN_MS)
    assert "apache-2.0" in page.parts.text() and str(models.folder) in page.room.text()
    qtbot.mouseClick(page.action_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: page.status.text().startswith("Downloading:"), timeout=_WITHIN_MS)
    before = window.preview.frames
    qtbot.waitUntil(lambda: window.preview.frames > before + 3, timeout=_WITHIN_MS)  # the puppet goes on
    assert "session.standby" not in reasons
    slow.gate.set()
    # What was downloaded was looked at and is being loaded, as it is at every other start.
    qtbot.waitUntil(lambda: "session.standby" in reasons, timeout=_WITHIN_MS)
    assert models.state("flashtalk-14b").status == "complete" and not window.model_note.isVisible()
    assert not window.banner.isVisible(), window.banner.accessibleName()
