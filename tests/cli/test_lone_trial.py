"""`emm trial` is for looking closely: its page, its files, its threads, and the bar; and what the
commands that read make of its directory."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from search_spaces.find import find_space
from sweep.cli.main import main
from sweep.report.trial_page import verdict
from sweep.report.trial_view import TrialView
from sweep.store.lone_trials import allowed_pictures, read_lone_trials
from tests.cli.test_cli import ROOT, TINY, here
from tests.results import write_trial
from tests.summaries import Page
from trainables.config.data import Arrays, Digits
from trainables.data.sources import load
from trainables.storage import Storage
from trainables.trial.result import Result

ONE = ["trial", "digits-width", "--config", "width=8", "--n", "20", *TINY]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real trial, in a process that has two threads; its output is in `said`."""
    out, screen = tmp_path_factory.mktemp("one") / "trial", io.StringIO()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", screen)
        with pytest.raises(SystemExit) as ended:
            main([*ONE, "--out", str(out)])
    assert ended.value.code == 0
    assert torch.get_num_threads() == 2, "they are given back"
    torch.set_num_threads(before)
    (out / "said").write_text(screen.getvalue())
    return out


def result_in(out: Path) -> dict[str, Any]:
    (path,) = out.glob("trials/*/result.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_it_has_a_page_with_pictures_and_curve(made: Path) -> None:
    text, result = (made / "report" / "index.html").read_text(), result_in(made)
    page = Page(text)
    alts = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert alts == [
        "R_mem and loss over the training of width=8: N=20 seed=0",
        "Generated images of width=8: N=20 seed=0",
    ]
    assert (
        f"{result['n_memorized']} of {result['n_samples']} generated images are copies" in page.text
    )
    measures = dict(row[:2] for row in page.tables["measures"][1:])
    assert float(measures["R_mem at the end"]) == pytest.approx(result["r_mem_last"], abs=1e-3)
    assert ["trainer.length", "6", "400"] in [row[:3] for row in page.tables["differing"]]
    assert "http:" not in re.sub(r"data:image/png;base64,[\w+/=]*", "", text)
    said = (made / "said").read_text()
    assert said.startswith(f"files: {made}\n"), "before anything is trained"
    assert said.rstrip().endswith(f"report: {made / 'report' / 'index.html'}")


def test_it_has_the_threads_of_a_trial_of_a_sweep(made: Path) -> None:
    assert result_in(made)["hardware"]["threads"] == "1"


@pytest.mark.parametrize(("cpus", "words"), [("0", "give a number"), ("9999", "this machine has")])
def test_threads_that_it_can_t_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cpus: str, words: str
) -> None:
    out = tmp_path / "out"
    code, _, errors = here(capsys, *ONE, "--out", out, "--cpus-per-trial", cpus)
    assert (code, errors.count("\n")) == (2, 1)
    assert f"--cpus-per-trial {cpus}: {words}" in errors
    assert not out.exists()


def test_report_takes_its_directory(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, result = (made / "report" / "index.html").read_text(), result_in(made)
    code, printed, errors = here(capsys, "report", made)
    assert code == 0, errors
    assert re.search(rf"width=8 +20 +0 +{result['r_mem']:.3f} .* complete", printed)
    assert (made / "report" / "index.html").read_text() == before, "the same page again"
    told = json.loads(here(capsys, "report", made, "--json")[1])
    assert [(t["configuration"], t["n"], t["r_mem"]) for t in told["trials"]] == [
        ("width=8", 20, result["r_mem"])
    ]
    assert here(capsys, "report", made, "--out", tmp_path / "new")[0] == 0
    assert (tmp_path / "new" / "index.html").read_text() == before


def test_a_damaged_one_is_passed_over_and_said(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(made, out)
    for name in ("result.json", "trial.json"):
        (file,) = out.glob(f"trials/*/{name}")
        file.write_text("{")
    code, printed, errors = here(capsys, "report", out)
    assert code == 0, errors
    assert "result.json is damaged" in printed + errors
    assert "<title>0 trials" in (out / "report" / "index.html").read_text()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["ui"], "emm report shows them"),
        (["status"], "emm report shows them"),
        (["report", "--k", "1/2"], "--k: "),
    ],
)
def test_other_commands_say_what_to_do(
    made: Path, capsys: pytest.CaptureFixture[str], command: list[str], words: str
) -> None:
    code, _, errors = here(capsys, command[0], made, *command[1:])
    assert (code, errors.count("\n")) == (2, 1)
    assert words in errors
    assert "emm trial" in errors


