"""Every search space: built at full size, trained in small; spaces from files of the user's."""

import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from search_spaces.find import find_space
from search_spaces.recipes import DIGITS, DIGITS_MEASUREMENT
from search_spaces.settings import parse_settings
from search_spaces.space import SearchSpace
from search_spaces.table import SPACES
from sweep.cli.options import space_of
from sweep.run import measured
from sweep.run.measured import measured_rates
from sweep.run.plan import plan
from sweep.search.rules import accept_bound
from sweep.tracking.place import destination
from trainables.config.data import Arrays
from trainables.config.fields import with_fields
from trainables.config.trial import TrialSpec
from trainables.data.labels import planned_label_dim
from trainables.data.sources import load
from trainables.diffusion.denoiser import build_denoiser
from trainables.errors import UserError
from trainables.measure.r_mem import r_mem_interval
from trainables.storage import Storage
from trainables.trial.trial import Trial

CPU = torch.device("cpu")
TINY = {
    "ddpmpp": {"network.width": 4},
    "dit": {"network.width": 8, "network.depth": 1, "network.heads": 1, "network.patch": 4},
}
SHORT = {
    "measurement.n_samples": 4, "measurement.n_selection": 4, "measurement.snapshots": 2, "measurement.sampler_steps": 2,
    "configuration.trainer.clock": "steps", "configuration.trainer.length": 2, "configuration.trainer.batch": 4,
    "configuration.trainer.warmup": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", SPACES)
def test_every_configuration_can_be_built_at_full_size(name):
    space = SPACES[name]
    assert len({named.name for named in space.configurations}) == len(space.configurations) >= 1
    for named in space.configurations:
        data, dim = (
            named.configuration.data,
            planned_label_dim(named.configuration, space.search.n_high),
        )
        with torch.device("meta"):  # nothing is allocated
            denoiser = build_denoiser(
                named.configuration,
                torch.zeros(2, data.channels, data.resolution, data.resolution),
                dim,
            )
        assert sum(weight.numel() for weight in denoiser.parameters()) > 0
        assert all(weight.is_meta for weight in denoiser.parameters())


@pytest.fixture(scope="module")
def colour(tmp_path_factory):
    """Two sets of 200 colour images of 10 classes: what CIFAR-10 and a second source are replaced
    by."""
    paths = [str(tmp_path_factory.mktemp("data") / f"{name}.npz") for name in "ab"]
    for seed, path in enumerate(paths):
        images = np.random.default_rng(seed).integers(0, 256, (200, 32, 32, 3)).astype(np.uint8)
        np.savez(path, images=images, labels=np.arange(200) % 10)
    return paths


def try_out(space, named, colour, directory):
    """The trial of a configuration made small; factors, labels, laws and optimizers as they are."""
    spec = TrialSpec(
        name="x", configuration=named.configuration, measurement=space.measurement, n=20, seed=0
    )
    tiny = {
        f"configuration.{path}": value
        for path, value in TINY[named.configuration.network.kind].items()
    }
    if named.configuration.data.kind == "cifar10":
        tree = {**named.configuration.data.model_dump(), "kind": "arrays", "path": colour[0]}
        if space.name != "cifar10-resolution":
            tree["resolution"] = 16
        tree = {name: value for name, value in tree.items() if name not in ("root", "download")}
        if tree["mix"]:
            tree["mix"]["data"] |= {"path": colour[1], "resolution": 16}
        spec = TrialSpec.model_validate(
            {
                **spec.model_dump(),
                "configuration": {**spec.configuration.model_dump(), "data": tree},
            }
        )
    short = (
        SHORT if space.measurement.protocol == "own" else {**SHORT, "measurement.protocol": "own"}
    )
    spec = with_fields(spec, {**tiny, **short})
    trial = Trial(spec, load(spec.configuration.data), Storage(str(directory)), CPU)
    while trial.result is None:
        trial.step()
    assert trial.result.complete, trial.result.cause
    assert trial.result.n_samples == 4
    models = 1 + space.measurement.pair
    assert trial.result.images_trained == 8 * models


# one for each kind of network, law, label, data and protocol; all of all are tried below
QUICK = [
    "cifar10-width",
    "cifar10-dit",
    "cifar10-flow",
    "cifar10-labels",
    "cifar10-mix",
    "cifar10-resolution",
    "paper-1k",
]


@pytest.mark.parametrize("name", QUICK)
def test_one_of_each_space_trains_samples_and_measures(name, colour, tmp_path):
    space = SPACES[name]
    try_out(space, space.configurations[-1], colour, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SPACES)
def test_all_of_each_space_train_sample_and_measure(name, colour, tmp_path):
    for number, named in enumerate(SPACES[name].configurations):
        try_out(SPACES[name], named, colour, tmp_path / str(number))


def test_every_question_is_asked_in_both_sizes():
    questions = {name.removeprefix("cifar10-") for name in SPACES if name.startswith("cifar10-")}
    wanted = "width depth embedding skip-resolution skip-count labels unique resolution classes mix batch weight-decay ema"
    assert questions == {
        *wanted.split(),
        "dit",
        "flow",
        "augment",
        "duplicates",
        "length",
        "loss",
        "noise-draws",
        "noise-level",
        "noise-spread",
        "optimizer",
        "pair",
    }
    assert questions == {
        name.removeprefix("digits-") for name in SPACES if name.startswith("digits-")
    }
    assert all(len(SPACES[f"digits-{question}"].configurations) > 1 for question in questions)


@pytest.mark.parametrize("name", SPACES)
def test_a_space_survives_json(name):
    space = SPACES[name]
    again = SearchSpace.model_validate_json(space.model_dump_json())
    assert [named.configuration for named in again.configurations] == [
        named.configuration for named in space.configurations
    ]
    assert [named.factors for named in again.configurations] == [
        named.factors for named in space.configurations
    ]


def test_a_field_that_a_group_varies_cannot_be_set():
    with pytest.raises(UserError, match=r"network\.skips: cifar10-skip-count varies this field"):
        SPACES["cifar10-skip-count"].with_settings({"network.skips": None})
    width = SPACES["digits-width"]
    with pytest.raises(UserError, match=r"network\.width: digits-width varies this field"):
        width.with_settings({"network": {"kind": "mlp"}})
    whole = width.model_copy(update={"vary": {"data": [{"kind": "digits"}, {"kind": "mnist5k"}]}})
    assert [named.configuration.data.kind for named in whole.configurations] == [
        "digits",
        "mnist5k",
    ]
    with pytest.raises(UserError, match="data: digits-width varies this field"):
        whole.with_settings({"data.resolution": 8})


# ---------------------------------------------------------------- files of the user's

YAML = """
question: Does the width matter here?
base: digits
settings: {network.depth: 1, trainer.length: 50}
vary:
  network.width: [4, 8]
  skips:
    all: {}
    none: {network.skips: [false, false, false, false]}
search: {n_low: 8, n_high: 64}
measurement: {n_samples: 100}
"""
PYTHON = """
from search_spaces.recipes import DIGITS, DIGITS_MEASUREMENT
from search_spaces.space import Search, SearchSpace

SPACE = SearchSpace(
    name="mine", question="?", source="", expectation="", cost="", base=DIGITS, vary={"trainer.lr": (0.01, 0.02)},
    search=Search(n_low=8, n_high=64), measurement=DIGITS_MEASUREMENT,
)
"""


def test_a_yaml_file(tmp_path):
    path = tmp_path / "my-widths.yaml"
    path.write_text(YAML)
    space = find_space(str(path))
    assert space.name == "my-widths"
    names = [named.name for named in space.configurations]
    assert names == [
        "width=4,skips=all",
        "width=4,skips=none",
        "width=8,skips=all",
        "width=8,skips=none",
    ]
    assert {named.configuration.trainer.length for named in space.configurations} == {50}
    assert (space.measurement.n_samples, space.measurement.snapshots) == (100, 4), (
        "the rest is the recipe's"
    )
    assert space.configurations[1].configuration.network.skips == (False,) * 4


def test_a_whole_configuration_in_yaml_is_json(tmp_path):
    path = tmp_path / "whole.yaml"
    path.write_text(json.dumps(SPACES["digits-width"].model_dump(mode="json")))
    assert find_space(str(path)) == SPACES["digits-width"]


def test_a_python_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PYTHON)
    assert [named.name for named in find_space(str(path)).configurations] == ["lr=0.01", "lr=0.02"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.yaml", "base: nothing\n", "base: no recipe 'nothing'"),
        ("a.yaml", "- 1\n", "the fields of a search space"),
        ("a.yaml", "a: [\n", "a.yaml: "),
        ("a.yaml", YAML.replace("n_high: 64", "n_high: 4"), "n_high must be above"),
        (
            "a.yaml",
            YAML.replace("trainer.length", "trainer.lenght"),
            "did you mean trainer.length?",
        ),
        ("a.yaml", YAML.replace("vary:", "varies:"), "varies: there is no such field"),
        (
            "a.yaml",
            YAML.replace("measurement: {n_samples: 100}", "measurement:"),
            "measurement: fields and their values are needed, not null",
        ),
        (
            "a.yaml",
            "base: digits\nsettings: [1]\n",
            "settings: fields and their values are needed, not [1]",
        ),
        (
            "a.yaml",
            "base: digits\nsettings: {5: 6}\n",
            "settings: fields and their values are needed",
        ),
        (
            "a.yaml",
            "base: digits\nsearch: {n_low: 8, n_high: 9}\nvary: {network.width: []}\n",
            "every factor needs a value",
        ),
        ("a.py", "1/0\n", "ZeroDivisionError"),
        ("a.py", "SPACE = 3\n", "set SPACE"),
        ("b.py", None, "no such file"),
        ("b.yaml", None, "no such file"),
        ("nothing", None, "no search space 'nothing'"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(tmp_path, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError) as raised:
        find_space(str(path) if "." in name else name).configurations  # noqa: B018
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def yaml_space(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    return find_space(str(tmp_path / "mine.yaml"))


def test_yaml_is_read_as_version_1_2(tmp_path):
    """Under YAML 1.1 these are 90, 8, True, text, 60 and 1000."""
    options = "{a: 1:30, b: 010, c: no, d: 1e-2, e: 1:00, f: 1_000, g: 0x1F, h: 0o17, i: ~, j: 2001-01-01}"
    network = f"{{kind: custom, builder: a:b, options: {options}}}"
    base = f"{{data: {{kind: digits}}, network: {network}, diffusion: {{kind: edm}}, trainer: {{kind: standard}}}}"
    space = yaml_space(
        tmp_path, f"base: {base}\nvary: {{}}\nsearch: {{n_low: 8, n_high: 64}}\nmeasurement: {{}}\n"
    )
    assert space.base.network.options == {
        "a": "1:30", "b": 10, "c": "no", "d": 0.01, "e": "1:00", "f": "1_000", "g": 31, "h": 15, "i": None, "j": "2001-01-01"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "base: digits\nvary:\n  trainer.lr: [1]\n\n  trainer.lr: [2]\n",
            "line 5: trainer.lr is there twice",
        ),
        ("base: digits\nvary: {law: {a: {}, a: {}}}\n", "line 2: a is there twice"),
        ("base: digits\n# x\nsettings: {trainer.lr: .nan}\n", "line 3: .nan is no finite number"),
        ("settings: {trainer.lr: 1e999}\n", "line 1: 1e999 is no finite number"),
    ],
)
def test_what_yaml_would_drop_is_refused_with_its_line(tmp_path, text, said):
    with pytest.raises(UserError) as raised:
        yaml_space(tmp_path, text)
    assert said in str(raised.value)


def lists_of_lists(count):
    """Each of ten times the one before."""
    lines = [f"    x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 10)}]\n" for i in range(1, count)]
    return "    x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(lines)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (lists_of_lists(10), "line 9: with all aliases written out, these are more than 100,000"),
        ("    x: &x {y: [*x]}\n", "line 5: an alias stands within what it names"),
    ],
)
def test_aliases_of_yaml_that_grow_without_bound_are_refused(tmp_path, options, said):
    settings = f"settings:\n  trainer.kind: custom\n  trainer.options:\n{options}"
    with pytest.raises(UserError) as raised:
        yaml_space(tmp_path, f"base: digits\n{settings}")
    assert said in str(raised.value)


