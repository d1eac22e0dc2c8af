"""`standin bench`: the report's shape, whatever a generator's chunks are like."""

from __future__ import annotations

import argparse
import json

import cv2
import pytest
from PIL import Image

from engine.commands import bench
from engine.errors import UsageError
from engine.generators.base import GeneratorSpec
from engine.media import ChunkSpec


@pytest.fixture
def benched(grey_generator, tmp_path, monkeypatch, capsys):
    """(printed text, the generators) of a run with chunks of so many frames."""
    Image.new("RGB", (96, 128), "grey").save(tmp_path / "p.png")
    threads = cv2.getNumThreads()

    def run(frames, chunk_frames=1, as_json=True):
        made = []

        class Counting(grey_generator):
            def __init__(self, name, *, seed, fps):
                super().__init__(name, seed=seed, fps=fps, options={})
                self.spec = GeneratorSpec(
                    name=name, width=64, height=64, chunk=ChunkSpec(fps=fps, frames=chunk_frames, lookahead_samples=100)
                )
                self.chunks, self.closed = [], 0
                made.append(self)

            def generate(self, chunk, frames):
                self.chunks.append(chunk)

            def close(self):
                self.closed += 1

        monkeypatch.setattr("engine.tuning.frame_costs.create_generator", Counting)
        portrait = str(tmp_path / "p.png")
        arguments = argparse.Namespace(
            generator="puppet", frames=frames, portrait=portrait, json=as_json, recommend=False
        )
        assert bench.run(arguments) == 0
        return capsys.readouterr().out, made

    yield run
    cv2.setNumThreads(threads)


def test_every_stage_has_its_figures(benched):
    out, generators = benched(4)
    report = json.loads(out)
    assert report["frames"] == 4 and report["machine"]["cores"] >= 1
    figures = report["figures_ms"]
    stages = {"puppet 512x512", "puppet 720x720", "puppet 1280x720", "canvas 1280x720", "hand-over to one sink"}
    assert stages <= set(figures)
    for stage in stages:
        assert (
            set(figures[stage]) == {"cpu", "wall", "wall_p95"} and figures[stage]["wall_p95"] >= figures[stage]["wall"]
        )
    assert [g.closed for g in generators] == [1, 1, 1]


def test_chunks_follow_and_are_full_however_long(benched):
    """A chunk of a second and more outlasts the sample speech soon: it is heard again from the start."""
    _, (generator, *_) = benched(30, chunk_frames=28)
    assert [c.first_frame for c in generator.chunks] == [28 * n for n in range(55)]
    assert {len(c.samples) for c in generator.chunks} == {28 * 640 + 100}
    assert all(c.samples.any() for c in generator.chunks[1:])


def test_table_for_people(benched):
    out, _ = benched(2, as_json=False)
    lines = out.splitlines()
    assert "cores" in lines[0] and "CPU ms" in lines[1] and any(line.startswith("puppet 512x512") for line in lines)


@pytest.mark.parametrize("frames", [0, -5])
def test_nothing_to_measure(benched, frames):
    with pytest.raises(UsageError):
        benched(frames)
