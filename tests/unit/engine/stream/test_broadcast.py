"""A session's life: states, changes while live, failures that are repaired, everything given back."""

from __future__ import annotations

import threading
import time
from functools import partial, partialmethod

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from engine.audio import hotplug, voice_out
from engine.audio.voice_out import DelayLine
from engine.errors import (
    AudioFileError,
    CameraError,
    Cancelled,
    DeviceError,
    GeneratorError,
    MicrophoneError,
    OutputError,
    PortraitError,
    UsageError,
)
from engine.media import Notice
from engine.protocol.messages import (
    CameraChanged,
    Noticed,
    PreviewOpened,
    RecordingChanged,
    SessionState,
    StateChanged,
    Stats,
)
from engine.protocol.shared_memory import FrameReader
from engine.settings import (
    CameraSettings,
    CanvasSettings,
    FileSource,
    GeneratorSettings,
    MicrophoneSource,
    SessionSettings,
    SilentSource,
    SoundSettings,
    VoiceOutSettings,
)
from engine.sinks import virtual_camera
from engine.stream import broadcast as broadcast_module
from engine.stream import director as director_module
from engine.stream import scene as scene_module
from engine.stream.broadcast import Broadcast
from engine.stream.director import Director
from engine.stream.microphone_watch import MicrophoneWatch
from engine.stream.patience import Patience
from engine.stream.runner import GeneratorRunner

SMALL = CanvasSettings(width=640, height=360, fill="solid")


class Session:
    """A broadcast with plain generators, and everything it told."""

    def __init__(self, generator_class, **settings):
        self.events, self.generators = [], []
        self._generator_class = generator_class
        self.prepare_error = None
        self.broadcast = Broadcast(SessionSettings(**{"canvas": SMALL, **settings}), self.events.append)

    def create(self, name, *, seed, fps, options):
        generator = self._generator_class(fps=fps)
        self.generators.append(generator)
        error = self.prepare_error
        if error is not None:
            generator.prepare = lambda *_: (_ for _ in ()).throw(error)
        return generator

    @property
    def states(self):
        return [e.state for e in self.events if isinstance(e, StateChanged)]

    def codes(self, kind=Noticed):
        return [e.reason.code for e in self.events if isinstance(e, kind) and e.reason is not None]

    def until(self, condition):
        """Wait for what another thread is about to do; a bound, not a measurement."""
        deadline_s = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline_s, f"still not so; the last events: {self.events[-3:]}"
            time.sleep(0.005)

    def until_presented(self, count=1):
        seen = self.broadcast.stats().presented
        self.until(lambda: self.broadcast.stats().presented >= seen + count)


@pytest.fixture
def portraits(tmp_path):
    """Two pictures."""
    paths = [tmp_path / "red.png", tmp_path / "blue.png"]
    for path, colour in zip(paths, ("red", "blue"), strict=True):
        Image.new("RGB", (96, 64), colour).save(path)
    return paths


@pytest.fixture
def session(portraits, plain_generator, monkeypatch):
    """Makes sessions of the first picture; all stopped afterwards."""
    made = []

    def make(**settings):
        made.append(Session(plain_generator, **{"portrait": str(portraits[0]), **settings}))
        monkeypatch.setattr(scene_module, "create_generator", made[-1].create)
        return made[-1]

    yield make
    for each in made:
        each.broadcast.stop()


def _no_new_threads(before):
    return {t.name for t in threading.enumerate() if t not in before} == set()


def test_suppression_that_is_not_installed_costs_a_notice_and_no_session(session, monkeypatch):
    def refuse():
        raise UsageError("It is not installed.", code="sound.no_suppression")

    monkeypatch.setattr(broadcast_module, "check_suppression", refuse)
    live = session(sound=SoundSettings(has_noise_suppression=True))
    live.broadcast.start()
    live.until_presented()
    assert live.codes() == ["sound.no_suppression"]


