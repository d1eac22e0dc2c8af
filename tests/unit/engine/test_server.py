"""The control loop on its own: one reply to each command, in order, and an end that cannot be missed."""

from __future__ import annotations

import json
import os
import queue
import threading
import time

import pytest

from engine import doctor
from engine import server as server_module
from engine.diagnosis import fixes
from engine.diagnosis.catalogue import Finding
from engine.errors import CameraError, Cancelled, DeviceError, OutputError
from engine.protocol.codec import decode_event, encode
from engine.protocol.messages import (
    AnalysePortrait,
    ApplyFix,
    CameraDevice,
    DevicesListed,
    DownloadModel,
    Examine,
    Examined,
    Goodbye,
    Hello,
    ListDevices,
    ModelDownloaded,
    Noticed,
    Ping,
    PlanModel,
    PortraitAnalysed,
    Progressed,
    Reason,
    Reply,
    SetCamera,
    SetCanvas,
    SetMuted,
    SetPortrait,
    SetSound,
    SetSource,
    SetTalking,
    SetVoiceOut,
    Shutdown,
    Start,
    StartRecording,
    Stop,
    StopDownload,
    StopRecording,
    SyncMeasured,
    SyncTest,
    TakeSnapshot,
)
from engine.server import Server
from engine.settings import (
    CameraSettings,
    CanvasSettings,
    SessionSettings,
    SilentSource,
    SoundSettings,
    VoiceOutSettings,
)
from engine.sinks import virtual_camera

SETTINGS = SessionSettings(portrait="p.png")


class Broadcast:
    """A session that keeps what it was asked; `gate` holds `start` until it is set."""

    def __init__(self, settings, emit):
        self.settings, self.emit, self.calls = settings, emit, []
        self.has_ended, self.cancelled, self.gate = threading.Event(), threading.Event(), threading.Event()
        self.gate.set()
        self.error = None

    def __getattr__(self, name):
        def call(*arguments, **options):
            self.calls.append((name, arguments, options))
            if name == "start":
                self.gate.wait(20)
            if self.error is not None and name != "stop":
                raise self.error

        return call

    def cancel(self):
        self.cancelled.set()
        self.gate.set()

    def names(self):
        return [name for name, *_ in self.calls]


class Rig:
    """A server between two pipes."""

    def __init__(self):
        reading, writing = os.pipe()
        events_reading, events_writing = os.pipe()
        self.input, self._output = os.fdopen(writing, "wb"), os.fdopen(events_reading, "rb")
        self.exits, self.status, self.broadcasts = [], None, []
        self.events, self._seen = queue.Queue(), []
        self._files = [os.fdopen(reading, "rb"), os.fdopen(events_writing, "wb")]
        self.server = Server(*self._files, exit_now=self.exits.append)
        self._next_id = 1
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._serve, self._read)]
        for thread in self._threads:
            thread.start()

    def _serve(self):
        self.status = self.server.serve()
        self._files[1].close()

    def _read(self):
        for line in self._output:
            self.events.put(decode_event(line))

    def send(self, make, **fields):
        number, self._next_id = self._next_id, self._next_id + 1
        self.write(encode(make(id=number, **fields)))
        return number

    def write(self, data):
        self.input.write(data)
        self.input.flush()

    def next(self, kind):
        """The next event of this kind; others are kept in `_seen`."""
        while True:
            event = self.events.get(timeout=20)
            self._seen.append(event)
            if isinstance(event, kind):
                return event

    def ask(self, make, **fields):
        number = self.send(make, **fields)
        reply = self.next(Reply)
        assert reply.id == number
        return reply.error

    @staticmethod
    def until(condition):
        """Wait for another thread; a bound, not a measurement."""
        deadline_s = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline_s
            time.sleep(0.001)

    def end(self):
        if not self.input.closed:
            self.input.close()
        for thread in self._threads:
            thread.join(20)
        self._files[0].close()
        self._output.close()
        return self.status


