"""Who makes the picture: the standby at once, the wanted one when it is loaded, whatever happens on the way."""

from __future__ import annotations

import threading
import time

import pytest
from PIL import Image

from engine.audio.sources import Silence
from engine.clock import SystemClock
from engine.errors import GeneratorError, ModelFilesError, PortraitError
from engine.settings import CanvasSettings, GeneratorSettings, SessionSettings
from engine.stream import director as director_module
from engine.stream import pace_memory
from engine.stream.director import Director
from engine.stream.graph import Graph
from engine.stream.patience import Patience
from engine.stream.runner import GeneratorRunner
from engine.stream.stage import Stage

MIRRORED = CanvasSettings(width=640, height=360, fill="solid", is_mirrored=True)


class Recorder(Stage):
    """Keeps what it is told, in order."""

    def __init__(self):
        self.said = []

    def on_notices(self, notices):
        self.said += [("notice", notice.code) for notice in notices]

    def on_error(self, error):
        self.said.append(("error", error.code))

    def on_standby(self, code, message, hint):
        self.said.append(("standby", code))

    def on_ready(self):
        self.said.append(("ready", ""))

    def presented(self):
        return 0


class Show:
    """A director with a real graph; one thread does what a session's threads do."""

    def __init__(self, settings):
        self.stage, self.stopping, self.presented = Recorder(), threading.Event(), []
        self.director = Director(settings, self.stage, self, self.stopping)
        self._thread = None

    def update(self, stage, done, total, unit=""):
        """Progress that nobody looks at."""

    def begin(self):
        director, clock = self.director, SystemClock()
        self.graph = Graph(
            director.open(),
            director.settings,
            clock,
            present=lambda frame: self.presented.append(frame.frame),
            on_failure=director.on_failure,
            standby=director.standby,
            coming=director.coming,
        )
        source = Silence()
        source.start(clock)
        self.graph.go_live(source)
        director.begin(self.graph.runner)
        self._thread = threading.Thread(target=self._work, args=(clock,), daemon=True)
        self._thread.start()
        return self

    def _work(self, clock):
        while not self.stopping.is_set():
            self.graph.listener.step()
            while self.graph.runner.step():
                pass
            self.graph.pacer.tick(clock.now())
            time.sleep(0.002)
        self.graph.runner.end()

    def close(self, loader_timeout_s=10.0):
        self.stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(10.0)
            self.director.join(loader_timeout_s)
            self.graph.runner.close()

    @property
    def running(self):
        return self.graph.runner.scene.generator

    def until(self, condition):
        """Wait for what another thread is about to do; a bound, not a measurement."""
        deadline_s = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline_s, f"still not so; the last words: {self.stage.said[-5:]}"
            time.sleep(0.002)

    def until_said(self, *words):
        self.until(lambda: self.stage.said[-1:] == [words])

    def until_makes(self, generator, count=2):
        seen = len(generator.chunks)
        self.until(lambda: len(generator.chunks) >= seen + count)


@pytest.fixture
def portraits(tmp_path):
    """Two pictures and one that is none."""
    paths = [str(tmp_path / name) for name in ("red.png", "blue.png", "none.png")]
    for path, colour in zip(paths, ("red", "blue"), strict=False):
        Image.new("RGB", (96, 64), colour).save(path)
    (tmp_path / "none.png").write_text("not a picture")
    return paths


@pytest.fixture
def show(cast, portraits):
    """Makes shows of "slow"; in the end each generator that was made has been closed exactly once."""
    made = []

    def make(**settings):
        made.append(
            Show(
                SessionSettings(
                    portrait=portraits[0],
                    generator=GeneratorSettings(name="slow"),
                    canvas=CanvasSettings(width=640, height=360, fill="solid"),
                    **settings,
                )
            )
        )
        return made[-1]

    yield make
    for each in made:
        each.close()
    assert [(g.spec.name, g.closed) for g in cast.all] == [(g.spec.name, 1) for g in cast.all]


@pytest.fixture
def waits(monkeypatch):
    """Loads that failed are tried again at once; the waits that would have been."""
    kept = []

    class Impatient(Patience):
        def failed(self, frame):
            kept.append(super().failed(frame))
            return 0.0

    monkeypatch.setattr(director_module, "Patience", Impatient)
    return kept


