"""The training loop: exact epochs, the paper's clocks and averages, and randomness that depends on the position alone."""

import io
import math

import numpy as np
import pytest
import torch

from trainables import trainer as trainer_module
from trainables.config import EDM, VP, Configuration, DDPMpp, Digits, Measurement, Optimum, StandardTrainer, with_fields
from trainables.errors import TrialFailed
from trainables.trainer import Trainer, ema_decay, lr_factor

CPU = torch.device("cpu")
PAPER = StandardTrainer()
TINY = Configuration(
    data=Digits(resolution=4),
    network=DDPMpp(width=4, depth=1, multipliers=(1,), attention=()),
    diffusion=EDM(),
    trainer=StandardTrainer(length=3, batch=4, lr=1e-3, warmup=0),
)


def images(n, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, 1, 4, 4)).astype(np.uint8))


def tiny(n=10, seed=0, data_seed=0, **changes):
    fields = {f"trainer.{name}": value for name, value in changes.items()}
    return Trainer(with_fields(TINY, fields), images(n, data_seed), seed, CPU)


def weights(trainer):
    return [weight.detach().clone() for weight in trainer.weights]


def equal(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def record_order(trainer):
    """Collects the index of every image that is trained on."""
    seen, original = [], trainer._indices

    def listen(n, size):
        chosen = original(n, size)
        seen.extend(chosen.tolist())
        return chosen

    trainer._indices = listen
    return seen


# ---------------------------------------------------------------- what is trained on


@pytest.mark.parametrize("order", ["cycled", "reshuffled"])
@pytest.mark.parametrize(("n", "batch", "length"), [(10, 4, 3), (3, 8, 5), (7, 7, 2), (5, 64, 4), (2, 1, 2)])
def test_epochs_are_exact(n, batch, length, order):
    """Every image exactly `length` times, every epoch a permutation; the last step takes what is left."""
    trainer = tiny(n, batch=batch, length=length, order=order)
    seen = record_order(trainer)
    trainer.train_until(1.0)
    assert trainer.position == trainer.total == n * length == len(seen)
    epochs = [seen[start : start + n] for start in range(0, len(seen), n)]
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    if n >= 7:
        assert (epochs[0] == epochs[1]) == (order == "cycled")
    assert trainer.progress == 1


def test_steps_are_exact():
    trainer = tiny(10, clock="steps", length=7, batch=4)
    seen = record_order(trainer)
    trainer.train_until(1.0)
    assert len(seen) == 28
    assert sorted(seen[:20]) == sorted(list(range(10)) * 2)


def test_order_depends_on_the_seed_alone():
    def order(**options):
        trainer = tiny(12, **options)
        seen = record_order(trainer)
        trainer.train_until(1.0)
        return seen

    assert order() == order(lr=1e-2) == order(data_seed=1)
    assert order() != order(seed=1)


def test_batches_hold_the_images_themselves(monkeypatch):
    seen = []
    original = trainer_module.denoising_loss

    def listen(denoiser, law, batch, *others):
        seen.append(batch)
        return original(denoiser, law, batch, *others)

    monkeypatch.setattr(trainer_module, "denoising_loss", listen)
    trainer = tiny(6, length=1)
    trainer.train_until(1.0)
    pixels = torch.cat(seen)
    assert (pixels.min() >= -1, pixels.max() <= 1) == (True, True)
    trained = sorted((pixels.flatten(1).double() * 127.5 + 127.5).round().int().tolist())
    assert trained == sorted(images(6).flatten(1).int().tolist())


# ---------------------------------------------------------------- learning rate


def test_learning_rate_of_the_paper():
    """Linear over 200 epochs, then constant to the end of 40,000."""
    for n in (1000, 5000):
        assert lr_factor(PAPER, n, 0) < 0.01
        assert lr_factor(PAPER, n, 50 * n) == pytest.approx(0.25, abs=0.003)
        assert lr_factor(PAPER, n, 100 * n) == pytest.approx(0.5, abs=0.003)
        assert lr_factor(PAPER, n, 200 * n) == 1
        assert lr_factor(PAPER, n, 40_000 * n - 512) == 1


def test_learning_rate_with_decay():
    """The recipe for one core: 600 steps, 50 of warm-up, falling over the last 60 %."""
    recipe = StandardTrainer(clock="steps", length=600, batch=64, warmup=50, decay=0.6)
    factors = [lr_factor(recipe, 48, 64 * step) for step in range(600)]
    assert factors[25] == pytest.approx(0.5, abs=0.03)
    assert factors[50:240] == [1.0] * 190
    assert factors[420] == pytest.approx(0.5)
    assert 0 < factors[-1] < 0.01
    assert max(factors) == 1
    assert factors == [lr_factor(recipe, 999, 64 * step) for step in range(600)], "the clock is steps"
    assert lr_factor(StandardTrainer(warmup=0), 10, 0) == 1


@pytest.mark.parametrize(("warmup", "expected"), [(0, 1.0), (8, 0.05)])
def test_the_first_step_has_that_size(warmup, expected):
    """Adam's first step moves every weight by the learning rate."""
    trainer = tiny(10, lr=1e-3, warmup=warmup, eps=1e-30)
    before = weights(trainer)
    trainer.train_until(0.01)
    moved = torch.cat([(a - b).abs().flatten() for a, b in zip(weights(trainer), before, strict=True)])
    assert float(moved.max()) == pytest.approx(1e-3 * expected, rel=0.02)


def test_weight_decay_is_in_the_gradient():
    """As L2: a weight without a gradient of its own moves by the whole learning rate (decoupled, it would be lr·decay)."""
    skips = {"network.skips": [False, True], "network.width": 8, "trainer.eps": 1e-30}
    for decay, expected in ((0.0, 0.0), (1e-3, 1e-3)):
        trainer = Trainer(with_fields(TINY, skips | {"trainer.weight_decay": decay}), images(6), 0, CPU)
        scale = trainer.denoiser.network.decoder[-1].norm0.weight  # of its 16 channels the last 8 come from a removed skip
        before = scale.detach().clone()
        trainer.train_until(0.01)
        torch.testing.assert_close((before - scale.detach())[8:], torch.full((8,), expected), atol=1e-6, rtol=1e-3)


# ---------------------------------------------------------------- EMA


def test_ema_of_the_paper():
    """Half-life 500,000 images at batch 512, at most 5 % of what was seen."""
    assert ema_decay(PAPER, 10**9) == pytest.approx(0.99929, rel=1e-9)
    assert ema_decay(PAPER, 10_000_000 + 512) == pytest.approx(0.99929, abs=1e-6), "ramp-up is over after 10 M images"
    for seen in (51_200, 1_000_000, 5_000_000):
        decay = ema_decay(PAPER, seen)
        steps = math.log(0.5) / math.log(decay)
        assert steps * 512 == pytest.approx(0.05 * seen)
    assert ema_decay(PAPER, 512 * 20) == pytest.approx(0.5), "a half-life of one step"
    assert ema_decay(StandardTrainer(ema_rampup=0), 512) == pytest.approx(0.99929)
    assert ema_decay(StandardTrainer(ema_decay=0), 512) == 0


def test_without_ema_the_weights_themselves_are_sampled():
    trainer = tiny(ema_decay=0.0)
    trainer.train_until(0.5)
    assert equal(trainer.sampling_weights(), weights(trainer))


def test_ema_averages_the_weights():
    trainer = tiny(ema_decay=0.9, ema_rampup=0.0)
    expected = [weight.double() for weight in weights(trainer)]
    while trainer.progress < 1:
        trainer.train_until(trainer.progress + 1e-3)
        expected = [0.9 * e + 0.1 * w.double() for e, w in zip(expected, weights(trainer), strict=True)]
    for value, reference in zip(trainer.sampling_weights(), expected, strict=True):
        torch.testing.assert_close(value.double(), reference, rtol=1e-5, atol=1e-7)
    assert not equal(trainer.sampling_weights(), weights(trainer))


def test_sampling_uses_the_average_and_leaves_the_training_alone():
    how = Measurement(sampler_steps=3, batch=10)
    trainer, untouched = tiny(lr=0.1), tiny(lr=0.1)
    for part in (trainer, untouched):
        part.train_until(0.5)
    before = weights(trainer)
    out = trainer.sample([1, 2, 3], how)
    assert out.shape == (3, 1, 4, 4)
    assert equal(weights(trainer), before)
    trainer.train_until(1.0)
    untouched.train_until(1.0)
    assert equal(weights(trainer), weights(untouched))
    averaged = tiny(lr=0.1)
    averaged.train_until(0.5)
    averaged._set_weights(averaged.sampling_weights())  # the average becomes the weights, and the weights are the average
    averaged.load_sampling_weights([weight.detach() for weight in averaged.weights])
    assert torch.equal(averaged.sample([1, 2, 3], how), out)


# ---------------------------------------------------------------- randomness


def test_noise_depends_on_seed_and_position(monkeypatch):
    """New noise at every step, the same for every configuration: that pairs them."""

    def noise(seed=0, **changes):
        drawn = []

        def loss(denoiser, *_):
            drawn.append(float(torch.randn(())))
            return sum(weight.sum() for weight in denoiser.parameters())

        monkeypatch.setattr(trainer_module, "denoising_loss", loss)
        tiny(seed=seed, **changes).train_until(1.0)
        return drawn

    first = noise()
    assert len(set(first)) == 8
    assert noise(lr=1e-2) == first
    assert not set(noise(seed=1)) & set(first)


def test_initialization_depends_on_configuration_and_seed():
    assert equal(weights(tiny()), weights(tiny(n=5, data_seed=3))), "not on the data or N"
    assert not equal(weights(tiny()), weights(tiny(seed=1)))
    assert not equal(weights(tiny()), weights(tiny(lr=2e-3)))


@pytest.mark.parametrize(
    "configuration", [{}, {"diffusion.kind": "vp"}, {"diffusion.stratified": True, "trainer.order": "reshuffled"}]
)
def test_slices_and_other_random_numbers_do_not_matter(configuration):
    changed = with_fields(TINY, configuration)
    whole = Trainer(changed, images(10), 0, CPU)
    whole.train_until(1.0)
    sliced = Trainer(changed, images(10), 0, CPU)
    for progress in (0.05, 0.3, 0.3, 0.31, 0.9, 1.0):
        torch.manual_seed(round(progress * 1000))  # somebody else draws numbers
        torch.rand(7)
        sliced.train_until(progress)
    assert equal(weights(whole), weights(sliced))
    assert equal(whole.sampling_weights(), sliced.sampling_weights())
    assert whole.take_loss() == sliced.take_loss()


@pytest.mark.parametrize("stop", range(9))
def test_a_loaded_state_goes_on_as_if_it_had_never_stopped(stop):
    """After each of the eight steps, through the copy that torch.save makes."""
    whole = tiny()
    whole.train_until(1.0)
    first = tiny()
    first.train_until(min(stop * 4 / 30, 1.0))
    stream = io.BytesIO()
    torch.save(first.state_dict(), stream)
    stream.seek(0)
    second = tiny()
    second.load_state_dict(torch.load(stream, weights_only=True))
    assert second.position == min(stop * 4, 30)
    second.train_until(1.0)
    assert equal(weights(second), weights(whole))
    assert equal(second.sampling_weights(), whole.sampling_weights())
    for index, moments in whole.optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, second.optimizer.state_dict()["state"][index][name]) for name, value in moments.items())
    assert second.take_loss() == whole.take_loss()


