"""Tables of the command line: whole, whatever they are printed on."""

import io
import logging
import sys
from pathlib import Path

import pytest

from sweep.cli.main import main
from sweep.cli.printing import show
from sweep.cli.run import OF_TUNE, _log_to
from sweep.report.console import Setting, grid

LONG = "width=" + "1234567890" * 30
COLUMNS: dict[str, Setting] = {"name": "fold", "N": "right"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_elsewhere_a_row_is_a_line_however_long(capsys: pytest.CaptureFixture[str]) -> None:
    show(grid(COLUMNS, [(LONG, "8"), ("b", "1,000")]))
    printed = capsys.readouterr().out
    width = len(LONG)
    assert printed.splitlines() == [
        f"{'name':<{width}}      N",
        f"{LONG}      8",
        f"{'b':<{width}}  1,000",
    ]


def test_without_a_head_there_are_the_rows_alone(capsys: pytest.CaptureFixture[str]) -> None:
    show(grid(COLUMNS, [("a", "")], has_head=False))
    assert capsys.readouterr().out == "a\n"


def test_a_terminal_obeys_no_cell(capsys: pytest.CaptureFixture[str]) -> None:
    show(grid(COLUMNS, [("\x1b[2J[red]x[/red]", "1")], has_head=False))
    assert capsys.readouterr().out == "\\x1b[2J[red]x[/red]  1\n"


def test_on_a_terminal_a_name_goes_on_in_the_next_line(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    show(grid(COLUMNS, [(LONG, "1,000")], has_head=False))
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= 40
    assert "1,000" in lines[0]
    assert "".join(line[:33].strip() for line in lines).replace("1,000", "") == LONG


def printed(monkeypatch: pytest.MonkeyPatch, width: int, *columns: str) -> list[str]:
    """A table whose cells are its heads, on a terminal."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    settings: dict[str, Setting] = {columns[0]: "fold", **dict.fromkeys(columns[1:], "right")}
    show(grid(settings, [columns], has_head=False))
    return [line.rstrip() for line in screen.getvalue().splitlines()]


def test_columns_that_have_no_room_go_on_below_with_their_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert printed(monkeypatch, 21, "name", "1" * 5, "2" * 6) == ["name  11111  222222"]
    assert printed(monkeypatch, 20, "name", "1" * 6, "2" * 6, "3" * 4, "4" * 4) == [
        "name  111111  222222",
        "",
        "name  3333  4444",
    ]


def test_a_long_name_gives_way_before_numbers_do(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = [digit * 7 for digit in "1234"]
    lines = printed(monkeypatch, 60, "width=" + "x" * 50, *numbers)
    assert lines[0].split()[1:] == numbers
    assert "".join(line[:24].strip() for line in lines) == "width=" + "x" * 50


def test_what_ray_tells_of_a_failed_trial_goes_to_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A hundred lines each; its cause is told in one."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    try:
        _log_to(tmp_path / "emm.log")
        for name in OF_TUNE:
            logging.getLogger(name).error("Trial task failed\nTraceback of %s", name)
        kept = (tmp_path / "emm.log").read_text()
        assert all(f"Traceback of {name}" in kept for name in OF_TUNE)
        assert capfd.readouterr().err == ""
    finally:
        root.handlers[0].close()
        root.handlers = handlers
        root.setLevel(level)
        for name in OF_TUNE:
            logging.getLogger(name).handlers, logging.getLogger(name).propagate = [], True


def test_an_interrupted_command_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("search_spaces.find.find_space", interrupt)
    with pytest.raises(SystemExit) as end:
        main(["plan", "digits"])
    assert end.value.code == 130
    assert capsys.readouterr().err == "emm: interrupted\n"
