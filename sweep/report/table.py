"""The table of a sweep in the terminal."""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from sweep.analysis.cautions import cautions
from sweep.analysis.seeds import seed_lines
from sweep.analysis.summary import SweepSummary
from sweep.report.console import Grid, Setting, grid
from sweep.report.ratios import contrast_lines
from sweep.report.rows import (
    CONFIGURATIONS,
    EYES,
    LEFT,
    LOOKS,
    SCALE,
    TRIALS,
    TWO_LINES,
    Rows,
    configuration_rows,
    eye_rows,
    final_lines,
    half_lines,
    isolation_lines,
    look_rows,
    profile_columns,
    profile_rows,
    result_lines,
    scale_rows,
    trial_rows,
    undecided,
)


def table(summary: SweepSummary) -> RenderableType:
    """Trials, configurations, comparison and warnings, for any console: plain ASCII but for users'
    texts."""
    trials, eye = trial_rows(summary), " in features" if summary.eye == "features" else ""
    once = [
        ("" if i and row[0] == trials[i - 1][0] else row[0], *row[1:])
        for i, row in enumerate(trials)
    ]
    return Group(
        _heading(f"Trials{eye}"),
        _grid(TRIALS, once) if once else Text("  no trial has started"),
        _heading(f"EMM at target R_mem {summary.space.search.target:g}{eye}"),
        result_table(summary),
        *_indented(result_lines(summary)),
        *_table("In pixels and in features", EYES, eye_rows(summary)),
        *_table("Each trial in pixels and in features", LOOKS, look_rows(summary)),
        *_table("Beside each EMM", SCALE, scale_rows(summary)),
        *_indented(half_lines(summary)),
        *_table("EMM at other targets", profile_columns(summary), profile_rows(summary)),
        *_lines("Who is copied", isolation_lines(summary)),
        *_lines("Not decided", undecided(summary)),
        *_lines("Across the sweeps", list(summary.notes)),
        *_lines("Contrasts", contrast_lines(summary)),
        *_lines("Seeds", seed_lines(summary)),
        *_lines("Measured again", final_lines(summary)),
        *_lines("Warnings", cautions(summary)),
    )


def result_table(summary: SweepSummary) -> Grid:
    """The verdicts alone."""
    return _grid(CONFIGURATIONS, configuration_rows(summary))


def print_table(summary: SweepSummary, console: Console) -> None:
    console.print(table(summary))


def _grid(columns: Sequence[str], rows: Rows) -> Grid:
    settings: dict[str, Setting] = {}
    for column in columns:
        head = column.replace(" ", "\n", 1) if column in TWO_LINES else column
        settings[head] = "left" if column in LEFT else "right"
    settings["configuration"] = "fold"
    return grid(settings, rows)


def _table(title: str, columns: Sequence[str], rows: Rows) -> list[RenderableType]:
    return [_heading(title), _grid(columns, rows)] if rows else []


def _lines(title: str, lines: list[str]) -> list[RenderableType]:
    return [_heading(title), *_indented(lines)] if lines else []


def _indented(lines: list[str]) -> list[RenderableType]:
    return [Padding(Text(line), (0, 0, 0, 2), expand=False) for line in lines]


def _heading(title: str) -> Text:
    return Text(f"\n{title}", style="bold")
