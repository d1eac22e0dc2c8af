"""The session kept in line with the wishes, whatever the engine does."""

from __future__ import annotations

import pytest

from engine.protocol import messages as m


class Heard:
    """What a controller says, in order."""

    def __init__(self, broadcast) -> None:
        self.failed, self.over, self.wanted = [], [], []
        broadcast.failed.connect(lambda part, reason: self.failed.append((part, reason.code)))
        broadcast.session_over.connect(lambda reason, again: self.over.append((reason.message, again)))
        broadcast.camera_wanted_changed.connect(self.wanted.append)


@pytest.fixture
def live(qtbot, make_broadcast):
    """A controller whose session is live, and what it says from then on."""

    def begin(mode="obedient", **options):
        client, broadcast = make_broadcast(mode, **options)
        client.start()
        qtbot.waitUntil(lambda: broadcast.is_live, timeout=10_000)
        return client, broadcast, Heard(broadcast)

    return begin


FAULT = "The session ended because of an internal error in its pacer part."


def _cue(client, name: str) -> None:
    client.send(m.SetPortrait, portrait=f"cue:{name}")


def test_begins_with_what_was_kept_and_asks_for_the_devices(qtbot, live, commands):
    live(settings='has_microphone = true\nmicrophone = "Desk"\nportrait = "sample:theo"\ncanvas = "640x360"\n')
    qtbot.waitUntil(lambda: len(commands.all()) == 3)
    start, devices, source = commands.all()
    assert (start.settings.portrait, start.settings.canvas.width, start.settings.has_preview) == (
        "sample:theo", 640, True,
    )  # fmt: skip
    assert isinstance(devices, m.ListDevices) and source.source.name == "Desk"


def test_changes_go_to_the_running_session(qtbot, live, commands):
    _client, broadcast, _heard = live()
    broadcast.change(portrait="sample:theo")
    broadcast.change(fill="crop")
    broadcast.change(theme="dark")
    broadcast.change(has_voice_out=True, voice_out="Speakers")
    qtbot.waitUntil(lambda: len(commands.all()) == 5)
    assert [type(c).__name__ for c in commands.all()[2:]] == ["SetPortrait", "SetCanvas", "SetVoiceOut"]


def test_another_size_begins_a_new_session_without_a_word(qtbot, live, commands):
    _client, broadcast, heard = live()
    broadcast.change(canvas="640x360")
    broadcast.change(portrait="sample:theo")
    qtbot.waitUntil(lambda: broadcast.is_live and len(commands.of(m.Start)) == 2)
    assert len(commands.of(m.Stop)) == 1
    again = commands.of(m.Start)[1].settings
    assert (again.canvas.width, again.portrait) == (640, "sample:theo")
    assert heard.failed == heard.over == []


@pytest.mark.parametrize("mode", ["slow", "cancelled"])
def test_another_size_while_it_starts_is_no_failure(qtbot, make_broadcast, commands, mode):
    client, broadcast = make_broadcast(mode)
    heard = Heard(broadcast)
    with qtbot.waitSignal(client.ready):
        client.start()
    broadcast.change(canvas="640x360")
    qtbot.waitUntil(lambda: broadcast.is_live, timeout=10_000)
    assert [c.settings.canvas.width for c in commands.of(m.Start)] == [1280, 640] and heard.failed == []


def test_a_session_that_ends_by_itself_is_begun_again_once(qtbot, live, commands):
    client, broadcast, heard = live()
    _cue(client, "fault")
    qtbot.waitUntil(lambda: heard.over == [(FAULT, True)])
    qtbot.waitUntil(lambda: broadcast.is_live)
    _cue(client, "fault")
    qtbot.waitUntil(lambda: heard.over == [(FAULT, True), (FAULT, False)])
    qtbot.wait(200)
    assert len(commands.of(m.Start)) == 2 and not broadcast.is_running, "the second end is left to the user"
    broadcast.begin()
    qtbot.waitUntil(lambda: broadcast.is_live)


def test_trust_comes_back_after_a_while(qtbot, live):
    client, broadcast, heard = live(trusted_after_ms=50)
    for count in (1, 2):
        qtbot.waitUntil(lambda: broadcast.is_live)
        qtbot.wait(200)
        _cue(client, "fault")
        qtbot.waitUntil(lambda n=count: len(heard.over) == n)
    assert heard.over == [(FAULT, True)] * 2


def test_the_camera_comes_back_with_the_picture_after_a_fault(qtbot, live, commands):
    client, broadcast, heard = live()
    broadcast.set_camera(True)
    qtbot.waitUntil(lambda: len(commands.of(m.SetCamera)) == 1)
    _cue(client, "fault")
    qtbot.waitUntil(lambda: len(commands.of(m.SetCamera)) == 2, timeout=10_000)
    assert heard.wanted == [True] and heard.failed == []


def test_the_camera_is_given_up_with_the_session(qtbot, live):
    client, broadcast, heard = live()
    broadcast.set_camera(True)
    for count in (1, 2):
        qtbot.waitUntil(lambda: broadcast.is_live)
        _cue(client, "fault")
        qtbot.waitUntil(lambda n=count: len(heard.over) == n)
    assert heard.wanted == [True, False] and not broadcast.is_camera_wanted


