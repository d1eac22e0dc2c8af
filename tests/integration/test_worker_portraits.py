"""A further portrait beside the stream of two ranks: prepared in pieces between chunks, withdrawn, refused, failed."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from engine.errors import Cancelled, GeneratorError, ModelFilesError, StandinError
from engine.generators.base import GeneratorSpec
from engine.media import AudioChunk, ChunkSpec, Portrait
from engine.worker import fate
from engine.worker.generator import RankedGenerator
from engine.worker.group_settings import GroupSettings

pytest.importorskip("torch")
pytestmark = pytest.mark.timeout(600)  # on a machine that is busy with other things, ranks take a minute to start

ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEIGHT, FRAMES = 16, 8, 4
SPEC = GeneratorSpec(
    name="test", width=WIDTH, height=HEIGHT, chunk=ChunkSpec(fps=25, frames=FRAMES), follows_canvas=False
)
ROOM = (640, 360)
SEED = 3


class Frames:
    """A `FrameWriter` that keeps the grey of each frame, by its number."""

    def __init__(self, on_commit=lambda frame: None) -> None:
        self.image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        self.greys: dict[int, int] = {}
        self.on_commit = on_commit

    def next_image(self) -> np.ndarray:
        return self.image

    def commit(self, frame: int) -> None:
        self.greys[frame] = int(self.image[0, 0, 0])
        self.on_commit(frame)


class Stages:
    """A `Progress` that counts what it was told, and cancels when told to."""

    def __init__(self) -> None:
        self.told: list[tuple] = []
        self.is_enough = False

    def update(self, stage, done, total, unit="") -> None:
        self.told.append((stage, done))
        if self.is_enough:
            raise Cancelled("Enough.")


class Preparing:
    """Another portrait of this grey, in a thread."""

    def __init__(self, settings, grey: int) -> None:
        self.generator, self.stages, self.error = RankedGenerator(settings), Stages(), None
        self._portrait = Portrait(image=np.full((6, 5, 3), grey, np.uint8), name="o", path="", digest=str(grey))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.generator.prepare(self._portrait, ROOM, self.stages)
        except StandinError as error:
            self.error = error
            self.generator.close()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def pieces(self) -> int:
        return max((done for stage, done in self.stages.told if stage == "pieces"), default=0)

    def wait(self) -> RankedGenerator:
        self._thread.join()
        return self.generator

    def wait_for_pieces(self, more: int = 1) -> None:
        wanted = self.pieces + more
        while self.is_alive and self.pieces < wanted:
            time.sleep(0.005)
        assert self.is_alive or self.pieces >= wanted, self.error


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests" / "fixtures"), str(ROOT)]))
        patch.setattr(fate, "_REASON_S", 20.0)  # on a busy machine, too, the true reason is to be told
        patch.setattr(fate, "_LAST_FRAMES_S", 20.0)
        yield tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def settings(folder):
    options = (("folder", str(folder)), ("chunk_s", 0.17))
    return GroupSettings(
        generator="rank_generators:Summing", seed=SEED, fps=25, options=options, spec=SPEC, ranks=2, timeout_s=30.0
    )


@pytest.fixture(scope="module")
def live(settings):
    """A stream of grey 40 that runs, the same for all tests: starting ranks takes seconds."""
    live = Live(settings)
    yield live
    live.generator.close()


@pytest.fixture
def pieces(folder):
    """While this file is there, a preparation never ends."""
    path = folder / "pieces"
    path.touch()
    yield path
    path.unlink(missing_ok=True)
    (folder / "trouble").unlink(missing_ok=True)


class Live:
    def __init__(self, settings) -> None:
        self.settings, self.chunks = settings, 0
        self.generator = Preparing(settings, 40).wait()
        self.pids = self.generator.pids
        self.speak()

    def speak(self) -> None:
        """One chunk, whose frames must be right."""
        assert _greys(self.generator, self.chunks) == _expected(40, self.chunks)
        self.chunks += 1

    def goes_on(self) -> None:
        """With the ranks that it had."""
        self.speak()
        assert self.generator.pids == self.pids


def _greys(generator, index: int, on_commit=lambda frame: None) -> dict[int, int]:
    frames = Frames(on_commit)
    samples = np.zeros(640 * FRAMES, np.float32)
    generator.generate(
        AudioChunk(first_frame=index * FRAMES, frames=FRAMES, first_sample=index * 640 * FRAMES, samples=samples),
        frames,
    )
    return frames.greys


def _expected(grey: int, index: int) -> dict[int, int]:
    return {frame: (SEED + grey + 20 + frame) % 256 for frame in range(index * FRAMES, (index + 1) * FRAMES)}


def test_chunks_are_made_while_a_portrait_is_prepared_and_the_portrait_while_chunks_are_made(live, pieces):
    """Chunks take longer than what they show, and follow each other without a break."""
    other = Preparing(live.settings, 90)
    other.wait_for_pieces()
    before = other.pieces
    for _ in range(5):
        live.speak()
    assert other.is_alive and other.pieces > before
    while other.pieces < before + 10:
        live.speak()
    assert other.is_alive
    pieces.unlink()
    generator = other.wait()
    for index in range(2):
        live.speak()
        assert _greys(generator, index) == _expected(90, index)
    generator.close()
    live.goes_on()


def test_one_that_is_not_wanted_any_more_is_given_up_and_the_next_one_begun(live, pieces):
    second = Preparing(live.settings, 91)
    second.wait_for_pieces(3)
    second.stages.is_enough = True
    second.wait()
    assert isinstance(second.error, Cancelled)
    live.goes_on()
    pieces.unlink()
    third = Preparing(live.settings, 92).wait()
    assert _greys(third, 0) == _expected(92, 0)
    third.close()
    live.goes_on()


def test_two_that_are_prepared_together_are_both_finished(live, pieces):
    both = [Preparing(live.settings, grey) for grey in (93, 94)]
    both[0].wait_for_pieces()
    live.speak()
    pieces.unlink()
    for preparing, grey in zip(both, (93, 94), strict=True):
        assert _greys(preparing.wait(), 0) == _expected(grey, 0)
        preparing.generator.close()
    live.goes_on()


def test_one_that_is_given_up_while_rank_0_looks_at_it_ahead(live, folder):
    (folder / "foresee").touch()
    second = Preparing(live.settings, 95)
    while not any(stage == "features" for stage, _ in second.stages.told):
        time.sleep(0.005)
    second.stages.is_enough = True
    second.wait()
    live.speak()
    (folder / "foresee").unlink()
    third = Preparing(live.settings, 96).wait()
    assert _greys(third, 0) == _expected(96, 0)
    third.close()
    live.goes_on()


@pytest.mark.parametrize(
    ("rank", "what", "kind", "code"),
    [
        (1, "memory", GeneratorError, "worker.out_of_memory"),
        (0, "files", ModelFilesError, "model_files.damaged"),
        (1, "raise", GeneratorError, "generator.internal"),
    ],
)
def test_where_no_rank_waits_for_another_a_failure_harms_nobody(live, folder, pieces, rank, what, kind, code):
    (folder / "trouble").write_text(f"{rank} {what} alone")
    failed = Preparing(live.settings, 97)
    failed.wait()
    assert (type(failed.error), failed.error.code) == (kind, code)
    if kind is GeneratorError:
        assert f"Rank {rank} " in failed.error.message
    live.goes_on()
    (folder / "trouble").unlink()
    pieces.unlink()
    again = Preparing(live.settings, 97).wait()
    assert _greys(again, 0) == _expected(97, 0)
    again.close()
    live.goes_on()


def test_one_that_is_given_up_before_its_turn(live, folder):
    """Rank 0 finds no picture any more when it comes to it."""
    first = live.chunks * FRAMES
    is_under_way = threading.Event()
    (folder / f"had{first - 1}").touch()
    (folder / "hand_in_hand").touch()  # this chunk ends when the test wants
    chunk = threading.Thread(target=_greys, args=(live.generator, live.chunks, lambda frame: is_under_way.set()))
    chunk.start()
    is_under_way.wait()
    second = Preparing(live.settings, 99)
    while not second.stages.told:
        time.sleep(0.005)
    second.stages.is_enough = True
    second.wait()
    assert isinstance(second.error, Cancelled)
    (folder / "hand_in_hand").unlink()
    chunk.join()
    live.chunks += 1
    live.goes_on()


def test_a_rank_that_dies_ends_the_group_at_once(settings, pieces):
    live = Live(dataclasses.replace(settings, timeout_s=29.0))  # which makes it another group
    other = Preparing(live.settings, 98)
    other.wait_for_pieces()
    os.kill(live.pids[1], signal.SIGKILL)
    other.wait()
    assert other.error.code == "worker.rank_died"
    with pytest.raises(GeneratorError):
        live.speak()
    live.generator.close()


def test_where_ranks_wait_for_each_other_a_failure_ends_the_group_at_once(live, folder, pieces):
    """The last test of the group that all share."""
    other = Preparing(live.settings, 98)
    other.wait_for_pieces()
    (folder / "new").write_text("1 raise together")
    (folder / "new").replace(folder / "trouble")
    other.wait()
    assert other.error.code == "generator.internal"
    with pytest.raises(GeneratorError):
        live.speak()
