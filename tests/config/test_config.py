"""Descriptions of trials: JSON form, identity (frozen here: a changed default fails), and errors in
one line."""

import json
import subprocess
import sys
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from search_spaces.settings import parse_settings
from tests.kinds import kinds_of
from trainables.config.data import (
    Arrays,
    Cifar10,
    Data,
    Digits,
    Duplicates,
    Folder,
    HuggingFace,
    Mix,
    Mnist5k,
    Photos,
    Torchvision,
)
from trainables.config.diffusion import EDM, VE, VP, Diffusion, Flow
from trainables.config.fields import validated, with_fields
from trainables.config.identity import IGNORED, Frozen, derive_seed, identity, key_of
from trainables.config.labels import Labels, NoLabels, RandomLabels, TrueLabels, UniqueLabels
from trainables.config.measurement import Measurement
from trainables.config.network import MLP, CustomNetwork, DDPMpp, DiT, NCSNpp, Network, Optimum
from trainables.config.training import CustomTrainer, StandardTrainer, Trainer
from trainables.config.trial import Configuration, TrialSpec, configuration_key
from trainables.errors import UserError

DIGEST = "d" * 64
PAPER = Configuration(data=Cifar10(), network=DDPMpp(), diffusion=VP(), trainer=StandardTrainer())
DIGITS = Configuration(
    data=Digits(),
    network=DDPMpp(width=16, multipliers=(1, 2)),
    diffusion=EDM(),
    trainer=StandardTrainer(),
)
SPEC = TrialSpec(name="paper", configuration=PAPER, measurement=Measurement(), n=1000, seed=0)

# Another valid value of every field that counts. A new field needs a line here, and a default that
# keeps the old keys.
UNET = {
    "width": 64, "depth": 3, "multipliers": (1, 2, 2), "attention": (8,), "dropout": 0.0, "skips": (True,) * 8 + (False,),
}  # fmt: skip
OWN = {"builder": "other:builder", "options": {"width": 8}, "version": "2"}
CHANGED = {
    DDPMpp: {**UNET, "time_embedding": "fourier"},
    NCSNpp: {**UNET, "time_embedding": "positional"},
    DiT: {"size": "B", "patch": 4, "width": 192, "depth": 2, "heads": 4},
    MLP: {"width": 64, "depth": 2, "dropout": 0.1},
    CustomNetwork: OWN,
    CustomTrainer: {**OWN, "clock": "steps", "length": 10, "batch": 64, "augment": "flip"},
    EDM: {"sigma_data": 0.6, "P_mean": -1.3, "P_std": 1.0, "stratified": True},
    VP: {"beta_d": 20.0, "beta_min": 0.2, "epsilon_t": 1e-3, "M": 100},
    VE: {"sigma_min": 0.01, "sigma_max": 50.0},
    Flow: {"times": "logit_normal", "t_mean": 0.5, "t_std": 0.5},
    StandardTrainer: {
        "clock": "steps", "length": 10, "batch": 64, "lr": 1e-3, "warmup": 0, "decay": 0.5, "betas": (0.9, 0.99),
        "eps": 1e-7, "weight_decay": 1e-4, "ema_decay": 0.99, "ema_rampup": 0.0, "order": "reshuffled", "precision": "bf16",
        "lr_batch": 256, "optimizer": "sgd", "augment": "flip", "noise_draws": 1,
    },
    Measurement: {
        "n_samples": 10_000, "n_selection": 100, "snapshots": 16, "sampler_steps": 10, "sigma_min": 0.01, "sigma_max": 10.0,
        "rho": 5.0, "k": 0.5, "logit_se": 0.1, "accept": 0.985, "protocol": "paper", "sampler": "euler",
        "features": "other:eye", "features_options": {"size": 96}, "features_version": "2",
        "features_rule": "distance", "judge": "features", "pair": True,
    },
}  # fmt: skip
NOT_COUNTED = {
    Measurement: {"batch"}, StandardTrainer: {"micro_batch", "compile"},
    Digits: set(), Mnist5k: set(), Photos: set(), Cifar10: {"root", "download"},
    Folder: {"path", "labels_file"}, Arrays: {"path", "labels_file"},
    Torchvision: {"root", "download"}, HuggingFace: {"path", "name", "download"},
}  # fmt: skip
UNIONS = {
    "data": Data, "labels": Labels, "network": Network, "diffusion": Diffusion, "trainer": Trainer
}  # fmt: skip
SECTION = {
    kind: section
    for section in ("network", "diffusion", "trainer")
    for kind in kinds_of(UNIONS[section])
}
REQUIRED = {
    CustomNetwork: {"network.builder": "my:network"},
    CustomTrainer: {"trainer.builder": "my:trainer"},
}


