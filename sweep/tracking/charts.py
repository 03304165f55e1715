"""The views of a sweep that MLflow's UI opens with: its columns, filters and charts."""

import json
from collections.abc import Sequence
from typing import Any

from search_spaces.space import SearchSpace
from sweep.tracking.escapes import mlflow_key

# and a key: the tag of an experiment in which MLflow keeps a view of its page of runs
VIEW = "mlflow.sharedViewState."

STUDY_COLUMNS = ("emm", "emm_low", "emm_high")  # as many as leave the verdict in sight

TRIAL_COLUMNS = ("r_mem", "r_mem_low", "r_mem_high", "median_d1", "images_trained", "seconds")

MAX_VIEW = 5_000  # characters of a tag of an experiment; newer servers take more

TRIALS = "-trials"  # after the key of a sweep: the key of the view of its trials


def views(space: SearchSpace, key: str) -> dict[str, str]:
    """Tags of the experiment that keep two views of the sweep `key`: its studies and its trials, as
    tables and as charts.

    Of many long names as many factors as one tag has room for.
    """
    factors = [mlflow_key(name) for name in space.factor_names.values()]
    made = _views(factors, key)
    while factors and max(map(len, made.values())) > MAX_VIEW:
        factors.pop()
        made = _views(factors, key)
    return made


def _views(factors: Sequence[str], key: str) -> dict[str, str]:
    bars = [_chart("BAR", metricKey=name) for name in ("emm", "slope", "images_trained", "seconds")]
    against = [
        _chart("SCATTER", xaxis=_axis("PARAM", factor), yaxis=_axis("METRIC", "emm"))
        for factor in factors
    ]
    studies = _view(
        key,
        "study",
        [*_params(factors), "tags.`emm.verdict`", *_metrics(STUDY_COLUMNS)],
        [*against, *bars],
    )
    unsmoothed = {
        "useGlobalLineSmoothing": False,
        "lineSmoothness": 0,
        "useGlobalXaxisKey": False,
        "xAxisKey": "step",
    }
    line = _chart(
        "LINE", metricKey="r_mem_snapshot", selectedMetricKeys=["r_mem_snapshot"], **unsmoothed
    )
    point = _chart("SCATTER", xaxis=_axis("PARAM", "n"), yaxis=_axis("METRIC", "r_mem"))
    trials = _view(
        key, "trial", [*_params([*factors, "n", "seed"]), *_metrics(TRIAL_COLUMNS)], [line, point]
    )
    return {VIEW + key: json.dumps(studies), VIEW + key + TRIALS: json.dumps(trials)}


def _view(
    key: str, level: str, columns: Sequence[str], charts: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "searchFilter": f"tags.`emm.level` = '{level}' and tags.`emm.sweep` = '{key}'",
        "orderByKey": "attributes.`start_time`",
        "orderByAsc": True,
        "selectedColumns": columns,
        "runsHiddenMode": "SHOWALL",  # in charts; by default the first ten
        "compareRunCharts": charts,
        "compareRunSections": [
            {"uuid": "emm", "name": "EMM", "display": True, "isReordered": False}
        ],
    }


def _chart(kind: str, **fields: Any) -> dict[str, Any]:
    axes = [field["key"] for field in fields.values() if isinstance(field, dict)]
    what = " ".join(axes) or fields["metricKey"]
    common = {
        "metricSectionId": "emm",
        "runsCountToCompare": 100,
        "deleted": False,
        "isGenerated": False,
    }
    return {"type": kind, "uuid": f"emm-{kind} {what}", **common, **fields}


def _axis(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "key": name}


def _params(names: Sequence[str]) -> list[str]:
    return [f"params.`{name}`" for name in names]


def _metrics(names: Sequence[str]) -> list[str]:
    return [f"metrics.`{name}`" for name in names]
