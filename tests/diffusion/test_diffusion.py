"""Preconditioning, noise laws and losses against closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from torch import nn

from trainables.config.data import Digits
from trainables.config.diffusion import EDM, VE, VP, Flow
from trainables.config.network import MLP, DDPMpp, Optimum
from trainables.config.training import StandardTrainer
from trainables.config.trial import Configuration
from trainables.data.sources import load
from trainables.diffusion.denoiser import (
    Denoiser,
    build_denoiser,
    denoising_loss,
    draw_sigma,
    loss_weight,
    scalings,
    vp_sigma,
    vp_time,
)
from trainables.networks.optimum import OptimalDenoiser
from trainables.training.trainer import Trainer

CPU = torch.device("cpu")
LEVELS = torch.tensor([0.002, 0.05, 0.3, 1.0, 7.0, 80.0], dtype=torch.float64)


# ---------------------------------------------------------------- preconditioning


@pytest.mark.parametrize("sigma_data", [0.5, 0.75, 2.0])
def test_edm_keeps_unit_variance(sigma_data):
    """For data of variance σ_data² both what the network sees and what it shall predict have
    variance 1."""
    law = EDM(sigma_data=sigma_data)
    c_skip, c_out, c_in, c_noise = scalings(law, LEVELS)
    one = torch.ones_like(LEVELS)
    torch.testing.assert_close(c_in**2 * (sigma_data**2 + LEVELS**2), one)
    target = ((1 - c_skip) ** 2 * sigma_data**2 + c_skip**2 * LEVELS**2) / c_out**2
    torch.testing.assert_close(target, one)
    # c_skip is the best linear guess: what remains is uncorrelated with the input
    torch.testing.assert_close((1 - c_skip) * sigma_data**2, c_skip * LEVELS**2)
    torch.testing.assert_close(loss_weight(law, LEVELS) * c_out**2, one)
    torch.testing.assert_close(torch.exp(4 * c_noise), LEVELS)


def test_edm_known_values():
    c_skip, c_out, c_in, c_noise = (
        float(c) for c in scalings(EDM(), torch.tensor(0.5, dtype=torch.float64))
    )
    assert (c_skip, c_noise) == (pytest.approx(0.5), pytest.approx(-0.1732868))
    assert (c_out, c_in) == (pytest.approx(0.3535534), pytest.approx(1.4142136))
    assert float(loss_weight(EDM(), torch.tensor(0.5))) == pytest.approx(8)


def test_vp_predicts_the_noise():
    """D = x − σ F, so F of the true noise gives the clean image, and the loss is the plain
    noise-prediction loss."""
    law = VP()
    c_skip, c_out, c_in, c_noise = scalings(law, LEVELS)
    clean, noise = torch.randn(6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    torch.testing.assert_close(c_skip * (clean + LEVELS * noise) + c_out * noise, clean)
    torch.testing.assert_close(loss_weight(law, LEVELS) * c_out**2, torch.ones_like(LEVELS))
    torch.testing.assert_close(c_in**2 * (1 + LEVELS**2), torch.ones_like(LEVELS))
    assert float(
        scalings(law, vp_sigma(law, torch.tensor(1.0, dtype=torch.float64)))[3]
    ) == pytest.approx(999)
    assert ((c_noise >= 0) & (c_noise < 999)).all()
    assert (c_noise.diff() > 0).all()


def test_vp_sigma_is_the_integral_of_beta():
    law = VP(beta_d=15.0, beta_min=0.3)
    for t in (0.0, 1e-3, 0.2, 0.7, 1.0):
        integral = quad(lambda s: law.beta_min + s * law.beta_d, 0, t)[0]
        alpha = math.exp(-integral)  # the variance that is left of the data
        assert float(vp_sigma(law, torch.tensor(t, dtype=torch.float64))) == pytest.approx(
            math.sqrt(1 / alpha - 1), rel=1e-9
        )


def test_vp_range():
    assert float(vp_sigma(VP(), torch.tensor(1.0))) == pytest.approx(152.17, abs=0.1)
    assert float(vp_sigma(VP(), torch.tensor(1e-5, dtype=torch.float64))) == pytest.approx(
        1.0005e-3, rel=1e-3
    )


def test_vp_time_inverts_vp_sigma():
    t = torch.linspace(1e-5, 1, 1000, dtype=torch.float64)
    torch.testing.assert_close(vp_time(VP(), vp_sigma(VP(), t)), t, rtol=1e-8, atol=1e-12)
    single = t.float()
    torch.testing.assert_close(vp_time(VP(), vp_sigma(VP(), single)), single, rtol=1e-3, atol=1e-6)


def test_ve_predicts_the_noise():
    """D = x + σ F, so F of the negative noise gives the clean image; the network sees the noisy
    image as it is."""
    c_skip, c_out, c_in, c_noise = scalings(VE(), LEVELS)
    clean, noise = torch.randn(6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    torch.testing.assert_close(c_skip * (clean + LEVELS * noise) - c_out * noise, clean)
    torch.testing.assert_close(c_in, torch.ones_like(LEVELS))
    torch.testing.assert_close(2 * c_noise.exp(), LEVELS)
    torch.testing.assert_close(loss_weight(VE(), LEVELS) * c_out**2, torch.ones_like(LEVELS))


def test_flow_predicts_the_velocity():
    """On x_t = (1 − t) x_0 + t ε the network sees x_t and 1000 t, F = ε − x_0 is exact, and the
    loss is that of F."""
    t = torch.tensor([1e-4, 0.03, 0.5, 0.9, 0.999], dtype=torch.float64)
    sigma = t / (1 - t)
    c_skip, c_out, c_in, c_noise = scalings(Flow(), sigma)
    clean, noise = torch.randn(5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    noisy = clean + sigma * noise
    torch.testing.assert_close(c_in * noisy, (1 - t) * clean + t * noise)
    torch.testing.assert_close(c_noise, 1000 * t)
    torch.testing.assert_close(c_skip * noisy + c_out * (noise - clean), clean)
    torch.testing.assert_close(loss_weight(Flow(), sigma) * c_out**2, torch.ones_like(t))


# ---------------------------------------------------------------- noise laws


def test_ve_noise_is_log_uniform():
    torch.manual_seed(0)
    law = VE(sigma_min=0.01, sigma_max=10)
    logs = draw_sigma(law, 20_000, CPU).double().log10().numpy()
    assert stats.kstest(logs, stats.uniform(-2, 3).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("law", "distribution"),
    [(Flow(), stats.uniform()), (Flow(times="logit_normal", t_mean=-0.4, t_std=0.8), None)],
    ids=["uniform", "logit-normal"],
)
def test_flow_times(law, distribution):
    torch.manual_seed(0)
    sigma = draw_sigma(law, 20_000, CPU).double()
    t = (sigma / (1 + sigma)).numpy()
    assert np.isfinite(sigma.numpy()).all()
    assert 0 < t.min() < t.max() < 1
    cdf = (
        distribution.cdf
        if distribution
        else lambda t: stats.norm(-0.4, 0.8).cdf(np.log(t / (1 - t)))
    )
    assert stats.kstest(t, cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    "law",
    [EDM(), EDM(P_mean=-0.4, P_std=1.0), EDM(stratified=True)],
    ids=["paper", "other", "stratified"],
)
def test_edm_noise_is_log_normal(law):
    torch.manual_seed(0)
    logs = torch.cat([draw_sigma(law, 500, CPU) for _ in range(80)]).double().log().numpy()
    assert logs.mean() == pytest.approx(law.P_mean, abs=5 * law.P_std / 200)
    assert logs.std() == pytest.approx(law.P_std, rel=0.02)
    assert stats.kstest(logs, stats.norm(law.P_mean, law.P_std).cdf).pvalue > 1e-3
    assert np.isfinite(logs).all()


def test_stratified_batches_vary_less():
    def spread(law):
        torch.manual_seed(0)
        return np.std([float(draw_sigma(law, 64, CPU).log().mean()) for _ in range(300)])

    assert spread(EDM()) == pytest.approx(1.2 / 8, rel=0.15)
    assert spread(EDM(stratified=True)) < spread(EDM()) / 5
    torch.manual_seed(0)
    ranks = stats.norm(-1.2, 1.2).cdf(
        draw_sigma(EDM(stratified=True), 64, CPU).log().double().numpy()
    )
    assert sorted((ranks * 64).astype(int).tolist()) == list(range(64)), (
        "one level from each of 64 equally likely bins"
    )


def test_every_place_of_a_stratified_batch_gets_the_whole_law():
    """An image that is always first in its batch must not be trained at low noise only."""
    torch.manual_seed(0)
    batches = (
        torch.stack([draw_sigma(EDM(stratified=True), 16, CPU) for _ in range(1000)])
        .log()
        .double()
        .numpy()
    )
    for place in (0, 7, 15):
        assert stats.kstest(batches[:, place], stats.norm(-1.2, 1.2).cdf).pvalue > 1e-3


def test_vp_time_is_uniform():
    torch.manual_seed(0)
    law = VP(epsilon_t=1e-3)
    t = vp_time(law, draw_sigma(law, 20_000, CPU).double()).numpy()
    assert stats.kstest(t, stats.uniform(1e-3, 1 - 1e-3).cdf).pvalue > 1e-3
    assert t.min() > 1e-3 * 0.99
    assert t.max() < 1 + 1e-6


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


LAWS = pytest.mark.parametrize("law", [EDM(), VP(), VE(), Flow()], ids=lambda law: law.kind)


@LAWS
def test_training_lowers_the_loss_of_every_law(law):
    torch.manual_seed(0)
    recipe = StandardTrainer(clock="steps", length=150, batch=64, lr=3e-3, warmup=10, ema_decay=0)
    network = MLP(width=64, depth=2)
    configuration = Configuration(data=Digits(), network=network, diffusion=law, trainer=recipe)
    images = torch.from_numpy(load(Digits()).images[:32])
    trainer = Trainer(configuration, images, 0, CPU)
    trainer.train_until(0.2)
    first = trainer.take_loss()
    trainer.train_until(0.8)
    trainer.take_loss()
    trainer.train_until(1)
    assert trainer.take_loss() < 0.8 * first


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


@LAWS
def test_nothing_denoises_its_training_set_better_than_the_optimum(law):
    torch.manual_seed(0)
    images = torch.rand(6, 1, 3, 3) * 2 - 1
    configuration = Configuration(
        data=Digits(), network=Optimum(), diffusion=law, trainer=StandardTrainer()
    )
    optimum = build_denoiser(configuration, images)
    assert list(optimum.parameters()) == []

    def loss(denoiser):
        torch.manual_seed(1)
        return np.mean(
            [float(denoising_loss(denoiser, law, images.repeat(50, 1, 1, 1))) for _ in range(20)]
        )

    best = loss(optimum)
    assert best < loss(lambda x, s, labels: optimum(x, s * 1.2))
    assert best < loss(lambda x, s, labels: optimum(x, s / 1.2))
    assert best < loss(lambda x, s, labels: 0.98 * optimum(x, s) + 0.02 * images.mean(0))
    assert best < loss(gaussian_denoiser(float(images.std())))
