"""The training loop: exact epochs, the paper's clocks and averages, and randomness that depends on
the position alone."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from trainables.config.data import Digits
from trainables.config.diffusion import EDM, VP
from trainables.config.fields import with_fields
from trainables.config.measurement import Measurement
from trainables.config.network import DDPMpp, Optimum
from trainables.config.training import StandardTrainer
from trainables.config.trial import Configuration
from trainables.diffusion.sampling import from_uint8
from trainables.errors import TrialFailed
from trainables.training.trainer import Trainer, ema_decay

CPU = torch.device("cpu")
PAPER = StandardTrainer()
TINY = Configuration(
    data=Digits(resolution=4),
    network=DDPMpp(width=4, depth=1, multipliers=(1,), attention=()),
    diffusion=EDM(),
    trainer=StandardTrainer(length=3, batch=4, lr=1e-3, warmup=0),
)


def images(n, seed=0):
    return torch.from_numpy(
        np.random.default_rng(seed).integers(0, 256, (n, 1, 4, 4)).astype(np.uint8)
    )


def tiny(n=10, seed=0, data_seed=0, loss=None, **changes):
    """loss: in place of the denoising loss."""
    fields = {f"trainer.{name}": value for name, value in changes.items()}
    trainer = Trainer(with_fields(TINY, fields), images(n, data_seed), seed, CPU)
    if loss is not None:
        trainer.batch_loss = loss
    return trainer


def weights(trainer):
    return [weight.detach().clone() for weight in trainer.weights]


def equal(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def record_batches(trainer):
    """Collects the images of every batch that is trained on."""
    batches, loss = [], trainer.batch_loss

    def listen(denoiser, law, images, *others):
        batches.append(images)
        return loss(denoiser, law, images, *others)

    trainer.batch_loss = listen
    return batches


def trained_order(trainer):
    """Trains to the end; positions, in the subset, of the images that were trained on."""
    batches, pixels = record_batches(trainer), from_uint8(trainer.images)
    trainer.train_until(1.0)
    return [
        int((pixels == image).all(dim=3).all(dim=2).all(dim=1).nonzero())
        for image in torch.cat(batches)
    ]


# ---------------------------------------------------------------- what is trained on


@pytest.mark.parametrize("order", ["cycled", "reshuffled"])
@pytest.mark.parametrize(
    ("n", "batch", "length"), [(10, 4, 3), (3, 8, 5), (7, 7, 2), (5, 64, 4), (2, 1, 2)]
)
def test_epochs_are_exact(n, batch, length, order):
    """Every image exactly `length` times, every epoch a permutation; the last step takes what is
    left."""
    trainer = tiny(n, batch=batch, length=length, order=order)
    seen = trained_order(trainer)
    assert trainer.position == trainer.total == n * length == len(seen)
    epochs = [seen[start : start + n] for start in range(0, len(seen), n)]
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    if n >= 7:
        assert (epochs[0] == epochs[1]) == (order == "cycled")
    assert trainer.progress == 1


def test_steps_are_exact():
    seen = trained_order(tiny(10, clock="steps", length=7, batch=4))
    assert len(seen) == 28
    assert sorted(seen[:20]) == sorted(list(range(10)) * 2)


def test_order_depends_on_the_seed_alone():
    def order(**options):
        return trained_order(tiny(12, **options))

    assert order() == order(lr=1e-2) == order(data_seed=1)
    assert order() != order(seed=1)


def test_batches_hold_the_images_themselves():
    trainer = tiny(6, length=1)
    seen = record_batches(trainer)
    trainer.train_until(1.0)
    pixels = torch.cat(seen)
    assert (pixels.min() >= -1, pixels.max() <= 1) == (True, True)
    trained = sorted((pixels.flatten(1).double() * 127.5 + 127.5).round().int().tolist())
    assert trained == sorted(images(6).flatten(1).int().tolist())


# ---------------------------------------------------------------- learning rate


def test_learning_rate_of_the_paper():
    """Linear over 200 epochs, then constant to the end of 40,000."""
    for n in (1000, 2000, 5000):
        assert PAPER.lr_factor(n, 0) < 0.01
        assert PAPER.lr_factor(n, 50 * n) == pytest.approx(0.25, abs=0.003)
        assert PAPER.lr_factor(n, 100 * n) == pytest.approx(0.5, abs=0.003)
        assert PAPER.lr_factor(n, 200 * n) == 1
        assert PAPER.lr_factor(n, 40_000 * n - 512) == 1


def test_learning_rate_with_decay():
    """The recipe for one core: 600 steps, 50 of warm-up, falling over the last 60 %."""
    recipe = StandardTrainer(clock="steps", length=600, batch=64, warmup=50, decay=0.6)
    factors = [recipe.lr_factor(48, 64 * step) for step in range(600)]
    assert factors[25] == pytest.approx(0.5, abs=0.03)
    assert factors[50:240] == [1.0] * 190
    assert factors[420] == pytest.approx(0.5)
    assert 0 < factors[-1] < 0.01
    assert max(factors) == 1
    assert factors == [recipe.lr_factor(999, 64 * step) for step in range(600)], (
        "the clock is steps"
    )
    assert StandardTrainer(warmup=0).lr_factor(10, 0) == 1


@pytest.mark.parametrize(("warmup", "expected"), [(0, 1.0), (8, 0.05)])
def test_the_first_step_has_that_size(warmup, expected):
    """Adam's first step moves every weight by the learning rate whose gradient is far above
    epsilon."""
    trainer = tiny(10, lr=1e-3, warmup=warmup, eps=1e-12)
    before = weights(trainer)
    trainer.train_until(0.01)
    moved = torch.cat(
        [(a - b).abs().flatten() for a, b in zip(weights(trainer), before, strict=True)]
    )
    assert float(moved.max()) == pytest.approx(1e-3 * expected, rel=0.02)


def test_weight_decay_is_in_the_gradient():
    """As L2: a weight without a gradient of its own moves by the whole learning rate (decoupled, it
    would be lr·decay)."""
    skips = {"network.skips": [False, True], "network.width": 8, "trainer.eps": 1e-30}
    for decay, expected in ((0.0, 0.0), (1e-3, 1e-3)):
        trainer = Trainer(
            with_fields(TINY, skips | {"trainer.weight_decay": decay}), images(6), 0, CPU
        )
        scale = trainer.denoiser.network.decoder[
            -1
        ].norm0.weight  # of its 16 channels the last 8 come from a removed skip
        before = scale.detach().clone()
        trainer.train_until(0.01)
        torch.testing.assert_close(
            (before - scale.detach())[8:], torch.full((8,), expected), atol=1e-6, rtol=1e-3
        )


# ---------------------------------------------------------------- EMA


def test_ema_of_the_paper():
    """Half-life 500,000 images at batch 512, at most 5 % of what was seen."""
    assert ema_decay(PAPER, 10**9) == pytest.approx(0.99929, rel=1e-9)
    assert ema_decay(PAPER, 10_000_000 + 512) == pytest.approx(0.99929, abs=1e-6), (
        "ramp-up is over after 10 M images"
    )
    for seen in (51_200, 1_000_000, 5_000_000):
        decay = ema_decay(PAPER, seen)
        steps = math.log(0.5) / math.log(decay)
        assert steps * 512 == pytest.approx(0.05 * seen)
    assert ema_decay(PAPER, 512 * 20) == pytest.approx(0.5), "a half-life of one step"
    assert ema_decay(StandardTrainer(ema_rampup=0), 512) == pytest.approx(0.99929)
    assert ema_decay(StandardTrainer(ema_decay=0), 512) == 0


def test_the_average_ramps_up_with_the_images_seen_at_its_step():
    """By hand, in every step: after s steps of 4 images the half-life is half of the 4 s images
    seen, 1/2^(2/s) is kept."""
    trainer = tiny(10, batch=4, length=4, ema_decay=0.99, ema_rampup=0.5)
    expected = weights(trainer)
    for step in range(1, 6):
        trainer.train_until(4 * step / 40)
        kept = 0.5 ** (2 / step)
        expected = [
            kept * old + (1 - kept) * new
            for old, new in zip(expected, weights(trainer), strict=True)
        ]
        for average, by_hand in zip(trainer.averages.views, expected, strict=True):
            torch.testing.assert_close(average, by_hand)


def test_without_ema_the_weights_themselves_are_sampled():
    trainer = tiny(ema_decay=0.0)
    trainer.train_until(0.5)
    assert equal(trainer.sampling_weights().values(), weights(trainer))


def test_ema_averages_the_weights():
    trainer = tiny(ema_decay=0.9, ema_rampup=0.0)
    expected = [weight.double() for weight in weights(trainer)]
    while trainer.progress < 1:
        trainer.train_until(trainer.progress + 1e-3)
        expected = [
            0.9 * e + 0.1 * w.double() for e, w in zip(expected, weights(trainer), strict=True)
        ]
    for value, reference in zip(trainer.sampling_weights().values(), expected, strict=True):
        torch.testing.assert_close(value.double(), reference, rtol=1e-5, atol=1e-7)
    assert not equal(trainer.sampling_weights().values(), weights(trainer))


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
    averaged.values.fill(
        list(averaged.sampling_weights().values())
    )  # the average becomes the weights, and the weights are the average
    averaged.load_sampling_weights([weight.detach() for weight in averaged.weights])
    assert torch.equal(averaged.sample([1, 2, 3], how), out)


# ---------------------------------------------------------------- randomness


def test_noise_depends_on_seed_and_position():
    """New noise at every step, the same for every configuration: that pairs them."""

    def noise(seed=0, **changes):
        drawn = []

        def loss(denoiser, *_):
            drawn.append(float(torch.randn(())))
            return sum(weight.sum() for weight in denoiser.parameters())

        tiny(seed=seed, loss=loss, **changes).train_until(1.0)
        return drawn

    first = noise()
    assert len(set(first)) == 8
    assert noise(lr=1e-2) == first
    assert not set(noise(seed=1)) & set(first)


def test_initialization_depends_on_configuration_and_seed():
    assert equal(weights(tiny()), weights(tiny(n=5, data_seed=3))), "not on the data or N"
    assert not equal(weights(tiny()), weights(tiny(seed=1)))
    assert not equal(weights(tiny()), weights(tiny(lr=2e-3)))


# ---------------------------------------------------------------- loss, failure


def test_training_lowers_the_loss():
    trainer = tiny(2, length=150, batch=8, lr=1e-2, clock="steps")
    trainer.train_until(0.05)
    first = trainer.take_loss()
    trainer.train_until(0.8)
    trainer.take_loss()
    trainer.train_until(1.0)
    assert trainer.take_loss() < 0.6 * first
    assert trainer.take_loss() == 0, "nothing since"


def losses(*values):
    """Of one batch after the other, with gradients of the same kind; after them, 1."""
    script = iter(values)

    def scripted(denoiser, *_):
        return sum(weight.sum() for weight in denoiser.parameters()) * 0 + next(script, 1.0)

    return scripted


def test_loss_is_the_mean_per_image():
    trainer = tiny(10, length=1, loss=losses(1.0, 2.0, 6.0))  # steps of 4, 4 and 2 images
    trainer.train_until(1.0)
    assert trainer.take_loss() == pytest.approx((4 * 1 + 4 * 2 + 2 * 6) / 10)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_losses_that_stay_non_finite_fail_the_trial(bad):
    """Ten batches in a row, seen at the end of the slice they are in, wherever slices and snapshots
    fall."""
    for before, seen_after in ((0, 160), (16, 68)):
        script = losses(*[1.0] * 7, *[bad] * 30)
        trainer = tiny(clock="steps", length=40, loss=script)
        for step in range(1, before + 1):
            trainer.train_until(step / 40)
        with pytest.raises(
            TrialFailed, match=rf"not finite after {seen_after} images; try a lower trainer\.lr"
        ):
            trainer.train_until(1.0 if before == 0 else 17 / 40)


def test_a_few_non_finite_losses_are_passed_over():
    """Nine in a row do not fail it, nor eighteen that are not in a row; the mean is over the
    others."""
    script = losses(2.0, *[math.nan] * 9, 4.0, *[math.inf] * 9, *[6.0] * 5)
    trainer = tiny(clock="steps", length=25, loss=script)
    trainer.train_until(1.0)
    assert trainer.take_loss() == pytest.approx((2 + 4 + 5 * 6) / 7)


def test_non_finite_losses_are_counted_across_a_checkpoint():
    script = losses(*[math.nan] * 20)
    first, second = (tiny(clock="steps", length=20, loss=script) for _ in range(2))
    first.train_until(6 / 20)
    second.load_state_dict(first.state_dict())
    second.train_until(9 / 20)
    with pytest.raises(TrialFailed, match="after 40 images"):
        second.train_until(10 / 20)


def test_no_finite_loss_since_the_last_snapshot_is_a_failure():
    trainer = tiny(clock="steps", length=3, loss=losses(1.0, math.nan, math.nan))
    trainer.train_until(1 / 3)
    assert trainer.take_loss() == 1
    trainer.train_until(1.0)
    with pytest.raises(TrialFailed, match="not finite after 12 images"):
        trainer.take_loss()


def test_a_non_finite_gradient_is_replaced():
    """NaN by 0, infinity by 1e5 (Gu et al. 2023)."""
    trainer = tiny(optimizer="sgd", betas=(0.0, 0.0), lr=1e-3, ema_decay=0)
    before, last = weights(trainer), trainer.weights[-1]
    last.register_hook(lambda gradient: torch.full_like(gradient, math.inf))
    trainer.weights[0].register_hook(lambda gradient: torch.full_like(gradient, math.nan))
    trainer.train_until(0.01)
    torch.testing.assert_close(last.detach(), before[-1] - 100)
    assert torch.equal(trainer.weights[0].detach(), before[0])


# ---------------------------------------------------------------- optimizers, micro-batches,
# augmentation, labels


def one_step(**changes):
    """Weights before and after the first step, and its gradient."""
    trainer = tiny(ema_decay=0, **changes)
    before = weights(trainer)
    trainer.train_until(0.01)
    return before, weights(trainer), [view.clone() for view in trainer.gradients.views]


def test_sgd_follows_the_gradient_and_the_penalty():
    for w, moved, gradient in zip(
        *one_step(optimizer="sgd", lr=0.1, weight_decay=0.5), strict=True
    ):
        torch.testing.assert_close(moved, w - 0.1 * (gradient + 0.5 * w))


def test_sgd_takes_beta_1_as_momentum():
    trainer = tiny(optimizer="sgd", lr=0.1, betas=(0.8, 0.0), clock="steps", length=2)
    expected, velocity = weights(trainer), [torch.zeros_like(weight) for weight in weights(trainer)]
    for progress in (0.5, 1.0):
        trainer.train_until(progress)
        velocity = [
            0.8 * v + gradient
            for v, gradient in zip(velocity, trainer.gradients.views, strict=True)
        ]
        expected = [w - 0.1 * v for w, v in zip(expected, velocity, strict=True)]
    for weight, reference in zip(weights(trainer), expected, strict=True):
        torch.testing.assert_close(weight, reference)


def test_adamw_decouples_the_weight_decay():
    """Its first step is lr·sign of the loss's own gradient (but for eps), and lr·decay of the
    weight itself."""
    for w, moved, gradient in zip(
        *one_step(optimizer="adamw", lr=1e-2, weight_decay=0.5), strict=True
    ):
        adam = gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(moved, w * (1 - 1e-2 * 0.5) - 1e-2 * adam, atol=1e-6, rtol=1e-4)


def test_learning_rate_that_grows_with_the_batch():
    """As in the paper's study of the batch, where lr / batch is fixed."""
    rates = [StandardTrainer(batch=batch, lr_batch=512).scaled_lr for batch in (128, 512, 896)]
    assert rates == pytest.approx([5e-5, 2e-4, 3.5e-4])
    assert StandardTrainer(batch=128).scaled_lr == 2e-4
    before, after, _ = one_step(lr=1e-3, batch=8, lr_batch=4)
    moved = torch.cat([(a - b).abs().flatten() for a, b in zip(after, before, strict=True)])
    assert float(moved.max()) == pytest.approx(2e-3, rel=1e-2)


