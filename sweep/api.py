"""A sweep in a notebook: run it, read its tables as pandas and its figures as matplotlib objects,
use its models. docs/notebook.md, docs/models.md.

from sweep import api
sweep = api.read("results/digits-width")    # the --out directory or storage URL; or api.run(space, …)
sweep                                       # shows the question and the verdicts
api.configurations(sweep)                   # a row each: verdict, EMM, interval, …
api.trials(sweep).plot.scatter("n", "r_mem", logx=True)
api.figures(sweep)["emm"]()                 # "emm", "contrasts", "cost", "study-01-width-4", …
api.load("results/digits-width", n=25).sample(16)
"""

import logging
import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from matplotlib.axes import Axes

from sweep.analysis.summary import SweepSummary, summarize
from sweep.analysis.views import at_target, called_apart, check_known, joined, selected
from sweep.report.canvas import Canvas, names_of
from sweep.report.factors import Records, factor_heads, with_factors
from sweep.report.figures import Figures, figures_of
from sweep.report.files import CSV
from sweep.report.notebook import Sweep, shown
from sweep.report.ratios import (
    CONTRAST_CSV,
    INTERACTION_CSV,
    contrast_records,
    interaction_records,
)
from sweep.store.one_trial import load_model
from sweep.store.places import place
from trainables.errors import UserError
from trainables.trial.result import Snapshot

if TYPE_CHECKING:  # torch is imported when a model is loaded
    from search_spaces.space import SearchSpace
    from trainables.trial.model import Model

__all__ = [
    "compare",
    "configurations",
    "contrasts",
    "curves",
    "figures",
    "interactions",
    "load",
    "profile",
    "read",
    "run",
    "trials",
]

TEXTS = {"cause", "onset_50", "onset_90", "factor"}  # columns of texts, or of nothing


def read(directory: str | Path) -> Sweep:
    """What the sweep of a DIR or URL knows now. Raises UserError if there is none."""
    return shown(summarize(place(str(directory)).storage))


# ---------------------------------------------------------------- tables


def configurations(sweep: SweepSummary) -> pd.DataFrame:
    """A row for every configuration, by name: its factors and what `emm report --json` says of it,
    `scale_…` and `isolation_…` included. What has several rows for a configuration is in the other
    tables.

    A factor whose name is that of another column is called `factor_NAME`, here and in all tables.
    """
    records = [(study.name, _flat(study.as_json())) for study in sweep.studies]
    table = _table(sweep, records)
    return table.rename(columns={"configuration": "name"}).set_index("name")


def trials(sweep: SweepSummary) -> pd.DataFrame:
    """A row for every trial: its configuration, that one's factors, and what `emm report --json`
    says of it, of a last measurement `final_r_mem` and `final_n_samples`. seconds: wall time; loss:
    mean per image, before the last snapshot."""
    records = [
        (study.name, _trial(trial))
        for study in sweep.studies
        for trial in study.as_json()["trials"]
    ]
    return _table(sweep, records, CSV)


def curves(sweep: SweepSummary) -> pd.DataFrame:
    """A row for every snapshot of every finished trial, in their order: its configuration, that
    one's factors, n, seed, images_trained, loss, r_mem by the selection images, …"""
    records = [
        (study.name, {"n": result.spec.n, "seed": result.spec.seed, **snapshot.model_dump()})
        for study in sweep.studies
        for result in study.results
        for snapshot in result.curve
    ]
    return _table(sweep, records, ("n", "seed", *Snapshot.model_fields))


def profile(sweep: SweepSummary) -> pd.DataFrame:
    """A row for every configuration and target: its factors, target, emm, emm_low, emm_high; missing
    where trials tell nothing."""
    records = [(study.name, row) for study in sweep.studies for row in study.as_json()["profile"]]
    return _table(sweep, records)


def contrasts(sweep: SweepSummary) -> pd.DataFrame:
    """A row for every pair of configurations that were found: `ratio_of` says which over which, "b /
    a", and `ratio`, `low`, `high` are the EMM of b / the EMM of a with its 95 % interval; `factor`:
    the only one in which they differ.

    `together_low`, `together_high`: the interval that holds at once with those of all ratios against
    a first level and all `interactions`; `pairs_low`, `pairs_high`: at once with those of all pairs.
    `told_apart`: "yes", "alone" (by its own interval only), "no". The columns of contrasts.csv.
    """
    return _with_nan(pd.DataFrame(contrast_records(sweep), columns=list(CONTRAST_CSV)))


