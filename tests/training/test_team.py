"""Several processes that train one trial together: the mathematics of one, and no fault that leaves
anything behind. On CPUs, with gloo; where there are GPUs, on these, and if there is one, all on it."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from tests.training.test_trainer import TINY, images, weights
from trainables.config.data import Digits
from trainables.config.fields import with_fields
from trainables.config.measurement import Measurement
from trainables.config.trial import TrialSpec
from trainables.data.sources import load
from trainables.measure.neighbours import Comparison
from trainables.storage import Storage
from trainables.training.build import build_trainer
from trainables.training.team import LOST, Ranks, Team
from trainables.training.team_trainer import TeamTrainer
from trainables.training.trainer import Trainer
from trainables.trial.shared import SharedComparison, sample_optimum
from trainables.trial.trial import Pace, Trial, choose_devices

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
SIZE = 3


def some_devices(count):
    gpus = torch.cuda.device_count()
    return [torch.device("cuda", n % gpus) if gpus else CPU for n in range(count)]


DEVICE = some_devices(1)[0]
HOW = Measurement(sampler_steps=4)


@pytest.fixture(scope="module")
def team():
    one = Team(some_devices(SIZE))
    yield one
    one.close()
    assert not any(process.is_alive() for process in one.others)


def test_shares_are_all_and_nearly_equal():
    for n in (0, 1, 2, 7, 64, 100):
        for size in (1, 2, 3, 8):
            shares = [Ranks(rank, size).share(n) for rank in range(size)]
            assert [i for share in shares for i in range(n)[share]] == list(range(n))
            lengths = [share.stop - share.start for share in shares]
            assert max(lengths) - min(lengths) <= 1


KINDS = {
    "plain": {},
    "flips, stratified": {"trainer.augment": "flip", "diffusion.stratified": True},
    "micro-batches": {"trainer.micro_batch": 2, "trainer.batch": 9},
    "reshuffled, a last batch of one": {"trainer.order": "reshuffled", "trainer.batch": 29},
    "fixed noise in micro-batches": {"trainer.noise_draws": 2, "trainer.micro_batch": 2},
    "conditional": {"labels.kind": "true"},
    "sgd": {"trainer.optimizer": "sgd", "trainer.lr": 0.05},
}


def both(team, kind, seed=5):
    """A trainer of the team, and one alone, on ten images."""
    configuration = with_fields(TINY, {"network.dropout": 0.0} | KINDS[kind])
    labels = torch.arange(10) % 3 if kind == "conditional" else None
    together = TeamTrainer(configuration, images(10), seed, team, labels)
    return together, Trainer(configuration, images(10), seed, DEVICE, labels)


def assert_near(one, other, atol=1e-5):
    """Weights that differ by the order of sums: they moved by 1e-2 and more."""
    for ours, theirs in zip(weights(one), weights(other), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=atol)


@pytest.mark.parametrize("kind", KINDS)
def test_a_team_trains_as_one_device(team, kind):
    together, alone = both(team, kind)
    begun = weights(alone)
    for progress in (0.4, 1.0):
        together.train_until(progress)
        alone.train_until(progress)
        assert together.position == alone.position
        assert together.take_loss() == pytest.approx(alone.take_loss(), rel=1e-4)
    assert_near(together, alone)
    moved = [(a - b).abs().max() for a, b in zip(weights(alone), begun, strict=True)]
    assert max(moved) > 1e-3
    of_samples = None if together.labels is None else torch.arange(8) % 3
    seeds = list(range(8))
    drawn = [trainer.sample(seeds, HOW, of_samples).int() for trainer in (together, alone)]
    assert (drawn[0] - drawn[1]).abs().max() <= 1
    of_images = None if together.labels is None else torch.arange(4) % 3
    errors = [trainer.denoising_errors(images(4), 0.3, of_images) for trainer in (together, alone)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)


def held_weights(member):
    return [weight.detach().clone() for weight in member.held["trainer"].weights]


def test_all_members_have_the_same_weights(team):
    together, _ = both(team, "plain")
    together.train_until(1.0)
    team.held["trainer"] = together
    first, *others = team.ask(held_weights, [()] * SIZE)
    for of_other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, of_other, strict=True))


def test_members_drop_different_weights_at_every_step(team):
    """Seen by what their generators give next."""
    configuration = with_fields(
        TINY, {"network.dropout": 0.5, "trainer.batch": 6, "trainer.length": 9}
    )
    together = TeamTrainer(configuration, images(2), 0, team)
    drawn = []
    for _ in range(2):
        together._step()
        drawn += team.ask(drawn_number, [()] * SIZE)
    assert len(set(drawn)) == 2 * SIZE


def drawn_number(member):
    return float(torch.rand(()))


def rank_if_not(member, asked):
    if member.rank == asked:
        raise ValueError("a mistake of the first one")
    return member.rank


def test_what_fails_in_the_first_leaves_no_answer_behind(team):
    with pytest.raises(ValueError, match="a mistake"):
        team.ask(rank_if_not, [(0,)] * SIZE)
    assert team.ask(rank_if_not, [(None,)] * SIZE) == [0, 1, 2]


@pytest.mark.parametrize("writer", ["team", "alone"])
def test_a_checkpoint_goes_on_on_another_number_of_devices(team, writer):
    together, alone = both(team, "flips, stratified")
    first, second = (together, alone) if writer == "team" else (alone, together)
    first.train_until(0.5)
    second.load_state_dict(first.state_dict())
    assert second.position == first.position
    first.train_until(1.0)
    whole = weights(first)
    second.train_until(1.0)
    for ours, theirs in zip(whole, weights(second), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_one_that_is_interrupted_goes_on(team):
    together, alone = both(team, "plain")
    alone.train_until(1.0)
    together.train_until(0.3)
    together.interrupted = True
    together.train_until(0.6)
    assert 0.3 <= together.progress < 0.6
    together.interrupted = False
    together.train_until(1.0)
    assert_near(together, alone)


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("n", [2, 50])
def test_neighbours_are_shared_bit_for_bit(team, flips, n):
    training, groups, others = images(40, 3), np.arange(40) // 2, images(5, 4)
    shared = SharedComparison(DEVICE, flips, team=team, training=training, groups=groups)
    turned = replace(shared, flips=not flips)
    for comparison, known, names in (
        (shared, training, groups),
        (shared, training, None),
        (shared, others, None),
        (turned, training, groups),
    ):
        ours = comparison.nearest(images(n, 9), known, names)
        alone = Comparison(DEVICE, comparison.flips).nearest(images(n, 9), known, names)
        for name in ("d1", "d2", "i1"):
            assert np.array_equal(getattr(ours, name), getattr(alone, name))
        around = Comparison(DEVICE, comparison.flips).around(images(n, 9), known, names)
        assert np.array_equal(comparison.around(images(n, 9), known, names), around)


def test_samples_of_the_optimum_are_shared(team):
    labels, of_samples = torch.arange(10) % 2, torch.arange(7) % 2
    arguments = images(10), labels, list(range(7)), of_samples, HOW, DEVICE
    assert torch.equal(sample_optimum(*arguments, team), sample_optimum(*arguments))


def test_a_trial_of_a_team(team, tmp_path):
    """The whole life of one, with its measurement; a user's trainer, or an optimum, trains alone."""
    measurement = Measurement(n_samples=40, n_selection=20, snapshots=2, sampler_steps=4)
    spec = TrialSpec(name="x", configuration=TINY, measurement=measurement, n=12, seed=1)
    data = load(Digits(resolution=4))
    results = []
    for number, of_trial in enumerate((team, None)):
        trial = Trial(spec, data, Storage(str(tmp_path / str(number))), DEVICE, team=of_trial)
        while trial.result is None:
            trial.step()
        results.append(trial.result)
    ours, alone = results
    assert ours.complete
    assert ours.n_samples == 40
    assert ours.ceiling == alone.ceiling
    assert ours.null_rate == alone.null_rate
    assert ours.curve[-1].loss == pytest.approx(alone.curve[-1].loss, rel=0.1)  # dropout
    optimum = with_fields(TINY, {"network.kind": "optimum"})
    trainer = build_trainer(optimum, images(5), None, 0, DEVICE, team)
    assert trainer.sample([1, 2, 3, 4], HOW).shape == (4, 1, 4, 4)


