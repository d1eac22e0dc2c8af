"""What goes over the line comes out the same, and nothing else comes out."""

import msgspec
import numpy as np
import pytest

from engine.errors import GeneratorError, ModelFilesError, ProtocolError
from engine.media import Notice, Portrait
from engine.worker.messages import (
    MAX_MESSAGE_BYTES,
    Credit,
    Done,
    Fault,
    FrameReady,
    Generate,
    Open,
    Prepare,
    RankCommand,
    ToEngine,
    ToRank,
    decode,
    encode,
    fault_of,
    notices_as_data,
    notices_from_data,
    portrait_data,
)

GENERATE = Generate(
    number=7, stream=2, first_frame=28, frames=28, first_sample=17920, samples=17920, is_discontinuous=True
)


@pytest.mark.parametrize("message", [GENERATE, Credit(slot=3)])
def test_commands_and_credits_arrive_at_rank_0(message):
    assert decode(encode(message), ToRank) == message


def test_options_of_any_plain_kind_arrive():
    command = Open(
        number=1, generator="a:B", seed=1, fps=25, options={"a": 1, "b": [0.5, "x", None]}, memory="m", width=2,
        height=3, slots=4, samples=5,
    )  # fmt: skip
    assert decode(encode(command), RankCommand).options == {"a": 1, "b": [0.5, "x", None]}


def test_a_portrait_travels_without_its_pixels():
    portrait = Portrait(
        image=np.zeros((400, 300, 3), np.uint8),
        name="n",
        path="p",
        digest="d",
        person_mask=np.zeros((400, 300), np.uint8),
        annotations={"puppet": "{}"},
    )
    command = Prepare(number=1, stream=1, portrait=portrait_data(portrait), memory="m", size=(640, 360))
    data = encode(command)
    assert len(data) < 300
    back = decode(data, RankCommand).portrait
    assert (back.height, back.width, back.has_alpha, back.has_mask) == (400, 300, False, True)
    assert back.annotations == {"puppet": "{}"}


def test_notices_survive():
    notices = [Notice(code="a", message="b.", hint="c."), Notice(code="d", message="e.")]
    done = decode(encode(Done(number=1, notices=notices_as_data(notices))), ToEngine)
    assert notices_from_data(done.notices) == notices


def test_an_error_comes_back_as_the_error_that_it_was():
    error = ModelFilesError("A file is damaged.", code="model_files.damaged", hint="Download it.", detail="crc")
    fault = decode(encode(fault_of(error, 3)), ToEngine)
    assert fault.rank == 3
    back = fault.as_error()
    assert type(back) is ModelFilesError
    assert (back.message, back.code, back.hint, back.detail) == (error.message, error.code, error.hint, error.detail)


@pytest.mark.parametrize("kind", ["NoSuchError", "annotations", "Exception", "__builtins__"])
def test_an_error_of_an_unknown_kind_is_a_generator_error(kind):
    assert type(Fault(kind=kind, code="x", message="m.").as_error()) is GeneratorError


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"not a message",
        msgspec.msgpack.encode({"type": "done"}),
        msgspec.msgpack.encode({"type": "frame", "number": 1, "slot": "1", "frame": 0}),
        msgspec.msgpack.encode({"type": "frame", "number": 1, "slot": 1, "frame": 0, "more": 1}),
        encode(GENERATE),
    ],
)
def test_what_is_no_message_to_the_engine_is_refused(data):
    with pytest.raises(ProtocolError):
        decode(data, ToEngine)


def test_length_is_limited_on_both_sides():
    long = Done(number=1, notices=notices_as_data([Notice(code="c", message="m" * MAX_MESSAGE_BYTES)]))
    with pytest.raises(ProtocolError, match="too long"):
        encode(long)
    with pytest.raises(ProtocolError, match="too long"):
        decode(b"\x00" * (MAX_MESSAGE_BYTES + 1), ToEngine)


def test_a_frame_message_is_small():
    assert len(encode(FrameReady(number=1000, slot=27, frame=10**6))) < 64
