"""Tables of the command line: whole, whatever they are printed on."""

import io
import sys

import pytest

from sweep.cli.printing import show
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
