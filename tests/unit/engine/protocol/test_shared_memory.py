"""Pictures in shared memory: newest, whole, and gone when their owner is."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from engine.errors import ProtocolError
from engine.protocol.shared_memory import FrameReader, FrameWriterMemory


@pytest.fixture
def memory():
    writer = FrameWriterMemory(64, 36)
    yield writer
    writer.close()


def _picture(value: int) -> np.ndarray:
    return np.full((36, 64, 3), value, np.uint8)


def test_newest_picture_is_read_once(memory):
    reader = FrameReader(memory.name)
    assert (reader.width, reader.height) == (64, 36) and reader.newest() is None
    for value in (1, 2, 3):
        memory.write(_picture(value), extra=value * 10)
    sequence, image = reader.newest()
    assert sequence == 3 and (image == 3).all() and reader.extra == 30 and reader.missed == 2
    assert reader.newest() is None
    reader.close()
    reader.close()


def test_reader_gets_a_copy(memory):
    reader = FrameReader(memory.name)
    memory.write(_picture(1))
    _, image = reader.newest()
    for value in range(2, 12):
        memory.write(_picture(value))
    assert (image == 1).all()
    reader.close()


def test_no_picture_is_torn_while_the_writer_races(memory):
    stop = threading.Event()

    def write():
        value = 0
        while not stop.is_set():
            value = (value + 1) % 251
            memory.write(_picture(value))

    thread = threading.Thread(target=write)
    thread.start()
    reader = FrameReader(memory.name)
    try:
        seen = 0
        while seen < 300:
            taken = reader.newest()
            if taken is not None:
                assert taken[1].min() == taken[1].max()
                seen += 1
    finally:
        stop.set()
        thread.join()
        reader.close()


def test_overwritten_slot_is_refused(memory):
    """The writer laps the reader between finding a slot and copying it: nothing is better than a mixed picture."""
    reader = FrameReader(memory.name)
    memory.write(_picture(5))
    slot = 1 % 4
    reader._marks[slot, 0] = 9  # another picture is being written there
    assert reader.newest() is None
    reader.close()


def test_missing_and_foreign_memory(memory):
    with pytest.raises(ProtocolError, match="not there"):
        FrameReader("standin_does_not_exist")
    memory._numbers[0] = 1
    with pytest.raises(ProtocolError, match="no pictures"):
        FrameReader(memory.name)


READER = """
    import sys
    from engine.protocol.shared_memory import FrameReader
    reader = FrameReader(sys.argv[1])
    print(int(reader.newest()[1].max()))
    reader.close()
"""


def test_reading_process_leaves_the_memory_alone_and_says_nothing(memory):
    memory.write(_picture(7))
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(READER), memory.name], capture_output=True, text=True, check=True
        )
        assert (done.stdout.strip(), done.stderr) == ("7", "")
    reader = FrameReader(memory.name)
    assert reader.newest() is not None
    reader.close()


def test_memory_is_gone_after_its_owner_was_killed(tmp_path):
    script = """
        import os, signal
        from engine.protocol.shared_memory import FrameWriterMemory
        print(FrameWriterMemory(64, 36).name, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    name = done.stdout.strip()
    assert name
    for _ in range(100):
        try:
            FrameReader(name).close()
        except ProtocolError:
            break
        threading.Event().wait(0.05)
    with pytest.raises(ProtocolError, match="not there"):
        FrameReader(name)
