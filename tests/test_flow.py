"""The flow: with a perfect velocity everything is exact, and a small network learns to make two peaks in one step."""

import pytest
import torch
from torch import Tensor, nn

from michiai.speak_michiai import SpeakHead, flow_map, flow_matching_loss, sample, self_distillation_loss

from helpers import tiny_config


def to_point(data: Tensor):
    """The exact flow map when all data is one point: from (x, s), straight to the point at time 1."""

    def velocity(x: Tensor, start: Tensor, end: Tensor) -> Tensor:
        return (data - x) / (1 - start).clamp(min=1e-6)

    return velocity


@pytest.mark.parametrize("steps", [1, 2, 7, 16])
def test_the_oracle_reaches_the_data_in_any_number_of_steps(steps: int) -> None:
    data = torch.randn(5, 4)
    assert torch.allclose(sample(to_point(data), torch.randn(5, 4), steps), data, atol=1e-5)


def test_time_runs_from_noise_at_0_to_data_at_1() -> None:
    seen = []

    def velocity(x: Tensor, start: Tensor, end: Tensor) -> Tensor:
        seen.append((float(start[0]), float(end[0])))
        return torch.ones_like(x)

    noise = torch.randn(2, 3)
    kept = noise.clone()
    assert torch.allclose(sample(velocity, noise, 4), noise + 1)  # the jumps add up to one unit of time
    assert seen == [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)]
    assert torch.equal(noise, kept)


def gaussian(mean: float, deviation: float):
    """The exact flow map from N(0, 1) to N(mean, deviation^2): X = t mean + (x - s mean) g(t) / g(s)."""

    def velocity(x: Tensor, start: Tensor, end: Tensor) -> Tensor:
        before, after = ((((1 - t) ** 2 + (t * deviation) ** 2).sqrt()) for t in (start, end))
        slope = (end * deviation**2 - (1 - end)) / after
        centred = x - start * mean
        jump = torch.where(end > start, end - start, 1.0)
        far = (end * mean + centred * after / before - x) / jump
        return torch.where(end > start, far, mean + centred * slope / before)

    return velocity


def test_the_losses_of_the_oracle_are_zero() -> None:
    torch.manual_seed(0)
    point = torch.randn(4).expand(50, 4)
    assert flow_matching_loss(to_point(point), point).max() < 1e-6
    spread = 2 + 0.5 * torch.randn(500, 4)
    assert self_distillation_loss(gaussian(2.0, 0.5), spread).max() < 1e-3  # rounding, near equal times
    made = sample(gaussian(2.0, 0.5), torch.randn(9000, 1), 1)
    assert abs(float(made.mean()) - 2) < 0.03 and abs(float(made.std()) - 0.5) < 0.02


def test_a_wrong_direction_of_time_costs() -> None:
    data = torch.randn(4).expand(50, 4)
    assert flow_matching_loss(lambda x, s, t: -to_point(data)(x, s, t), data).mean() > 1


def test_self_distillation_sees_jumps_that_disagree_with_the_velocity() -> None:
    """A map that is right on the diagonal and wrong off it has the flow matching loss of the right one, and a distillation loss."""
    data = 2 + 0.5 * torch.randn(500, 4)

    def velocity(x: Tensor, start: Tensor, end: Tensor) -> Tensor:
        return gaussian(2.0, 0.5)(x, start, end) * (1 + (end - start))

    assert self_distillation_loss(velocity, data).mean() > 0.1


def test_self_distillation_teaches_the_jump_not_the_teacher() -> None:
    """The velocity at the point reached is a target: no gradient flows into it."""
    scale = torch.ones((), requires_grad=True)
    data = torch.randn(3).expand(20, 3)

    def velocity(x: Tensor, start: Tensor, end: Tensor) -> Tensor:
        teacher = (start == end).all()
        return to_point(data)(x, start, end) * (scale if teacher else 1.0)

    loss = self_distillation_loss(velocity, data).sum()
    assert not loss.requires_grad or torch.autograd.grad(loss, scale, allow_unused=True)[0] in (None, 0)


def test_sampling_is_seeded_and_steps_are_checked() -> None:
    head = SpeakHead(tiny_config())
    hidden = torch.randn(2, 3, 32)
    noise = [torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(head(hidden, noise[0], 2), head(hidden, noise[1], 2))
    assert not torch.equal(head(hidden, noise[0], 1), head(hidden, noise[0], 3))
    assert torch.equal(
        flow_map(head.velocity(hidden), noise[0], torch.ones(2, 3, 1), torch.ones(2, 3, 1)), noise[0]
    )
    with pytest.raises(ValueError, match="steps is 0; expected 1 or more"):
        head(hidden, noise[0], 0)


class Toy(nn.Module):
    """A velocity net over one number."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layers = [
            nn.Linear(3, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
        ]
        self.net = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, x: Tensor, start: Tensor, end: Tensor) -> Tensor:
        return self.net(torch.cat([x, start, end], dim=-1))


def test_one_step_learns_two_peaks() -> None:
    """Data at -1 and +1, three quarters of it at +1: one evaluation gives both peaks, about in proportion, and little between."""
    torch.manual_seed(0)
    toy = Toy()
    optimizer = torch.optim.Adam(toy.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 600)
    for _ in range(600):
        data = (torch.rand(256, 1) < 0.75).float() * 2 - 1 + 0.05 * torch.randn(256, 1)
        loss = 0.75 * flow_matching_loss(toy, data).mean() + 0.25 * self_distillation_loss(toy, data).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(toy.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        for steps, between in ((1, 0.2), (16, 0.05)):
            made = sample(toy, torch.randn(4000, 1), steps)
            assert abs(float((made > 0).float().mean()) - 0.75) < 0.1
            assert float((made.abs() < 0.5).float().mean()) < between
            assert float(made[made > 0].median()) == pytest.approx(1, abs=0.15)
