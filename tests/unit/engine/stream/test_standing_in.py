"""Failures that are repaired, and the standby, in whole sessions."""

from __future__ import annotations

import threading

import av
import numpy as np
import pytest
import soundfile

from engine.errors import GeneratorError
from engine.media import Notice
from engine.protocol.messages import Noticed, RecordingChanged, SessionState, StateChanged
from engine.settings import FileSource
from engine.stream import broadcast as broadcast_module
from engine.stream.director import Director
from engine.stream.patience import Patience


def test_failed_generator_is_replaced_by_a_fresh_one(session, waits, caplog):
    live = session()
    live.broadcast.start()
    live.until_presented()
    live.generators[0].break_down()
    live.until(lambda: len(live.generators) == 2 and live.states[-1] is SessionState.LIVE)
    assert live.states[-3:] == [SessionState.LIVE, SessionState.FALLBACK, SessionState.LIVE]
    live.until(lambda: live.generators[0].closed == 1)  # just after the fresh one has taken over
    assert live.codes() == ["generator.internal"]
    live.until_presented(3)
    assert waits == [0.5] and waits.recovered == 1


def test_repairs_that_fail_wait_longer_each_time(session, waits, caplog):
    live = session()
    live.broadcast.start()
    live.until_presented()
    live.prepare_error = GeneratorError("Still no beans.")
    live.generators[0].break_down()
    live.until(lambda: len(waits) >= 4)
    live.prepare_error = None
    live.until(lambda: live.states[-1] is SessionState.LIVE)
    assert waits == sorted(waits) and waits[0] < waits[3] and waits.recovered == 1
    assert all(g.closed for g in live.generators[1:-1]), "generators that could not be prepared are closed"


def test_stop_during_a_repair_is_final(session, monkeypatch, caplog):
    monkeypatch.setattr(Patience, "failed", lambda *_: 0.2)
    live = session()
    live.broadcast.start()
    live.until_presented()
    live.generators[0].break_down()
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
    live.generators[0].break_down()
    live.until(lambda: live.states[-1] is SessionState.FALLBACK)
    live.broadcast.set_portrait(portraits[1])
    live.until(lambda: live.states[-1] is SessionState.LIVE)
    assert live.generators[-1].portrait.name == "blue" and live.generators[-1].closed == 0


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


def test_failed_preparation_of_the_standby_gives_everything_back(live_of, cast, no_new_threads):
    cast.standby_error = GeneratorError("No.")
    with pytest.raises(GeneratorError):
        live_of().broadcast.start()
    assert no_new_threads()


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
