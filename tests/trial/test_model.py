"""A trained model used again: the very images of its trial, D(x; σ), its weights as a state dict."""

import importlib.util
import logging
import shutil
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save
from torch import nn

from sweep import api
from sweep.audit.image_sets import frame_of, open_set
from sweep.cli.main import main
from sweep.store.one_trial import find_trial
from tests.kinds import kinds_of
from trainables.config.data import Digits
from trainables.config.diffusion import EDM, Diffusion
from trainables.config.fields import with_fields
from trainables.config.measurement import Measurement
from trainables.config.network import DDPMpp
from trainables.config.training import StandardTrainer
from trainables.config.trial import Configuration, TrialSpec
from trainables.data.images import ImageData
from trainables.data.sources import load
from trainables.errors import UserError
from trainables.networks.build import build_network
from trainables.storage import Storage
from trainables.trial import checkpoint, weights as kept_weights
from trainables.trial.model import open_model
from trainables.trial.result import RESULT, read_measurement, trial_directory
from trainables.trial.trial import Trial

DOCS = Path(__file__).parents[2] / "docs"
MODELS, EXAMPLES = DOCS / "models.md", DOCS / "examples"
CPU = torch.device("cpu")
SPEC = TrialSpec(
    name="tiny",
    configuration=Configuration(
        data=Digits(resolution=4),
        network=DDPMpp(width=4, depth=1, multipliers=(1,), attention=()),
        diffusion=EDM(),
        trainer=StandardTrainer(
            length=6, batch=4, lr=2e-2, warmup=0, ema_rampup=0.0, ema_decay=0.7
        ),
    ),
    measurement=Measurement(n_samples=10, n_selection=4, snapshots=2, sampler_steps=3, batch=4),
    n=6,
    seed=3,
)
rng = np.random.default_rng(0)
DATA = ImageData.of(rng.integers(0, 256, (20, 1, 4, 4)).astype(np.uint8), np.arange(20) % 2, "test")


def network(**fields):
    return {f"configuration.network.{name}": value for name, value in fields.items()}


class Frozen(nn.Module):
    """With a random weight that is not trained, and a random buffer."""

    def __init__(self, channels):
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 3, padding=1)
        self.still = nn.Parameter(torch.randn(()), requires_grad=False)
        self.register_buffer("frequency", torch.randn(()))

    def forward(self, x, noise_level, labels):
        return self.layer(x) * self.still + self.frequency


def frozen(resolution, channels, label_dim):
    return Frozen(channels)


class Noted:
    """A trainer of the user's, whose images are those of its subset, turned by what it keeps."""

    def __init__(self, configuration, images, labels, seed, device):
        self.images, self.state = images, {"turn": {0: torch.zeros((), dtype=torch.uint8)}}

    def train_until(self, progress):
        self.state = {"turn": {0: torch.tensor(round(100 * progress), dtype=torch.uint8)}}

    def sample(self, seeds, labels):
        return self.images[torch.tensor(seeds) % len(self.images)] + self.state["turn"][0]

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


CUSTOM_NETWORK = network(kind="custom", builder=f"{__name__}:frozen")
CUSTOM_TRAINER = {
    "configuration.trainer.kind": "custom",
    "configuration.trainer.builder": f"{__name__}:Noted",
}
LAWS = {
    kind.model_fields["kind"].default: {
        "configuration.diffusion.kind": kind.model_fields["kind"].default
    }
    for kind in kinds_of(Diffusion)
}
LABELS = {
    "true": {"configuration.labels.kind": "true"},
    "random": {"configuration.labels.kind": "random", "configuration.labels.classes": 5},
    "unique": {"configuration.labels.kind": "unique"},
}
CASES = {
    **LAWS,
    **LABELS,
    "fourier": network(time_embedding="fourier"),
    "mlp": network(kind="mlp"),
    "dropout": network(dropout=0.5),
    "optimum": network(kind="optimum"),
    "labelled optimum": network(kind="optimum") | LABELS["true"],
    "custom network": CUSTOM_NETWORK,
    "custom trainer": CUSTOM_TRAINER,
    "one set of latents": {
        "measurement": Measurement(protocol="paper", sampler="euler", sampler_steps=2, batch=5000),
        **LABELS["true"],
    },
}  # fmt: skip
NEEDS_DATA = {"optimum", "labelled optimum", "custom trainer"}