@pytest.fixture
def rig(monkeypatch):
    made = Rig()

    def create(settings, emit):
        made.broadcasts.append(Broadcast(settings, emit))
        made.prepare_broadcast(made.broadcasts[-1])
        return made.broadcasts[-1]

    made.prepare_broadcast = lambda broadcast: None
    monkeypatch.setattr(server_module, "Broadcast", create)
    yield made
    made.end()


def test_hello_comes_first_and_goodbye_last(rig):
    hello = rig.next(Hello)
    assert hello.protocol_version == 1 and hello.pid == os.getpid() and "puppet" in hello.generators
    assert rig.end() == 0
    assert isinstance(rig.next(Goodbye), Goodbye) and rig.events.empty()


def test_every_command_reaches_the_session_and_is_answered(rig):
    camera, canvas = CameraSettings(device="/dev/video9"), CanvasSettings(is_mirrored=True)
    assert rig.ask(Start, settings=SETTINGS) is None
    (broadcast,) = rig.broadcasts
    assert broadcast.settings == SETTINGS
    for make, fields, expected in (
        (SetPortrait, {"portrait": "q.png"}, ("set_portrait", ("q.png",), {})),
        (SetSource, {"source": SilentSource()}, ("set_source", (SilentSource(),), {})),
        (SetCamera, {"camera": camera}, ("set_camera", (camera,), {})),
        (SetCamera, {"camera": None}, ("set_camera", (None,), {})),
        (SetVoiceOut, {"voice_out": None}, ("set_voice_out", (None,), {})),
        (SetCanvas, {"canvas": canvas}, ("set_canvas", (canvas,), {})),
        (SetMuted, {"is_muted": True}, ("set_muted", (True,), {})),
        (SetTalking, {"is_talking": True}, ("set_talking", (True,), {})),
        (
            SetSound,
            {"sound": SoundSettings(is_push_to_talk=True)},
            ("set_sound", (SoundSettings(is_push_to_talk=True),), {}),
        ),
        (StartRecording, {"path": "a.mp4"}, ("start_recording", ("a.mp4",), {"may_replace": False})),
        (StopRecording, {}, ("stop_recording", (), {})),
        (TakeSnapshot, {"path": "a.png"}, ("take_snapshot", ("a.png",), {})),
    ):
        assert rig.ask(make, **fields) is None
        assert broadcast.calls[-1] == expected
    assert rig.ask(Stop) is None and broadcast.names()[-1] == "stop"


class Measuring:
    """In the sync test's place: waits for `cancel` if asked to."""

    made = ()

    def __init__(self, voice_out, microphone, *, seconds, is_stored):
        self.asked, self.cancelled = (voice_out, microphone, seconds, is_stored), threading.Event()
        self.made.append(self)

    def run(self, progress):
        progress.update("sync test", 1.0, 8.0, "s")
        if self.asked[2] > 100:
            assert self.cancelled.wait(20)
            raise Cancelled("The sync test was stopped.")
        return SyncMeasured(offset_ms=18.0, spread_ms=1.0, played=7, heard=7, correction_ms=18.0, is_stored=True)

    def cancel(self):
        self.cancelled.set()


@pytest.fixture
def measuring(monkeypatch):
    monkeypatch.setattr(Measuring, "made", [])
    monkeypatch.setattr(server_module.sync_test, "SyncTest", Measuring)
    return Measuring.made


def test_sync_test_tells_what_it_found_before_its_reply(rig, measuring):
    voice_out = VoiceOutSettings(name="Speakers")
    assert rig.ask(SyncTest, voice_out=voice_out, seconds=5.0, is_stored=False) is None
    assert measuring[0].asked == (voice_out, None, 5.0, False)
    kinds = [type(event) for event in rig._seen]
    assert kinds.index(Progressed) < kinds.index(SyncMeasured) < kinds.index(Reply)


def test_sync_test_is_refused_where_others_would_hear_it(rig, measuring):
    assert rig.ask(Start, settings=SETTINGS) is None
    assert rig.ask(SyncTest, voice_out=VoiceOutSettings()).code == "sync.session_running"
    assert measuring == [] and rig.broadcasts[0].names()[-1] != "stop"


