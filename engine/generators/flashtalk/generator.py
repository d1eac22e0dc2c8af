"""FlashTalk as a generator: chunks of frames of a photographic portrait, from the published checkpoint."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.errors import GeneratorError
from engine.generators.base import FrameWriter, GeneratorSpec, Progress
from engine.generators.flashtalk.config import DiTConfig
from engine.generators.flashtalk.effort import StepChooser, StepCounts
from engine.generators.flashtalk.feature_cache import content_key, weights_key
from engine.generators.flashtalk.graphs import CudaRecorder, Recorder, RecordsNothing, wants_graphs
from engine.generators.flashtalk.host_copies import HostCopies
from engine.generators.flashtalk.memory import (
    Demand,
    free_bytes,
    has_room_beside,
    no_room_for_graphs,
    streamed_blocks,
)
from engine.generators.flashtalk.models import (
    Models,
    are_loaded,
    choose_device,
    image_features,
    image_key,
    load_models,
    text_features,
    text_key,
)
from engine.generators.flashtalk.noise import SeededNoise
from engine.generators.flashtalk.options import STEPS, FlashTalkOptions, find_checkpoint, takes_flashtalk_options
from engine.generators.flashtalk.placement import Storage
from engine.generators.flashtalk.portrait_tensor import cover_and_crop, to_unit_range
from engine.generators.flashtalk.sampler import Schedules
from engine.generators.flashtalk.set_up_cache import Inputs, SetUpCache
from engine.generators.flashtalk.small_decoder import SmallDecoder, load_small_decoder
from engine.generators.flashtalk.speech_buffer import SpeechBuffer
from engine.generators.flashtalk.stages import AUDIO, NOT_MEASURED, ChunkTimes, Stages, StageTimes
from engine.generators.flashtalk.stream import FlashTalkStream, anchor_in_pieces, to_bytes
from engine.generators.flashtalk.transformer import DiT, SetUp
from engine.generators.flashtalk.watch import Look, collapse_of, look_of
from engine.generators.flashtalk.weights import precision_for
from engine.generators.pieces import Piece, Pieces, made_at_once
from engine.media import SAMPLE_RATE_HZ, AudioChunk, Notice, Portrait
from engine.model_store.checkpoint import CheckpointReport
from engine.parallel.group import LocalGroup, SequenceGroup
from engine.parallel.launch import RankGroup
from engine.parallel.tiles import RowBands
from engine.paths import expanded

logger = logging.getLogger(__name__)


@takes_flashtalk_options
class FlashTalkGenerator:
    """Implements `engine.generators.base.Generator`.

    `options` are those of `FlashTalkOptions`, of any type. Raises `UsageError` for what is not offered.

    With a `group`, every rank has one of these and makes the same calls; rank 0 alone reads features from disk, listens
    and writes frames.
    """

    def __init__(self, *, seed: int = 0, group: RankGroup | None = None, **options: Any) -> None:
        self._options = FlashTalkOptions.of(options)
        self._shape, self._seed = self._options.shape, seed
        self._storage = Storage(precision=self._options.precision, offload=self._options.offload)
        self._ranks, self._rank = group, 0 if group is None else group.rank
        self._bands: RowBands | None = None
        self._models: Models | None = None
        self._group: SequenceGroup = LocalGroup()
        self._stream: FlashTalkStream | None = None
        self._speech: SpeechBuffer | None = None
        self._noise: SeededNoise | None = None
        self._host: HostCopies | None = None
        self._look: Look | None = None
        self._picture: np.ndarray | None = None
        self._good: np.ndarray | None = None
        self._next_sample: int | None = None
        self._recoveries = 0
        self._is_collapsed, self._is_watched = False, True
        self._notices: list[Notice] = []
        self._fingerprint = ""
        self._foreseen: SetUpCache | None = None
        self._set_up: SetUpCache | None = None
        self._chooser = StepChooser(STEPS) if self._options.is_adaptive else None
        self._stages: Stages = NOT_MEASURED
        self.step_counts = StepCounts()
        """Of all chunks since the beginning."""

    @property
    def spec(self) -> GeneratorSpec:
        """Size and chunking; known before `prepare`, because this generator's size does not follow the canvas."""
        return self._options.spec

    @property
    def recoveries(self) -> int:
        """How often a collapsed picture was begun anew from the portrait."""
        return self._recoveries

    @property
    def models(self) -> Models:
        """Those of `prepare`. Raises `GeneratorError` before."""
        if self._models is None:
            raise GeneratorError("FlashTalk has no models before it has a portrait.")
        return self._models

    def measure(self) -> list[ChunkTimes]:
        """From now on, how long each chunk takes, in a list that grows; in between, the device is waited for.

        Raises `GeneratorError` before `prepare`."""
        models, stream = self._models, self._stream
        if models is None or stream is None:
            raise GeneratorError("FlashTalk cannot be measured before it has a portrait.")
        times = StageTimes(models.device, self._shape.fps)
        self._stages = stream.stages = times
        return times.chunks

    def check(self) -> None:
        """Files, device and free memory. Raises `ModelFilesError`, `GeneratorError` or `UsageError`."""
        self._examine()

    @property
    def fingerprint(self) -> str:
        """Of the model files of `prepare`; ranks that share a stream must have the same."""
        return self._fingerprint

    @torch.no_grad()
    def foresee(self, portrait: Portrait, progress: Progress) -> None:
        """Keep on disk what `prepare` will look for there, and read what is there already: rank 0 does this alone,
        beside a stream that runs, and then prepares the same object for the same portrait."""
        report, device = self._examine()
        pixels = to_unit_range(cover_and_crop(portrait.image, self._shape.height, self._shape.width))
        kept = self._foreseen = self._kept(report, portrait.digest, device)
        kept.look()
        if not kept.has_text:
            text_features(report, self._options.prompt, device, progress)
        if not kept.has_image:
            image_features(report, pixels, portrait.digest, device, progress)

    @torch.no_grad()
    def prepare(self, portrait: Portrait, size: tuple[int, int], progress: Progress) -> list[Notice]:
        """Check the files, encode prompt and portrait, load the model; see `Generator.prepare`."""
        notices = made_at_once(self._prepared_in_pieces(portrait, progress))
        self._store()
        return notices

    def prepare_in_pieces(self, portrait: Portrait, size: tuple[int, int], progress: Progress) -> Pieces[list[Notice]]:
        """`prepare`; after each piece the device has finished it, so that a chunk that is next need not wait for it.
        What is kept on disk is written in a thread."""
        pieces = self._prepared_in_pieces(portrait, progress)
        while True:
            try:
                with torch.no_grad():
                    piece = next(pieces)
                    self._settle()
            except StopIteration as end:
                threading.Thread(target=self._store, name="set-up", daemon=True).start()
                return end.value
            yield piece

    def _store(self) -> None:
        if self._set_up is not None:
            self._set_up.store()
        self._set_up = None

    def _settle(self) -> None:
        if self._models is not None and self._models.device.type == "cuda":
            torch.cuda.synchronize(self._models.device)

    def _prepared_in_pieces(self, portrait: Portrait, progress: Progress) -> Pieces[list[Notice]]:
        yield Piece(name="files", is_alone=True)
        progress.update("checkpoint", 0, 1)
        report, device = self._examine()
        picture = cover_and_crop(portrait.image, self._shape.height, self._shape.width)
        pixels = to_unit_range(picture)
        yield Piece(name="features", is_slow=True)
        kept, self._foreseen = self._foreseen or self._kept(report, portrait.digest, device), None
        kept.find()
        text = image = None
        if not kept.has_text:
            text = self._from_first(lambda: text_features(report, self._options.prompt, device, progress), device)
        if not kept.has_image:
            image = self._from_first(lambda: image_features(report, pixels, portrait.digest, device, progress), device)
            image = image.squeeze(0)
        options = self._options
        self._agree_on_streaming(report, device)
        yield Piece(name="models", is_slow=True)
        models = load_models(
            report,
            device,
            options.attention,
            progress,
            rank=self._rank,
            kernels=options.kernels,
            storage=self._storage,
        )
        progress.update("portrait", 0, 1)
        set_up = functools.partial(kept.set_up, text=text, image=image)
        refused = yield from self._begin(models, pixels.to(device), set_up)
        self._picture, self._good, self._set_up = picture, picture, kept
        self._fingerprint = content_key(*map(weights_key, (*report.transformer_files, report.vae)))
        progress.update("portrait", 1, 1)
        return [
            *models.notices,
            *_refused_notices(models, refused),
            *([] if device.type == "cuda" else [_slow_notice()]),
        ]

    @torch.no_grad()
    def prepare_from(self, models: Models, portrait: Tensor, text: Tensor, image: Tensor) -> list[Notice]:
        """`prepare` with models and features that are at hand: `portrait` [1, 3, 1, H, W] in [-1, 1]. Whatever they
        make is continued from, because random weights make no picture that could be told from a collapsed one."""
        self._is_watched = False
        timesteps = Schedules(STEPS).table.to(models.device)

        def set_up(dit: DiT, group: SequenceGroup) -> Pieces[SetUp]:
            spoken = yield from dit.text_keys_in_pieces(text, group)
            pictured = yield from dit.image_keys_in_pieces(image.squeeze(0), group)
            return SetUp(text=spoken, image=pictured, times=dit.time_vectors(timesteps))

        refused = made_at_once(self._begin(models, portrait, set_up))
        self._picture = self._good = to_bytes(portrait)[0].cpu().numpy()
        return [*models.notices, *_refused_notices(models, refused)]

    def _from_first(self, make: Callable[[], Tensor], device: torch.device) -> Tensor:
        return make().to(device) if self._ranks is None else self._ranks.from_first(make, device)

    def _examine(self) -> tuple[CheckpointReport, torch.device]:
        report = find_checkpoint(*self._options.folders)
        device = choose_device(self._options.device, report.transformer_parameters)
        options = self._options
        if not are_loaded(report, device, options.attention, options.kernels, self._storage):
            self._storage = self._placed(report, device)
        return report, device

    def _placed(self, report: CheckpointReport, device: torch.device) -> Storage:
        """Where there is room for which weights. Raises `GeneratorError` where there is not enough for any."""
        options, world = self._options, 1 if self._ranks is None else self._ranks.size
        demand = Demand(
            config=DiTConfig.from_dict(report.config),
            shape=self._shape,
            precision=precision_for(device, options.precision),
            scheme=self._storage.scheme,
            world=world,
        )
        streamed = streamed_blocks(demand, free_bytes(device), options.offload)
        return Storage(precision=options.precision, offload=options.offload, streamed=streamed, sharers=world)

    def _agree_on_streaming(self, report: CheckpointReport, device: torch.device) -> None:
        """As many streamed blocks on all ranks as on the one with the least room. They work at its pace anyway, and
        only where none of them streams do they record graphs, together."""
        if self._ranks is None:
            return
        group = self._sequence_group(DiTConfig.from_dict(report.config).num_heads)
        own = torch.tensor([self._storage.streamed], device=device)
        all_of = [group.share(rank, lambda: (own,), (torch.empty_like(own),))[0] for rank in range(group.size)]
        self._storage = replace(self._storage, streamed=int(torch.cat(all_of).max()))

    def _kept(self, report: CheckpointReport, digest: str, device: torch.device) -> SetUpCache:
        size = (self._shape.height, self._shape.width)
        inputs = Inputs(
            text_key=text_key(report, self._options.prompt, device),
            image_key=image_key(report, size, digest, device),
            # All that there are, whatever was chosen: the same tables then, to the last bit, for every choice.
            timesteps=Schedules(STEPS).table,
            dtype=precision_for(device, self._options.precision).dit,
            device=device,
        )
        return SetUpCache(report, inputs, self._ranks)

    def _begin(
        self, models: Models, portrait: Tensor, set_up: Callable[[DiT, SequenceGroup], Pieces[SetUp]]
    ) -> Pieces[str]:
        """What does not run from a graph although it should; usually nothing."""
        self._models = models
        shape, group = self._shape, self._sequence_group(models.dit.config.num_heads)
        yield Piece(name="room")
        is_roomy = self._is_roomy(models)
        anchor = yield from anchor_in_pieces(portrait, models.vae, shape, self._bands, is_roomy=is_roomy)
        made = yield from set_up(models.dit, group)
        conditions = models.dit.conditions_from(made, anchor.y, group)
        yield Piece(name="stream")
        self._noise = SeededNoise(self._seed, shape.latent, models.device)
        self._stream = FlashTalkStream(
            dit=models.dit,
            vae=models.vae,
            conditions=conditions,
            anchor=anchor,
            shape=shape,
            schedules=Schedules(STEPS),
            noise=self._noise,
            group=group,
            attention=models.attention,
            color_strength=self._options.color_match,
            kernels=models.kernels,
            bands=self._bands,
            small_decoder=self._small_decoder(models),
            motion_context=self._options.motion_context,
        )
        self._speech = SpeechBuffer(models.speech, shape, models.device)
        self._host = HostCopies(models.device, self._bands, models.kernels)
        own_rows = portrait if self._bands is None else self._bands.crop(portrait)
        self._look = look_of(self._host.look_numbers(own_rows))
        self._group = group
        # A graph would copy the same blocks to the same places whatever is there.
        if models.streamer is not None or not wants_graphs(self._options.graphs, models.device):
            return ""
        yield Piece(name="graphs", is_slow=True)
        return self._stream.record(self._recorder(models))

    def _is_roomy(self, models: Models) -> bool:
        """Whether the portrait can be encoded in pieces; rank 0, whose GPU is the fullest, says so for all."""
        free = free_bytes(models.device)
        is_roomy = has_room_beside(self._demand(models), free)
        if free is None or self._ranks is None:
            return is_roomy
        return bool(self._ranks.from_first(lambda: torch.tensor([is_roomy]), models.device).item())

    def _demand(self, models: Models) -> Demand:
        world = 1 if self._ranks is None else self._ranks.size
        return Demand(config=models.dit.config, shape=self._shape, precision=models.precision, world=world)

    def _recorder(self, models: Models) -> Recorder:
        demand = self._demand(models)
        no_room = no_room_for_graphs(demand, free_bytes(models.device))
        return RecordsNothing(no_room) if no_room else CudaRecorder(models.device)

    def _small_decoder(self, models: Models) -> SmallDecoder | None:
        if self._options.decoder == "vae":
            return None
        return load_small_decoder(expanded(self._options.decoder_weights), models.device, models.precision.vae)

    def _sequence_group(self, heads: int) -> SequenceGroup:
        if self._ranks is None:
            return LocalGroup()
        group, self._bands = self._ranks.plan(heads=heads, tokens=self._shape.tokens, latent_rows=self._shape.latent[2])
        return group

    @torch.no_grad()
    def generate(self, chunk: AudioChunk, frames: FrameWriter) -> None:
        """Write the chunk's frames, each group as soon as it has left the decoder; see `Generator.generate`.

        After a discontinuity the picture goes on from where it was, and silence stands for the sound that is missing.
        """
        if self._models is None or self._stream is None or self._speech is None or self._host is None:
            raise GeneratorError("FlashTalk was asked for frames before it had a portrait.")
        assert self._noise is not None
        stages = self._stages
        stages.begin()
        self._hear(chunk, self._speech)
        slices, steps = self._listen(self._models, self._speech, chunk.economy)
        conditions = self._models.dit.chunk_conditions(*slices)
        stages.mark(AUDIO)
        latents = self._stream.chunk_latents(conditions, steps)
        number = chunk.first_frame
        looks: list[Look] = []
        shown: np.ndarray | None = None
        for image, look in self._host.of(self._stream.frames(latents)):
            looks.append(look)
            if image is None:
                continue
            # Numbers that are none would be shown as noise; the last good picture stands in for them.
            shown = image if look.is_finite else self._good
            np.copyto(frames.next_image(), shown)
            frames.commit(number)
            stages.frame()
            number += 1
        if shown is not None:
            self._good = shown.copy()
        stages.end()
        self._noise.chunk += 1
        self.step_counts.chunks[steps] += 1
        self._watch(looks)

    def _listen(self, models: Models, speech: SpeechBuffer, economy: int) -> tuple[tuple[Tensor, Tensor], int]:
        """What the chunk's latent frames hear, and in how many steps they are made: both are rank 0's to say. Encoding
        takes the others as long as waiting, and what a sum is to the last bit may differ between machines."""
        config, counts = models.dit.config, self._options.step_counts
        form = (speech.row_count(self._shape), config.audio_blocks, config.audio_channels)
        rows = torch.empty(form, device=models.device)
        most = counts[min(economy, len(counts) - 1)]
        if self._chooser is None:
            (rows,) = self._group.share(0, lambda: (speech.rows().contiguous(),), (rows,))
            return speech.slices_of(rows), most
        chosen = self._chooser.choose(speech.newest(self._shape.chunk_samples + SAMPLE_RATE_HZ // self._shape.fps))
        if self._group.size > 1:
            like = (rows, torch.empty(1, dtype=torch.int64, device=models.device))
            rows, told = self._group.share(0, lambda: (speech.rows().contiguous(), like[1].fill_(chosen)), like)
            chosen = int(told.item())
        else:
            rows = speech.rows()
        return speech.slices_of(rows), min(most, chosen)

    def _hear(self, chunk: AudioChunk, speech: SpeechBuffer) -> None:
        if self._next_sample is not None and chunk.first_sample > self._next_sample:
            speech.skip(chunk.first_sample - self._next_sample)
        speech.push(chunk.samples)
        self._next_sample = chunk.first_sample + len(chunk.samples)

    def _watch(self, looks: list[Look]) -> None:
        """Begin anew from the portrait when a whole chunk was out of bounds, or any of it was no numbers.

        A collapse that lasts is tried again with every chunk and told once.
        """
        if not self._is_watched:
            return
        assert self._look is not None and self._stream is not None
        reasons = [collapse_of(look, self._look) for look in looks]
        broken = [reason for reason, look in zip(reasons, looks, strict=True) if not look.is_finite]
        was_collapsed, self._is_collapsed = self._is_collapsed, bool(broken) or all(reasons)
        if not self._is_collapsed:
            return
        self._stream.reset()
        self._recoveries += 1
        reason = (broken or reasons)[-1]
        logger.warning("the picture is begun anew from the portrait (%d so far): %s", self._recoveries, reason)
        if was_collapsed:
            return
        message = f"The picture had collapsed ({reason}) and was begun anew from the portrait."
        self._notices.append(Notice(code="flashtalk.recovered", message=message))

    def take_notices(self) -> list[Notice]:
        """What happened while generating, since the last call."""
        notices, self._notices = self._notices, []
        return notices

    def reset(self) -> None:
        """Begin again from the portrait, in silence, with the first noise of the seed."""
        if self._stream is None or self._speech is None or self._noise is None:
            return
        self._stream.reset()
        self._speech.clear()
        if self._chooser is not None:
            self._chooser.reset()
        self._noise.chunk = 0
        self._next_sample = None
        self._good = self._picture
        self._recoveries = 0
        self._is_collapsed = False
        self._notices = []

    def close(self) -> None:
        """Let go of the models; the last stream that does frees them. Safe to call twice."""
        if self._chooser is not None and self._models is not None:
            logger.info("steps: %s", self.step_counts)
        on_gpu = self._models is not None and self._models.device.type == "cuda"
        self._models = self._stream = self._speech = self._noise = self._host = None
        self._stages = NOT_MEASURED
        if on_gpu:
            torch.cuda.empty_cache()


def _slow_notice() -> Notice:
    return Notice(
        code="flashtalk.cpu",
        message="FlashTalk runs on the CPU here, far slower than real time.",
        hint="An NVIDIA GPU makes it usable; the puppet runs anywhere.",
    )


def _refused_notices(models: Models, graph: str) -> list[Notice]:
    """What was asked for and works here in its plain form only."""
    notices = []
    if models.kernels.refused:
        names = ", ".join(models.kernels.refused)
        reasons = "; ".join(f"{name}: {reason}" for name, reason in models.kernels.refused.items())
        message = f"Some fused kernels do not agree with their plain forms on this GPU and are not used: {names}."
        notices.append(Notice(code="flashtalk.kernels", message=message, hint=f"It works without them. {reasons}"))
    if graph:
        message = f"No CUDA graph is used for {graph}."
        notices.append(Notice(code="flashtalk.graphs", message=message, hint="It works without one."))
    return notices
