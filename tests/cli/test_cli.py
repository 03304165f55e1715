"""The command line as a user meets it, judged by what it prints, returns and leaves behind."""

import json
import math
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from search_spaces.find import find_space
from search_spaces.settings import parse_settings
from sweep.cli.main import main
from sweep.report.live import COLUMNS
from sweep.run.machines import Resources
from sweep.search.belief import Observation
from sweep.search.points import fit_points
from sweep.store.lock import Lock
from tests.results import write_sweep, write_trial
from trainables.config.data import Digits
from trainables.config.trial import TrialSpec
from trainables.data.sources import load
from trainables.storage import Storage
from trainables.text import estimated, human
from trainables.trial.files import TrialFiles
from trainables.trial.result import start_record

ROOT = Path(__file__).parents[2]
# trials of a second: too short to memorize anything, long enough to go through everything
FOLDER = ["--set", "data.kind=folder", "--set", "data.path=/nowhere", "--set", "data.resolution=8"]
EYE = ["--set", "measurement.features=tests.eyes:wrong", "--set"]
SEEN = [
    *("--set", "measurement.features=tests.eyes:pixels", "--set", "measurement.judge=features"),
    "--set",
]
TINY = [
    *(
        "--set",
        "trainer.length=6",
        "--set",
        "measurement.n_samples=40",
        "--set",
        "measurement.n_selection=20",
    ),
    *(
        "--set",
        "measurement.snapshots=2",
        "--set",
        "search.max_trials=2",
        "--set",
        "search.n_high=64",
    ),
]


def emm(*arguments, timeout=110):
    command = [
        sys.executable,
        "-c",
        "from sweep.cli.main import main; main()",
        *map(str, arguments),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=timeout, env=environment
    )


