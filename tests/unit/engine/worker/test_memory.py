"""Sound and pictures through shared memory, seen from a process of its own."""

import subprocess
import sys
from multiprocessing import shared_memory
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ProtocolError
from engine.media import Portrait
from engine.worker.memory import PortraitMemory, SlotMemory, pixels_in, portrait_of
from engine.worker.messages import portrait_data

ROOT = Path(__file__).resolve().parents[4]
FORM = {"width": 6, "height": 4, "slots": 3, "samples": 101}

OTHER = """
import sys
from engine.worker.memory import SlotMemory
memory = SlotMemory(width=6, height=4, slots=3, samples=101, name=sys.argv[1])
print("attached", flush=True)
sys.stdin.readline()
print(memory.samples(101).sum())
for slot in range(3):
    memory.picture(slot)[:] = 10 + slot
memory.close()
"""


@pytest.fixture
def memory():
    made = SlotMemory(**FORM)
    yield made
    made.close()


@pytest.fixture
def other(memory):
    """Another process that is attached, adds up the sound when told to, and fills the pictures."""
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, memory.name], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "attached\n", process.stderr.read()
        yield process
        process.kill()


def test_both_processes_see_the_same_and_nothing_is_left(memory, other):
    name = memory.name
    memory.forget_name()
    assert memory.put_samples(np.arange(101, dtype=np.float32)) == 101
    answer, errors = other.communicate("go\n", timeout=20)
    assert float(answer) == 5050.0
    assert errors == "", "up to Python 3.12 the resource tracker complains of what it thinks is lost"
    assert [int(memory.picture(slot)[3, 5, 2]) for slot in range(3)] == [10, 11, 12]
    assert memory.picture(1).shape == (4, 6, 3)
    with pytest.raises(FileNotFoundError):
        shared_memory.SharedMemory(name=name)


def test_a_process_that_is_killed_takes_nothing_with_it(memory, other):
    other.kill()
    other.wait()
    memory.picture(2)[:] = 77
    again = SlotMemory(**FORM, name=memory.name)
    assert (again.picture(2) == 77).all()
    again.close()


def test_pictures_and_sound_do_not_overlap(memory):
    for slot in range(3):
        memory.picture(slot)[:] = 255
    memory.put_samples(np.zeros(101, np.float32))
    assert all((memory.picture(slot) == 255).all() for slot in range(3))


def test_sound_is_copied_out(memory):
    memory.put_samples(np.ones(50, np.float32))
    taken = memory.samples(50)
    memory.put_samples(np.zeros(50, np.float32))
    assert taken.sum() == 50.0


def test_sound_that_is_too_long_is_refused(memory):
    with pytest.raises(ProtocolError, match="102 samples"):
        memory.put_samples(np.zeros(102, np.float32))


def test_memory_of_another_size_is_refused(memory):
    with pytest.raises(ProtocolError, match="bytes"):
        SlotMemory(width=6, height=4, slots=3000, samples=101, name=memory.name)


def test_memory_that_is_not_there_is_an_error():
    with pytest.raises(ProtocolError, match="not there"):
        SlotMemory(**FORM, name="psm_of_nobody")


def test_closing_twice_is_fine():
    made = SlotMemory(**FORM)
    name = made.name
    made.close()
    made.close()
    with pytest.raises(FileNotFoundError):
        shared_memory.SharedMemory(name=name)


@pytest.mark.parametrize("has_alpha", [False, True])
@pytest.mark.parametrize("has_mask", [False, True])
def test_a_portrait_is_whole_again_on_the_other_side(has_alpha, has_mask):
    draw = np.random.default_rng(1)
    sent = Portrait(
        image=np.asfortranarray(draw.integers(0, 256, (7, 5, 3), dtype=np.uint8)),
        name="n",
        path="p",
        digest="d",
        alpha=draw.integers(0, 256, (7, 5), dtype=np.uint8) if has_alpha else None,
        person_mask=draw.integers(0, 256, (7, 5), dtype=np.uint8) if has_mask else None,
        annotations={"a": "b"},
    )
    data = portrait_data(sent)
    memory = PortraitMemory(sent)
    pixels = pixels_in(memory.name, data)
    memory.close()
    got = portrait_of(data, pixels)
    for field in ("image", "alpha", "person_mask"):
        wanted, there = getattr(sent, field), getattr(got, field)
        assert (wanted is None) == (there is None)
        assert wanted is None or (wanted == there).all()
    assert (got.name, got.path, got.digest, got.annotations) == ("n", "p", "d", {"a": "b"})
    with pytest.raises(ProtocolError):
        pixels_in(memory.name, data)
