"""Devices by name and host API, however PortAudio numbers them."""

from __future__ import annotations

import sys
import threading

import pytest

from engine.audio.devices import OpenStream, device_lock, find_device, list_audio_devices, refresh, sound_library
from engine.audio.microphone import Microphone
from engine.audio.voice_out import VoiceOut
from engine.clock import ManualClock
from engine.errors import DeviceError, MicrophoneError, VoiceOutError


@pytest.fixture
def desk(sound):
    """An ordinary desk: two microphones of the same name, one device that is both."""
    sound.plug("Headset", inputs=1, outputs=2, rate_hz=44_100.0)
    sound.plug("Webcam", inputs=2)
    sound.plug("Webcam", inputs=2, rate_hz=16_000.0, host_api=1)
    sound.plug("Speakers", outputs=2)
    sound.default_input, sound.default_output = 1, 3
    refresh()
    return sound


def test_lists_have_what_can_be_heard_and_what_can_be_played_on(desk):
    microphones, outputs = list_audio_devices()
    assert [(d.name, d.host_api, d.channels, d.rate_hz, d.is_default) for d in microphones] == [
        ("Headset", "ALSA", 1, 44_100, False),
        ("Webcam", "ALSA", 2, 48_000, True),
        ("Webcam", "JACK", 2, 16_000, False),
    ]
    assert [(d.name, d.is_default) for d in outputs] == [("Headset", False), ("Speakers", True)]


def test_no_devices_are_no_error(sound):
    assert list_audio_devices() == ([], [])


def test_newly_plugged_device_is_seen(desk):
    desk.plug("New", inputs=1)
    assert "New" in [d.name for d in list_audio_devices()[0]]


def test_list_is_left_alone_while_a_stream_is_open(desk):
    """PortAudio starts again to look again, which would end every stream."""
    OpenStream.opened()
    OpenStream.opened()
    desk.plug("New", inputs=1)
    OpenStream.closed()
    before = desk.restarts
    assert "New" not in [d.name for d in list_audio_devices()[0]] and desk.restarts == before
    OpenStream.closed()
    assert "New" in [d.name for d in list_audio_devices()[0]]


def test_more_closed_than_opened_is_none_open(desk):
    OpenStream.closed()
    OpenStream.opened()
    before = desk.restarts
    refresh()
    assert desk.restarts == before


def test_name_with_host_api_and_without(desk):
    assert find_device("input", "Webcam", "ALSA")[0] == 1
    assert find_device("input", "Webcam", "JACK")[0] == 2
    index, device = find_device("input", "Webcam", "")
    assert index == 1 and device.host_api == "ALSA" and device.rate_hz == 48_000


def test_two_of_the_same_kind_are_the_first_until_it_is_gone(sound):
    for _ in range(2):
        sound.plug("USB Microphone", inputs=1)
    refresh()
    assert find_device("input", "USB Microphone", "ALSA")[0] == 0
    assert [d.name for d in list_audio_devices()[0]] == ["USB Microphone"] * 2
    sound.plugged.pop(0)
    refresh()
    assert find_device("input", "USB Microphone", "ALSA")[0] == 0


def test_indices_that_move_do_not_matter(desk):
    assert find_device("output", "Speakers", "")[0] == 3
    desk.plugged.insert(0, desk.plugged[0] | {"name": "Other"})
    refresh()
    assert find_device("output", "Speakers", "")[0] == 4


def test_empty_name_is_the_systems_default(desk):
    assert find_device("input", "", "")[1].name == "Webcam" and find_device("output", "", "")[1].name == "Speakers"


def test_without_a_default_the_first_of_its_kind(desk):
    desk.default_input = desk.default_output = -1
    refresh()
    assert find_device("output", "", "")[0] == 0
    assert list_audio_devices()[0][0].is_default


def test_direction_counts(desk):
    with pytest.raises(VoiceOutError):
        find_device("output", "Webcam", "")
    with pytest.raises(MicrophoneError):
        find_device("input", "Speakers", "")


def test_unknown_names_say_which_and_where_to_look(desk):
    for name, host_api in (("Nothing", ""), ("Webcam", "ASIO"), ("Web", ""), ("Webcam ", "")):
        with pytest.raises(MicrophoneError) as caught:
            find_device("input", name, host_api)
        assert caught.value.code == "microphone.missing"
        assert name in caught.value.message and "standin devices" in caught.value.hint
    with pytest.raises(VoiceOutError) as caught:
        find_device("output", "Nothing", "")
    assert caught.value.code == "voice_out.missing"


def test_no_device_at_all(sound):
    with pytest.raises(MicrophoneError) as caught:
        find_device("input", "", "")
    assert caught.value.code == "microphone.none"
    with pytest.raises(VoiceOutError) as caught:
        find_device("output", "", "")
    assert caught.value.code == "voice_out.none"


