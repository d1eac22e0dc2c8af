"""What is fuzzed: for each target valid inputs, its own ways to damage them, and the code that must bear the result.

`run` returns for a valid result and raises `StandinError` for a refusal; anything else is a finding.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import media
from mutations import VALUES, damaged_bytes, damaged_tree, nested

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Target:
    """`corpus` gives valid inputs, `damage` a worse one, `run` does the work in an empty folder of its own."""

    corpus: Callable[[], list[bytes]]
    damage: Callable[[random.Random, bytes], bytes]
    run: Callable[[bytes, Path], None]


def damaged_json(rng: random.Random, data: bytes) -> bytes:
    """A tree that is still JSON most of the time, else damaged bytes."""
    if rng.random() < 0.25:
        return damaged_bytes(rng, data)
    if rng.random() < 0.02:
        return nested(rng.choice((200, 5000, 200_000)), is_list=rng.random() < 0.5).encode()
    try:
        tree = damaged_tree(rng, json.loads(data))
        text = json.dumps(tree, ensure_ascii=rng.random() < 0.8)
    except (ValueError, RecursionError):
        return damaged_bytes(rng, data)
    if rng.random() < 0.05:
        text = text.replace("0", "9" * 5000, 1)
    if rng.random() < 0.05:
        text = text.replace("{}", nested(3000, is_list=True), 1)
    return text.encode("utf-8", "surrogatepass")


# ------------------------------------------------------------------------------------------------------- control lines


def control_corpus() -> list[bytes]:
    """One of each command, without those that end the engine."""
    live = {"portrait": "sample:maya", "source": {"type": "silent"}, "canvas": {"width": 640, "height": 360}}
    full = {
        **live, "generator": {"name": "puppet", "seed": 3, "options": {}}, "fps": 30, "has_preview": True,
        "sound": {"gate": {"mode": "level", "level_dbfs": -40.0}, "is_push_to_talk": True}, "is_muted": True,
        "voice_out": {"name": "x", "host_api": "", "offset_ms": 10.0}, "recording": "clip.mp4", "camera": None,
    }  # fmt: skip
    commands: list[dict[str, Any]] = [
        {"type": "start", "settings": live}, {"type": "start", "settings": full}, {"type": "stop"}, {"type": "ping"},
        {"type": "set_portrait", "portrait": "sample:theo"}, {"type": "set_source", "source": {"type": "silent"}},
        {"type": "set_source", "source": {"type": "file", "path": "a.wav", "is_looped": True}},
        {"type": "set_source", "source": {"type": "microphone", "name": "none", "host_api": "ALSA"}},
        {"type": "set_camera", "camera": None}, {"type": "set_voice_out", "voice_out": None},
        {"type": "set_canvas", "canvas": {"width": 640, "height": 360, "fill": "solid", "colour": "#102030"}},
        {"type": "set_muted", "is_muted": True}, {"type": "set_talking", "is_talking": False},
        {"type": "set_sound", "sound": {"gate": {"mode": "auto", "hold_ms": 200.0}}},
        {"type": "start_recording", "path": "clip.mp4", "may_replace": True}, {"type": "stop_recording"},
        {"type": "take_snapshot", "path": "shot.png"}, {"type": "list_devices"},
        {"type": "analyse_portrait", "portrait": "sample:maya"},
        {"type": "store_handles", "portrait": "sample:maya", "handles": {"mouth": [300.0, 400.0], "chin": [1.0, 2.0]}},
    ]  # fmt: skip
    return [json.dumps({"id": number + 1, **command}).encode() for number, command in enumerate(commands)]


def event_corpus() -> list[bytes]:
    """Events with nested values."""
    from engine.protocol import messages as m
    from engine.protocol.codec import encode

    reason = m.Reason(code="a.b", message="c", hint="d")
    events = [
        m.Hello(protocol_version=1, engine_version="0", pid=2, generators=["puppet"]), m.Reply(id=4, error=reason),
        m.StateChanged(state=m.SessionState.LIVE, reason=reason), m.Stats(sinks={"camera": m.SinkStats(sent=4)}),
        m.Noticed(reason=reason), m.PreviewOpened(memory_name="x", width=640, height=360),
    ]  # fmt: skip
    return [encode(event).rstrip() for event in events]


def run_codec(data: bytes, folder: Path) -> None:
    """Both directions; what is understood can be said again."""
    from engine.errors import ProtocolError, StandinError, UsageError
    from engine.protocol.codec import MAX_LINE_BYTES, decode_command, decode_event, encode

    for decode in (decode_command, decode_event):
        try:
            message = decode(data)
        except (ProtocolError, UsageError):
            continue
        except StandinError as error:
            raise AssertionError(f"the server does not expect {error!r}") from error
        line = encode(message)
        assert len(line) > MAX_LINE_BYTES or encode(decode(line)) == line


# ---------------------------------------------------------------------------------------------------------- settings


def settings_corpus() -> list[bytes]:
    """A file that the store itself wrote, and one by hand."""
    from app.settings.schema import VERSION, AppSettings

    lines = [f"version = {VERSION}"]
    lines += [f"{name} = {json.dumps(value)}" for name, value in asdict(AppSettings(microphone="Mic \\ é")).items()]
    return ["\n".join(lines).encode(), b"version = 1\nfps = 30\ntheme = 'dark'\n[other]\nkey = [1, {a = 2}]\n"]


def damaged_settings(rng: random.Random, data: bytes) -> bytes:
    """Values of other types and kinds in place of some, or damaged bytes."""
    if rng.random() < 0.4:
        return damaged_bytes(rng, data)
    lines = data.decode("utf-8", "replace").split("\n")
    for _ in range(rng.choice((1, 2, 4))):
        at = rng.randrange(len(lines))
        name = lines[at].split("=")[0].strip() or "fps"
        try:
            value = json.dumps(rng.choice(VALUES), ensure_ascii=rng.random() < 0.7)
        except ValueError:
            continue
        odd = ("2020-01-01", "inf", "nan", "0x7f", "9" * 5000, nested(3000, is_list=True), "'''", '"\\u007f"', "{")
        lines[at] = f"{name} = {value if rng.random() < 0.7 else rng.choice(odd)}"
        if rng.random() < 0.1:
            lines.insert(at, lines[rng.randrange(len(lines))])
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def run_settings(data: bytes, folder: Path) -> None:
    """Never raises; and what was loaded is the same after it was saved."""
    from app.settings.schema import AppSettings
    from app.settings.store import SettingsStore

    path = folder / "window.toml"
    path.write_bytes(data)
    settings = SettingsStore(path).settings
    for field, default in asdict(AppSettings()).items():
        assert type(getattr(settings, field)) is type(default), field
    path.unlink(missing_ok=True)
    SettingsStore(path).save(settings)
    again = SettingsStore(path)
    assert again.settings == settings, (again.problem, again.settings, settings)


# ------------------------------------------------------------------------------------------------------- model files


def safetensors_corpus() -> list[bytes]:
    """A file with metadata and three tensors, and one without any."""
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
        "c": {"dtype": "I64", "shape": [], "data_offsets": [32, 40]},
    }
    return [_packed(header, bytes(40)), _packed({}, b"")]


def _packed(header: Any, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def damaged_safetensors(rng: random.Random, data: bytes) -> bytes:
    """A damaged header with a length that fits most of the time."""
    if len(data) < 8 or rng.random() < 0.3:
        return damaged_bytes(rng, data)
    length = min(struct.unpack_from("<Q", data)[0], len(data))
    text = damaged_json(rng, data[8 : 8 + length])
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def run_safetensors(data: bytes, folder: Path) -> None:
    """Tensors of plain integers, whose product can be taken and said."""
    from engine.model_store.safetensors_header import read_header

    path = folder / "a.safetensors"
    path.write_bytes(data)
    for tensor in read_header(path).values():
        assert all(type(side) is int and side >= 0 for side in tensor.shape)
        assert len(str(tensor.parameters)) < 40


def index_corpus() -> list[bytes]:
    """Which file (first member) gets which content."""
    file = "diffusion_pytorch_model-00001-of-00001.safetensors"
    record = {"path": "a/b.bin", "size_bytes": 3, "sha256": "a" * 64, "git_sha1": "b" * 40}
    manifest = {
        "format": 1, "name": "m", "repository": "o/r", "commit": "c" * 40, "licence": "x", "damaged": [],
        "files": [record],
    }  # fmt: skip
    sibling = {
        "rfilename": "a.bin", "size": 4, "blobId": "b" * 40, "lfs": {"size": 4, "sha256": "d" * 64, "pointerSize": 1}
    }  # fmt: skip
    card = {"rfilename": "README.md", "size": 2, "blobId": "e" * 40}
    hub = {"id": "o/r", "sha": "c" * 40, "siblings": [sibling, card], "cardData": {"license": ["mit", "x"]}}
    contents = [
        ["index", {"metadata": {}, "weight_map": {"a": file, "b": file}}], ["config", {"model_type": "i2v", "dim": 8}],
        ["speech", {"model_type": "wav2vec2", "hidden_size": 4}], ["manifest", manifest], ["hub", hub],
    ]  # fmt: skip
    return [json.dumps(content).encode() for content in contents]


def damaged_index(rng: random.Random, data: bytes) -> bytes:
    """The content only; which file it is stays."""
    comma = data.index(b",")
    return data[: comma + 1] + damaged_json(rng, data[comma + 1 : -1]) + b"]"


def run_index(data: bytes, folder: Path) -> None:
    """The content in a checkpoint, beside a download, or as a hub's answer."""
    from model_folder import run_index_content

    comma = data.index(b",")
    run_index_content(data[2 : comma - 1].decode(), data[comma + 1 : -1].strip(), folder)