def trained(directory, **changes):
    """A finished trial in a storage of its own."""
    how = changes.pop("measurement", SPEC.measurement)
    spec = with_fields(SPEC.model_copy(update={"measurement": how}), changes)
    storage = Storage(str(directory))
    trial = Trial(spec, DATA, storage, CPU)
    while trial.result is None:
        trial.step()
    assert trial.result.complete
    return storage, trial.result


def no_data():
    raise AssertionError("the data are asked for")


@pytest.fixture(scope="module")
def kept_of(tmp_path_factory):
    """Storage and result of a case; of each one for all tests, which leave it as it is."""

    @cache
    def of(case):
        return trained(tmp_path_factory.mktemp("case"), **CASES[case])

    return of


@pytest.fixture
def tiny(kept_of):
    return kept_of("edm")


def opened(kept, data=no_data, **options):
    storage, result = kept
    return open_model(result, storage, data, "cpu", **options)


# ---------------------------------------------------------------- sampling


@pytest.mark.parametrize("case", CASES)
def test_its_own_seed_gives_the_images_that_it_was_judged_by(kept_of, case):
    """Bit for bit; without the data, where they are not what it samples by."""
    storage, result = kept_of(case)
    model = opened(
        (storage, result), (lambda: DATA) if case in NEEDS_DATA else no_data, trust_code=True
    )
    kept = read_measurement(storage, result)
    count = min(result.n_samples, 5000)
    drawn = model.sample(count, seed=3)
    np.testing.assert_array_equal(drawn, kept["images"][:count])
    assert (drawn.dtype, drawn.shape) == (np.uint8, (count, 1, 4, 4))
    labels = model.drawn_labels(count, seed=3)
    if "labels" in kept:
        np.testing.assert_array_equal(labels, kept["labels"][:count])
    else:
        assert labels is None
    assert (model.label_dim > 0) == (labels is not None)
    if case != "optimum":
        assert not np.array_equal(model.sample(count, seed=4), drawn)


def test_images_go_on_where_the_trial_ended_and_depend_on_seed_and_number_alone(tiny):
    model = opened(tiny)
    many = model.sample(23, seed=3)
    np.testing.assert_array_equal(many[:10], read_measurement(*tiny)["images"])
    assert len(np.unique(many, axis=0)) == 23, "new ones"
    np.testing.assert_array_equal(model.sample(5), model.sample(9)[:5])
    assert torch.equal(model.latents(5), model.latents(9)[:5])
    assert not np.array_equal(model.sample(5), model.sample(5, seed=1))


def test_labels_decide_what_is_drawn(kept_of):
    model = opened(kept_of("true"))
    zeros, ones = model.sample(6, labels=0), model.sample(6, labels=1)
    drawn = model.drawn_labels(6)
    assert set(drawn) == {0, 1}
    expected = np.where(drawn[:, None, None, None] == 0, zeros, ones)
    np.testing.assert_array_equal(model.sample(6), expected)
    np.testing.assert_array_equal(model.sample(6, labels=drawn), expected)
    assert not np.array_equal(zeros, ones)
    x = torch.randn(2, 1, 4, 4)
    both = model.denoise(x, 1.0, [0, 1])
    assert torch.equal(both[1], model.denoise(x, 1.0, 1)[1])
    for wrong in (2, -1, 0.5, [0, 1]):
        with pytest.raises(UserError, match="labels: one of 0 … 1, or 6 of them"):
            model.sample(6, labels=wrong)
    with pytest.raises(UserError, match="this model is conditional; give 0 … 1"):
        model.denoise(x, 1.0)


# ---------------------------------------------------------------- D(x; σ)


@pytest.mark.parametrize("law", LAWS)
def test_a_sampler_of_ones_own_comes_to_the_same_images(kept_of, law):
    """The one in docs/models.md, by D(x; σ) alone."""
    storage, result = kept_of(law)
    names = {"model": opened((storage, result))}
    block = MODELS.read_text().partition("## As D(x; σ)")[2].partition("```python\n")[2]
    code = block.partition("```")[0]
    assert code.count("16, seed=0") == 1
    exec(code.replace("16, seed=0", "10, seed=3"), names)
    images = names["images"].int().numpy()
    away = np.abs(images - read_measurement(storage, result)["images"])
    assert away.max() <= 1
    assert away.mean() < 0.01, "rounding alone"


