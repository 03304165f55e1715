"""What MLflow is told of sweep, studies and trials: numbers, parameters, notes, and the pages of
their runs."""

import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.space import SearchSpace
from sweep.analysis.onset import NUMBERS as ONSETS, onset_numbers
from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary
from sweep.report.drawn import Drawing, rendered
from sweep.report.figures import overview_drawings, study_drawings
from sweep.report.gallery import Pictures, gallery_drawing, measured
from sweep.search.words import belief_text
from sweep.store.files import Invocation
from sweep.tracking.escapes import markdown
from sweep.tracking.page import (
    KEY,
    MAX_NAME,
    NOTE,
    RUN_NAME,
    SWEEP_KEY,
    Attachment,
    DataSource,
    Head,
    Mark,
    Page,
    Point,
    Status,
)
from sweep.tracking.place import study_key, sweep_key, trial_key
from trainables.config.data import without_places
from trainables.config.identity import key_of
from trainables.errors import DamagedFile
from trainables.measure.measures import NUMBERS
from trainables.measure.r_mem import Neighbours, r_mem_interval
from trainables.storage import Storage
from trainables.text import MOST_NAMED, cut
from trainables.trial.result import (
    SNAPSHOT_MEASURES,
    FinalMeasurement,
    Result,
    Snapshot,
    TrialRecord,
)

DPI = 120  # of the gallery: a wider one would push MLflow's columns aside

HARDWARE = ("device", "name", "threads", "host")  # tags of a trial: what it ran on

# tags: which measurement of a trial is written, as its last; of what the figures are
WRITTEN, FIGURES = "emm.written", "emm.figures"

ENDED: tuple[Status, ...] = ("FINISHED", "FAILED")


def study_numbers(study: StudySummary) -> dict[str, float | None]:
    """What studies are compared by; of the belief five digits, which is more than is known and fits
    a column."""
    known = {name: getattr(study.verdict, name) for name in ("emm", "emm_low", "emm_high", "sd")}
    power = study.growth[0].exponent
    return {
        **{name: None if value is None else float(f"{value:.5g}") for name, value in known.items()},
        "noisy_copier": study.scale.means["noisy_copier"],
        "isolation_rho": None if study.isolation is None else study.isolation.rho,
        "slope": None if study.belief is None else float(f"{study.belief.slope:.3g}"),
        "onset_exponent": None if power is None else float(f"{power.value:.3g}"),
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
        numbers |= {name: getattr(result, name) for name in names} | _onsets(result)
    return {**numbers, "images_trained": result.images_trained, "seconds": result.seconds}


def _onsets(result: Result) -> dict[str, float | None]:
    """Those that are known; a bound would be taken for one."""
    known: dict[str, Any] = dict(onset_numbers(result))
    return {
        name: known[name] if known[side] == "at" else None
        for side, *names in ONSETS.values()
        for name in names
    }


def final_numbers(final: FinalMeasurement) -> dict[str, float | None]:
    low, high = r_mem_interval(final.n_memorized, final.n_samples)
    ends = {"r_mem_final_low": low, "r_mem_final_high": high}
    return {"r_mem_final": final.r_mem, **ends, "n_samples_final": final.n_samples}


def curve_numbers(snapshot: Snapshot, record: TrialRecord) -> dict[str, float]:
    numbers = {"r_mem_snapshot": snapshot.r_mem, "median_d1_snapshot": snapshot.median_d1}
    optional = {name: getattr(snapshot, name) for name in ("loss", *SNAPSHOT_MEASURES)}
    numbers |= {name: value for name, value in optional.items() if value is not None}
    total = record.spec.configuration.trainer.train_images(record.spec.n)
    numbers["progress"] = snapshot.images_trained / total
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


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
    }


