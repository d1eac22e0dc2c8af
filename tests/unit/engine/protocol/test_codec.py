"""Lines and messages: every message survives the way, nothing else gets through."""

from __future__ import annotations

import json
import typing

import msgspec
import pytest

from engine.errors import CameraError, ProtocolError, UsageError
from engine.protocol import messages
from engine.protocol.codec import MAX_LINE_BYTES, decode_command, decode_event, encode, reason_of
from engine.protocol.messages import (
    AnyCommand,
    AnyEvent,
    Hello,
    Ping,
    Reason,
    Reply,
    SetCamera,
    SetMuted,
    SetSource,
    Start,
    Stats,
    StoreHandles,
    plain,
)
from engine.settings import FileSource, SessionSettings

COMMANDS, EVENTS = typing.get_args(AnyCommand), typing.get_args(AnyEvent)


def _sample(kind: type[msgspec.Struct]) -> msgspec.Struct:
    """A message of this kind, its required fields filled in by their types."""
    values = {str: "x", int: 3, float: 1.5, bool: True, Reason: Reason(code="c", message="M.", hint="H.")}
    fields = {}
    for field in msgspec.structs.fields(kind):
        if not field.required:
            continue
        if field.type in values:
            fields[field.name] = values[field.type]
        elif isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            fields[field.name] = SessionSettings(portrait="p") if field.type is SessionSettings else field.type()
        elif isinstance(field.type, type):
            fields[field.name] = next(iter(field.type))  # an enumeration
        else:
            origin = typing.get_origin(field.type)
            fields[field.name] = origin() if origin in (list, dict) else None
            if field.name == "source":
                fields[field.name] = FileSource(path="a.wav")
    return kind(**fields)


@pytest.mark.parametrize("kind", COMMANDS, ids=lambda k: k.__name__)
def test_every_command_survives(kind):
    command = _sample(kind)
    line = encode(command)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert decode_command(line) == command and type(decode_command(line)) is kind


@pytest.mark.parametrize("kind", EVENTS, ids=lambda k: k.__name__)
def test_every_event_survives(kind):
    event = _sample(kind)
    assert decode_event(encode(event)) == event and type(decode_event(encode(event))) is kind


def test_every_kind_of_message_is_in_the_protocol_and_described():
    kinds = [v for v in vars(messages).values() if isinstance(v, type) and v.__module__ == messages.__name__]
    commands = {k for k in kinds if issubclass(k, messages.Command) and k is not messages.Command}
    events = {k for k in kinds if issubclass(k, messages.Event) and k is not messages.Event}
    assert commands == set(COMMANDS) and events == set(EVENTS)
    assert all(k.__doc__ for k in commands | events)


def test_types_are_lower_case_words():
    for kind in (*COMMANDS, *EVENTS):
        line = json.loads(encode(_sample(kind)))
        assert line["type"].replace("_", "").islower()


def test_text_of_any_kind_stays_on_one_line():
    event = Hello(protocol_version=1, engine_version='line\nbreak "\u2028 ü 🙂', pid=1, generators=["a\r\n"])
    assert encode(event).count(b"\n") == 1 and decode_event(encode(event)) == event


def test_as_others_write_it():
    assert decode_command(b'{"type": "set_muted", "id": 4, "is_muted": true}') == SetMuted(id=4, is_muted=True)
    assert decode_command(b' {"id":1,"camera":null,"type":"set_camera"} \r\n') == SetCamera(id=1, camera=None)
    handles = decode_command(b'{"type": "store_handles", "id": 1, "portrait": "p", "handles": {"chin": [1, 2.5]}}')
    assert handles == StoreHandles(id=1, portrait="p", handles={"chin": (1.0, 2.5)})
    line = b'{"type": "set_source", "id": 1, "source": {"type": "file", "path": "a.wav"}}'
    assert decode_command(line) == SetSource(id=1, source=FileSource(path="a.wav"))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"not JSON",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b'{"type": "ping"}',
        b'{"type": "ping", "id": "1"}',
        b'{"type": "ping", "id": 1.5}',
        b'{"type": "ping", "id": 1, "surprise": 1}',
        b'{"type": "pong", "id": 1}',
        b'{"type": "hello", "protocol_version": 1, "engine_version": "", "pid": 1, "generators": []}',
        b'{"type": "ping", "id": 1} {"type": "ping", "id": 2}',
        b'{"type": "set_muted", "id": 1, "is_muted": "yes"}',
        b'{"type": "store_handles", "id": 1, "portrait": "p", "handles": {"chin": [1]}}',
        b"[" * 100_000,
    ],
)
def test_everything_else_is_a_protocol_error(line):
    with pytest.raises(ProtocolError) as caught:
        decode_command(line)
    assert caught.value.message


def test_line_that_is_too_long_is_not_even_parsed():
    with pytest.raises(ProtocolError, match="too long"):
        decode_command(b'{"type": "ping", "id": 1}' + b" " * MAX_LINE_BYTES)


def test_commands_are_no_events():
    with pytest.raises(ProtocolError):
        decode_event(encode(Ping(id=1)))
    with pytest.raises(ProtocolError):
        decode_command(encode(Reply(id=1)))


def test_impossible_settings_are_a_usage_error():
    line = encode(Start(id=1, settings=SessionSettings(portrait="p"))).replace(b'"fps":25', b'"fps":7')
    with pytest.raises(UsageError):
        decode_command(line)


def test_numbers_that_json_lacks_are_null():
    """A figure that is no number must not make the line unreadable."""
    line = encode(Stats(fps=float("nan")))
    assert b"NaN" not in line and json.loads(line)["fps"] is None


def test_reason_of_an_error_keeps_all_of_it():
    error = CameraError("It is taken.", code="camera.busy", hint="Close it.", detail="EBUSY")
    assert reason_of(error) == Reason(code="camera.busy", message="It is taken.", hint="Close it.", detail="EBUSY")
    assert reason_of(CameraError("No.")).code == "camera"


def test_plain_is_what_the_line_says():
    event = Reply(id=3, error=Reason(code="c", message="M."))
    assert plain(event) == json.loads(encode(event))
