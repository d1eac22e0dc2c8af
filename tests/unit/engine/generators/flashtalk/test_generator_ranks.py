"""What several ranks of one generator decide together, where each alone would decide otherwise."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk import feature_cache, generator  # noqa: E402
from engine.generators.flashtalk.stream import FlashTalkStream  # noqa: E402
from engine.media import Portrait  # noqa: E402
from engine.parallel.launch import RankGroup  # noqa: E402

pytestmark = pytest.mark.ranks


class _Quiet:
    def update(self, stage, done, total, unit=""):
        """Nobody looks."""


def prepare(world, options, folder, streamed):
    """On each rank, how many blocks it streams, and whether it has begun to record, when it has room for all but
    `streamed[rank]` blocks."""
    made = generator.FlashTalkGenerator(group=RankGroup(world), device="cpu", **options)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)
    recorded = []
    with (
        patch.object(feature_cache, "cache_folder", lambda: Path(folder)),
        patch.object(generator, "streamed_blocks", lambda *_: streamed[world.rank()]),
        patch.object(generator, "wants_graphs", lambda *_: True),
        patch.object(generator.FlashTalkGenerator, "_recorder", lambda *_: None),
        patch.object(FlashTalkStream, "record", lambda *_: recorded.append(True) or ""),
    ):
        made.prepare(Portrait(image=pixels, name="", path="", digest="d"), (1, 1), _Quiet())
    blocks = 0 if made.models.streamer is None else len(made.models.streamer._ring._sources)
    made.close()
    return blocks, bool(recorded)


@pytest.mark.parametrize(
    ("streamed", "wanted"),
    [((1, 0), (1, False)), ((0, 2), (2, False)), ((0, 0), (0, True))],
    ids=str,
)
def test_ranks_go_by_the_one_with_the_least_room(streamed, wanted, tiny_checkpoint, tmp_path, rank_pools):
    """A desktop takes memory of the first GPU alone; a rank that recorded without the others would wait for them."""
    model, speech = map(str, tiny_checkpoint)
    options = {"checkpoint": model, "speech_encoder": speech, "size": "80x16", "graphs": "on"}
    arguments = {"options": options, "folder": str(tmp_path), "streamed": streamed}
    assert rank_pools(2).run(Path(__file__), "prepare", arguments) == [wanted, wanted]
