"""The list of all fields: nothing is missing, and what it says of each is so."""

import json
import re

import pytest

from search_spaces.settings import parse_settings
from search_spaces.space import SearchSpace, all_fields, settable
from search_spaces.table import SPACES
from tests.config.test_config import PARTS
from trainables.config.fields import with_fields
from trainables.config.listing import NEEDED, fields_of, grouped, nearest
from trainables.config.measurement import Measurement
from trainables.config.trial import Configuration
from trainables.errors import UserError

SPACE = SPACES["digits-width"]
OF_SECTIONS = ("measurement", "search", "tracking")
# what a kind can't be without
REQUIRED = {
    "folder": {"data.path": "x", "data.resolution": 8},
    "arrays": {"data.path": "x", "data.resolution": 8},
    "torchvision": {"data.name": "MNIST", "data.resolution": 8},
    "huggingface": {"data.path": "x", "data.resolution": 8},
    "custom": {"network.builder": "a:b", "trainer.builder": "a:b"},
}


def paths_in(tree, path):
    """Path of every field in plain data, with the kind of its section; a mix's data are as data."""
    for name, value in tree.items():
        here = f"{path}.{name}"
        yield here, tree.get("kind", "")
        is_group = isinstance(value, dict) and not name.endswith("options")
        if is_group and here != "data.mix.data":
            yield from paths_in(value, here)


def test_every_field_of_every_kind_is_listed_and_no_other():
    parts = [(section, part) for section, parts in PARTS.items() for part in parts]
    parts += [(section, getattr(SPACE, section)) for section in OF_SECTIONS]
    there = {found for section, part in parts for found in paths_in(part.model_dump(), section)}
    kinds = {(f"{section}.kind", "") for section in PARTS}
    assert {(one.path, one.kind) for one in settable()} == there | kinds


def configured(one):
    """Changes that make the kind of a field, without the field."""
    changes = {f"{one.section}.kind": one.kind} if one.kind else {}
    needed = {p: v for p, v in REQUIRED.get(one.kind, {}).items() if p.startswith(one.section)}
    return {**changes, **needed}


def set_to(one, value):
    """The value that a field of digits-width then has, as JSON."""
    section, _, rest = one.path.partition(".")
    model = SPACE.base if section not in OF_SECTIONS else getattr(SPACE, section)
    path = one.path if model is SPACE.base else rest
    tree = with_fields(model, {**configured(one), path: value}).model_dump(mode="json")
    for name in path.split("."):
        tree = tree[name]
    return tree


def refusal(one, value):
    """Why a field may not have a value; "" if it may. Where two fields don't fit, that is said."""
    try:
        return "" if set_to(one, value) == value else "it is changed"
    except UserError as error:
        return str(error)


SETTABLE = [one for one in settable() if one.section not in ("data.mix", "data.duplicates")]
LIMITED = [
    (one, sign, json.loads(limit))
    for one in SETTABLE
    for sign, limit in re.findall(r"(?<!length )(>=|>|<=|<) ([\d.]+)", one.range)
]
OUT_OF_RANGE = "it must be (greater|less) than"


@pytest.mark.parametrize("one", SETTABLE, ids=lambda one: f"{one.group}-{one.path}")
def test_a_field_has_a_description_and_its_default(one):
    assert one.description
    if one.default not in (NEEDED, "", '""'):  # "" is how no text is shown
        (default,) = parse_settings([f"x={one.default}"]).values()
        refused = refusal(one, default)
        assert not refused or "must divide" in refused or "at this depth" in refused
    values = [tree for tree in PARTS.get(one.section, ()) if getattr(tree, "kind", "") == one.kind]
    if values and one.kind:
        name = one.path.rpartition(".")[2]
        field = type(values[0]).model_fields[name]
        needed = field.is_required() or name == "kind"
        assert needed == (one.default in (NEEDED, ""))