def test_aliases_of_yaml_are_written_out(tmp_path):
    settings = f"settings:\n  trainer.kind: custom\n  trainer.options:\n{lists_of_lists(4)}"
    space = yaml_space(
        tmp_path,
        f"base: digits\nvary: {{}}\nsearch: {{n_low: 8, n_high: 64}}\n{settings}"
        "  trainer.builder: a:b\n",
    )
    assert np.array(space.base.trainer.options["x3"]).shape == (10, 10, 10, 10)


def test_a_file_is_utf8_whatever_the_locale(tmp_path):
    (tmp_path / "mine.yaml").write_text(f"{YAML}source: σ\n", encoding="utf-8")
    code = "import sys; from search_spaces.find import find_space; print(ascii(find_space(sys.argv[1]).source))"
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", code, str(tmp_path / "mine.yaml")]
    done = subprocess.run(command, env={**os.environ, **plain}, capture_output=True, text=True)
    assert done.stdout == "'\\u03c3'\n", done.stderr


# ---------------------------------------------------------------- names


def varying(vary):
    return SPACES["digits-width"].model_copy(update={"vary": vary})


def factors_of(vary):
    return [named.factors for named in varying(vary).configurations]


def test_factors_with_the_same_last_word_have_longer_names():
    space = varying(
        {
            "network.kind": ("mlp", "optimum"),
            "diffusion.kind": ("vp", "flow"),
            "trainer.lr": (0.01,),
        }
    )
    names = [one.name for one in space.configurations]
    assert names[1] == "network.kind=mlp,diffusion.kind=flow,lr=0.01", (
        "lr is the only one, and stays"
    )
    assert len(set(names)) == 4
    for one in space.configurations:
        assert one.factors["network.kind"] == one.configuration.network.kind
        assert one.factors["diffusion.kind"] == one.configuration.diffusion.kind


