"""Code of the user's: the contract of a network and of a trainer, mistakes in one line, and the
examples of docs/custom.md."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from search_spaces.table import SPACES
from sweep.cli.main import main
from sweep.run.checks import Sweep
from sweep.run.plan import size_of
from trainables.config.data import Digits
from trainables.config.diffusion import EDM
from trainables.config.fields import with_fields
from trainables.config.measurement import Measurement
from trainables.config.network import CustomNetwork
from trainables.config.training import CustomTrainer, StandardTrainer
from trainables.config.trial import Configuration, TrialSpec
from trainables.data.sources import load
from trainables.diffusion.denoiser import build_denoiser
from trainables.errors import TrialFailed, UserError
from trainables.storage import Storage
from trainables.training.custom import CustomTrainerAdapter, check_custom, plain_copy
from trainables.trial import checkpoint
from trainables.trial.result import read_all, trial_directory
from trainables.trial.trial import Trial

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
CPU = torch.device("cpu")

CODE = '''
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, channels, label_dim, bias):
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)
        self.label = nn.Embedding(label_dim, 1) if label_dim else None

    def forward(self, x, noise_level, labels):
        out = self.layer(x) * noise_level[:, None, None, None]
        return out if self.label is None else out + self.label(labels)[:, :, None, None]

def good(resolution, channels, label_dim, bias=True):
    return Net(channels, label_dim, bias)

class Wrong(Net):
    """Its forward does what `how` says."""
    def __init__(self, how):
        super().__init__(1, 0, True)
        self.how = how
        if how == "batchnorm":
            self.layer = nn.BatchNorm2d(1)
        if how == "list":
            self.layer, self.layers = nn.Identity(), [torch.ones(1, requires_grad=True)]
        if how == "frozen":
            self.requires_grad_(False)

    def forward(self, x, noise_level, labels):
        out = super().forward(x, noise_level, labels)
        if self.how == "raises":
            raise RuntimeError("mat1 and mat2 differ\\nand more lines")
        if self.how == "list":  # of layers that torch does not see
            return x * self.layers[0]
        if self.how == "inplace":
            return out.exp().add_(1)
        return {
            "shape": out[:, :, 1:],
            "tuple": (out,),
            "dtype": out.int(),
            "nan": out / 0 * 0,
            "detached": out.detach(),
        }.get(self.how, out)

def wrong(resolution, channels, label_dim, how):
    return Wrong(how)

class Unconditional(Net):
    def forward(self, x, noise_level):
        return super().forward(x, noise_level, None)

def unconditional(resolution, channels, label_dim):
    return Unconditional(channels, 0, True)

def conditional(resolution, channels, label_dim):
    assert label_dim == 10, "ten labels"
    return Net(channels, label_dim, True)

def not_a_module(resolution, channels, label_dim):
    return lambda x, noise_level, labels: x

def raising(resolution, channels, label_dim):
    raise KeyError("weights")

def leaving(resolution, channels, label_dim):
    raise SystemExit(3)

class Half:
    def train_until(self, progress): ...
    def sample(self, seeds, labels): ...

def half(*arguments):
    return Half()

def four(configuration, images, labels, seed):
    return Half()

def exact(configuration, images, labels, seed, device, rate):
    return Half()
'''


@pytest.fixture
def user_code(tmp_path, monkeypatch):
    """A module user_code that can be imported, as from a directory of the user's."""
    (tmp_path / "user_code.py").write_text(CODE)
    (tmp_path / "broken_code.py").write_text("import a_package_that_is_missing\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("user_code", None)


def sets(settings):
    return [word for setting in settings for word in ("--set", setting)]


def with_network(builder, **options):
    network = CustomNetwork(builder=builder, options=options)
    return Configuration(data=Digits(), network=network, diffusion=EDM(), trainer=StandardTrainer())


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize("label_dim", [0, 3])
def test_a_network_of_the_users(user_code, label_dim):
    configuration = with_network("user_code:good", bias=False)
    check_custom(configuration, label_dim)
    denoiser = build_denoiser(configuration, torch.zeros(2, 1, 8, 8), label_dim)
    assert [weight.numel() for weight in denoiser.parameters()] == [9] + [3] * bool(label_dim)
    labels = torch.tensor([0, 2]) if label_dim else None
    assert denoiser(torch.randn(2, 1, 8, 8), torch.ones(2), labels).shape == (2, 1, 8, 8)
    assert size_of(configuration, 8) == (9, 2 * 9 * 64), "the plan counts it"
    rounded = with_fields(configuration, {"trainer.precision": "bf16"})
    assert size_of(rounded, 8) == (9, 2 * 9 * 64), "in any precision"


def test_checking_a_network_leaves_its_weights_and_the_generator_alone(user_code):
    torch.manual_seed(0)
    expected = torch.nn.Conv2d(1, 1, 3).weight
    torch.manual_seed(0)
    denoiser = build_denoiser(with_network("user_code:good", bias=True), torch.zeros(2, 1, 8, 8))
    assert torch.equal(denoiser.network.layer.weight, expected)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    torch.nn.Conv2d(1, 1, 3)
    assert torch.equal(torch.get_rng_state(), state)


MISTAKES = [
    ("no_such_module:net", {}, "no_such_module can't be imported (ModuleNotFoundError"),
    ("broken_code:net", {}, "No module named 'a_package_that_is_missing'"),
    ("user_code:goood", {}, "user_code has no function or class 'goood'"),
    ("user_code:good", {"depth": 3}, "unexpected keyword argument 'depth'"),
    (
        "user_code:raising",
        {},
        "it raised KeyError: 'weights' for resolution=8, channels=1, label_dim=0",
    ),
    ("user_code:not_a_module", {}, "it must return a torch.nn.Module, not function"),
    (
        "user_code:wrong",
        {"how": "shape"},
        "must return floats of the shape of x, not torch.float32 [2, 1, 7, 8]",
    ),
    ("user_code:wrong", {"how": "tuple"}, "must return floats of the shape of x, not tuple"),
    ("user_code:wrong", {"how": "dtype"}, "not torch.int32 [2, 1, 8, 8]"),
    ("user_code:wrong", {"how": "nan"}, "values that are not finite"),
    (
        "user_code:wrong",
        {"how": "raises"},
        "forward(x [2, 1, 8, 8], noise_level [2], labels None) raised RuntimeError: mat1",
    ),
    ("user_code:wrong", {"how": "batchnorm"}, "running_mean"),
    ("user_code:wrong", {"how": "list"}, "it has no parameter to train; layers in a plain list"),
    ("user_code:wrong", {"how": "frozen"}, "it has no parameter to train"),
    ("user_code:wrong", {"how": "detached"}, "does not depend on its parameters"),
    ("user_code:wrong", {"how": "inplace"}, "its backward pass raised RuntimeError"),
    ("user_code:leaving", {}, "it raised SystemExit: 3"),
]


@pytest.mark.parametrize(
    ("builder", "options", "text"), MISTAKES, ids=lambda x: x if isinstance(x, str) else ""
)
@pytest.mark.parametrize("command", ["plan", "trial", "run"])
def test_a_mistake_in_the_users_network_is_one_line(
    user_code, capsys, command, builder, options, text
):
    arguments = {
        "plan": [],
        "trial": ["--config", "base", "--n", "8", "--out", "OUT"],
        "run": ["--out", "OUT"],
    }[command]
    settings = [
        "network.kind=custom",
        f"network.builder={builder}",
        f"network.options={json.dumps(options)}",
    ]
    assert text in mistake([command, "digits", *arguments, *sets(settings)], user_code, capsys)


@pytest.mark.parametrize("command", ["plan", "trial", "run"])
def test_a_network_is_checked_with_the_labels_it_will_get(user_code, capsys, command):
    arguments = {
        "plan": [],
        "trial": ["--config", "base", "--n", "12", "--out", "OUT"],
        "run": ["--out", "OUT"],
    }[command]
    settings = [
        "network.kind=custom",
        "network.builder=user_code:unconditional",
        "labels.kind=true",
        "search.n_low=10",
    ]
    assert "labels [2]) raised TypeError" in mistake(
        [command, "digits", *arguments, *sets(settings)], user_code, capsys
    )


def test_a_network_that_is_always_conditional_is_not_refused(user_code):
    settings = {
        "network.kind": "custom",
        "network.builder": "user_code:conditional",
        "labels.kind": "true",
        "search.n_low": 10,
    }
    Sweep(SPACES["digits"].with_settings(settings)).load_data()
    with pytest.raises(UserError, match="ten labels"):
        Sweep(SPACES["digits"].with_settings({**settings, "data.classes": 5})).load_data()


def test_what_code_of_the_users_prints_is_no_part_of_a_plan(user_code, capsys):
    (user_code / "user_code.py").write_text("print('loading')\n" + CODE)
    (user_code / "talking.py").write_text(
        "print('a space')\nSPACE = dict(base='digits', settings={'network.kind': 'custom', "
        "'network.builder': 'user_code:good'}, search={'n_low': 8, 'n_high': 64})\n"
    )
    with pytest.raises(SystemExit, match="0"):
        main(["plan", str(user_code / "talking.py"), "--json"])
    printed = capsys.readouterr()
    assert json.loads(printed.out)["configurations"]
    assert "a space\nloading\n" in printed.err


def mistake(arguments, directory, capsys):
    """The one line of a command that exits with 2 and creates nothing."""
    out = directory / "out"
    with pytest.raises(SystemExit) as ended:
        main([str(out) if argument == "OUT" else argument for argument in arguments])
    printed = capsys.readouterr().err
    assert ended.value.code == 2
    assert printed.startswith("emm: error: ")
    assert printed.count("\n") == 1
    assert not out.exists()
    return printed


# ---------------------------------------------------------------- trainers


@pytest.mark.parametrize(
    ("builder", "text"),
    [
        ("user_code:nothing", "user_code has no function or class 'nothing'"),
        ("user_code:Half", "the class has no state_dict, load_state_dict"),
        ("no_such_module:Trainer", "no_such_module can't be imported"),
        ("user_code:four", "too many positional arguments, called with configuration, images"),
        ("user_code:exact", "missing a required argument: 'rate'"),
    ],
)
def test_a_mistake_in_the_users_trainer_is_one_line(user_code, capsys, builder, text):
    arguments = [
        "run",
        "digits",
        "--out",
        "OUT",
        "--set",
        "trainer.kind=custom",
        "--set",
        f"trainer.builder={builder}",
    ]
    assert text in mistake(arguments, user_code, capsys)


class Copier:
    """Generates training images, each chosen by its seed; from half of the training on without
    noise. `faults` break it."""

    faults: ClassVar = {}

    def __init__(self, configuration, images, labels, seed, device, **options):
        self.images, self.options, self.done = images, options, 0.0
        self.weight = torch.randn(3)
        assert (images.dtype, labels, device) == (torch.uint8, None, CPU)

    def train_until(self, progress):
        assert progress > self.done
        self.done = progress

    def sample(self, seeds, labels):
        assert labels is None
        copies = self.images[torch.tensor(seeds) % len(self.images)]
        out = copies if self.done > 0.4 else 255 - copies
        return self.faults.get("sample", lambda out: out)(out)

    def state_dict(self):
        return {"done": self.done, "weight": self.weight, **self.faults.get("state", {})}

    def load_state_dict(self, state):
        self.done, self.weight = state["done"], state["weight"]


SPEC = TrialSpec(
    name="own",
    configuration=Configuration(
        data=Digits(),
        network=CustomNetwork(builder="never:used"),
        diffusion=EDM(),
        trainer=CustomTrainer(builder=f"{__name__}:Copier", length=10, batch=4),
    ),
    measurement=Measurement(n_samples=20, n_selection=10, snapshots=4, batch=8),
    n=12,
    seed=0,
)


@pytest.fixture(scope="module")
def digits():
    return load(Digits())


def finished(spec, data, storage):
    return finish(Trial(spec, data, storage, CPU))


def finish(trial):
    while trial.result is None:
        trial.step()
    return trial


def test_a_trial_with_a_trainer_of_the_users(tmp_path, digits):
    storage = Storage(str(tmp_path))
    trial = finished(SPEC, digits, storage)
    result = trial.result
    assert result.complete
    assert (result.r_mem, result.r_mem_last, result.n_samples) == (1, 1, 20)
    assert [snapshot.r_mem for snapshot in result.curve] == [0, 1, 1, 1]
    assert [snapshot.images_trained for snapshot in result.curve] == [30, 60, 90, 120]
    assert [snapshot.loss for snapshot in result.curve] == [None] * 4
    (kept,) = read_all(storage)[0]
    assert kept.r_mem == 1
    weights = checkpoint.load(trial_directory(storage, result.training_key), "weights.pt")
    assert weights["ema"]["done"] == 1
    torch.manual_seed(12345)
    again = finished(SPEC, digits, Storage(str(tmp_path / "again")))
    assert torch.equal(again.training.trainer.inner.weight, trial.training.trainer.inner.weight), (
        "initialized from the trial's seed alone"
    )


def test_it_goes_on_from_a_checkpoint_and_can_be_measured_again(tmp_path, digits):
    storage = Storage(str(tmp_path))
    trial = Trial(SPEC, digits, storage, CPU)
    while len(trial.curve) < 2:
        trial.step()
    adopted = Trial(SPEC, digits, storage, CPU)
    inner, before = adopted.training.trainer.inner, trial.training.trainer.inner
    assert inner.done == before.done == 0.5
    assert torch.equal(inner.weight, before.weight)
    assert len(finish(adopted).result.curve) == 4
    more = with_fields(SPEC, {"measurement.n_samples": 30})
    again = Trial(more, digits, storage, CPU)
    assert again.report()["state"] == "measuring"
    assert again.report()["progress"] == 1
    finish(again)
    assert (again.result.n_samples, again.result.r_mem, again.result.images_trained) == (30, 1, 120)


@pytest.mark.parametrize(
    ("faults", "cause"),
    [
        (
            {"sample": lambda x: x / 255},
            "must give torch.uint8 [8, 1, 8, 8] for 8 seeds, not torch.float32 [8, 1, 8, 8]",
        ),
        ({"sample": lambda x: x[1:]}, "not torch.uint8 [7, 1, 8, 8]"),
        ({"sample": lambda x: x[:, 0]}, "not torch.uint8 [8, 8, 8]"),
        ({"sample": lambda x: x.numpy()}, "not ndarray"),
        (
            {"state": {"scheduler": {"a": [CPU]}}},
            "state_dict()['scheduler']['a'][0] is a device; keep tensors",
        ),
    ],
)
def test_what_a_trainer_does_wrong_ends_the_trial_with_one_line(
    tmp_path, digits, monkeypatch, faults, cause
):
    monkeypatch.setattr(Copier, "faults", faults)
    trial = Trial(SPEC, digits, Storage(str(tmp_path)), CPU)
    with pytest.raises(TrialFailed):
        finish(trial)
    assert cause in trial.result.cause
    assert "\n" not in trial.result.cause
    assert not trial.result.complete


@pytest.mark.parametrize("forgotten", ["done", "weight"])
def test_a_trainer_that_forgets_what_it_is_given_ends_the_trial(
    tmp_path, digits, monkeypatch, forgotten
):
    """Its copies from the middle of the training would be measured by the samples of its end."""

    def load_all_but_one(self, state):
        for name in state.keys() - {forgotten}:
            setattr(self, name, state[name])

    def step(self, progress):
        self.done, self.weight = progress, self.weight + 1

    monkeypatch.setattr(Copier, "load_state_dict", load_all_but_one)
    monkeypatch.setattr(Copier, "train_until", step)
    # a snapshot before the last is the best one
    monkeypatch.setattr(
        Copier,
        "faults",
        {"sample": lambda out: out if trial.training.trainer.progress < 0.9 else 255 - out},
    )
    trial = Trial(SPEC, digits, Storage(str(tmp_path)), CPU)
    with pytest.raises(TrialFailed):
        finish(trial)
    assert f"after load_state_dict(), state_dict()['{forgotten}'] is not" in trial.result.cause


def test_a_trainer_that_writes_into_its_images_changes_no_reference(tmp_path, digits, monkeypatch):
    """Its samples copy what it has made of them, which is no training image."""
    build = Copier.__init__

    def build_and_invert(self, *arguments, **options):
        build(self, *arguments, **options)
        self.images[:] = 255 - self.images
        self.images[:, :, ::2] = 128

    monkeypatch.setattr(Copier, "__init__", build_and_invert)
    trial = finished(SPEC, digits, Storage(str(tmp_path)))
    assert trial.result.r_mem == 0


def test_a_builder_that_returns_too_little(user_code, tmp_path, digits):
    spec = with_fields(SPEC, {"configuration.trainer.builder": "user_code:half"})
    cause = "trainer.builder=user_code:half: what it returns has no state_dict, load_state_dict"
    with pytest.raises(TrialFailed, match=cause):
        Trial(spec, digits, Storage(str(tmp_path)), CPU)
    (result,) = read_all(Storage(str(tmp_path))).results
    assert result.cause == cause


def test_images_trained_and_loss_are_taken_where_they_are_told(digits, monkeypatch):
    monkeypatch.setattr(Copier, "images_trained", 50, raising=False)
    monkeypatch.setattr(Copier, "take_loss", lambda self: 0.25, raising=False)
    images = torch.from_numpy(digits.images[:12])
    trainer = CustomTrainerAdapter(
        with_fields(SPEC, {"configuration.trainer.options.a": 1}).configuration,
        images,
        None,
        0,
        CPU,
    )
    assert trainer.inner.options == {"a": 1}
    trainer.train_until(0.25)
    assert (trainer.position, trainer.take_loss()) == (50, 0.25)
    trainer.train_until(0.75)
    assert trainer.position == 90
    monkeypatch.setattr(Copier, "take_loss", lambda self: float("nan"))
    with pytest.raises(TrialFailed, match="not finite after 90 images"):
        trainer.take_loss()


def test_what_is_kept_is_a_copy_that_loads_without_running_code(tmp_path):
    tensor = torch.zeros(2, requires_grad=True)
    state = {"a": tensor, "b": [1, 2.5, ("x", None, True)], 3: {"c": torch.ones(1)}}
    copy = plain_copy(state, "state")
    with torch.no_grad():
        tensor += 1
    assert copy["a"].tolist() == [0, 0]
    torch.save(copy, tmp_path / "file")
    back = torch.load(tmp_path / "file", weights_only=True)
    assert back["b"] == [1, 2.5, ["x", None, True]]
    with pytest.raises(TrialFailed, match=r"state\['n'\] is a float64"):
        plain_copy({"n": np.float64(1)}, "state")


# ---------------------------------------------------------------- the examples

NETWORK = ["network.kind=custom", "network.builder=my_network:conv_net", "network.options.width=8"]
TRAINER = [
    "trainer.kind=custom",
    "trainer.builder=my_trainer:LatentDiffusion",
    "trainer.clock=steps",
    "trainer.batch=64",
]
SHORT = [
    "measurement.n_samples=24",
    "measurement.n_selection=12",
    "measurement.snapshots=2",
    "measurement.batch=12",
]


def emm(*arguments, settings, directory, timeout=110):
    """The command in a process of its own, at work in `directory`, whose modules nothing but that
    makes importable."""
    command = [
        sys.executable,
        "-c",
        "from sweep.cli.main import main; main()",
        *map(str, arguments),
    ]
    command += sets(settings)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env=environment,
        cwd=directory,
    )


