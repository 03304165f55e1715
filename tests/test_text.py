"""Texts and numbers for people."""

import subprocess
import sys

import pytest

from trainables.text import cut, duration, estimated, first_line, printable, span, tick, time_left

HOUR = 3600.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (75, "75 s"), (119.4, "119 s"), (120, "2 min"), (59.4 * 60, "59 min"), (59.6 * 60, "1:00 h"),
     (HOUR + 301, "1:05 h"), (30 * HOUR, "30:00 h")],
)  # fmt: skip
def test_time_left(seconds: float, text: str) -> None:
    assert time_left(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"),
     (100_000, "27.8 h"), (172_800, "2 d")],
)  # fmt: skip
def test_a_unit_is_there_from_two_of_it_on(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_what_is_cut_alike_is_kept_apart() -> None:
    one, other = (cut("x" * 30 + end, 20) for end in "ab")
    assert cut("x" * 20, 20) == "x" * 20
    assert one[:10] == other[:10] == "x" * 10
    assert one != other
    assert len(one) == len(other) == 20


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1.5, "1.5"), (500, "500"), (1000, "1k"), (2500, "2.5k"),
                        (999_999, "999.999k"), (1e6, "1M"), (3e9, "3000M")],
)  # fmt: skip
def test_ticks_are_whole(value: float, text: str) -> None:
    assert tick(value) == text


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        *((None, "?"), (0, "< 1 s"), (6.9e-6, "< 1 s"), (0.001, "3.6 s"), (0.008, "29 s")),
        *((0.1234, "7.4 min"), (0.99, "59 min"), (1, "1.0 h"), (9.94, "9.9 h"), (9.96, "10 h")),
        *((47.9, "48 h"), (48, "2.0 days"), (30_000, "1,250 days")),
    ],
)
def test_estimates_have_two_digits(hours: float | None, text: str) -> None:
    assert estimated(hours) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (515, "8 min 35 s"), (3600, "1 h")),
        *((7500, "2 h 5 min"), (86_400, "1 d"), (273_600, "3 d 4 h")),
    ],
)
def test_what_is_over_is_told_to_the_second_or_minute(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_a_name_stands_in_one_line() -> None:
    assert printable("a\nb\tc\x1b[2J\udc80") == r"a\nb\tc\x1b[2J\udc80"
    assert printable("größe 木.png") == "größe 木.png"


def test_an_error_always_says_something() -> None:
    assert first_line(ValueError("\n first\nsecond")) == "first"
    assert first_line(TimeoutError()) == "TimeoutError"


def test_it_imports_the_standard_library_alone() -> None:
    """So that the search has its words without pydantic."""
    code = (
        "import sys; before = set(sys.modules); import trainables.text;"
        "new = {name.split('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(new - sys.stdlib_module_names - {'trainables'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