def test_a_name_is_as_long_as_it_takes():
    paths = {
        "data.mix.data.classes": (1,),
        "data.classes": (1,),
        "labels.classes": (1,),
        "classes": {"all": {}},
    }
    assert list(varying(paths).factor_names.values()) == [
        "mix.data.classes",
        "data.classes",
        "labels.classes",
        "classes",
    ]
    assert list(varying({"network.options.n": (1, 2)}).factor_names.values()) == ["options.n"], (
        "n is the number of images"
    )


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        (
            {"network.width": (4, 8), "size": {"s": {"network.width": 16}}},
            "network.width and size both set network.width",
        ),
        (
            {"a": {"x": {"data.mix.share": 0.5}}, "data.mix": (None,)},
            "a and data.mix both set data.mix.share",
        ),
        ({"seed": {"x": {}, "y": {"network.width": 4}}}, "vary.seed: every trial has a seed"),
        (
            {
                "network.kind": ("custom",),
                "network.builder": ("a:b",),
                "network.options": ({"a": 1}, {"a": "1"}),
            },
            None,
        ),
        (
            {
                "network.kind": ("custom",),
                "network.builder": ("a:b",),
                "network.options.a": (1, "1"),
            },
            'network.options.a: 1 and "1" are both called',
        ),
    ],
)
def test_factors_that_would_overwrite_each_other_are_refused(vary, said):
    if said is None:
        assert len(factors_of(vary)) == 2
        return
    with pytest.raises(UserError) as raised:
        factors_of(vary)
    assert said in str(raised.value)