def _break(generator):
    generator.during = lambda: (_ for _ in ()).throw(ValueError("out of beans"))


def _live(show, **settings):
    """A show whose wanted generator has taken over: (show, it)."""
    live = show(**settings).begin()
    live.until_said("ready", "")
    live.until_makes(live.running)
    return live, live.running


# ------------------------------------------------------------------------------------------------------- to begin


def test_standby_is_shown_until_the_wanted_one_is_loaded(show, cast):
    cast.may_load.clear()
    live = show().begin()
    (standby,) = cast.quick
    live.until_makes(standby, 5)
    assert live.stage.said == [("standby", "session.standby")] and live.running is standby
    cast.may_load.set()
    live.until_said("ready", "")
    assert live.stage.said[1:] == [("notice", "slow.loaded"), ("ready", "")]
    live.until_makes(cast.slow[-1])
    assert live.running is cast.slow[-1] and standby.closed == 0 and len(cast.slow) == 2
    assert live.graph.runner.skipped_samples == 0


def test_delay_is_planned_from_the_chunks_length_then_from_what_was_measured(show, cast):
    first, _ = _live(show)
    assert first.director.coming == (cast.slow[0].spec.chunk, 5 / 25)
    measured_s = pace_memory.recall(first.director.settings.generator)
    assert measured_s is not None and measured_s < 0.1
    second = show().begin()
    assert second.director.coming == (cast.slow[0].spec.chunk, measured_s)
    assert second.graph.delay_s < first.graph.delay_s - 0.1


def test_what_is_missing_is_said_before_anything_is_shown(show, cast):
    cast.check_error = ModelFilesError("No files.")
    with pytest.raises(ModelFilesError):
        show().director.open()
    assert cast.quick == [] and [g.closed for g in cast.slow] == [1]


def test_without_a_standby_the_wanted_one_is_loaded_first(show, cast):
    live = show(has_standby=False).begin()
    assert cast.quick == [] and live.stage.said == [("notice", "slow.loaded"), ("ready", "")]
    assert live.running is cast.slow[0] and live.director.coming is None
    assert pace_memory.recall(live.director.settings.generator) is not None


def test_portrait_that_the_standby_cannot_show_is_loaded_first(show, cast):
    cast.standby_error = PortraitError("No face.")
    live = show().begin()
    assert live.director.standby is None and live.running is cast.slow[-1]
    assert [g.closed for g in cast.quick] == [1]


# ------------------------------------------------------------------------------------------------ loads that fail


def test_hopeless_load_is_told_once_and_the_standby_stays(show, cast, waits, portraits):
    cast.load_errors = [ModelFilesError("A file is gone."), ModelFilesError("A file is gone.")]
    live = show().begin()
    live.until_said("standby", "session.standby_stays")
    live.until_makes(cast.quick[0], 10)
    assert live.stage.said.count(("error", "model_files")) == 1 and waits == [] and len(cast.load_errors) == 1
    cast.load_errors = []
    live.director.change(portrait=portraits[1])
    live.until_said("ready", "")
    assert ("standby", "session.standby") in live.stage.said[3:], "it is being tried again"


@pytest.mark.parametrize("error", [GeneratorError("No memory."), RuntimeError("CUDA error"), MemoryError()])
def test_load_that_fails_in_any_way_is_tried_again_ever_more_rarely(show, cast, waits, error, caplog):
    cast.load_errors = [error] * 4
    live = show().begin()
    live.until_said("ready", "")
    code = "generator" if isinstance(error, GeneratorError) else "generator.internal"
    assert [word for word in live.stage.said if word[0] == "error"] == [("error", code)] * 4
    assert waits == sorted(set(waits)) and len(waits) == 4
    live.until_makes(cast.slow[-1])


def test_failure_while_live_lets_the_standby_in_and_comes_back(show, cast, waits, caplog):
    live, wanted = _live(show)
    cast.may_load.clear()
    _break(wanted)
    live.until_said("standby", "session.fallback")
    live.until_makes(cast.quick[0], 5)
    assert wanted.closed == 1 and ("error", "generator.internal") in live.stage.said
    cast.may_load.set()
    live.until_said("ready", "")
    live.until_makes(live.running)
    assert live.running not in (wanted, *cast.quick) and waits == [0.5]
    assert live.graph.runner.skipped_samples == 0