def interactions(sweep: SweepSummary) -> pd.DataFrame:
    """A row for every ratio of ratios of two factors: how much the ratio that `factor` makes, b / a,
    changes with `by` to d / c; columns as of `contrasts`. The columns of interactions.csv."""
    return _with_nan(pd.DataFrame(interaction_records(sweep), columns=list(INTERACTION_CSV)))


def _table(sweep: SweepSummary, records: Records, columns: Sequence[str] = ()) -> pd.DataFrame:
    """columns: those that it has before there is a row."""
    if records:
        return _with_nan(pd.DataFrame(with_factors(sweep, records)))
    heads = factor_heads(sweep, ("configuration", *columns))
    return pd.DataFrame(columns=["configuration", *heads.values(), *columns])


def _with_nan(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers of which none is known are NaN, not None, which could neither be plotted nor
    averaged."""
    unknown = set(table.columns[table.isna().all()]) - TEXTS if len(table) else set()
    return table.astype(dict.fromkeys(unknown, float))


def _trial(content: dict[str, Any]) -> dict[str, Any]:
    final = content["final"] or {}
    rest = {name: value for name, value in content.items() if name != "final"}
    return {**rest, **{f"final_{name}": final.get(name) for name in ("r_mem", "n_samples")}}


def _flat(content: dict[str, Any]) -> dict[str, Any]:
    """The trials are counted; what has numbers of its own stands in columns of its own."""
    several = ("name", "factors", "trials", "scale", "isolation", "by_length", "onset", "profile")
    rest = {name: value for name, value in content.items() if name not in several}
    scale = {f"scale_{name}": value for name, value in content["scale"].items()}
    isolation = {f"isolation_{name}": value for name, value in (content["isolation"] or {}).items()}
    return {**rest, "n_trials": len(content["trials"]), **scale, **isolation}


# ---------------------------------------------------------------- figures, and several sweeps


def figures(
    sweep: SweepSummary,
    select: Sequence[str] | None = None,
    labels: Mapping[str, str] | None = None,
    ax: Axes | None = None,
    target: float | None = None,
) -> Figures:
    """Name → what draws it, when it is called: "emm", "profile", "contrasts", "cost",
    "study-01-width-4", …

    select: names of the configurations that are shown, as `configurations(sweep).query(…).index`.
    labels: what configurations, factors and their values are called in place of their names. ax:
    axes of yours that are drawn into, in your own style; figures of several axes are left out then.
    target: another one at which the EMM is shown, where trials tell it. Raises UserError for a
    name that there is not, and for a target that is none.
    """
    if target is not None:
        sweep = at_target(sweep, target)
    if select is not None:
        sweep = selected(sweep, list(select))
    check_known("labels", list(labels or ()), names_of(sweep))
    return figures_of(sweep, Canvas(ax, dict(labels or {})))


def compare(sweeps: Sequence[SweepSummary], names: Sequence[str] | None = None) -> Sweep:
    """Several sweeps as one, for all that is here: its first factor is `sweep`, and contrasts by it
    are across sweeps (`contrasts(…).query("factor == 'sweep'")`); of configurations with the same
    trials in both (`reuse`) there is none.

    names: what they are called; their own names by default. Raises UserError if there are not as
    many, and where the sweeps do not count copies alike.
    """
    called = called_apart([sweep.name for sweep in sweeps]) if names is None else list(names)
    if len(set(called)) < len(sweeps) or len(called) != len(sweeps):
        raise UserError(f"names: {len(sweeps)} different names are needed, not {', '.join(called)}")
    return shown(joined(dict(zip(called, sweeps, strict=True))))


# ---------------------------------------------------------------- models


def load(
    directory: str | Path,
    config: str | None = None,
    n: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    trust_code: bool = False,
) -> "Model":
    """The trained model of a finished trial, in a sweep or in what `emm trial --out` wrote: `.sample`,
    `.denoise`, `.network`; docs/models.md.

    config, n, seed: which trial; what is None may be anything, if one trial alone is left. device:
    as torch calls it, "cpu" or "cuda"; a GPU if there is one. trust_code: run code that the sweep
    names, a network or trainer of your own. Raises UserError, with those there are, if there is
    none or more than one, and if its weights are lost.
    """
    return load_model(str(directory), config, n, seed, device, trust_code)


# ---------------------------------------------------------------- a run


def run(
    space: "str | Path | Mapping[str, Any] | SearchSpace",
    out: str | Path | None = None,
    storage: str | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    effort: Literal["quick", "normal", "thorough"] = "normal",
    precision: float | None = None,
    target: float | None = None,
    workers: int | None = None,
    cpus_per_trial: float = 1,
    gpus_per_trial: float | None = None,
    objective: Literal["cost", "wall"] = "wall",
    guard: bool = False,
    replicates: int | None = None,
    targets: Sequence[float] | None = None,
    early_accept: bool = False,
    final_samples: int | None = None,
    address: str | None = None,
    tracking_uri: str | None = None,
    budget_hours: float | None = None,
    deadline: str | None = None,
    retry_failed: bool = False,
    only: Sequence[str] = (),
    reuse: Sequence[str | Path] = (),
    quiet: bool = False,
) -> Sweep:
    """`emm run`: starts, resumes or extends the sweep in `out`, and returns what `read` returns.

    space: a name, the path of a .py or .yaml file, the fields of such a file, or a SearchSpace.
    settings: field by path → its value, as `--set`; the others as the options of `emm run`, whose
    checks and errors (UserError) they share. Blocks until it is decided, its budget or deadline is
    over, or it is interrupted, after which the same call goes on. Raises UserError where it can't
    be run: in another thread than the main one, or beside a Ray that is not its own.
    """
    from sweep.cli.run import start

    _check_process()
    if out == "":
        raise UserError("out: it is empty; name a directory")
    _check_kinds(
        settings=settings,
        targets=targets,
        workers=workers,
        deadline=deadline,
        only=only,
        reuse=reuse,
    )
    with _process_as_it_was():
        this_run = start(
            str(space) if isinstance(space, Path) else space,
            None if out is None else Path(out),
            storage,
            command=[
                "sweep.api.run",
                _named(space),
                *(f"{k}={v}" for k, v in (settings or {}).items()),
            ],
            settings=settings or {},
            effort=effort,
            precision=precision,
            target=target,
            workers=workers,
            cpus_per_trial=cpus_per_trial,
            gpus_per_trial=gpus_per_trial,
            objective=objective,
            guard=guard,
            replicates=replicates,
            targets=None if targets is None else list(targets),
            early_accept=early_accept,
            final_samples=final_samples,
            address=address,
            tracking_uri=tracking_uri,
            budget_hours=budget_hours,
            deadline=deadline,
            retry_failed=retry_failed,
            quiet=quiet,
            only=only,
            reuse=[str(where) for where in reuse],
            shows_table=False,  # who wants it has it from what is returned
        )
    assert this_run is not None, "this is no dry run"
    return shown(summarize(this_run.storage))


# of an argument: what it must be, and how that is said; None may be left out
KINDS: dict[str, tuple[type, str]] = {
    "settings": (Mapping, "a dict of path → value"),
    "targets": (Iterable, "a list of numbers, as [.5]"),
    "workers": (Integral, "a whole number"),
    "deadline": (str, 'a text, as "90m"'),
    "only": (Iterable, "a list of names"),
    "reuse": (Iterable, "a list of directories"),
}


def _check_kinds(**given: object) -> None:
    """Raises UserError for what the command line could not give."""
    for name, value in given.items():
        kind, needed = KINDS[name]
        is_text = isinstance(value, str) and kind is not str  # of which letters are a list, too
        if value is not None and (is_text or not isinstance(value, kind)):
            raise UserError(f"{name}: {needed} is needed, not {value!r}")


def _check_process() -> None:
    """Raises UserError where a sweep can't be run."""
    if threading.current_thread() is not threading.main_thread():
        raise UserError("api.run: call it in the main thread, since a run must take signals")
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # as multiprocessing asks
        raise UserError(
            "api.run: a process that was started by this script runs the script again; put the "
            'call below if __name__ == "__main__":'
        )
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        raise UserError(
            "api.run: this process uses a Ray already, and a run has one of its own, or joins the "
            "cluster at address=HOST:PORT; call ray.shutdown() first"
        )


@contextmanager
def _process_as_it_was() -> Iterator[None]:
    """A run has its own log and its own answer to a SIGTERM; afterwards these are the caller's
    again."""
    from sweep.cli.run import OF_TUNE

    root, sigterm = logging.getLogger(), signal.getsignal(signal.SIGTERM)
    handlers, level = root.handlers, root.level
    root.handlers = []
    try:
        yield
    finally:
        for handler in root.handlers:
            handler.close()
        for name in OF_TUNE:
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [], True
        root.handlers = handlers
        root.setLevel(level)
        if sigterm is not None:
            signal.signal(signal.SIGTERM, sigterm)


def _named(space: "str | Path | Mapping[str, Any] | SearchSpace") -> str:
    """A space as it was given, in a word."""
    if isinstance(space, Mapping):
        return str(space.get("name", "a space of its own"))
    return str(space) if isinstance(space, str | Path) else space.name