def test_a_value_has_one_name_however_it_is_written(tmp_path):
    names = []
    for text in ("1e-2", "0.01", "'0.010'", "10e-3"):
        space = yaml_space(
            tmp_path, YAML.replace("network.width: [4, 8]", f"trainer.lr: [{text}, 1.0, 2]")
        )
        names.append([(named.name, named.configuration) for named in space.configurations])
    assert all(other == names[0] for other in names)
    assert [name for name, _ in names[0]][::2] == [
        "lr=0.01,skips=all",
        "lr=1,skips=all",
        "lr=2,skips=all",
    ]


def test_the_name_of_a_group_is_a_number_only_where_it_is_written_as_one():
    groups = {"10": {}, "010": {"network.depth": 2}, "²": {"network.depth": 3}}
    assert [factors["x"] for factors in factors_of({"x": groups})] == [10, "010", "²"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["network.width=8", "network.width=16"],
            "--set network.width: it is set twice, to 8 and to 16",
        ),
        (['network.options={"a": 1, "a": 2}'], "--set network.options: a is there twice"),
        (["trainer.lr=NaN"], "a finite number is needed, not NaN"),
        (["trainer.lr=-Infinity"], "a finite number is needed, not -Infinity"),
        (['network.options={"a": [1e999]}'], "a finite number is needed, not 1e999"),
    ],
)
def test_settings_that_would_be_lost_are_refused(settings, said):
    with pytest.raises(UserError) as raised:
        parse_settings(settings)
    assert said in str(raised.value)


