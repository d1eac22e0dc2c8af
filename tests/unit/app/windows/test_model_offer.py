"""FlashTalk is chosen and its model is not there: the puppet goes on, the download is offered, and FlashTalk comes."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt

from app.controllers.model_download import Stage
from engine.protocol import messages as m

CHOSEN = 'has_microphone = false\ngenerator = "flashtalk"\ngenerator_options = "{\\"steps\\": 2}"\n'


@pytest.fixture
def application(qtbot, make_window):
    return _live(qtbot, make_window("no_model", settings=CHOSEN))


def _live(qtbot, application):
    qtbot.waitUntil(lambda: application.broadcast.is_live, timeout=10_000)
    return application


def _cue(application, name: str) -> None:
    application.client.send(m.SetPortrait, portrait=f"cue:{name}")


def _click(qtbot, button) -> None:
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def _page(qtbot, application):
    _click(qtbot, application.window.model_note.action_button)
    page = application.presenter.dialog
    qtbot.waitUntil(lambda: page.status.text().startswith(("It begins", "The download broke")))
    return page


def _downloading(qtbot, application):
    page = _page(qtbot, application)
    _click(qtbot, page.action_button)
    qtbot.waitUntil(lambda: page.status.text() == "Downloading: 50 %")
    return page


def _generators(commands) -> list[str]:
    return [command.settings.generator.name for command in commands.of(m.Start)]


def test_the_puppet_stands_in_and_the_download_is_offered(qtbot, application, commands):
    window, note = application.window, application.window.model_note
    assert _generators(commands) == ["flashtalk", "puppet"] and window.preview.frames >= 0
    assert application.store.settings.generator == "flashtalk", "the wish stays"
    assert note.isVisible() and note.message.text() == "FlashTalk needs its model"
    assert note.hint.text().startswith("The model flashtalk-14b has not been downloaded. The puppet is shown")
    assert not window.banner.isVisible() and commands.of(m.PlanModel) == []
    page = _page(qtbot, application)
    assert "SoulX-FlashTalk 14B" in page.parts.text() and "apache-2.0" in page.parts.text()
    assert "54.4 GB, 20.0 GB of it here already" in page.parts.text()
    assert page.room.text() == "34.8 GB to fetch into /data/models, where 90.0 GB are free."
    assert commands.of(m.DownloadModel) == [], "nobody has agreed yet"


def test_what_was_downloaded_is_taken_up(qtbot, application, commands):
    page = _downloading(qtbot, application)
    assert page.detail.text().startswith("27.4 GB of 54.8 GB.") and page.bar.value() == 500
    page.accept()
    note = application.window.model_note
    assert (note.message.text(), note.hint.text()) == ("FlashTalk is being downloaded", "27.4 GB of 54.8 GB.")
    _cue(application, "arrived")
    qtbot.waitUntil(lambda: _generators(commands) == ["flashtalk", "puppet", "flashtalk"])
    assert commands.of(m.Start)[-1].settings.generator.options == {"steps": 2}
    qtbot.waitUntil(lambda: not note.isVisible() and application.broadcast.is_live)


@pytest.mark.parametrize("how", ["stopped", "asked"])
def test_a_call_is_not_interrupted(qtbot, application, commands, how):
    window = application.window
    _downloading(qtbot, application).accept()
    _click(qtbot, window.start_button)
    qtbot.waitUntil(lambda: window.air_label.text() == "● On air")
    _cue(application, "arrived")
    qtbot.waitUntil(lambda: window.model_note.message.text() == "FlashTalk is ready")
    qtbot.wait(50)
    assert len(commands.of(m.Start)) == 2
    _click(qtbot, window.start_button if how == "stopped" else window.model_note.action_button)
    qtbot.waitUntil(lambda: _generators(commands)[2:] == ["flashtalk"])
    qtbot.waitUntil(lambda: application.broadcast.is_live)
    assert application.broadcast.is_camera_wanted == (how == "asked")


def test_stopped_and_gone_on_with(qtbot, application, commands):
    page = _downloading(qtbot, application)
    _click(qtbot, page.action_button)
    qtbot.waitUntil(lambda: page.status.text() == "Stopped. What has arrived is kept.")
    assert page.action_button.text() == "Go on" and application.broadcast.is_live
    _click(qtbot, page.action_button)
    qtbot.waitUntil(lambda: page.status.text() == "Downloading: 50 %")
    assert len(commands.of(m.DownloadModel)) == 2 and len(commands.of(m.StopDownload)) == 1


def test_a_failure_is_one_sentence_and_another_try(qtbot, application, commands):
    page = _downloading(qtbot, application)
    _cue(application, "broken")
    qtbot.waitUntil(lambda: page.status.text() == "The download broke off: the line is dead.")
    assert page.detail.text().startswith("See that this computer is online.") and "A command" not in page.detail.text()
    assert application.window.model_note.message.text() == "FlashTalk could not be downloaded"
    _click(qtbot, page.action_button)
    qtbot.waitUntil(lambda: len(commands.of(m.DownloadModel)) == 2)


def test_a_server_that_cannot_be_asked(qtbot, make_window, commands):
    application = _live(qtbot, make_window("no_hub", settings=CHOSEN))
    page = _page(qtbot, application)
    assert page.action_button.text() == "Ask again" and not page.parts.isVisible()
    _click(qtbot, page.action_button)
    qtbot.waitUntil(lambda: len(commands.of(m.PlanModel)) == 2)


def test_a_download_goes_on_in_the_next_engine(qtbot, application, commands):
    _downloading(qtbot, application).accept()
    with qtbot.waitSignal(application.client.lost):
        _cue(application, "exit")
    qtbot.waitUntil(lambda: len(commands.of(m.DownloadModel)) == 2, timeout=10_000)
    qtbot.waitUntil(lambda: application.broadcast.is_live, timeout=10_000)
    assert application.presenter._models.download.stage is Stage.DOWNLOADING


def test_the_puppet_chosen_after_all_needs_no_model(qtbot, application, commands):
    application.broadcast.change(generator="puppet", generator_options="{}")
    qtbot.waitUntil(lambda: not application.window.model_note.isVisible())
    qtbot.waitUntil(lambda: _generators(commands) == ["flashtalk", "puppet", "puppet"])


def test_the_settings_page_leads_to_the_download(qtbot, make_window, commands):
    application = _live(qtbot, make_window("no_model"))
    _click(qtbot, application.window.settings_button)
    settings = application.presenter.dialog
    assert not settings.model_button.isVisible()
    application.broadcast.change(generator="flashtalk")
    qtbot.waitUntil(settings.model_button.isVisible, timeout=10_000)
    assert settings.model_button.text() == "Download FlashTalk..."
    _click(qtbot, settings.model_button)
    assert not settings.isVisible() and application.presenter.dialog.windowTitle() == "Download FlashTalk"
