"""Summaries of sweeps that nothing has trained, and what a person reads of them: on the page, in the
terminal."""

import io
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from rich.console import Console

from search_spaces.space import Search, SearchSpace
from search_spaces.table import SPACES
from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary
from sweep.report.files import write_report
from sweep.report.table import print_table
from sweep.search.rules import Options, Verdict
from trainables.config.measurement import Measurement
from trainables.config.trial import TrialSpec
from trainables.trial.result import DataSummary, Result

SPACE = SPACES["digits-width"].model_copy(
    update={
        "vary": {"network.width": (8, 16)},
        "search": Search(n_low=8, n_high=256, precision=0.16),
        "measurement": Measurement(n_samples=500, n_selection=200),
    }
)
NAMES = [named.name for named in SPACE.configurations]
DATA = DataSummary(source="digits", digest="d" * 64, size=1797, duplicates=0)


def record(name: str, n: int, seed: int, data: DataSummary = DATA) -> dict[str, Any]:
    spec = TrialSpec(
        name=name, configuration=SPACE.configurations[NAMES.index(name) if name in NAMES else 0].configuration,
        measurement=SPACE.measurement, n=n, seed=seed,
    )  # fmt: skip
    return {
        "spec": spec,
        "training_key": spec.training_key(data.digest + name),
        "measurement_key": "m",
        "configuration_key": "c",
        "data": data,
    }


def trial(
    name: str, n: int, seed: int, n_memorized: int = 450, data: DataSummary = DATA, **more: Any
) -> Result:
    """A complete trial of 500 samples, unless `more` says otherwise."""
    r_mem = n_memorized / 500
    fields = {
        "complete": True,
        "r_mem": r_mem,
        "n_samples": 500,
        "n_memorized": n_memorized,
        "images_trained": 25_600,
    }
    fields |= {
        "ceiling": 1.0,
        "r_mem_last": r_mem,
        "r_mem_half": r_mem,
        "hardware": {"device": "cpu", "torch": "2.9", "host": "private.example"},
    }
    return Result.model_validate(record(name, n, seed, data) | fields | more)


def failure(name: str, n: int, seed: int, cause: str = "non-finite loss") -> Result:
    return trial(name, n, seed, complete=False, cause=cause, r_mem=None, n_samples=0, n_memorized=0)


def curve(name: str, emm: float, sizes: tuple[int, ...]) -> list[Result]:
    """Trials on a logistic curve; those near R_mem = 1 were accepted early."""
    counts = [round(500 / (1 + math.exp(3 * math.log(n / emm) - math.log(9)))) for n in sizes]
    return [
        trial(name, n, i, k, right_censored=k >= 497)
        for i, (n, k) in enumerate(zip(sizes, counts, strict=True))
    ]


def study(
    name: str,
    verdict: Verdict,
    results: list[Result] | None = None,
    factors: dict[str, Any] | None = None,
) -> StudySummary:
    options = Options(SPACE.search.n_low, SPACE.search.n_high)
    return StudySummary(
        name, {"name": name} if factors is None else factors, verdict, options, results or [], []
    )


def found(emm: float, low: float, high: float) -> Verdict:
    return Verdict("found", emm, low, high, 0.1, "sd 0.100 of ln EMM", 5)


def sweep_of(*studies: StudySummary, space: SearchSpace = SPACE) -> SweepSummary:
    return SweepSummary(space.name, space, list(studies))


VERDICTS = {
    "found": found(35.2, 29.14, 42.0),
    "below_range": Verdict("below_range", None, None, 5.46, 0.1, "P(EMM < 8) = 0.990", 5),
    "above_range": Verdict("above_range", None, 307.2, None, 0.1, "P(EMM > 256) = 0.990", 5),
    "unresolved": Verdict(
        "unresolved",
        61.0,
        30.0,
        120.0,
        0.4,
        "3 of 5 trials failed, the last at N = 64: out of memory",
        2,
    ),
    "searching": Verdict("searching", None, None, None, None, "no trial has finished", 0),
}


class Page(HTMLParser):
    """Tables as lists of rows of texts, by id; all start tags; all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self._rows = self.tables[dict(attrs).get("id") or ""] = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
        self._cell = tag in ("td", "th")

    def handle_endtag(self, tag: str) -> None:
        self._cell = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell:
            self._rows[-1][-1] += data


def page_of(summary: SweepSummary, directory: Path) -> Page:
    return Page(write_report(summary, directory).read_text())


def printed(summary: SweepSummary, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_table(summary, console)
    return console.file.getvalue()  # type: ignore[attr-defined]
