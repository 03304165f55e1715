"""The sampler against distributions whose probability flow has a closed form, and its independence
of the batch."""

import numpy as np
import pytest
import torch

from trainables.config.data import Digits
from trainables.config.diffusion import EDM, VE, VP, Flow
from trainables.config.measurement import Measurement
from trainables.config.network import DDPMpp, Optimum
from trainables.config.training import StandardTrainer
from trainables.config.trial import Configuration
from trainables.data.images import subset_order
from trainables.data.sources import load
from trainables.diffusion.denoiser import Denoiser, build_denoiser
from trainables.diffusion.sampling import (
    SAMPLERS,
    draw_latents,
    euler,
    from_uint8,
    heun,
    karras_sigmas,
    sample,
    to_uint8,
)
from trainables.measure.neighbours import nearest_two

CPU = torch.device("cpu")


# ---------------------------------------------------------------- pixels


def test_uint8_and_back():
    values = torch.arange(256).to(torch.uint8)
    assert torch.equal(to_uint8(from_uint8(values)), values)
    assert torch.equal(to_uint8(from_uint8(values).double()), values)
    assert (from_uint8(values)[0], from_uint8(values)[-1]) == (-1, 1)
    assert from_uint8(values).dtype == torch.float32


def test_uint8_rounds_to_nearest_and_clips():
    step = 1 / 127.5
    x = torch.tensor(
        [
            -9.0,
            -1 - 1e-6,
            -1 + 0.49 * step,
            -1 + 0.51 * step,
            1 - 0.51 * step,
            1 - 0.49 * step,
            1.2,
            1e9,
        ]
    )
    assert to_uint8(x).tolist() == [0, 0, 0, 1, 254, 255, 255, 255]


# ---------------------------------------------------------------- noise levels


def test_karras_sigmas():
    sigmas = karras_sigmas(18, 0.002, 80, 7)
    assert sigmas.dtype == torch.float64
    assert len(sigmas) == 19
    assert float(sigmas[0]) == pytest.approx(80)
    assert float(sigmas[-2]) == pytest.approx(0.002)
    assert float(sigmas[-1]) == 0
    roots = sigmas[:-1] ** (1 / 7)
    torch.testing.assert_close(roots.diff(), roots.diff()[:1].expand(17), rtol=1e-9, atol=0)
    assert float(sigmas[1]) == pytest.approx(57.586, abs=1e-3)
    assert karras_sigmas(3, 1, 5, 1).tolist() == pytest.approx([5, 3, 1, 0])


# ---------------------------------------------------------------- the sampler on a normal
# distribution

MEAN, S = 0.3, 0.5


def gaussian(x, sigma):
    """The exact denoiser of pixels that are normal with mean MEAN and standard deviation S."""
    assert x.dtype == torch.float64
    return MEAN + (x - MEAN) * (S**2 / (S**2 + sigma.reshape(-1, 1, 1, 1) ** 2))


def flow(latents, sigma_max):
    """Where the probability flow ends: x₀ = m + (x_T − m)·s/√(s² + σ_T²)."""
    return MEAN + (latents * sigma_max - MEAN) * S / np.hypot(S, sigma_max)


def error(steps, sigma_min=1e-4, solve=heun):
    latents = draw_latents(range(50), (1, 2, 2), CPU)
    return float(
        (solve(gaussian, latents, karras_sigmas(steps, sigma_min, 80, 7)) - flow(latents, 80))
        .abs()
        .max()
    )


def test_heun_follows_the_probability_flow():
    assert error(40) < 0.02
    assert error(200) < 1e-3


def test_heun_is_of_second_order():
    errors = [error(steps) for steps in (40, 80, 160)]
    orders = np.log2([errors[0] / errors[1], errors[1] / errors[2]])
    assert orders == pytest.approx([2, 2], abs=0.35)


def test_euler_is_of_first_order():
    errors = [error(steps, solve=euler) for steps in (80, 160, 320)]
    orders = np.log2([errors[0] / errors[1], errors[1] / errors[2]])
    assert orders == pytest.approx([1, 1], abs=0.2)