def here(capsys, *arguments):
    """The same in this process, without the seconds that Python, torch and Ray take to start: code,
    output, errors."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, arguments)))
    return ended.value.code or 0, *capsys.readouterr()


def test_help_lists_what_trains_first(capsys):
    code, output, _ = here(capsys, "--help")

    shown = re.findall(r"^  (\w+)", output.split("Commands:")[1], re.MULTILINE)
    assert code == 0
    assert " ".join(shown) == (
        "run trial stop submit spaces fields plan fit status advise report remeasure sample audit ui "
        "sync purge"
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "digits-widht", "--out", "OUT"], "no search space 'digits-widht'; did you mean digits-width or"),
        (["run", "digits-width"], "--out DIR"),
        (["run", "cifar", "--out", "OUT"], "did you mean cifar10-"),
        (["run", "frobnicate", "--out", "OUT"], "no search space 'frobnicate'; `emm spaces` lists them. Or give"),
        (["run", "ok.yml", "--out", "OUT"], "error: ok.yml: no such file\n"),
        (["run", "digits-width", "--out", "OUT", "--set", "network.dropuot=0"], "did you mean network.dropout?"),
        (["run", "digits-width", "--out", "OUT", "--set", "trainer.lr=fast"], "trainer.lr: a number is needed, not 'fast'"),
        (["run", "digits-width", "--out", "OUT", "--set", "network.dropout=2"], "network.dropout: it must be less than 1"),
        (["run", "digits-width", "--out", "OUT", "--set", "network.width=9"], "network.width: digits-width varies this field"),
        (["run", "digits-width", "--out", "OUT", "--set", "network"], "write it as path=value"),
        (["run", "digits-width", "--out", "OUT", "--set", "search.n_high=5000"], "1797"),
        (["run", "digits-width", "--out", "OUT", *FOLDER], "not a directory"),
        (["run", "digits-width", "--out", "OUT", "--early-accept", "--target", "0.95"], "n_selection: at least 534 images"),
        (["run", "digits-width", "--out", "OUT", "--set", "measurement.features=eye"], "write it as package.module:name"),
        (["run", "digits-width", "--out", "OUT", *EYE, "measurement.features_options.how=random"], "when called again"),
        (["run", "digits-width", "--out", "OUT", *EYE, "measurement.features_options.who=me"], "TypeError"),
        (["trial", "digits-width", "--config", "width=8", "--n", "8", "--out", "OUT", *EYE,
          "measurement.features_options.how=batchnorm"], "depend on the images beside it"),
        (["run", "digits-width", "--out", "OUT", *SEEN, "search.n_high=1600"], "--set search.n_high=1599"),
        (["plan", "digits-width", *EYE, "measurement.features_options.how=zeros"], "zeros alone"),
        (["run", "digits-width", "--out", "OUT", "--set", "measurement.features_version=2"], "features must name a function"),
        (["run", "cifar10-width", "--out", "OUT"], "data.root"),
        (["run", "cifar10-width", "--out", "OUT", "--set", "data.root=/nowhere"], "no intact CIFAR10"),
        (["run", "digits-width", "--out", "OUT", "--cpus-per-trial", "512"], "--cpus-per-trial 512"),
        (["run", "digits-width", "--out", "OUT", "--workers", "0"], "--workers"),
        (["trial", "digits-width", "--config", "width=9", "--n", "8", "--out", "OUT"], "has width=4, width=8"),
        (["trial", "digits-width", "--config", "width=8", "--n", "1", "--out", "OUT"], "n: it must be greater"),
        (["trial", "digits-width", "--config", "width=8", "--n", "1798", "--out", "OUT"], "more than the 1797 images"),
        (["status", "OUT"], "holds no sweep"),
        (["report", "OUT"], "holds no sweep"),
        (["sync", "OUT"], "holds no sweep"),
        (["ui", "OUT"], "holds no sweep"),
        (["frobnicate"], "frobnicate"),
        (["plan"], "SPACE"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_exit_2_and_nothing_is_created(tmp_path, capsys, arguments, text):
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as ended:
        main([str(out) if argument == "OUT" else argument for argument in arguments])
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.err.startswith("emm: error: ")
    assert printed.err.count("\n") == 1
    assert text in printed.err
    assert not out.exists()


ONE_TRIAL = ["trial", "digits-width", "--config", "width=8", "--n", "8"]


@pytest.mark.parametrize(
    "arguments",
    [
        *([command, "FILE"] for command in ("status", "report", "sync", "purge", "ui")),
        ["status", "FILE/below"],
        ["report", "SWEEP", "--out", "FILE/below"],
        [*ONE_TRIAL, "--out", "FILE"],
        [*ONE_TRIAL, "--out", "FILE/below"],
    ],
)
def test_a_file_where_a_directory_is_needed_is_said_in_one_line(tmp_path, capsys, arguments):
    file, made = tmp_path / "notes.txt", tmp_path / "sweep"
    file.write_text("mine")
    write_sweep(Storage(str(made)), find_space("digits-width"), load(Digits()), 1)
    where = {"FILE": file, "FILE/below": file / "below", "SWEEP": made}
    code, _, errors = here(capsys, *(where.get(argument, argument) for argument in arguments))
    assert (code, errors.count("\n")) == (2, 1)
    assert errors.startswith("emm: error: ")
    assert f"{file} is a file; choose a directory" in errors
    assert file.read_text() == "mine"


TO_STORAGE = "--out s3://…@bucket/x: a URL is no path on this machine; it goes to --storage"
EMPTY = "it is empty; name a path"
NO_SWEEP = "'' names no sweep"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "digits-width", "--out", "s3://me:word@bucket/x"], TO_STORAGE),
        (["plan", "digits-width", "--out", "s3://me:word@bucket/x"], TO_STORAGE),
        (["run", "digits-width", "--storage", "s3:/bucket/x"], "a URL with :// or a path"),
        ([*ONE_TRIAL, "--out", "s3://bucket/x"], "a URL is no path"),
        (["report", "SWEEP", "--out", "s3://bucket/x"], "a URL is no path"),
        (["sample", "SWEEP", "--out", "s3://bucket/x.png"], "a URL is no path"),
        (
            ["audit", "--train", "a", "--generated", "b", "--csv", "s3://b/x.csv"],
            "a URL is no path",
        ),
        (["run", "digits-width", "--out", ""], EMPTY),
        (["advise", "digits-width", "--out", ""], EMPTY),
        (["plan", "digits-width", "--out", ""], EMPTY),
        ([*ONE_TRIAL, "--out", ""], EMPTY),
        (["report", "SWEEP", "--out", ""], EMPTY),
        (["remeasure", "SWEEP", "--features", "a:b", "--out", ""], EMPTY),
        (["sample", "SWEEP", "--out", ""], EMPTY),
        (["submit", "digits-width", "--address", "a", "--storage", "s3://b", "--code", ""], EMPTY),
        (["run", "digits-width", "--storage", ""], "--storage ''"),
        (["run", "digits-width", "--out", "OUT", "--reuse", ""], NO_SWEEP),
        (["status", ""], NO_SWEEP),
        (["purge", "--yes", ""], NO_SWEEP),
    ],
)
def test_neither_a_url_nor_nothing_is_a_directory(tmp_path, capsys, monkeypatch, arguments, text):
    """What pathlib makes of them is a directory beside, or the one where we are."""
    made = tmp_path / "sweep"
    write_sweep(Storage(str(made)), find_space("digits-width"), load(Digits()), 1)
    monkeypatch.chdir(tmp_path)
    where = {"OUT": tmp_path / "out", "SWEEP": made}
    code, _, errors = here(capsys, *(where.get(argument, argument) for argument in arguments))
    assert (code, errors.count("\n")) == (2, 1)
    assert text in errors
    assert [path.name for path in tmp_path.iterdir()] == ["sweep"]


LONG = "x" * 300


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "digits-width", "--out", "/proc/emm"], "/proc"),
        (["run", "digits-width", "--out", LONG], "File name too long"),
        (["run", "digits-width", "--dry-run", "--out", LONG], "File name too long"),
        ([*ONE_TRIAL, "--out", "/proc/emm"], "/proc/emm can't be made"),
        ([*ONE_TRIAL, "--out", LONG], "File name too long"),
        (["report", "SWEEP", "--out", "/proc/emm"], "/proc/emm can't be made"),
        (["report", "SWEEP", "--out", LONG], "File name too long"),
        (["report", "LONE", "--out", "/proc/emm"], "/proc/emm can't be made"),
        (["remeasure", "SWEEP", "--features", "tests.eyes:pixels", "--out", "/proc/emm"], "/proc"),
        (["sample", "SWEEP", "--out", LONG], "File name too long"),
        (["status", LONG], "File name too long"),
    ],
)  # fmt: skip
def test_a_directory_that_can_not_be_made_is_said_in_one_line(
    tmp_path, capsys, monkeypatch, arguments, text
):
    made, lone = tmp_path / "sweep", tmp_path / "lone"
    space = find_space("digits-width")
    write_sweep(Storage(str(made)), space, load(Digits()), 1)
    write_trial(Storage(str(lone)), space, space.configurations[0], load(Digits()), 8, 0)
    monkeypatch.chdir(tmp_path)
    where = {"SWEEP": made, "LONE": lone}
    code, _, errors = here(capsys, *(where.get(argument, argument) for argument in arguments))
    assert (code, errors.count("\n")) == (2, 1)
    assert text in errors
    assert {path.name for path in tmp_path.iterdir()} == {"sweep", "lone"}


def test_plan_counts_the_papers_networks_without_its_data(capsys):
    planned = json.loads(here(capsys, "plan", "cifar10-width", "--json")[1])
    assert planned["space"] == "cifar10-width"
    millions = [round(row["parameters"] / 1e6, 1) for row in planned["configurations"]]
    assert millions == [35.1, 79.0, 140.4, 219.3]
    first = planned["configurations"][0]
    assert {"name", "factors", "n_low", "n_high"} <= first.keys()
    assert first["images_low"] == 40_000 * first["n_low"]


def test_a_plan_of_a_small_network_counts_the_time_to_launch_its_kernels(capsys):
    """At any speed of arithmetic: 400 steps of 5 ms, and 3 ms for each of 19 calls of the network
    for every 250 of 500 + 4 × 300 images."""
    for tflops in ("10", "1000"):
        asked = ["plan", "digits-width", "--tflops", tflops, "--json"]
        (row, _) = json.loads(here(capsys, *asked)[1])["configurations"]
        seconds = 400 * 0.005 + 1700 / 250 * 19 * 0.003
        assert row["hours_low"] * 3600 == pytest.approx(seconds)


def test_a_plan_is_printed_with_both_ends_and_the_sum(capsys):
    arguments = ["plan", "cifar10-width", "--tflops", "50"]
    rows = json.loads(here(capsys, *arguments, "--json")[1])["configurations"]
    text = here(capsys, *arguments)[1]
    assert "at 50 TFLOP/s" in text
    for row in rows:
        (line,) = [line for line in text.splitlines() if line.startswith(row["name"] + " ")]
        assert re.split("  +", line)[1:] == [
            *(f"{row['parameters'] / 1e6:.3g} M", f"{row['flops_per_image'] / 1e9:.3g}"),
            f"{row['steps_low']:,} to {row['steps_high']:,}",
            f"{human(row['images_low'])} to {human(row['images_high'])}",
            f"{estimated(row['hours_low'])} to {estimated(row['hours_high'])}",
            estimated(row["hours_search"]),
        ]
    assert "note: data.root: " in text, "N was not checked"
    total = sum(row["hours_search"] for row in rows)
    assert f"all searches: {estimated(total)} of one GPU" in text
    asked = ["--workers", "2"]
    content = json.loads(here(capsys, *arguments, *asked, "--json")[1])
    assert content["wall_hours"] == pytest.approx(total / 2)
    assert content["hours_left"] == pytest.approx(total)
    assert f"with 2 workers: about {estimated(total / 2)}" in here(capsys, *arguments, *asked)[1]
    longest = max(row["hours_search"] for row in rows)
    many = json.loads(here(capsys, *arguments, "--workers", "64", "--json")[1])
    assert many["wall_hours"] == pytest.approx(0.7 * longest), "many trials of a search at once"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (["search.n_high=1798"], "search.n_high: 1798 is more than the 1797 images"),
        (["labels.kind=true", "search.n_low=4"], "N=4 is less than the 10 classes"),
        (["data.kind=arrays", "data.path=TEN"], "256 is more than the 10 images there are; --set search.n_high=10\n"),
        (["data.kind=arrays", "data.path=TEN", "search.n_low=10"], "; --set search.n_low=2 --set search.n_high=10\n"),
        (["data.kind=arrays", "data.path=ONE"], "256 is more than the 1 image there is; more are needed\n"),
    ],
)  # fmt: skip
def test_a_plan_refuses_what_a_run_would(tmp_path, capsys, settings, text):
    np.save(tmp_path / "ten.npy", np.arange(640, dtype=np.uint8).reshape(10, 8, 8, 1))
    np.save(tmp_path / "one.npy", np.zeros((1, 8, 8, 1), np.uint8))
    files = {"TEN": str(tmp_path / "ten.npy"), "ONE": str(tmp_path / "one.npy")}
    words = [re.sub("TEN|ONE", lambda found: files[found[0]], word) for word in settings]
    asked = [part for word in words for part in ("--set", word)]
    if "data.kind=arrays" in asked:
        asked += ["--set", "data.resolution=8", "--set", "data.channels=1"]
    plan = here(capsys, "plan", "digits-width", *asked)
    run = here(capsys, "run", "digits-width", *asked, "--out", tmp_path / "out")
    assert plan == run
    assert plan[0] == 2
    assert text in plan[2]


def test_a_plan_does_not_count_what_a_sweep_has(tmp_path, capsys):
    """One study is found, the other has four trials of the 5.4 that a search of this precision
    takes."""
    space, asked = find_space("digits-width"), ["plan", "digits-width", "--tflops", "0.0001"]
    fresh = json.loads(here(capsys, *asked, "--json")[1])
    assert json.loads(here(capsys, *asked, "--out", tmp_path / "new", "--json")[1]) == fresh
    assert not (tmp_path / "new").exists()
    storage, digits = Storage(str(tmp_path)), load(Digits())
    write_sweep(storage, space, digits, 0)
    first, second = space.configurations
    for seed in range(4):
        write_trial(storage, space, second, digits, 16, seed, seconds=30.0 + seed)
    rows = json.loads(here(capsys, *asked, "--out", tmp_path, "--json")[1])["configurations"]
    expected = [row["hours_low"] for row in fresh["configurations"]]
    slow = 31.5 / 3600 / expected[1]
    assert rows[0]["hours_left"] == pytest.approx(5.396 * expected[0] * slow, rel=1e-3)
    for seed, n in enumerate([5, 6, 7, 8, 9, 10, 12]):
        write_trial(storage, space, first, digits, n, seed, seconds=5.0)
    rows = json.loads(here(capsys, *asked, "--out", tmp_path, "--json")[1])["configurations"]
    assert [row["state"] for row in rows] == ["found", "searching"]
    assert [row["trials"] for row in rows] == [7, 4]
    assert rows[0]["hours_left"] == 0
    assert rows[1]["hours_left"] == pytest.approx(1.396 * 31.5 / 3600, rel=1e-3)
    text = here(capsys, *asked, "--out", tmp_path)[1]
    assert f"left of them: {estimated(rows[1]['hours_left'])}" in text
    refused = here(capsys, "plan", "digits", "--out", tmp_path)
    assert refused[0] == 2
    assert "holds the sweep of digits-width, not of digits" in refused[2]


def test_status_is_the_live_view_in_the_same_words(tmp_path, capsys):
    """What is not trained any more is waiting, or has its verdict; of a driver at work, also what it
    trains."""
    space, storage, digits = find_space("digits-width"), Storage(str(tmp_path)), load(Digits())
    write_sweep(storage, space, digits, 0)
    first, second = space.configurations
    for seed, n in enumerate([5, 6, 7, 8, 9, 10, 12]):
        write_trial(storage, space, first, digits, n, seed)
    write_trial(storage, space, second, digits, 16, 0)
    how = space.measurement
    for named, seed in ((first, 7), (second, 1)):
        begun = {"name": named.name, "configuration": named.configuration, "measurement": how}
        TrialFiles(storage, start_record(TrialSpec(**begun, n=20, seed=seed), digits)).start()
    storage.write("spent/x.json", b'{"device_hours": 0.21}')
    code, text, _ = here(capsys, "status", tmp_path)
    head, titles, one, two, whole, goes_on = text.splitlines()
    assert code == 0
    assert head == "digits-width: no driver is running; 12 min 36 s of device time so far"
    assert re.split("  +", titles) == list(COLUMNS)
    assert re.split("  +", one)[:2] == ["width=4", "7"]
    assert re.split("  +", one)[-1] == "found"
    assert re.split("  +", two)[:2] == ["width=8", "1"]
    assert re.split("  +", two)[-1] == "waiting"
    assert whole == "2 studies: 1 found, 1 waiting"
    assert goes_on == "the same emm run goes on with 1 unfinished trial"
    assert one.index("7") == two.index(" 1 ") + 1, "numbers stand below each other"
    with Lock(storage):
        lines = here(capsys, "status", tmp_path)[1].splitlines()
    assert lines[0].startswith(f"digits-width: driver {os.getpid()} on ")
    assert re.split("  +", lines[3])[-1] == "searching"
    assert [line.split() for line in lines[4:]] == [
        ["width=8", "N=20", "seed=1", "training"],
        ["2", "studies:", "1", "found,", "1", "searching"],
    ]


@pytest.mark.parametrize("command", ["status", "report"])
def test_at_80_columns_every_name_is_whole(tmp_path, capsys, monkeypatch, command):
    write_sweep(Storage(str(tmp_path)), find_space("digits-width"), load(Digits()), 2)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    text = here(capsys, command, tmp_path)[1]
    assert max(map(len, text.splitlines()[:-1])) <= 80
    names = [line.split()[0] for line in text.splitlines() if re.match(r"\w+=?\w*  ", line)]
    tables = names.count("configuration")
    assert tables == (1 if command == "status" else 3)
    assert names == ["configuration", "width=4", "width=8"] * tables


def test_one_is_not_many(tmp_path, capsys):
    (tmp_path / "points.csv").write_text("n,r_mem\n20,0.9\n")
    _, output, errors = here(capsys, "fit", tmp_path / "points.csv")
    assert ", from 1 trial\n" in output
    assert "not known of 1 trial and" in errors


def test_points_are_fitted_at_the_target_and_in_the_range_that_are_asked_for(tmp_path, capsys):
    points = [Observation(100, 0.99, 2000), Observation(160, 0.6, 2000)]
    (tmp_path / "points.csv").write_text("n,r_mem\n100,0.99\n160,0.6\n")
    asked = ["--target", "0.8", "--precision", "0.01", "--n-low", "50", "--n-high", "900"]
    _, printed, _ = here(capsys, "fit", tmp_path / "points.csv", *asked, "--json")
    fitted = fit_points(points, 0.8, 0.01, 50, 900)
    assert json.loads(printed) == {**asdict(fitted.verdict), "next_n": fitted.next_n}
    text = here(capsys, "fit", tmp_path / "points.csv", *asked)[1]
    assert f"next: train at N = {fitted.next_n}" in text
    assert "at most 0.01 is asked" in text
    assert fitted.verdict.emm_low < 140 < fitted.verdict.emm_high


def test_every_option_of_a_run_reaches_the_sweep(tmp_path, capsys, monkeypatch):
    """Up to where it would train."""
    runs = []
    monkeypatch.setattr("sweep.cli.run._carry_out", lambda run, *_: runs.append(run) or True)
    monkeypatch.setattr("sweep.cli.run._show", lambda *_: None)
    options = {
        "--precision": 0.3, "--target": 0.7, "--workers": 1, "--cpus-per-trial": 0.5,
        "--gpus-per-trial": 0, "--objective": "cost", "--replicates": 3, "--final-samples": 77,
        "--budget-hours": 2.5, "--targets": ".5,.1", "--deadline": "6h", "--set": "search.n_high=64",
    }  # fmt: skip
    flags = ["--guard", "--early-accept"]
    before = time.time()
    words = [str(word) for pair in options.items() for word in pair]
    code, _, errors = here(capsys, "run", "digits-width", "--out", tmp_path / "out", *words, *flags)
    assert code == 130, errors  # nothing is decided
    (run,) = runs
    search, how = run.sweep.space.search, run.sweep.space.measurement
    assert (search.precision, search.target, search.n_high) == (0.3, 0.7, 64)
    assert search.targets == (0.5, 0.1)
    assert (search.replicates, search.final_samples, search.guard) == (3, 77, True)
    # 1.99 above the target on the logit
    assert how.accept == pytest.approx(1 / (1 + math.exp(-math.log(0.7 / 0.3) - 1.99)))
    assert run.resources == Resources(0.5, 0, 1, None, "cost")
    assert run.limits.hours == 2.5
    assert run.limits.deadline - before == pytest.approx(6 * 3600, abs=60)
    here(capsys, "run", "digits-width", "--out", tmp_path / "plain")
    plain = runs[1]
    assert plain.resources == Resources()
    assert (plain.limits.hours, plain.limits.deadline) == (None, None)
    assert (plain.sweep.space.search.guard, plain.sweep.space.measurement.accept) == (False, None)


def test_spaces_are_listed():
    names = {row["name"] for row in json.loads(emm("spaces", "--json").stdout)}
    assert {"digits-width", "cifar10-width", "cifar10-depth"} <= names


@pytest.mark.timeout(300)
def test_a_sweep_from_run_to_report(tmp_path, capsys):
    out = tmp_path / "sweep out"  # with a space in its name
    done = emm("run", "digits-width", "--out", out, *TINY, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "width=8" in done.stdout
    assert "unresolved" in done.stdout or "below_range" in done.stdout
    assert str(out / "report" / "index.html") in done.stdout
    assert (out / "report" / "index.html").stat().st_size > 1000
    assert (out / "emm.log").read_text().count(" INFO ") < 20, (
        "it is for what happens, not for how figures are drawn"
    )

    report = json.loads(here(capsys, "report", out, "--json")[1])
    assert [one["name"] for one in report["configurations"]] == ["width=4", "width=8"]
    trials = [trial for one in report["configurations"] for trial in one["trials"]]
    assert all(trial["state"] in ("complete", "running") for trial in trials)
    assert all(
        0 <= trial["r_mem"] <= 1 and trial["n_samples"] == 40
        for trial in trials
        if trial["state"] == "complete"
    )
    assert {"alone_low", "alone_high", "images_trained", "verdict"} <= report["configurations"][
        0
    ].keys()

    before = {path: path.stat().st_mtime_ns for path in out.glob("trials/*/*")}
    assert here(capsys, "run", "digits-width", "--out", out, *TINY)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("trials/*/*")} == before
    code, _, errors = here(
        capsys, "run", "digits-width", "--out", out, *TINY, "--set", "trainer.lr=0.5"
    )
    assert (code, "trainer.lr" in errors) == (2, True)

    status = json.loads(here(capsys, "status", out, "--json")[1])
    assert status["driver"] is None
    (out / "optuna.db").unlink()
    (out / "mlflow.db").unlink()
    complete = next(trial for trial in trials if trial["state"] == "complete")
    final = {"r_mem": 0.5, "n_samples": 1000, "n_memorized": 500}
    (out / "final.json").write_text(json.dumps({complete["training_key"]: final}))
    assert emm("sync", out).returncode == 0  # MLflow keeps the database open in this process
    assert (out / "optuna.db").exists()
    with closing(sqlite3.connect(out / "mlflow.db")) as database:
        found = database.execute(
            "select value from latest_metrics where key = 'r_mem_final'"
        ).fetchall()
    assert found == [(0.5,)], "last measurements as well"


def test_one_trial_in_the_foreground(tmp_path, capsys):
    one = ["--config", "width=8", "--n", "20", "--seed", "3"]
    code, printed, errors = here(capsys, "trial", "digits-width", *one, "--out", tmp_path, *TINY)
    assert code == 0, errors
    (result,) = tmp_path.glob("trials/*/result.json")
    assert f"R_mem {json.loads(result.read_text())['r_mem']:.4f}" in printed


def test_a_trial_that_fails_says_why(tmp_path, capsys):
    settings = [*TINY, "--set", "trainer.lr=1e30", "--set", "trainer.warmup=0"]
    code, _, errors = here(
        capsys,
        "trial",
        "digits-width",
        "--config",
        "width=8",
        "--n",
        "20",
        "--out",
        tmp_path,
        *settings,
    )
    assert code == 1
    assert "not finite" in errors
    assert "try a lower trainer.lr" in errors


def test_a_sweep_on_a_url_leaves_nothing_on_this_machine(tmp_path, capsys, monkeypatch):
    """Its trials are all there, so nothing is trained; its report would have nowhere to stay."""
    url = "memory://bucket/left"
    settings = [
        "search.max_trials=2",
        "search.n_low=4",
        "search.n_high=64",
        "search.precision=0.01",
    ]
    space = find_space("digits-width").with_settings(parse_settings(settings))
    write_sweep(Storage(url), space, load(Digits()), trials=2)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    options = [part for setting in settings for part in ("--set", setting)]
    code, printed, errors = here(capsys, "run", "digits-width", "--storage", url, *options)
    assert code == 0, errors
    assert "unresolved" in printed
    assert f"report: emm report {url} writes it" in printed
    assert (
        f"MLflow lacks this sweep: emm sync {url} --tracking-uri http://HOST:PORT writes it"
        in printed
    )
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("sweep.run.driver.Studies", None)  # an error on the way
    assert here(capsys, "run", "digits-width", "--storage", url, *options)[0] == 1
    assert list(tmp_path.iterdir()) == []


def test_status_says_how_failed_trials_are_trained_again(tmp_path, capsys):
    space, storage, digits = find_space("digits-width"), Storage(str(tmp_path)), load(Digits())
    write_sweep(storage, space, digits, 0)
    first, second = space.configurations
    write_trial(storage, space, second, digits, 16, 0)
    for seed, cause in enumerate(["RuntimeError: mine", "RuntimeError: mine", "no memory"]):
        failed = {"complete": False, "cause": cause}
        write_trial(storage, space, first, digits, 20, seed, **failed)
    text = here(capsys, "status", tmp_path)[1]
    assert (
        "3 trials failed, 2 of them: RuntimeError: mine. When that is mended, emm run with "
        "--retry-failed trains them again"
    ) in text


def test_the_target_is_no_other_target(tmp_path, capsys):
    code, _, errors = here(
        capsys, "run", "digits-width", "--targets", ".5,.9", "--out", tmp_path / "x"
    )
    assert code == 2
    assert "--targets: 0.9 is the target itself; leave it out" in errors
    assert not (tmp_path / "x").exists()
