"""Ways to damage inputs: bytes without knowing their format, and trees of JSON-like values."""

from __future__ import annotations

import copy
import random
import struct
from typing import Any

_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 63)
_HEAD_BYTES = 512
"""Formats keep what steers a decoder at the beginning; half of all edits go there."""

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 25, 1 << 31, -(1 << 31), 1 << 63, (1 << 64) - 1, 1 << 64, 10**40, 0.5, -0.0, 1e308,
    float("inf"), float("-inf"), float("nan"), "", "0", "a", "\0", "\x7f", "\ud800", "é", "~nobody-of-that/x",
    "../../escape", "a/../../b", "C:\\x", "con", "sample:", "sample:../maya", "microphone", "file", "StandinError",
    "x" * 300, "y" * 6000, [], {}, [[]], [0, 1], [1, 0], {"": 0}, {"type": "ping"}, {"a": {"b": [{}]}},
)  # fmt: skip


def damaged_bytes(rng: random.Random, data: bytes) -> bytes:
    """One to six edits anywhere in `data`."""
    edited = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        _EDITS[rng.randrange(len(_EDITS))](rng, edited)
    return bytes(edited)


def damaged_tree(rng: random.Random, tree: Any) -> Any:
    """One to four edits of a copy of `tree`: values replaced, moved, repeated, renamed, removed or nested."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2, 4))):
        tree = _edit_tree(rng, tree)
    return tree


def nested(depth: int, *, is_list: bool) -> str:
    """JSON that is `depth` values deep."""
    return "[" * depth + "]" * depth if is_list else '{"a":' * depth + "0" + "}" * depth


def _position(rng: random.Random, data: bytearray) -> int:
    end = min(len(data), _HEAD_BYTES) if rng.random() < 0.5 else len(data)
    return rng.randrange(end) if end else 0


def _flip(rng: random.Random, data: bytearray) -> None:
    if data:
        data[_position(rng, data)] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, data: bytearray) -> None:
    if data:
        data[_position(rng, data)] = rng.randrange(256)


def _number(rng: random.Random, data: bytearray) -> None:
    size, letter = rng.choice(((1, "B"), (2, "H"), (4, "I"), (8, "Q")))
    at = _position(rng, data)
    value = rng.choice(_NUMBERS) & ((1 << (8 * size)) - 1)
    data[at : at + size] = struct.pack(rng.choice("<>") + letter, value)


def _cut(rng: random.Random, data: bytearray) -> None:
    at = _position(rng, data)
    del data[at : at + rng.choice((1, 2, 4, 16, 256))]


def _end(rng: random.Random, data: bytearray) -> None:
    del data[_position(rng, data) :]


def _repeat(rng: random.Random, data: bytearray) -> None:
    at, size = _position(rng, data), rng.choice((1, 4, 16, 256, 4096))
    data[at:at] = data[at : at + size] * rng.choice((1, 1, 8))


def _insert(rng: random.Random, data: bytearray) -> None:
    at = _position(rng, data)
    data[at:at] = rng.choice((rng.randbytes(rng.randrange(1, 40)), b"\0" * 64, b"\xff" * 64, b"\n", b'"', b"[" * 3000))


def _copy_over(rng: random.Random, data: bytearray) -> None:
    source, target, size = _position(rng, data), _position(rng, data), rng.choice((2, 4, 8, 64))
    data[target : target + size] = data[source : source + size]


_EDITS = (_flip, _flip, _set, _number, _number, _cut, _end, _repeat, _insert, _copy_over)


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in `tree`."""
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys:
            found.append((node, key))
            waiting.append(node[key])
    return found


def _edit_tree(rng: random.Random, tree: Any) -> Any:
    places = _places(tree)
    if not places or rng.random() < 0.02:
        return copy.deepcopy(rng.choice(VALUES))
    node, key = rng.choice(places)
    what = rng.random()
    if what < 0.55:
        node[key] = copy.deepcopy(rng.choice(VALUES))
    elif what < 0.65:
        del node[key]
    elif what < 0.75:
        other, name = rng.choice(places)
        node[key] = copy.deepcopy(other.get(name) if isinstance(other, dict) else other[name % max(1, len(other))])
    elif what < 0.85 and isinstance(node, dict):
        name = rng.choice((*(str(v) for v in VALUES[:30]), "type", "id", "__metadata__"))
        node[name] = node.pop(key)
    elif what < 0.92:
        node[key] = [node[key]]
    elif isinstance(node[key], (int, float)) and not isinstance(node[key], bool):
        node[key] = node[key] + rng.choice((-1, 1, 0.5)) if rng.random() < 0.7 else -node[key]
    elif isinstance(node[key], str):
        node[key] = node[key] + rng.choice(("\0", "x" * 5000, "\ud800", "/", "~"))
    return tree
