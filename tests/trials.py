"""Trials of a moment, run to their end, and what they left."""

import numpy as np
import torch
from safetensors.torch import load_file

from trainables.config.data import Digits
from trainables.config.diffusion import EDM
from trainables.config.fields import with_fields
from trainables.config.measurement import Measurement
from trainables.config.network import DDPMpp
from trainables.config.training import StandardTrainer
from trainables.config.trial import Configuration, TrialSpec
from trainables.data.images import ImageData
from trainables.training.build import build_trainer
from trainables.training.trainer import Trainer
from trainables.trial.result import read_all, trial_directory
from trainables.trial.trial import Pace, Trial

CPU = torch.device("cpu")
SPEC = TrialSpec(
    name="tiny",
    configuration=Configuration(
        data=Digits(resolution=4),
        network=DDPMpp(width=4, depth=1, multipliers=(1,), attention=()),
        diffusion=EDM(),
        trainer=StandardTrainer(
            length=8, batch=4, lr=2e-2, warmup=1, ema_rampup=0.0, ema_decay=0.7
        ),
    ),
    measurement=Measurement(
        n_samples=10, n_selection=12, snapshots=4, sampler_steps=3, batch=4, k=0.9
    ),
    n=6,
    seed=0,
    # 12 steps; a snapshot after every third; 3 batches of final samples; at this k some of what is
    # generated counts
)
OPTIMUM = with_fields(
    SPEC, {"configuration.network.kind": "optimum", "measurement.sampler_steps": 18}
)


def data(size=20, labels=True, copies=0):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (size, 1, 4, 4)).astype(np.uint8)
    images[1 : 1 + copies] = images[0]
    return ImageData.of(images, np.arange(size) % 2 if labels else None, "test")


DATA = data()


def start(sweep, spec=SPEC, dataset=DATA, pace=None, build=build_trainer):
    return Trial(spec, dataset, sweep, CPU, pace or Pace(), build)


def built(kind):
    """How a trial builds its trainer, where that is of a kind of ours with a fault or an ear."""

    def build(configuration, images, labels, seed, device):
        return kind(configuration, images, seed, device, labels)

    return build


class Untrained(Trainer):
    def train_until(self, progress):
        raise AssertionError("it trains")


def not_built(configuration, images, labels, seed, device):
    raise AssertionError("it builds a trainer")


def finish(trial):
    """Runs a trial to its end; the number of steps that took, and the state in which the training
    ended."""
    steps, trained = 0, None
    while trial.result is None:
        if trained is None and trial.report()["state"] == "measuring":
            trained = deep_copy(trial.training.trainer.state_dict())
        trial.step()
        steps += 1
        assert steps < 200
    return steps, trained


def deep_copy(value):
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: deep_copy(item) for key, item in value.items()}
    return [deep_copy(item) for item in value] if isinstance(value, list | tuple) else value


def assert_same(a, b):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def numbers(result):
    """A result without what is allowed to differ between two runs."""
    content = result.model_dump(exclude={"seconds", "finished_at", "hardware"})
    for snapshot in content["curve"]:
        del snapshot["seconds"]
    return content


def measured(sweep, spec=SPEC, dataset=DATA):
    directory = trial_directory(sweep, spec.training_key(dataset.digest))
    with np.load(directory.path("measurement.npz")) as content:
        arrays = {name: content[name] for name in content.files}
    return arrays, load_file(directory.path("weights.safetensors"))


def assert_same_trial(one, other):
    """Results, samples, distances and weights in two storages."""
    results = [read_all(sweep)[0] for sweep in (one, other)]
    assert [numbers(result) for result in results[0]] == [numbers(result) for result in results[1]]
    for a, b in zip(measured(one), measured(other), strict=True):
        if isinstance(a, dict):
            assert a.keys() == b.keys()
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])
        else:
            assert_same(a, b)


def files(sweep, spec=SPEC):
    directory = trial_directory(sweep, spec.training_key(DATA.digest))
    return {
        name: directory.filesystem.get_file_info(directory.path(name)).mtime_ns
        for name in directory.list()
    }