def test_generator_that_breaks_in_its_first_chunk_is_never_taken_for_ready(show, cast, waits, caplog):
    """It fails while its take-over is still being told: the next load must neither be forgotten nor be hurried."""

    def dress(generator):
        if generator.spec.name == "slow":
            generator.during = lambda: 1 / 0 if generator.portrait and len(generator.chunks) > 3 else None

    cast.dress = dress
    live = show()

    def on_notices(notices):
        """Told between the take-over and the news of it: by then it has failed."""
        live.until(lambda: live.graph.runner.needs_another or cast.dress is not dress)

    live.stage.on_notices = on_notices
    live.begin()
    live.until(lambda: len(waits) >= 6)
    assert ("ready", "") not in live.stage.said and waits[:6] == [0.5, 2.0, 5.0, 15.0, 60.0, 60.0]
    cast.dress = lambda generator: None
    # One that was being loaded meanwhile may still break.
    live.until(lambda: live.running in cast.slow and len(live.running.chunks) > 5)
    live.until_said("ready", "")
    said = [word for word in live.stage.said if word[0] in ("ready", "standby")]
    assert said[-2:] == [("standby", "session.fallback"), ("ready", "")]


def test_standby_that_failed_is_made_anew_beside_the_wanted_one(show, cast, waits, caplog):
    cast.load_errors = [GeneratorError("Not yet.")] * 3
    cast.may_load.clear()
    live = show().begin()
    live.until_makes(cast.quick[0])
    _break(cast.quick[0])
    live.until_said("standby", "session.fallback")
    assert live.graph.runner.has_failed
    cast.may_load.set()
    live.until(lambda: len(cast.quick) == 2)
    live.until_said("ready", "")
    assert cast.quick[0].closed == 1 and live.director.standby.generator is cast.quick[1]
    cast.may_load.clear()
    _break(live.running)
    live.until_makes(cast.quick[1])


# ------------------------------------------------------------------------------------------------ changes while live


def test_another_portrait_while_loading_begins_the_load_anew(show, cast, portraits):
    cast.may_load.clear()
    live = show().begin()
    live.until(lambda: len(cast.slow) == 2)
    live.director.change(portrait=portraits[1])
    live.until(lambda: len(cast.slow) == 3)
    assert cast.slow[1].closed == 1 and cast.slow[1].portrait.name == "red"
    live.until_makes(cast.quick[1])
    assert live.running is cast.quick[1] and cast.quick[1].portrait.name == "blue" and cast.quick[0].closed == 1
    cast.may_load.set()
    live.until_said("ready", "")
    assert live.running is cast.slow[2] and live.running.portrait.name == "blue"
    assert len([word for word in live.stage.said if word[0] == "error"]) == 0


def test_another_canvas_while_loading_goes_on_with_the_load(show, cast):
    cast.may_load.clear()
    live = show().begin()
    live.until(lambda: len(cast.slow) == 2)
    live.director.change(canvas=MIRRORED)
    live.until_makes(cast.quick[1])
    cast.may_load.set()
    live.until_said("ready", "")
    assert len(cast.slow) == 2 and live.running is cast.slow[1]
    assert live.graph.runner.scene.canvas.settings == MIRRORED


def test_another_canvas_keeps_a_generator_that_does_not_follow_it(show, cast):
    live, wanted = _live(show)
    live.director.change(canvas=MIRRORED)
    assert live.running is wanted and len(cast.slow) == 2 and live.graph.runner.scene.canvas.settings == MIRRORED
    _break(wanted)
    live.until_makes(cast.quick[1])
    assert live.director.standby.canvas.settings == MIRRORED and cast.quick[0].closed == 1


def test_another_portrait_while_live_reaches_both(show, cast, portraits, waits, caplog):
    live, wanted = _live(show)
    live.director.change(portrait=portraits[1])
    assert live.running.portrait.name == "blue" and wanted.closed == 1 and cast.quick[0].closed == 1
    live.until_makes(live.running)
    cast.may_load.clear()
    _break(live.running)
    live.until_makes(cast.quick[1])
    cast.may_load.set()
    live.until_said("ready", "")
    assert live.running.portrait.name == "blue" and live.director.settings.portrait == portraits[1]


