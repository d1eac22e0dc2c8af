"""Pieces of a preparation between chunks: in time that is left, and a little where none is."""

import pytest

from engine.worker.pacing import Pacer

PERIOD_S = 1.0
ROUND_TRIP_S = 0.001


def _play(chunk_s: float, piece_s: float, chunks: int) -> tuple[list[float], list[int]]:
    """Rank 0 by a clock of its own. A chunk is asked for once a period, or when the one before it is done if that is
    later; the first one is made before there is anything to prepare. How late each of the others began, and how many
    pieces were made before each."""
    pacer, now_s, asked_s = Pacer(), 0.0, 0.0
    late_s, pieces = [], []
    for _ in range(chunks + 1):
        began_s, now_s = now_s, now_s + chunk_s
        pacer.chunk_made(asked_s=asked_s, period_s=PERIOD_S, began_s=began_s, ended_s=now_s)
        asked_s = max(asked_s + PERIOD_S, now_s + ROUND_TRIP_S)
        pieces.append(0)
        while now_s < asked_s:
            wait_s = pacer.wait_s("keys", now_s)
            if now_s + wait_s < asked_s:
                pacer.piece_made("keys", began_s=now_s + wait_s, ended_s=now_s + wait_s + piece_s)
                pieces[-1] += 1
                now_s += wait_s + piece_s
            else:
                now_s = asked_s
        late_s.append(now_s - asked_s)
    return late_s[:-1], pieces[:-1]


def test_where_there_is_time_it_is_used_and_no_chunk_is_late():
    late_s, pieces = _play(chunk_s=0.5, piece_s=0.04, chunks=10)
    assert max(late_s) < 1e-9
    assert min(pieces) >= 11


def test_where_there_is_none_pieces_take_their_share_and_no_more():
    late_s, pieces = _play(chunk_s=1.2, piece_s=0.3, chunks=100)
    assert sum(late_s) == pytest.approx(0.1 * 1.2 * 100, rel=0.05)
    assert sum(pieces) == pytest.approx(40, abs=2)
    assert max(late_s) <= 0.3, "one piece at a time"


def test_a_piece_longer_than_the_time_between_chunks_is_made_all_the_same():
    _, pieces = _play(chunk_s=0.9, piece_s=2.0, chunks=100)
    assert 3 <= sum(pieces) <= 6


def test_nobody_asks_for_chunks_so_that_nothing_is_waited_for():
    assert Pacer().wait_s("files", 5.0) == 0.0, "there has been none yet"
    pacer = Pacer()
    pacer.chunk_made(asked_s=0.0, period_s=PERIOD_S, began_s=0.0, ended_s=0.5)
    pacer.piece_made("files", began_s=0.5, ended_s=3.0)
    assert pacer.wait_s("files", 3.0) == 0.0, "it was due two seconds ago"
    pacer.chunk_made(asked_s=3.0, period_s=PERIOD_S, began_s=3.0, ended_s=3.5)
    assert 0.5 < pacer.wait_s("files", 3.6) < 1.0, "it may still come"


def test_what_is_not_used_does_not_add_up():
    pacer = Pacer()
    for second in range(100):
        pacer.chunk_made(asked_s=float(second), period_s=PERIOD_S, began_s=float(second), ended_s=second + 1.0)
    assert pacer.wait_s("keys", 100.0) == 0.0
    pacer.piece_made("keys", began_s=100.0, ended_s=100.2)
    assert pacer.wait_s("keys", 100.2) > 0