# ---------------------------------------------------------------- JSON


# section → parts of it, one of each kind or more: another kind stands here too
PARTS = {
    "data": [
        Digits(),
        Mnist5k(resolution=8),
        Cifar10(root="/a b", download=True),
        Folder(path="ü", resolution=8),
        Arrays(path="x", resolution=8, channels=1),
        Torchvision(name="EMNIST", root="/a b", resolution=28, options={"split": "letters"}),
        HuggingFace(name="a/b", config="c", image="d", resolution=8, skip_bad=True),
        Photos(classes=3, duplicates=Duplicates(share=0.5)),
        Digits(mix=Mix(share=0.2, data=Arrays(path="x", resolution=8, channels=1))),
    ],
    "labels": [NoLabels(), TrueLabels(), RandomLabels(), RandomLabels(classes=5), UniqueLabels()],
    "network": [
        DDPMpp(multipliers=(1,), skips=(True, False, True)),
        NCSNpp(multipliers=(1,), time_embedding="positional"),
        DiT(width=64, heads=4),
        MLP(),
        CustomNetwork(builder="a.b:c", options={"x": [1, None, "ü"], "y": {"z": 0.5}}),
        Optimum(),
    ],
    "diffusion": [EDM(sigma_data=0.3), VP(), VE(), Flow(t_mean=1)],
    "trainer": [StandardTrainer(lr=1e-3), CustomTrainer(builder="a:b", options={"x": 1})],
}


def test_every_kind_is_in_the_tables():
    for section, union in UNIONS.items():
        assert {type(part) for part in PARTS[section]} == set(kinds_of(union))
    with_fields_that_count = {kind for kind in SECTION if kind.model_fields.keys() > {"kind"}}
    assert with_fields_that_count <= CHANGED.keys()


@pytest.mark.parametrize(
    ("section", "part"),
    [(section, part) for section, parts in PARTS.items() for part in parts],
    ids=lambda x: getattr(x, "kind", x),
)
def test_json_round_trip(section, part):
    configuration = DIGITS.model_copy(update={section: part})
    spec = TrialSpec(
        name="x", configuration=configuration, measurement=Measurement(k=0.5), n=10, seed=3
    )
    back = TrialSpec.model_validate_json(spec.model_dump_json())
    assert back == spec
    assert type(getattr(back.configuration, section)) is type(part)
    assert back.measurement_key(DIGEST) == spec.measurement_key(DIGEST)
    assert TrialSpec.model_validate(json.loads(json.dumps(spec.model_dump(mode="json")))) == spec


def test_frozen_and_strict():
    with pytest.raises(ValidationError, match="frozen"):
        SPEC.n = 5
    with pytest.raises(ValidationError, match="Extra inputs"):
        EDM(sigma=1)
    with pytest.raises(ValidationError, match="finite"):
        EDM(P_mean=float("nan"))


# ---------------------------------------------------------------- identity