def test_d_of_x(tiny):
    model = opened(tiny)
    x = torch.rand(3, 1, 4, 4).requires_grad_()
    denoised = model.denoise(x, torch.tensor([0.002, 1.0, 80.0]))
    torch.testing.assert_close(denoised[0], x[0].float(), atol=0.01, rtol=0)
    assert torch.equal(model.denoise(x, 1.0)[1], denoised[1])
    denoised.sum().backward()
    assert x.grad.abs().sum() > 0
    assert not any(weight.requires_grad for weight in model.denoiser.parameters())
    with pytest.raises(UserError, match=r"x: \[B, 1, 4, 4\] is needed, not \[3, 4, 4\]"):
        model.denoise(x[:, 0], 1.0)
    with pytest.raises(UserError, match="this model is unconditional"):
        model.denoise(x, 1.0, 0)


def test_what_has_no_denoiser_says_so(kept_of):
    model = opened(kept_of("custom trainer"), lambda: DATA, trust_code=True)
    for ask in (lambda: model.network, lambda: model.denoise(torch.zeros(1, 1, 4, 4), 1.0)):
        with pytest.raises(UserError, match="its trainer samples by itself"):
            ask()


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("case", ["edm", "fourier", "custom network", "true"])
def test_the_file_is_the_state_dict_of_the_network(kept_of, case):
    storage, result = kept_of(case)
    named = load_file(trial_directory(storage, result.training_key).path("weights.safetensors"))
    configuration = result.configuration
    dim = 2 if case == "true" else 0
    fresh = build_network(configuration.network, 4, 1, dim)
    fresh.load_state_dict(named)  # strict: every name, those that are not trained too
    model = opened((storage, result), trust_code=True)
    labels = torch.tensor([0, 1]) if dim else None
    x, level = torch.randn(2, 1, 4, 4), torch.tensor([0.1, 0.5])
    assert torch.equal(fresh.eval()(x, level, labels), model.network(x, level, labels))


@pytest.mark.parametrize("case", ["edm", "fourier", "custom network"])
def test_the_list_of_an_older_version_is_read(kept_of, tmp_path, case):
    """Where it has what was trained alone: the rest follows from the seed."""
    source, result = kept_of(case)
    shutil.copytree(source.root, tmp_path, dirs_exist_ok=True)
    storage = Storage(str(tmp_path))
    directory = trial_directory(storage, result.training_key)
    named = load_file(directory.path("weights.safetensors"))
    trained_ones = [
        named[name]
        for name, weight in opened((storage, result), trust_code=True).network.named_parameters()
        if name != "still"
    ]
    directory.delete("weights.safetensors")
    checkpoint.write(directory, "weights.pt", {"ema": trained_ones})
    torch.manual_seed(12345)
    old = opened((storage, result), trust_code=True)
    np.testing.assert_array_equal(old.sample(10, 3), read_measurement(storage, result)["images"])
    more = Trial(with_fields(result.spec, {"measurement.n_samples": 12}), DATA, storage, CPU)
    assert more.report()["state"] == "measuring", "it is not trained again"


def test_what_a_trainer_of_the_users_keeps_stays_as_it_is(kept_of):
    storage, result = kept_of("custom trainer")
    directory = trial_directory(storage, result.training_key)
    assert not directory.exists("weights.safetensors")
    assert int(checkpoint.load(directory, "weights.pt")["ema"]["turn"][0]) == 100


def test_tensors_of_every_kind_come_back_as_they_were(tmp_path):
    """What the format has no place for is kept as before, and never beside an older file."""
    storage = Storage(str(tmp_path))
    named = {
        "turned": torch.arange(6.0).reshape(2, 3).T,
        "channels last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(2.5, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 3),
        "mask": torch.tensor([True, False]),
    }
    for kept in (named, {}, {"z": torch.zeros(2, dtype=torch.complex128)}, [torch.ones(1)], named):
        kept_weights.write(storage, kept)
        back = kept_weights.read(storage)
        assert type(back) is type(kept)
        pairs = zip(kept, back, strict=True) if isinstance(kept, list) else []
        if isinstance(kept, dict):
            assert back.keys() == kept.keys()
            pairs = [(kept[name], back[name]) for name in kept]
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)
        assert len(storage.list()) == 1
    assert storage.list() == ["weights.safetensors"]


