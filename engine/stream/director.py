"""Decides which generator makes the picture: the wanted one, or its standby while that loads or after it has failed."""

from __future__ import annotations

import logging
import threading
from typing import Any

import msgspec

from engine.errors import Cancelled, ModelFilesError, PortraitError, StandinError, UsageError
from engine.generators.base import Progress, SmallerSize
from engine.media import ChunkSpec, Notice
from engine.portrait.load import load_portrait
from engine.settings import SessionSettings
from engine.stream import pace_memory
from engine.stream.loader import Loader
from engine.stream.opening import prepare_opening
from engine.stream.patience import Patience
from engine.stream.resting import Resting
from engine.stream.runner import GeneratorRunner, as_generator_error
from engine.stream.scene import check_room, prepare_scene, recomposed, standby_scene, wait_for_room
from engine.stream.stage import Announcer, Stage, Unless
from engine.stream.swap import Outdated, Scene

logger = logging.getLogger(__name__)

_HOPELESS = (ModelFilesError, PortraitError, UsageError)
"""Trying again changes nothing."""


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
        self._told, self._resting = Announcer(stage), Resting()
        self._loader = Loader(
            self._news,
            stopping,
            is_wanted=lambda: self._running().needs_another or self._must_replace,
            load=self._load,
            on_stopped=self._resting.close,
        )
        self._size: SmallerSize | None = None
        self._must_replace = False
        self.standby: Scene | None = None
        self.coming: tuple[ChunkSpec, float] | None = None

    def open(self) -> Scene:
        """The scene to go live with. Raises what `prepare_opening` does."""
        opening = prepare_opening(self.settings, self._progress)
        self.standby, self.coming = opening.standby, opening.coming
        self._follows_canvas = opening.follows_canvas
        if self.standby is None:
            self._stage.on_notices(opening.notices)
        return opening.scene

    def begin(self, runner: GeneratorRunner) -> None:
        """The session is about to go live with the scene of `open`; loads the wanted one if that was its standby."""
        self._runner = runner
        with self._news:
            if self.standby is None:
                self._told.ready()
            else:
                self._tell_loading()
                self._loader.ask(0.0)

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
                self._tell_ready()
            elif not is_same_portrait or self._follows_canvas:
                if self.standby is not None:
                    self._tell_loading()
                self._loader.ask(0.0)

    def on_failure(self, error: StandinError) -> None:
        """The running generator failed. Its standby has taken over already, or its last picture is held."""
        runner = self._running()
        with self._news:
            wait_s = self._patience.failed(self._stage.presented())
            self._stage.on_error(error)
            self._told.failed(_name_of(self.standby) if not runner.has_failed else "")
            if not self._loader.is_planned:
                self._loader.ask(wait_s)

    def rest(self, scene: Scene, economy: int, wait_s: float) -> None:
        """`scene` is too slow, and its standby makes the picture: keep it, and see after `wait_s` how quick it is in
        the n-th of its economies."""
        with self._news:
            self._resting.keep(scene, self._version, economy)
            self._told.too_slow(_name_of(self.standby), _name_of(scene))
            self._loader.ask(wait_s)

    def resize(self, size: SmallerSize | None, resting: Scene | None = None) -> None:
        """Load the wanted generator in another size (None: its own) and let it take over: beside the one that there is
        if there is room for both, else in its place. `resting` is that one where it is too slow for its picture to be
        of use, so that the standby makes it; otherwise it runs until there is another or it must make room."""
        with self._news:
            self._size, self._must_replace = size, True
            if resting is not None:
                self._resting.keep(resting, self._version, 0)
                self._tell_loading()
            self._loader.ask(0.0)

    def close(self) -> None:
        """Close what rests; after `join`. A load that hangs does so itself at its end."""
        with self._news:
            if not self._loader.is_running:
                self._resting.close()

    def join(self, timeout_s: float) -> None:
        """Wait for the loading thread, after `stopping` was set."""
        self._loader.join(timeout_s)

    # --------------------------------------------------------------------------------------- changes while live

    def _another_standby(self, settings: SessionSettings) -> Scene | None:
        if self.standby is None:
            return None
        load_portrait(settings.portrait)  # one that cannot even be read is another error than one without a face
        standby = standby_scene(_name_of(self.standby), settings, self._progress)
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

    def _load(self) -> None:
        try:
            self._load_once()
        except Cancelled:
            pass  # the settings changed, or the session ends
        except Exception as error:  # noqa: BLE001 - loading may fail in any way; the session goes on
            self._plan_another_try(error)

    def _load_once(self) -> None:
        """Prepare the wanted scene and let it take over, unless the settings changed on the way."""
        runner = self._running()
        with self._swapping:
            version, settings, size = self._version, self.settings, self._size
        progress = Unless(self._progress, lambda: self._stopping.is_set() or self._version != version)
        if runner.has_failed and self.standby is not None:
            self._repair_standby(settings, progress)
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
            if not runner.needs_another:
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
                self._resting.close()
                raise
            logger.warning("%s could not be had in %s: %s", settings.generator.name, size.name, error)
            with self._news:
                self._size, self._must_replace = None, False
                self._loader.ask(0.0)
            self._stage.on_size_refused()
            return None
        self._resting.close()
        return made

    def _measured_resting(self, version: int, progress: Unless) -> tuple[Scene, list[Notice]] | None:
        """What rests, if it is still what is wanted and quick enough by now. Raises `Cancelled` if it is not, and is
        tried again later."""
        scene = self._resting.measured(version, progress) if not self._must_replace else None
        if scene is None:
            return None
        wait_s = self._stage.may_return(scene)
        with self._news:
            if wait_s > 0:
                self._loader.ask(wait_s)
                raise Cancelled("It is still too slow.")
            self._resting.release()
        return scene, []

    def _make_room(self, settings: SessionSettings, size: SmallerSize | None, progress: Unless) -> None:
        """See whether another one fits beside the one that there is; if not, end that, and let the standby make the
        picture. Raises what makes the other one impossible."""
        try:
            check_room(settings, size)
            return
        except StandinError as error:
            if self.standby is None:
                raise
            logger.info("not beside the one that there is: %s", error)
        self._resting.close()
        if not self._running().needs_another:
            self._end_running(progress)
        wait_for_room(settings, size, progress, self._stopping)

    def _end_running(self, progress: Unless) -> None:
        """In this thread: ending ranks takes seconds, for which the standby's pictures cannot wait."""
        with self._swapping:
            progress.check()
            replaced = self._running().swap(self.standby, keeps_replaced=True)
        with self._news:
            self._tell_loading()
        if replaced is not None:
            replaced.generator.close()

    def _repair_standby(self, settings: SessionSettings, progress: Unless) -> None:
        """The standby has failed, too: a fresh one shows something while the wanted one is loaded."""
        assert self.standby is not None
        standby = standby_scene(_name_of(self.standby), settings, self._progress)
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
                self._loader.ask(self._patience.failed(self._stage.presented()))
                return
            self._told.hopeless(_name_of(self.standby), name)

    # -------------------------------------------------------------------------------------------------- telling

    def _tell_ready(self) -> None:
        """The wanted one runs (again); `_news` is held."""
        if not self._told.is_ready:
            self._patience.recovered(self._stage.presented())
            self._told.ready()

    def _tell_loading(self) -> None:
        self._told.loading(_name_of(self.standby), self.settings.generator.name)

    def _running(self) -> GeneratorRunner:
        assert self._runner is not None
        return self._runner


def _name_of(scene: Scene | None) -> str:
    return scene.generator.spec.name if scene is not None else ""