@pytest.mark.parametrize(
    ("one", "sign", "limit"), LIMITED, ids=[f"{one.group}-{one.path}-{s}" for one, s, _ in LIMITED]
)
def test_a_range_ends_where_it_is_said_to(one, sign, limit):
    def given(value):
        return [value] * max(1, one.type.count("number")) if one.type.startswith("[") else value

    step = int((re.findall(r"multiple of (\d+)", one.range) or ["1"])[0])
    beyond = {">=": limit - step, ">": limit, "<=": limit + step, "<": limit}[sign]
    assert re.search(OUT_OF_RANGE, refusal(one, given(beyond)))
    inside = {">=": limit, ">": limit + 1e-9, "<=": limit, "<": limit - 1e-9}[sign]
    assert not re.search(OUT_OF_RANGE, refusal(one, given(inside)))


@pytest.mark.parametrize(
    "one", [one for one in SETTABLE if "|" in one.type], ids=lambda one: one.path
)
def test_a_field_takes_the_words_that_are_listed_and_no_other(one):
    if "text" not in one.type.split(" | "):
        with pytest.raises(UserError):
            set_to(one, "nonsense")
    if "null" in one.type and one.path != "measurement.snapshots":  # which the protocol decides
        assert set_to(one, None) is None


def test_what_all_kinds_have_is_shown_once():
    groups = grouped(settable())
    names = {title: [one.path for one in group] for title, group in groups.items()}
    assert names["trainer"] == [
        "trainer.kind", "trainer.clock", "trainer.length", "trainer.batch", "trainer.augment"
    ]  # fmt: skip
    assert "trainer.lr" in names["trainer.kind=standard"]
    assert "trainer.clock" not in names["trainer.kind=standard"]
    assert names["data.mix"] == ["data.mix.share", "data.mix.data"]
    assert sum(map(len, names.values())) == len(
        {(one.path, one.kind) for group in groups.values() for one in group}
    )
    (only,) = grouped(one for one in settable() if one.kind == "dit")
    assert only == "network.kind=dit"


def test_a_kind_is_described_by_its_first_sentence():
    kinds = {one.type: one.description for one in settable() if one.kind == one.type}
    assert kinds["ddpmpp"].startswith("DDPM++ (Song et al. 2021, arXiv 2011.13456) as used by Gu")
    assert kinds["flow"].endswith("(arXiv 2210.02747, 2209.03003)")
    assert kinds["unique"] == "A label of its own for every training image"


def test_what_counts_and_what_may_change_is_told():
    by_path = {one.path: one for one in settable()}
    assert [by_path[path].counts for path in ("data.root", "trainer.micro_batch", "trainer.lr")] == [
        False, False, True
    ]  # fmt: skip
    assert by_path["trainer.betas"].range == "each >= 0 and < 1"
    assert by_path["search.targets"].range == "length <= 4, each > 0 and < 1"
    assert by_path["search.precision"].may_change
    assert not by_path["search.target"].may_change


def test_fields_of_a_file_stand_before():
    assert [one.path for one in all_fields()][:2] == ["name", "question"]
    assert {one.path for one in all_fields() if one.section == "space"} == set(
        SearchSpace.model_fields
    )


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("width", ["network.width"]),
        ("netwrok.width", ["network.width"]),
        ("netwrok.kind", ["network.kind"]),
        ("network.pacth", ["network.patch"]),
        ("data.lables", ["data.labels"]),
        ("search.n_hgih", ["search.n_high"]),
        ("zzz", []),
        ("network.zzz", []),
    ],
)
def test_a_typo_is_answered_from_all_paths(typed, meant):
    assert nearest(typed, dict.fromkeys(one.path for one in settable())) == meant


def test_a_field_is_meant_by_what_it_is():
    with pytest.raises(UserError, match=r"did you mean trainer\.lr\?"):
        SPACE.with_settings({"trainer.learning_rate": 1})


def test_a_field_of_another_section_is_found():
    with pytest.raises(UserError, match=r"did you mean measurement\.n_samples"):
        SPACE.with_settings({"n_samples": 1})
    with pytest.raises(UserError, match=r"did you mean search\.max_trials\?"):
        SPACE.with_settings({"measurement.max_trials": 1})


def test_a_model_that_holds_itself_is_listed_once():
    again = [one for one in fields_of(Configuration) if one.type.startswith("as ")]
    assert {(one.path, one.type) for one in again} == {("data.mix.data", "as data")}
    assert next(fields_of(Measurement)).path == "protocol"
