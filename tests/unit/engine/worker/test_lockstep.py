"""How ranks begin together: late ones, ones that are started again, and what those before them have left."""

import threading
import time

import pytest

from engine.errors import GeneratorError

torch = pytest.importorskip("torch")

from engine.worker.lockstep import begin_together  # noqa: E402


@pytest.fixture
def store():
    """As torchrun has one: it stays when ranks are started again."""
    return torch.distributed.HashStore()


class Rank(threading.Thread):
    """Begins with the others, or says why not."""

    def __init__(self, store, rank: int, size: int, limit_s: float = 20.0) -> None:
        super().__init__()
        self._arguments = store, rank, size, limit_s
        self.attempt = self.error = None
        self.start()

    def run(self) -> None:
        try:
            self.attempt = begin_together(*self._arguments)
        except GeneratorError as error:
            self.error = error


def _attempts(*ranks: Rank) -> list:
    for rank in ranks:
        rank.join()
    return [rank.attempt for rank in ranks]


def test_a_single_rank_waits_for_nobody(store):
    assert begin_together(store, 0, 1, 0.0) == 1
    assert begin_together(store, 0, 1, 0.0) == 2


def test_nobody_begins_before_the_last_is_there(store):
    ranks = [Rank(store, 2, 3), Rank(store, 0, 3)]
    time.sleep(0.5)
    assert all(rank.is_alive() for rank in ranks)
    assert _attempts(*ranks, Rank(store, 1, 3)) == [1, 1, 1]


def test_ranks_that_are_started_again_begin_anew(store):
    for attempt in (1, 2, 3):
        assert _attempts(Rank(store, 1, 2), Rank(store, 0, 2)) == [attempt] * 2


def test_one_that_waits_for_a_rank_0_that_has_gone_begins_with_the_next(store):
    """On another machine: torchrun there has restarted nothing, and counts otherwise."""
    store.add("attempts", 1)
    waits = Rank(store, 1, 2)
    while not store.check(["1/has/1"]):
        time.sleep(0.01)
    assert _attempts(Rank(store, 0, 2), waits) == [2, 2]


def test_one_that_is_started_again_does_not_take_part_in_what_has_begun(store):
    assert _attempts(Rank(store, 0, 2), Rank(store, 1, 2)) == [1, 1]
    again = Rank(store, 1, 2)
    time.sleep(0.5)
    assert again.is_alive()
    assert _attempts(Rank(store, 0, 2), again) == [2, 2]


@pytest.mark.parametrize(("rank", "missing"), [(0, 1), (1, 0)])
def test_patience_ends(store, rank, missing):
    with pytest.raises(GeneratorError, match=f"Rank {missing} has not come within 0.3 seconds") as caught:
        begin_together(store, rank, 2, 0.3)
    assert caught.value.code == "worker.rank_missing"