def test_euler_calls():
    """One per step, none at σ = 0, on falling levels."""
    levels = []

    def denoise(x, sigma):
        levels.append(float(sigma[0]))
        return gaussian(x, sigma)

    euler(denoise, draw_latents(range(3), (1, 2, 2), CPU), karras_sigmas(18, 0.002, 80, 7))
    assert levels == pytest.approx(karras_sigmas(18, 0.002, 80, 7)[:-1].tolist())
    assert Measurement(sampler="euler").network_calls == len(levels)
    assert Measurement().network_calls == 35


class GaussianNetwork(torch.nn.Module):
    """What a network that has learned the normal distribution perfectly would say under each law: F
    of its definition."""

    def __init__(self, law):
        super().__init__()
        self.law = law

    def forward(self, scaled, noise_level, labels):
        scaled, c = scaled.double(), noise_level.double().reshape(-1, 1, 1, 1)
        kind = self.law.kind
        if kind == "edm":
            sigma = torch.exp(4 * c)
            x = scaled * (sigma**2 + 0.25).sqrt()
            return (
                (gaussian(x, sigma) - 0.25 / (0.25 + sigma**2) * x)
                * (sigma**2 + 0.25).sqrt()
                / (0.5 * sigma)
            )
        if kind == "vp":
            sigma = self.law.sigma_at(c / 999)
            x = scaled * (1 + sigma**2).sqrt()
            return (x - gaussian(x, sigma)) / sigma  # the noise
        if kind == "ve":
            sigma = 2 * c.exp()
            return (gaussian(scaled, sigma) - scaled) / sigma
        t = (
            c / 1000
        )  # flow: the mean of ε − x_0 given x_t = (1 − t) x_0 + t ε, for jointly normal x_0 and ε
        covariance = (t - (1 - t) * S**2) / ((1 - t) ** 2 * S**2 + t**2)
        return -MEAN + covariance * (scaled - (1 - t) * MEAN)


@pytest.mark.parametrize("law", [EDM(), VP(), VE(), Flow()], ids=lambda law: law.kind)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_law_and_sampler_recovers_a_normal_distribution(law, sampler):
    denoiser, latents = (
        Denoiser(GaussianNetwork(law), law),
        draw_latents(range(1000), (1, 2, 2), CPU),
    )
    out = SAMPLERS[sampler](denoiser, latents, karras_sigmas(100, 0.002, 80, 7))
    tolerance = {"heun": 5e-3, "euler": 0.08}[sampler]  # of the solver, at 100 steps
    assert float((out - flow(latents, 80)).abs().max()) < tolerance
    out = out.flatten(1).numpy()
    np.testing.assert_allclose(out.mean(0), MEAN, atol=0.01 + 4 * S / np.sqrt(1000))
    np.testing.assert_allclose(
        np.cov(out.T), S**2 * np.eye(4), atol=0.01 + 4 * S**2 * np.sqrt(2 / 1000)
    )


def test_heun_gives_the_distribution():
    out = (
        heun(gaussian, draw_latents(range(2000), (1, 2, 2), CPU), karras_sigmas(60, 0.002, 80, 7))
        .flatten(1)
        .numpy()
    )
    np.testing.assert_allclose(out.mean(0), MEAN, atol=4 * S / np.sqrt(2000))
    np.testing.assert_allclose(np.cov(out.T), S**2 * np.eye(4), atol=4 * S**2 * np.sqrt(2 / 2000))


def test_heun_calls():
    """2·steps − 1 network calls, none at σ = 0, on falling levels."""
    levels = []

    def denoise(x, sigma):
        assert sigma.shape == (3,)
        levels.append(float(sigma[0]))
        return gaussian(x, sigma)

    heun(denoise, draw_latents(range(3), (1, 2, 2), CPU), karras_sigmas(18, 0.002, 80, 7))
    assert len(levels) == 35
    assert min(levels) == pytest.approx(0.002)
    assert levels == sorted(levels, reverse=True)


