"""`emm advise`: with the number of images that it names, copies stay below the share."""

import re

import pytest

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
    words = r"width=16: with N ≥ ([\d,]+) at most 10 % of what it generates is copied, .* 95 %\n"
    enough = int(re.fullmatch(words, said.out)[1])
    assert TENTH < enough < 1.4 * TENTH
    code, said = advised(capsys, str(tmp_path), 0.001)
    assert (code, said.out) == (0, "width=16: not known; search there: emm run … --targets 0.001\n")
    code, said = advised(capsys, str(tmp_path), 0.9)
    assert code == 2
    assert "'--share'" in said.err
