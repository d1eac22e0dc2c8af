"""Another generator takes over between two chunks, or nothing changes at all."""

from __future__ import annotations

import threading

import pytest

from engine.errors import Cancelled, GeneratorError
from engine.media import CanvasFormat
from engine.stream.swap import Outdated, Swap


def test_swap_closes_the_old_and_begins_anew(rig, scene_of, plain_generator):
    rig.work(0.5)
    old, canvas = rig.runner.scene.generator, CanvasFormat(width=16, height=8, fps=25)
    fresh = plain_generator(size=(16, 8), name="fresh")
    rig.swap(scene_of(fresh, canvas=canvas))
    rig.work(0.5)
    assert (old.closed, fresh.closed) == (1, 0) and rig.runner.scene.generator is fresh
    assert fresh.chunks[0].is_discontinuous and not fresh.chunks[1].is_discontinuous
    assert fresh.chunks[0].first_frame == old.chunks[-1].first_frame + 2, "no frame is left out"
    taken = rig.queue.take_due(10_000)
    assert taken[1].shape == (8, 16, 3) and taken[2] is canvas


def test_swap_of_the_canvas_alone_keeps_the_generator(rig, scene_of):
    rig.work(0.5)
    generator = rig.runner.scene.generator
    rig.swap(scene_of(generator, canvas="other"))
    rig.work(0.5)
    assert generator.closed == 0 and sum(c.is_discontinuous for c in generator.chunks) == 1
    assert rig.queue.take_due(10_000)[2] == "other"


def test_swap_that_takes_too_long_fails_and_never_takes_over(rig, scene_of, plain_generator):
    rig.work(0.5)
    old, fresh = rig.runner.scene.generator, plain_generator()
    with pytest.raises(GeneratorError) as error:
        rig.runner.swap(scene_of(fresh), timeout_s=0.01)
    assert error.value.code == "generator.busy"
    fresh.close()
    rig.work(0.5)
    assert rig.runner.scene.generator is old and fresh.chunks == [] and old.closed == 0


def test_fresh_generator_after_a_failure_runs_in_step(rig, scene_of, plain_generator, caplog):
    rig.work(0.5)
    rig.runner.scene.generator.during = lambda: 1 / 0
    rig.work(3.0)
    fresh = plain_generator(frames=2, lookahead_samples=100)
    rig.swap(scene_of(fresh))
    rig.work(1.0)
    first = fresh.chunks[0].first_frame
    due_s = rig.sample_clock.time_of_frame(first, 25) + rig.runner.delay_s
    assert due_s >= 13.5 and len(rig.failures) == 1, "what was said meanwhile is not shown late"


def test_chunk_that_failed_halfway_is_not_made_again(rig, scene_of, plain_generator, caplog):
    """Its first frames wait to be shown; another generator continues behind it."""
    rig.work(1.0)

    def half(chunk, frames):
        frames.next_image()
        frames.commit(chunk.first_frame)
        raise GeneratorError("It broke.")

    broken = rig.runner.scene.generator
    broken.generate = half
    rig.work(0.1)
    failed = rig.queue.newest()
    fresh = plain_generator(frames=2, lookahead_samples=100)
    rig.swap(scene_of(fresh))
    rig.work(0.2)
    assert len(rig.failures) == 1
    assert fresh.chunks[0].first_frame == failed + 2 and fresh.chunks[0].is_discontinuous
    assert rig.runner.skipped_samples == 2 * 640


def test_end_tells_a_scene_that_waits_and_leaves_it_to_its_owner(rig, scene_of, plain_generator):
    fresh, errors = plain_generator(), []

    def swap():
        try:
            rig.runner.swap(scene_of(fresh), timeout_s=60.0)
        except Cancelled as error:
            errors.append(error)

    thread = threading.Thread(target=swap)
    thread.start()
    rig.runner.close()
    thread.join(10.0)
    assert not thread.is_alive() and len(errors) == 1
    assert fresh.closed == 0 and rig.runner.scene.generator.closed == 1


def test_another_standby_closes_the_old_one_and_nothing_else(runner_rig, pair, scene_of, plain_generator):
    rig, wanted, old = pair
    fresh = plain_generator(name="fresh")
    rig.swap(standby=scene_of(fresh))
    rig.work(0.2)
    assert (old.closed, fresh.closed, wanted.closed) == (1, 0, 0) and rig.runner.scene.generator is wanted
    runner_rig.break_soon(wanted)
    rig.work(0.2)
    assert rig.runner.scene.generator is fresh and rig.runner.is_standing_in


def test_another_standby_takes_over_where_the_old_one_runs(runner_rig, pair, scene_of, plain_generator, caplog):
    rig, wanted, old = pair
    runner_rig.break_soon(wanted)
    rig.work(0.2)
    fresh = plain_generator(name="fresh")
    rig.swap(standby=scene_of(fresh))
    rig.work(0.2)
    assert rig.runner.is_standing_in and rig.runner.scene.generator is fresh and (old.closed, fresh.closed) == (1, 0)
    assert fresh.chunks[0].first_frame == old.chunks[-1].first_frame + 1 and rig.runner.skipped_samples == 0


def test_both_at_once_take_over_together(pair, scene_of, plain_generator):
    rig, wanted, old = pair
    fresh, standby = plain_generator(name="fresh"), plain_generator(name="standby")
    rig.swap(scene_of(fresh), standby=scene_of(standby))
    rig.work(0.2)
    assert [g.closed for g in (wanted, old, fresh, standby)] == [1, 1, 0, 0]
    assert rig.runner.scene.generator is fresh and not rig.runner.needs_another


def test_swap_that_is_given_up_changes_neither(runner_rig, pair, scene_of, plain_generator):
    rig, wanted, standby = pair
    unused = [plain_generator(), plain_generator()]
    with pytest.raises(GeneratorError):
        rig.runner.swap(scene_of(unused[0]), standby=scene_of(unused[1]), timeout_s=0.01)
    rig.work(0.2)
    runner_rig.break_soon(wanted)
    rig.work(0.2)
    assert rig.runner.scene.generator is standby and standby.closed == 0 and not any(g.chunks for g in unused)


def test_another_canvas_of_a_generator_that_has_failed_is_refused(runner_rig, pair, scene_of, caplog):
    rig, wanted, standby = pair
    runner_rig.break_soon(wanted)
    rig.work(0.2)
    with pytest.raises(Outdated):
        rig.swap(scene_of(wanted, canvas="other"), is_same_generator=True)
    assert rig.runner.scene.generator is standby and wanted.closed == 1


@pytest.mark.parametrize(("generate_s", "expected_s"), [(0.0, 5.0), (4.0, 17.0), (10.0, 35.0)])
def test_swap_waits_as_long_as_the_running_chunk_may_take(
    runner_rig, scene_of, plain_generator, monkeypatch, generate_s, expected_s
):
    rig = runner_rig.Rig(scene_of(plain_generator(), generate_s=generate_s))
    waited = []
    monkeypatch.setattr(Swap, "wait", lambda self, timeout_s: waited.append(timeout_s) or True)
    rig.runner.swap(scene_of(plain_generator()))
    assert waited == [expected_s]
