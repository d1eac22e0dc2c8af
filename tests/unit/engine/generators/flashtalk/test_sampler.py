"""The schedule against its published values, and the loop against a naive one."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk.sampler import Schedules, denoise, timesteps  # noqa: E402

SHAPE = (2, 4, 3, 3)


def _normal(seed: int, shape=SHAPE):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _velocity(latents, step):
    """Some function of everything, so that no order of operations can be exchanged unseen."""
    return torch.tanh(latents * (1 + 0.3 * step)) + latents.mean() * 0.5 - 0.1 * step


class _Noise:
    """Remembers which draws were asked for."""

    def __init__(self) -> None:
        self.draws = [_normal(100 + draw) for draw in range(6)]
        self.asked: list[int] = []

    def __call__(self, draw: int):
        self.asked.append(draw)
        return self.draws[draw]


def _naive(velocity, draws, motion, schedule):
    """Specification 7.2, word for word, the useless last draw included."""
    m = motion.shape[1]
    latent = draws[0].clone()
    latent[:, :m] = motion
    for i in range(len(schedule) - 1):
        tau, following = schedule[i] / 1000, schedule[i + 1] / 1000
        v = velocity(latent, i)
        x0 = latent - v * tau
        latent = (1 - following) * x0 + following * draws[i + 1]
        latent[:, :m] = motion
    return latent


def test_the_published_schedule():
    assert timesteps(4).tolist() == pytest.approx([1000, 937.5, 833.33331, 625, 0], rel=1e-7)
    assert timesteps(2).tolist() == pytest.approx([1000, 5 * 0.5 / (1 + 4 * 0.5) * 1000, 0], rel=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_any_schedule_falls_from_1000_to_0(steps, shift):
    schedule = timesteps(steps, shift)
    assert schedule.dtype == torch.float32 and len(schedule) == steps + 1
    assert schedule[0] == 1000 and schedule[-1] == 0 and (schedule.diff() < 0).all()


def test_three_steps_are_spread_evenly_and_shifted():
    wanted = [1000.0]
    wanted += [1000 * 5 * u / (1 + 4 * u) for u in (0.5005, 0.001)]
    assert timesteps(3).tolist() == pytest.approx([*wanted, 0.0], rel=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@pytest.mark.parametrize("m", [1, 2, 4])
def test_the_loop_is_the_naive_one(steps, m):
    noise, motion, schedule = _Noise(), _normal(7, (2, m, 3, 3)), timesteps(steps).double()
    got = denoise(_velocity, noise, motion, schedule)
    wanted = _naive(_velocity, noise.draws, motion, schedule)
    assert (got - wanted).abs().max() < 1e-12 * wanted.abs().max()


def test_the_last_draw_is_not_made():
    noise = _Noise()
    denoise(_velocity, noise, _normal(7, (2, 1, 3, 3)), timesteps(4))
    assert noise.asked == [0, 1, 2, 3]


def test_every_step_sees_the_motion_and_so_does_the_result():
    motion, seen = _normal(7, (2, 2, 3, 3)), []

    def velocity(latents, step):
        seen.append((step, latents[:, :2].clone()))
        return _velocity(latents, step)

    got = denoise(velocity, _Noise(), motion, timesteps(4))
    assert [step for step, _ in seen] == [0, 1, 2, 3]
    assert all(torch.equal(latents, motion) for _, latents in seen) and torch.equal(got[:, :2], motion)


def test_nothing_that_is_handed_in_is_changed():
    noise, motion, schedule = _Noise(), _normal(7, (2, 1, 3, 3)), timesteps(4)
    kept = [noise.draws[n].clone() for n in range(6)], motion.clone(), schedule.clone()
    velocities = []

    def velocity(latents, step):
        velocities.append((value := _velocity(latents, step), value.clone()))
        return value

    got = denoise(velocity, noise, motion, schedule)
    got.zero_()
    assert all(torch.equal(a, b) for a, b in zip(noise.draws, kept[0], strict=True))
    assert torch.equal(motion, kept[1]) and torch.equal(schedule, kept[2])
    assert all(torch.equal(a, b) for a, b in velocities)


def test_fresh_noise_is_used_at_every_step():
    motion = _normal(7, (2, 1, 3, 3))
    base = denoise(_velocity, _Noise(), motion, timesteps(4))
    for draw in range(4):
        noise = _Noise()
        noise.draws[draw] = noise.draws[draw] + 0.1
        assert (denoise(_velocity, noise, motion, timesteps(4)) - base).abs().max() > 1e-6, draw


def test_schedules_share_one_table_without_repetition():
    schedules = Schedules((4, 3, 2))
    assert schedules.first is schedules[4] and schedules[4].rows == (0, 1, 2, 3)
    assert len(set(schedules.table.tolist())) == len(schedules.table) == 6
    for steps in (4, 3, 2):
        schedule = schedules[steps]
        assert schedule.steps == steps and torch.equal(schedule.timesteps, timesteps(steps))
        assert torch.equal(schedules.table[list(schedule.rows)], timesteps(steps)[:-1])
    with pytest.raises(KeyError):
        Schedules((4,))[3]
