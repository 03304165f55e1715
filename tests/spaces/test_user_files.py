"""Spaces in files of the user's: what a file needs, and what is said of mistakes, in the user's words."""

import json

import pytest

from benchmarks.claims import QUESTIONS
from search_spaces.find import find_space
from search_spaces.space import SearchSpace
from tests.cli.test_cli import ROOT, here
from trainables.errors import UserError

LEAST = "base: digits\nsearch: {n_low: 8, n_high: 64}\n"
WHOLE = (
    "base: {data: {kind: digits}, network: NETWORK, diffusion: {kind: edm}, "
    "trainer: {kind: standard}}\nsearch: {n_low: 8, n_high: 64}\nmeasurement: {}\n"
)
SAME = "{network.width: 16, network.depth: 1}"  # as the recipe has it
# of pydantic and of Python, which a user of a YAML file knows nothing of
FOREIGN = ["Input should", "valid dictionary", "instance of", "tuple", "Tuple", "Field required", "Value error",
           "tag", "validation error", "None", "True", "False", "extra"]  # fmt: skip


def space_in(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    space = find_space(str(tmp_path / name))
    assert space.configurations
    return space


MISTAKES = [
    (f"{LEAST}vary: {{network.widht: [4]}}", "vary: network.widht: there is no such field; did you mean network.width?"),
    (f"{LEAST}vary: {{data.lables: [4]}}", "did you mean data.labels?"),
    (f"{LEAST}vary: {{law: {{a: {{trainer.lenght: 1}}}}}}", "did you mean trainer.length?"),
    (f"{LEAST}vary: {{network.kind: [resnet]}}", "vary: network.kind: there is no kind 'resnet'; there are ddpmpp,"),
    (f"{LEAST}vary: {{network.patch: [2]}}", "network.patch: this kind has no such field; network.kind=dit has it"),
    (f"{LEAST}vary: {{measurement.k: [.3, .4]}}", "measurement.k: measurement is one for all configurations"),
    (f"{LEAST}vary: {{x: {{a: {{}}, b: {{search.n_low: 4}}}}}}", "search.n_low: search is one for all configurations"),
    (f"{LEAST}vary: {{network.width: 8}}", "vary: network.width: a list of values is needed, as [8, 16]"),
    (f"{LEAST}vary: {{network.width: wide}}", 'a list of values is needed, as [8, 16], or named groups of fields, not "wide"'),
    (f"{LEAST}vary: {{network.width: [8, 4, 8]}}", "vary: network.width: 8 is there twice; leave one out"),
    (f'{LEAST}vary: {{network.width: [8, "8"]}}', 'network.width: 8 and "8" are both called width=8; leave one out'),
    (f"{LEAST}vary: {{network.width: [8, 4, 8.0]}}", "network.width: 8 and 8.0 are both called width=8"),
    (f"{LEAST}vary: {{x: {{a: {{}}, b: {{trainer.lr: 1}}, c: {SAME}}}}}", "vary: x=a and x=c are the same; leave one out"),
    (f"{LEAST}vary: {{law: {{a: 3}}}}", "vary: law: a: fields by their paths are needed, as {trainer.lr: 0.01}, not 3"),
    (f"{LEAST}vary: {{law: {{10: {{}}}}}}", 'law: 10: the name of a value is text; write "10"'),
    (f"{LEAST}vary: {{10: [1]}}", '10: the name of a factor is text; write "10"'),
    (f"{LEAST}vary: [1]", "vary: fields and their values are needed, as {network.width: [8, 16]}, not [1]"),
    (f"{LEAST}vary:", "vary: fields and their values are needed, as {network.width: [8, 16]}, not null"),
    (f"{LEAST}vary: {{network.width: [3]}}", "vary: network.width: it must be a multiple of 4, not 3"),
    ("base: digits\n", "search: it is required"),
    ("base: digits\nsearch: 5\n", "search: fields and their values are needed, not 5"),
    ("base: digits\nsearch: {n_low: 8}\n", "search.n_high: it is required"),
    ("base: digits\nsearch: {n_low: many, n_high: 9}\n", "search.n_low: an integer is needed, not 'many'"),
    ("base: digits\nsearch: {n_low: 2.5, n_high: 9}\n", "search.n_low: an integer is needed, not 2.5"),
    ("base: digits\nsearch: {n_low: 8, n_high: 64, precision: fine}\n", "search.precision: a number is needed"),
    ("base: digits\nsearch: {n_low: 8, n_high: 64, guard: maybe}\n", "search.guard: true or false is needed"),
    ("base: digits\nsearch: {n_low: 8, n_high: 64, targets: .5}\n", "search.targets: a list is needed"),
    ("base: digits\nsearch: {n_low: 8, n_high: 64, targets: [.5, .4, .3, .2, .1]}\n", "at most 4 of them"),
    ("search: {n_low: 8, n_high: 64}\n", "base: it is required: a recipe (paper, digits), or a whole configuration"),
    (f"{LEAST}serach: 5", "serach: there is no such field; did you mean search?"),
    (f"{LEAST}settings: {{measurement.n_samples: 3}}", "measurement.n_samples: write it below measurement, not below settings"),
    (f"{LEAST}settings: {{n_samples: 3}}", "settings: n_samples: there is no such field; did you mean measurement.n_samples"),
    (f"{LEAST}settings: {{network.multipliers: []}}", "network.multipliers: at least 1 of them are needed"),
    (f"{LEAST}measurement: {{n_sampels: 3}}", "measurement.n_sampels: there is no such field; did you mean measurement.n_s"),
    (f"{LEAST}tracking: {{images: no}}", "tracking.images: it must be 'none', 'generated' or 'pairs', not 'no'"),
    (f"{LEAST}question: 3", "question: text is needed, not 3"),
    (f"{LEAST}name: a/b", "name: at most 100 characters are needed"),
    (WHOLE.replace("NETWORK", "{width: 3}"), "base.network.kind: it is required; there are ddpmpp, ncsnpp, dit"),
    (WHOLE.replace("NETWORK", "{kind: resnet}"), "base.network.kind: there is no kind 'resnet'; there are ddpmpp, ncsnpp"),
    (WHOLE.replace("NETWORK", "{kind: mlp, widht: 4}"), "there is no such field; did you mean base.network.width?"),
    (WHOLE.replace("NETWORK", "4"), "base.network: fields and their values are needed, not 4"),
    (WHOLE.replace("network: NETWORK,", ""), "base.network: it is required"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), MISTAKES, ids=[said[:50] for _, said in MISTAKES])
def test_a_mistake_is_told_in_the_words_of_the_file(tmp_path, text, said):
    with pytest.raises(UserError) as raised:
        space_in(tmp_path, "a.yaml", text)
    line = str(raised.value)
    assert said in line
    assert "\n" not in line
    assert not [word for word in FOREIGN if word in line.replace(str(tmp_path), "")], line


# ---------------------------------------------------------------- Python

BY_DICT = """
widths = [4 * 2**i for i in range(2)]
SPACE = {"base": "digits", "vary": {"network.width": widths}, "search": {"n_low": 8, "n_high": 64}}
"""
BY_CLASS = """
from search_spaces.recipes import DIGITS, DIGITS_MEASUREMENT
from search_spaces.space import Search, SearchSpace
SPACE = SearchSpace(base=DIGITS, vary={"network.width": [4, 8]}, search=Search(n_low=8, n_high=64),
                    measurement=DIGITS_MEASUREMENT)
"""
BY_BOTH = """
from search_spaces.recipes import DIGITS
from search_spaces.space import Search
from trainables.config.measurement import Measurement
SPACE = {"base": DIGITS, "search": Search(n_low=8, n_high=64), "measurement": Measurement(n_samples=9)}
"""


def test_a_python_file_needs_what_a_yaml_file_needs(tmp_path):
    by_yaml = space_in(tmp_path, "mine.yaml", f"{LEAST}vary: {{network.width: [4, 8]}}")
    by_dict, by_class = (space_in(tmp_path, "mine.py", text) for text in (BY_DICT, BY_CLASS))
    assert by_yaml.model_dump_json() == by_dict.model_dump_json() == by_class.model_dump_json()
    assert by_yaml.name == "mine"
    assert [named.name for named in by_yaml.configurations] == ["width=4", "width=8"]
    both = space_in(tmp_path, "mine.py", BY_BOTH)
    assert both.measurement.n_samples == 9
    assert [named.name for named in both.configurations] == ["base"]


def test_a_name_that_is_given_stays(tmp_path):
    space = space_in(tmp_path, "mine.py", BY_CLASS.replace("base=", 'name="yours", base='))
    assert space.name == "yours"
    assert space_in(tmp_path, "a.yaml", f"{LEAST}name: yours").name == "yours"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SPACE = 3", "set SPACE to a dict of the fields of a search space: base, vary, search"),
        ("", "set SPACE to a dict"),
        (BY_DICT.replace("network.width", "network.widht"), "did you mean network.width?"),
        (BY_DICT.replace("digits", "digts"), "base: no recipe 'digts'; there are paper, digits"),
        (BY_DICT.replace('"search"', '"serach"'), "serach: there is no such field; did you mean search?"),
        (BY_DICT.replace("widths}", "{4, 8}}"), "network.width: values as JSON has them are needed"),
        (BY_DICT.replace('"digits", ', '"digits", "settings": {5: 6}, '), "settings: fields and their values are needed"),
        (BY_CLASS.replace("n_low=8", "n_low=1"), "Search: n_low: it must be greater than or equal to 2, not 1"),
        (BY_CLASS.replace("[4, 8]", "8"), "SearchSpace: vary: network.width: a list of values is needed"),
        (BY_CLASS.replace("base=DIGITS, ", ""), "SearchSpace: base: it is required"),
        (BY_CLASS.replace("vary=", "varies="), "SearchSpace: varies: there is no such field"),
        ("from pydantic import BaseModel\nclass Own(BaseModel):\n    a: int\nOwn()", "Own: a: it is required"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_python_file_is_told_so_too(tmp_path, text, said):
    with pytest.raises(UserError) as raised:
        space_in(tmp_path, "a.py", text)
    line = str(raised.value)
    assert said in line
    assert line.count("a.py") == 1 or line.startswith("a: "), "which file"
    assert "\n" not in line
    assert "validation error" not in line


def test_the_example_of_the_docs_is_a_space(capsys, monkeypatch):
    monkeypatch.chdir(ROOT / "docs" / "examples")
    code, output, errors = here(capsys, "plan", "my_space.py", "--json")
    assert (code, errors) == (0, "")
    planned = json.loads(output)
    assert planned["space"] == "my_space"
    assert len(planned["configurations"]) > 2


@pytest.mark.parametrize("file", sorted((ROOT / "docs" / "examples").glob("*.yaml")), ids=str)
def test_the_questions_of_the_findings_are_spaces(file, capsys):
    code, output, errors = here(capsys, "plan", str(file), "--json")
    assert (code, errors) == (0, "")
    assert len(json.loads(output)["configurations"]) > 1
    asked = next(
        question for question in QUESTIONS if str(file.relative_to(ROOT)) in question.command
    )
    assert asked.command in file.read_text().splitlines()[0], "the file says what the page says"


def test_a_space_has_no_texts_unless_it_is_given_some():
    needed = {name for name, field in SearchSpace.model_fields.items() if field.is_required()}
    assert needed == {"base", "search", "measurement"}