def test_mute_empties_the_pipe_once(session, monkeypatch):
    live = session()
    live.broadcast.start()
    live.until_presented()
    emptied = []
    monkeypatch.setattr(live.broadcast._graph, "silence_unpresented", lambda: emptied.append(1))
    for is_muted in (True, True, False, True):
        live.broadcast.set_muted(is_muted)
    assert len(emptied) == 2


def test_talking_and_gate_change_while_live(session):
    live = session(sound=SoundSettings(is_push_to_talk=True))
    live.broadcast.start()
    live.broadcast.set_talking(True)
    assert live.broadcast.stats().is_talking
    live.broadcast.set_talking(False)
    assert not live.broadcast.stats().is_talking
    live.broadcast.set_talking(True)
    live.broadcast.set_sound(SoundSettings())
    assert not live.broadcast.stats().is_talking and live.broadcast.stats().gate_dbfs is None, "no microphone, no gate"
    with pytest.raises(UsageError):
        live.broadcast.set_sound(SoundSettings(has_noise_suppression=True))


def test_from_start_to_stop_and_nothing_left(session):
    before = set(threading.enumerate())
    live = session(has_preview=True)
    live.broadcast.start()
    live.until_presented(5)
    assert live.broadcast.state is SessionState.LIVE
    live.until(lambda: any(isinstance(e, Stats) for e in live.events))
    live.broadcast.stop()
    live.broadcast.stop()
    assert live.states == [SessionState.PREPARING, SessionState.LIVE, SessionState.STOPPING, SessionState.IDLE]
    assert live.generators[0].closed == 1 and _no_new_threads(before)


def test_preview_shows_the_generators_pictures(session):
    live = session(has_preview=True)
    live.broadcast.start()
    opened = next(e for e in live.events if isinstance(e, PreviewOpened))
    reader = FrameReader(opened.memory_name)
    assert (opened.width, opened.height) == (reader.width, reader.height) == (640, 360)
    taken = []
    live.until(lambda: taken.append(reader.newest()) or taken[-1] is not None)
    reader.close()


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"portrait": "/nowhere/x.png"}, PortraitError),
        ({"source": FileSource(path="/nowhere/x.wav")}, AudioFileError),
        ({"recording": "/nowhere/x.mp4"}, OutputError),
        ({"camera": CameraSettings(device="/dev/nowhere")}, CameraError),
        ({"voice_out": VoiceOutSettings(name="Nothing At All")}, DeviceError),
    ],
)
def test_failed_start_gives_everything_back_and_says_why(session, settings, error):
    before = set(threading.enumerate())
    live = session(**settings)
    with pytest.raises(error) as caught:
        live.broadcast.start()
    assert live.states[-1] is SessionState.IDLE
    assert live.codes(StateChanged)[-1] == caught.value.code
    assert live.generators == [], "said before anything was prepared"
    assert _no_new_threads(before)


def test_start_that_fails_late_gives_everything_back(session, plain_source, monkeypatch):
    """A microphone that is busy shows that only when it is started."""
    before, microphone = set(threading.enumerate()), plain_source()

    def start(clock):
        raise MicrophoneError("It is in use.", code="microphone.busy")

    microphone.start = start
    monkeypatch.setattr(broadcast_module, "open_source", lambda _: microphone)
    live = session(has_preview=True)
    with pytest.raises(MicrophoneError):
        live.broadcast.start()
    assert live.codes(StateChanged)[-1] == "microphone.busy" and live.states[-1] is SessionState.IDLE
    assert [g.closed for g in live.generators] == [1] and _no_new_threads(before)


def test_cancelled_start_ends_soon(session):
    live = session()
    live.broadcast.cancel()
    with pytest.raises(Cancelled):
        live.broadcast.start()
    assert live.codes(StateChanged)[-1] == "cancelled" and live.generators[0].closed