@pytest.mark.parametrize("ends_it", [Stop, Shutdown])
def test_running_sync_test_is_ended(rig, measuring, ends_it):
    number = rig.send(SyncTest, voice_out=VoiceOutSettings(), seconds=300.0)
    rig.until(lambda: measuring)
    rig.next(Progressed)
    rig.send(ends_it)
    rig.until(lambda: measuring[0].cancelled.is_set())
    replies = [rig.next(Reply), rig.next(Reply)]
    assert next(reply for reply in replies if reply.id == number).error.code == "cancelled"


def test_without_a_session_changes_are_refused_and_stop_is_not(rig):
    for make, fields in ((SetPortrait, {"portrait": "x"}), (SetMuted, {"is_muted": True}), (StopRecording, {})):
        assert rig.ask(make, **fields).code == "session.none"
    assert rig.ask(Stop) is None and rig.ask(Ping) is None


def test_second_start_is_refused_and_a_later_one_is_not(rig):
    assert rig.ask(Start, settings=SETTINGS) is None
    assert rig.ask(Start, settings=SETTINGS).code == "session.running"
    assert rig.ask(Stop) is None
    assert rig.ask(Start, settings=SETTINGS) is None and len(rig.broadcasts) == 2


def test_failed_start_is_answered_and_leaves_no_session(rig):
    rig.prepare_broadcast = lambda b: setattr(
        b, "error", CameraError("It is taken.", code="camera.busy", hint="Close.")
    )
    error = rig.ask(Start, settings=SETTINGS)
    assert (error.code, error.message, error.hint) == ("camera.busy", "It is taken.", "Close.")
    rig.prepare_broadcast = lambda b: None
    assert rig.ask(SetMuted, is_muted=True).code == "session.none"
    assert rig.ask(Start, settings=SETTINGS) is None


def test_bug_in_a_command_is_answered_and_the_loop_goes_on(rig, caplog):
    assert rig.ask(Start, settings=SETTINGS) is None
    rig.broadcasts[0].error = ZeroDivisionError("oops")
    error = rig.ask(SetPortrait, portrait="x")
    assert error.code == "internal" and "oops" in error.message and "SetPortrait" in caplog.text
    assert rig.ask(Ping) is None


def test_mute_and_ping_do_not_wait_for_long_work(rig):
    rig.prepare_broadcast = lambda b: b.gate.clear()
    start = rig.send(Start, settings=SETTINGS)
    rig.until(lambda: rig.broadcasts and "start" in rig.broadcasts[0].names())
    assert rig.ask(Ping) is None
    assert rig.ask(SetMuted, is_muted=True) is None
    rig.broadcasts[0].gate.set()
    assert rig.next(Reply).id == start


def test_long_commands_are_executed_in_order(rig):
    rig.prepare_broadcast = lambda b: b.gate.clear()
    numbers = [rig.send(Start, settings=SETTINGS)]
    rig.until(lambda: rig.broadcasts)
    numbers += [rig.send(SetPortrait, portrait=str(n)) for n in range(5)]
    rig.broadcasts[0].gate.set()
    assert [rig.next(Reply).id for _ in numbers] == numbers
    assert [arguments[0] for name, arguments, _ in rig.broadcasts[0].calls if name == "set_portrait"] == list("01234")


def test_stop_cancels_a_start_that_takes_long(rig):
    rig.prepare_broadcast = lambda b: b.gate.clear()
    start = rig.send(Start, settings=SETTINGS)
    rig.until(lambda: rig.broadcasts)
    stop = rig.send(Stop)
    assert [rig.next(Reply).id for _ in range(2)] == [start, stop]
    assert rig.broadcasts[0].cancelled.is_set()


def test_session_that_has_ended_by_itself_is_stopped(rig):
    assert rig.ask(Start, settings=SETTINGS) is None
    first = rig.broadcasts[0]
    first.has_ended.set()
    rig.until(lambda: "stop" in first.names())
    assert rig.ask(Start, settings=SETTINGS) is None, "without a stop of the other side"


