"""The table of a sweep in the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from sweep.analysis.cautions import Caution, cautions
from sweep.analysis.seeds import SEEDS, seed_rows
from sweep.analysis.summary import SweepSummary
from sweep.report.answer import answer
from sweep.report.console import Grid, Setting, grid
from sweep.report.ratios import contrast_lines
from sweep.report.rows import (
    CONFIGURATIONS,
    EYES,
    ISOLATION,
    LEFT,
    LOOKS,
    SCALE,
    TRIALS,
    TWO_LINES,
    configuration_rows,
    eye_rows,
    final_lines,
    half_lines,
    isolation_rows,
    look_rows,
    profile_columns,
    profile_rows,
    result_lines,
    scale_rows,
    trial_rows,
    undecided,
)
from sweep.report.tables import Rows, filled
from trainables.text import MOST_NAMED, some

FOLDED = "configuration", SEEDS[-1]  # columns of texts that may go on in the next line

MOST_TRIALS = 40  # rows; more are for files


def table(summary: SweepSummary, trials_in: str = "emm report --json") -> RenderableType:
    """Trials, configurations, comparison, warnings, and the answer, for any console: plain ASCII but
    for users' texts. `trials_in`: where the trials are told, if they are too many for here."""
    eye = " in features" if summary.eye == "features" else ""
    return Group(
        _heading(f"Trials{eye}"),
        _trials(summary, trials_in),
        _heading(f"EMM at target R_mem {summary.space.search.target:g}{eye}"),
        result_table(summary),
        *_indented(result_lines(summary)),
        *_table("In pixels and in features", EYES, eye_rows(summary)),
        *_many("Each trial in pixels and in features", LOOKS, look_rows(summary), trials_in),
        *_table("Beside each EMM", SCALE, scale_rows(summary)),
        *_indented(half_lines(summary)),
        *_table("EMM at other targets", profile_columns(summary), profile_rows(summary)),
        *_table("Who is copied", ISOLATION, isolation_rows(summary)),
        *_lines("Not decided", undecided(summary)),
        *_lines("Across the sweeps", list(summary.notes)),
        *_lines("Contrasts", contrast_lines(summary)),
        *_table("Seeds", SEEDS, seed_rows(summary)),
        *_lines("Measured again", final_lines(summary)),
        *_lines("Warnings", [_caution_line(one, summary) for one in cautions(summary)]),
        *_lines("Answer", [answer(summary)]),
    )


def _trials(summary: SweepSummary, trials_in: str) -> RenderableType:
    rows = trial_rows(summary)
    if not rows:
        return Text("  no trial has started")
    if len(rows) > MOST_TRIALS:
        return Text(f"  {len(rows)} trials: {trials_in}")
    once, above = [], ""  # the name of a configuration stands in its first row
    for name, *rest in rows:
        once.append(("" if name == above else name, *rest))
        above = name
    return _grid(TRIALS, once)


def _many(title: str, columns: Sequence[str], rows: Rows, trials_in: str) -> list[RenderableType]:
    if len(rows) > MOST_TRIALS:
        return _lines(title, [f"{len(rows)} trials: {trials_in}"])
    return _table(title, columns, rows)


def _caution_line(one: Caution, summary: SweepSummary) -> str:
    """With the names that it applies to, and of few their numbers."""
    if not one.of:
        return one.what
    if len(one.of) == len(summary.studies) > MOST_NAMED:
        return f"{one.what}: all {len(one.of)} configurations"
    names = "; ".join(one.names) if len(one.of) <= MOST_NAMED else some(list(one.of))
    return f"{one.what}: {names}"


def result_table(summary: SweepSummary) -> Grid:
    """The verdicts alone."""
    return _grid(CONFIGURATIONS, configuration_rows(summary))


def print_table(summary: SweepSummary, console: Console, report: Path | None = None) -> None:
    """`report`: the directory of the report that is written beside."""
    if report is None:
        console.print(table(summary))
    else:
        console.print(table(summary, f"in {report / 'trials.csv'}, and on the page of the report"))


def _grid(columns: Sequence[str], rows: Rows) -> Grid:
    settings: dict[str, Setting] = {}
    for column in columns:
        head = column.replace(" ", "\n", 1) if column in TWO_LINES else column
        settings[head] = "left" if column in LEFT else "right"
        if column in FOLDED:
            settings[head] = "fold"
    return grid(settings, rows)


def _table(title: str, columns: Sequence[str], rows: Rows) -> list[RenderableType]:
    table = filled(columns, rows)
    return [] if table is None else [_heading(title), _grid(table.columns, table.rows)]


def _lines(title: str, lines: list[str]) -> list[RenderableType]:
    return [_heading(title), *_indented(lines)] if lines else []


def _indented(lines: list[str]) -> list[RenderableType]:
    return [Padding(Text(line), (0, 0, 0, 2), expand=False) for line in lines]


def _heading(title: str) -> Text:
    return Text(f"\n{title}", style="bold")
