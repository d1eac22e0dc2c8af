"""The sync test from the window: the session makes room, the page says what was found, the session comes back."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt

from engine.protocol import messages as m
from engine.settings import VIRTUAL_MICROPHONE, MicrophoneSource

VIRTUAL = f'has_microphone = false\nhas_voice_out = true\nvoice_out = "{VIRTUAL_MICROPHONE}"\n'
LOUDSPEAKER = 'has_microphone = false\nhas_voice_out = true\nvoice_out = "Loudspeaker"\n'


@pytest.fixture
def open_page(qtbot, make_window):
    """The page for what the settings choose, and its application, live and on air."""

    def open_it(settings):
        application = make_window(settings=settings)
        application.broadcast.set_camera(True)
        qtbot.waitUntil(lambda: application.window.air_label.text() == "● On air", timeout=10_000)
        qtbot.mouseClick(application.window.sync_button, Qt.MouseButton.LeftButton)
        return application, application.presenter.dialog

    return open_it


def test_nothing_can_be_tested_without_an_output(qtbot, make_window):
    application = make_window()
    qtbot.waitUntil(lambda: application.broadcast.is_live, timeout=10_000)
    assert not application.window.sync_button.isEnabled()


def test_the_session_makes_room_and_comes_back_on_air(qtbot, open_page, commands):
    application, page = open_page(VIRTUAL)
    assert not page.microphone.isVisible(), "the virtual microphone is heard at its own other end"
    assert not commands.of(m.SyncTest), "nothing is played before the button is pressed"
    qtbot.mouseClick(page.test_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: page.test_button.text() == "Test again")
    (asked,) = commands.of(m.SyncTest)
    assert asked.voice_out.name == VIRTUAL_MICROPHONE and asked.microphone is None
    assert page.verdict.text() == (
        "Lip sync: +60 ms (the sound is early; people would notice). 7 of 7 clicks heard, spread 2.0 ms."
    )
    assert (
        page.detail.text() == "Stored: from now on this output plays the voice 60 ms later than without a correction."
    )
    assert page.bar.value() == 50 and not page.bar.isVisible()
    qtbot.waitUntil(lambda: application.window.air_label.text() == "● On air")

    def kinds(part: slice) -> list[type]:
        told = [type(command) for command in commands.all()]
        return told[part]

    test = kinds(slice(None)).index(m.SyncTest)
    # The camera is told of before the voice out is asked for.
    qtbot.waitUntil(lambda: m.SetVoiceOut in kinds(slice(test, None)))
    assert m.Stop in kinds(slice(test)) and {m.Start, m.SetCamera, m.SetVoiceOut} <= set(kinds(slice(test, None)))


def test_a_loudspeaker_is_heard_by_the_chosen_microphone(qtbot, open_page, commands):
    _application, page = open_page(LOUDSPEAKER)
    assert page.microphone.isVisible()
    page.microphone.setCurrentIndex(0)
    page.microphone.activated.emit(0)
    qtbot.mouseClick(page.test_button, Qt.MouseButton.LeftButton)
    assert page.verdict.text() == "Choose the microphone that hears the clicks." and not commands.of(m.SyncTest)
    index = page.microphone.findText("Desk microphone")
    page.microphone.setCurrentIndex(index)
    page.microphone.activated.emit(index)
    qtbot.mouseClick(page.test_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: page.test_button.text() == "Test again")
    (asked,) = commands.of(m.SyncTest)
    assert asked.microphone == MicrophoneSource(name="Desk microphone", host_api="ALSA")


def test_a_failed_test_says_why_and_the_session_comes_back(qtbot, open_page):
    application, page = open_page(VIRTUAL)
    application.client.send(m.SetPortrait, portrait="cue:deaf_to_clicks")
    qtbot.mouseClick(page.test_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: page.test_button.text() == "Test again")
    assert (page.verdict.text(), page.detail.text()) == ("The clicks were not heard.", "Turn it up.")
    qtbot.waitUntil(lambda: application.window.air_label.text() == "● On air")


def test_closing_the_page_stops_the_test(qtbot, open_page, commands):
    application, page = open_page(VIRTUAL)
    application.client.send(m.SetPortrait, portrait="cue:patient")
    stops = len(commands.of(m.Stop))
    qtbot.mouseClick(page.test_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(commands.of(m.SyncTest)) == 1)
    page.close_button.click()
    qtbot.waitUntil(lambda: application.window.air_label.text() == "● On air")
    qtbot.waitUntil(lambda: len(commands.of(m.Stop)) == stops + 2)  # the session's and the test's


def test_closing_the_page_before_it_has_begun_stops_nothing_else(qtbot, open_page, commands):
    """A stop that came later would take the next session off the air."""
    application, page = open_page(VIRTUAL)
    stops = len(commands.of(m.Stop))
    qtbot.mouseClick(page.test_button, Qt.MouseButton.LeftButton)
    page.close_button.click()
    qtbot.waitUntil(lambda: len(commands.of(m.Start)) == 2 and application.broadcast.is_live)
    qtbot.waitUntil(lambda: application.window.air_label.text() == "● On air")
    assert len(commands.of(m.Stop)) == stops + 1 and not commands.of(m.SyncTest)


def test_a_test_while_the_session_restarts_takes_its_place(qtbot, open_page, commands):
    """The session is being ended already, to begin with other settings: one stop, one answer, and then the test."""
    application, page = open_page(VIRTUAL)
    stops = len(commands.of(m.Stop))
    application.broadcast._restart()
    qtbot.mouseClick(page.test_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: page.test_button.text() == "Test again")
    assert len(commands.of(m.SyncTest)) == 1 and len(commands.of(m.Stop)) == stops + 1
    qtbot.waitUntil(lambda: application.window.air_label.text() == "● On air")


def test_without_an_engine_the_page_says_so_and_waits_for_nothing(qtbot, open_page, commands):
    application, page = open_page(VIRTUAL)
    application.broadcast.is_ready = False
    qtbot.mouseClick(page.test_button, Qt.MouseButton.LeftButton)
    assert page.test_button.text() == "Test again" and page.test_button.isEnabled()
    assert (page.verdict.text(), page.detail.text()) == ("Standin is starting again.", "Test again in a moment.")
    assert not commands.of(m.SyncTest)
    application.broadcast.is_ready = True


def test_an_engine_that_is_lost_meanwhile_is_told(qtbot, open_page):
    application, page = open_page(VIRTUAL)
    application.client.send(m.SetPortrait, portrait="cue:exit")
    qtbot.mouseClick(page.test_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: page.test_button.text() == "Test again", timeout=10_000)
    qtbot.waitUntil(lambda: application.window.air_label.text() == "● On air", timeout=10_000)


def test_the_virtual_microphone_is_offered_and_named(qtbot, make_window, commands):
    application = make_window()
    window = application.window
    qtbot.waitUntil(lambda: application.broadcast.is_live, timeout=10_000)
    index = window.voice_out.findText("Virtual microphone", Qt.MatchFlag.MatchStartsWith)
    window.voice_out.setCurrentIndex(index)
    window.voice_out.activated.emit(index)
    qtbot.waitUntil(lambda: len(commands.of(m.SetVoiceOut)) == 1)
    assert commands.of(m.SetVoiceOut)[0].voice_out.name == VIRTUAL_MICROPHONE
    assert application.store.settings.voice_out == VIRTUAL_MICROPHONE and window.sync_button.isEnabled()
    application.client.send(m.SetPortrait, portrait="cue:virtual")
    application.client.send(m.SetPortrait, portrait="cue:stats")
    qtbot.waitUntil(lambda: "Standin Microphone" in window.voice_label.text())
    assert window.voice_label.text().startswith("In your call, pick the microphone \u201cStandin Microphone\u201d.")