def test_end_of_an_old_session_does_not_stop_the_next(rig):
    """It ends at the same moment as the user stops it and starts another: all three wait in the queue."""
    assert rig.ask(Start, settings=SETTINGS) is None
    first = rig.broadcasts[0]
    entered, may_go_on = threading.Event(), threading.Event()
    first.set_portrait = lambda portrait: (entered.set(), may_go_on.wait(20))
    rig.send(SetPortrait, portrait="x")
    assert entered.wait(20)
    rig.send(Stop)
    rig.send(Start, settings=SETTINGS)
    first.has_ended.set()
    rig.until(lambda: rig.server._work.qsize() == 3)
    may_go_on.set()
    for _ in range(3):
        assert rig.next(Reply).error is None
    assert rig.ask(SetPortrait, portrait="y") is None
    assert rig.broadcasts[1].names() == ["start", "set_portrait"]


@pytest.mark.parametrize("how", ["end of input", "shutdown"])
def test_leaving_stops_the_session(rig, how):
    assert rig.ask(Start, settings=SETTINGS) is None
    if how == "shutdown":
        assert rig.ask(Shutdown) is None
    assert rig.end() == 0
    assert rig.broadcasts[0].names() == ["start", "stop"] and rig.broadcasts[0].cancelled.is_set()
    assert isinstance(rig.next(Goodbye), Goodbye)


def test_whatever_hangs_the_process_is_gone_in_time(rig, monkeypatch):
    monkeypatch.setattr(server_module, "_LEAVE_WITHIN_S", 0.05)
    rig.prepare_broadcast = lambda b: setattr(b, "cancel", lambda: None) or b.gate.clear()
    rig.send(Start, settings=SETTINGS)
    rig.until(lambda: rig.broadcasts)
    rig.end()
    rig.until(lambda: rig.exits)
    assert rig.exits == [1]
    rig.broadcasts[0].gate.set()


def test_garbage_is_told_and_a_number_in_it_is_answered(rig):
    rig.write(b"\n   \nnot JSON\n\xff\n[1]\n")
    for _ in range(3):
        assert rig.next(Noticed).reason.code == "protocol"
    rig.write(b'{"type": "fly", "id": 71}\n')
    reply = rig.next(Reply)
    assert reply.id == 71 and reply.error.code == "protocol"
    rig.write(b'{"type": "start", "id": 72, "settings": {"portrait": "p", "fps": 7}}\n')
    reply = rig.next(Reply)
    assert reply.id == 72 and reply.error.code == "usage"
    rig.write(b'{"type": "ping", "id": "x"}\n')
    assert rig.next(Noticed).is_error
    assert rig.ask(Ping) is None