def test_changes_need_a_session(session):
    broadcast = session().broadcast
    for change in (
        lambda: broadcast.set_portrait("x.png"),
        lambda: broadcast.set_source(SilentSource()),
        lambda: broadcast.set_muted(True),
        lambda: broadcast.set_camera(None),
        lambda: broadcast.set_voice_out(None),
        lambda: broadcast.start_recording("x.mp4"),
        lambda: broadcast.take_snapshot("x.png"),
    ):
        with pytest.raises(UsageError):
            change()


def test_another_portrait_takes_over_and_the_old_generator_is_closed(session, portraits):
    live = session()
    live.broadcast.start()
    live.until_presented()
    live.broadcast.set_portrait(str(portraits[1]))
    first, second = live.generators
    assert first.closed == 1 and second.closed == 0 and second.portrait.name == "blue"
    live.until_presented()


def test_portrait_that_cannot_be_used_changes_nothing(session, portraits):
    live = session()
    live.broadcast.start()
    live.until_presented()
    with pytest.raises(PortraitError):
        live.broadcast.set_portrait("/nowhere/x.png")
    live.prepare_error = GeneratorError("It does not fit.")
    with pytest.raises(GeneratorError):
        live.broadcast.set_portrait(str(portraits[1]))
    assert [g.closed for g in live.generators] == [0, 1]
    live.until_presented()
    assert live.broadcast.state is SessionState.LIVE


def test_generator_that_cannot_take_over_in_time_is_closed(session, portraits, monkeypatch):
    monkeypatch.setattr(GeneratorRunner, "swap", partialmethod(GeneratorRunner.swap, timeout_s=0.05))
    live = session()
    live.broadcast.start()
    live.until_presented()
    in_chunk, may_end = threading.Event(), threading.Event()
    live.generators[0].during = lambda: (in_chunk.set(), may_end.wait(20))
    assert in_chunk.wait(20)
    with pytest.raises(GeneratorError, match="take over"):
        live.broadcast.set_portrait(str(portraits[1]))
    may_end.set()
    live.until_presented(3)
    assert [g.closed for g in live.generators] == [0, 1]


def test_canvas_may_change_its_look_but_not_its_size(session):
    live = session()
    live.broadcast.start()
    live.broadcast.set_canvas(CanvasSettings(width=640, height=360, fill="solid", is_mirrored=True))
    with pytest.raises(UsageError, match="size"):
        live.broadcast.set_canvas(CanvasSettings())


def test_file_spoken_to_its_end_sets_has_ended(session, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(3200, np.float32), 16_000)
    live = session(source=FileSource(path=str(tmp_path / "a.wav")))
    live.broadcast.start()
    assert live.broadcast.has_ended.wait(20)
    assert live.broadcast.stats().presented >= 5


def test_source_that_cannot_be_opened_leaves_the_old_one(session, tmp_path):
    live = session()
    live.broadcast.start()
    with pytest.raises(AudioFileError):
        live.broadcast.set_source(FileSource(path=str(tmp_path / "none.wav")))
    live.until_presented(3)


def test_recording_and_snapshot(session, tmp_path):
    live = session()
    live.broadcast.start()
    live.until_presented()
    with pytest.raises(UsageError, match="Nothing"):
        live.broadcast.stop_recording()
    live.broadcast.start_recording(str(tmp_path / "a.mp4"))
    with pytest.raises(UsageError, match="already"):
        live.broadcast.start_recording(str(tmp_path / "b.mp4"))
    live.until_presented(5)
    picture = live.broadcast.take_snapshot(str(tmp_path / "a.png"))
    with Image.open(picture) as image:
        assert image.size == (640, 360)
    live.broadcast.stop_recording()
    changes = [(e.is_recording, e.reason) for e in live.events if isinstance(e, RecordingChanged)]
    assert changes == [(True, None), (False, None)] and (tmp_path / "a.mp4").stat().st_size > 500