@pytest.mark.parametrize("harm", ["missing", "truncated", "flipped", "renamed", "foreign"])
def test_weights_that_are_lost_are_one_line(tmp_path, tiny, harm, caplog):
    storage, result = tiny
    directory = trial_directory(Storage(str(tmp_path)), result.training_key)
    source = trial_directory(storage, result.training_key)
    directory.write(RESULT, source.read(RESULT))
    content = bytearray(source.read("weights.safetensors"))
    match harm:
        case "truncated":
            content = content[:-1]
        case "flipped":
            content[-3] ^= 1
        case "renamed":
            content = content.replace(b"layer", b"Layer", 1).replace(b"conv", b"cOnv", 1)
        case "foreign":
            content = save({"weight": torch.zeros(2)})
    if harm != "missing":
        directory.write("weights.safetensors", bytes(content))
    with caplog.at_level(logging.WARNING), pytest.raises(UserError) as raised:
        opened((Storage(str(tmp_path)), result))
    assert "its weights are lost or damaged" in str(raised.value)
    assert "emm trial SPACE --config tiny --n 6 --seed 3 --out" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert ("corrupt" in caplog.text) == (harm != "missing")


def test_weights_of_another_network_are_one_line(tmp_path, tiny):
    storage, result = tiny
    other = with_fields(result.spec, network(width=8))
    with pytest.raises(UserError, match="its weights do not fit its network"):
        opened((storage, result.model_copy(update={"spec": other})))
    elsewhere = Storage(str(tmp_path))
    named = dict(opened(tiny).network.state_dict())
    name = min(dict(opened(tiny).network.named_parameters()))
    fewer = {other: value for other, value in named.items() if other != name}
    for changed in ({**named, "more": named[name].clone()}, fewer):
        kept_weights.write(trial_directory(elsewhere, result.training_key), changed)
        with pytest.raises(UserError, match=r"not on both sides.*was its code changed since"):
            opened((elsewhere, result))


def test_opening_leaves_the_callers_random_numbers_alone(kept_of):
    kept = kept_of("custom network")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    opened(kept, trust_code=True).sample(2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("case", "named"),
    [("custom network", "network.builder=.*:frozen"), ("custom trainer", "trainer.builder=.*:Not")],
)
def test_code_that_a_trial_names_is_run_for_those_who_say_so(kept_of, case, named, monkeypatch):
    kept = kept_of(case)
    monkeypatch.setattr(sys.modules[__name__], "frozen", no_data)
    monkeypatch.setattr(sys.modules[__name__], "Noted", no_data)
    with pytest.raises(UserError, match=named + r".*trust_code=True \(--trust-code\)"):
        opened(kept, lambda: DATA)


def test_other_data_than_it_was_trained_on(kept_of):
    kept = kept_of("optimum")
    other = ImageData.of(255 - DATA.images, DATA.labels, "test")
    with pytest.raises(UserError, match="its data are not those that it was trained on"):
        opened(kept, lambda: other)


# ---------------------------------------------------------------- which trial


def test_the_trial_that_is_meant(tmp_path, tiny):
    storage, (_, result) = Storage(str(tmp_path)), tiny
    for n, seed, complete in ((6, 0, True), (6, 1, True), (8, 2, True), (9, 4, False)):
        key = f"{n:016d}{seed:016d}"
        fields = {"training_key": key, "complete": complete, "cause": None if complete else "boom"}
        spec = result.spec.model_copy(update={"n": n, "seed": seed})
        one = result.model_copy(update={**fields, "spec": spec})
        trial_directory(storage, key).write(RESULT, one.model_dump_json().encode())
    assert find_trial(storage, n=8).spec.seed == 2
    assert find_trial(storage, "tiny", seed=1).spec.n == 6
    for asked, said in (
        ({"n": 6}, "say config, n and seed of tiny n=6 seed=0, tiny n=6 seed=1$"),
        ({}, "more than one .* tiny n=6 seed=0, tiny n=6 seed=1, tiny n=8 seed=2$"),
        ({"config": "big"}, "no configuration 'big' has a trial here; there are tiny$"),
        ({"n": 7}, "no trial with n=7 is finished; there are tiny n=6 seed=0, .*seed=2$"),
        ({"n": 8, "seed": 0}, "no trial with n=8 seed=0 is finished; there are tiny n=6 seed=0, "),
        ({"n": 9}, r"tiny n=9 seed=4: it failed \(boom\), and has no model$"),
    ):
        with pytest.raises(UserError, match=said):
            find_trial(storage, **asked)
    with pytest.raises(UserError, match="holds no sweep"):
        find_trial(Storage(str(tmp_path / "nothing")))


