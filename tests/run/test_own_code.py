"""A sweep that goes on with code of the user's which has changed under the same version says so."""

import json
import sys

import pytest

from search_spaces.find import find_space
from sweep.analysis.cautions import cautions
from sweep.analysis.summary import SweepSummary
from sweep.cli.main import main
from sweep.run.own_code import changed_code, code_of
from sweep.store.files import SWEEP, Invocation

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, noise_level, labels):
        return self.layer(x)

def build(resolution, channels, label_dim):
    return Net()
"""

SPACE = """
base: digits
settings: {network.kind: custom, network.builder: "own_net_of_test:build"}
vary: {trainer.lr: [0.01, 0.02]}
search: {n_low: 8, n_high: 64}
"""


@pytest.fixture
def code(tmp_path, monkeypatch):
    """The user's file."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_net_of_test", raising=False)
    file = tmp_path / "own_net_of_test.py"
    file.write_text(NET)
    (tmp_path / "space.yaml").write_text(SPACE)
    yield file
    sys.modules.pop("own_net_of_test", None)


def invocation(space):
    run = Invocation.now(["emm", "run", "space.yaml"], code_of(space))
    return run.model_copy(update={"at": "2026-01-31T08:00:00+00:00"})


def dry_run(capsys, directory):
    with pytest.raises(SystemExit) as end:
        main(["run", str(directory / "space.yaml"), "--out", str(directory / "sweep"), "--dry-run"])
    assert not end.value.code
    return capsys.readouterr().out


def test_it_is_noted_and_goes_on(code, tmp_path, capsys):
    space = find_space(str(tmp_path / "space.yaml"))
    (tmp_path / "sweep").mkdir()
    content = {"sweep": space.name, "space": space.model_dump(mode="json"), "configurations": {}}
    content["runs"] = [invocation(space).model_dump(mode="json")]
    (tmp_path / "sweep" / SWEEP).write_text(json.dumps(content))
    assert "note: " not in dry_run(capsys, tmp_path)
    code.write_text(NET.replace("self.layer(x)", "self.layer(x) / 2"))
    said = " ".join(dry_run(capsys, tmp_path).split())
    assert (
        "note: the file of network.builder=own_net_of_test:build, without a version, has changed "
        "since this sweep ran on 2026-01-31"
    ) in said
    assert "set another network.version" in said


def test_each_version_is_another_code(code, tmp_path):
    space = find_space(str(tmp_path / "space.yaml"))
    first = invocation(space)
    code.write_text(f"{NET}\n# another\n")
    assert len(changed_code(space, [first])) == 1
    again = invocation(space)
    assert changed_code(space, [again]) == []
    assert len(changed_code(space, [first, again])) == 1, "trials of both are there"
    second = space.with_settings({"network.version": "2"})
    assert changed_code(second, [first]) == []
    assert changed_code(space, [first.model_copy(update={"code": {}})]) == [], "of an older run"


def test_a_report_says_that_trials_of_two_codes_are_there(code, tmp_path):
    space = find_space(str(tmp_path / "space.yaml"))
    first = invocation(space)
    code.write_text(f"{NET}\n# another\n")
    summary = SweepSummary("s", space, [], runs=[first, invocation(space)])
    (said,) = [one.what for one in cautions(summary)]
    assert said == (
        "the file of network.builder=own_net_of_test:build, without a version, was changed between "
        "runs; as far as trials were trained by 2 of its states, they count as alike"
    )
    assert cautions(SweepSummary("s", space, [], runs=[first, first])) == []


def test_ours_is_no_code_of_theirs():
    space = find_space("digits-width")
    assert code_of(space) == {}
    features = space.with_settings({"measurement.features": "trainables.measure.lite0:lite0"})
    assert code_of(features) == {}