def test_a_denoiser_in_float32_will_do():
    latents, sigmas = draw_latents(range(20), (1, 2, 2), CPU), karras_sigmas(18, 0.002, 80, 7)
    rough = heun(lambda x, sigma: gaussian(x, sigma).float(), latents, sigmas)
    assert rough.dtype == torch.float64
    torch.testing.assert_close(rough, heun(gaussian, latents, sigmas), rtol=0, atol=1e-4)


# ---------------------------------------------------------------- latents and batches


def test_latents_belong_to_their_seeds():
    latents = draw_latents([5, 1, 2**62, 5], (2, 3, 3), CPU)
    assert latents.dtype == torch.float64
    assert torch.equal(latents[0], latents[3])
    assert torch.equal(draw_latents([1], (2, 3, 3), CPU)[0], latents[1])
    assert not torch.equal(latents[0], latents[1])
    many = draw_latents(range(3000), (1, 2, 2), CPU)
    assert float(many.mean()) == pytest.approx(0, abs=0.04)
    assert float(many.std()) == pytest.approx(1, abs=0.03)


def test_latents_leave_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    draw_latents([1, 2], (1, 2, 2), CPU)
    assert torch.equal(torch.rand(1), expected)


@pytest.fixture(scope="module")
def network():
    configuration = Configuration(
        data=Digits(),
        network=DDPMpp(width=8, depth=1, multipliers=(1, 2)),
        diffusion=EDM(),
        trainer=StandardTrainer(),
    )
    torch.manual_seed(0)
    denoiser = build_denoiser(configuration, torch.zeros(2, 1, 8, 8)).eval()
    for weight in denoiser.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return denoiser


def test_an_image_depends_on_its_seed_alone(network):
    seeds = [11, 12, 13, 14, 15, 16, 17]
    shape = (1, 8, 8)
    together = sample(network, seeds, shape, Measurement(sampler_steps=6, batch=100), CPU)
    assert together.shape == (7, 1, 8, 8)
    assert together.dtype == torch.uint8
    for batch in (1, 3, 7):
        again = sample(network, seeds, shape, Measurement(sampler_steps=6, batch=batch), CPU)
        # the order of sums in a convolution may depend on the batch: a pixel that is about to be
        # rounded may tip over
        assert (again.int() - together.int()).abs().max() <= 1
        assert (again == together).float().mean() > 0.99
    alone = sample(network, [16, 99], shape, Measurement(sampler_steps=6), CPU)
    assert (alone[0].int() - together[5].int()).abs().max() <= 1
    assert (alone[1].int() - together[5].int()).abs().max() > 10, "and it does depend on that"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_optimum_copies_its_training_set(sampler):
    """Sampler and measurement together: every image is a copy at distance 0, and all of them are
    found among the copied."""
    data = load(Digits())
    images = torch.from_numpy(data.images[subset_order(data, 0)[:24]])
    configuration = Configuration(
        data=Digits(), network=Optimum(), diffusion=EDM(), trainer=StandardTrainer()
    )
    how = Measurement(batch=64, sampler=sampler)
    out = sample(
        build_denoiser(configuration, from_uint8(images)), list(range(200)), (1, 8, 8), how, CPU
    )
    found = nearest_two(out, images)
    assert found.r_mem() == 1
    assert found.d1.max() == 0
    assert (found.d2 > 100).all()
    assert len(np.unique(found.i1)) == 24
    np.testing.assert_array_equal(images[found.i1], out)


def test_short_schedules_still_end_on_the_data():
    images = torch.tensor([[[[0]]], [[[255]]]], dtype=torch.uint8)
    configuration = Configuration(
        data=Digits(), network=Optimum(), diffusion=EDM(), trainer=StandardTrainer()
    )
    how = Measurement(sampler_steps=10, sigma_min=0.02, sigma_max=10)
    out = sample(
        build_denoiser(configuration, from_uint8(images)), list(range(400)), (1, 1, 1), how, CPU
    ).flatten()
    assert set(out.tolist()) == {0, 255}
    assert 150 < int((out == 0).sum()) < 250, "both equally likely"
