"""Messages to lines of JSON and back, strict in both directions."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from engine.errors import ProtocolError, StandinError
from engine.protocol.messages import AnyCommand, AnyEvent, Command, Event, Reason

MAX_LINE_BYTES = 1 << 20

_Message = TypeVar("_Message")

_encoder = msgspec.json.Encoder()
_commands: msgspec.json.Decoder[AnyCommand] = msgspec.json.Decoder(AnyCommand)
_events: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)


def encode(message: Command | Event) -> bytes:
    """One line, newline included."""
    return _encoder.encode(message) + b"\n"


def decode_command(line: bytes) -> AnyCommand:
    """The command in `line`; `ProtocolError` if it is none, `UsageError` if its settings are not possible."""
    return _decode(_commands, line)


def decode_event(line: bytes) -> AnyEvent:
    """The event in `line`; `ProtocolError` if it is none."""
    return _decode(_events, line)


def reason_of(error: StandinError) -> Reason:
    """What the other process is told of an error."""
    texts = (error.code, error.message, error.hint, error.detail)
    code, message, hint, detail = (_sayable(text) for text in texts)
    return Reason(code=code, message=message, hint=hint, detail=detail)


def _sayable(text: str) -> str:
    """Names of files may hold bytes that are no UTF-8, which JSON cannot carry."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _decode(decoder: msgspec.json.Decoder[_Message], line: bytes) -> _Message:
    if len(line) > MAX_LINE_BYTES:
        raise ProtocolError(f"A control line of {len(line)} bytes is too long.")
    try:
        return decoder.decode(line)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"A control line does not fit protocol version 1: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"A control line is not JSON: {error}.") from error
    except RecursionError as error:
        raise ProtocolError("A control line is nested too deeply.") from error
