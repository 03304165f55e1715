"""Every diffusion law: what training, sampling and networks need of it; and ours against closed
forms."""

import math

import numpy as np
import pytest
import torch
from pydantic import Field
from scipy import stats
from scipy.integrate import quad

from tests.kinds import kinds_of
from trainables.config.data import Digits
from trainables.config.diffusion import EDM, VE, VP, Diffusion, Flow, Law
from trainables.config.network import MLP, Optimum
from trainables.config.training import StandardTrainer
from trainables.config.trial import Configuration
from trainables.data.sources import load
from trainables.diffusion.denoiser import build_denoiser, denoising_loss, draw_sigma
from trainables.training.trainer import Trainer

CPU = torch.device("cpu")
LEVELS = torch.tensor([0.002, 0.05, 0.3, 1.0, 7.0, 80.0], dtype=torch.float64)
# every law as it is by default, and what a field makes another one
LAWS = [kind() for kind in kinds_of(Diffusion)]
LAWS += [EDM(stratified=True, sigma_data=0.75), Flow(times="logit_normal", t_mean=-1.3, t_std=0.8)]


def named(law):
    fields = [f"{name}={getattr(law, name)}" for name in sorted(law.model_fields_set)]
    return ",".join([law.kind, *fields])


# ---------------------------------------------------------------- of every law


