"""What every trainer promises a trial, ours and a user's: see trainables.training.build.AnyTrainer.

A new kind of trainer is a line in KINDS.
"""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trials import assert_same
from trainables.config.data import Digits
from trainables.config.diffusion import EDM
from trainables.config.fields import with_fields
from trainables.config.measurement import Measurement
from trainables.config.network import DDPMpp
from trainables.config.training import StandardTrainer
from trainables.config.trial import Configuration
from trainables.data.images import subset_order
from trainables.data.sources import load
from trainables.training.build import build_trainer

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CPU = torch.device("cpu")
MEASUREMENT = Measurement(sampler_steps=4, batch=3)
STEPS, BATCH, N = 12, 4, 10
BASE = Configuration(
    data=Digits(),
    network=DDPMpp(width=4, depth=1, multipliers=(1,), attention=(), dropout=0.3),
    diffusion=EDM(),
    trainer=StandardTrainer(clock="steps", length=STEPS, batch=BATCH, lr=1e-3, warmup=2),
)


class Painter:
    """A user's trainer that learns the mean image of each label, and adds noise by the seed."""

    def __init__(self, configuration, images, labels, seed, device):
        self.images, self.labels, self.seed = images.double(), labels, seed
        self.batch = configuration.trainer.batch
        self.total = configuration.trainer.train_images(len(images))
        self.means = torch.rand(2, *images.shape[1:], dtype=torch.float64)
        self.images_trained, self.errors = 0, []

    def train_until(self, progress):
        while self.images_trained < progress * self.total:
            generator = torch.Generator().manual_seed(self.seed + self.images_trained)
            chosen = torch.randint(len(self.images), (self.batch,), generator=generator)
            for image, label in zip(self.images[chosen], self.labels[chosen] % 2, strict=True):
                self.errors.append(float((image - self.means[label]).square().mean()))
                self.means[label] = 0.9 * self.means[label] + 0.1 * image
            self.images_trained += self.batch

    def take_loss(self):
        errors, self.errors = self.errors, []
        return sum(errors) / len(errors) if errors else 0.0

    def sample(self, seeds, labels):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = [torch.rand(self.means[0].shape, generator=generator) for generator in generators]
        return (self.means[labels % 2] * torch.stack(noise)).round().to(torch.uint8)

    def state_dict(self):
        return {"means": self.means, "images": self.images_trained, "errors": self.errors}

    def load_state_dict(self, state):
        self.means, self.images_trained = state["means"].clone(), state["images"]
        self.errors = list(state["errors"])


def users(builder):
    return {"trainer.kind": "custom", "trainer.builder": builder}


KINDS = {
    "plain": {},
    "conditional": {"labels.kind": "true"},
    "flips in micro-batches": {"trainer.augment": "flip", "trainer.micro_batch": 3},
    "vp": {"diffusion.kind": "vp"},
    "reshuffled epochs": {"trainer.order": "reshuffled", "trainer.clock": "epochs"},
    "stratified": {"diffusion.stratified": True},
    "fixed noise": {"trainer.noise_draws": 2, "diffusion.stratified": True},
    "sgd without average": {"trainer.optimizer": "sgd", "trainer.ema_decay": 0.0},
    "bf16": {"trainer.precision": "bf16"},
    "optimum": {"network.kind": "optimum"},
    "a user's": {"labels.kind": "true", **users(f"{__name__}:Painter")},
    "a user's example": users("my_trainer:LatentDiffusion"),
}
PARTS = (0.05, 0.3, 0.31, 0.9, 1.0)  # of a training


class Maker:
    """Builds trainers of one kind, each time the same one; labels: of five samples."""

    def __init__(self, changes):
        data = load(Digits())
        subset = subset_order(data, 0)[:N]
        self.configuration = with_fields(
            BASE,
            {"trainer.clock": "steps", "trainer.length": STEPS, "trainer.batch": BATCH} | changes,
        )
        self.images, self.all_labels = torch.from_numpy(data.images[subset]), None
        if self.configuration.labels.kind != "none":
            self.all_labels = torch.from_numpy(data.labels[subset].astype(np.int64))
        self.labels = None if self.all_labels is None else self.all_labels[:5]

    def new(self, seed=3):
        return build_trainer(self.configuration, self.images, self.all_labels, seed, CPU)

    def trained(self, progress=1.0):
        trainer = self.new()
        trainer.train_until(progress)
        return trainer

    def sample(self, trainer, seeds=(11, 12, 13, 14, 15)):
        return trainer.sample(list(seeds), MEASUREMENT, self.labels)