def test_a_file_spoken_to_its_end_takes_the_camera_off_air(qtbot, live):
    client, broadcast, heard = live()
    broadcast.set_camera(True)
    _cue(client, "spoken")
    qtbot.waitUntil(lambda: heard.over == [("The session has ended.", True)])
    qtbot.waitUntil(lambda: broadcast.is_live)
    assert heard.wanted == [True, False]


def test_a_failed_start_is_told_and_not_repeated(qtbot, make_broadcast, commands):
    client, broadcast = make_broadcast("refuses_start")
    heard = Heard(broadcast)
    client.start()
    qtbot.waitUntil(lambda: heard.failed == [("start", "test.refused")], timeout=10_000)
    qtbot.wait(300)
    assert len(commands.of(m.Start)) == 1 and heard.over == [] and not broadcast.is_running
    broadcast.change(portrait="sample:theo")
    qtbot.waitUntil(lambda: len(commands.of(m.Start)) == 2)


def test_a_start_that_fails_gives_up_the_camera(qtbot, make_broadcast, commands):
    client, broadcast = make_broadcast("refuses_start")
    heard = Heard(broadcast)
    client.start()
    qtbot.waitUntil(lambda: len(heard.failed) == 1, timeout=10_000)
    broadcast.set_camera(True)
    qtbot.waitUntil(lambda: len(heard.failed) == 2)
    assert heard.wanted == [True, False] and len(commands.of(m.Start)) == 2


def test_a_bad_remembered_portrait_gives_way_to_a_sample(qtbot, make_broadcast, commands):
    client, broadcast = make_broadcast("refuses_portrait", settings='portrait = "/nowhere/me.png"\n')
    heard = Heard(broadcast)
    client.start()
    qtbot.waitUntil(lambda: broadcast.is_live, timeout=10_000)
    assert heard.failed == [("start", "portrait.damaged")]
    assert [c.settings.portrait for c in commands.of(m.Start)] == ["/nowhere/me.png", "sample:"]
    assert broadcast.settings.portrait == "sample:"


def test_muted_before_it_is_live_is_muted_when_it_is(qtbot, make_broadcast, commands):
    client, broadcast = make_broadcast("slow")
    heard = Heard(broadcast)
    with qtbot.waitSignal(client.ready):
        client.start()
    broadcast.set_muted(True)
    qtbot.waitUntil(lambda: len(commands.of(m.SetMuted)) == 1, timeout=10_000)
    assert commands.of(m.SetMuted)[0].is_muted and not commands.of(m.Start)[0].settings.is_muted
    assert heard.failed == []


def test_muted_without_an_engine_is_muted_from_the_first_sample(qtbot, make_broadcast, commands):
    client, broadcast = make_broadcast()
    broadcast.set_muted(True)
    client.start()
    qtbot.waitUntil(lambda: broadcast.is_live, timeout=10_000)
    assert commands.of(m.Start)[0].settings.is_muted


def test_on_air_again_after_a_crash(qtbot, live, commands):
    client, broadcast, heard = live()
    broadcast.set_camera(True)
    _cue(client, "exit")
    with qtbot.waitSignal(client.lost):
        pass
    assert not broadcast.is_ready and not broadcast.is_running
    qtbot.waitUntil(lambda: len(commands.of(m.SetCamera)) == 2, timeout=10_000)
    assert heard.wanted == [True] and len(commands.of(m.Start)) == 2
    assert heard.failed == [], "the loss is told once, by the client"


def test_camera_pressed_while_the_engine_comes_back_starts_one_session(qtbot, make_broadcast, commands):
    client, broadcast = make_broadcast()
    client.start()
    broadcast.set_camera(True)
    qtbot.waitUntil(lambda: len(commands.of(m.SetCamera)) == 1, timeout=10_000)
    assert len(commands.of(m.Start)) == 1


def test_a_camera_that_closes_by_itself_is_no_longer_wanted(qtbot, live):
    client, broadcast, heard = live()
    broadcast.set_camera(True)
    _cue(client, "no_camera")
    qtbot.waitUntil(lambda: heard.wanted == [True, False])
    assert not broadcast.is_camera_wanted


def test_refusals_carry_what_was_tried(qtbot, make_broadcast):
    client, broadcast = make_broadcast("refuses")
    heard = Heard(broadcast)
    with qtbot.waitSignal(client.ready):
        client.start()
    broadcast.record("clip.mp4")
    broadcast.snapshot("shot.png")
    broadcast.analyse("sample:")
    broadcast.store_handles("sample:", {})
    qtbot.waitUntil(lambda: len(heard.failed) == 6)
    parts = {part for part, code in heard.failed if code == "test.refused"}
    assert parts == {"start", "devices", "recording", "snapshot", "analysis", "handles"}


def test_another_camera_chosen_on_air_is_opened_at_once(qtbot, live, commands):
    _client, broadcast, heard = live()
    broadcast.change(camera_device="/dev/video7", camera_backend="v4l2")
    broadcast.set_camera(True)
    broadcast.change(camera_device="/dev/video8", camera_backend="v4l2")
    qtbot.waitUntil(lambda: len(commands.of(m.SetCamera)) == 2)
    assert [c.camera.device for c in commands.of(m.SetCamera)] == ["/dev/video7", "/dev/video8"]
    qtbot.wait(100)
    assert heard.wanted == [True], "the old one closes first, which is no loss"
    broadcast.change(camera_device="/dev/taken")
    qtbot.waitUntil(lambda: heard.failed == [("camera", "camera.busy")])
    assert heard.wanted == [True, False]
