"""The contract between the window and the engine: every command and event, typed, with a version.

One JSON object a line: commands on the engine's standard input, events on its standard output. Each command carries
an `id`; the engine answers each with exactly one `Reply` of that id (long work replies when it has been accepted or
has finished, as each command says) and tells everything else by events. Unknown fields and types are refused.
Picture data never travels here; previews go through shared memory (`engine.protocol.shared_memory`).
"""

# msgspec's structs inherit `frozen`; type checkers know only dataclasses, which must repeat it.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from enum import Enum
from typing import Any, Union

import msgspec

from engine.settings import (
    CameraSettings,
    CanvasSettings,
    MicrophoneSource,
    SessionSettings,
    SoundSettings,
    Source,
    VoiceOutSettings,
)

PROTOCOL_VERSION = 1


class SessionState(str, Enum):
    """Where a session stands; every change is an event with a reason."""

    IDLE = "idle"
    PREPARING = "preparing"
    LIVE = "live"
    HOLDING = "holding"
    FALLBACK = "fallback"
    STOPPING = "stopping"


class Reason(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why, for a person: a stable code, a sentence, and what to do (may be empty). `detail` is for the log."""

    code: str
    message: str
    hint: str = ""
    detail: str = ""


# ---------------------------------------------------------------------------------------------------- commands


class Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """Base of all commands; `id` is chosen by the sender and comes back in the `Reply`."""

    id: int


class Start(Command, tag="start"):
    """Begin a session; replied to when accepted, then `StateChanged`. Refused while one runs."""

    settings: SessionSettings


class Stop(Command, tag="stop"):
    """End the session; replied to when all devices and files are closed."""


class Shutdown(Command, tag="shutdown"):
    """End the session if there is one, then the engine."""


class Ping(Command, tag="ping"):
    """Ask whether the control loop still turns."""


class SetPortrait(Command, tag="set_portrait"):
    """Prepare another portrait beside the running one and swap when ready; replied to when swapped or failed."""

    portrait: str


class SetSource(Command, tag="set_source"):
    """Take sound from elsewhere; replied to when the new source runs (the old one goes on if it cannot)."""

    source: Source


class SetCamera(Command, tag="set_camera"):
    """Open the virtual camera, another one, or (None) close it, while the picture goes on."""

    camera: CameraSettings | None


class SetVoiceOut(Command, tag="set_voice_out"):
    """Play the delayed voice on a device, another one, or (None) nowhere."""

    voice_out: VoiceOutSettings | None


class SyncTest(Command, tag="sync_test"):
    """Play clicks at `voice_out` through the whole pipeline for some seconds, hear them at `microphone` (None: at the
    virtual microphone's own other end), and compare them with the frames. Answered by `SyncMeasured`, then the reply.
    Refused while a session runs, whose listeners would hear the clicks; `Stop` ends it."""

    voice_out: VoiceOutSettings
    microphone: MicrophoneSource | None = None
    seconds: float = 8.0
    is_stored: bool = True


class SetCanvas(Command, tag="set_canvas"):
    """Change fill, colour or mirroring; the size is refused while the camera is open."""

    canvas: CanvasSettings


class SetMuted(Command, tag="set_muted"):
    """Mute or unmute at once; sound still in the pipe is dropped, too, on mute."""

    is_muted: bool


class SetTalking(Command, tag="set_talking"):
    """The push-to-talk key went down or up, at once. What was said while it was down is still shown and heard."""

    is_talking: bool


class SetSound(Command, tag="set_sound"):
    """Gate and push-to-talk from now on; noise suppression cannot change while live."""

    sound: SoundSettings


class StartRecording(Command, tag="start_recording"):
    """Record picture and sound into an MP4 at `path`; an existing file is refused unless `may_replace`."""

    path: str
    may_replace: bool = False


class StopRecording(Command, tag="stop_recording"):
    """Finish the recording; replied to when the file is complete."""


class TakeSnapshot(Command, tag="take_snapshot"):
    """Write the picture shown now as PNG to `path`."""

    path: str


class ListDevices(Command, tag="list_devices"):
    """Answered by `DevicesListed`, then the reply."""


class AnalysePortrait(Command, tag="analyse_portrait"):
    """Look at a portrait without a session: answered by `PortraitAnalysed`, then the reply."""

    portrait: str


class StoreHandles(Command, tag="store_handles"):
    """Keep hand-placed face handles with a portrait: name -> (x, y) in portrait px; empty removes them."""

    portrait: str
    handles: dict[str, tuple[float, float]]


class Examine(Command, tag="examine"):
    """Look at everything that Standin needs on this machine; replied to at once, answered by `Examined`."""


class ApplyFix(Command, tag="apply_fix"):
    """Do what can be done about a finding whose `fix` is "automatic"; the user has been asked. Replied to at once;
    `Noticed` tells how it went, and `Examined` follows."""

    code: str


class PlanModel(Command, tag="plan_model"):
    """Look up what a download of the model `name`, and of what it needs, would fetch. Replied to at once, answered by
    `ModelPlanned`."""

    name: str


class DownloadModel(Command, tag="download_model"):
    """Fetch it; what an earlier download left is gone on with. The user has agreed to the licences of `ModelPlanned`.
    Replied to at once, refused while another download runs; `ModelProgressed`, then `ModelDownloaded`. A session goes
    on beside."""

    name: str


class StopDownload(Command, tag="stop_download"):
    """End a download soon, if one runs; what has arrived is kept. `ModelDownloaded` follows."""


AnyCommand = Union[
    Start, Stop, Shutdown, Ping, SetPortrait, SetSource, SetCamera, SetVoiceOut, SetCanvas, SetMuted,
    SetTalking, SetSound, StartRecording, StopRecording, TakeSnapshot, ListDevices, AnalysePortrait, StoreHandles,
    SyncTest,
    Examine, ApplyFix, PlanModel, DownloadModel, StopDownload,
]  # fmt: skip


# ------------------------------------------------------------------------------------------------------ events


class Event(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """Base of all events."""


class Hello(Event, tag="hello"):
    """The engine's first line."""

    protocol_version: int
    engine_version: str
    pid: int
    generators: list[str]


class Reply(Event, tag="reply"):
    """The answer to command `id`: done, or why not."""

    id: int
    error: Reason | None = None


class StateChanged(Event, tag="state_changed"):
    """The session moved to another state."""

    state: SessionState
    reason: Reason


class Progressed(Event, tag="progressed"):
    """Long work goes on: `done` of `total` `unit` of `stage`."""

    stage: str
    done: float
    total: float
    unit: str = ""


class Noticed(Event, tag="noticed"):
    """Something to tell the user; `is_error` if something was given up."""

    reason: Reason
    is_error: bool = False


class PreviewOpened(Event, tag="preview_opened"):
    """Frames of the session can be read from this shared memory until the session ends."""

    memory_name: str
    width: int
    height: int


class CameraChanged(Event, tag="camera_changed"):
    """The virtual camera was opened or closed; `label` is the name to pick in the call program."""

    is_open: bool
    label: str = ""
    device: str = ""
    backend: str = ""


class VoiceOutChanged(Event, tag="voice_out_changed"):
    """The delayed voice has an output, another one, or none any more. `microphone` is the name to pick in the call
    program where the output is a virtual microphone."""

    is_open: bool
    label: str = ""
    microphone: str = ""


class SyncMeasured(Event, tag="sync_measured"):
    """What a sync test has found. `offset_ms` is voice against picture as it was, above 0 early, with `spread_ms`
    between the middle half of the clicks; `correction_ms` is by how much the voice is to be played later from now on,
    and `is_stored` whether the next session with that output does so by itself."""

    offset_ms: float
    spread_ms: float
    played: int
    heard: int
    correction_ms: float
    is_stored: bool


class RecordingChanged(Event, tag="recording_changed"):
    """A recording began or ended; `reason` says why it ended if nobody asked."""

    is_recording: bool
    path: str
    reason: Reason | None = None


class SinkStats(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Counters of one sink since it was opened."""

    sent: int = 0
    dropped: int = 0
    failed: int = 0
    queue_ms: float = 0.0


class QualityStats(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the session stands on its ladder (docs/protocol.md): `step` is "full", the name of an economy or of a
    smaller size, the standby's name, or "card"; `kind` is "full", "economy", "smaller", "standby" or "card". `reason`
    is the sentence of the last change, `changes` how many there have been. `chunk_ms` is what nine of ten chunks stay
    below lately, of the `budget_ms` that there are for one, and `margin_ms` by how much the last one was early."""

    step: str = "full"
    kind: str = "full"
    reason: str = ""
    changes: int = 0
    chunk_ms: float = 0.0
    budget_ms: float = 0.0
    margin_ms: float = 0.0


class Stats(Event, tag="stats"):
    """A snapshot, several times a second. Counters run since the session went live; times are in ms.

    `skipped_samples` were heard but not shown (a late generator), `missing_samples` were never delivered by the
    microphone and became silence; both count at 16 kHz. `overflows` counts sound that nobody read in time.
    `generator` makes the picture at present (a standby while another one loads or has failed), and `recoveries` counts
    how often one began its picture anew because it had collapsed.
    `latency_ms` is measured, from the capture of a frame's first sample to its hand-over; `delay_ms` is the promised
    one. `av_offset_ms` is voice against picture at hand-over: positive means that the sound comes early. `gate_dbfs` is
    where the noise gate opens, null without one; with one, `is_speaking` says that it is open. `is_talking` says that
    the push-to-talk key is down. `quality` says what the picture makes do with on a computer that is too slow.
    """

    time_s: float = 0.0
    fps: float = 0.0
    ticks: int = 0
    presented: int = 0
    held: int = 0
    dropped: int = 0
    late: int = 0
    skipped_samples: int = 0
    missing_samples: int = 0
    overflows: int = 0
    delay_ms: float = 0.0
    latency_ms: float = 0.0
    generate_ms: float = 0.0
    generator: str = ""
    recoveries: int = 0
    av_offset_ms: float | None = None
    level_dbfs: float = -120.0
    peak_dbfs: float = -120.0
    is_speaking: bool = False
    is_talking: bool = False
    gate_dbfs: float | None = None
    audio_queue_ms: float = 0.0
    frame_queue_ms: float = 0.0
    voice_queue_ms: float = 0.0
    sinks: dict[str, SinkStats] = {}
    quality: QualityStats = QualityStats()


class AudioDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input or output of the sound system."""

    name: str
    host_api: str
    channels: int
    rate_hz: int
    is_default: bool = False


class CameraDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One virtual camera and, where it cannot be used now, why (`problem` is None when it can).

    `note` is what to know about one that can be used.
    """

    device: str
    label: str
    backend: str
    problem: Reason | None = None
    note: Reason | None = None


class DevicesListed(Event, tag="devices_listed"):
    """What there is now. `cameras_reason` says why no camera can be used, if so.

    `virtual_microphone` is what the voice out "standin:virtual" will be called in a call; where there can be none it is
    empty, and `virtual_microphone_reason` says what to install.
    """

    microphones: list[AudioDevice]
    voice_outs: list[AudioDevice]
    cameras: list[CameraDevice]
    cameras_reason: Reason | None = None
    audio_reason: Reason | None = None
    virtual_microphone: str = ""
    virtual_microphone_reason: Reason | None = None


class PortraitAnalysed(Event, tag="portrait_analysed"):
    """What a generator makes of a portrait: size in px, the fitted handles to show or move, and advice."""

    portrait: str
    width: int
    height: int
    has_face: bool
    handles: dict[str, tuple[float, float]]
    advice: list[Reason]


class Examination(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the doctor found about `name`: `state` is "good", "limited" or "bad", `fix` "automatic", "command" (then
    `command` is to be typed) or ""."""

    name: str
    state: str
    title: str
    message: str
    hint: str = ""
    code: str = ""
    fix: str = ""
    command: str = ""


class Examined(Event, tag="examined"):
    """Everything the doctor found."""

    findings: list[Examination]


class ModelPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model of a download: `licence` is as its publisher names it (empty where none is named), `page` where a
    person reads it, `missing_bytes` what of `size_bytes` is still to be fetched."""

    name: str
    title: str
    licence: str
    page: str
    size_bytes: int
    missing_bytes: int


class ModelPlanned(Event, tag="model_planned"):
    """What a download of `name` would fetch into `folder`: no parts where everything is there. `error` says why that
    could not be found out."""

    name: str
    parts: list[ModelPart] = []
    folder: str = ""
    missing_bytes: int = 0
    free_bytes: int = 0
    error: Reason | None = None


class ModelProgressed(Event, tag="model_progressed"):
    """How far a download is, some times a second. `stage` is "look up", "download", or "waiting" while another Standin
    fetches the same; sizes are those of all parts, what was there already included."""

    name: str
    stage: str
    done_bytes: int
    total_bytes: int


class ModelDownloaded(Event, tag="model_downloaded"):
    """A download has ended: all of it is there and agrees with what was published, or `error` says why not (its code
    is "cancelled" after `StopDownload`)."""

    name: str
    error: Reason | None = None


class Goodbye(Event, tag="goodbye"):
    """The engine's last line."""

    reason: Reason


AnyEvent = Union[
    Hello, Reply, StateChanged, Progressed, Noticed, PreviewOpened, CameraChanged, VoiceOutChanged, RecordingChanged,
    Stats, DevicesListed, PortraitAnalysed, SyncMeasured, Goodbye,
    Examined, ModelPlanned, ModelProgressed, ModelDownloaded,
]  # fmt: skip


def plain(message: Command | Event) -> dict[str, Any]:
    """The message as plain dicts and lists, as `--json` output prints it."""
    return msgspec.to_builtins(message)
