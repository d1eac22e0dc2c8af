"""What the engine and rank 0 say to each other, and rank 0 to the other ranks: typed, numbered, limited in size.

Sound and pictures are never in a message: they lie in shared memory (`engine.worker.memory`), and a message says where.
"""

from __future__ import annotations

from typing import Any, Union

import msgspec

from engine import errors
from engine.errors import GeneratorError, ProtocolError, StandinError
from engine.media import AudioChunk, Notice, Portrait

WIRE_VERSION = 3
MAX_MESSAGE_BYTES = 1 << 20


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """Base of all messages."""


class Fault(Message, frozen=True, tag="failed"):
    """An error on its way: `kind` is a class of `engine.errors`, `rank` who had it (-1: nobody in particular).

    `is_consequence`: it only says that another rank is gone or silent, so that the cause is elsewhere.
    """

    kind: str
    code: str
    message: str
    hint: str = ""
    detail: str = ""
    rank: int = -1
    is_consequence: bool = False

    def as_error(self) -> StandinError:
        """The error that it was, or a `GeneratorError` for a class that is not ours."""
        kind = getattr(errors, self.kind, GeneratorError)
        if not (isinstance(kind, type) and issubclass(kind, StandinError)):
            kind = GeneratorError
        return kind(self.message, code=self.code, hint=self.hint, detail=self.detail)


def fault_of(error: StandinError, rank: int = -1, *, is_consequence: bool = False) -> Fault:
    """`error` as it travels."""
    return Fault(
        kind=type(error).__name__,
        code=error.code,
        message=error.message,
        hint=error.hint,
        detail=error.detail,
        rank=rank,
        is_consequence=is_consequence,
    )


# ----------------------------------------------------------------------------------- commands, engine to rank 0 to all


class Open(Message, frozen=True, tag="open"):
    """The first command: what every rank makes frames with. `generator` is "module:Class"; `memory` is the slots'."""

    number: int
    generator: str
    seed: int
    fps: int
    options: dict[str, Any]
    memory: str
    width: int
    height: int
    slots: int
    samples: int


class PortraitData(Message, frozen=True):
    """A `Portrait`; its pixels lie one after the other in shared memory: image, then alpha and mask where there are."""

    name: str
    path: str
    digest: str
    height: int
    width: int
    has_alpha: bool
    has_mask: bool
    annotations: dict[str, str]


class Prepare(Message, frozen=True, tag="prepare"):
    """Begin stream number `stream`; `memory` holds the portrait's pixels. Rank 0 tells the others `in_pieces`: each
    piece is a command of its own then."""

    number: int
    stream: int
    portrait: PortraitData
    memory: str
    size: tuple[int, int]
    in_pieces: bool = False


class MakePiece(Message, frozen=True, tag="piece"):
    """The next piece of what `stream` is prepared in; rank 0 says so to the others."""

    number: int
    stream: int


class Generate(Message, frozen=True, tag="generate"):
    """One chunk of `stream`; its `samples` are in the memory's sound slot, which is rank 0's until `Done`."""

    number: int
    stream: int
    first_frame: int
    frames: int
    first_sample: int
    samples: int
    is_discontinuous: bool
    economy: int = 0


class Reset(Message, frozen=True, tag="reset"):
    """`stream` begins anew."""

    number: int
    stream: int


class Discard(Message, frozen=True, tag="discard"):
    """`stream` is of no more use."""

    number: int
    stream: int


class Tick(Message, frozen=True, tag="tick"):
    """Nothing to do, said so that silence means trouble."""

    number: int


class Exit(Message, frozen=True, tag="exit"):
    """Leave."""

    number: int


class Credit(Message, frozen=True, tag="credit"):
    """Slot `slot` is rank 0's again."""

    slot: int


RankCommand = Union[Open, Prepare, MakePiece, Generate, Reset, Discard, Tick, Exit]
ToRank = Union[RankCommand, Credit]


# -------------------------------------------------------------------------------------------------- rank 0 to engine


class Hello(Message, frozen=True, tag="hello"):
    """The first message of all."""

    version: int
    ranks: int


class Opened(Message, frozen=True, tag="opened"):
    """All ranks have what they make frames with, and rank 0 has the memory: its name may go."""

    number: int


class Working(Message, frozen=True, tag="working"):
    """How far the slowest rank is; comes at least once a second while a stream is prepared."""

    stage: str
    done: float
    total: float
    unit: str = ""


class Beat(Message, frozen=True, tag="beat"):
    """All ranks are there; comes at least once a second while the first chunk of a stream is made."""


class NoticeData(Message, frozen=True):
    """A `Notice`."""

    code: str
    message: str
    hint: str = ""


class FrameReady(Message, frozen=True, tag="frame"):
    """Frame number `frame` lies in slot `slot`, which is the engine's until its `Credit`."""

    number: int
    slot: int
    frame: int


class Done(Message, frozen=True, tag="done"):
    """Command `number` was carried out (by all ranks for `Prepare`, by rank 0 for the others)."""

    number: int
    notices: list[NoticeData] = []


class Refused(Message, frozen=True, tag="refused"):
    """Command `number` cannot be carried out; nothing of it is left, and everything else goes on."""

    number: int
    fault: Fault


ToEngine = Union[Hello, Opened, Working, Beat, FrameReady, Done, Refused, Fault]

_encoder = msgspec.msgpack.Encoder()
_decoders = {kind: msgspec.msgpack.Decoder(kind) for kind in (ToRank, ToEngine, RankCommand)}


def encode(message: Message) -> bytes:
    """Raises `ProtocolError` for one that is too long to be sent."""
    data = _encoder.encode(message)
    if len(data) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"A message of {len(data)} bytes to or from the ranks is too long.")
    return data


def decode(data: bytes, kind: Any) -> Any:
    """The message of `kind` (`ToRank`, `ToEngine` or `RankCommand`) in `data`. Raises `ProtocolError`."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"A message of {len(data)} bytes to or from the ranks is too long.")
    try:
        return _decoders[kind].decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(
            "What came from the other process is no message of this version.", detail=str(error)
        ) from error


# ------------------------------------------------------------------------------------------------------- our own nouns


def portrait_data(portrait: Portrait) -> PortraitData:
    """All of a portrait but its pixels and what has been said about it already."""
    height, width = portrait.image.shape[:2]
    return PortraitData(
        name=portrait.name,
        path=portrait.path,
        digest=portrait.digest,
        height=height,
        width=width,
        has_alpha=portrait.alpha is not None,
        has_mask=portrait.person_mask is not None,
        annotations=dict(portrait.annotations),
    )


def chunk_of(command: Generate, samples: Any) -> AudioChunk:
    """The chunk that `command` is about, with its sound."""
    return AudioChunk(
        first_frame=command.first_frame,
        frames=command.frames,
        first_sample=command.first_sample,
        samples=samples,
        is_discontinuous=command.is_discontinuous,
        economy=command.economy,
    )


def notices_as_data(notices: list[Notice]) -> list[NoticeData]:
    """As they travel."""
    return [NoticeData(code=notice.code, message=notice.message, hint=notice.hint) for notice in notices]


def notices_from_data(notices: list[NoticeData]) -> list[Notice]:
    """As they arrive."""
    return [Notice(code=notice.code, message=notice.message, hint=notice.hint) for notice in notices]
