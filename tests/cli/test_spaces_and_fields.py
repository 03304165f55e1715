"""`emm spaces` and `emm fields`: every setting can be found, and a space is a file that can be edited."""

import json

import pytest

from search_spaces.find import find_space
from search_spaces.space import SearchSpace, settable
from search_spaces.table import SPACES
from search_spaces.yaml12 import read_yaml, write_yaml
from tests.cli.test_cli import ROOT, here
from trainables.config.trial import configuration_key


def printed(capsys, *arguments):
    code, output, errors = here(capsys, *arguments)
    assert (code, errors) == (0, "")
    return output


def identities(space):
    """Name → what its results belong to, of any data."""
    return {
        named.name: configuration_key(named.configuration, "0" * 64)
        for named in space.configurations
    }


# ---------------------------------------------------------------- a space as a file


@pytest.mark.parametrize(
    "name", ["digits-width", "digits-skip-count", "cifar10-labels", "paper-1k"]
)
def test_a_printed_space_is_the_same_space(capsys, tmp_path, name):
    path = tmp_path / "mine.yaml"
    path.write_text(printed(capsys, "spaces", name, "--full"), encoding="utf-8")
    space = find_space(str(path))
    assert space.model_dump(mode="json") == SPACES[name].model_dump(mode="json")
    assert identities(space) == identities(SPACES[name])
    assert printed(capsys, "spaces", path, "--full") == path.read_text(encoding="utf-8")


def test_every_space_survives_yaml():
    for name, space in SPACES.items():
        tree = space.model_dump(mode="json")
        assert read_yaml(write_yaml(tree)) == tree, name
        again = SearchSpace.model_validate(tree)
        assert list(identities(again)) == list(identities(space)), "in their order"


TEXTS = ["no", "1:30", "010", "1e-2", "1.", "0o17", "0x1F", "1_000", "~", "null", "", " a ", "a: b #c", "σ",
         "a\nb", "- a", "'", '"', "true", "2001-01-01", ".inf", "<<", "=", "&a", "*a", "!!int 3", "a" * 300]  # fmt: skip


def test_yaml_keeps_every_value_and_its_kind():
    numbers = [0, -1, 10**12, 0.1, 1e-8, 1e22, 1 / 3, 1.0, True, False, None]
    tree = {"texts": TEXTS, "numbers": numbers, **{text: {text: [[], {}]} for text in TEXTS}}
    again = read_yaml(write_yaml(tree))
    assert json.dumps(again) == json.dumps(tree)
    assert list(again) == list(tree)


def test_a_space_is_printed_with_what_is_set(capsys, tmp_path):
    path = tmp_path / "mine.yaml"
    settings = ["--set", "network.depth=2", "--set", "search.n_high=64"]
    path.write_text(printed(capsys, "spaces", "digits-width", "--full", *settings))
    space = find_space(str(path))
    assert space == SPACES["digits-width"].with_settings({"network.depth": 2, "search.n_high": 64})
    assert space != SPACES["digits-width"]


def test_json_of_a_space_has_its_settings(capsys):
    (content,) = json.loads(printed(capsys, "spaces", "digits-width", "--json"))
    space = SPACES["digits-width"].model_dump(mode="json")
    assert {name: content[name] for name in space} == space
    assert content["configurations"] == 2
    assert content["configuration_names"] == ["width=4", "width=8"]
    assert len(json.loads(printed(capsys, "spaces", "--json"))) == len(SPACES)


def test_what_is_asked_of_one_space_needs_one(capsys):
    for option in (["--full"], ["--set", "network.depth=2"]):
        code, _, errors = here(capsys, "spaces", *option)
        assert code == 2
        assert f"{option[0]}: say of which space" in errors


# ---------------------------------------------------------------- fields


def paths(capsys, *arguments):
    return [row["path"] for row in json.loads(printed(capsys, "fields", *arguments, "--json"))]


def test_fields_are_listed_and_found(capsys):
    everything = paths(capsys)
    assert {one.path for one in settable()} < set(everything)
    assert paths(capsys, "network.dit") == [
        "network.kind", "network.size", "network.patch", "network.width", "network.depth", "network.heads"
    ]  # fmt: skip
    assert set(paths(capsys, "network.width")) == {"network.width"}
    assert paths(capsys, "network.mlp.width") == ["network.width"]
    assert paths(capsys, "search")[1:3] == ["search.n_low", "search.n_high"]
    assert set(paths(capsys, "data.mix")) == {"data.mix", "data.mix.share", "data.mix.data"}
    assert "search.n_low" not in paths(capsys, "space")


def test_a_field_is_one_line(capsys):
    (line,) = [
        line
        for line in printed(capsys, "fields", "trainer.lr").splitlines()
        if line.startswith("trainer.lr ")
    ]
    assert line.split() == [
        "trainer.lr",
        "number",
        ">",
        "0",
        "0.0002",
        *["learning", "rate", "after", "warm-up"],
    ]
    assert "may change in a sweep that has begun" in printed(capsys, "fields", "search.guard")
    assert "decides no result" in printed(capsys, "fields", "data.root")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("data.lables", "did you mean data.labels"),
        ("network.resnet", "there are network.ddpmpp, network.ncsnpp, network.dit, network.mlp"),
        ("zzz", "emm fields lists all"),
        ("network.dit.dropout", "did you mean network.dropout"),
    ],
)
def test_a_path_that_is_none_is_answered(capsys, path, said):
    code, output, errors = here(capsys, "fields", path)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert errors.startswith(f"emm: error: {path}: there is no such field; ")
    assert said in errors


def test_the_page_of_fields_is_what_is_printed(capsys):
    """Else: emm fields --markdown > docs/fields.md"""
    page = (ROOT / "docs" / "fields.md").read_text(encoding="utf-8")
    assert printed(capsys, "fields", "--markdown") == page
    for line in page.splitlines():
        assert not line.startswith("|") or line.replace("\\|", "").count("|") == 6