def test_golden_keys():
    """These name directories of results that exist: a change of the scheme orphans them."""
    optimum = Configuration(
        data=Digits(), network=Optimum(), diffusion=EDM(), trainer=StandardTrainer()
    )
    found = {
        "paper": configuration_key(PAPER, DIGEST),
        "digits": configuration_key(DIGITS, DIGEST),
        "optimum": configuration_key(optimum, DIGEST),
        "training": SPEC.training_key(DIGEST),
        "measurement": SPEC.measurement_key(DIGEST),
        "seed": derive_seed("step", 0, 512),
    }
    assert found == {
        "paper": "d116ddbd2160eb79c29d1e02e7c8604d",
        "digits": "96a735078c12ac76179c1be4fa88036c",
        "optimum": "73604b9b30ec356b3ce0789a9d7d9f2f",
        "training": "f3d395fcb67b87d02165b675f5453fbf",
        "measurement": "c83d79f8e6fb4d23fa922cfa6d134f67",
        "seed": 8694830657053175118,
    }


def test_frozen_defaults():
    """A field at its default is not in the key, so a default that changes gives an old key to new
    numbers."""
    assert DDPMpp().model_dump() == {
        "kind": "ddpmpp", "width": 128, "depth": 2, "multipliers": (2, 2, 2), "attention": (16,), "dropout": 0.13,
        "time_embedding": "positional", "skips": None,
    }  # fmt: skip
    assert EDM().model_dump() == {
        "kind": "edm", "sigma_data": 0.5, "P_mean": -1.2, "P_std": 1.2, "stratified": False
    }  # fmt: skip
    assert VP().model_dump() == {
        "kind": "vp", "beta_d": 19.9, "beta_min": 0.1, "epsilon_t": 1e-5, "M": 1000
    }  # fmt: skip
    assert StandardTrainer().model_dump() == {
        "kind": "standard", "clock": "epochs", "length": 40_000, "batch": 512, "lr": 2e-4, "warmup": 200, "decay": 0.0,
        "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "ema_decay": 0.99929, "ema_rampup": 0.05,
        "order": "cycled", "precision": "fp32", "lr_batch": None, "optimizer": "adam", "augment": "none", "micro_batch": None,
            "compile": None, "noise_draws": None,
    }  # fmt: skip
    assert Measurement().model_dump() == {
        "n_samples": 2000, "n_selection": 500, "snapshots": 8, "sampler_steps": 18, "sigma_min": 0.002, "sigma_max": 80.0,
        "rho": 7.0, "k": 1 / 3, "batch": None, "logit_se": 0.0, "accept": None, "protocol": "own", "sampler": "heun",
        "features": None, "features_options": {}, "features_version": "", "features_rule": "ratio",
        "judge": "pixels", "pair": False,
    }  # fmt: skip
    assert NCSNpp().model_dump() == {
        **DDPMpp().model_dump(),
        "kind": "ncsnpp",
        "time_embedding": "fourier",
    }
    assert DiT().model_dump() == {
        "kind": "dit", "size": "S", "patch": 2, "width": None, "depth": None, "heads": None
    }  # fmt: skip
    assert MLP().model_dump() == {"kind": "mlp", "width": 256, "depth": 3, "dropout": 0.0}
    assert VE().model_dump() == {"kind": "ve", "sigma_min": 0.02, "sigma_max": 100.0}
    assert Flow().model_dump() == {"kind": "flow", "times": "uniform", "t_mean": 0.0, "t_std": 1.0}
    own = {"kind": "custom", "builder": "a:b", "options": {}, "version": ""}
    assert CustomNetwork(builder="a:b").model_dump() == own
    assert CustomTrainer(builder="a:b").model_dump() == {
        **own, "clock": "epochs", "length": 40_000, "batch": 512, "augment": "none",
    }  # fmt: skip


def test_every_field_is_in_the_tables():
    for model, values in CHANGED.items():
        listed = values.keys() | NOT_COUNTED.get(model, set())
        assert listed == model.model_fields.keys() - {"kind"}