# ------------------------------------------------------------------------------------------------------------- ranks


def ranks_corpus() -> list[bytes]:
    """Messages of both directions."""
    from engine.worker import messages as m

    portrait = m.PortraitData(
        name="n", path="p", digest="d", height=4, width=4, has_alpha=True, has_mask=False, annotations={"a": "{}"}
    )  # fmt: skip
    fault = m.Fault(kind="GeneratorError", code="c", message="m", rank=1)
    sent = [
        m.Open(number=1, generator="a:B", seed=1, fps=25, options={"x": [1]}, memory="y", width=8, height=8, slots=2,
               samples=10),
        m.Prepare(number=2, stream=1, portrait=portrait, memory="z", size=(4, 4)), m.Credit(slot=1), m.Exit(number=3),
        m.Generate(number=4, stream=1, first_frame=0, frames=4, first_sample=0, samples=10, is_discontinuous=False),
        m.Hello(version=1, ranks=2), m.Done(number=1, notices=[m.NoticeData(code="c", message="m")]),
        m.Refused(number=2, fault=fault), m.FrameReady(number=1, slot=0, frame=5), fault,
    ]  # fmt: skip
    return [m.encode(message) for message in sent]


def damaged_ranks(rng: random.Random, data: bytes) -> bytes:
    """A tree that is still MessagePack, or damaged bytes."""
    import msgspec

    if rng.random() < 0.4:
        return damaged_bytes(rng, data)
    if rng.random() < 0.03:
        return data[:1] + b"\xa1x" + b"\x91" * rng.choice((500, 5000, 900_000))
    try:
        return msgspec.msgpack.encode(damaged_tree(rng, msgspec.msgpack.decode(data)))
    except (ValueError, OverflowError, RecursionError, TypeError):
        return damaged_bytes(rng, data)


