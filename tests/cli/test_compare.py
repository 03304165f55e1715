"""`emm report A B`, as it is typed."""

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.test_cli import here
from tests.fakes import fake_space
from tests.results import write_sweep
from trainables.data.sources import load
from trainables.storage import Storage


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two sweeps of the same name, in directories of their own; the second goes further, and trains
    for longer."""
    made = []
    for name, widths, length in (("first", (8, 16), 400), ("second", (8, 16, 32), 500)):
        path, space = tmp_path_factory.mktemp("sweeps") / name, fake_space(widths, n_high=256)
        space = space.with_settings({"trainer.length": length})
        write_sweep(Storage(str(path)), space, load(space.base.data), 7)
        made.append(str(path))
    return made


def test_two_sweeps_side_by_side(
    directories: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed, _ = here(capsys, "report", *directories)
    page = Path(directories[0]) / "report-with-second" / "index.html"
    assert code == 0
    assert f"report: {page}" in printed
    text = " ".join(printed.split())
    assert "Across the sweeps 2 contrasts are across the sweeps, on the same data" in text
    assert "EMM of second: width=8 / EMM of first: width=8: 1.00" in text
    assert page.exists()
    assert not (Path(directories[1]) / "report").exists()


def test_what_is_printed_as_json_tells_sweeps_apart(
    directories: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = json.loads(here(capsys, "report", *directories, "--json")[1])
    assert said["sweep"] == "first and second"
    assert [one["factors"]["sweep"] for one in said["configurations"]] == ["first"] * 2 + [
        "second"
    ] * 3
    across = [one for one in said["contrasts"] if one["factor"] == "sweep"]
    assert [one["ratio"] for one in across] == pytest.approx([1, 1], rel=0.02)
    assert all(one["same_data"] and one["together_low"] < one["low"] for one in across)
    assert len(said["contrasts"]) == 10
    assert len(said["interactions"]) == 1


def test_trials_that_were_taken_over_are_no_replication(
    directories: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(directories[0], copy)
    code, printed, _ = here(capsys, "report", directories[0], str(copy))
    text = " ".join(printed.split())
    assert code == 0
    assert "no ratio, since the trials are the same: copy: width=8 / first: width=8, copy:" in text
    assert "EMM of copy: width=8 / EMM of first: width=8" not in text
    assert "EMM of copy: width=16 / EMM of copy: width=8: 2" in text


def test_a_sweep_that_is_not_there_is_said(
    directories: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, errors = here(capsys, "report", directories[0], str(tmp_path / "nothing"))
    assert (code, errors.count("\n")) == (2, 1)
    assert "nothing holds no sweep" in errors
    assert list(tmp_path.iterdir()) == []