def test_without_a_directory_its_files_go_at_the_end_as_was_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code, printed, errors = here(capsys, *ONE)
    assert code == 0, errors
    first, *_, last = printed.splitlines()
    named = re.fullmatch(r"files: (\S+), removed at the end; --out DIR keeps them, .*", first)
    assert named
    assert last == f"removed: {named[1]}"
    assert list(tmp_path.glob("emm-trial-*")) == []


def test_a_sigterm_ends_it_without_leaving_them(tmp_path: Path) -> None:
    endless = ["trial", "digits", "--config", "base", "--n", "8", "--set", "trainer.length=1000000"]
    command = [sys.executable, "-m", "sweep", *endless]
    place = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, cwd=ROOT, env=place, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"files: {tmp_path}")
        assert len(list(tmp_path.glob("emm-trial-*"))) == 1
        process.terminate()
        assert process.wait(60) == 130
    assert list(tmp_path.glob("emm-trial-*")) == []


# ---------------------------------------------------------------- several, and private ones


def test_a_directory_of_several_has_them_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space, data = find_space("digits-width"), load(Digits())
    first, second = space.configurations
    for named, n in ((second, 30), (first, 40), (first, 9)):
        write_trial(Storage(str(tmp_path)), space, named, data, n, 0)
    code, printed, errors = here(capsys, "report", tmp_path)
    assert code == 0, errors
    rows = [line.split()[:2] for line in printed.splitlines()[1:4]]
    assert rows == [["width=4", "9"], ["width=4", "40"], ["width=8", "30"]]
    page = Page((tmp_path / "report" / "index.html").read_text())
    assert [row[:2] for row in page.tables["trials"][1:]] == rows
    assert sum(tag == "img" for tag, _ in page.tags) == 6


def private(tmp_path: Path) -> tuple[Storage, Result, Path]:
    """A trial on private images, whose path is a secret."""
    path = tmp_path / "secret-faces.npz"
    np.savez(path, images=load(Digits()).images[:300].transpose(0, 2, 3, 1))
    settings = {"data": {"kind": "arrays", "path": str(path), "resolution": 8, "channels": 1}}
    space = find_space(
        {"base": "digits", "settings": settings, "search": {"n_low": 8, "n_high": 64}}
    )
    storage = Storage(str(tmp_path / "trial"))
    source = space.configurations[0].configuration.data
    assert isinstance(source, Arrays)
    result = write_trial(storage, space, space.configurations[0], load(source), 20, 0)
    return storage, result, tmp_path / "trial"


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("images", [None, "none", "generated", "pairs", "nonsense"])
def test_pictures_are_shown_as_was_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], images: str | None, is_old: bool
) -> None:
    """Older versions had one file of all trials."""
    storage, result, directory = private(tmp_path)
    if images is not None and is_old:
        storage.write_json("pictures.json", {result.training_key: images})
    elif images is not None:
        storage.write_json(f"trials/{result.training_key}/pictures.json", images)
    code, _, errors = here(capsys, "report", directory)
    assert code == 0, errors
    text = (directory / "report" / "index.html").read_text()
    is_shown = images in ("generated", "pairs")
    assert bool(list((directory / "report").glob("gallery-*"))) is is_shown
    assert ('class="gallery"' in text) is is_shown
    assert ("second nearest training image and" in text) is (images == "pairs")
    assert "secret-faces" not in text
    assert str(tmp_path) not in text


def test_what_the_space_allows_is_remembered(made: Path) -> None:
    storage = Storage(str(made))
    (result,) = read_lone_trials(storage).results
    (file,) = made.glob("trials/*/pictures.json")
    assert json.loads(file.read_text()) == "pairs"
    assert allowed_pictures(storage, result) == "pairs"


def test_a_failed_trial_is_shown_with_its_cause(tmp_path: Path) -> None:
    _, result, _ = private(tmp_path)
    failed = result.model_copy(update={"complete": False, "cause": "<b>", "r_mem": None})
    assert verdict(failed) == "The trial failed: <b>."
    early = result.model_copy(update={"right_censored": True})
    assert ": R_mem >= 0." in verdict(early)


