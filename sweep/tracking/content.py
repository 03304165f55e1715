"""What MLflow is told of studies and trials: numbers, parameters, notes."""

import io
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from search_spaces.space import SearchSpace
from sweep.analysis.study import StudySummary
from sweep.search.words import belief_text
from sweep.tracking.escapes import markdown
from trainables.config.data import Data
from trainables.config.identity import IGNORED
from trainables.measure.measures import NUMBERS
from trainables.measure.r_mem import Neighbours, r_mem_interval
from trainables.text import cut
from trainables.trial.result import FinalMeasurement, Result, Snapshot, TrialRecord


def study_numbers(study: StudySummary) -> dict[str, float | None]:
    """What studies are compared by; of the belief five digits, which is more than is known and fits
    a column."""
    known = {name: getattr(study.verdict, name) for name in ("emm", "emm_low", "emm_high", "sd")}
    return {
        **{name: None if value is None else float(f"{value:.5g}") for name, value in known.items()},
        "noisy_copier": study.scale.means["noisy_copier"],
        "slope": None if study.belief is None else float(f"{study.belief.slope:.3g}"),
        "n_trials": study.verdict.n_trials,
        "images_trained": study.images_trained,
        "seconds": round(sum(result.seconds for result in study.results)),
    }


def result_numbers(result: Result) -> dict[str, float | None]:
    numbers: dict[str, float | None] = {}
    if result.complete:
        low, high = r_mem_interval(result.n_memorized, result.n_samples)
        numbers = {"r_mem": result.r_mem, "r_mem_low": low, "r_mem_high": high}
        names = ("n_samples", "n_memorized", *NUMBERS)
        numbers |= {name: getattr(result, name) for name in names}
    return {**numbers, "images_trained": result.images_trained, "seconds": result.seconds}


def final_numbers(final: FinalMeasurement) -> dict[str, float | None]:
    low, high = r_mem_interval(final.n_memorized, final.n_samples)
    ends = {"r_mem_final_low": low, "r_mem_final_high": high}
    return {"r_mem_final": final.r_mem, **ends, "n_samples_final": final.n_samples}


def curve_numbers(snapshot: Snapshot, record: TrialRecord) -> dict[str, float]:
    numbers = {"r_mem_snapshot": snapshot.r_mem, "median_d1_snapshot": snapshot.median_d1}
    optional = {"loss": snapshot.loss, "loss_gap": snapshot.loss_gap}
    numbers |= {name: value for name, value in optional.items() if value is not None}
    numbers["progress"] = snapshot.images_trained / record.spec.configuration.trainer.train_images(
        record.spec.n
    )
    if snapshot.seconds > 0:
        numbers["images_per_second"] = snapshot.images_trained / snapshot.seconds
    return numbers


def parameters(record: TrialRecord) -> dict[str, str]:
    """All that describes a trial, by dotted path of the field, but where its data lie."""
    spec = record.spec
    tree = {
        **spec.configuration.model_dump(mode="json"),
        "measurement": spec.measurement.model_dump(mode="json"),
    }
    tree["data"] = without_places(spec.configuration.data)
    fields = {
        f"{section}.{name}": value
        for section, group in tree.items()
        for name, value in group.items()
    }
    return texts({"configuration": spec.name, "n": spec.n, "seed": spec.seed, **fields})


def without_places(data: Data) -> dict[str, Any]:
    """The fields of a source that say what is learned; directories of the user's are not among
    them."""
    places = {
        name
        for name, field in type(data).model_fields.items()
        if field.json_schema_extra == IGNORED
    }
    fields = data.model_dump(mode="json", exclude=places)
    if data.mix is not None:
        fields["mix"] = {"share": data.mix.share, "data": without_places(data.mix.data)}
    return fields


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
    }


def data_set(record: TrialRecord) -> Any:
    """MLflow's entry of the data behind a trial; it takes 36 characters of a digest, and any text
    as source."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = record.data
    source = json.dumps({"kind": data.source, "sha256": data.digest})
    profile = json.dumps({"images": data.size, "duplicates": data.duplicates})
    tag = InputTag("mlflow.data.context", f"N={record.spec.n} seed={record.spec.seed}")
    return DatasetInput(
        Dataset(data.source, data.digest[:32], "emm", source, profile=profile), [tag]
    )


def distances_table(found: Neighbours, memorized: NDArray[np.bool_]) -> str:
    """A line of CSV for each sample."""
    text = io.StringIO()
    columns = np.column_stack([found.d1, found.d2, found.i1, found.i2, memorized])
    np.savetxt(
        text,
        columns,
        ["%.9g", "%.9g", "%d", "%d", "%d"],
        ",",
        header="d1,d2,i1,i2,memorized",
        comments="",
    )
    return text.getvalue()


def _said(text: str) -> str:
    """A text of the user's in Markdown; what follows it must fit the description of a run as
    well."""
    return markdown(cut(text, 300))


def sweep_note(space: SearchSpace) -> str:
    """Markdown for the page of the sweep run."""
    search = space.search
    return (
        f"**{_said(space.question)}**\n\n"
        f"Expected: {_said(space.expectation)}. Source: {_said(space.source)}.\n\n"
        f"EMM is the largest N of which a configuration memorizes a share of {search.target:g}, sought from "
        f"{search.n_low:,} to {search.n_high:,}. Below this run are the *studies*, one of each configuration, and below these "
        "their *trials*. `emm.verdict`: found, below_range, above_range, unresolved or searching; emm_low and emm_high: 95 % "
        "interval; slope: fall of logit R_mem per e-fold of N at the EMM.\n\n"
        "System metrics are those of the node that the driver runs on; what a trial ran on is in its tags."
    )


def study_note(study: StudySummary) -> str:
    """Markdown for the page of a study run."""
    options, verdict = study.options, study.verdict
    return (
        f"**{_said(study.name)}**: {verdict.state}, "
        f"{markdown(belief_text(verdict, options))} ({_said(verdict.reason)}).\n\n"
        f"EMM is the largest N of which it memorizes a share of {options.target:g}. Each point is a trial: one training at one "
        "N, with the sampling error of its R_mem; the band is where 95 % of further trials are expected."
    )


def gallery_note(run_id: str, pairs: bool) -> str:
    """Markdown for the page of a trial run."""
    nearest = (
        ", each with its nearest and second nearest training image and the distances to them"
        if pairs
        else ""
    )
    return f"The first generated images{nearest}; memorized ones are framed.\n\n{picture(run_id, 'samples.png')}"


def picture(run_id: str, path: str) -> str:
    """Markdown that shows an artifact of a run."""
    return f"![{path}](get-artifact?path={quote(path, safe='')}&run_uuid={run_id})"
