"""`emm run --effort`: how precisely every EMM is sought."""

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