def test_an_option_and_a_setting_that_differ_are_refused():
    assert (
        space_of(
            "digits-width", ["search.precision=0.1"], **{"search.precision": 0.1}
        ).search.precision
        == 0.1
    )
    with pytest.raises(
        UserError,
        match=r"--set search\.precision: it is set to 0\.1, and by its own option to 0\.2",
    ):
        space_of("digits-width", ["search.precision=0.1"], **{"search.precision": 0.2})


def test_settings_said_twice_alike_are_one():
    assert parse_settings(["a.b=0.01", "a.b=1e-2", "c=x", "d=" + "9" * 5000]) == {
        "a.b": 0.01,
        "c": "x",
        "d": "9" * 5000,
    }


# ---------------------------------------------------------------- cost


def test_measured_hours_are_work_over_rates(monkeypatch):
    monkeypatch.setattr("sweep.run.measured.SECONDS", 0.3)
    space = SPACES["digits-width"].with_settings({"network.depth": 1})
    narrow, wide = plan(space, None, CPU)
    assert narrow.images_per_second > 0
    how, images = space.measurement, narrow.images_low
    assert narrow.hours_low > images / narrow.images_per_second / 3600
    # of the usual precision 5.9 trials; of this one fewer
    assert narrow.hours_search == pytest.approx(5.396 * narrow.hours_low, rel=1e-3)
    assert how.network_calls == 19
    told = plan(space, 1e-3)
    assert told[1].hours_low / told[0].hours_low == pytest.approx(
        wide.flops_per_image / narrow.flops_per_image
    )


def test_hours_at_a_told_speed_are_those_of_training_and_of_sampling():
    """At 20 TFLOP/s; a backward pass takes two forward ones; 35 calls generate an image."""
    space = SPACES["cifar10-width"]
    how, search = space.measurement, space.search
    for row in plan(space, 20.0):
        ends = (
            (search.n_low, row.images_low, row.steps_low, row.hours_low),
            (*(search.n_high, row.images_high, row.steps_high, row.hours_high),),
        )
        assert search.n_low < search.n_high
        for n, images, steps, hours in ends:
            assert images == 40_000 * n
            assert steps == math.ceil(images / 512)
            sampled = (how.n_samples + 8 * how.n_selection) * 35
            passes = 3 * images + sampled
            assert hours == pytest.approx(passes * row.flops_per_image / 20e12 / 3600)


def test_rates_are_of_images_trained_and_of_network_calls(monkeypatch):
    """A batch is trained; another is sampled in two steps of Euler's."""
    monkeypatch.setattr(measured, "_rate", lambda work, device: work())
    small = with_fields(DIGITS, {"network.width": 4, "trainer.batch": 6})
    rates = measured_rates(small, DIGITS_MEASUREMENT, 8, flops=0, device=CPU)
    assert (rates.trained, rates.sampled) == (6, 12)