def run_ranks(data: bytes, folder: Path) -> None:
    """Through a real line, in both roles; errors that travel become errors again."""
    from multiprocessing.connection import Connection

    from engine.errors import ProtocolError, StandinError
    from engine.worker import messages as m
    from engine.worker.channel import Channel, LineClosed

    for kind in (m.ToRank, m.ToEngine, m.RankCommand):
        with contextlib.suppress(ProtocolError):
            m.decode(data, kind)
        near, far = socket.socketpair()
        channel = Channel(Connection(near.detach()), kind)
        far.setblocking(False)
        try:
            far.send(struct.pack("!i", len(data)) + data[: 1 << 16])
            far.close()
            message = channel.receive()
        except (LineClosed, ProtocolError):
            continue
        finally:
            channel.close()
            far.close()
        if isinstance(message, m.Fault):
            assert isinstance(message.as_error(), StandinError)
        if isinstance(message, m.Done):
            m.notices_from_data(message.notices)
        line = m.encode(message)
        assert m.encode(m.decode(line, kind)) == line


TARGETS: dict[str, Target] = {
    "codec": Target(corpus=lambda: control_corpus() + event_corpus(), damage=damaged_json, run=run_codec),
    "settings": Target(corpus=settings_corpus, damage=damaged_settings, run=run_settings),
    "portrait": Target(corpus=media.pictures, damage=media.damaged_picture, run=media.run_portrait),
    "audio": Target(corpus=media.sounds, damage=damaged_bytes, run=media.run_audio),
    "safetensors": Target(corpus=safetensors_corpus, damage=damaged_safetensors, run=run_safetensors),
    "index": Target(corpus=index_corpus, damage=damaged_index, run=run_index),
    "ranks": Target(corpus=ranks_corpus, damage=damaged_ranks, run=run_ranks),
}
