"""`emm fit`: points from elsewhere."""

import json

import numpy as np
import pytest

from sweep.cli import main
from sweep.fit import fit_points, read_points
from trainables.errors import UserError

# R_mem of Gu et al. 2023 on CIFAR-10 at 32 × 32, digitised from their figure; they interpolate EMM = 1.06k
PUBLISHED = "n,r_mem\n1000,0.92\n2000,0.609\n3000,0.346\n4000,0.171\n5000,0.089\n"


def test_the_published_grid_gives_the_published_emm(tmp_path, capsys):
    (tmp_path / "points.csv").write_text(PUBLISHED)
    with pytest.raises(SystemExit) as ended:
        main(["fit", str(tmp_path / "points.csv"), "--json"])
    assert ended.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert said["emm_low"] < 1060 < said["emm_high"]
    assert said["n_trials"] == 5


def test_many_points_of_a_known_curve_are_judged_and_nothing_is_asked(tmp_path):
    sizes = np.geomspace(60, 240, 24).astype(int)
    rows = [f"{n},{1 / (1 + (n / 120) ** 5 / 9):.6f},100000" for n in sizes]
    (tmp_path / "points.csv").write_text("\n".join(["n,r_mem,n_samples", *rows]))
    fitted = fit_points(read_points(tmp_path / "points.csv"), 0.9, 0.12)
    assert fitted.verdict.state == "found"
    assert fitted.next_n is None
    assert fitted.verdict.emm == pytest.approx(120, rel=0.02)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "header"),
        ("a,b\n1,2\n", "header"),
        ("n,r_mem\n100,high\n", "line 2"),
        ("n,r_mem\n100,0.5\n200,1.5\n", "line 3"),
        ("n,r_mem\n100\n", "line 2"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, text, said):
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        read_points(tmp_path / "points.csv")
