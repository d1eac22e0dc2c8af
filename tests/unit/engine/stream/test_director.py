"""Who makes the picture: the standby at once, the wanted one when it is loaded, whatever happens on the way."""

from __future__ import annotations

import threading

import pytest

from engine.errors import GeneratorError, ModelFilesError, PortraitError
from engine.stream import pace_memory
from engine.stream.patience import Patience

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


def test_delay_is_planned_from_the_chunks_length_then_from_what_was_measured(show, live_show, cast):
    first, _ = live_show()
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


def test_failure_while_live_lets_the_standby_in_and_comes_back(live_show, cast, waits, caplog):
    live, wanted = live_show()
    cast.may_load.clear()
    wanted.break_down()
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
    cast.quick[0].break_down()
    live.until_said("standby", "session.fallback")
    assert live.graph.runner.has_failed
    cast.may_load.set()
    live.until(lambda: len(cast.quick) == 2)
    live.until_said("ready", "")
    assert cast.quick[0].closed == 1 and live.director.standby.generator is cast.quick[1]
    cast.may_load.clear()
    live.running.break_down()
    live.until_makes(cast.quick[1])


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
