"""`emm advise`: with the number of images that it names, copies stay below the share."""

import json
import re

import pytest

from search_spaces.table import SPACES
from sweep.cli.main import main
from tests.fakes import fake_space
from tests.results import write_sweep, write_trial
from trainables.data.sources import load
from trainables.storage import Storage

WIDTH = 16
SIZES = (8, 20, 28, 36, 50, 70, 90, 110, 130, 160)
TENTH = 2 * WIDTH * 81**0.25  # where a curve of slope 4 that is .9 at 32 falls through .1


def advised(capsys, root, share):
    with pytest.raises(SystemExit) as end:
        main(["advise", root, "--share", str(share)])
    return end.value.code, capsys.readouterr()


def test_what_is_advised_is_enough_and_not_much_more(tmp_path, capsys):
    space = fake_space((WIDTH,))
    storage, data = Storage(str(tmp_path)), load(space.base.data)
    write_sweep(storage, space, data, 0)
    for seed, n in enumerate(SIZES):
        write_trial(storage, space, space.configurations[0], data, n, seed)
    code, said = advised(capsys, str(tmp_path), 0.1)
    assert code == 0
    words = r"width=16: with N ≥ ([\d,]+) at most 0\.1 of what it generates is copied, .* 95 %\n"
    enough = int(re.fullmatch(words, said.out)[1])
    assert TENTH < enough < 1.4 * TENTH
    code, said = advised(capsys, str(tmp_path), 0.001)
    assert (code, said.out) == (0, "width=16: not known: search there: emm run … --targets 0.001\n")
    with pytest.raises(SystemExit):
        main(["advise", str(tmp_path), "--share", "0.1", "--json"])
    assert json.loads(capsys.readouterr().out) == [
        {"name": "width=16", "share": 0.1, "n": enough, "why": None}
    ]
    code, said = advised(capsys, str(tmp_path), 0.9)
    assert code == 2
    assert "'--share'" in said.err


def test_a_search_that_is_not_wanted_yet(tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text("base: digits\nsearch: {n_low: 8, n_high: 64}\n")
    code, said = advised(capsys, str(file), 0.1)
    assert (code, said.err) == (
        2, f"emm: error: {file}: a search space is searched first; add --out DIR\n"
    )  # fmt: skip
    with pytest.raises(SystemExit) as end:
        main(["advise", str(file), "--out", str(tmp_path / "sweep"), "--dry-run"])
    assert end.value.code == 0
    assert "R_mem = 0.1" in capsys.readouterr().out
    assert not (tmp_path / "sweep").exists()


def test_of_a_search_for_the_share_its_own_reason_is_given(tmp_path, capsys):
    space = fake_space((WIDTH,)).with_settings({"search.target": 0.1})
    storage, data = Storage(str(tmp_path)), load(space.base.data)
    write_sweep(storage, space, data, 0)
    write_trial(storage, space, space.configurations[0], data, 50, 0)
    code, said = advised(capsys, str(tmp_path), 0.1)
    assert code == 0
    assert re.search(r"not known: sd .* of ln EMM; at most .* is asked", said.out)


def test_a_space_is_searched_for_the_share_first(tmp_path, capsys):
    """Here its trials are all there already, so that nothing is trained."""
    root = tmp_path / "sweep"
    space = SPACES["digits-width"].with_settings({"search.target": 0.1})
    storage, data = Storage(str(root)), load(space.base.data)
    write_sweep(storage, space, data, 0)
    for named in space.configurations:  # EMM 8 and 16, so that .1 is crossed at 24 and 48
        for seed in range(16):
            n = round(named.configuration.network.width * 6 * 1.12 ** (seed - 8))
            write_trial(storage, space, named, data, n, seed)
    with pytest.raises(SystemExit) as end:
        main(["advise", "digits-width", "--share", "0.1", "--out", str(root), "--workers", "1"])
    assert end.value.code == 0
    advice = capsys.readouterr().out.splitlines()[-2:]
    with pytest.raises(SystemExit):
        main(["advise", "digits-width", "--share", "0.1", "--out", str(root), "--json"])
    told = json.loads(capsys.readouterr().out)  # nothing else is printed there
    assert [one["name"] for one in told] == ["width=4", "width=8"]
    for line, width in zip(advice, (4, 8), strict=True):
        enough = int(re.fullmatch(rf"width={width}: with N ≥ (\d+) at most 0\.1 of .*", line)[1])
        assert 6 * width < enough < 1.4 * 6 * width


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["digits-width"], "--out DIR: say where the sweep is kept"),
        (["digits-width", "--workers", "1"], "--out DIR: say where the sweep is kept"),
        (["digits-width", "--out", "x", "--target", "0.5"], "--target: what is searched for"),
        (["digits-width", "--out", "x", "--wokers", "1"], "No such option: --wokers"),
    ],
)
def test_what_can_not_be_searched_is_said_first(tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["advise", *arguments])
    assert end.value.code == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_beyond_the_range_it_is_said_which_way(tmp_path, capsys):
    space = fake_space((WIDTH,), n_high=32, target=0.1)
    storage, data = Storage(str(tmp_path)), load(space.base.data)
    write_sweep(storage, space, data, 0)
    for seed, n in enumerate((8, 16, 32, 32, 32, 32, 30, 28)):
        write_trial(storage, space, space.configurations[0], data, n, seed)
    _, said = advised(capsys, str(tmp_path), 0.1)
    assert said.out == "width=16: not known: more than 32 images; search.n_high is too low\n"


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((8, 16, 20, 24, 30, 32, 32, 32, 36, 40), "more than 40 images; search.n_high is too low"),
        ((8, 16), "sd .* of ln EMM; at most .* is asked"),
    ],
)
def test_of_another_target_that_was_searched_for_it_is_not_said_to_search_there(
    tmp_path, capsys, sizes, words
):
    """R_mem is .9 at 32, and .1 at 96, far beyond the range."""
    space = fake_space((WIDTH,), n_high=40).with_settings({"search.targets": [0.1]})
    storage, data = Storage(str(tmp_path)), load(space.base.data)
    write_sweep(storage, space, data, 0)
    for seed, n in enumerate(sizes):
        write_trial(storage, space, space.configurations[0], data, n, seed)
    _, said = advised(capsys, str(tmp_path), 0.1)
    assert re.fullmatch(f"width=16: not known: {words}\n", said.out), said.out