def test_microphone_that_is_gone_is_told_once_and_the_portrait_rests(session, plain_source, monkeypatch):
    microphone, real = plain_source(), broadcast_module.open_source
    monkeypatch.setattr(
        broadcast_module, "open_source", lambda s: microphone if isinstance(s, MicrophoneSource) else real(s)
    )
    live = session(source=MicrophoneSource(name="plain"))
    live.broadcast.start()
    live.until_presented()
    microphone.has_ended = True
    live.until(lambda: live.codes() == ["microphone.lost"])
    live.until_presented(10)
    assert microphone.stopped == 1 and not live.broadcast.has_ended.is_set()
    assert live.codes() == ["microphone.lost"] and live.broadcast.state is SessionState.LIVE


@pytest.fixture
def yeti(plain_source, monkeypatch):
    """Microphones in the order in which they are opened; the last one again and again. Nothing is really looked for."""
    made, real = [], broadcast_module.open_source

    class Heard(plain_source):
        def read(self):
            return super().read() or self.say(np.zeros(160), time.monotonic())

    def open_source(source):
        if not isinstance(source, MicrophoneSource):
            return real(source)
        made.append(Heard())
        return made[-1]

    monkeypatch.setattr(broadcast_module, "open_source", open_source)
    monkeypatch.setattr(broadcast_module.Broadcast, "_renew_devices", lambda self: None)
    quick = partial(hotplug.Waiter, first_try_s=0.01, every_s=0.01)
    monkeypatch.setattr(MicrophoneWatch.__init__, "__kwdefaults__", {"waiter": quick})
    return made


def test_microphone_that_is_back_is_listened_to_again(session, yeti):
    live = session(source=MicrophoneSource(name="plain"))
    live.broadcast.start()
    for count in (1, 2):
        yeti[-1].has_ended = True
        live.until(lambda count=count: live.codes().count("microphone.back") == count)
        assert live.broadcast._graph.listener.source is yeti[-1] and yeti[-1].stopped == 0
    assert live.codes() == ["microphone.lost", "microphone.back"] * 2
    assert [microphone.stopped for microphone in yeti[:-1]] == [1] * (len(yeti) - 1), "the others are given back"


def test_who_chooses_another_source_is_not_given_the_old_microphone_back(session, yeti):
    live = session(source=MicrophoneSource(name="plain"))
    live.broadcast.start()
    held = live.broadcast._devices_lock
    with held:
        yeti[0].has_ended = True
        time.sleep(0.3)  # the watch may not look now
        live.broadcast._microphone.look(live.broadcast._graph.listener)
        live.until(lambda: len(yeti) > 1)
        live.broadcast.set_source(SilentSource())
    live.until_presented(5)
    assert live.codes() == ["microphone.lost"] and live.broadcast._graph.listener.source not in yeti
    live.until(lambda: all(microphone.stopped for microphone in yeti))


def test_voice_out_that_is_gone_is_told_once_and_the_picture_goes_on(session, monkeypatch):
    class Voice:
        label, microphone, has_failed, stopped = "Speakers", "", False, 0

        def __init__(self, name, host_api):
            self.asked, self.line = (name, host_api), DelayLine(48_000)

        def start(self):
            pass

        def stop(self):
            self.stopped += 1

    monkeypatch.setattr(voice_out, "VoiceOut", Voice)
    live = session(voice_out=VoiceOutSettings(name="Speakers", host_api="ALSA"))
    live.broadcast.start()
    voice = live.broadcast._voice
    assert voice.asked == ("Speakers", "ALSA")
    live.until(lambda: live.broadcast.stats().voice_queue_ms > 0)
    voice.has_failed = True
    live.until(lambda: live.codes() == ["voice_out.lost"])
    live.until_presented(10)
    assert live.codes() == ["voice_out.lost"] and voice.stopped == 1
    assert live.broadcast.stats().voice_queue_ms == 0 and live.broadcast.state is SessionState.LIVE