@pytest.fixture(params=LAWS, ids=named)
def law(request):
    return request.param


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_levels_follow_the_quantile(law, dtype):
    u = torch.linspace(0, 1, 1001, dtype=dtype)
    sigma = law.sigma(u)
    assert (sigma.shape, sigma.dtype) == (u.shape, dtype)
    assert sigma.isfinite().all()
    assert (sigma > 0).all()
    steps = sigma.diff()
    assert (steps > 0).sum() == 1000 or (steps < 0).sum() == 1000
    assert law.sigma(u.reshape(7, 11, 13)).shape == (7, 11, 13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scalings_and_weight_are_numbers_of_each_level(law, dtype):
    """In float32 what they are in float64, to what the float32 of a level can say."""
    sigma = law.sigma(torch.linspace(0, 1, 101, dtype=torch.float64)).sort()[0]
    exact = [*law.scalings(sigma), law.weight(sigma)]
    found = [*law.scalings(sigma.to(dtype)), law.weight(sigma.to(dtype))]
    for expected, values in zip(exact, found, strict=True):
        assert (values.shape, values.dtype) == (sigma.shape, dtype)
        assert values.isfinite().all()
        torch.testing.assert_close(values.double(), expected, rtol=1e-3, atol=1e-5)
    c_noise, weight = found[3], found[4]
    assert (c_noise.diff() > 0).all(), "else the network can't tell two levels apart"
    assert (weight > 0).all()


def test_a_plan_needs_no_values(law):
    sigma = torch.ones(3, device="meta")
    assert all(part.shape == (3,) for part in [*law.scalings(sigma), law.weight(sigma)])


def test_without_noise_the_denoiser_gives_the_image(law):
    """Whatever the network says."""
    c_skip, c_out, _, _ = law.scalings(torch.tensor([1e-6], dtype=torch.float64))
    assert float(c_skip) == pytest.approx(1, abs=1e-5)
    assert float(c_out) == pytest.approx(0, abs=1e-5)


def test_draws_are_of_the_law(law):
    """u is uniform, also where it is stratified."""
    torch.manual_seed(0)
    drawn = torch.cat([draw_sigma(law, 500, CPU) for _ in range(20)])
    assert (drawn.shape, drawn.dtype) == ((10_000,), torch.float32)
    levels = law.sigma(torch.linspace(0, 1, 100_001, dtype=torch.float64)).sort()[0].numpy()
    ranks = np.searchsorted(levels, drawn.double().numpy()) / len(levels)
    assert stats.kstest(ranks, stats.uniform().cdf).pvalue > 1e-3
    assert len(set(np.floor(ranks[:500] * 500))) == 500 or not law.is_stratified


def test_a_network_trains_under_it(law):
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
        batch = images.repeat(50, 1, 1, 1)
        return np.mean([float(denoising_loss(denoiser, law, batch)) for _ in range(20)])

    best = loss(optimum)
    assert best < loss(lambda x, sigma, labels: optimum(x, sigma * 1.2))
    assert best < loss(lambda x, sigma, labels: optimum(x, sigma / 1.2))
    assert best < loss(lambda x, sigma, labels: 0.98 * optimum(x, sigma) + 0.02 * images.mean(0))
    linear = images.var()
    assert best < loss(lambda x, sigma, labels: x * linear / (linear + as_image(sigma) ** 2))


def as_image(sigma):
    return sigma.reshape(-1, 1, 1, 1)


def test_a_law_that_leaves_something_out_is_none():
    class Half(Law):
        scale: float = Field(1.0)

        def sigma(self, u):
            return self.scale * u

    with pytest.raises(TypeError, match=r"scalings.*weight"):
        Half()


# ---------------------------------------------------------------- ours, as published
# Formulas in plain floating-point numbers, of a quantile u or of a level; not those of the product.


def published_sigma(law, u):
    if law.kind == "edm":  # ln σ ~ N(P_mean, P_std²)
        return math.exp(stats.norm.ppf(u, law.P_mean, law.P_std))
    if law.kind == "vp":  # t uniform on [ε_t, 1], σ² + 1 = exp ∫ β
        t = stats.uniform.isf(u, law.epsilon_t, 1 - law.epsilon_t)
        integral = quad(lambda s: law.beta_min + s * law.beta_d, 0, t)[0]
        return math.sqrt(math.exp(integral) - 1)
    if law.kind == "ve":  # ln σ uniform
        return stats.loguniform.ppf(u, law.sigma_min, law.sigma_max)
    if law.times == "uniform":  # σ = t / (1 − t)
        return u / (1 - u)
    return math.exp(stats.norm.ppf(u, law.t_mean, law.t_std))


def published_scalings(law, sigma):
    """c_skip, c_out, c_in, c_noise: table 1 of arXiv 2206.00364; for flow, from its definition."""
    if law.kind == "edm":
        data = law.sigma_data
        norm = math.hypot(sigma, data)
        return data**2 / norm**2, sigma * data / norm, 1 / norm, math.log(sigma) / 4
    if law.kind == "vp":
        slope, extent = law.beta_min, law.beta_d
        t = (math.sqrt(slope**2 + 2 * extent * math.log(1 + sigma**2)) - slope) / extent
        return 1, -sigma, 1 / math.hypot(sigma, 1), (law.M - 1) * t
    if law.kind == "ve":
        return 1, sigma, 1, math.log(sigma / 2)
    t = sigma / (1 + sigma)
    return 1 - t, -t, 1 - t, 1000 * t


def published_weight(law, sigma):
    if law.kind == "edm":
        return (sigma**2 + law.sigma_data**2) / (sigma * law.sigma_data) ** 2
    return ((1 + sigma) / sigma) ** 2 if law.kind == "flow" else 1 / sigma**2


@pytest.mark.parametrize(
    "law",
    [
        EDM(),
        EDM(sigma_data=0.75, P_mean=-1.3, P_std=0.5, stratified=True),
        VP(),
        VP(beta_d=15.0, beta_min=0.3, epsilon_t=1e-3, M=100),
        VE(),
        VE(sigma_min=0.01, sigma_max=10),
        Flow(),
        Flow(times="logit_normal", t_mean=-1.3, t_std=0.8),
    ],
    ids=named,
)
def test_a_law_is_the_published_one(law):
    quantiles = [1e-3, 0.04, 0.3, 0.5, 0.77, 0.9, 0.999]
    sigma = law.sigma(torch.tensor(quantiles, dtype=torch.float64))
    expected = [published_sigma(law, u) for u in quantiles]
    np.testing.assert_allclose(sigma, expected, rtol=1e-6)
    for level in expected:
        given = torch.tensor(level, dtype=torch.float64)
        found = [float(part) for part in law.scalings(given)]
        assert found == pytest.approx(published_scalings(law, level), rel=1e-6)
        assert float(law.weight(given)) == pytest.approx(published_weight(law, level), rel=1e-9)


# The first levels of a batch of four, by seed 0, as they were when the first results were made.
DRAWN = {
    EDM(): [0.2978217, 0.7258615, 0.05959232, 0.07884959],
    EDM(stratified=True): [1.19122, 0.2528619, 0.02693882, 0.3326711],
    VP(): [3.483591, 0.8641292, 65.30457, 44.30849],
    VE(): [1.369835, 13.88863, 0.04249182, 0.06157533],
    Flow(): [0.9851376, 3.31447, 0.09706554, 0.1521142],
    Flow(times="logit_normal"): [0.9906604, 2.081322, 0.2591909, 0.3273111],
}


@pytest.mark.parametrize(
    ("law", "levels"), DRAWN.items(), ids=lambda x: named(x) if isinstance(x, Law) else ""
)
def test_a_seed_draws_the_levels_that_it_always_drew(law, levels):
    """Or trainings that exist could not be gone on with."""
    torch.manual_seed(0)
    assert draw_sigma(law, 4, CPU).tolist() == pytest.approx(levels, rel=1e-5)


# ---------------------------------------------------------------- what ours are for


@pytest.mark.parametrize("sigma_data", [0.5, 0.75, 2.0])
def test_edm_keeps_unit_variance(sigma_data):
    """For data of variance σ_data² both what the network sees and what it shall predict have
    variance 1."""
    law = EDM(sigma_data=sigma_data)
    c_skip, c_out, c_in, c_noise = law.scalings(LEVELS)
    one = torch.ones_like(LEVELS)
    torch.testing.assert_close(c_in**2 * (sigma_data**2 + LEVELS**2), one)
    target = ((1 - c_skip) ** 2 * sigma_data**2 + c_skip**2 * LEVELS**2) / c_out**2
    torch.testing.assert_close(target, one)
    # c_skip is the best linear guess: what remains is uncorrelated with the input
    torch.testing.assert_close((1 - c_skip) * sigma_data**2, c_skip * LEVELS**2)
    torch.testing.assert_close(law.weight(LEVELS) * c_out**2, one)
    torch.testing.assert_close(torch.exp(4 * c_noise), LEVELS)


def test_edm_known_values():
    c_skip, c_out, c_in, c_noise = (
        float(c) for c in EDM().scalings(torch.tensor(0.5, dtype=torch.float64))
    )
    assert (c_skip, c_noise) == (pytest.approx(0.5), pytest.approx(-0.1732868))
    assert (c_out, c_in) == (pytest.approx(0.3535534), pytest.approx(1.4142136))
    assert float(EDM().weight(torch.tensor(0.5))) == pytest.approx(8)


def test_vp_predicts_the_noise():
    """D = x − σ F, so F of the true noise gives the clean image, and the loss is the plain
    noise-prediction loss."""
    law = VP()
    c_skip, c_out, c_in, c_noise = law.scalings(LEVELS)
    clean, noise = torch.randn(6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    torch.testing.assert_close(c_skip * (clean + LEVELS * noise) + c_out * noise, clean)
    torch.testing.assert_close(law.weight(LEVELS) * c_out**2, torch.ones_like(LEVELS))
    torch.testing.assert_close(c_in**2 * (1 + LEVELS**2), torch.ones_like(LEVELS))
    assert float(
        law.scalings(law.sigma_at(torch.tensor(1.0, dtype=torch.float64)))[3]
    ) == pytest.approx(999)
    assert ((c_noise >= 0) & (c_noise < 999)).all()
    assert (c_noise.diff() > 0).all()


def test_vp_range():
    assert float(VP().sigma_at(torch.tensor(1.0))) == pytest.approx(152.17, abs=0.1)
    assert float(VP().sigma_at(torch.tensor(1e-5, dtype=torch.float64))) == pytest.approx(
        1.0005e-3, rel=1e-3
    )


def test_vp_time_inverts_vp_sigma():
    t = torch.linspace(1e-5, 1, 1000, dtype=torch.float64)
    torch.testing.assert_close(VP().time_of(VP().sigma_at(t)), t, rtol=1e-8, atol=1e-12)
    single = t.float()
    torch.testing.assert_close(VP().time_of(VP().sigma_at(single)), single, rtol=1e-3, atol=1e-6)


def test_ve_predicts_the_noise():
    """D = x + σ F, so F of the negative noise gives the clean image; the network sees the noisy
    image as it is."""
    c_skip, c_out, c_in, c_noise = VE().scalings(LEVELS)
    clean, noise = torch.randn(6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    torch.testing.assert_close(c_skip * (clean + LEVELS * noise) - c_out * noise, clean)
    torch.testing.assert_close(c_in, torch.ones_like(LEVELS))
    torch.testing.assert_close(2 * c_noise.exp(), LEVELS)
    torch.testing.assert_close(VE().weight(LEVELS) * c_out**2, torch.ones_like(LEVELS))


def test_flow_predicts_the_velocity():
    """On x_t = (1 − t) x_0 + t ε the network sees x_t and 1000 t, F = ε − x_0 is exact, and the
    loss is that of F."""
    t = torch.tensor([1e-4, 0.03, 0.5, 0.9, 0.999], dtype=torch.float64)
    sigma = t / (1 - t)
    c_skip, c_out, c_in, c_noise = Flow().scalings(sigma)
    clean, noise = torch.randn(5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    noisy = clean + sigma * noise
    torch.testing.assert_close(c_in * noisy, (1 - t) * clean + t * noise)
    torch.testing.assert_close(c_noise, 1000 * t)
    torch.testing.assert_close(c_skip * noisy + c_out * (noise - clean), clean)
    torch.testing.assert_close(Flow().weight(sigma) * c_out**2, torch.ones_like(t))


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
