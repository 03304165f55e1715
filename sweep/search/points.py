"""The belief from trials that were done elsewhere: a table of N and R_mem, and nothing to train.

A table is read as people have it, or refused with the line: a wrong EMM that looks right is the
worst that could come out.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sweep.search.belief import Observation
from sweep.search.rules import Options, Verdict, judge, propose
from sweep.search.words import counted
from trainables.errors import UserError

DEFAULT_SAMPLES = 2000
MOST = 10**12  # images: more than anybody trains on
DELIMITERS = (",", ";", "\t")
# what a column means, and how people call it: letters and digits alone, in lower case
MEANINGS = {
    "n": (
        "n",
        "images",
        "nimages",
        "trainingimages",
        "ntrain",
        "ntraining",
        "ntrainingimages",
        "trainsize",
    ),
    "r_mem": ("rmem", "memorizationratio", "memorisationratio"),
    "n_samples": ("nsamples", "samples", "ngenerated", "generatedimages"),
    "configuration": ("configuration", "config"),
    "right_censored": ("rightcensored", "censored"),
    "state": ("state",),
}
TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False, "": False}


@dataclass(frozen=True)
class Fit:
    """`next_n`: where to train next; None if the verdict is in."""

    verdict: Verdict
    options: Options
    next_n: int | None


@dataclass(frozen=True)
class Table:
    """The trials of a table. `notes`: what of it was left out, in words."""

    # by configuration, in the order of the table
    trials: dict[str, list[Observation]] = field(default_factory=dict)
    # there is a column of configurations; without it all trials stand under ""
    is_split: bool = False
    notes: list[str] = field(default_factory=list)


def read_table(path: Path) -> Table:
    """A header, then a row per trial, separated by commas, semicolons or tabs; empty lines and
    comments (#) are passed over.

    Columns, however they are written (`N`, `R mem`, …): n, r_mem (0–1, or each with a % sign), and
    optionally n_samples, configuration, right_censored, and state, of which only `complete` counts;
    so `trials.csv` of a report is one. Decimal commas are read where they can only be that. Raises
    UserError, with the line, for what could be misread.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # line ends of all systems are \n by now
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; save it as CSV in UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    kept = [
        (number, line)
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    columns, delimiter, unused = _header(path, kept[0][1] if kept else "")
    table = Table(is_split="configuration" in columns)
    left_out: Counter[str] = Counter()  # by state
    unmeasured, has_percent = 0, None
    for number, cells in _rows(path, kept, delimiter):
        row = {meaning: cells[index] for meaning, index in columns.items()}
        state = row.get("state", "complete").lower()
        if state != "complete":
            left_out[state or "without a state"] += 1
            continue
        unmeasured += not row.get("n_samples")
        if has_percent not in (None, row["r_mem"].endswith("%")):
            raise UserError(
                f"{path}, line {number}: r_mem {row['r_mem']}: write % in all rows or in none"
            )
        has_percent = row["r_mem"].endswith("%")
        if table.is_split and not row["configuration"]:
            raise UserError(f"{path}, line {number}: the configuration is missing")
        try:
            table.trials.setdefault(row.get("configuration", ""), []).append(_observation(row))
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
    what = ", ".join(f"{count} {state}" for state, count in left_out.items())
    if not table.trials:
        raise UserError(
            f"{path}: no row of a trial" + (f" that is complete; there are {what}" if what else "")
        )
    if what:
        table.notes.append(f"left out, since their state is not complete: {what}")
    if unmeasured:
        table.notes.append(
            f"n_samples is not known of {counted(unmeasured, 'trial')} and taken as {DEFAULT_SAMPLES:,}"
        )
    if unused:
        table.notes.append(f"columns that are not used: {', '.join(unused)}")
    return table


def _header(path: Path, line: str) -> tuple[dict[str, int], str, list[str]]:
    """Where each meaning stands, what separates the columns, and the names of those that mean
    nothing here."""
    names: list[str] = []
    for delimiter in DELIMITERS:
        with suppress(csv.Error):  # a line of 100 kB: no header
            names = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
        meanings = [_meaning(name) for name in names]
        if {"n", "r_mem"} <= set(meanings):
            break
    else:
        raise UserError(
            f"{path}: a header with the columns n and r_mem (and n_samples, configuration, "
            "right_censored, if known) is "
            "needed, separated by commas, semicolons or tabs; then a row per trial"
        )
    for meaning in MEANINGS:
        same = [name for name, other in zip(names, meanings, strict=True) if other == meaning]
        if len(same) > 1:
            raise UserError(
                f"{path}: the columns {' and '.join(same)} both mean {meaning}; rename one of them"
            )
    if "%" in names[meanings.index("r_mem")]:
        raise UserError(
            f"{path}: {names[meanings.index('r_mem')]}: write R_mem as a share (0.92), or % "
            "behind every value"
        )
    columns = {meaning: index for index, meaning in enumerate(meanings) if meaning is not None}
    unused = [name or f"column {i + 1}" for i, name in enumerate(names) if meanings[i] is None]
    return columns, delimiter, unused


def _meaning(name: str) -> str | None:
    word = re.sub(r"[^a-z0-9]", "", name.lower())
    return next((meaning for meaning, names in MEANINGS.items() if word in names), None)


def _rows(
    path: Path, kept: list[tuple[int, str]], delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) below the header. Raises UserError for a row that has more or fewer cells than
    that."""
    reader = csv.reader([line for _, line in kept], delimiter=delimiter, strict=True)
    try:
        width, begin = len(next(reader)), reader.line_num
        for cells in reader:
            number, begin = kept[begin][0], reader.line_num
            if len(cells) != width:
                is_split = delimiter == "," and len(cells) > width  # 0,92 or 1,000
                hint = (
                    "; commas within numbers? Separate the columns by semicolons"
                    if is_split
                    else ""
                )
                raise UserError(
                    f"{path}, line {number}: {len(cells)} cells, and the header has {width}{hint}"
                )
            yield number, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise UserError(
            f"{path}, line {kept[min(reader.line_num, len(kept)) - 1][0]}: {error}"
        ) from None


def _observation(row: Mapping[str, str]) -> Observation:
    n_samples = _count("n_samples", row["n_samples"]) if row.get("n_samples") else DEFAULT_SAMPLES
    censored = row.get("right_censored", "").lower()
    if censored not in TRUTHS:
        raise ValueError(f"right_censored: true or false is needed, not {censored!r}")
    return Observation(_count("n", row["n"]), _share(row["r_mem"]), n_samples, TRUTHS[censored])


def _count(name: str, text: str) -> int:
    """An integer; 1000.0 and 1e3 are, 1,000 and 1.000 may be a thousand or one."""
    if (
        re.fullmatch(r"\d+(\.0)?|\d+(\.\d+)?[eE]\+?\d\d?", text)
        and float(text).is_integer()
        and 1 <= float(text) <= MOST
    ):
        return int(float(text))
    raise ValueError(
        f"{name}: an integer from 1 on, without separators of thousands, is needed, not {text!r}"
    )


def _share(text: str) -> float:
    """R_mem: 0.92, 0,92, or 92 %."""
    number = text.removesuffix("%").strip()
    if not re.fullmatch(r"\d+([.,]\d*)?([eE][-+]?\d+)?|[.,]\d+", number):
        raise ValueError(f"r_mem: a number from 0 to 1 is needed, not {text!r}")
    value = float(number.replace(",", "."))
    share = value / 100 if text.endswith("%") else value
    if not 0 <= share <= 1:
        raise ValueError(
            f"r_mem: a number from 0 to 1 is needed (or with a % sign to 100), not {text!r}"
        )
    return share


def fit_points(
    points: list[Observation],
    target: float,
    precision: float,
    n_low: int | None = None,
    n_high: int | None = None,
) -> Fit:
    """Judges the points as if they were the trials of one study. Raises UserError for a range that
    makes no sense."""
    sizes = [point.n for point in points]
    low = n_low if n_low is not None else max(2, min(sizes) // 2)
    high = n_high if n_high is not None else max(2 * max(sizes), low + 1)
    try:
        options = Options(low, high, target, precision, max_trials=len(points) + Options.max_trials)
    except ValueError as error:
        raise UserError(str(error)) from None
    verdict = judge(points, options)
    return Fit(
        verdict, options, propose(points, [], options) if verdict.state == "searching" else None
    )


def fit_table(table: Table, fitted: Callable[[list[Observation]], Fit]) -> dict[str, Fit]:
    """Each configuration alone: trials of different curves say nothing of each other's EMM. Raises
    what `fitted` raises."""
    fits = {}
    for name, points in table.trials.items():
        try:
            fits[name] = fitted(points)
        except UserError as error:
            raise UserError(f"{name}: {error}" if name else str(error)) from None
    return fits
