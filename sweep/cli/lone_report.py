"""The report of single trials, for `emm trial --out DIR` and `emm report DIR`."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.cli.printing import say, show

if TYPE_CHECKING:
    from sweep.report.gallery import Pictures
    from trainables.data.images import ImageData
    from trainables.storage import Storage
    from trainables.trial.result import Result


def report_lone_trials(storage: "Storage", target: Path, as_json: bool) -> None:
    """What `emm report DIR` prints and writes of them."""
    from sweep.analysis.study import trial_content
    from sweep.report.console import Setting, grid
    from sweep.report.rows import LEFT
    from sweep.report.trial_page import TRIAL_COLUMNS, lone_rows
    from sweep.store.lone_trials import read_lone_trials

    trials = read_lone_trials(storage)
    if as_json:
        told = [{"configuration": r.spec.name, **trial_content(r)} for r in trials.results]
        unfinished = [
            {"configuration": r.spec.name, "n": r.spec.n, "seed": r.spec.seed}
            for r in trials.started
        ]
        content = {"trials": told, "unfinished": unfinished, "passed_over": trials.damaged}
        say(json.dumps(content, indent=1))
        return
    columns: dict[str, Setting] = {
        column: "left" if column in LEFT else "right" for column in TRIAL_COLUMNS
    }
    show(grid({**columns, "configuration": "fold"}, lone_rows(trials)))
    say(f"report: {write_lone_report(storage, target)}")


def write_lone_report(
    storage: "Storage", target: Path, at_hand: "Mapping[str, ImageData] | None" = None
) -> Path:
    """Pictures as they were allowed when a trial was made. `at_hand`: data that are loaded already,
    by their digest."""
    from sweep.report.gallery import Pictures
    from sweep.report.trial_page import write_trials
    from sweep.store.lone_trials import allowed_pictures, read_lone_trials
    from trainables.data.sources import load

    loaded = cache(load)

    def pictures(result: "Result") -> "Pictures":
        def data(_: str) -> "ImageData":
            known = (at_hand or {}).get(result.data.digest)
            return loaded(result.configuration.data) if known is None else known

        return Pictures(storage, allowed_pictures(storage, result), data)

    return write_trials(read_lone_trials(storage), target, pictures, say)