def test_where_data_lie_is_marked():
    """So that it neither counts nor leaves the storage."""
    for kind in kinds_of(Data):
        marked = {
            name for name, field in kind.model_fields.items() if field.json_schema_extra == IGNORED
        }
        assert marked == NOT_COUNTED[kind]


@pytest.mark.parametrize(
    ("model", "field"),
    [(model, field) for model in SECTION for field in CHANGED.get(model, ())],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_every_field_of_the_training_counts(model, field):
    kind = {f"{SECTION[model]}.kind": model.model_fields["kind"].default, **REQUIRED.get(model, {})}
    before = with_fields(PAPER, kind)
    after = with_fields(before, {f"{SECTION[model]}.{field}": CHANGED[model][field]})
    assert configuration_key(before, DIGEST) != configuration_key(after, DIGEST)


@pytest.mark.parametrize("field", CHANGED[Measurement])
def test_every_field_of_the_measurement_counts_for_it_alone(field):
    spec = with_fields(SPEC, {"measurement.features": "my:eye"})
    other = with_fields(spec, {f"measurement.{field}": CHANGED[Measurement][field]})
    keys = {one.measurement_key(DIGEST) for one in (SPEC, spec, other)}
    assert len(keys) == 3
    same_training = field != "protocol"  # the paper's has a subset of its own
    assert (other.training_key(DIGEST) == SPEC.training_key(DIGEST)) == same_training


def test_labels_count():
    """All of them, and their absence as before there were any."""
    described = [PAPER.model_copy(update={"labels": labels}) for labels in PARTS["labels"]]
    keys = [configuration_key(configuration, DIGEST) for configuration in described]
    assert len(set(keys)) == len(keys)
    assert keys[0] == configuration_key(PAPER, DIGEST)


@pytest.mark.parametrize("section", ["network", "diffusion", "trainer"])
def test_kinds_count(section):
    """Two kinds whose fields are all at their defaults are still two."""
    keys = set()
    for kind in kinds_of(UNIONS[section]):
        name = kind.model_fields["kind"].default
        changes = {f"{section}.kind": name, **REQUIRED.get(kind, {})}
        keys.add(configuration_key(with_fields(PAPER, changes), DIGEST))
    assert len(keys) == len(kinds_of(UNIONS[section]))


def test_what_does_not_decide_the_numbers_does_not_count():
    for changes in (
        {"name": "other"},
        {"measurement.batch": 7},
        {"configuration.trainer.micro_batch": 32},
        {"configuration.trainer.compile": True},
        {"configuration.data.root": "/elsewhere"},
        {"configuration.data.download": True},
    ):
        other = with_fields(SPEC, changes)
        assert other != SPEC
        assert other.measurement_key(DIGEST) == SPEC.measurement_key(DIGEST)
    sources = [
        Folder(path="a", resolution=32),
        Folder(path="b", resolution=32),
        Arrays(path="c", resolution=32),
    ]
    specs = [
        SPEC.model_copy(update={"configuration": PAPER.model_copy(update={"data": data})})
        for data in sources
    ]
    assert {spec.measurement_key(DIGEST) for spec in specs} == {SPEC.measurement_key(DIGEST)}, (
        "data counts by its content"
    )


def test_content_n_and_seed_count():
    keys = {SPEC.training_key(DIGEST), SPEC.training_key("e" * 64)}
    keys |= {
        with_fields(SPEC, change).training_key(DIGEST) for change in ({"n": 1001}, {"seed": 1})
    }
    assert len(keys) == 4


def test_a_field_added_later_keeps_the_keys():
    class Later(DDPMpp):
        groups: int = Field(32)

    assert identity(Later()) == identity(DDPMpp())
    assert identity(Later(width=64)) == identity(DDPMpp(width=64))
    assert identity(Later(groups=4)) != identity(DDPMpp())


def test_a_default_said_aloud_is_the_same():
    said = DDPMpp(width=128, attention=[16], dropout=0.13, skips=None)
    assert identity(said) == identity(DDPMpp()) == {"kind": "ddpmpp"}
    assert identity(StandardTrainer(weight_decay=0)) == identity(StandardTrainer())


def test_keys_do_not_depend_on_the_order_of_fields():
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1}) != key_of({"a": 2, "b": 1})


