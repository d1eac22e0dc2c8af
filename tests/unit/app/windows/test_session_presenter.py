"""What the window says and allows in each state of the session."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt

from engine.protocol import messages as m

LIVE = "Preview: nobody sees it yet"
WITHOUT_ENGINE = ["mute", "settings", "add"]
WITHOUT_SESSION = ["start", "adjust", "mute", "settings", "add"]
ALL = ["start", "record", "snapshot", "adjust", "mute", "settings", "add"]


@pytest.fixture
def live(qtbot, make_window):
    def begin(mode="obedient", **options):
        application = make_window(mode, **options)
        qtbot.waitUntil(lambda: application.window.preview.frames > 0, timeout=10_000)
        qtbot.waitUntil(lambda: application.broadcast.is_live)
        return application

    return begin


def _cue(application, name: str) -> None:
    application.client.send(m.SetPortrait, portrait=f"cue:{name}")


def _click(qtbot, button) -> None:
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def _able(window) -> list[str]:
    buttons = ("start", "record", "snapshot", "adjust", "mute", "settings", "add")
    return [name for name in buttons if getattr(window, f"{name}_button").isEnabled()]


def test_before_the_engine_answers(make_window):
    window = make_window("silent").window
    assert (window.state_label.text(), window.start_button.text()) == ("Starting...", "Start virtual camera")
    assert _able(window) == WITHOUT_ENGINE


@pytest.mark.parametrize(
    ("cue", "text"),
    [
        ("live", LIVE), ("holding", "Catching up..."), ("fallback", "Using the simple picture"),
        ("stopping", "Stopping..."),
    ],
)  # fmt: skip
def test_states_of_a_running_session(qtbot, live, cue, text):
    application = live()
    _cue(application, cue)
    qtbot.waitUntil(lambda: application.window.state_label.text() == text)
    assert _able(application.window) == ALL
    assert application.window.air_label.text() == "Off air"


def test_on_air_and_off_again_in_words(qtbot, live):
    window = live().window
    _click(qtbot, window.start_button)
    qtbot.waitUntil(lambda: window.air_label.text() == "● On air")
    assert window.start_button.text() == window.start_button.accessibleName() == "Stop virtual camera"
    assert window.state_label.text() == "In your call, pick the camera “Standin Camera”"
    assert window.preview.accessibleDescription() == "On air"
    _click(qtbot, window.start_button)
    qtbot.waitUntil(lambda: window.air_label.text() == "Off air")
    assert window.start_button.text() == "Start virtual camera" and window.state_label.text() == LIVE


def test_recording_and_muting_in_words(qtbot, live):
    window = live().window
    _click(qtbot, window.record_button)
    qtbot.waitUntil(lambda: window.record_button.text() == "Stop")
    _click(qtbot, window.record_button)
    qtbot.waitUntil(lambda: window.record_button.text() == "Record")
    assert window.banner.message.text() == "Recording kept." and not window.record_button.isChecked()
    _click(qtbot, window.mute_button)
    assert window.mute_button.text() == "Muted"


def test_figures_are_shown_while_it_is_live(qtbot, live):
    application = live(settings="has_microphone = true\n")
    _cue(application, "stats")
    qtbot.waitUntil(lambda: application.window.speaking_label.text() == "Speaking")
    assert application.window.stats_label.text() == "25.0 fps   120 ms behind you   lip sync -3 ms   0 dropped"


def test_a_session_that_ends_twice_says_why_and_can_be_begun_again(qtbot, live):
    application = live()
    window = application.window
    application.broadcast._again.setInterval(600_000)  # until the test lets it
    _click(qtbot, window.start_button)
    qtbot.waitUntil(lambda: window.air_label.text() == "● On air")
    _cue(application, "fault")
    fault = "The session ended because of an internal error in its pacer part."
    qtbot.waitUntil(lambda: window.state_label.text() == "Stopped")
    assert (window.banner.message.text(), window.banner.hint.text()) == (fault, "The picture is being started again.")
    assert window.air_label.text() == "Off air" and window.stats_label.text() == ""
    assert window.preview.waiting_text == "The picture is being started again..."
    assert _able(window) == WITHOUT_SESSION
    application.broadcast._again.start(0)
    qtbot.waitUntil(lambda: window.air_label.text() == "● On air")
    qtbot.waitUntil(lambda: not window.preview.is_waiting)
    _cue(application, "fault")
    qtbot.waitUntil(lambda: window.banner.action_button.text() == "Start again")
    assert window.banner.message.text() == fault and window.start_button.text() == "Start virtual camera"
    assert window.air_label.text() == "Off air"
    qtbot.waitUntil(lambda: window.preview.waiting_text == "The picture has stopped.")
    _click(qtbot, window.banner.action_button)
    qtbot.waitUntil(lambda: application.broadcast.is_live)
    assert not window.banner.isVisible() and window.air_label.text() == "Off air"


@pytest.mark.parametrize("cue", ["fault", "exit"])
def test_a_recording_that_ends_with_the_session_is_named(qtbot, live, cue, monkeypatch):
    monkeypatch.setattr("app.windows.presenter._new_file", lambda _suffix: "/videos/clip.mp4")
    application = live()
    window = application.window
    _click(qtbot, window.record_button)
    qtbot.waitUntil(lambda: window.record_button.text() == "Stop")
    _cue(application, cue)
    qtbot.waitUntil(lambda: "/videos/clip.mp4" in window.banner.hint.text(), timeout=10_000)
    assert window.record_button.text() == "Record"
    qtbot.waitUntil(lambda: application.broadcast.is_live, timeout=10_000)
    assert window.banner.isVisible()
    _cue(application, "fault")
    qtbot.waitUntil(lambda: "internal error" in window.banner.message.text())
    qtbot.wait(100)
    assert "clip.mp4" not in window.banner.hint.text(), "told once"


def test_a_failed_start_offers_another_try(qtbot, make_window, commands):
    application = make_window("refuses_start")
    window = application.window
    qtbot.waitUntil(lambda: window.banner.action_button.text() == "Try again", timeout=10_000)
    assert window.banner.message.text() == "The test refuses that."
    assert (window.state_label.text(), _able(window)) == ("Stopped", WITHOUT_SESSION)
    _click(qtbot, window.banner.action_button)
    qtbot.waitUntil(lambda: len(commands.of(m.Start)) == 2)


def test_a_lost_engine_is_told_without_its_trace(qtbot, live):
    application = live()
    window = application.window
    _click(qtbot, window.start_button)
    qtbot.waitUntil(lambda: window.air_label.text() == "● On air")
    with qtbot.waitSignal(application.client.lost):
        _cue(application, "exit")
    assert window.banner.message.text() == "The engine ended with code 7."
    assert window.air_label.text() == "Off air" and window.state_label.text() == "Restarting the engine..."
    assert window.start_button.text() == "Stop virtual camera" and window.start_button.isEnabled()
    assert _able(window) == ["start", *WITHOUT_ENGINE]
    qtbot.waitUntil(lambda: window.air_label.text() == "● On air", timeout=10_000)
    assert not window.banner.isVisible()


def test_an_engine_that_dies_again_and_again_keeps_its_banner(qtbot, make_window):
    application = make_window("dies")
    application.client._pause_ms = 20
    with qtbot.waitSignals([application.client.lost] * 3, timeout=10_000):
        pass
    window = application.window
    assert window.banner.message.text() == "The engine ended with code 1."
    assert "Traceback" not in window.banner.accessibleName()


def test_an_engine_of_another_version_is_named_and_nothing_can_be_started(qtbot, make_window):
    window = make_window("other_version").window
    qtbot.waitUntil(lambda: window.banner.isVisible(), timeout=10_000)
    assert window.banner.message.text() == "The engine belongs to another version of Standin."
    assert window.banner.hint.text() == "Install Standin again."
    assert window.state_label.text() == "The engine cannot be used" and _able(window) == WITHOUT_ENGINE
    assert window.preview.is_waiting


def test_refusals_are_sentences(qtbot, live):
    application = live()
    application.broadcast.failed.emit("snapshot", m.Reason(code="output.full", message="The disk is full."))
    assert application.window.banner.message.text() == "The disk is full."
    application.window.set_recording(True)
    application.broadcast.failed.emit("recording", m.Reason(code="output.full", message="The disk is full."))
    assert application.window.record_button.text() == "Record"


def test_voice_that_is_late_is_told_in_a_call_and_else_made_good_at_once(qtbot, live):
    application = live()
    application.broadcast.change(has_voice_out=True, voice_out="One")
    told = m.Noticed(reason=m.Reason(code="voice_out.too_slow", message="Your voice is late.", hint="So it is."))
    _click(qtbot, application.window.start_button)
    qtbot.waitUntil(lambda: application.window.air_label.text() == "● On air")
    application.client.noticed.emit(told)
    assert application.window.banner.message.text() == "Your voice is late." and application.broadcast.is_live
    application.window.banner.close_button.click()
    _click(qtbot, application.window.start_button)
    assert not application.broadcast.is_live, "another session is begun, now that nobody watches"
    qtbot.waitUntil(lambda: application.broadcast.is_live and application.window.state_label.text() == LIVE)
    application.broadcast.change(voice_out="Other")
    application.client.noticed.emit(told)
    assert not application.broadcast.is_live, "it is being begun again"
    assert not application.window.banner.isVisible()
    qtbot.waitUntil(lambda: application.broadcast.is_live)