def test_muted_from_the_start_and_while_live(session, plain_source, monkeypatch):
    """The generator hears nothing of a loud microphone, and hears it again afterwards."""
    microphone = plain_source()
    position = 0

    def read():
        nonlocal position
        count = int((time.monotonic() - started_s) * 16_000) - position
        if count <= 0:
            return None
        position += count
        microphone.say(np.full(count, 0.5), started_s + (position - count) / 16_000)
        return microphone.blocks.pop()

    microphone.read = read
    monkeypatch.setattr(broadcast_module, "open_source", lambda _: microphone)
    live = session(is_muted=True)
    started_s = time.monotonic()
    live.broadcast.start()

    def heard():
        return [bool(chunk.samples.any()) for chunk in live.generators[0].chunks]

    live.until(lambda: len(heard()) >= 10)
    assert not any(heard())
    live.broadcast.set_muted(False)
    live.until(lambda: any(heard()))
    live.broadcast.set_muted(True)
    seen = len(heard()) + 5
    live.until(lambda: len(heard()) >= seen + 5)
    assert not any(heard()[seen:])


class Camera:
    """A virtual camera that takes everything."""

    name, backend = "camera", "test"

    def __init__(self, device):
        self.device, self.label = device, device.upper()
        self.is_open, self.frames = False, 0

    def open(self, canvas):
        self.is_open = True

    def send(self, frame):
        self.frames += 1

    def close(self):
        self.is_open = False


@pytest.fixture
def cameras(monkeypatch):
    """The cameras that were opened; "a" and "b" exist, each for one at a time."""
    opened = []

    def open_camera(settings):
        device = settings.device or "a"
        if device not in ("a", "b"):
            raise CameraError("There is no such camera.", code="camera.missing")
        if any(c.is_open and c.device == device for c in opened):
            raise CameraError("It is in use.", code="camera.busy")
        opened.append(Camera(device))
        return opened[-1]

    monkeypatch.setattr(virtual_camera, "open_camera", open_camera)
    return opened


def test_camera_of_the_settings_is_fed_and_released(session, cameras):
    live = session(camera=CameraSettings(device="a"))
    live.broadcast.start()
    live.until(lambda: cameras[0].frames >= 3)
    live.broadcast.stop()
    changes = [(e.is_open, e.label) for e in live.events if isinstance(e, CameraChanged)]
    assert changes == [(True, "A"), (False, "")] and not cameras[0].is_open


def test_cameras_change_while_live(session, cameras):
    live = session()
    live.broadcast.start()
    for device in ("a", "b", "b", ""):
        live.broadcast.set_camera(CameraSettings(device=device))
        live.until(lambda: cameras[-1].frames >= 2)
        assert sum(c.is_open for c in cameras) == 1
    live.broadcast.set_camera(None)
    assert [c.device for c in cameras] == ["a", "b", "b", "a"] and not any(c.is_open for c in cameras)


def test_camera_that_does_not_exist_leaves_the_one_in_use(session, cameras):
    live = session(camera=CameraSettings(device="a"))
    live.broadcast.start()
    with pytest.raises(CameraError, match="no such"):
        live.broadcast.set_camera(CameraSettings(device="c"))
    seen = cameras[0].frames
    live.until(lambda: cameras[0].frames >= seen + 2)
    assert cameras[0].is_open


def test_camera_that_fails_is_taken_away_and_the_picture_goes_on(session, cameras):
    live = session(camera=CameraSettings(device="a"), has_preview=True)
    live.broadcast.start()
    live.until(lambda: cameras[0].frames >= 1)

    def fail(frame):
        raise CameraError("It is gone.", code="camera.gone")

    cameras[0].send = fail
    live.until(lambda: any(isinstance(e, CameraChanged) and not e.is_open for e in live.events))
    assert live.codes() == ["camera.gone"] and not cameras[0].is_open
    live.until_presented(3)
    assert set(live.broadcast.stats().sinks) == {"preview"}