@pytest.fixture(params=KINDS)
def maker(request, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return Maker(KINDS[request.param])


def kept(trainer):
    """The state of a trainer as a checkpoint gives it back."""
    stream = io.BytesIO()
    torch.save(trainer.state_dict(), stream)
    return torch.load(io.BytesIO(stream.getvalue()), weights_only=True)


def draw_numbers():
    """Somebody else uses torch's global generator."""
    torch.manual_seed(99)
    torch.rand(7)


def assert_same_state(one, other):
    assert_same(kept(one), kept(other))
    assert (one.position, one.progress) == (other.position, other.progress)


def test_it_begins_at_nothing_and_ends_at_all(maker):
    trainer = maker.new()
    assert (trainer.position, trainer.interrupted) == (0, False)
    assert trainer.progress == (0 if trainer.total else 1)
    trainer.train_until(1.0)
    assert trainer.progress == 1
    assert trainer.position == trainer.total


def test_it_trains_in_slices_as_in_one_go(maker):
    """Bit for bit, whatever is sampled or drawn in between."""
    sliced = maker.new()
    for progress in PARTS:
        draw_numbers()
        sliced.train_until(progress)
        maker.sample(sliced)
    assert_same_state(sliced, maker.trained())


@pytest.mark.parametrize("stop", [0.0, 0.31, 1.0])
def test_a_new_one_that_loads_its_state_goes_on_as_if_it_had_never_stopped(maker, stop):
    first, second = maker.new(), maker.new()
    if stop:
        first.train_until(stop)
    state = kept(first)
    draw_numbers()
    second.load_state_dict(state)
    assert_same_state(second, first)
    if second.progress < 1:
        second.train_until(1.0)
    assert_same_state(second, maker.trained())
    assert torch.equal(maker.sample(second), maker.sample(maker.trained()))


def test_a_state_that_was_loaded_is_its_own(maker):
    first, second = maker.trained(0.3), maker.new()
    second.load_state_dict(kept(first))
    before = kept(second)
    first.train_until(1.0)
    assert_same(kept(second), before)


def test_an_image_depends_on_its_seed_and_label_alone(maker):
    trainer = maker.trained()
    images = maker.sample(trainer)
    assert (images.shape, images.dtype, images.device) == ((5, 1, 8, 8), torch.uint8, CPU)
    draw_numbers()
    assert torch.equal(maker.sample(trainer), images)
    other = maker.sample(trainer, seeds=(21, 22, 13, 24, 25))
    assert torch.equal(other[2], images[2])
    assert not any(torch.equal(other[number], images[number]) for number in (0, 1, 3, 4))


def test_another_seed_is_another_training(maker):
    one, other = maker.new(seed=3), maker.new(seed=4)
    for trainer in (one, other):
        trainer.train_until(1.0)
    nothing_to_train = one.total == 0
    assert torch.equal(maker.sample(one), maker.sample(other)) == nothing_to_train


def test_what_it_samples_with_is_a_copy_that_another_takes_over(maker):
    first, second = maker.trained(0.3), maker.new()
    weights, images = first.sampling_weights(), maker.sample(first)
    first.train_until(1.0)
    second.load_sampling_weights(weights)
    assert torch.equal(maker.sample(second), images)


def test_one_that_is_interrupted_is_whole(maker):
    """It stops early, or, a user's, at the end of its slice; another one goes on from there."""
    first, second = maker.new(), maker.new()
    first.train_until(0.05)
    first.interrupted = True
    first.train_until(0.3)
    assert 0 <= first.position <= first.total
    second.load_state_dict(kept(first))
    second.train_until(1.0)
    assert_same_state(second, maker.trained())


def test_the_loss_is_the_mean_since_it_was_taken(maker):
    trainer = maker.trained(0.5)
    whole = trainer.take_loss()
    assert whole is None or math.isfinite(whole)
    sliced, parts = maker.new(), []
    for progress in (0.25, 0.5):
        sliced.train_until(progress)
        parts.append(sliced.take_loss())
    if whole is None:
        assert parts == [None, None]
    elif trainer.total == STEPS * BATCH:  # two parts of as many steps
        assert sum(parts) / 2 == pytest.approx(whole)