def test_a_trial_that_is_told_to_end_leaves_a_checkpoint_for_any_number(team, tmp_path):
    """Amid a slice, as its node is taken away."""
    measurement = Measurement(n_samples=20, n_selection=10, snapshots=2, sampler_steps=4)
    long = with_fields(TINY, {"trainer.clock": "steps", "trainer.length": 3000})
    spec = TrialSpec(name="x", configuration=long, measurement=measurement, n=12, seed=1)
    data, storage = load(Digits(resolution=4)), Storage(str(tmp_path))
    trial = Trial(spec, data, storage, DEVICE, Pace(slice_seconds=300), team=team)
    trial.step()  # a first one, by which it knows its speed
    timer = threading.Timer(0.5, trial.interrupt)
    timer.start()
    trial.step()
    trial.keep()
    position = trial.training.trainer.position
    assert 0 < position < 3000 * 4
    again = Trial(spec, data, storage, DEVICE)
    assert again.training.trainer.position == position
    assert_near(again.training.trainer, trial.training.trainer)


def test_a_trial_that_has_ended_is_let_go(team, tmp_path):
    """With its weights, optimizer and images on the device, before the next one is built."""
    measurement = Measurement(n_samples=20, n_selection=10, snapshots=2, sampler_steps=4)
    spec = TrialSpec(name="x", configuration=TINY, measurement=measurement, n=12, seed=2)
    trial = Trial(spec, load(Digits(resolution=4)), Storage(str(tmp_path)), DEVICE, team=team)
    while trial.result is None:
        trial.step()
    left = weakref.ref(trial), weakref.ref(trial.training.trainer)
    del trial
    team.let_go()
    gc.collect()
    assert [reference() for reference in left] == [None, None]