@pytest.mark.parametrize(
    "settings",
    [[*NETWORK, "trainer.length=10"], [*TRAINER, "trainer.length=20"]],
    ids=["network", "trainer"],
)
def test_the_examples_run(tmp_path, monkeypatch, capsys, settings):
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the command adds to it
    trial = ["trial", "digits", "--config", "base", "--n", "8", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        main([*trial, *sets([*settings, *SHORT])])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.err) == (0, "")
    assert printed.out.count(" images  loss ") == 2
    assert "24 samples" in printed.out


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_code_in_the_working_directory_reaches_rays_workers(tmp_path):
    (tmp_path / "at_work").mkdir()
    (tmp_path / "at_work" / "in_cwd.py").write_text((EXAMPLES / "my_network.py").read_text())
    settings = [
        "network.kind=custom",
        "network.builder=in_cwd:conv_net",
        "network.options.width=8",
        "trainer.length=10",
        *SHORT,
    ]
    few = ["search.max_trials=2", "search.n_high=32"]
    sweep = ["run", "digits", "--out", "swept", "--workers", 1]
    done = emm(*sweep, settings=[*settings, *few], directory=tmp_path / "at_work", timeout=580)
    assert done.returncode == 0, done.stderr + done.stdout
    results = read_all(Storage(str(tmp_path / "at_work" / "swept"))).results
    assert len(results) == 2
    assert all(result.complete for result in results), [result.cause for result in results]


def test_a_name_of_the_users_never_hides_ours(tmp_path):
    """The working directory comes last in the path."""
    (tmp_path / "json.py").write_text("raise RuntimeError('shadowed')")
    (tmp_path / "trainables.py").write_text("raise RuntimeError('shadowed')")
    done = emm("spaces", settings=[], directory=tmp_path)
    assert done.returncode == 0, done.stderr
