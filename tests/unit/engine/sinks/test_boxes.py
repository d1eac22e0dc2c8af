"""Files that were cut off anywhere, read by FFmpeg afterwards."""

from __future__ import annotations

import struct

import av
import numpy as np
import pytest

from engine.media import CanvasFormat
from engine.sinks.base import PresentedFrame
from engine.sinks.boxes import cut_broken_end
from engine.sinks.recorder import Recorder

CANVAS = CanvasFormat(width=64, height=36, fps=25)


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory) -> bytes:
    """Three whole fragments of 50 pictures, as a recording that is still under way has them on the disk."""
    path = tmp_path_factory.mktemp("boxes") / "a.mp4"
    recorder = Recorder(path)
    recorder.open(CANVAS)
    try:
        for tick in range(180):
            image = np.full((36, 64, 3), 40, np.uint8)
            recorder.send(PresentedFrame(image=image, tick=tick, frame=tick, due_s=0))
        return path.read_bytes()
    finally:
        recorder.close()


def _boxes(data: bytes) -> list[tuple[bytes, int, int]]:
    found, start = [], 0
    while start < len(data):
        size, kind = struct.unpack_from(">I4s", data, start)
        found.append((kind, start, size))
        start += size
    return found


def _pictures(path) -> int:
    with av.open(str(path)) as file:
        return sum(1 for _ in file.decode(video=0))


def test_a_file_cut_anywhere_in_its_last_fragment_plays_up_to_it(unfinished, tmp_path):
    _, start, size = [box for box in _boxes(unfinished) if box[0] == b"moof"][-1]
    path, refused = tmp_path / "cut.mp4", 0
    for length in [*range(start, start + size + 16, 11), len(unfinished) - 1]:
        path.write_bytes(unfinished[:length])
        try:
            av.open(str(path)).close()
        except av.error.FFmpegError:
            refused += 1
        assert cut_broken_end(path) == length - start
        assert path.read_bytes() == unfinished[:start]
    assert refused  # or nothing here needs mending
    assert _pictures(path) == 100


def test_a_file_that_ends_with_a_fragment_stays_as_it_is(unfinished, tmp_path):
    path = tmp_path / "whole.mp4"
    path.write_bytes(unfinished)
    assert cut_broken_end(path) == 0 and path.read_bytes() == unfinished
    assert _pictures(path) == 150


def test_a_file_without_a_whole_fragment_stays_as_it_is(unfinished, tmp_path):
    _, start, size = next(box for box in _boxes(unfinished) if box[0] == b"mdat")
    path = tmp_path / "short.mp4"
    for data in (b"", b"\0\0\0", unfinished[:50], unfinished[: start + size - 1]):
        path.write_bytes(data)
        assert cut_broken_end(path) == 0 and path.read_bytes() == data


@pytest.mark.parametrize("size", [0, 1, 7])
def test_sizes_of_other_kinds(tmp_path, size):
    path = tmp_path / "a.mp4"
    media = struct.pack(">I4sQ", 1, b"mdat", 24) + bytes(8)  # a size of 64 bits
    last = struct.pack(">I4s", size, b"mdat") + bytes(5)
    path.write_bytes(media + last)
    assert cut_broken_end(path) == (0 if size == 0 else len(last))