@pytest.fixture
def impatient(monkeypatch):
    """Repairs begin at once; the waits that would have been are kept."""
    waits = []

    class Impatient(Patience):
        def failed(self, frame):
            waits.append(super().failed(frame))
            return 0.0

        def recovered(self, frame):
            waits.append("recovered")
            super().recovered(frame)

    monkeypatch.setattr(director_module, "Patience", Impatient)
    return waits


def _break(generator):
    generator.during = lambda: (_ for _ in ()).throw(ValueError("out of beans"))


def test_failed_generator_is_replaced_by_a_fresh_one(session, impatient, caplog):
    live = session()
    live.broadcast.start()
    live.until_presented()
    _break(live.generators[0])
    live.until(lambda: len(live.generators) == 2 and live.states[-1] is SessionState.LIVE)
    assert live.states[-3:] == [SessionState.LIVE, SessionState.FALLBACK, SessionState.LIVE]
    assert live.codes() == ["generator.internal"] and live.generators[0].closed == 1
    live.until_presented(3)
    assert impatient == [0.5, "recovered"]


def test_repairs_that_fail_wait_longer_each_time(session, impatient, caplog):
    live = session()
    live.broadcast.start()
    live.until_presented()
    live.prepare_error = GeneratorError("Still no beans.")
    _break(live.generators[0])
    live.until(lambda: len(impatient) >= 4)
    live.prepare_error = None
    live.until(lambda: live.states[-1] is SessionState.LIVE)
    waits = impatient[:-1]
    assert waits == sorted(waits) and waits[0] < waits[3] and impatient[-1] == "recovered"
    assert all(g.closed for g in live.generators[1:-1]), "generators that could not be prepared are closed"


def test_stop_during_a_repair_is_final(session, monkeypatch, caplog):
    monkeypatch.setattr(Patience, "failed", lambda *_: 0.2)
    live = session()
    live.broadcast.start()
    live.until_presented()
    _break(live.generators[0])
    live.until(lambda: live.states[-1] is SessionState.FALLBACK)
    live.broadcast.stop()
    live.until(lambda: not any(t.name.startswith("repair") for t in threading.enumerate()))
    assert live.states[-1] is SessionState.IDLE and all(g.closed for g in live.generators)


def test_portrait_chosen_during_a_repair_is_the_one_that_stays(session, portraits, monkeypatch, caplog):
    """The repair began with the old portrait; it must not bring it back."""
    monkeypatch.setattr(Patience, "failed", lambda *_: 0.3)
    live = session()
    live.broadcast.start()
    live.until_presented()
    _break(live.generators[0])
    live.until(lambda: live.states[-1] is SessionState.FALLBACK)
    live.broadcast.set_portrait(str(portraits[1]))
    live.until(lambda: live.states[-1] is SessionState.LIVE)
    assert live.generators[-1].portrait.name == "blue" and live.generators[-1].closed == 0


# ------------------------------------------------------------------------------------------------------- a standby

SLOW = GeneratorSettings(name="slow")


@pytest.fixture
def live_of(portraits, cast):
    """Makes sessions of the first picture with the generators of `cast`; all stopped afterwards."""
    made = []

    def make(**settings):
        made.append(Session(None, **{"portrait": str(portraits[0]), "generator": SLOW, **settings}))
        return made[-1]

    yield make
    for each in made:
        each.broadcast.stop()
    assert all(g.closed == 1 for g in cast.all)


