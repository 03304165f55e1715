"""How precisely every EMM is sought, and what else of it: options of `emm run` and `emm plan`."""

import json

import pytest

from sweep.cli.main import main


def asked(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(["run", "digits-width", "--dry-run", *arguments])
    return end.value.code, capsys.readouterr()


@pytest.mark.parametrize(
    ("effort", "sd"), [("quick", "0.212"), ("normal", "0.15"), ("thorough", "0.106")]
)
def test_half_and_twice_the_trials_are_a_factor_of_root_two(tmp_path, capsys, effort, sd):
    code, said = asked(capsys, "--out", str(tmp_path / "new"), "--effort", effort)
    assert code == 0
    assert f"until sd(ln EMM) <= {sd} at" in said.out
    assert not (tmp_path / "new").exists()


def test_precision_is_said_once(tmp_path, capsys):
    out = str(tmp_path / "new")
    code, said = asked(capsys, "--out", out, "--effort", "quick", "--precision", "0.2")
    assert code == 2
    assert "--effort quick: it sets the precision, as --precision does" in said.err
    code, said = asked(capsys, "--out", out, "--effort", "much")
    assert code == 2
    assert "much" in said.err


def planned(capsys, *arguments):
    """Hours of a search of each configuration, by its name."""
    with pytest.raises(SystemExit) as end:
        main(["plan", "digits-width", "--json", *arguments])
    assert not end.value.code
    rows = json.loads(capsys.readouterr().out)["configurations"]
    return {row["name"]: row["hours_search"] for row in rows}


@pytest.mark.parametrize(
    ("arguments", "least", "most"),
    [
        # simulated: 4.29, 4.93 and 5.64 trainings at the EMM
        (["--effort", "quick"], 0.83, 0.91),
        (["--effort", "thorough"], 1.10, 1.19),
        (["--precision", "0.15"], 1.0, 1.0),  # the space's own
        (["--replicates", "3"], 1.5, 1.9),
        (["--targets", ".5"], 1.2, 1.4),
        (["--guard"], 1.05, 1.2),
        (["--target", ".5"], 1.0, 1.0),
    ],
)
def test_a_plan_is_asked_as_a_run_is(capsys, arguments, least, most):
    usual, other = planned(capsys), planned(capsys, *arguments)
    assert usual.keys() == other.keys() == {"width=4", "width=8"}
    for name, hours in other.items():
        assert least <= hours / usual[name] <= most


def test_a_plan_of_one_configuration(capsys):
    assert planned(capsys, "--only", "width=8").keys() == {"width=8"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "width=9"], "--only width=9: digits-width has width=4, width=8"),
        (["--effort", "quick", "--precision", ".1"], "--effort quick: it sets the precision"),
        (["--targets", "half"], "--targets half: write numbers with commas between"),
        (["--target", "2"], "search.target"),
    ],
)
def test_a_plan_says_what_to_change(capsys, arguments, said):
    with pytest.raises(SystemExit) as end:
        main(["plan", "digits-width", *arguments])
    assert end.value.code == 2
    assert said in capsys.readouterr().err