def test_events_of_many_threads_are_whole_lines(rig):
    def tell(name):
        for number in range(200):
            rig.server.emit(Noticed(reason=Reason(code=name, message="x" * number)))

    threads = [threading.Thread(target=tell, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    seen = [rig.next(Noticed).reason for _ in range(800)]
    for thread in threads:
        thread.join()
    for name in "0123":
        assert [len(r.message) for r in seen if r.code == name] == list(range(200))


def test_reader_that_is_gone_is_no_error(rig):
    rig.next(Hello)
    rig._files[1].close()
    rig.server.emit(Noticed(reason=Reason(code="x", message="Nobody hears this.")))
    assert rig.end() == 0


def test_portrait_is_analysed_and_handles_are_stored(rig, tmp_path):
    assert rig.ask(AnalysePortrait, portrait=str(tmp_path / "none.png")).code == "portrait.missing"
    number = rig.send(AnalysePortrait, portrait="sample:maya")
    found = rig.next(PortraitAnalysed)
    assert found.portrait == "sample:maya" and found.has_face and found.width > 500
    assert rig.next(Reply).id == number


def test_devices_with_the_reason_why_there_are_none(monkeypatch):
    def none():
        raise DeviceError("No PortAudio.", code="audio.no_portaudio")

    camera = CameraDevice(device="/dev/video9", label="Cam", backend="v4l2")
    monkeypatch.setattr(server_module, "devices_now", none)
    monkeypatch.setattr(virtual_camera, "list_cameras", lambda: ([camera], None))

    def no_cable(outputs):
        raise DeviceError("There is no cable.", code="voice_out.no_cable")

    monkeypatch.setattr(server_module, "virtual_microphone_label", no_cable)
    found = server_module.list_devices()
    assert found == DevicesListed(
        microphones=[],
        voice_outs=[],
        cameras=[camera],
        audio_reason=Reason(code="audio.no_portaudio", message="No PortAudio."),
        virtual_microphone_reason=Reason(code="voice_out.no_cable", message="There is no cable."),
    )
    monkeypatch.setattr(server_module, "virtual_microphone_label", lambda outputs: "BlackHole 2ch")
    assert server_module.list_devices().virtual_microphone == "BlackHole 2ch"


def test_devices_are_listed_before_the_reply(rig, monkeypatch):
    listed = DevicesListed(microphones=[], voice_outs=[], cameras=[])
    monkeypatch.setattr(server_module, "list_devices", lambda: listed)
    number = rig.send(ListDevices)
    assert rig.next(DevicesListed) == listed and rig.next(Reply).id == number


def test_examination_comes_after_the_reply_and_holds_nothing_up(rig, monkeypatch):
    gate, found = threading.Event(), Finding(name="disk", state="limited", message="Little.", code="disk.low")
    monkeypatch.setattr(doctor, "examine", lambda system: gate.wait(20) and [found])
    assert rig.ask(Examine) is None and rig.ask(Ping) is None
    assert rig.ask(AnalysePortrait, portrait="none.png").code == "portrait.missing", "nor those that wait in line"
    gate.set()
    (finding,) = rig.next(Examined).findings
    assert (finding.name, finding.state, finding.code) == ("disk", "limited", "disk.low")


def test_fix_is_applied_told_and_examined_again(rig, monkeypatch):
    replied = threading.Event()

    def succeed():
        replied.wait(20)
        return "Done."

    def refuse():
        replied.wait(20)
        raise OutputError("No room.", code="output.full")

    monkeypatch.setattr(doctor, "examine", lambda system: [])
    for apply, code, is_error in ((succeed, "doctor.fixed", False), (refuse, "output.full", True)):
        monkeypatch.setitem(fixes.FIXES, "recording.no_folder", fixes.Fix(what="Create it", apply=apply))
        replied.clear()
        assert rig.ask(ApplyFix, code="recording.no_folder") is None
        replied.set()
        noticed = rig.next(Noticed)
        assert (noticed.reason.code, noticed.is_error) == (code, is_error)
        assert rig.next(Examined).findings == []
    assert rig.ask(ApplyFix, code="camera.no_driver").code == "doctor.no_fix"


class EndlessStore:
    """A model store whose downloads end only when they are stopped."""

    def download(self, name, progress):
        while True:
            progress.update("download", 1, 2, "B")
            time.sleep(0.001)


def test_download_holds_nothing_up_and_ends_when_it_is_told(rig):
    rig.server._downloads._make_store = EndlessStore
    assert rig.ask(DownloadModel, name="flashtalk-14b") is None
    assert rig.ask(AnalysePortrait, portrait="none.png").code == "portrait.missing", "others go on"
    assert rig.ask(DownloadModel, name="flashtalk-14b").code == "models.downloading"
    assert rig.ask(Stop) is None, "that ends sessions, not this"
    assert not any(isinstance(event, ModelDownloaded) for event in rig._seen)
    assert rig.send(StopDownload) and rig.next(ModelDownloaded).error.code == "cancelled"


def test_unknown_model_is_refused(rig):
    assert rig.ask(DownloadModel, name="x").code == rig.ask(PlanModel, name="../x").code == "models.unknown"


def test_leaving_ends_a_download(rig):
    rig.server._downloads._make_store = EndlessStore
    rig.ask(DownloadModel, name="flashtalk-14b")
    assert rig.server._downloads._stopping is not None
    rig.input.close()
    rig.until(lambda: rig.server._downloads._stopping is None)


@pytest.mark.parametrize(
    ("line", "number"),
    [({"id": 5}, 5), ({"id": "5"}, None), ({"id": 1.5}, None), ({}, None), ([], None), ({"id": None}, None)],
)
def test_id_in_what_cannot_be_decoded(line, number):
    assert server_module._id_in(json.dumps(line).encode()) == number
    assert server_module._id_in(b"nonsense") is None
