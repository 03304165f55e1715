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
