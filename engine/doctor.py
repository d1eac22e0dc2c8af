"""Looks at everything Standin needs on this machine; each finding has one cause and one action."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from engine.diagnosis import cameras, software, sound
from engine.diagnosis.catalogue import Catalogue, Finding, preferred_language
from engine.diagnosis.fixes import with_fix
from engine.diagnosis.system import System
from engine.errors import StandinError
from engine.gpus.examine import examine_gpus
from engine.protocol.messages import DevicesListed

logger = logging.getLogger(__name__)

TIMEOUT_S = 4.5
"""All probes run at once; who has not answered by then is a finding, too."""

Probe = Callable[[System, Catalogue], list[Finding]]


def examine(
    system: System | None = None,
    *,
    gpus: Callable[[], list] = examine_gpus,
    language: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> list[Finding]:
    """Run every probe; one that fails or hangs is a finding, too. Takes a second or two, five at most; changes
    nothing. Any thread."""
    system = system or System()
    texts = Catalogue(system.platform, preferred_language() if language is None else language)
    runs = [_Run(name, probe, system, texts) for name, probe in _probes(system, gpus)]
    for run in runs:
        run.start()
    end_s = time.monotonic() + timeout_s
    return [with_fix(finding) for run in runs for finding in run.findings(end_s, timeout_s)]


def _probes(system: System, gpus: Callable[[], list]) -> list[tuple[str, Probe]]:
    devices = _Once(system.devices)
    return [
        ("Python", software.python),
        ("window", software.window),
        ("microphone", lambda s, t: sound.microphones(s, t, devices())),
        ("voice out", lambda s, t: sound.outputs(s, t, devices())),
        ("virtual microphone", lambda s, t: sound.virtual_microphone(s, t, devices())),
        ("camera", lambda s, t: cameras.cameras(s, t, devices())),
        ("face models", software.face_models),
        ("models", software.models),
        ("GPU", lambda s, t: _gpus(gpus)),
        ("samples", software.samples),
        ("recording", software.recording),
        ("disk", software.disk),
        ("memory", software.shared_memory),
        ("priority", software.priority),
    ]


def _gpus(examine: Callable[[], list]) -> list[Finding]:
    return [
        Finding(name="GPU", state=state, title="GPU", message=reason.message, hint=reason.hint, code=reason.code)
        for state, reason in examine()
    ]


class _Once:
    """The list of devices, asked for once by whoever is first."""

    def __init__(self, ask: Callable[[], DevicesListed]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._answer: DevicesListed | None = None
        self._error: Exception | None = None

    def __call__(self) -> DevicesListed:
        with self._lock:
            if self._error is not None:
                raise self._error
            if self._answer is None:
                try:
                    self._answer = self._ask()
                except Exception as error:
                    self._error = error
                    raise
            return self._answer


class _Run:
    """One probe on a thread of its own, which is left alone if it hangs."""

    def __init__(self, name: str, probe: Probe, system: System, texts: Catalogue) -> None:
        self._name, self._probe, self._system, self._texts = name, probe, system, texts
        self._findings: list[Finding] = []
        self._thread = threading.Thread(target=self._run, name=f"doctor {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def findings(self, end_s: float, timeout_s: float) -> list[Finding]:
        """What it found, or that it did not answer."""
        self._thread.join(max(0.0, end_s - time.monotonic()))
        if self._thread.is_alive():
            return [self._texts.found(self._name, "doctor.timeout", area=self._name, seconds=f"{timeout_s:g}")]
        return self._findings

    def _run(self) -> None:
        try:
            self._findings = self._probe(self._system, self._texts)
        except StandinError as error:
            self._findings = [
                Finding(
                    name=self._name, state="bad", title=self._name, message=error.message, hint=error.hint,
                    code=error.code,
                )
            ]  # fmt: skip
        except Exception as error:  # a doctor who faints is of no use
            logger.exception("the probe of the %s failed", self._name)
            self._findings = [self._texts.found(self._name, "doctor.failed", area=self._name, detail=repr(error))]