def test_seeds_of_purposes_differ():
    seeds = [
        derive_seed(purpose, *where)
        for purpose in ("step", "order")
        for where in ((1, 23), (12, 3), (0, 0), (0, 1))
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds), "torch takes signed 64-bit seeds"


# ---------------------------------------------------------------- changing fields


def test_with_fields_changes_what_is_named_and_nothing_else():
    changed = with_fields(SPEC, {"configuration.network.width": 192, "seed": 4})
    assert changed.configuration.network == DDPMpp(width=192)
    assert changed.seed == 4
    assert changed == with_fields(SPEC, {"seed": 4, "configuration.network.width": "192"}), (
        "text from a command line"
    )
    assert SPEC.configuration.network.width == 128


def test_with_fields_sets_a_kind_with_its_fields():
    changed = with_fields(PAPER, {"diffusion.P_mean": -2, "diffusion.kind": "edm"})
    assert changed.diffusion == EDM(P_mean=-2)
    fields = {"path": "x", "resolution": 8, "kind": "folder"}
    one_by_one = {f"data.{name}": value for name, value in fields.items()}
    for changes in (
        one_by_one,
        {"data": fields},
        {"data": fields | {"resolution": 4}, "data.resolution": 8},
    ):
        assert with_fields(PAPER, changes).data == Folder(path="x", resolution=8)
    with pytest.raises(UserError, match=r"^data is a group of fields: set one of data\.classes"):
        with_fields(PAPER, {"data": {"path": "x"}})
    with pytest.raises(
        UserError, match=r"^data\.pat: there is no such field; did you mean data\.path\?$"
    ):
        with_fields(PAPER, {"data": fields | {"pat": 3}})


def test_options_of_the_users_code_have_any_name():
    own = {"network.kind": "custom", "network.builder": "my_code.nets:small"}
    first = with_fields(PAPER, {**own, "network.options.width": 64, "network.options.act": "relu"})
    assert first.network.options == {"width": 64, "act": "relu"}
    assert first == with_fields(PAPER, {**own, "network.options": {"act": "relu", "width": 64}})
    changed = with_fields(first, {"network.options.width": 32})
    assert changed.network.options == {"width": 32, "act": "relu"}
    assert first.network.options["width"] == 64
    assert configuration_key(changed, DIGEST) != configuration_key(first, DIGEST)
    assert with_fields(first, {"network.options": {}}).network.options == {}


def test_a_version_may_be_a_number():
    """As docs/custom.md has it."""
    for own in (CustomNetwork, CustomTrainer):
        assert own(builder="a:b", version=2) == own(builder="a:b", version="2")
    assert Measurement(features="a:b", features_version=2).features_version == "2"


def test_options_of_features_have_any_name():
    own = {"measurement.features": "my:eye", "measurement.features_options.size": 64}
    first = with_fields(SPEC, own).measurement
    assert (first.features, first.features_options) == ("my:eye", {"size": 64})
    changed = with_fields(first, {"features_options.crop": True, "features_options.size": 32})
    assert changed.features_options == {"size": 32, "crop": True}
    assert with_fields(first, {"features_options": {}}).features_options == {}
    with pytest.raises(UserError, match=r"^features: write it as package\.module:name, not 'eye'$"):
        with_fields(first, {"features": "eye"})
    for alone in (
        {"features_version": "2"}, {"features_options.size": 64}, {"features_rule": "distance"}
    ):  # fmt: skip
        with pytest.raises(UserError, match="features must name a function"):
            with_fields(Measurement(), alone)
    with pytest.raises(UserError, match="judge=features needs features"):
        with_fields(Measurement(), {"judge": "features"})