def test_standby_is_a_fallback_until_the_wanted_one_is_live(live_of, cast):
    cast.may_load.clear()
    live = live_of()
    live.broadcast.start()
    live.until_presented(5)
    assert live.states == [SessionState.PREPARING, SessionState.FALLBACK]
    assert live.codes(StateChanged)[-1] == "session.standby" and live.broadcast.stats().generator == "quick"
    delay_ms = live.broadcast.stats().delay_ms
    cast.may_load.set()
    live.until(lambda: live.states[-1] is SessionState.LIVE)
    live.until_presented(10)
    stats = live.broadcast.stats()
    assert stats.generator == "slow" and stats.delay_ms == delay_ms and live.codes() == ["slow.loaded"]


def test_notice_of_a_generator_is_told_and_counted(live_of, cast):
    live = live_of()
    live.broadcast.start()
    live.until(lambda: live.states[-1] is SessionState.LIVE)
    cast.slow[-1].notices = [Notice(code="slow.recovered", message="It was begun anew.")]
    live.until(lambda: "slow.recovered" in live.codes())
    assert live.broadcast.stats().recoveries == 1
    told = [e for e in live.events if isinstance(e, Noticed)]
    assert not any(event.is_error for event in told)


def test_without_a_standby_nothing_is_shown_before_the_wanted_one(live_of, cast):
    live = live_of(has_standby=False)
    live.broadcast.start()
    live.until_presented()
    assert SessionState.FALLBACK not in live.states and cast.quick == []


@pytest.mark.parametrize("is_deaf", [False, True])
def test_stop_does_not_wait_for_a_load_that_never_ends(live_of, cast, monkeypatch, is_deaf):
    """One that listens is cancelled; one that hangs is left behind, and closed when it comes back after all."""
    monkeypatch.setattr(broadcast_module, "_LOADER_TIMEOUT_S", 0.1 if is_deaf else 60.0)
    cast.is_deaf = is_deaf
    cast.may_load.clear()
    live = live_of()
    live.broadcast.start()
    live.until(lambda: len(cast.slow) == 2)
    live.until_presented()
    live.broadcast.stop()
    told = len(live.events)
    assert live.states[-1] is SessionState.IDLE and cast.quick[0].closed == 1 and cast.slow[1].closed == (not is_deaf)
    cast.may_load.set()
    live.until(lambda: cast.slow[1].closed == 1)
    live.until(lambda: not any(t.name == "loader" for t in threading.enumerate()))
    assert live.events[told:] == [], "nothing is told after the end"


def test_generator_in_a_long_chunk_is_closed_when_that_has_ended(live_of, cast, monkeypatch, caplog):
    monkeypatch.setattr(broadcast_module, "_THREAD_TIMEOUT_S", 0.2)
    live = live_of()
    live.broadcast.start()
    live.until(lambda: live.states[-1] is SessionState.LIVE)
    in_chunk, may_end = threading.Event(), threading.Event()
    cast.slow[-1].during = lambda: (in_chunk.set(), may_end.wait(20))
    assert in_chunk.wait(20)
    live.broadcast.stop()
    assert live.states[-1] is SessionState.IDLE and cast.slow[-1].closed == 0
    may_end.set()
    live.until(lambda: all(g.closed for g in cast.all))


def test_news_of_a_take_over_after_the_end_changes_no_state(live_of, cast):
    live = live_of()
    live.broadcast.start()
    live.until_presented()
    live.broadcast.stop()
    told = len(live.events)
    live.broadcast._stage.on_ready()
    live.broadcast._stage.on_standby("session.fallback", "Late.", "")
    assert live.broadcast.state is SessionState.IDLE and live.events[told:] == []


def test_recording_is_complete_before_anybody_waits_for_a_generator(live_of, cast, tmp_path, monkeypatch):
    """Two seconds after the window is gone so is the engine, whatever a load is doing then."""
    cast.may_load.clear()
    live = live_of(recording=str(tmp_path / "a.mp4"))
    live.broadcast.start()
    live.until_presented(5)
    told, join = [], Director.join
    monkeypatch.setattr(Director, "join", lambda *args: (told.append(live.events[-1]), join(*args)))
    live.broadcast.stop()
    assert [(type(event), event.is_recording) for event in told] == [(RecordingChanged, False)]


