"""Carries out what a session's ladders decide: cheaper chunks, another size, the standby, the card; and back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from engine.errors import StandinError
from engine.generators.base import GeneratorSpec, SmallerSize
from engine.generators.factory import smaller_sizes
from engine.protocol.messages import QualityStats, Reason
from engine.settings import SessionSettings
from engine.stream.card import standby_card
from engine.stream.director import Director
from engine.stream.ladder import Ladder, Move, Rung
from engine.stream.pace import Pace
from engine.stream.pacer import Pacer
from engine.stream.reporter import Reporter
from engine.stream.runner import GeneratorRunner
from engine.stream.swap import Scene

logger = logging.getLogger(__name__)

_LEAST_PER_ECONOMY = 0.25
"""An economy saves no more than this share of the full work: a step of four."""
_BEFORE_CARD = 2.0
"""Where there is nothing cheaper but a card, half of the frames are better than that."""
_REST_S = 1.0
_HINT = "Close other programs, or choose a smaller size or another generator."


class Adaptation:
    """One session's. `on_pace` is called by the generator's thread, `may_return` and `on_size_refused` by the one that
    loads, `stats` by any. Without a call of `on_pace` nothing ever changes: that is how it is turned off."""

    def __init__(
        self,
        runner: GeneratorRunner,
        pacer: Pacer,
        director: Director,
        reporter: Reporter,
        *,
        make_card: Callable[[SessionSettings], np.ndarray] = standby_card,
    ) -> None:
        self._runner, self._pacer, self._director, self._reporter = runner, pacer, director, reporter
        self._make_card = make_card
        self._card_of: SessionSettings | None = None
        self._ladders: dict[bool, _Steps] = {}
        self._scene: Scene | None = None
        self._loaded_size = self._wanted_size = 0
        self._reason = ""
        self._changes = 0
        self._margin_s = 0.0

    def on_pace(self, pace: Pace) -> None:
        """A chunk was made: see whether anything should change."""
        steps = self._steps_for(pace.is_standby)
        self._margin_s = pace.margin_s
        self._renew_card()
        if not pace.is_standby and self._loaded_size != self._wanted_size:
            return  # how quick this one is does not matter any more
        steps.ladder.in_time_s = pace.in_time_s
        move = steps.ladder.observe(pace.at_s, pace.took_s, pace.margin_s)
        if move is not None:
            self._carry_out(move, steps, pace.at_s)

    def may_return(self, scene: Scene, now_s: float) -> float:
        """See `Stage.may_return`."""
        steps = self._ladders[False]
        if not steps.ladder.may_return(scene.generate_s, self._loaded_size):
            return steps.ladder.patience_s(now_s)
        move = steps.ladder.returned(now_s, scene.generate_s, self._loaded_size)
        self._runner.economy = move.now.economy
        self._tell(move, steps)
        return 0.0

    def on_size_refused(self) -> None:
        """See `Stage.on_size_refused`."""
        steps = self._ladders[False]
        self._wanted_size = self._loaded_size = 0
        steps.ladder.give_up_sizes(rests=self._runner.is_standing_in)
        self._runner.economy = steps.ladder.rung.economy

    def stats(self) -> QualityStats:
        """Where it stands."""
        steps = self._ladders.get(self._runner.is_standing_in)
        wanted = self._ladders.get(False)
        if steps is None:
            return QualityStats()
        rung = steps.ladder.rung
        if self._runner.is_standing_in and rung.kind == "full" and wanted is not None:
            rung = wanted.ladder.rung
        return QualityStats(
            step=rung.name,
            kind=rung.kind,
            reason=self._reason,
            changes=self._changes,
            chunk_ms=round(1000 * steps.ladder.usual_s, 1),
            budget_ms=round(1000 * steps.ladder.chunk_s, 1),
            margin_ms=round(1000 * self._margin_s, 1),
        )

    # -------------------------------------------------------------------------------------------------- the ladders

    def _steps_for(self, is_standby: bool) -> _Steps:
        scene, before = self._runner.scene, self._scene
        spec = scene.generator.spec
        steps = self._ladders.get(is_standby)
        if steps is None or not steps.fits(spec):
            steps = self._ladders[is_standby] = self._built(spec, is_standby)
        if scene is not before:  # another one has taken over; how the one before did says nothing about it
            self._scene = scene
            self._leave_card()
            if not is_standby:
                self._loaded_size = self._wanted_size
            steps.ladder.begin_again(self._loaded_size if not is_standby else 0)
            if not is_standby:
                self._runner.economy = steps.ladder.rung.economy
        return steps

    def _built(self, spec: GeneratorSpec, is_standby: bool) -> _Steps:
        sizes: list[SmallerSize] = []
        if not is_standby:
            wanted = self._director.settings.generator
            sizes = smaller_sizes(wanted.name, wanted.options, follows_canvas=spec.follows_canvas)
        standby = self._director.standby
        has_standby = standby is not None and not is_standby
        last = standby.generator.spec.name if standby is not None and has_standby else ""
        return _Steps(Ladder(rungs_of(spec, sizes, last), spec.chunk.frames / spec.chunk.fps), sizes, spec)

    # ------------------------------------------------------------------------------------------------- carrying out

    def _carry_out(self, move: Move, steps: _Steps, now_s: float) -> None:
        rung = move.now
        if rung.kind == "standby":
            economy = steps.ladder.economy_of(self._loaded_size)
            resting = self._runner.stand_in()
            if resting is None:
                return
            self._tell(move, steps)
            self._director.rest(resting, economy, steps.ladder.patience_s(now_s))
            return
        self._reason = sentence_of(move, steps.spec.name)  # for who looks while a card is made or another size loads
        if rung.kind == "card":
            self._show_card()
        else:
            self._leave_card()
            self._runner.economy = rung.economy
            if rung.size != self._loaded_size:
                self._wanted_size = rung.size
                # What is too slow in its cheapest way would hold more pictures than it makes while the other one loads.
                resting = self._runner.stand_in() if move.is_down else None
                self._director.resize(steps.sizes[rung.size - 1] if rung.size else None, resting)
        self._tell(move, steps)

    def _show_card(self) -> None:
        settings = self._director.settings
        try:
            self._pacer.card = self._make_card(settings)
        except StandinError as error:  # then the last picture stays
            logger.warning("no card can be shown: %s", error)
        self._card_of = settings
        self._runner.rest_s = _REST_S

    def _leave_card(self) -> None:
        self._pacer.card = self._card_of = None
        self._runner.rest_s = 0.0

    def _renew_card(self) -> None:
        """Another portrait or canvas meanwhile."""
        if self._card_of is not None and self._card_of is not self._director.settings:
            self._show_card()

    # ------------------------------------------------------------------------------------------------------ telling

    def _tell(self, move: Move, steps: _Steps) -> None:
        self._changes += 1
        self._reason = sentence_of(move, steps.spec.name)
        logger.info("%s (%.0f ms for chunks of %.0f ms)", self._reason, 1e3 * move.took_s, 1e3 * steps.ladder.chunk_s)
        code = "quality.lowered" if move.is_down else "quality.raised"
        self._reporter.note(Reason(code=code, message=self._reason, hint=_HINT if move.is_down else ""))


class _Steps:
    """A ladder, the sizes that its rungs mean, and for which generator it was made."""

    def __init__(self, ladder: Ladder, sizes: list[SmallerSize], spec: GeneratorSpec) -> None:
        self.ladder, self.sizes, self.spec = ladder, sizes, spec

    def fits(self, spec: GeneratorSpec) -> bool:
        """Whether it is that generator's, in whatever size."""
        known = self.spec
        return (known.name, known.chunk, known.economies) == (spec.name, spec.chunk, spec.economies)