def test_with_fields_fills_an_optional_group():
    second = {"kind": "arrays", "path": "x", "resolution": 8, "channels": 1}
    changed = with_fields(
        DIGITS,
        {
            "data.mix.share": 0.25,
            **{f"data.mix.data.{name}": value for name, value in second.items()},
        },
    )
    assert changed.data == Digits(
        mix=Mix(share=0.25, data=Arrays(path="x", resolution=8, channels=1))
    )
    assert with_fields(changed, {"data.mix.share": 1}).data.mix.share == 1
    assert with_fields(DIGITS, {"data.duplicates.share": 0.1}).data.duplicates == Duplicates(
        share=0.1, multiplicity=2
    )
    assert with_fields(
        DIGITS, {"labels.kind": "random", "labels.classes": 7}
    ).labels == RandomLabels(classes=7)


def test_true_labels_as_json_reads_them():
    assert with_fields(DIGITS, parse_settings(["labels.kind=true"])).labels == TrueLabels()
    assert with_fields(DIGITS, parse_settings(["labels.kind=none"])).labels == NoLabels()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"data.duplicates.share": 0}, ["data.duplicates.share", "greater than 0", "not 0"]),
        ({"data.duplicates.multiplicity": 2}, ["data.duplicates.share", "required"]),
        (
            {"data.duplicates.often": 2, "data.duplicates.share": 1},
            ["data.duplicates.often", "no such field"],
        ),
        ({"data.mix.share": 0.5}, ["data.mix.data", "required"]),
        (
            {"data.mix.share": 1.5, "data.mix.data.kind": "cifar10"},
            ["data.mix.share", "less than or equal to 1", "not 1.5"],
        ),
        (
            {"data.mix.share": 0.5, "data.mix.data.kind": "digits"},
            ["data", "mix.data.resolution", "32, not 8"],
        ),
        (
            {"data.mix.share": 0.5, "data.mix.data.kind": "photos", "data.duplicates.share": 0.5},
            ["data", "mix", "can't be combined with duplicates"],
        ),
        ({"data.classes": 0}, ["data.classes", "greater than or equal to 1", "not 0"]),
        (
            {"labels.kind": "some"},
            ["labels.kind", "'some'", "there are none, true, random, unique"],
        ),
        ({"labels.kind": "random", "labels.classes": 0}, ["labels.classes", "not 0"]),
        ({"labels.kind": "unique", "labels.classes": 3}, ["labels.classes", "no such field"]),
        (
            {"trainer.optimizer": "lion"},
            ["trainer.optimizer", "'adam', 'adamw' or 'sgd'", "not 'lion'"],
        ),
        ({"network.widht": 32}, ["network.widht", "did you mean network.width?"]),
        ({"netwrok.width": 32}, ["netwrok.width: ", "did you mean network.width?"]),
        ({"zzz.zzz": 1}, ["zzz.zzz", "configuration has data, labels, network"]),
        ({"width": 8}, ["width: there is no such field; did you mean network.width?"]),
        ({"data.lables": 1}, ["did you mean data.labels?"]),
        (
            {"network.patch": 2},
            ["network.patch: this kind has no such field; network.kind=dit has it"],
        ),
        (
            {"network.kind": "dit", "network.dropout": 0.1},
            ["network.kind=ddpmpp, network.kind=ncsnpp or network.kind=mlp has it"],
        ),
        ({"network.kind": "dit", "network.pacth": 2}, ["did you mean network.patch?"]),
        ({"network.zzz": 1}, ["network.zzz", "network has kind, width, depth"]),
        ({"network.width.x": 1}, ["network.width.x"]),
        ({"network.width": 0}, ["network.width", "greater than or equal to 4", "not 0"]),
        ({"network.width": "wide"}, ["network.width", "integer", "not 'wide'"]),
        ({"network.dropout": 1.0}, ["network.dropout", "less than 1", "not 1.0"]),
        ({"network.multipliers": []}, ["network.multipliers", "at least 1", "not []"]),
        ({"network.multipliers": [2, 0]}, ["network", "multipliers must be 1 or more"]),
        ({"network.skips": [True]}, ["network", "skips needs 9 flags", "not 1"]),
        ({"network": 1}, ["network is a group of fields", "network.width"]),
        (
            {"network.kind": "ddpm"},
            ["network.kind: ", "'ddpm'", "are ddpmpp, ncsnpp, dit, mlp, custom, optimum"],
        ),
        (
            {"network.kind": "dit", "network.patch": 3},
            ["network.patch must divide data.resolution (32), not 3"],
        ),
        (
            {"network.kind": "dit", "network.heads": 5},
            ["network", "heads must divide the width, and 5 does not divide 384"],
        ),
        (
            {"network.kind": "dit", "network.size": "M"},
            ["network.size", "'S', 'B' or 'L'", "not 'M'"],
        ),
        ({"network.kind": "custom"}, ["network.builder", "required"]),
        (
            {"network.kind": "custom", "network.builder": "my/network.py"},
            ["network.builder: write it as package.module:name, not 'my/network.py'"],
        ),
        ({"network.kind": "mlp", "network.options.width": 3}, ["network.options", "no such field"]),
        (
            {"diffusion.kind": "ve", "diffusion.sigma_min": 200},
            ["diffusion", "sigma_min must be below sigma_max"],
        ),
        ({"network.kind": "optimum", "network.width": 8}, ["network.width", "no such field"]),
        ({"data.kind": "folder", "data.resolution": 8}, ["data.path", "required"]),
        ({"data.kind": "huggingface", "data.resolution": 8}, ["data: either path", "or name"]),
        ({"data.resolution": 30}, ["network.multipliers", "divisible by 4", "not 30"]),
        ({"trainer.clock": "hours"}, ["trainer.clock", "'epochs' or 'steps'", "not 'hours'"]),
        ({"trainer.kind": "other"}, ["trainer.kind: ", "'other'", "there are standard, custom"]),
        ({"trainer.betas": [0.9, 1.0]}, ["trainer.betas.1", "less than 1", "not 1.0"]),
        ({"trainer.lr": 0, "trainer.batch": 0}, ["greater than", "not 0", "(and 1 more)"]),
        (
            {"diffusion.epsilon_t": float("nan")},
            ["diffusion.epsilon_t", "finite number", "not nan"],
        ),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_a_mistake_is_one_line(changes, parts):
    with pytest.raises(UserError) as caught:
        with_fields(PAPER, changes)
    line = str(caught.value)
    assert "\n" not in line
    assert all(part in line for part in parts), line


