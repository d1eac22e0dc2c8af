"""Decides which generator makes the picture: the wanted one, or its standby while that loads or after it has failed."""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass
from typing import Any

import msgspec

from engine.errors import Cancelled, ModelFilesError, PortraitError, StandinError, UsageError
from engine.generators.base import Progress, SmallerSize
from engine.generators.factory import standby_for
from engine.media import ChunkSpec, Notice
from engine.portrait.load import load_portrait
from engine.settings import GeneratorSettings, SessionSettings
from engine.stream import pace_memory
from engine.stream.patience import Patience
from engine.stream.runner import GeneratorRunner, as_generator_error
from engine.stream.scene import measured_again, new_generator, prepare_scene, recomposed
from engine.stream.stage import Stage, Unless
from engine.stream.swap import Outdated, Scene

logger = logging.getLogger(__name__)

_HOPELESS = (ModelFilesError, PortraitError, UsageError)
"""Trying again changes nothing."""


_ROOM_WITHIN_S, _ROOM_POLL_S = 15.0, 0.5


class Director:
    """One session's scenes. `open`, `begin` and `change` are called by the session's command thread, `on_failure`,
    `rest` and `resize` by the generator's; a thread of its own loads what takes long.

    Two locks: `_swapping` is held while a scene takes over, which waits for the generator's thread; `_news` only for
    a moment, while states are told and loads are asked for, so that the generator's thread may take it.
    """

    def __init__(self, settings: SessionSettings, stage: Stage, progress: Progress, stopping: threading.Event) -> None:
        self.settings = settings
        self._stage, self._progress, self._stopping = stage, progress, stopping
        self._patience = Patience(settings.fps)
        self._runner: GeneratorRunner | None = None
        self._swapping = threading.Lock()
        self._news = threading.Condition()
        self._version = 0
        self._follows_canvas = True
        self._loader: threading.Thread | None = None
        self._load_at_s = math.inf
        self._is_told_ready = False
        self._size: SmallerSize | None = None
        self._must_replace = False
        self._resting: _Resting | None = None
        self.standby: Scene | None = None
        self.coming: tuple[ChunkSpec, float] | None = None

    def open(self) -> Scene:
        """The scene to go live with. Raises what would make the wanted one impossible, as far as that is quick to
        find out, or, without a standby, whatever preparing it raises."""
        settings = self.settings
        stand_in = standby_for(settings.generator.name)
        if stand_in is not None and settings.has_standby:
            chunk = self._examined()
            self.standby = self._prepared_standby(stand_in, settings)
            if self.standby is not None:
                known_s, chunk_s = pace_memory.recall(settings.generator), chunk.frames / chunk.fps
                # One that keeps up at all needs no longer than its chunks last; one that did not is to do with less.
                if known_s is None or (settings.adaptive and known_s > chunk_s):
                    known_s = chunk_s
                self.coming = (chunk, known_s)
                return self.standby
        scene, notices = prepare_scene(settings, self._progress)
        if stand_in is not None:
            pace_memory.remember(settings.generator, scene.first_frame_s)
        self._follows_canvas = scene.generator.spec.follows_canvas
        self._stage.on_notices(notices)
        return scene

    def begin(self, runner: GeneratorRunner) -> None:
        """The session is about to go live with the scene of `open`; loads the wanted one if that was its standby."""
        self._runner = runner
        with self._news:
            if self.standby is None:
                self._is_told_ready = True
                self._stage.on_ready()
            else:
                self._tell_standby()
                self._ask_for_load(0.0)

    def change(self, **changes: Any) -> None:
        """Another portrait or canvas. Raises what preparing it raises; then everything stays as it was."""
        settings = msgspec.structs.replace(self.settings, **changes)
        is_same_portrait = "portrait" not in changes
        standby = self._another_standby(settings)
        try:
            notices = self._let_in_changed(settings, standby, is_same_portrait=is_same_portrait)
        except BaseException:
            if standby is not None:
                standby.generator.close()
            raise
        self._stage.on_notices(notices)
        with self._news:
            if not self._running().needs_another:
                if not self._is_told_ready:
                    self._tell_ready()
            elif not is_same_portrait or self._follows_canvas:
                if self.standby is not None:
                    self._tell_standby()
                self._ask_for_load(0.0)

    def on_failure(self, error: StandinError) -> None:
        """The running generator failed. Its standby has taken over already, or its last picture is held."""
        runner = self._running()
        with self._news:
            wait_s = self._patience.failed(self._stage.presented())
            self._stage.on_error(error)
            self._is_told_ready = False
            message = "The generator failed and is being started again."
            if self.standby is not None and not runner.has_failed:
                message = f"The generator failed; the {_name_of(self.standby)} stands in while it starts again."
            self._stage.on_standby("session.fallback", message, "Please wait.")
            if self._load_at_s == math.inf:
                self._ask_for_load(wait_s)

    def rest(self, scene: Scene, economy: int, wait_s: float) -> None:
        """`scene` is too slow, and its standby makes the picture: keep it, and see after `wait_s` how quick it is in
        the n-th of its economies."""
        with self._news:
            self._resting = _Resting(scene, self._version, economy)
            self._is_told_ready = False
            message = f"The {_name_of_standby(self.standby)} stands in while {scene.generator.spec.name} is too slow."
            self._stage.on_standby("session.too_slow", message, "It returns by itself when the computer keeps up.")
            self._ask_for_load(wait_s)

    def resize(self, size: SmallerSize | None, resting: Scene | None = None) -> None:
        """Load the wanted generator in another size (None: its own) and let it take over: beside the one that there is
        if there is room for both, else in its place. `resting` is that one where it is too slow for its picture to be
        of use, so that the standby makes it; otherwise it runs until there is another or it must make room."""
        with self._news:
            self._size, self._must_replace = size, True
            if resting is not None:
                self._resting = _Resting(resting, self._version, 0)
                self._is_told_ready = False
                self._tell_standby()
            self._ask_for_load(0.0)

    def close(self) -> None:
        """Close what rests; after `join`. A load that hangs does so itself at its end."""
        with self._news:
            if self._loader is None:
                self._close_resting()

    def join(self, timeout_s: float) -> None:
        """Wait for the loading thread, after `stopping` was set."""
        with self._news:
            loader = self._loader
            self._news.notify_all()
        if loader is not None and loader is not threading.current_thread():
            loader.join(timeout_s)

    # --------------------------------------------------------------------------------------- changes while live

    def _another_standby(self, settings: SessionSettings) -> Scene | None:
        if self.standby is None:
            return None
        load_portrait(settings.portrait)  # one that cannot even be read is another error than one without a face
        standby = self._prepared_standby(_name_of(self.standby), settings)
        if standby is None:
            raise PortraitError(
                "Nothing could stand in for this portrait if its generator failed.",
                code="portrait.no_standby",
                hint="Choose a portrait with a visible face, or stop and start with it.",
            )
        return standby

    def _let_in_changed(
        self, settings: SessionSettings, standby: Scene | None, *, is_same_portrait: bool
    ) -> list[Notice]:
        """Prepare the wanted scene beside the one that runs, unless it is to be loaded anyway, and let both in; once
        more if the running one failed or came in meanwhile."""
        while True:
            shown = self._running().scene
            scene, notices = None, []
            if not self._running().needs_another:
                if is_same_portrait and not shown.generator.spec.follows_canvas:
                    scene = recomposed(shown, settings)
                else:
                    scene, notices = prepare_scene(settings, self._progress, like=shown, size=self._size)
            try:
                if self._swap_changed(settings, scene, standby, shown, is_same_portrait=is_same_portrait):
                    return notices
            except Outdated:
                continue
            except BaseException:
                if scene is not None and scene.generator is not shown.generator:
                    scene.generator.close()
                raise

    def _swap_changed(
        self,
        settings: SessionSettings,
        scene: Scene | None,
        standby: Scene | None,
        shown: Scene,
        *,
        is_same_portrait: bool,
    ) -> bool:
        runner = self._running()
        with self._swapping:
            if scene is None and not runner.needs_another:
                return False
            if scene is not None or standby is not None:
                is_same = scene is not None and scene.generator is shown.generator
                runner.swap(scene, standby=standby, is_same_generator=is_same)
            if standby is not None:
                self.standby = standby
            self.settings = settings
            if scene is not None or not is_same_portrait or self._follows_canvas:
                self._version += 1  # what is being loaded is not wanted any more
            return True

    # -------------------------------------------------------------------------------------------------- loading

    def _ask_for_load(self, wait_s: float) -> None:
        """Load the wanted scene in `wait_s`; `_news` is held."""
        self._load_at_s = time.monotonic() + wait_s
        self._news.notify_all()
        if self._loader is None and not self._stopping.is_set():
            self._loader = threading.Thread(target=self._load, name="loader", daemon=True)
            self._loader.start()

    def _load(self) -> None:
        while self._is_load_due():
            try:
                self._load_once()
            except Cancelled:
                pass  # the settings changed, or the session ends
            except Exception as error:  # noqa: BLE001 - loading may fail in any way; the session goes on
                self._plan_another_try(error)

    def _is_load_due(self) -> bool:
        """Waits until it is; false once nothing is to be loaded, and this thread is no more then."""
        with self._news:
            while not self._stopping.is_set() and self._is_load_wanted() and self._load_at_s < math.inf:
                wait_s = self._load_at_s - time.monotonic()
                if wait_s <= 0:
                    self._load_at_s = math.inf
                    return True
                self._news.wait(wait_s)
            self._loader, self._load_at_s = None, math.inf
            if self._stopping.is_set():
                self._close_resting()
            return False

    def _is_load_wanted(self) -> bool:
        return self._running().needs_another or self._must_replace

    def _load_once(self) -> None:
        """Prepare the wanted scene and let it take over, unless the settings changed on the way."""
        runner = self._running()
        with self._swapping:
            version, settings, size = self._version, self.settings, self._size
        progress = Unless(self._progress, lambda: self._stopping.is_set() or self._version != version)
        if runner.has_failed and self.standby is not None:
            self._repair_standby(version, settings, progress)
        made = self._measured_resting(version, progress) or self._loaded(settings, size, progress)
        if made is None:
            return
        scene, notices = made
        try:
            with self._swapping:
                progress.check()
                if settings.canvas != self.settings.canvas:
                    scene = recomposed(scene, self.settings)
                runner.swap(scene)
        except BaseException:
            scene.generator.close()
            raise
        if self.standby is not None and size is None:
            pace_memory.remember(settings.generator, scene.first_frame_s)
        self._stage.on_notices(notices)
        with self._news:
            self._must_replace &= size is not self._size
            if not runner.needs_another and not self._is_told_ready:
                self._tell_ready()

    def _loaded(
        self, settings: SessionSettings, size: SmallerSize | None, progress: Unless
    ) -> tuple[Scene, list[Notice]] | None:
        """The wanted scene, prepared; None if only its size was refused. What rests is of no use then."""
        try:
            if self._must_replace:
                self._make_room(settings, size, progress)
            made = prepare_scene(settings, progress, size=size)
        except (Cancelled, PortraitError):
            raise
        except StandinError as error:
            if size is None or not self._must_replace:
                self._close_resting()
                raise
            logger.warning("%s could not be had in %s: %s", settings.generator.name, size.name, error)
            with self._news:
                self._size, self._must_replace, self._load_at_s = None, False, time.monotonic()
            self._stage.on_size_refused()
            return None
        self._close_resting()
        return made

    def _measured_resting(self, version: int, progress: Unless) -> tuple[Scene, list[Notice]] | None:
        """What rests, if it is still what is wanted and quick enough by now. Raises `Cancelled` if it is not, and is
        tried again later."""
        with self._news:
            resting = self._resting
        if resting is None or resting.version != version or self._must_replace:
            return None
        try:
            scene = measured_again(resting.scene, progress, resting.economy)
        except Cancelled:
            raise
        except BaseException:
            self._close_resting()
            raise
        wait_s = self._stage.may_return(scene)
        with self._news:
            if wait_s > 0:
                self._load_at_s = time.monotonic() + wait_s
                raise Cancelled("It is still too slow.")
            self._resting = None
        return scene, []

    def _make_room(self, settings: SessionSettings, size: SmallerSize | None, progress: Unless) -> None:
        """See whether another one fits beside the one that there is; if not, end that, and let the standby make the
        picture. Raises what makes the other one impossible."""
        try:
            _check(settings, size)
            return None
        except StandinError as error:
            if self.standby is None:
                raise
            logger.info("not beside the one that there is: %s", error)
        self._close_resting()
        if not self._running().needs_another:
            self._end_running(progress)
        give_up_s = time.monotonic() + _ROOM_WITHIN_S
        while True:  # a process that has ended gives its memory back some time later
            progress.check()
            try:
                return _check(settings, size)
            except StandinError:
                if time.monotonic() > give_up_s:
                    raise
            self._stopping.wait(_ROOM_POLL_S)

    def _end_running(self, progress: Unless) -> None:
        """In this thread: ending ranks takes seconds, for which the standby's pictures cannot wait."""
        with self._swapping:
            progress.check()
            replaced = self._running().swap(self.standby, keeps_replaced=True)
        with self._news:
            self._is_told_ready = False
            self._tell_standby()
        if replaced is not None:
            replaced.generator.close()

    def _close_resting(self) -> None:
        resting, self._resting = self._resting, None
        if resting is not None:
            resting.scene.generator.close()

    def _repair_standby(self, version: int, settings: SessionSettings, progress: Unless) -> None:
        """The standby has failed, too: a fresh one shows something while the wanted one is loaded."""
        assert self.standby is not None
        standby = self._prepared_standby(_name_of(self.standby), settings)
        if standby is None:
            return
        try:
            with self._swapping:
                progress.check()
                self._running().swap(standby=standby)
                self.standby = standby
        except BaseException:
            standby.generator.close()
            raise

    def _plan_another_try(self, error: Exception) -> None:
        name = self.settings.generator.name
        if not isinstance(error, StandinError):
            logger.error("%s could not be loaded", name, exc_info=error)
        with self._news:
            if self._stopping.is_set():
                return
            self._stage.on_error(as_generator_error(name, error))
            if self.standby is None or not isinstance(error, _HOPELESS):
                self._load_at_s = time.monotonic() + self._patience.failed(self._stage.presented())
                return
            message = f"{name} could not be started, so the {_name_of(self.standby)} stays."
            self._stage.on_standby("session.standby_stays", message, "Change it and start again.")

    def _examined(self) -> ChunkSpec:
        """What the wanted generator asks for, after it has been looked at without being loaded."""
        wanted = new_generator(self.settings)
        try:
            wanted.check()
            self._follows_canvas = wanted.spec.follows_canvas
            return wanted.spec.chunk
        finally:
            wanted.close()

    def _prepared_standby(self, name: str, settings: SessionSettings) -> Scene | None:
        """None where the standby can make nothing of the portrait: then nothing stands in."""
        settings = msgspec.structs.replace(settings, generator=GeneratorSettings(name=name))
        try:
            scene, _ = prepare_scene(settings, self._progress)
        except PortraitError as error:
            logger.info("nothing can stand in: %s", error)
            return None
        return scene

    # -------------------------------------------------------------------------------------------------- telling

    def _tell_ready(self) -> None:
        self._is_told_ready = True
        self._patience.recovered(self._stage.presented())
        self._stage.on_ready()

    def _tell_standby(self) -> None:
        assert self.standby is not None
        message = f"The {_name_of(self.standby)} is shown until {self.settings.generator.name} is ready."
        self._stage.on_standby("session.standby", message, "It takes over by itself.")

    def _running(self) -> GeneratorRunner:
        assert self._runner is not None
        return self._runner


def _name_of(scene: Scene) -> str:
    return scene.generator.spec.name


def _name_of_standby(standby: Scene | None) -> str:
    return _name_of(standby) if standby is not None else "last picture"


def _check(settings: SessionSettings, size: SmallerSize | None) -> None:
    """Whether that generator could be prepared now, with all that others take of the computer. Raises what `check`
    does."""
    wanted = new_generator(settings, size)
    try:
        wanted.check()
    finally:
        wanted.close()


@dataclass(frozen=True)
class _Resting:
    """A generator that was too slow, and for which `version` of the settings."""

    scene: Scene
    version: int
    economy: int