def rungs_of(spec: GeneratorSpec, sizes: list[SmallerSize], standby: str) -> list[Rung]:
    """Everything that a generator can be asked for, best first: its full work, its economies, smaller sizes in the
    cheapest of these, and then the standby of that name, or the card where there is none."""
    rungs = [Rung(name="full", kind="full")]
    for number, name in enumerate(spec.economies, start=1):
        cost = max(0.1, 1.0 - _LEAST_PER_ECONOMY * number)
        rungs.append(Rung(name=name, kind="economy", cost=cost, economy=number))
    cheapest = rungs[-1]
    for number, size in enumerate(sizes, start=1):
        cost = cheapest.cost * size.cost
        rungs.append(Rung(name=size.name, kind="smaller", cost=cost, economy=cheapest.economy, size=number))
    if standby:
        return [*rungs, Rung(name=standby, kind="standby", cost=0.0)]
    last = replace(rungs.pop(), limit=_BEFORE_CARD)
    return [*rungs, last, Rung(name="card", kind="card", cost=0.0)]


def sentence_of(move: Move, name: str) -> str:
    """What has changed, for a person."""
    now = {
        "full": "full quality",
        "economy": move.now.name,
        "smaller": move.now.name,
        "standby": f"the {move.now.name}",
        "card": "a standby card",
    }[move.now.kind]
    before = {"full": "full quality", "economy": move.before.name, "smaller": f"{name} in {move.before.name}"}
    if not move.is_down:
        return f"The computer keeps up again: {name} goes on with {now}."
    if move.now.kind == "standby":
        return f"The computer is too slow for {name}: {now} stands in."
    if move.now.kind == "card":
        return f"The computer is too slow even for the {name}: {now} is shown."
    return f"The computer is too slow for {before.get(move.before.kind, name)}: {name} goes on with {now}."
