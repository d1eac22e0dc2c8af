"""A device that has another number now is the chosen one."""

from __future__ import annotations

import pytest

from app.widgets.device_picker import DevicePicker

YETI = "Blue Yeti: USB Audio (hw:2,0)"


@pytest.fixture
def picker(qtbot):
    made = DevicePicker("Microphone", "None", "System default")
    qtbot.addWidget(made)
    return made


@pytest.mark.parametrize(
    "choice",
    [(YETI, "ALSA"), (YETI.replace("2", "1"), "ALSA"), (YETI.replace("2", "1"), ""), ("Blue Yeti", "")],
)
def test_chosen_one_is_shown_whatever_its_cards_number(picker, choice):
    picker.choose(choice)
    assert "not connected" in picker.currentText()
    picker.set_devices([("Webcam (hw:1,0)", "ALSA", True), (YETI, "ALSA", False)])
    assert picker.currentText() == YETI and picker.choice == choice and picker.count() == 4


@pytest.mark.parametrize("choice", [("Blue Yeti: USB Audio (hw:1,0)", "JACK"), ("Blue Yeti 2 (hw:2,0)", "ALSA")])
def test_another_device_is_not_connected(picker, choice):
    picker.choose(choice)
    picker.set_devices([(YETI, "ALSA", False)])
    assert picker.currentText() == f"{choice[0]} (not connected)"


def test_nothing_and_the_default_are_themselves(picker):
    for choice, text in (("none", "None"), (("", ""), "System default")):
        picker.choose(choice)
        picker.set_devices([(YETI, "ALSA", False)])
        assert picker.currentText() == text
