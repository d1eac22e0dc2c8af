"""A cable that is somebody else's: found by its exact name, the better host API first, or named as what to install."""

from __future__ import annotations

import pytest

from engine.audio.virtual_microphone import find_cable
from engine.errors import VoiceOutError
from engine.protocol.messages import AudioDevice


def output(name, host_api="Core Audio"):
    return AudioDevice(name=name, host_api=host_api, channels=2, rate_hz=48_000)


WINDOWS = [
    output("Speakers (Realtek(R) Audio)", "MME"),
    output("CABLE Input (VB-Audio Virtual C", "MME"),
    output("CABLE Input (VB-Audio Virtual Cable)", "Windows DirectSound"),
    output("Speakers (Realtek(R) Audio)", "Windows WASAPI"),
    output("CABLE Input (VB-Audio Virtual Cable)", "Windows WASAPI"),
    output("CABLE Input (VB-Audio Point)", "Windows WDM-KS"),
]


def test_vb_cable_is_taken_through_wasapi_and_its_other_end_is_named():
    cable = find_cable(WINDOWS, "win32")
    assert (cable.device.name, cable.device.host_api) == ("CABLE Input (VB-Audio Virtual Cable)", "Windows WASAPI")
    assert cable.microphone == "CABLE Output (VB-Audio Virtual Cable)"


def test_kernel_streaming_comes_last():
    without = [device for device in WINDOWS if device.host_api in ("Windows WDM-KS", "Windows DirectSound")]
    assert find_cable(without, "win32").device.host_api == "Windows DirectSound"
    assert find_cable(without[1:], "win32").device.host_api == "Windows WDM-KS"


def test_blackhole_with_the_fewest_channels():
    found = find_cable([output("MacBook Pro Speakers"), output("BlackHole 16ch"), output("BlackHole 2ch")], "darwin")
    assert found.device.name == found.microphone == "BlackHole 2ch"
    assert find_cable([output("BlackHole 16ch")], "darwin").microphone == "BlackHole 16ch"


@pytest.mark.parametrize(
    ("platform", "outputs", "name"),
    [
        ("win32", [output("Speakers (CABLE Input)"), output("BlackHole 2ch")], "VB-CABLE"),
        ("darwin", [output("BlackHole"), output("My BlackHole 2ch"), output("CABLE Input")], "BlackHole 2ch"),
    ],
)
def test_without_one_it_says_which_to_install(platform, outputs, name):
    with pytest.raises(VoiceOutError) as caught:
        find_cable(outputs, platform)
    assert caught.value.code == "voice_out.no_cable" and name in caught.value.message
    assert caught.value.hint.startswith("Install it")
