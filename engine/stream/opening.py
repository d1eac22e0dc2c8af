"""What a session goes on the air with: the wanted generator, or its standby while that loads."""

from __future__ import annotations

from dataclasses import dataclass

from engine.generators.base import Progress
from engine.generators.factory import standby_for
from engine.media import ChunkSpec, Notice
from engine.settings import SessionSettings
from engine.stream import pace_memory
from engine.stream.scene import examined, prepare_scene, standby_scene
from engine.stream.swap import Scene


@dataclass(frozen=True, kw_only=True)
class Opening:
    """The `scene` to go live with: the `standby`, if there is one. What is `coming` then asks for such chunks, and
    needs so many seconds until its first frame; `follows_canvas` and `notices` are the wanted generator's."""

    scene: Scene
    standby: Scene | None
    coming: tuple[ChunkSpec, float] | None
    follows_canvas: bool
    notices: list[Notice]


def prepare_opening(settings: SessionSettings, progress: Progress) -> Opening:
    """Raises what would make the wanted generator impossible, as far as that is quick to find out, or, without a
    standby, whatever preparing it raises."""
    name = standby_for(settings.generator.name)
    if name is not None and settings.has_standby:
        spec = examined(settings)
        standby = standby_scene(name, settings, progress)
        if standby is not None:
            return Opening(
                scene=standby,
                standby=standby,
                coming=(spec.chunk, _expected_s(settings, spec.chunk)),
                follows_canvas=spec.follows_canvas,
                notices=[],
            )
    scene, notices = prepare_scene(settings, progress)
    if name is not None:
        pace_memory.remember(settings.generator, scene.first_frame_s)
    follows_canvas = scene.generator.spec.follows_canvas
    return Opening(scene=scene, standby=None, coming=None, follows_canvas=follows_canvas, notices=notices)


def _expected_s(settings: SessionSettings, chunk: ChunkSpec) -> float:
    known_s, chunk_s = pace_memory.recall(settings.generator), chunk.frames / chunk.fps
    # One that keeps up at all needs no longer than its chunks last; one that did not is to do with less.
    if known_s is None or (settings.adaptive and known_s > chunk_s):
        return chunk_s
    return known_s
