"""A generator that was too slow: kept, measured again, given back or closed."""

from __future__ import annotations

import pytest

from engine.errors import Cancelled, GeneratorError
from engine.stream.resting import Resting


@pytest.fixture
def scene(scene_of, plain_generator):
    return scene_of(plain_generator(economies=("less", "least")), generate_s=9.0)


@pytest.fixture
def resting(scene):
    made = Resting()
    made.keep(scene, 3, 2)
    return made


def test_it_is_measured_in_the_economy_that_it_was_kept_for(resting, scene, quiet):
    again = resting.measured(3, quiet)
    assert again is not None and again.generator is scene.generator and again.generate_s < 9.0
    assert {chunk.economy for chunk in scene.generator.chunks} == {2} and scene.generator.closed == 0


def test_what_was_made_for_other_settings_is_not_measured(resting, scene, quiet):
    assert resting.measured(4, quiet) is None and Resting().measured(3, quiet) is None
    assert scene.generator.chunks == [] and scene.generator.closed == 0


@pytest.mark.parametrize(("error", "closed"), [(Cancelled("Stop."), 0), (GeneratorError("No."), 1), (MemoryError(), 1)])
def test_one_that_cannot_be_measured_is_closed_unless_that_was_cancelled(resting, scene, error, closed, quiet):
    scene.generator.during = lambda: (_ for _ in ()).throw(error)
    with pytest.raises(type(error)):
        resting.measured(3, quiet)
    assert scene.generator.closed == closed and (resting.measured(4, quiet) is None)
    resting.close()
    assert scene.generator.closed == 1, "once"


def test_what_was_given_away_is_not_closed(resting, scene, quiet):
    resting.release()
    resting.close()
    assert scene.generator.closed == 0 and resting.measured(3, quiet) is None
