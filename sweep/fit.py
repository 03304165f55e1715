"""The belief from trials that were done elsewhere: a table of N and R_mem, and nothing to train."""

import csv
from dataclasses import dataclass
from pathlib import Path

from sweep.bisection import Options, Verdict, judge, propose
from sweep.posterior import Observation
from trainables.errors import UserError

DEFAULT_SAMPLES = 2000


@dataclass(frozen=True)
class Fit:
    """`next_n`: where to train next; None if the verdict is in."""

    verdict: Verdict
    options: Options
    next_n: int | None


def read_points(path: Path) -> list[Observation]:
    """Rows with columns n, r_mem (0–1) and optionally n_samples. Raises UserError, with the line, for what is not a number."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: {error}") from None
    if not rows or not {"n", "r_mem"} <= rows[0].keys():
        raise UserError(f"{path}: a header with the columns n and r_mem (and n_samples, if known), then a row per trial")
    return [_observation(path, line, row) for line, row in enumerate(rows, 2)]


def _observation(path: Path, line: int, row: dict[str, str | None]) -> Observation:
    try:
        return Observation(int(row["n"] or ""), float(row["r_mem"] or ""), int(row.get("n_samples") or DEFAULT_SAMPLES))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}, line {line}: {error}") from None


def fit_points(
    points: list[Observation], target: float, precision: float, n_low: int | None = None, n_high: int | None = None
) -> Fit:
    """Judges the points as if they were the trials of one study. Raises UserError for a range that makes no sense."""
    sizes = [point.n for point in points]
    low = n_low if n_low is not None else max(2, min(sizes) // 2)
    high = n_high if n_high is not None else 2 * max(sizes)
    try:
        options = Options(low, high, target, precision, max_trials=len(points) + 24)
    except ValueError as error:
        raise UserError(str(error)) from None
    verdict = judge(points, options)
    return Fit(verdict, options, propose(points, [], options) if verdict.state == "searching" else None)