def data_source(record: TrialRecord) -> DataSource:
    """The data behind a trial; MLflow takes 36 characters of a digest, and any text as source."""
    data = record.data
    return DataSource(
        name=data.source,
        digest=data.digest[:32],
        source=json.dumps({"kind": data.source, "sha256": data.digest}),
        profile=json.dumps({"images": data.size, "duplicates": data.duplicates}),
        context=record.spec.title,
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
    texts = {"Expected": space.expectation, "Source": space.source}
    parts = [
        f"**{_said(space.question or space.name)}**",
        " ".join(f"{name}: {_said(text)}." for name, text in texts.items() if text),
        f"EMM is the largest N of which a configuration memorizes a share of {search.target:g}, "
        f"sought from {search.n_low:,} to {search.n_high:,}. Below this run are the *studies*, one of "
        "each configuration, and below these their *trials*. `emm.verdict`: found, below_range, "
        "above_range, unresolved or searching; emm_low and emm_high: 95 % interval; slope: fall of "
        "logit R_mem per e-fold of N at the EMM.",
        "System metrics are those of the node that the driver runs on; what a trial ran on is in "
        "its tags.",
    ]
    return "\n\n".join(filter(None, parts))


def answer_note(summary: SweepSummary) -> str:
    """Markdown for the top of a page: the EMMs in a line, which is all that is shown of it before it
    is opened."""
    told = [
        f"**{_said(study.name)}**: {markdown(belief_text(study.verdict, study.options))}"
        for study in summary.studies[:MOST_NAMED]
    ]
    more = len(summary.studies) - len(told)
    if more:
        told.append(f"and {more} more")
    return " · ".join(told)


def study_note(study: StudySummary) -> str:
    """Markdown for the page of a study run."""
    options, verdict = study.options, study.verdict
    return (
        f"**{_said(study.name)}**: {verdict.state}, "
        f"{markdown(belief_text(verdict, options))} ({_said(verdict.reason)}).\n\n"
        f"EMM is the largest N of which it memorizes a share of {options.target:g}. Each point is "
        "a trial: one training at one "
        "N, with the sampling error of its R_mem; the band is where 95 % of further trials are "
        "expected."
    )


def gallery_note(pairs: bool) -> str:
    """Markdown for the page of a trial run."""
    nearest = (
        ", each with its nearest and second nearest training image and the distances to them"
        if pairs
        else ""
    )
    return f"The first generated images{nearest}; memorized ones are framed."


@dataclass(frozen=True)
class Content:
    """The pages of the runs of a sweep; none of this asks MLflow.

    `keys`: identities of the configurations by name, as `read_keys` gives them; `run`: the last of a
    driver, if it is known.
    """

    space: SearchSpace
    storage: Storage
    keys: Mapping[str, str]
    pictures: Pictures
    run: Invocation | None = None

    @cached_property
    def key(self) -> str:
        return sweep_key(self.space, self.storage)

    @cached_property
    def factors(self) -> dict[str, dict[str, str]]:
        return {named.name: texts(named.factors) for named in self.space.configurations}

    # ------------------------------------------------------------ which runs there are

    def sweep_head(self) -> Head:
        opening = {
            **self._opening("sweep", self.key),
            "emm.space": self.space.name,
            "emm.storage": self.storage.shown,
            NOTE: sweep_note(self.space),
        }
        return Head((self.key,), self.space.name, opening, tags=self._source())

    def _source(self) -> dict[str, str]:
        """What MLflow shows as the source of a run, and the code that it was."""
        if self.run is None:
            return {}
        code = {"emm": self.run.ours, "emm.yours": self.run.yours}
        tags = {
            f"{owner}.{name}": str(value)
            for owner, known in code.items()
            for name, value in known.items()
            if value is not None
        }
        tags |= {"mlflow.source.name": self.run.shown, "mlflow.source.type": "LOCAL"}
        tags |= {f"emm.package.{name}": number for name, number in self.run.packages.items()}
        commit = self.run.ours.get("commit")
        return tags | ({"mlflow.source.git.commit": str(commit)} if commit else {})

    def study_head(self, name: str) -> Head:
        """The run of the configuration, under whatever name it was made; parameters then keep the
        name of that time."""
        names = [name, *(other for other, key in self.keys.items() if key == self.keys.get(name))]
        keys = tuple(study_key(self.key, other) for other in names)
        return Head(
            keys,
            name,
            opening={**self._opening("study", keys[0]), "emm.study": name},
            parent=self.sweep_head(),
            params={"configuration": name, **self.factors[name]},
            tags={**self._source(), "emm.study": name, RUN_NAME: name},
        )

    def trial_head(self, record: TrialRecord, began: float | None = None) -> Head:
        spec = record.spec
        key = trial_key(self.key, record.training_key)
        end = f" {spec.title}"
        name = f"{cut(spec.name, MAX_NAME - len(end))}{end}"
        tags = {"emm.study": spec.name, "emm.training_key": record.training_key}
        return Head(
            (key,),
            name,
            opening={**self._opening("trial", key), **tags},
            parent=self.study_head(spec.name),
            params={**self.factors[spec.name], **parameters(record)},
            tags={**tags, RUN_NAME: name},
            data=data_source(record),
            began=began,
        )

    def _opening(self, level: str, key: str) -> dict[str, str]:
        return {"emm.level": level, KEY: key, SWEEP_KEY: self.key}

    # ------------------------------------------------------------ what they hold

    def everything(
        self, summary: SweepSummary, live: bool
    ) -> Iterator[tuple[str, Callable[[], list[Page]]]]:
        """What is written apart, by name: studies, their trials, the sweep. `live`: a driver is at
        work; without one, what is not finished is "killed"."""
        results = [result for study in summary.studies for result in study.results]
        began = replace(self.sweep_head(), began=_first(results))
        yield f"{summary.name} (its run)", lambda: [Page(began)]  # before those below it
        for study in summary.studies:
            yield study.name, partial(self.study, study, live)
            for result in study.results:
                yield _title(result), partial(self._measured_trial, result, study)
            for record in study.running:
                yield _title(record), partial(self._unfinished_trial, record, live)
        yield summary.name, partial(self.sweep, summary, live)

    def sweep(self, summary: SweepSummary, live: bool) -> list[Page]:
        head = self.sweep_head()
        results = [result for study in summary.studies for result in study.results]
        decided = sum(study.verdict.state != "searching" for study in summary.studies)
        metrics = {
            "studies": len(summary.studies),
            "studies_decided": decided,
            "images_trained": sum(study.images_trained for study in summary.studies),
        }
        status = _status(decided == len(summary.studies), live)
        page = Page(head, metrics=metrics, status=status, ended=None if live else _last(results))
        if live:
            return [page]
        figures, note = overview_drawings(summary), sweep_note(self.space)
        return [page, _drawing(head, summary.as_json(), figures, note)]

    def study(self, study: StudySummary, live: bool) -> list[Page]:
        head = replace(self.study_head(study.name), began=_first(study.results))
        verdict = study.verdict
        is_decided = verdict.state != "searching"
        page = Page(
            head,
            metrics=study_numbers(study),
            tags={
                "emm.verdict": verdict.state,
                "emm.reason": verdict.reason,
                "emm.target": str(study.options.target),
            },
            status=_status(is_decided, live),
            step=verdict.n_trials,
            ended=None if live else _last(study.results),
        )
        if not study.complete or (live and not is_decided):
            return [page]
        figures = study_drawings(study, self.space.search)
        return [page, _drawing(head, study.as_json(), figures, study_note(study))]

    def trial_status(self, record: TrialRecord, status: Status) -> Page:
        """Of a trial that is not finished; one that is stays as it is."""
        mark = Mark(WRITTEN, record.measurement_key, ENDED)
        return Page(self.trial_head(record), status=status, mark=mark)

    def trial_curve(self, record: TrialRecord, snapshot: Snapshot) -> Page:
        """A snapshot of this moment."""
        return Page(self.trial_head(record), curve=[_point(snapshot, record)])

    def trial(self, result: Result) -> Page:
        """A trial that is finished. One that failed may be tried again, so its mark holds for that
        failure alone."""
        began, end = _time(result) or (time.time() - result.seconds, time.time())
        hardware = {name: result.hardware[name] for name in HARDWARE if name in result.hardware}
        code = {name: str(value) for name, value in result.made_by.items() if value is not None}
        failure = f"failure of {result.finished_at}"
        written = result.measurement_key if result.complete else failure
        return Page(
            self.trial_head(result, began),
            metrics=result_numbers(result),
            curve=[_point(snapshot, result, began) for snapshot in result.curve],
            attachment=partial(self._measurement, result) if result.complete else None,
            last={
                **{f"emm.{name}": value for name, value in (hardware | code).items()},
                "emm.cause": result.cause,
                WRITTEN: written,
            },
            status="FINISHED" if result.complete else "FAILED",
            mark=Mark(WRITTEN, written, ENDED),
            at=end,
        )

    def _measured_trial(self, result: Result, study: StudySummary) -> list[Page]:
        page = self.trial(result)
        final = study.finals.get(result.training_key)
        if final is None:
            return [page]
        return [page, Page(page.head, metrics=final_numbers(final))]

    def _unfinished_trial(self, record: TrialRecord, live: bool) -> list[Page]:
        return [self.trial_status(record, _status(False, live))]

    def _measurement(self, result: Result) -> Attachment | None:
        """Distances and neighbours (positions in the whole data set) of every sample, and the
        pictures that are allowed. Raises DamagedFile."""
        kept = measured(self.storage, result)
        if kept is None:
            return None
        files = {"distances.csv": distances_table(kept.found, kept.memorized).encode()}
        gallery = self.pictures.of(result, kept)
        if gallery is None:
            return Attachment(files)
        files["samples.png"], _ = rendered(gallery_drawing(result, gallery, DPI, has_pdf=False))
        return Attachment(files, gallery_note(gallery.training is not None))

    def gallery(self, result: Result) -> Drawing | None:
        """What will be drawn for the page of a trial, if it is known before it is written."""
        try:
            gallery = self.pictures.of(result)
        except (DamagedFile, OSError):  # which is told when the page is written
            return None
        return None if gallery is None else gallery_drawing(result, gallery, DPI, has_pdf=False)


def _time(result: Result) -> tuple[float, float] | None:
    """When it began and ended, in seconds since the epoch, as if it had never been interrupted; an
    older version kept no time."""
    if not result.finished_at:
        return None
    end = datetime.fromisoformat(result.finished_at).timestamp()
    return end - result.seconds, end


def _first(results: Sequence[Result]) -> float | None:
    """When the first of them began."""
    return min((time[0] for time in map(_time, results) if time), default=None)


def _last(results: Sequence[Result]) -> float | None:
    """When the last of them ended."""
    return max((time[1] for time in map(_time, results) if time), default=None)


def _title(record: TrialRecord) -> str:
    return f"{record.spec.name} {record.spec.title}"


def _status(is_done: bool, live: bool) -> Status:
    if is_done:
        return "FINISHED"
    return "RUNNING" if live else "KILLED"


def _point(snapshot: Snapshot, record: TrialRecord, began: float | None = None) -> Point:
    at = None if began is None else began + snapshot.seconds
    return Point(snapshot.images_trained, curve_numbers(snapshot, record), at)


def _drawing(
    head: Head, content: Mapping[str, Any], figures: Mapping[str, Drawing], note: str
) -> Page:
    """Figures of a run and, with them, its description; they are made again only if their `content`
    is another."""
    fingerprint = key_of(content)
    return Page(
        head,
        attachment=partial(_drawn, figures, note),
        drawings=tuple(figures.values()),
        last={FIGURES: fingerprint},
        mark=Mark(FIGURES, fingerprint),
    )


def _drawn(figures: Mapping[str, Drawing], note: str) -> Attachment:
    files: dict[str, bytes] = {}
    for name, drawing in figures.items():
        png, pdf = rendered(drawing)
        files |= {f"figures/{name}.png": png, f"figures/{name}.pdf": pdf}
    return Attachment(files, note)
