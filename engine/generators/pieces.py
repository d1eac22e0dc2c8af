"""A preparation cut into short pieces, so that it can be made beside a stream that runs."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What is made next. `is_slow`: it may take minutes. `is_alone`: no rank waits for another one in it, so that a
    failure ends nothing but this preparation."""

    name: str
    is_slow: bool = False
    is_alone: bool = False


Pieces = Generator[Piece, None, _Result]
"""Yields each piece before it is made; what it returns is the result of all of them. A generator (of
`engine.generators.base`) that can be prepared so has a method `prepare_in_pieces`, which takes what `prepare` takes and
returns `Pieces[list[Notice]]`. On several ranks all of them yield the same."""


def made_at_once(pieces: Pieces[_Result]) -> _Result:
    """The result. Raises what a piece raises."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value