def test_nobody_else_can_reach_a_team(team):
    """It listens on loopback at most."""
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        for found in process.net_connections("inet"):
            if found.status == psutil.CONN_LISTEN:
                assert found.laddr.ip in ("127.0.0.1", "::1"), process.cmdline()


def test_whole_gpus_are_as_many_devices():
    if torch.cuda.is_available():
        cuda = torch.device("cuda")
        assert choose_devices(0) == choose_devices(1) == [cuda]
        assert choose_devices(3) == [torch.device("cuda", n) for n in range(3)]
    else:
        assert choose_devices(0) == choose_devices(1) == [CPU]
        assert choose_devices(3) == [CPU] * 3


# ---------------------------------------------------------------- faults

SCRIPT = """
import sys, time, torch
from tests.training.test_team import some_devices, told
from tests.training.test_trainer import TINY, images
from trainables.training.team import Team
from trainables.training.team_trainer import TeamTrainer
from trainables.config.fields import with_fields

if __name__ == "__main__":
    team = Team(some_devices(int(sys.argv[2])))
    team.lost = lambda reason: print("lost", reason, flush=True)
    long = with_fields(TINY, {"trainer.clock": "steps", "trainer.length": 10**6})
    trainer = TeamTrainer(long, images(10), 0, team)
    print("pids", *(process.pid for process in team.others), flush=True)
    if sys.argv[1] == "raise":
        team.tell(told)
    trainer.train_until(1.0)
"""


def told(member):
    if member.rank == 2:
        raise MemoryError("out of memory\nand more")


@pytest.fixture
def start(tmp_path):
    """Starts a team of so many; afterwards nothing of it is left."""
    started = []

    def started_with(how, size):
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "TMPDIR": str(tmp_path)}
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, how, str(size)],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        pids = [int(pid) for pid in process.stdout.readline().split()[1:]]
        others = [psutil.Process(pid) for pid in pids]
        assert len(others) == size - 1
        started.append((process, others))
        return process, others

    yield started_with
    for process, others in started:
        assert process.poll() is not None
        _, alive = psutil.wait_procs(others, timeout=20)
        assert not [other for other in alive if other.status() != psutil.STATUS_ZOMBIE]
    assert list(tmp_path.glob("emm-*")) == []


def test_a_member_that_is_killed_ends_all_without_a_reason(start):
    process, (other,) = start("train", 2)
    time.sleep(0.5)  # amid its steps
    other.kill()
    output, _ = process.communicate(timeout=40)
    assert process.returncode == LOST
    assert output == "lost \n"


def test_a_member_that_raises_says_why(start):
    """And not another one, for which it was lost."""
    process, _ = start("raise", 3)
    output, errors = process.communicate(timeout=40)
    assert process.returncode == LOST
    assert output == "lost MemoryError: out of memory\n"
    assert "Traceback" in errors


def test_none_outlives_the_first_which_alone_minds_signals(start):
    """A scheduler sends a signal to all of them: the first one writes a checkpoint, and needs the
    others."""
    process, (other,) = start("train", 2)
    for number in (signal.SIGTERM, signal.SIGINT):
        other.send_signal(number)
    time.sleep(1.0)
    assert other.is_running()
    assert process.poll() is None
    process.kill()
    process.communicate(timeout=40)
