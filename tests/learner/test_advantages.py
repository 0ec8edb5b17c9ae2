import pytest
import torch

from learner.advantages import PromptStatistics, whiten


def test_whitening_gives_mean_zero_and_deviation_one():
    white = whiten(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    torch.testing.assert_close(white, torch.tensor([-2.0, -1.0, 0.0, 3.0]) / 3.5**0.5, atol=1e-5, rtol=1e-5)


def test_a_constant_reward_gives_no_advantage():
    assert whiten(torch.full((4,), 2.5)).tolist() == [0.0] * 4


def test_a_prompt_with_few_rewards_uses_the_rounds_statistics():
    rewards = torch.tensor([1.0, 3.0, 10.0, 20.0])
    advantages = PromptStatistics(8, min_count=3).advantages(["a", "a", "b", "c"], rewards)
    torch.testing.assert_close(advantages, whiten(rewards.double()).float())


def test_a_prompts_own_statistics_hand_worked():
    statistics = PromptStatistics(4, min_count=2)
    advantages = statistics.advantages(["a", "a", "b", "b"], torch.tensor([1.0, 3.0, 10.0, 20.0]))
    torch.testing.assert_close(advantages, torch.tensor([-1.0, 1.0, -1.0, 1.0]), atol=1e-4, rtol=1e-4)
    # a: buffer 1, 3, 5 -> mean 3, deviation sqrt(8/3)
    later = statistics.advantages(["a"], torch.tensor([5.0]))
    assert later.item() == pytest.approx(2 / (8 / 3) ** 0.5, rel=1e-4)


def test_the_buffer_forgets_the_oldest():
    statistics = PromptStatistics(2, min_count=1)
    statistics.advantages(["a", "a", "a"], torch.tensor([1.0, 2.0, 3.0]))
    assert list(statistics.rewards["a"]) == [2.0, 3.0]


def test_a_reward_that_is_not_finite_never_enters_the_buffer():
    statistics = PromptStatistics(2, min_count=1)
    with pytest.raises(ValueError, match="not finite"):
        statistics.advantages(["a", "b"], torch.tensor([1.0, float("nan")]))
    assert statistics.rewards == {}


def test_restored_statistics_go_on_as_if_never_saved():
    one, other = PromptStatistics(4, 2), PromptStatistics(4, 2)
    one.advantages(["a"] * 5, torch.arange(5.0))
    other.restore({prompt: list(rewards) for prompt, rewards in one.rewards.items()})
    nxt = (["a", "b"], torch.tensor([7.0, 8.0]))
    assert torch.equal(one.advantages(*nxt), other.advantages(*nxt))
