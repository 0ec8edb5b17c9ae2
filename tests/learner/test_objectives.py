import math

import pytest
import torch

from learner.objectives import clipped_surrogate


def test_hand_worked_numbers():
    # ratio 1.1, clip 0.05: a gain is cut off at 1.05, a loss is not
    behaviour, new = torch.zeros(4), torch.log(torch.tensor([1.1, 1.1, 0.9, 0.9]))
    terms = clipped_surrogate(new, behaviour, torch.tensor([2.0, -2.0, 2.0, -2.0]), clip_range=0.05)
    torch.testing.assert_close(terms.loss, torch.tensor([-2.10, 2.20, -1.80, 1.90]))
    assert terms.clipped.tolist() == [1, 1, 1, 1]


def test_at_ratio_one_its_gradient_is_that_of_reinforce():
    new = torch.randn(6, dtype=torch.float64, requires_grad=True)
    advantages = torch.randn(6, dtype=torch.float64)
    clipped_surrogate(new, new.detach().clone(), advantages, 1e-4).loss.mean().backward()
    torch.testing.assert_close(new.grad, -advantages / 6)


def test_its_gradient_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(1)
    behaviour = torch.randn(8, dtype=torch.float64, generator=generator)
    new = behaviour + 0.1 * torch.randn(8, dtype=torch.float64, generator=generator)
    advantages = torch.randn(8, dtype=torch.float64, generator=generator)
    new.requires_grad_(True)

    def loss(at: torch.Tensor) -> torch.Tensor:
        return clipped_surrogate(at, behaviour, advantages, 0.05).loss.sum()

    assert torch.autograd.gradcheck(loss, (new,))


def test_clipping_stops_the_gradient_only_where_it_would_lead_further_out():
    new = torch.tensor([0.2, 0.2, -0.2, -0.2], requires_grad=True)
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    clipped_surrogate(new, torch.zeros(4), advantages, 0.1).loss.sum().backward()
    expected = [0.0, math.exp(0.2), -math.exp(-0.2), 0.0]
    assert new.grad is not None
    assert new.grad.tolist() == pytest.approx(expected)