def test_a_state_is_a_copy_where_it_is_loaded():
    first = tiny()
    first.train_until(0.5)
    second = tiny()
    second.load_state_dict(first.state_dict())
    before = weights(second), second.sampling_weights()
    first.train_until(1.0)
    assert equal(weights(second), before[0])
    assert equal(second.sampling_weights(), before[1])


# ---------------------------------------------------------------- loss, failure, precision


def test_training_lowers_the_loss():
    trainer = tiny(2, length=150, batch=8, lr=1e-2, clock="steps")
    trainer.train_until(0.05)
    first = trainer.take_loss()
    trainer.train_until(0.8)
    trainer.take_loss()
    trainer.train_until(1.0)
    assert trainer.take_loss() < 0.6 * first
    assert trainer.take_loss() == 0, "nothing since"


def test_loss_is_the_mean_per_image(monkeypatch):
    values = iter([1.0, 2.0, 6.0])

    def scripted(denoiser, *_):
        return sum(weight.sum() for weight in denoiser.parameters()) * 0 + next(values)

    monkeypatch.setattr(trainer_module, "denoising_loss", scripted)
    trainer = tiny(10, length=1)  # steps of 4, 4 and 2 images
    trainer.train_until(1.0)
    assert trainer.take_loss() == pytest.approx((4 * 1 + 4 * 2 + 2 * 6) / 10)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_fails_the_trial(monkeypatch, bad):
    original = trainer_module.denoising_loss
    monkeypatch.setattr(trainer_module, "denoising_loss", lambda *args: original(*args) * bad)
    trainer = tiny()
    trainer.train_until(0.5)
    assert all(weight.isfinite().all() for weight in weights(trainer)), "its gradients are replaced"
    with pytest.raises(TrialFailed, match=r"not finite after 16 images; try a lower trainer\.lr"):
        trainer.take_loss()


def test_tf32_needs_a_gpu():
    with pytest.raises(TrialFailed, match="tf32 needs an NVIDIA GPU"):
        tiny(precision="tf32")


def test_bf16_trains_float32_weights():
    rough, exact = tiny(precision="bf16", warmup=1), tiny(warmup=1)
    rough.train_until(1.0)
    exact.train_until(1.0)
    assert {weight.dtype for weight in weights(rough)} == {torch.float32}
    assert rough.take_loss() == pytest.approx(exact.take_loss(), rel=0.3)


def test_fp32_is_ieee():
    tiny()
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"


@pytest.mark.parametrize("law", [EDM(), VP()], ids=["edm", "vp"])
def test_the_optimum_has_nothing_to_train(law):
    configuration = Configuration(data=Digits(resolution=4), network=Optimum(), diffusion=law, trainer=PAPER)
    trainer = Trainer(configuration, images(5), 0, CPU)
    assert trainer.progress == 1
    trainer.train_until(1.0)
    assert trainer.position == 0
    assert trainer.sampling_weights() == []
    trainer.load_state_dict(trainer.state_dict())
    assert trainer.sample([1], Measurement(sampler_steps=10)).shape == (1, 1, 4, 4)