# ---------------------------------------------------------------- while it runs

REPORT = {"state": "training", "progress": 0.25, "seconds_left": 754.0}


def test_a_terminal_shows_a_bar_with_the_time_left() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, legacy_windows=False)
    with TrialView("[red]a[/red]  N=8 seed=0", console, plain_seconds=0.0) as view:
        view.update(REPORT)
        view.bar.refresh()
        view.tell("a [b]line[/b]")
    assert "[red]a[/red]  N=8 seed=0" in screen.getvalue(), "a user's text is no markup"
    assert "━" in screen.getvalue()
    assert "training 25%, 13 min left" in screen.getvalue()
    assert "a [b]line[/b]" in screen.getvalue()
    assert not re.search(r"(?m)^(\x1b\S*)*training", screen.getvalue()), "it has no lines as well"


@pytest.mark.parametrize(("pause", "expected"), [(0.0, 2), (1000.0, 0)])
def test_elsewhere_come_plain_lines_now_and_then(pause: float, expected: int) -> None:
    screen = io.StringIO()
    with TrialView("a", Console(file=screen, width=20), pause) as view:
        view.update(REPORT)
        view.update({**REPORT, "progress": 0.5})
        view.tell("R_mem 0.5")
    lines = screen.getvalue().splitlines()
    assert lines[-1] == "R_mem 0.5"
    plain = ["training 25%, 13 min left", "training 50%, 13 min left"]
    assert lines[:-1] == plain[:expected]


@pytest.mark.parametrize("is_linked", [False, True])
def test_a_report_of_the_user_s_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_linked: bool
) -> None:
    """Neither in the directory nor through a link, and that is said before anything is trained."""
    theirs, out = tmp_path / "theirs", tmp_path / "out"
    theirs.mkdir()
    (theirs / "index.html").write_text("mine")
    out.mkdir()
    if is_linked:
        (out / "trials" / ("0" * 32)).mkdir(parents=True)
        (out / "report").symlink_to(theirs)
    else:
        theirs.rename(out / "report")
    code, _, error = here(capsys, *ONE, "--out", str(out))
    assert code == 2
    assert ("is a link" if is_linked else "it holds a report and no trials") in error
    assert [path.name for path in (out / "report").iterdir()] == ["index.html"]
    assert (out / "report" / "index.html").read_text() == "mine"


def test_a_command_without_an_output_ends_well(made: Path) -> None:
    """As from a service that closes it: what it writes is there."""
    (made / "report" / "index.html").unlink()
    command = f'"{sys.executable}" -m sweep report "{made}" >&- 2>&-'
    assert subprocess.run(["sh", "-c", command], cwd=ROOT, check=False).returncode == 0
    assert (made / "report" / "index.html").exists()


def test_what_was_trained_before_is_said_and_a_failure_can_be_tried_again(tmp_path: Path) -> None:
    """A file in the way of the samples fails the first time; afterwards it is gone."""
    (tmp_path / "net_of_lone_trial.py").write_text(BROKEN)
    settings = ["network.kind=custom", "network.builder=net_of_lone_trial:build", *COSTS_NOTHING]
    words = [word for setting in settings for word in ("--set", setting)]
    command = ["trial", "digits", "--config", "base", "--n", "20", *words, "--out", "kept"]

    def said(*more: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "sweep", *command, *more],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr

    (tmp_path / "in_the_way").touch()
    code, text = said()
    assert code == 1, text
    assert "the trial failed: RuntimeError: something is in the way" in text
    (tmp_path / "in_the_way").unlink()
    code, text = said()
    assert code == 1
    assert "an earlier run; --retry-failed trains it again" in text
    code, text = said("--retry-failed")
    assert code == 0
    assert "R_mem" in text
    code, text = said()
    assert code == 0
    assert "it was trained before" in text


COSTS_NOTHING = [
    *("trainer.length=2", "measurement.n_samples=20", "measurement.n_selection=20"),
    *("measurement.snapshots=2", "measurement.sampler_steps=2"),
]

BROKEN = """
from pathlib import Path
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, noise_level, labels):
        if len(x) == 20 and Path("in_the_way").exists():
            raise RuntimeError("something is in the way")
        return self.layer(x)

def build(resolution, channels, label_dim):
    return Net()
"""