def test_pictures_stay_where_any_of_the_data_are_private():
    """A second source that is mixed in, or one that a factor brings, is enough."""
    public, mine = SPACES["digits-width"], Arrays(path="x", resolution=8, channels=1)
    mixed = with_fields(DIGITS, {"data.mix.share": 0.5, "data.mix.data": mine.model_dump()})
    private = [
        public.model_copy(update={"base": mixed}),
        public.model_copy(update={"base": DIGITS.model_copy(update={"data": mine})}),
        public.model_copy(
            update={
                "vary": {
                    "source": {
                        "public": {"data.kind": "digits"},
                        "mine": {f"data.{name}": value for name, value in mine},
                    }
                }
            }
        ),
    ]
    assert public.images == "pairs"
    assert [space.images for space in private] == ["none"] * 3
    asked = [private[0].with_settings({"tracking.images": "generated"}), private[0]]
    for uri in (None, "http://host:5000"):
        wheres = [destination(space, Path(), uri, load) for space in (*asked, public)]
        assert [where.images for where in wheres] == ["generated", "none", "pairs"]
    assert public.with_settings({"tracking.images": "none"}).images == "none"


def test_one_label_for_all_can_be_measured():
    small = {"network.width": 4, "trainer.batch": 2}
    one = with_fields(DIGITS, {**small, "labels.kind": "random", "labels.classes": 1})
    assert measured_rates(one, DIGITS_MEASUREMENT, 8, flops=0, device=CPU).trained > 0, (
        "nor are FLOPs needed"
    )


def test_a_search_by_epochs_costs_what_one_training_at_the_emm_does_some_times():
    rows = plan(SPACES["cifar10-width"], 10.0)
    for row in rows:
        middle = (row.hours_low * row.hours_high) ** 0.5
        assert row.hours_search / 4.9 == pytest.approx(middle, rel=0.05), (
            "but for the sampling, hours grow as N"
        )


def test_an_early_accept_below_the_target_is_refused():
    """Its trials would say neither that N passes nor that it fails."""
    space = SPACES["digits-width"]
    assert space.with_settings({"measurement.accept": 0.97}).measurement.accept == 0.97
    with pytest.raises(UserError, match=r"measurement\.accept: at least search\.target"):
        space.with_settings({"measurement.accept": 0.55})


@pytest.mark.parametrize("name", SPACES)
def test_early_accept_can_act(name):
    """What `emm run --early-accept` sets: a snapshot of nothing but copies ends a trial."""
    space = SPACES[name]
    settings = {"measurement.accept": accept_bound(space.search.target)}
    if space.measurement.protocol == "paper":
        with pytest.raises(UserError, match="protocol=paper needs accept=null"):
            space.with_settings(settings)
    else:
        how = space.with_settings(settings).measurement
        assert r_mem_interval(how.n_selection, how.n_selection)[0] > how.accept


@pytest.mark.parametrize("target", [0.01, 0.5, 0.9, 0.95, 0.99])
def test_an_early_accept_that_can_never_act_is_refused(target):
    """It says what is needed, to the image; and a sweep that was made with such a one is read all
    the same."""
    space, accept = SPACES["digits-width"], accept_bound(target)
    needed = next(n for n in itertools.count(1) if r_mem_interval(n, n)[0] > accept)
    settings = {"search.target": target, "measurement.accept": accept}
    enough = space.with_settings({**settings, "measurement.n_selection": needed})
    short = {**settings, "measurement.n_selection": needed - 1}
    with pytest.raises(
        UserError,
        match=rf"measurement\.n_selection: (at least {needed} images|.* greater than or equal to 1)",
    ):
        space.with_settings(short)
    of_old = {
        **enough.model_dump(),
        "measurement": {**enough.measurement.model_dump(), "n_selection": max(needed - 1, 1)},
    }
    assert SearchSpace.model_validate(of_old).measurement.accept == accept


# ---------------------------------------------------------------- made once


def test_the_configurations_are_made_once_and_are_no_field():
    space, other = (find_space("digits-width").with_settings({}) for _ in range(2))
    other = SearchSpace.model_validate(other.model_dump())
    made = space.configurations
    assert space.configurations is made
    assert space == other == space, "whether they are made or not"
    assert dict(space).keys() == dict(other).keys() == SearchSpace.model_fields.keys()
    assert space.model_dump_json() == other.model_dump_json()


def test_a_copy_with_other_fields_has_other_configurations():
    space = find_space("digits-width")
    assert len(space.configurations) == 2
    for deep in (False, True):
        one = space.model_copy(update={"vary": {"network.width": (4,)}}, deep=deep)
        assert [named.name for named in one.configurations] == ["width=4"]