def test_name_that_a_host_api_cut_off_is_found(sound):
    """MME keeps 31 characters; the full name may come from another host API's list."""
    full = "Microphone Array (Realtek(R) Audio Device)"
    sound.plug(full[:31], inputs=2)
    sound.plug("Mic", inputs=1)
    refresh()
    assert find_device("input", full, "")[0] == 0
    with pytest.raises(MicrophoneError):
        find_device("input", "Mic in", "")


def test_exact_name_goes_before_a_cut_one(sound):
    full = "Microphone Array (Realtek(R) Audio Device)"
    sound.plug(full[:31], inputs=2)
    sound.plug(full, inputs=2, host_api=1)
    refresh()
    assert find_device("input", full, "")[0] == 1


YETI = "Blue Yeti: USB Audio (hw:2,0)"


@pytest.mark.parametrize("wanted", ["Blue Yeti", "Blue Yeti: USB Audio", "Blue Yeti: USB Audio (hw:1,0)", YETI])
def test_card_numbers_mean_nothing(sound, wanted):
    """ALSA numbers cards anew at each start of the computer, and where a device is plugged in again."""
    sound.plug("Webcam: USB Audio (hw:1,0)", inputs=1)
    sound.plug(YETI, inputs=2)
    sound.plug("Blue Yetigram (hw:3,0)", inputs=2)
    refresh()
    assert find_device("input", wanted, "")[0] == 1 and find_device("input", wanted, "ALSA")[1].name == YETI


@pytest.mark.parametrize("wanted", ["Blue", "Blue Yet", "Blue Yeti: ", "Yeti", "Mic", "Mic: USB Audio (hw:7,0)"])
def test_words_that_fit_none_or_two_are_no_name(sound, wanted):
    for name in (YETI, "Blue Snowball (hw:3,0)", "Mic: USB Audio (hw:4,0)", "Mic: USB Audio (hw:5,0)"):
        sound.plug(name, inputs=1)
    refresh()
    with pytest.raises(MicrophoneError):
        find_device("input", wanted, "")
    assert find_device("input", "Mic: USB Audio (hw:5,0)", "")[0] == 3, "the exact one goes before"


@pytest.mark.parametrize("make", [lambda: Microphone("Desk"), lambda: VoiceOut("Desk")], ids=["microphone", "output"])
def test_list_is_left_alone_while_a_device_is_being_opened_which_blocks_nobody(sound, make, monkeypatch):
    """A driver may hang for as long as it likes: others find, list, open and close devices meanwhile."""
    sound.plug("Desk", inputs=1, outputs=2)
    refresh()
    device, begun, may_go_on = make(), threading.Event(), threading.Event()
    monkeypatch.setattr(type(sound.InputStream()), "start", lambda self: (begun.set(), may_go_on.wait(10)))
    words = (ManualClock(),) if isinstance(device, Microphone) else ()
    opening = threading.Thread(target=device.start, args=words)
    opening.start()
    assert begun.wait(10)
    restarts, is_done = sound.restarts, []

    def others():
        with device_lock:
            is_done.append(list_audio_devices())
        OpenStream.opened()
        OpenStream.closed()
        is_done.append(find_device("input", "Desk", ""))

    other = threading.Thread(target=others, daemon=True)
    other.start()
    other.join(5)
    may_go_on.set()
    opening.join(10)
    assert len(is_done) == 2 and sound.restarts == restarts
    device.stop()
    refresh()
    assert sound.restarts == restarts + 1


def test_closing_waits_for_nobody_who_holds_the_list(sound):
    OpenStream.opened()
    closing = threading.Thread(target=OpenStream.closed, daemon=True)
    with device_lock:
        closing.start()
        closing.join(5)
        assert not closing.is_alive()


@pytest.mark.parametrize("make", [lambda: Microphone("Desk"), lambda: VoiceOut("Desk")], ids=["microphone", "output"])
def test_whatever_fails_while_opening_nothing_counts_as_open(sound, make):
    sound.plug("Desk", inputs=1, outputs=2)
    refresh()
    device = make()
    sound.refuse_start = MemoryError()
    with pytest.raises(MemoryError):
        device.start(*((ManualClock(),) if isinstance(device, Microphone) else ()))
    device.stop()
    restarts = sound.restarts
    OpenStream.opened()
    refresh()
    assert sound.restarts == restarts, "nor is anything counted twice"
    OpenStream.closed()
    refresh()
    assert sound.restarts == restarts + 1


def test_outputs_index_is_that_of_the_moment_in_which_it_is_opened(sound):
    sound.plug("Speakers", outputs=2)
    refresh()
    voice = VoiceOut("Speakers")
    sound.plugged.insert(0, sound.plugged[0] | {"name": "Other"})
    refresh()
    voice.start()
    assert sound.streams[0].options["device"] == 1
    voice.stop()


def test_missing_portaudio_is_one_sentence(monkeypatch):
    class Broken:
        def find_spec(self, name, *_):
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(DeviceError) as caught:
        sound_library()
    assert caught.value.code == "audio.no_portaudio" and caught.value.hint