def test_another_portrait_while_failed_does_not_wait_for_its_turn(show, cast, portraits, monkeypatch, caplog):
    monkeypatch.setattr(Patience, "failed", lambda *_: 3600.0)
    live, wanted = _live(show)
    _break(wanted)
    live.until_said("standby", "session.fallback")
    live.director.change(portrait=portraits[1])
    live.until_said("ready", "")
    assert live.running.portrait.name == "blue"


@pytest.mark.parametrize("step", ["unreadable", "standby", "wanted", "wanted breaks", "swap"])
def test_change_that_fails_leaves_everything_as_it_was(show, cast, portraits, step, monkeypatch):
    live, wanted = _live(show)
    before = (live.director.settings, live.director.standby, live.graph.runner.scene, list(live.stage.said))
    expected, portrait = GeneratorError, portraits[1]
    if step == "unreadable":
        expected, portrait = PortraitError, portraits[2]
    elif step == "standby":
        expected, cast.standby_error = PortraitError, PortraitError("No face.")
    elif step == "swap":
        monkeypatch.setattr(
            GeneratorRunner, "swap", lambda *_, **__: (_ for _ in ()).throw(GeneratorError("It is busy."))
        )
    else:
        error = GeneratorError("It does not fit.") if step == "wanted" else RuntimeError("CUDA error")
        expected, cast.load_errors = type(error), [error]
    with pytest.raises(expected) as caught:
        live.director.change(portrait=portrait)
    if step == "unreadable":
        assert caught.value.code != "portrait.no_standby", "the reason is that it cannot be read"
    assert before == (live.director.settings, live.director.standby, live.graph.runner.scene, live.stage.said)
    assert [g.closed for g in cast.all if g not in (wanted, cast.quick[0])] == [1] * (len(cast.all) - 2)
    live.until_makes(wanted)


def test_canvas_change_that_meets_a_failure_shows_no_closed_generator(show, cast, waits, caplog):
    """The running generator breaks in the very chunk that the change waits for."""
    live, wanted = _live(show)
    in_chunk, may_break = threading.Event(), threading.Event()

    def during():
        in_chunk.set()
        may_break.wait(20)
        raise ValueError("out of beans")

    wanted.during = during
    assert in_chunk.wait(20)
    thread = threading.Thread(target=live.director.change, kwargs={"canvas": MIRRORED})
    thread.start()
    live.until(lambda: live.graph.runner._handover.is_waiting)
    may_break.set()
    thread.join(20)
    live.until(lambda: not live.graph.runner.needs_another)
    live.until_makes(live.running)
    assert live.running is not wanted and wanted.closed == 1 and live.running.closed == 0
    assert live.graph.runner.scene.canvas.settings == MIRRORED
    live.until_said("ready", "")


# -------------------------------------------------------------------------------------------------------- the end


@pytest.mark.parametrize("moment", ["loading", "waiting for the next try"])
def test_end_does_not_wait_for_a_load(show, cast, moment, monkeypatch):
    monkeypatch.setattr(Patience, "failed", lambda *_: 3600.0)
    if moment == "loading":
        cast.may_load.clear()
    else:
        cast.load_errors = [GeneratorError("No memory.")]
    live = show().begin()
    live.until(lambda: len(cast.slow) == 2 and (moment == "loading" or ("error", "generator") in live.stage.said))
    said = len(live.stage.said)
    live.close()
    assert not any(thread.name == "loader" for thread in threading.enumerate())
    assert all(word[0] != "ready" for word in live.stage.said[said:])


def test_load_that_ends_after_the_session_is_closed(show, cast):
    cast.is_deaf = True
    cast.may_load.clear()
    live = show().begin()
    live.until(lambda: len(cast.slow) == 2)
    live.close(loader_timeout_s=0.01)
    assert cast.slow[1].closed == 0 and cast.quick[0].closed == 1
    cast.may_load.set()
    live.until(lambda: cast.slow[1].closed == 1)
    assert ("ready", "") not in live.stage.said
