"""The pods against bytes written down from the layout in spa/pod/pod.h."""

from __future__ import annotations

import struct

from engine.camera import pipewire_pods as pods


def _words(pod: bytes) -> list[int]:
    return list(struct.unpack(f"={len(pod) // 4}I", pod))


def test_offered_format_word_for_word():
    words = _words(pods.offered_format(pods.YUY2, 640, 360, 30))
    assert words[:4] == [4 * len(words) - 8, 15, 0x40003, 3]
    assert words[4:10] == [1, 0, 4, 3, 2, 0]  # media type: an Id of four bytes, padded: video
    assert words[16:22] == [0x20001, 0, 4, 3, 4, 0]
    assert words[22:28] == [0x20003, 0, 8, 10, 640, 360]
    assert words[28:34] == [0x20004, 0, 8, 11, 30, 1]


def test_format_that_was_agreed():
    assert pods.pixel_format_of(pods.offered_format(pods.I420, 64, 36, 25)) == pods.I420
    choice = struct.pack("=IIIIII", 20, 19, 0, 0, 4, 3) + struct.pack("=II", pods.YUY2, 0)
    body = struct.pack("=IIII", 0x40003, 4, 0x20001, 0) + choice
    assert pods.pixel_format_of(struct.pack("=II", len(body), 15) + body) == pods.YUY2


def test_no_format():
    whole = pods.offered_format(pods.I420, 64, 36, 25)
    for size in (8, 16, 40, 64, 80):
        assert pods.pixel_format_of(whole[:size]) is None
    assert pods.pixel_format_of(pods.wanted_header()) is None


def test_buffers_and_header():
    words = _words(pods.wanted_buffers(1000, 40))
    assert words[:6] == [4 * len(words) - 8, 15, 0x40004, 5, 1, 0]
    assert words[6:15] == [28, 19, 1, 0, 4, 4, 8, 2, 16]  # a range of Int: best, least, most
    assert _words(pods.wanted_header()) == [56, 15, 0x40005, 6, 1, 0, 4, 3, 1, 0, 2, 0, 4, 4, 32, 0]