def test_a_line_names_fields_and_no_kinds_whatever_kinds_there_are():
    class Hexagon(Frozen):
        kind: Literal["hexagon"] = "hexagon"
        side: int = Field(ge=1)
        inside: dict[str, int] = Field({})  # by names of the user's

    class Circle(Frozen):
        kind: Literal["circle", "disc"] = "circle"
        disc: int = 0
        inside: "Hexagon | Circle | None" = Field(None, discriminator="kind")

    class Drawing(Frozen):
        shapes: tuple[Annotated[Hexagon | Circle, Field(discriminator="kind")], ...]

    namespace = {"Hexagon": Hexagon, "Circle": Circle}
    Circle.model_rebuild(_types_namespace=namespace)
    Drawing.model_rebuild(force=True, _types_namespace=namespace)

    def said(*shapes):
        with pytest.raises(UserError) as caught:
            validated(Drawing, {"shapes": shapes})
        return str(caught.value).partition(":")[0]

    wrong = {"kind": "hexagon", "side": 0}
    assert said(wrong) == "shapes.0.side"
    assert said({"kind": "circle"}, {"kind": "disc", "inside": wrong}) == "shapes.1.inside.side"
    assert said({"kind": "circle", "disc": "x"}) == "shapes.0.disc", "a field, here"
    of_the_user = {"kind": "hexagon", "side": 1, "inside": {"circle": "x"}}
    assert said(of_the_user) == "shapes.0.inside.circle"


