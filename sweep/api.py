"""A sweep in a notebook: its results as pandas tables, its figures as matplotlib objects.

from sweep import api
sweep = api.read("results/digits-width")    # the --out directory or storage URL of a sweep
api.configurations(sweep)                   # a row each: verdict, EMM, interval, …
api.trials(sweep).plot.scatter("n", "r_mem", logx=True)
api.figures(sweep)["emm"]()                 # "emm", "contrasts", "cost", "study-01-width-4", …
"""

from typing import TYPE_CHECKING, Any

import pandas as pd

from sweep.analysis.summary import SweepSummary, summarize
from sweep.report.figures import figures_of as figures
from sweep.store.one_trial import load_model
from sweep.store.places import place

if TYPE_CHECKING:  # torch is imported when a model is loaded
    from trainables.trial.model import Model

__all__ = ["configurations", "contrasts", "figures", "load", "read", "trials"]


def read(directory: str) -> SweepSummary:
    """What the sweep of a DIR or URL knows now. Raises UserError if there is none."""
    return summarize(place(str(directory)).storage)


def configurations(sweep: SweepSummary) -> pd.DataFrame:
    """A row for every configuration: its factors and what `emm report --json` says of it, `scale_…`
    included."""
    return pd.DataFrame(
        [_flat(study.factors, study.as_json()) for study in sweep.studies]
    ).set_index("name")


def trials(sweep: SweepSummary) -> pd.DataFrame:
    """A row for every trial: its configuration's factors and what `emm report --json` says of
    it."""
    rows = [
        {"configuration": study.name, **study.factors, **trial}
        for study in sweep.studies
        for trial in study.as_json()["trials"]
    ]
    return pd.DataFrame(rows)


def contrasts(sweep: SweepSummary) -> pd.DataFrame:
    """A row for the ratio of the EMMs of every pair of configurations that were found."""
    return pd.DataFrame(
        sweep.as_json()["contrasts"], columns=["a", "b", "ratio", "low", "high", "same_data"]
    )


def load(
    directory: str,
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
    names, a network or trainer of your own. Raises UserError, with those there
    are, if there is none or more than one, and if its weights are lost.
    """
    return load_model(str(directory), config, n, seed, device, trust_code)


def _flat(factors: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    """The trials are counted; the figures beside the EMM stand in columns of their own; what has
    several rows for a configuration is left out."""
    rest = {
        name: value
        for name, value in content.items()
        if name not in ("name", "factors", "trials", "scale", "by_length", "onset")
    }
    scale = {f"scale_{name}": value for name, value in content["scale"].items()}
    return {"name": content["name"], **factors, **rest, "n_trials": len(content["trials"]), **scale}
