import math

import pytest
import torch
from diffusers import DDIMScheduler

from actors.ddim import original_and_noise, sample_step, step_gaussian, step_log_prob
from actors.schedule import ddim_schedule


def diffusers_scheduler(prediction: str, **changes: object) -> DDIMScheduler:
    settings = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "prediction_type": prediction,
    }
    return DDIMScheduler(**{**settings, **changes})


def our_schedule(scheduler: DDIMScheduler, num_steps: int, eta: float):
    scheduler.set_timesteps(num_steps)
    return ddim_schedule(scheduler.alphas_cumprod, scheduler.timesteps, float(scheduler.final_alpha_cumprod), eta)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("spacing", [{}, {"timestep_spacing": "trailing"}, {"set_alpha_to_one": True}])
def test_a_step_is_that_of_diffusers_given_the_same_noise(prediction, eta, spacing):
    scheduler = diffusers_scheduler(prediction, **spacing)
    schedule = our_schedule(scheduler, 50, eta)
    generator = torch.Generator().manual_seed(0)
    for step in range(50):
        latents, output, noise = (torch.randn(3, 4, 8, 8, generator=generator) for _ in range(3))
        theirs = scheduler.step(output, scheduler.timesteps[step], latents, eta=eta, variance_noise=noise)
        mean, std = step_gaussian(schedule, torch.full((3,), step), latents, output, prediction)
        ours = sample_step(mean, std, noise, torch.float32)
        # `sample` divides by the noise level (0.03 in the last step), and so multiplies rounding by 30
        tolerance = 2e-5 if prediction == "sample" else 2e-6
        torch.testing.assert_close(ours, theirs.prev_sample, atol=tolerance, rtol=tolerance)


def test_a_batch_may_mix_denoising_steps():
    schedule = our_schedule(diffusers_scheduler("epsilon"), 10, 1.0)
    latents, output = torch.randn(4, 4, 8, 8), torch.randn(4, 4, 8, 8)
    steps = torch.tensor([7, 0, 9, 3])
    mean, std = step_gaussian(schedule, steps, latents, output, "epsilon")
    for row, step in enumerate(steps):
        alone = slice(row, row + 1)
        one, one_std = step_gaussian(schedule, step.view(1), latents[alone], output[alone], "epsilon")
        torch.testing.assert_close(mean[alone], one)
        torch.testing.assert_close(std[alone], one_std)


def test_the_log_prob_is_the_mean_of_torchs_normal():
    mean, noise = torch.randn(5, 4, 8, 8), torch.randn(5, 4, 8, 8)
    std = torch.rand(5, 1, 1, 1) + 0.05
    drawn = mean + std * noise
    expected = torch.distributions.Normal(mean, std).log_prob(drawn).mean((1, 2, 3))
    torch.testing.assert_close(step_log_prob(drawn, mean, std), expected, atol=1e-6, rtol=1e-6)


def test_the_log_prob_is_taken_of_what_is_stored():
    mean, std, noise = torch.zeros(1, 4, 8, 8), torch.full((1, 1, 1, 1), 0.01), torch.randn(1, 4, 8, 8)
    stored = sample_step(mean, std, noise, torch.float16)
    assert stored.dtype == torch.float16
    exact = torch.distributions.Normal(mean.double(), std.double()).log_prob(stored.double()).mean()
    assert step_log_prob(stored, mean, std).item() == pytest.approx(exact.item(), abs=1e-6)


def test_the_last_step_with_an_offset_still_has_noise_and_without_one_has_none():
    with_offset = our_schedule(diffusers_scheduler("epsilon"), 50, 1.0)
    without = our_schedule(diffusers_scheduler("epsilon", steps_offset=0), 50, 1.0)
    assert with_offset.stochastic.all()
    assert without.sigmas[-1] == 0
    assert without.stochastic.tolist() == [True] * 49 + [False]


def test_all_prediction_types_agree_on_what_they_imply():
    original, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    alpha = torch.tensor([0.3, 0.9]).view(-1, 1, 1, 1)
    latents = alpha.sqrt() * original + (1 - alpha).sqrt() * noise
    outputs = {
        "epsilon": noise,
        "sample": original,
        "v_prediction": alpha.sqrt() * noise - (1 - alpha).sqrt() * original,
    }
    for prediction, output in outputs.items():
        found_original, found_noise = original_and_noise(latents, output, alpha, prediction)
        torch.testing.assert_close(found_original, original, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found_noise, noise, atol=1e-5, rtol=1e-5)


def test_sigma_is_the_posterior_deviation_of_ddpm_at_eta_one():
    schedule = our_schedule(diffusers_scheduler("epsilon", steps_offset=0), 1000, 1.0)
    alphas = diffusers_scheduler("epsilon").alphas_cumprod.double()
    t = 500
    beta = 1 - alphas[t] / alphas[t - 1]
    posterior = math.sqrt((1 - alphas[t - 1]) / (1 - alphas[t]) * beta)
    place = schedule.timesteps.tolist().index(t)
    assert schedule.sigmas[place].item() == pytest.approx(posterior, rel=1e-4)
