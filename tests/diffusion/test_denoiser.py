"""The loss and the denoisers, against closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from torch import nn

from trainables.config.data import Digits
from trainables.config.diffusion import EDM, VE, VP, Flow
from trainables.config.network import DDPMpp
from trainables.config.training import StandardTrainer
from trainables.config.trial import Configuration
from trainables.diffusion.denoiser import Denoiser, build_denoiser, denoising_loss
from trainables.networks.optimum import OptimalDenoiser

# ---------------------------------------------------------------- loss


def gaussian_denoiser(s):
    """The exact denoiser of data that are normal with standard deviation s."""
    return lambda x, sigma, labels: x * (s**2 / (s**2 + sigma.reshape(-1, 1, 1, 1) ** 2))


def expected_gaussian_loss(law, s):
    """E_σ[λ(σ) s²σ²/(s² + σ²)], the posterior variance, by quadrature."""
    if isinstance(law, VP):

        def at(t):
            alpha = math.exp(-(0.5 * law.beta_d * t**2 + law.beta_min * t))
            return s**2 / (s**2 + 1 / alpha - 1)

        return quad(at, law.epsilon_t, 1)[0] / (1 - law.epsilon_t)
    if isinstance(law, VE):  # weight 1/σ²
        low, high = math.log(law.sigma_min), math.log(law.sigma_max)
        return quad(lambda z: s**2 / (s**2 + math.exp(2 * z)), low, high)[0] / (high - low)
    if isinstance(
        law, Flow
    ):  # the variance of ε − x_0 given x_t, both normal: s²/(s²(1 − t)² + t²)
        density = (
            (lambda t: 1.0)
            if law.times == "uniform"
            else (lambda t: stats.norm.pdf(math.log(t / (1 - t))) / (t * (1 - t)))
        )
        return quad(lambda t: density(t) * s**2 / (s**2 * (1 - t) ** 2 + t**2), 0, 1)[0]

    def at(z):
        sigma = math.exp(law.P_mean + law.P_std * z)
        weight = (sigma**2 + law.sigma_data**2) / (sigma * law.sigma_data) ** 2
        return weight * s**2 * sigma**2 / (s**2 + sigma**2) * stats.norm.pdf(z)

    return quad(at, -8, 8)[0]


@pytest.mark.parametrize(
    "law",
    [
        EDM(),
        EDM(sigma_data=0.8, P_mean=-0.5),
        EDM(stratified=True),
        VP(),
        VE(),
        Flow(),
        Flow(times="logit_normal"),
    ],
    ids=["edm", "x", "strat", "vp", "ve", "flow", "logit-normal"],
)
@pytest.mark.parametrize("s", [0.5, 0.9])
def test_loss_of_the_exact_denoiser(law, s):
    torch.manual_seed(0)
    losses = [
        float(denoising_loss(gaussian_denoiser(s), law, s * torch.randn(500, 1, 4, 4)))
        for _ in range(60)
    ]
    error = np.std(losses) / math.sqrt(len(losses))
    assert np.mean(losses) == pytest.approx(expected_gaussian_loss(law, s), abs=4 * error)
    assert error < 0.02
    worse = [
        float(
            denoising_loss(
                lambda x, sigma, labels: gaussian_denoiser(s)(x, sigma, labels) * 1.3,
                law,
                s * torch.randn(500, 1, 4, 4),
            )
        )
        for _ in range(60)
    ]
    assert np.mean(worse) > np.mean(losses) + 10 * error


def test_edm_loss_of_matching_gaussian_data_is_one():
    """Where the data have the variance that the preconditioning expects, the best possible loss is
    1 at every noise level."""
    assert expected_gaussian_loss(EDM(), 0.5) == pytest.approx(1, rel=1e-6)


def test_the_loss_reaches_the_weights():
    denoiser = Denoiser(nn.Conv2d(1, 1, 1), EDM())
    denoiser.network.forward = lambda x, noise, labels: nn.functional.conv2d(
        x, denoiser.network.weight
    )
    torch.manual_seed(0)
    denoising_loss(denoiser, EDM(), torch.randn(4, 1, 2, 2)).backward()
    assert denoiser.network.weight.grad.abs().sum() > 0


# ---------------------------------------------------------------- denoisers


class Recorder(nn.Module):
    def forward(self, x, noise_level, labels):
        self.seen = x, noise_level, labels
        return torch.ones_like(x)


@pytest.mark.parametrize("law", [EDM(sigma_data=0.6), VP()], ids=["edm", "vp"])
def test_denoiser_scales_input_and_output(law):
    network = Recorder()
    x, sigma = (
        torch.randn(3, 2, 4, 4, dtype=torch.float64),
        torch.tensor([0.1, 1.0, 20.0], dtype=torch.float64),
    )
    out = Denoiser(network, law)(x, sigma)
    assert out.dtype == torch.float32
    for i, level in enumerate(sigma.tolist()):
        if law.kind == "edm":
            scale, keep, gain = (
                1 / math.hypot(level, 0.6),
                0.36 / (level**2 + 0.36),
                level * 0.6 / math.hypot(level, 0.6),
            )
        else:
            scale, keep, gain = 1 / math.hypot(level, 1), 1, -level
        torch.testing.assert_close(network.seen[0][i], (scale * x[i]).float())
        torch.testing.assert_close(out[i], (keep * x[i] + gain).float(), rtol=1e-4, atol=1e-5)
    assert network.seen[1].shape == (3,)


def test_denoiser_gives_float32_in_bf16():
    configuration = Configuration(
        data=Digits(),
        network=DDPMpp(width=8, depth=1),
        diffusion=EDM(),
        trainer=StandardTrainer(precision="bf16"),
    )
    torch.manual_seed(0)
    rough = build_denoiser(configuration, torch.zeros(2, 1, 8, 8)).eval()
    for weight in rough.parameters():
        nn.init.normal_(weight, std=0.1)
    exact = Denoiser(rough.network, EDM())
    x, sigma = torch.randn(2, 1, 8, 8), torch.tensor([0.5, 2.0])
    a, b = rough(x, sigma), exact(x, sigma)
    assert a.dtype == torch.float32
    assert 0 < (a - b).abs().max() < 0.1, "the arithmetic differs, a little"


def test_optimum_of_two_points():
    """Data {−a, a}: the posterior mean is a·tanh(a x/σ²)."""
    a = 0.8
    optimum = OptimalDenoiser(torch.tensor([-a, a]).reshape(2, 1, 1, 1))
    x = torch.linspace(-3, 3, 61, dtype=torch.float64)
    for level in (0.02, 0.3, 1.0, 10.0):
        out = optimum(x.reshape(-1, 1, 1, 1), torch.full_like(x, level)).flatten()
        torch.testing.assert_close(out, a * torch.tanh(a * x / level**2), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_optimum_is_the_posterior_mean(dtype):
    """Against Bayes' rule in numpy, with the distances as they are."""
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (7, 1, 3, 3))
    levels = np.array([0.05, 0.2, 1.0, 5.0, 80.0])
    x = images[[0, 1, 2, 3, 4]] + levels.reshape(-1, 1, 1, 1) * rng.normal(size=(5, 1, 3, 3))
    out = OptimalDenoiser(torch.tensor(images, dtype=torch.float64))(
        torch.tensor(x, dtype=dtype), torch.tensor(levels, dtype=dtype)
    )
    assert out.dtype == dtype
    for i, level in enumerate(levels):
        log = -((x[i] - images) ** 2).sum((1, 2, 3)) / (2 * level**2)
        posterior = np.exp(log - log.max())
        expected = np.tensordot(posterior / posterior.sum(), images, axes=1)
        np.testing.assert_allclose(out[i], expected, atol=1e-3 if dtype == torch.float32 else 1e-10)