# ---------------------------------------------------------------- the ways in


def test_from_a_notebook(tiny):
    storage, result = tiny
    model = api.load(Path(storage.root), config="tiny", n=6, seed=3, device="cpu")
    np.testing.assert_array_equal(model.sample(10, 3), read_measurement(*tiny)["images"])
    assert repr(model) == f"<model of tiny, N=6 seed=3: R_mem {result.r_mem:.3f}, on cpu>"
    with pytest.raises(UserError, match="device nowhere: torch can't use it here"):
        api.load(storage.root, device="nowhere")
    for wrong in ({"count": 0}, {"count": 2.5}, {"count": 1, "seed": -1}):
        with pytest.raises(UserError, match="a whole number of at least"):
            model.sample(**wrong)


def emm(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


def test_emm_sample(tiny, tmp_path, capsys):
    storage, _ = tiny
    own = read_measurement(*tiny)["images"]
    ask = ("sample", storage.root, "--config", "tiny", "--n", 6, "--seed", 3, "--count", 7)
    ask = (*ask, "--sample-seed", 3)
    for name in ("folder", "in/file.npz", "grid.png"):
        assert emm(*ask, "--out", tmp_path / name) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"tiny, N=6 seed=3: 7 images, seed 3, in {tmp_path / 'grid.png'}"
    )
    for name in ("folder", "in/file.npz"):  # as emm audit --generated reads them
        audited = open_set("--generated", tmp_path / name)
        audited.fit(frame_of([audited], None))
        np.testing.assert_array_equal(audited.take(range(len(audited))), own[:7])
    from PIL import Image

    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    assert grid.shape == (3 * 50 + 2, 3 * 50 + 2)  # 4 pixels, 12 times as large
    np.testing.assert_array_equal(grid[52:100:12, 2:50:12], own[3, 0])
    assert (grid[102:, 52:] == 255).all(), "there are seven"
    for name in ("folder", "in/file.npz", "grid.png"):
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        assert emm(*ask, "--out", tmp_path / name) == 2
        assert "it is there already; choose another name" in capsys.readouterr().err
        assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for more, said in (
        (("--out", tmp_path / "a.jpg"), "give a folder, a file.npz or a grid.png"),
        (("--out", tmp_path / "grid.png" / "b"), "is a file; choose a directory"),
        (("--out", tmp_path / "b", "--label", 0), "this model is unconditional"),
        (("--out", tmp_path / "b", "--n", 7), "no trial with n=7 seed=3 is finished"),
    ):
        assert emm(*ask, *more) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "b").exists()


def test_labels_stand_beside_the_images(kept_of, tmp_path):
    storage, _ = kept_of("true")
    ask = ("sample", storage.root, "--count", 5)
    assert emm(*ask, "--out", tmp_path / "file.npz") == 0
    with np.load(tmp_path / "file.npz") as kept:
        labels = kept["labels"].tolist()
    assert emm(*ask, "--out", tmp_path / "folder") == 0
    names = sorted(path.name for path in (tmp_path / "folder").iterdir())
    assert names == [f"{number:06d}-{label}.png" for number, label in enumerate(labels)]
    assert emm(*ask, "--label", 1, "--out", tmp_path / "ones") == 0
    assert all(path.stem.endswith("-1") for path in (tmp_path / "ones").iterdir())


def test_it_says_when_images_may_show_private_data(tmp_path, capsys):
    file = tmp_path / "mine.npz"
    np.savez(file, images=DATA.images[:, 0])
    source = {"kind": "arrays", "path": str(file), "resolution": 4, "channels": 1}
    spec = with_fields(
        SPEC, {f"configuration.data.{name}": value for name, value in source.items()}
    )
    storage = Storage(str(tmp_path / "trial"))
    trial = Trial(spec, load(spec.configuration.data), storage, CPU)
    while trial.result is None:
        trial.step()
    assert emm("sample", storage.root, "--out", tmp_path / "grid.png") == 0
    assert "trained on private data" in capsys.readouterr().out


def test_the_network_of_the_example_is_used_again(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    assert importlib.util.find_spec("my_network")
    storage, result = trained(
        tmp_path, **network(kind="custom", builder="my_network:conv_net", options={"width": 4})
    )
    model = api.load(storage.root, trust_code=True)
    np.testing.assert_array_equal(model.sample(10, 3), read_measurement(storage, result)["images"])
