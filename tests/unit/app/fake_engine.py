"""An engine for tests of the window: speaks the real protocol, does no work, and misbehaves as it is told.

`fake_engine.py MODE [LOG]`: MODE is one of `MODES`; every command is written to LOG, one line each, as it came. While
it runs, `SetPortrait` of "cue:NAME" makes it do what `cue_NAME` says.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

import numpy as np

from engine.protocol import messages as m
from engine.protocol.codec import decode_command, encode
from engine.protocol.shared_memory import FrameWriterMemory
from engine.settings import MicrophoneSource

MODES = (
    "obedient", "silent", "deaf", "garbage", "dies", "other_version", "refuses", "refuses_start", "refuses_portrait",
    "stubborn", "slow", "no_microphone", "cancelled", "no_model", "no_hub",
)  # fmt: skip
REFUSAL = m.Reason(code="test.refused", message="The test refuses that.", hint="Nothing can be done.")
BAD_PORTRAIT = m.Reason(code="portrait.damaged", message="The picture is damaged.", hint="Choose another.")
NO_MICROPHONE = m.Reason(code="microphone.none", message="This computer has no microphone.")
HANDLES = {
    "left_eye": (200.0, 200.0), "left_eye_size": (60.0, 24.0), "right_eye": (312.0, 200.0),
    "right_eye_size": (60.0, 24.0), "brow": (256.0, 150.0), "mouth_left": (215.0, 330.0),
    "mouth_right": (297.0, 330.0), "lip_top": (256.0, 318.0), "lip_bottom": (256.0, 345.0), "chin": (256.0, 410.0),
    "jaw_left": (160.0, 340.0), "jaw_right": (352.0, 340.0),
}  # fmt: skip
FINDINGS = [
    m.Examination(name="disk", state="good", title="Disk", message="72 GB free."),
    m.Examination(
        name="recording", state="limited", title="The folder is missing", message="It does not exist.",
        hint="Create it.", code="recording.no_folder", fix="automatic",
    ),
    m.Examination(
        name="camera", state="bad", title="The driver is not loaded", message="It is not loaded.", hint="Load it.",
        code="camera.not_loaded", fix="command", command="sudo modprobe v4l2loopback",
    ),
]  # fmt: skip
NO_MODEL = m.Reason(
    code="models.absent", message="The model flashtalk-14b has not been downloaded.", hint="standin ..."
)
BROKEN = m.Reason(
    code="models.connection", message="The download broke off: the line is dead.", hint="the same command"
)
PARTS = [
    m.ModelPart(
        name="chinese-wav2vec2-base", title="Hears the voice", licence="mit", page="https://hub.test/speech",
        size_bytes=380_300_000, missing_bytes=380_300_000,
    ),
    m.ModelPart(
        name="flashtalk-14b", title="SoulX-FlashTalk 14B", licence="apache-2.0", page="https://hub.test/flashtalk",
        size_bytes=54_400_000_000, missing_bytes=34_400_000_000,
    ),
]  # fmt: skip
LOWERED = m.QualityStats(
    step="3 steps", kind="economy", changes=1, chunk_ms=980.4, budget_ms=1120.0, margin_ms=40.0,
    reason="The computer is too slow for full quality: flashtalk goes on with 3 steps.",
)  # fmt: skip
FAULT = m.Reason(code="session.internal", message="The session ended because of an internal error in its pacer part.")


def emit(event: m.Event) -> None:
    os.write(1, encode(event))


def state(name: str, code: str = "", message: str = "As the test wants it.") -> None:
    reason = m.Reason(code=code or f"session.{name}", message=message)
    emit(m.StateChanged(state=m.SessionState(name), reason=reason))


class FakeEngine:
    """Answers commands until the end of its input."""

    def __init__(self, mode: str, log: str) -> None:
        self.mode, self._log = mode, log
        self.is_live = False
        self.recording = ""
        self._memory: FrameWriterMemory | None = None

    def run(self) -> None:
        getattr(self, f"begin_{self.mode}", lambda: None)()
        emit(
            m.Hello(
                protocol_version=99 if self.mode == "other_version" else m.PROTOCOL_VERSION, engine_version="0",
                pid=os.getpid(), generators=["puppet"],
            )
        )  # fmt: skip
        for line in sys.stdin.buffer:
            self.take(line)
        while self.mode == "stubborn":
            time.sleep(1)
        self._close_preview()

    def take(self, line: bytes) -> m.Command:
        if self._log:
            with open(self._log, "ab") as file:
                file.write(line)
        command = decode_command(line)
        if self.mode != "deaf":
            self.answer(command)
        return command

    def begin_silent(self) -> None:
        while True:
            time.sleep(1)

    def begin_stubborn(self) -> None:
        with contextlib.suppress(AttributeError, ValueError):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def begin_garbage(self) -> None:
        os.write(1, b'not JSON\n\xff\xfe\x00\n{"type": "nothing"}\n[]\n\n{"type": "stats", "fps": "many"}\n')
        os.write(1, b"x" * (3 << 20) + b"\n")

    def answer(self, command: m.Command) -> None:
        handler = getattr(self, f"on_{type(command).__name__}", None)
        error = handler(command) if handler else None
        if self.mode == "refuses" and not isinstance(command, m.Ping):
            error = REFUSAL
        emit(m.Reply(id=command.id, error=error))

    def on_Start(self, command: m.Start) -> m.Reason | None:
        if self.mode == "dies":
            raise RuntimeError("the fake engine was told to die")
        state("preparing")
        if self.mode == "slow":
            time.sleep(0.3)
        if self.mode == "cancelled":
            self.mode = "obedient"
            time.sleep(0.3)
            state("idle", "cancelled")
            return m.Reason(code="cancelled", message="Stopped before it was ready.")
        if self.mode in ("no_model", "no_hub") and command.settings.generator.name == "flashtalk":
            state("idle", "models.absent")
            return NO_MODEL
        is_bad = self.mode == "refuses_portrait" and command.settings.portrait != "sample:"
        if is_bad or self.mode in ("refuses", "refuses_start"):
            state("idle", "test.refused")
            return BAD_PORTRAIT if is_bad else REFUSAL
        self._open_preview()
        state("live")
        self.is_live = True
        return None

    def on_Stop(self, _command: m.Stop) -> None:
        self.end()

    def on_SetMuted(self, _command: m.SetMuted) -> m.Reason | None:
        return None if self.is_live else m.Reason(code="session.none", message="No session is running.")

    def on_SetCamera(self, command: m.SetCamera) -> m.Reason | None:
        self.cue_no_camera()
        if command.camera and command.camera.device == "/dev/taken":
            return m.Reason(code="camera.busy", message="The camera is in use.")
        if command.camera:
            self.cue_camera()
        return None

    def on_StartRecording(self, command: m.StartRecording) -> None:
        self.recording = command.path
        emit(m.RecordingChanged(is_recording=True, path=command.path))

    def on_StopRecording(self, _command: m.StopRecording | None) -> None:
        emit(m.RecordingChanged(is_recording=False, path=self.recording))
        self.recording = ""

    def on_SetSource(self, command: m.SetSource) -> m.Reason | None:
        is_absent = self.mode == "no_microphone" and isinstance(command.source, MicrophoneSource)
        return NO_MICROPHONE if is_absent else None

    def cue_plugged(self) -> None:
        self.mode = "obedient"

    def on_AnalysePortrait(self, command: m.AnalysePortrait) -> m.Reason | None:
        if self.mode == "blind":
            return BAD_PORTRAIT
        found = m.PortraitAnalysed(
            portrait=command.portrait, width=512, height=512, has_face=True, handles=HANDLES, advice=[]
        )  # fmt: skip
        emit(found)
        return None

    def cue_blind(self) -> None:
        self.mode = "blind"

    def on_ListDevices(self, _command: m.ListDevices) -> None:
        mic = m.AudioDevice(name="Desk microphone", host_api="ALSA", channels=1, rate_hz=48_000, is_default=True)
        emit(m.DevicesListed(microphones=[] if self.mode == "no_microphone" else [mic], voice_outs=[], cameras=[]))

    def on_SyncTest(self, command: m.SyncTest) -> m.Reason | None:
        if self.is_live:
            return m.Reason(code="sync.session_running", message="A session is running.")
        emit(m.Progressed(stage="sync test", done=4.0, total=8.0, unit="s"))
        if self.mode == "patient":
            while not isinstance(self.take(sys.stdin.buffer.readline()), m.Stop):
                pass
            return m.Reason(code="cancelled", message="It was stopped.")
        if self.mode == "deaf_to_clicks":
            return m.Reason(code="sync.not_heard", message="The clicks were not heard.", hint="Turn it up.")
        emit(
            m.SyncMeasured(offset_ms=60.0, spread_ms=2.0, played=7, heard=7, correction_ms=60.0, is_stored=True)
        )  # fmt: skip
        return None

    def cue_deaf_to_clicks(self) -> None:
        self.mode = "deaf_to_clicks"

    def cue_patient(self) -> None:
        self.mode = "patient"

    def cue_virtual(self) -> None:
        emit(m.VoiceOutChanged(is_open=True, label="Standin Voice", microphone="Standin Microphone"))

    def on_Examine(self, _command: m.Examine) -> None:
        emit(m.Examined(findings=FINDINGS))

    def on_ApplyFix(self, _command: m.ApplyFix) -> None:
        emit(m.Noticed(reason=m.Reason(code="doctor.fixed", message="The folder was created.")))
        emit(m.Examined(findings=FINDINGS[:1]))

    def on_PlanModel(self, command: m.PlanModel) -> None:
        if self.mode == "no_hub":
            emit(m.ModelPlanned(name=command.name, error=BROKEN))
            return
        parts = PARTS if self.mode == "no_model" else []
        missing_bytes = sum(part.missing_bytes for part in parts)
        emit(
            m.ModelPlanned(
                name=command.name, parts=parts, folder="/data/models", missing_bytes=missing_bytes,
                free_bytes=90_000_000_000,
            )
        )  # fmt: skip

    def on_DownloadModel(self, command: m.DownloadModel) -> None:
        for stage, done, total in (("look up", 0, 0), ("download", 27_390_150_000, 54_780_300_000)):
            emit(m.ModelProgressed(name=command.name, stage=stage, done_bytes=done, total_bytes=total))

    def on_StopDownload(self, _command: m.StopDownload) -> None:
        emit(m.ModelDownloaded(name="flashtalk-14b", error=m.Reason(code="cancelled", message="It was stopped.")))

    def cue_arrived(self) -> None:
        self.mode = "obedient"
        emit(m.ModelDownloaded(name="flashtalk-14b"))

    def cue_broken(self) -> None:
        emit(m.ModelDownloaded(name="flashtalk-14b", error=BROKEN))

    def on_SetPortrait(self, command: m.SetPortrait) -> None:
        kind, _, name = command.portrait.partition(":")
        if kind == "cue":
            getattr(self, f"cue_{name}")()

    def end(self, code: str = "session.stopped", message: str = "The session has ended.") -> None:
        if self.is_live:
            self.is_live = False
            state("stopping")
            self.cue_no_camera()
            if self.recording:
                self.on_StopRecording(None)
            self._close_preview()
            state("idle", code, message)

    def cue_fault(self) -> None:
        emit(m.Noticed(reason=FAULT, is_error=True))
        self.end()

    def cue_spoken(self) -> None:
        self.end()

    def cue_holding(self) -> None:
        state("holding")

    def cue_fallback(self) -> None:
        state("fallback")

    def cue_live(self) -> None:
        state("live")

    def cue_stopping(self) -> None:
        state("stopping")

    def cue_camera(self) -> None:
        emit(m.CameraChanged(is_open=True, label="Standin Camera", device="/dev/video42", backend="v4l2"))

    def cue_no_camera(self) -> None:
        emit(m.CameraChanged(is_open=False))

    def cue_stats(self) -> None:
        emit(m.Stats(fps=25.0, delay_ms=120.0, av_offset_ms=-3.0, level_dbfs=-20.0, peak_dbfs=-12.0, is_speaking=True))

    def cue_lowered(self) -> None:
        emit(m.Noticed(reason=m.Reason(code="quality.lowered", message=LOWERED.reason, hint="Close other programs.")))
        emit(m.Stats(fps=25.0, delay_ms=120.0, quality=LOWERED))

    def cue_raised(self) -> None:
        sentence = "The computer keeps up again: flashtalk goes on with full quality."
        emit(m.Noticed(reason=m.Reason(code="quality.raised", message=sentence)))
        now = m.QualityStats(reason=sentence, changes=2, chunk_ms=900.0, budget_ms=1120.0)
        emit(m.Stats(fps=25.0, delay_ms=120.0, quality=now))

    def cue_back(self) -> None:
        for code, is_error in (("microphone.lost", True), ("microphone.back", False)):
            reason = m.Reason(code=code, message=f"The microphone is {code[11:]}.")
            emit(m.Noticed(reason=reason, is_error=is_error))

    def cue_exit(self) -> None:
        sys.exit(7)

    def _open_preview(self) -> None:
        self._memory = FrameWriterMemory(640, 360)
        emit(m.PreviewOpened(memory_name=self._memory.name, width=640, height=360))
        rows = np.linspace(0, 255, 360).astype(np.uint8)[:, None, None]
        self._memory.write(np.broadcast_to(rows, (360, 640, 3)))

    def _close_preview(self) -> None:
        if self._memory:
            self._memory.close()
            self._memory = None


if __name__ == "__main__":
    FakeEngine(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "").run()