def test_failed_preparation_of_the_standby_gives_everything_back(live_of, cast):
    before = set(threading.enumerate())
    cast.standby_error = GeneratorError("No.")
    with pytest.raises(GeneratorError):
        live_of().broadcast.start()
    assert _no_new_threads(before)


@pytest.mark.parametrize("attempt", range(5))
def test_state_is_never_live_once_it_is_being_stopped(live_of, cast, attempt):
    """The take-over and the end at the same moment."""
    cast.may_load.clear()
    live = live_of()
    live.broadcast.start()
    live.until(lambda: live.states[-1] is SessionState.FALLBACK)
    cast.may_load.set()
    live.broadcast.stop()
    assert live.states[-2:] == [SessionState.STOPPING, SessionState.IDLE]


def test_recording_is_in_step_before_and_after_the_take_over(live_of, cast, tmp_path):
    """Flashes of the picture against clicks of the sound, decoded from the file."""
    rate_hz, clicks_s = 16_000, [0.4 + 0.52 * index for index in range(9)]
    sound = np.zeros(5 * rate_hz, np.float32)
    for at_s in clicks_s:
        first = round(at_s * 25) * 640
        sound[first : first + 640] = np.sin(np.arange(640) * 2 * np.pi * 1000 / rate_hz) * 0.8
    soundfile.write(tmp_path / "clicks.wav", sound, rate_hz)

    def dress(generator):
        def generate(chunk, frames):
            generator.chunks.append(chunk)
            for frame in range(chunk.first_frame, chunk.first_frame + chunk.frames):
                own = chunk.samples[frame * 640 - chunk.first_sample :][:640]
                frames.next_image()[:] = 255 if np.abs(own).max() > 0.4 else 0
                frames.commit(frame)

        generator.generate = generate

    cast.dress = dress
    cast.may_load.clear()
    live = live_of(source=FileSource(path=str(tmp_path / "clicks.wav")), recording=str(tmp_path / "a.mp4"))
    live.broadcast.start()
    live.until(lambda: live.broadcast.stats().presented > 50)
    cast.may_load.set()
    live.until(lambda: live.states[-1] is SessionState.LIVE)
    assert live.broadcast.has_ended.wait(20)
    stats = live.broadcast.stats()
    live.broadcast.stop()
    assert cast.slow[-1].chunks and cast.quick[0].chunks
    flashes_s, heard_s = _flashes_and_clicks(tmp_path / "a.mp4")
    assert len(heard_s) == len(clicks_s), stats
    # A busy machine may lose some pictures or show them late, but not most of either generator's.
    for part_s in ([at_s for at_s in flashes_s if at_s < 2.0], [at_s for at_s in flashes_s if at_s > 3.5]):
        assert part_s, stats
        assert np.median([min(abs(at_s - click_s) for click_s in heard_s) for at_s in part_s]) < 0.030, stats


def _flashes_and_clicks(path):
    """Where bright pictures and loud sounds begin, in s."""
    with av.open(str(path)) as file:
        bright = [
            (float(f.time), f.to_ndarray(format="gray")[100:260, 200:440].mean() > 128) for f in file.decode(video=0)
        ]
    with av.open(str(path)) as file:
        blocks = [(float(f.time), f.to_ndarray().mean(axis=0), f.sample_rate) for f in file.decode(audio=0)]
    flashes_s = [at_s for (at_s, is_on), (_, was_on) in zip(bright[1:], bright, strict=False) if is_on and not was_on]
    rate_hz = blocks[0][2]
    sound = np.abs(np.concatenate([samples for _, samples, _ in blocks]))
    loud = np.flatnonzero(sound > 0.3)
    first = loud[np.diff(loud, prepend=-rate_hz) > rate_hz // 10]
    return flashes_s, [blocks[0][0] + index / rate_hz for index in first]
