"""The five lines of the README, run as they stand there."""

import re
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import pytest
from matplotlib.figure import Figure

from sweep import api
from sweep.analysis.summary import summarize
from tests.fakes import fake_space
from tests.results import write_sweep
from trainables.data.sources import load
from trainables.errors import UserError
from trainables.storage import Storage

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, space = tmp_path_factory.mktemp("sweep"), fake_space((8, 16), n_high=256)
    write_sweep(Storage(str(path)), space, load(space.base.data), 6)
    return path


def test_an_empty_name_is_not_the_directory_where_we_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="it is empty"):
        api.run("digits-width", "")
    with pytest.raises(UserError, match="names no sweep"):
        api.read("")
    assert not list(tmp_path.iterdir())


def test_tables_say_what_the_report_says(directory: Path) -> None:
    sweep = api.read(str(directory))
    said = sweep.as_json()["configurations"]
    table = api.configurations(sweep)
    assert list(table.index) == ["width=8", "width=16"]
    assert table["emm"].tolist() == [c["emm"] for c in said]
    assert table["width"].tolist() == [8, 16]
    assert table["scale_nn_distance"].tolist() == [510.0, 510.0]
    assert table["n_trials"].tolist() == [6, 6]
    trials = api.trials(sweep)
    assert trials.query("width == 16")["r_mem"].tolist() == [t["r_mem"] for t in said[1]["trials"]]
    (contrast,) = api.contrasts(sweep).to_dict("records")
    assert contrast["ratio"] == pytest.approx(said[1]["emm"] / said[0]["emm"], rel=0.05)
    assert isinstance(api.figures(sweep)["study-02-width-16"](), Figure)


def test_the_five_lines_of_the_readme(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = (
        code
        for code in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
        if "api" in code
    )
    assert len([line for line in block.splitlines() if line]) <= 5
    (asked,) = re.findall(r'api\.read\("(.*?)"\)', block)
    names: dict[str, object] = {}
    matplotlib.use("agg")
    monkeypatch.chdir(directory)
    exec(block.replace(asked, str(directory)), names)
    assert (directory / "emm.pdf").exists()
    assert any(isinstance(value, pd.DataFrame) for value in names.values())
    assert any(isinstance(value, Figure) for value in names.values())


def test_before_anything_is_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no sweep"):
        api.read(str(tmp_path / "nothing"))
    space = fake_space((8,))
    write_sweep(Storage(str(tmp_path)), space, load(space.base.data), 0)
    sweep = api.read(str(tmp_path))
    assert api.configurations(sweep)["verdict"].tolist() == ["searching"]
    assert len(api.trials(sweep)) == len(api.contrasts(sweep)) == 0
    assert summarize(Storage(str(tmp_path))).studies[0].scale.n_trials == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"effort": "fast"}, "effort: one of quick, normal, thorough is needed, not 'fast'"),
        ({"targets": 0.5}, "targets: a list of numbers"),
        ({"settings": ["network.depth=2"]}, "settings: a dict of path → value is needed"),
        ({"workers": "2"}, "workers: a whole number is needed, not '2'"),
        ({"deadline": 6}, 'deadline: a text, as "90m" is needed, not 6'),
        ({"only": "width=8"}, "only: a list of names is needed"),
    ],
)
def test_what_the_command_line_could_not_say_is_refused_in_a_line(
    tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as raised:
        api.run("digits-width", tmp_path / "new", **given)
    assert said in str(raised.value)
    assert not (tmp_path / "new").exists()