@pytest.mark.parametrize(
    "changes", [{"n": 1}, {"seed": -1}, {"measurement.snapshots": 3}, {"measurement.sigma_min": 90}]
)
def test_mistakes_in_a_trial(changes):
    with pytest.raises(
        UserError,
        match=r"^(n|seed|measurement\.snapshots): .*, not|^measurement: sigma_min must be below",
    ):
        with_fields(SPEC, changes)


# ---------------------------------------------------------------- the paper's protocol


def test_protocol_of_the_paper():
    how = Measurement(protocol="paper")
    assert (how.n_samples, how.n_selection, how.k, how.sampler_steps) == (10_000, 10_000, 1 / 3, 18)
    assert with_fields(SPEC, {"measurement.protocol": "paper"}).measurement == how
    assert Measurement.model_validate_json(how.model_dump_json()) == how
    # 16 snapshots at N = 1k and 80 at 5k, every 2.5 M images
    for n, snapshots in ((1000, 16), (5000, 80), (1100, 18), (50, 1)):
        images = StandardTrainer().train_images(n)
        assert how.snapshots_of(images) == snapshots
        due = [round(how.due(number, images) * images) for number in range(1, snapshots + 1)]
        assert due == [*range(2_500_000, images, 2_500_000), images]


def test_protocol_of_our_own():
    for images in (0, 10, 40_000_000):
        assert [Measurement(snapshots=4).due(number, images) for number in (1, 2, 3, 4)] == [
            0.25,
            0.5,
            0.75,
            1,
        ]
        assert Measurement(snapshots=4).snapshots_of(images) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "paper", "n_samples": 500}, "protocol=paper needs n_samples=10000, not 500"),
        ({"protocol": "paper", "snapshots": 4}, "protocol=paper needs snapshots=null, not 4"),
        ({"protocol": "paper", "accept": 0.98}, "protocol=paper needs accept=null, not 0.98"),
        ({"snapshots": None}, "snapshots must be a number unless protocol=paper"),
    ],
)
def test_what_contradicts_the_protocol_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        with_fields(SPEC, {f"measurement.{name}": value for name, value in changes.items()})


# ---------------------------------------------------------------- lengths of training


@pytest.mark.parametrize(
    ("n", "steps"), [(1000, 78_125), (2000, 156_250), (5000, 390_625), (50_000, 3_906_250)]
)
def test_steps_of_the_paper(n, steps):
    assert StandardTrainer().train_steps(n) == steps


def test_length_in_steps_does_not_depend_on_n():
    recipe = StandardTrainer(clock="steps", length=7, batch=64, warmup=2)
    assert {
        (recipe.train_steps(n), recipe.train_images(n), recipe.warmup_images(n))
        for n in (2, 64, 999)
    } == {(7, 448, 128)}
    assert StandardTrainer(clock="epochs", length=3, batch=64).train_steps(22) == 2, (
        "66 images: the second step takes two"
    )


def test_no_torch_for_a_description():
    code = (
        "import sys, trainables.config.trial; sys.exit(bool({'torch', 'numpy'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 0


def test_a_kind_that_a_section_has_already_changes_nothing():
    """`--set network.kind=ddpmpp` on a recipe of that kind; another kind drops the former fields."""
    for path, kind in (("network.kind", "ddpmpp"), ("trainer.kind", "standard")):
        assert with_fields(DIGITS, {path: kind}) == DIGITS
    wider = with_fields(DIGITS, {"network.kind": "ddpmpp", "network.width": 24})
    assert wider == with_fields(DIGITS, {"network.width": 24})
    other = with_fields(DIGITS, {"network.kind": "ncsnpp"})
    assert other.network.width != DIGITS.network.width