@pytest.mark.parametrize("micro", [1, 3, 4, 9])
def test_micro_batches_do_not_change_the_mathematics(micro):
    """Without dropout; sums are rounded in another order."""
    changes = {"network.dropout": 0.0, "diffusion.stratified": True, "trainer.augment": "flip"}
    whole = Trainer(with_fields(TINY, changes), images(10), 0, CPU)
    cut = Trainer(with_fields(TINY, changes | {"trainer.micro_batch": micro}), images(10), 0, CPU)
    assert equal(weights(whole), weights(cut))
    for trainer in (whole, cut):
        trainer.train_until(0.01)
    for a, b in zip(whole.gradients.views, cut.gradients.views, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    for trainer in (whole, cut):
        trainer.train_until(1.0)
    assert cut.take_loss() == pytest.approx(whole.take_loss(), rel=1e-3)


def listening():
    """A loss, and what each of its calls is given: images, labels, noise levels, noise."""
    seen = []

    def listen(denoiser, law, batch, labels, noise):
        seen.append((batch, labels, *noise))
        return sum(weight.sum() for weight in denoiser.parameters()) * 0

    return listen, seen


def test_a_micro_batch_is_what_the_network_sees():
    loss, seen = listening()
    tiny(10, length=1, batch=8, micro_batch=3, loss=loss).train_until(1.0)
    assert [len(batch) for batch, _, _, _ in seen] == [3, 3, 2, 2]
    assert [len(noise) for *_, noise in seen] == [3, 3, 2, 2]


def test_flips():
    """Half of the images, whole ones, at random; noise is the same as without."""
    loss, seen = listening()
    for augment in ("none", "flip"):
        tiny(1, length=400, batch=400, augment=augment, loss=loss).train_until(1.0)
    (plain, _, *noise), (flipped, _, *same_noise) = seen
    mirrored = (flipped == plain.flip(-1)).all(dim=3).all(dim=2).all(dim=1)
    kept = (flipped == plain).all(dim=3).all(dim=2).all(dim=1)
    assert (mirrored ^ kept).all()
    assert 150 < int(mirrored.sum()) < 250
    assert equal(noise, same_noise)


# ---------------------------------------------------------------- fixed noise


def visits(n=6, seed=0, law=None, **changes):
    """What each image meets whenever it is trained on: image → [(σ, ε as bytes)], in order."""
    loss, seen = listening()
    fields = {f"trainer.{name}": value for name, value in changes.items()} | (law or {})
    trainer = Trainer(with_fields(TINY, fields), images(n), seed, CPU)
    trainer.batch_loss = loss
    while trainer.progress < 1:  # the slices are none of the noise's business
        trainer.train_until(min(trainer.progress + 0.3, 1.0))
    found, pixels = {i: [] for i in range(n)}, from_uint8(trainer.images)
    for batch, _, sigma, epsilon in seen:
        for image, level, noise in zip(batch, sigma, epsilon, strict=True):
            number = int((pixels == image).all(dim=3).all(dim=2).all(dim=1).nonzero())
            found[number].append((float(level), noise.numpy().tobytes()))
    return found


@pytest.mark.parametrize("order", ["cycled", "reshuffled"])
@pytest.mark.parametrize("draws", [1, 2, 5])
def test_each_image_takes_its_draws_in_turn(draws, order):
    """In whole epochs, whatever their order: each of them equally often, and none is another's."""
    found = visits(length=10, noise_draws=draws, order=order)
    for of_image in found.values():
        assert len(of_image) == 10
        assert of_image[:draws] * (10 // draws) == of_image
        assert len(set(of_image)) == draws
    assert len({draw for of_image in found.values() for draw in of_image}) == 6 * draws


def test_a_draw_depends_on_seed_image_and_number_alone():
    """Not on batches, learning rate, or order, nor on what is trained beside it."""
    known = {image: set(drawn) for image, drawn in visits(noise_draws=3, length=3).items()}

    def same(**options):
        found = visits(**{"noise_draws": 3, "length": 3, **options})
        return {image: set(drawn) for image, drawn in found.items()} == known

    assert same(batch=1)
    assert same(batch=5, micro_batch=2)
    assert same(order="reshuffled", lr=1e-2)
    assert same(augment="none", optimizer="sgd", length=6)
    assert not same(seed=1)
    fewer = visits(noise_draws=2, length=2)
    assert all(set(drawn) <= known[image] for image, drawn in fewer.items()), "the first two of it"


def test_as_many_draws_as_epochs_are_new_ones_at_every_visit():
    few, many = (visits(noise_draws=draws, length=4) for draws in (4, 10**9))
    assert all(len(set(drawn)) == 4 for drawn in few.values())
    assert all(len(set(drawn)) == 4 for drawn in many.values())


def uniforms(found, law):
    """The quantiles of the noise levels under a normal law of ln σ, for each image."""
    sigma = np.array([[level for level, _ in drawn] for drawn in found.values()])
    return norm.cdf((np.log(sigma) - law["diffusion.P_mean"]) / law["diffusion.P_std"])


@pytest.mark.parametrize("stratified", [False, True])
def test_fixed_noise_has_the_laws_of_new_noise(stratified):
    law = {"diffusion.P_mean": -0.4, "diffusion.P_std": 0.8, "diffusion.stratified": stratified}
    found = visits(20, law=law, noise_draws=40, length=40, batch=20)
    u = uniforms(found, law)
    assert kstest(u.ravel(), "uniform").pvalue > 0.01
    noise = np.frombuffer(b"".join(b for drawn in found.values() for _, b in drawn), np.float32)
    assert kstest(noise, "norm").pvalue > 0.01
    of_levels = np.corrcoef(u.ravel(), noise.reshape(800, -1), rowvar=False)[0, 1:]
    assert np.abs(of_levels).max() < 4 / math.sqrt(800), "no level says anything of its noise"
    bins = [sorted(map(int, 40 * of_image)) for of_image in u]
    assert all(one == list(range(40)) for one in bins) == stratified, "one draw in each bin"


@pytest.mark.parametrize("draws", [10, 20, 100, 997, 10**6])
def test_stratified_draws_are_spread_over_a_batch_and_over_visits(draws):
    """Nowhere a gap of more than three times the mean, among the images of an epoch and among the
    visits of an image: were draws in a row of noise levels in a row, a batch would have one."""
    law = {"diffusion.P_mean": -0.4, "diffusion.P_std": 0.8, "diffusion.stratified": True}
    u = uniforms(visits(20, law=law, noise_draws=draws, length=20, batch=20), law)
    for levels in [*u, *u.T]:
        gaps = np.diff([0, *sorted(levels), 1])
        assert gaps.max() < 3 / min(draws, 20)


def test_fixed_noise_is_kept_nowhere():
    """A trainer of 10^9 draws has no tensor that others lack, but for the order on the CPU."""
    state = tiny(noise_draws=10**9).state_dict()
    assert state.keys() == tiny().state_dict().keys()
    fixed = tiny(noise_draws=10**9).fixed_noise
    held = [value for value in vars(fixed).values() if isinstance(value, torch.Tensor)]
    assert held == []


def test_labels_stay_with_their_images():
    loss, seen = listening()
    pixels = (
        torch.arange(0, 250, 25, dtype=torch.uint8)
        .reshape(10, 1, 1, 1)
        .expand(10, 1, 4, 4)
        .contiguous()
    )
    configuration = with_fields(TINY, {"labels.kind": "unique", "trainer.micro_batch": 3})
    trainer = Trainer(configuration, pixels, 0, CPU, torch.arange(10))
    trainer.batch_loss = loss
    trainer.train_until(1.0)
    levels = torch.cat([(batch[:, 0, 0, 0] * 127.5 + 127.5).round() for batch, *_ in seen])
    labels = torch.cat([labels for _, labels, *_ in seen])
    assert len(labels) == 30
    assert torch.equal(levels, 25.0 * labels)


# ---------------------------------------------------------------- precision


def test_tf32_needs_a_gpu():
    with pytest.raises(TrialFailed, match="tf32 needs an NVIDIA GPU"):
        tiny(precision="tf32")


def test_bf16_trains_float32_weights():
    rough, exact = tiny(precision="bf16", warmup=1), tiny(warmup=1)
    rough.train_until(1.0)
    exact.train_until(1.0)
    assert {weight.dtype for weight in weights(rough)} == {torch.float32}
    assert rough.take_loss() == pytest.approx(exact.take_loss(), rel=0.3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_float32_is_ieee(precision):
    """Also after a trial in tf32, in the same process."""
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    tiny(precision=precision)
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"


@pytest.mark.parametrize("law", [EDM(), VP()], ids=["edm", "vp"])
def test_the_optimum_has_nothing_to_train(law):
    recipe = PAPER.model_copy(update={"compile": True})
    configuration = Configuration(
        data=Digits(resolution=4), network=Optimum(), diffusion=law, trainer=recipe
    )
    trainer = Trainer(configuration, images(5), 0, CPU)
    assert trainer.progress == 1
    assert trainer.denoise is trainer.denoiser, "there is nothing to compile for"
    trainer.train_until(1.0)
    assert trainer.position == 0
    assert trainer.sampling_weights() == {}
    trainer.load_state_dict(trainer.state_dict())
    assert trainer.sample([1], Measurement(sampler_steps=10)).shape == (1, 1, 4, 4)
