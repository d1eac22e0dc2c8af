"""A sound system without hardware: devices by index, streams whose callbacks the test calls."""

from __future__ import annotations

import sys
import types

import pytest

from engine.audio import devices


class PortAudioError(Exception):
    """As sounddevice raises it: text and PortAudio's number."""


class Stream:
    """A stream that was opened; `library.refuse` makes `start` or the constructor fail."""

    def __init__(self, library, kind, **options):
        self.library, self.kind, self.options = library, kind, options
        self.calls = []
        library.streams.append(self)
        if library.refuse_open is not None:
            raise library.refuse_open

    def start(self):
        self.calls.append("start")
        if self.library.refuse_start is not None:
            raise self.library.refuse_start

    def abort(self, ignore_errors=True):
        self.calls.append("abort")
        if self.library.refuse_close is not None:
            raise self.library.refuse_close

    def close(self, ignore_errors=True):
        self.calls.append("close")

    def unplug(self):
        """The device is pulled out."""
        self.options["finished_callback"]()


class SoundLibrary(types.ModuleType):
    """In sounddevice's place. Devices are listed when it starts, as PortAudio does."""

    PortAudioError = PortAudioError

    def __init__(self):
        super().__init__("sounddevice")
        self.plugged, self.host_apis = [], [{"name": "ALSA"}, {"name": "JACK"}]
        self.default_input = self.default_output = -1
        self.streams, self.restarts = [], 0
        self.refuse_open = self.refuse_start = self.refuse_close = None
        self._initialize()

    def plug(self, name, *, inputs=0, outputs=0, rate_hz=48_000.0, host_api=0):
        """Connect a device; it is seen after the next restart."""
        self.plugged.append(
            {
                "name": name,
                "max_input_channels": inputs,
                "max_output_channels": outputs,
                "default_samplerate": rate_hz,
                "hostapi": host_api,
            }
        )

    def _terminate(self):
        self.restarts += 1
        self._devices = []

    def _initialize(self):
        self._devices = list(self.plugged)
        self.default = types.SimpleNamespace(device=[self.default_input, self.default_output])

    def query_devices(self, index=None):
        return list(self._devices) if index is None else self._devices[index]

    def query_hostapis(self, index):
        return self.host_apis[index]

    def InputStream(self, **options):
        return Stream(self, "input", **options)

    def OutputStream(self, **options):
        return Stream(self, "output", **options)


@pytest.fixture
def sound(monkeypatch):
    """The library, empty; no stream is open."""
    library = SoundLibrary()
    monkeypatch.setitem(sys.modules, "sounddevice", library)
    monkeypatch.setattr(devices, "_open_streams", 0)
    return library
