"""Turns in a few buffers, on a device that does things as late and in as unlucky an order as it is allowed to."""

from __future__ import annotations

import itertools
import random
import threading

import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk.block_ring import BlockRing, HostLane, spread  # noqa: E402

WIDTH = 3


class SlowDevice:
    """Keeps what it is asked for, and does it later, in any order that the marks allow.

    Two queues as on a GPU: computing in the order asked for, copies in the order asked for. A copy spoils its target
    when it begins and has filled it when it ends. `forgets` leaves out one kind of mark.
    """

    def __init__(self, forgets: str = "") -> None:
        self._jobs: list[tuple[list[int], object]] = []
        self._last = {"compute": -1, "copy": -1}
        self._waits: list[int] = []
        self._forgets = forgets

    def _add(self, queue: str, needs: list[int], work) -> int:
        self._jobs.append(([need for need in (*needs, self._last[queue]) if need >= 0], work))
        self._last[queue] = len(self._jobs) - 1
        return self._last[queue]

    def mark(self) -> int:
        return self._last["compute"]

    def copy(self, targets, sources, after) -> int:
        needs = [after] if after is not None and self._forgets != "use" else []
        for target, source in zip(targets, sources, strict=True):
            self._add("copy", needs, lambda target=target: target.fill_(float("nan")))
            self._add("copy", [], lambda target=target, source=source: target.copy_(source))
        return self._last["copy"]

    def wait(self, copied) -> None:
        if self._forgets != "arrival":
            self._waits.append(copied)

    def compute(self, work) -> None:
        needs, self._waits = self._waits, []
        self._add("compute", needs, work)

    def run(self, seed: int) -> None:
        chance, done = random.Random(seed), set()
        lean = chance.choice([0.02, 0.5, 0.98])  # copies as late as possible, mixed, as early as possible
        while len(done) < len(self._jobs):
            ready = [n for n, (needs, _) in enumerate(self._jobs) if n not in done and done.issuperset(needs)]
            job = min(ready) if chance.random() < lean else max(ready)
            self._jobs[job][1]()
            done.add(job)


def _sources(blocks: int) -> list[list[torch.Tensor]]:
    return [[torch.full((WIDTH,), float(block)), torch.full((1,), 100.0 + block)] for block in range(blocks)]


def _slots(count: int) -> list[list[torch.Tensor]]:
    return [[torch.full((WIDTH,), float("nan")), torch.full((1,), float("nan"))] for _ in range(count)]


def _seen(blocks: int, slots: int, order: list[int], seed: int, forgets: str = "") -> list[float]:
    """What each turn in `order` computes, on a device that takes its liberties."""
    device, results = SlowDevice(forgets), [float("nan")] * len(order)
    ring = BlockRing(_sources(blocks), _slots(slots), device)
    for turn, block in enumerate(order):
        weights = ring.enter(block)

        def work(turn=turn, weights=weights) -> None:
            results[turn] = float(weights[0].sum() / WIDTH + 1000 * weights[1])

        for _ in range(2):  # a block computes more than one thing
            device.compute(work)
        ring.leave(block)
    device.run(seed)
    return results


@pytest.mark.parametrize(("blocks", "slots"), [(6, 2), (5, 2), (7, 3), (3, 3), (2, 4), (1, 1), (4, 1)])
def test_every_block_computes_with_its_own_weights_whatever_the_device_does_first(blocks, slots):
    order = [block for _ in range(3) for block in range(blocks)]
    expected = [1000.0 * (100 + block) + block for block in order]
    for seed in range(40):
        assert _seen(blocks, slots, order, seed) == expected


def test_any_order_of_blocks_is_right():
    chance = random.Random(1)
    for seed in range(40):
        order = [chance.randrange(6) for _ in range(25)]
        assert _seen(6, 2, order, seed) == [1000.0 * (100 + block) + block for block in order]


@pytest.mark.parametrize("forgets", ["use", "arrival"])
def test_a_buffer_that_is_overwritten_or_used_too_early_shows(forgets):
    """The tests above can fail: without either mark some order of events gives wrong weights."""
    order = [block for _ in range(3) for block in range(6)]
    expected = [1000.0 * (100 + block) + block for block in order]
    assert any(_seen(6, 2, order, seed, forgets) != expected for seed in range(40))


@pytest.mark.parametrize(("blocks", "slots"), [(6, 2), (5, 2), (7, 3)])
def test_in_order_only_the_first_block_is_waited_for(blocks, slots):
    ring = BlockRing(_sources(blocks), _slots(slots), HostLane())
    for turn in range(4 * blocks):
        assert float(ring.enter(turn % blocks)[0][0]) == turn % blocks
        ring.leave(turn % blocks)
    assert ring.misses == 1 and ring.copies == 4 * blocks + slots


def test_blocks_that_all_have_room_are_copied_once():
    ring = BlockRing(_sources(3), _slots(3), HostLane())
    for turn in range(12):
        ring.enter(turn % 3)
        ring.leave(turn % 3)
    assert ring.copies == 3


def test_a_failed_copy_leaves_no_wrong_weights_and_no_lock():
    class Failing(HostLane):
        fails = False

        def copy(self, targets, sources, after):
            if self.fails:
                targets[0].fill_(float("nan"))
                raise RuntimeError("out of order")
            super().copy(targets, sources, after)

    lane = Failing()
    ring = BlockRing(_sources(4), _slots(2), lane)
    ring.enter(0)
    lane.fails = True
    with pytest.raises(RuntimeError):
        ring.leave(0)
    with pytest.raises(RuntimeError):
        ring.enter(3)
    ring.leave(3)  # never entered
    lane.fails = False
    for block in (0, 1, 2, 3):
        assert float(ring.enter(block)[0][0]) == block
        ring.leave(block)


def test_threads_take_turns():
    """Two streams that share the weights, at different blocks."""
    ring = BlockRing(_sources(5), _slots(2), HostLane())
    wrong: list[tuple[int, float]] = []

    def stream(first: int) -> None:
        for turn in range(300):
            block = (first + turn) % 5
            weights = ring.enter(block)
            before = float(weights[0][0])
            after = float(weights[1][0]) - 100
            if (before, after) != (block, block):
                wrong.append((block, before))
            ring.leave(block)

    threads = [threading.Thread(target=stream, args=(first,)) for first in (0, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(("count", "total"), [(0, 40), (40, 40), (1, 40), (13, 40), (20, 40), (39, 40)])
def test_blocks_are_spread_evenly(count, total):
    chosen = sorted(spread(count, total))
    assert len(chosen) == count and all(0 <= block < total for block in chosen)
    gaps = [after - before for before, after in itertools.pairwise(chosen)]
    assert not gaps or max(gaps) - min(gaps) <= 1
