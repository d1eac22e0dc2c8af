"""The progress of many ranks as one, and a rank that says nothing any more."""

import threading

import msgspec
import pytest

from engine.worker import progress_board
from engine.worker.messages import Working
from engine.worker.progress_board import Note, ProgressBoard, slowest


class Board:
    """Notes in memory; `others` are counted up with each of rank 0's, unless their rank is in `silent`."""

    def __init__(self, others=(), silent=()) -> None:
        self.rank, self.size = 0, 1 + len(others)
        self._others, self._silent = others, silent
        self._mine: dict[int, bytes] = {}
        self._beat = 0

    def note(self, name: str, text: bytes) -> None:
        self._mine[0] = text
        self._beat += 1

    def notes(self, name: str) -> dict[int, bytes]:
        found = dict(self._mine)
        for rank, note in enumerate(self._others, start=1):
            beat = 1 if rank in self._silent else self._beat
            found[rank] = msgspec.json.encode(msgspec.structs.replace(note, beat=beat))
        return found


def _note(step, stage, done, total=4.0):
    return Note(1, step, stage, done, total, "files")


def test_the_last_rank_says_where_all_are():
    notes = {0: _note(3, "model", 3.0), 1: _note(3, "model", 1.0), 2: _note(4, "portrait", 0.0)}
    assert slowest(notes, 3) == Working(stage="model", done=1.0, total=4.0, unit="files")


def test_an_earlier_stage_counts_before_a_smaller_share():
    notes = {0: _note(2, "encoder", 3.9), 1: _note(3, "model", 0.0)}
    assert slowest(notes, 2).stage == "encoder"


def test_a_rank_that_has_not_spoken_yet_is_the_last():
    assert slowest({0: _note(5, "portrait", 4.0)}, 2).stage == "libraries"
    assert slowest({}, 1).stage == "libraries"


def test_a_stage_without_a_total_is_at_its_beginning():
    assert slowest({0: _note(1, "a", 7.0, 0.0), 1: _note(1, "b", 1.0, 2.0)}, 2).stage == "a"


def test_rank_0_tells_what_all_do(monkeypatch):
    monkeypatch.setattr(progress_board, "_EVERY_S", 0.01)
    told, enough = [], threading.Event()

    def tell(working):
        told.append(working)
        if working == Working(stage="model", done=2.0, total=4.0, unit="files"):
            enough.set()

    with ProgressBoard(Board([_note(9, "portrait", 1.0)]), "p", tell) as progress:
        progress.update("encoder", 0, 1)
        progress.update("model", 2, 4, "files")
        assert enough.wait(10.0), told
    assert not any(thread.name == "progress" for thread in threading.enumerate())


@pytest.mark.parametrize("silent", [(), (2,)])
def test_a_rank_whose_note_stays_the_same_is_reported(monkeypatch, silent):
    monkeypatch.setattr(progress_board, "_EVERY_S", 0.01)
    monkeypatch.setattr(progress_board, "SILENT_S", 0.3)
    reported, ticks, enough = [], [], threading.Event()

    def on_standstill(standstill):
        reported.append(standstill.rank)
        enough.set()

    def tell(working):
        ticks.append(working)
        if len(ticks) > 100:
            enough.set()

    board = Board([_note(1, "model", 0.0)] * 2, silent)
    with ProgressBoard(board, "p", tell, on_standstill):
        enough.wait(20.0)
    assert set(reported) == set(silent)


def _standstill(monkeypatch, others, work) -> list:
    """What is reported while this rank does `work`, for sixty looks or until there is something."""
    monkeypatch.setattr(progress_board, "_EVERY_S", 0.01)
    reported, looks, enough = [], [], threading.Event()

    def on_standstill(standstill):
        reported.append(standstill)
        enough.set()

    def tell(working):
        looks.append(working)
        if len(looks) > 60:
            enough.set()

    with ProgressBoard(Board(others), "p", tell, on_standstill, still_s=0.2, watch_this_thread=True):
        work(enough)
    return reported


def _wait(enough):
    enough.wait(20.0)


def _count(enough):
    while not enough.is_set():
        sum(range(1000))


def _standing(**fields):
    return msgspec.structs.replace(_note(1, "model", 0.0), still=1000, **fields)


def test_ranks_that_all_stand_still_are_reported_with_their_places(monkeypatch):
    (standstill, *_) = _standstill(monkeypatch, [_standing(where="ring.py:7 add")], _wait)
    assert (standstill.rank, standstill.seconds) == (-1, 0.2)
    assert "rank 0 stands at threading.py:" in standstill.detail
    assert "rank 1 stands at ring.py:7 add" in standstill.detail


def test_a_rank_that_waits_for_one_that_works_is_left_alone(monkeypatch):
    assert _standstill(monkeypatch, [_note(1, "model", 0.0)], _wait) == []
    assert _standstill(monkeypatch, [_standing()], _count) == []


def test_a_rank_that_is_done_counts_for_nothing(monkeypatch):
    assert _standstill(monkeypatch, [_standing(is_over=True)], _count) == []
    over = msgspec.structs.replace(_note(1, "model", 0.0), is_over=True)
    assert len(_standstill(monkeypatch, [over], _wait)) > 0


def test_a_rank_says_when_it_is_done():
    board = Board()
    with ProgressBoard(board, "p"):
        pass
    assert msgspec.json.decode(board.notes("p")[0], type=Note).is_over
