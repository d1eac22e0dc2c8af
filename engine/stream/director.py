"""Decides which generator makes the picture: the wanted one, or its standby while that loads or after it has failed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from engine.errors import Cancelled, ModelFilesError, PortraitError, StandinError, UsageError
from engine.generators.base import Progress
from engine.generators.factory import standby_for
from engine.media import ChunkSpec, Notice
from engine.settings import GeneratorSettings, SessionSettings
from engine.stream import pace_memory
from engine.stream.patience import Patience
from engine.stream.runner import GeneratorRunner, Scene
from engine.stream.scene import new_generator, prepare_scene, recomposed

logger = logging.getLogger(__name__)

_HOPELESS = (ModelFilesError, PortraitError, UsageError)
"""Trying again changes nothing."""


class Stage:
    """What a director tells its session; called from any thread."""

    def on_notices(self, notices: list[Notice]) -> None:
        """Something that a person should know."""
        raise NotImplementedError

    def on_error(self, error: StandinError) -> None:
        """Something failed; the picture goes on."""
        raise NotImplementedError

    def on_standby(self, code: str, message: str, hint: str) -> None:
        """The standby is shown, or the last picture where there is none."""
        raise NotImplementedError

    def on_ready(self) -> None:
        """The wanted generator makes the picture."""
        raise NotImplementedError

    def presented(self) -> int:
        """Frames shown so far."""
        raise NotImplementedError


class Director:
    """One session's scenes. `open`, `begin`, `change` and `close` are called by the session's command thread,
    `on_failure` by the generator's; a thread of its own loads what takes long."""

    def __init__(self, settings: SessionSettings, stage: Stage, progress: Progress, stopping: threading.Event) -> None:
        self.settings = settings
        self._stage, self._progress, self._stopping = stage, progress, stopping
        self._patience = Patience(settings.fps)
        self._runner: GeneratorRunner | None = None
        self._lock = threading.Lock()
        self._version = 0
        self._loader: threading.Thread | None = None
        self.standby: Scene | None = None
        self.coming: tuple[ChunkSpec, float] | None = None

    def open(self) -> Scene:
        """The scene to go live with. Raises what would make the wanted one impossible, as far as that is quick to
        find out, or, without a standby, whatever preparing it raises."""
        settings = self.settings
        stand_in = standby_for(settings.generator.name) if settings.has_standby else None
        if stand_in is not None:
            wanted = new_generator(settings)
            wanted.check()
            chunk = wanted.spec.chunk
            wanted.close()
            self.standby = self._prepared_standby(stand_in)
        if self.standby is not None:
            known_s = pace_memory.recall(settings.generator)
            # One that keeps up at all needs no longer than its chunks last.
            self.coming = (chunk, chunk.frames / chunk.fps if known_s is None else known_s)
            return self.standby
        scene, notices = prepare_scene(settings, self._progress)
        self._stage.on_notices(notices)
        return scene

    def begin(self, runner: GeneratorRunner) -> None:
        """The session is live with the scene of `open`; loads the wanted one if that was its standby."""
        self._runner = runner
        if self.standby is None:
            self._stage.on_ready()
            return
        name, shown = self.settings.generator.name, self.standby.generator.spec.name
        self._stage.on_standby(
            "session.standby", f"The {shown} is shown until {name} is ready.", "It takes over by itself."
        )
        self._start_loader(0.0)

    def change(self, **changes: Any) -> None:
        """Another portrait or canvas. Raises what preparing it raises; then everything stays as it was."""
        runner = self._running()
        settings = msgspec.structs.replace(self.settings, **changes)
        standby = self._new_standby(settings)
        scene, notices = None, []
        if not runner.needs_another:
            scene, notices = self._changed_scene(settings, runner.scene, is_same_portrait="portrait" not in changes)
        try:
            with self._lock:
                self._version += 1
                if scene is not None:
                    runner.swap(scene)
                if standby is not None:
                    self.standby = standby
                    runner.replace_standby(standby)
                self.settings = msgspec.structs.replace(self.settings, **changes)
        except StandinError:
            for unused in (scene, standby):
                if unused is not None and unused.generator is not runner.scene.generator:
                    unused.generator.close()
            raise
        self._stage.on_notices(notices)
        if runner.needs_another:
            self._start_loader(0.0)

    def _new_standby(self, settings: SessionSettings) -> Scene | None:
        if self.standby is None:
            return None
        standby = self._prepared_standby(self.standby.generator.spec.name, settings)
        if standby is None:
            raise PortraitError(
                "Nothing could stand in for this portrait if its generator failed.",
                code="portrait.no_standby",
                hint="Choose a portrait with a visible face, or stop and start with it.",
            )
        return standby

    def _changed_scene(
        self, settings: SessionSettings, shown: Scene, *, is_same_portrait: bool
    ) -> tuple[Scene, list[Notice]]:
        if is_same_portrait and not shown.generator.spec.follows_canvas:
            return recomposed(shown, settings), []
        return prepare_scene(settings, self._progress, like=shown)

    def on_failure(self, error: StandinError) -> None:
        """The running generator failed. Its standby has taken over already, or its last picture is held."""
        wait_s = self._patience.failed(self._stage.presented())
        self._stage.on_error(error)
        message = "The generator failed and is being started again."
        if self.standby is not None:
            message = f"The generator failed; the {self.standby.generator.spec.name} stands in while it starts again."
        self._stage.on_standby("session.fallback", message, "Please wait.")
        self._start_loader(wait_s)

    def join(self, timeout_s: float) -> None:
        """Wait for the loading thread, after `stopping` was set."""
        if self._loader is not None and self._loader is not threading.current_thread():
            self._loader.join(timeout_s)

    # ---------------------------------------------------------------------------------------------- loading

    def _start_loader(self, wait_s: float) -> None:
        if self._loader is not None and self._loader.is_alive() and self._loader is not threading.current_thread():
            return
        self._loader = threading.Thread(target=self._load, args=(wait_s,), name="loader", daemon=True)
        self._loader.start()

    def _load(self, wait_s: float) -> None:
        """Prepare the wanted scene and let it take over; anew where the settings changed on the way."""
        runner = self._running()
        while runner.needs_another and not self._stopping.wait(wait_s):
            version = self._version
            try:
                scene, notices = prepare_scene(self.settings, _Unless(self._progress, lambda: self._version != version))  # noqa: B023
                with self._lock:
                    is_wanted = version == self._version
                    if is_wanted:
                        self._let_in(scene, runner)
            except Cancelled:
                wait_s = 0.0
                continue
            except StandinError as error:
                if self._stopping.is_set() or not self._wants_another_try(error):
                    return
                wait_s = self._patience.failed(self._stage.presented())
                continue
            if is_wanted:
                self._welcome(scene, notices)
                return
            scene.generator.close()
            wait_s = 0.0

    def _wants_another_try(self, error: StandinError) -> bool:
        self._stage.on_error(error)
        if self.standby is None or not isinstance(error, _HOPELESS):
            return True
        name, shown = self.settings.generator.name, self.standby.generator.spec.name
        self._stage.on_standby(
            "session.standby_stays", f"{name} could not be started, so the {shown} stays.", "Change it and start again."
        )
        return False

    def _welcome(self, scene: Scene, notices: list[Notice]) -> None:
        self._patience.recovered(self._stage.presented())
        if self.standby is not None:
            pace_memory.remember(self.settings.generator, scene.first_frame_s)
        self._stage.on_notices(notices)
        self._stage.on_ready()

    def _let_in(self, scene: Scene, runner: GeneratorRunner) -> None:
        try:
            runner.swap(scene)
        except StandinError:
            scene.generator.close()
            raise

    def _prepared_standby(self, name: str, settings: SessionSettings | None = None) -> Scene | None:
        """None where the standby can make nothing of the portrait: then nothing stands in."""
        settings = msgspec.structs.replace(settings or self.settings, generator=GeneratorSettings(name=name))
        try:
            scene, _ = prepare_scene(settings, self._progress)
        except PortraitError as error:
            logger.info("nothing can stand in: %s", error)
            return None
        return scene

    def _running(self) -> GeneratorRunner:
        assert self._runner is not None
        return self._runner


class _Unless:
    """Passes progress on, and cancels the work once `is_void` says that nobody wants it any more."""

    def __init__(self, progress: Progress, is_void: Callable[[], bool]) -> None:
        self._progress, self._is_void = progress, is_void

    def update(self, stage: str, done: float, total: float, unit: str = "") -> None:
        if self._is_void():
            raise Cancelled("The settings changed meanwhile.")
        self._progress.update(stage, done, total, unit)
