"""The MLflow UI: a server on loopback for a local sweep, and what it shows at first."""

import io
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import ProxyHandler, Request, build_opener, urlopen

import numpy as np
from numpy.typing import NDArray

from search_spaces.space import SearchSpace
from sweep.escapes import cut, markdown, mlflow_key, say, visible
from sweep.summary import StudySummary, read_space
from sweep.wording import belief_text
from trainables.config import IGNORED, Data, key_of
from trainables.errors import UserError
from trainables.memorization import Neighbours, r_mem_interval
from trainables.result import MEASURES, FinalMeasurement, Result, Snapshot, TrialRecord
from trainables.storage import Storage, redacted

EXPERIMENT = "emm-sweep"
DATABASE, ARTIFACTS = "mlflow.db", "artifacts"  # in the directory of a local sweep
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # by default a call on a dead server takes four minutes
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its seven processes outlive the server
}
VIEW = "mlflow.sharedViewState."  # and a key: the tag of an experiment in which MLflow keeps a view of its page of runs
STUDY_COLUMNS = ("emm", "emm_low", "emm_high", "slope", "images_trained", "seconds")
TRIAL_COLUMNS = ("r_mem", "r_mem_low", "r_mem_high", "median_d1", "images_trained", "seconds")
MAX_COMPARED = 100  # runs on a page, beyond which MLflow becomes slow
MAX_VIEW = 5_000  # characters of a tag of an experiment; newer servers take more
OTHER_STORES = ("postgresql", "mysql", "mssql", "databricks")  # and what MLflow's plugins add
REACH_SECONDS = 3.0
START_SECONDS, STOP_SECONDS = 120.0, 10.0
TRIALS = "-trials"  # after the key of a sweep: the key of the view of its trials


def prepare_environment() -> None:
    """What MLflow reads when it is imported and when it is called; what the user has set wins."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def sqlite_url(path: Path) -> str:
    """SQLAlchemy's URL of a database in a file, whatever its name. Raises UserError for a name that this SQLAlchemy can't
    express: before 2.1 one with a question mark."""
    from sqlalchemy import URL, make_url

    url = URL.create("sqlite", database=str(path.absolute())).render_as_string(hide_password=False)
    if make_url(url).database != str(path.absolute()):
        raise UserError(f"{path.parent}: a database can't be opened there; choose a directory without ? in its path")
    # of what follows sqlite:/// MLflow makes the parents, without unquoting them
    return url.replace("sqlite:", "sqlite+pysqlite:", 1) if "%" in url else url


def local_tracking(directory: Path) -> tuple[str, str]:
    """Tracking URI and place of the artifacts of a local sweep."""
    artifacts = directory.absolute() / ARTIFACTS
    # MLflow unquotes paths as well, so that one with a % must be a URI; others stay as earlier versions wrote them
    return sqlite_url(directory / DATABASE), artifacts.as_uri() if "%" in str(artifacts) else str(artifacts)


def check_tracking(uri: str) -> None:
    """Raises UserError if MLflow can't know what a `--tracking-uri` means."""
    scheme, _, rest = uri.partition("://")
    kind = scheme.lower().partition("+")[0]  # mysql+pymysql
    if kind in ("http", "https"):
        is_whole = _names_a_host(uri)
    elif kind == "sqlite":
        is_whole = rest.startswith("/") and len(rest) > 1
    else:
        plugins = [one.name for one in entry_points(group="mlflow.tracking_store")]
        is_whole = uri == "databricks" or (bool(rest) and kind in (*OTHER_STORES, *plugins))
    if not is_whole:
        raise UserError(f"--tracking-uri {redacted(uri)}: give http://HOST:PORT of a server, or sqlite:///FILE")


def _names_a_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        return False


def why_unreachable(uri: str) -> str | None:
    """Asks a server whether it is there, for REACH_SECONDS; None if it answers, or can't be asked so.

    Any answer will do: a server may want credentials that only MLflow's client knows.
    """
    parts = urlsplit(uri)
    if parts.scheme == "sqlite":
        directory = Path(parts.path[1:]).parent
        return None if directory.is_dir() else f"there is no directory {directory}"
    if parts.scheme not in ("http", "https"):
        return None
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
    try:
        urlopen(f"{address.rstrip('/')}/health", timeout=REACH_SECONDS).close()
    except HTTPError as error:
        return None if error.code < 500 else f"it answers {error.code} {error.reason}"
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        is_tls = isinstance(reason, ssl.SSLError)  # MLflow's client may be told to accept it
        return None if is_tls else one_line(reason)
    return None


def sweep_key(space: SearchSpace, storage: Storage) -> str:
    """Identity of a sweep on an MLflow server; credentials in the URL of its storage are no part of it."""
    return key_of({"space": space.name, "storage": storage.identity})


def views(space: SearchSpace, key: str) -> dict[str, str]:
    """Tags of the experiment that keep two views of the sweep `key`: its studies and its trials, as tables and as charts.

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
    against = [_chart("SCATTER", xaxis=_axis("PARAM", factor), yaxis=_axis("METRIC", "emm")) for factor in factors]
    studies = _view(key, "study", [*_params(factors), "tags.`emm.verdict`", *_metrics(STUDY_COLUMNS)], [*against, *bars])
    unsmoothed = {"useGlobalLineSmoothing": False, "lineSmoothness": 0, "useGlobalXaxisKey": False, "xAxisKey": "step"}
    line = _chart("LINE", metricKey="r_mem_snapshot", selectedMetricKeys=["r_mem_snapshot"], **unsmoothed)
    point = _chart("SCATTER", xaxis=_axis("PARAM", "n"), yaxis=_axis("METRIC", "r_mem"))
    trials = _view(key, "trial", [*_params([*factors, "n", "seed"]), *_metrics(TRIAL_COLUMNS)], [line, point])
    return {VIEW + key: json.dumps(studies), VIEW + key + TRIALS: json.dumps(trials)}


def _view(key: str, level: str, columns: Sequence[str], charts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "searchFilter": f"tags.`emm.level` = '{level}' and tags.`emm.sweep` = '{key}'",
        "orderByKey": "attributes.`start_time`",
        "orderByAsc": True,
        "selectedColumns": columns,
        "runsHiddenMode": "SHOWALL",  # in charts; by default the first ten
        "compareRunCharts": charts,
        "compareRunSections": [{"uuid": "emm", "name": "EMM", "display": True, "isReordered": False}],
    }


def _chart(kind: str, **fields: Any) -> dict[str, Any]:
    what = " ".join(one["key"] for one in fields.values() if isinstance(one, dict)) or fields["metricKey"]
    common = {"metricSectionId": "emm", "runsCountToCompare": 100, "deleted": False, "isGenerated": False}
    return {"type": kind, "uuid": f"emm-{kind} {what}", **common, **fields}


def _axis(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "key": name}


def _params(names: Sequence[str]) -> list[str]:
    return [f"params.`{name}`" for name in names]


def _metrics(names: Sequence[str]) -> list[str]:
    return [f"metrics.`{name}`" for name in names]


def urls(server: str, key: str) -> dict[str, str]:
    """Where a running `server` shows what. Raises UserError if it lacks the sweep, OSError if it does not answer."""
    try:
        experiment = _ask(f"{server}/api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(EXPERIMENT)}")["experiment"]
    except HTTPError:
        experiment = {}
    if VIEW + key not in [tag["key"] for tag in experiment.get("tags", [])]:
        raise UserError("this MLflow lacks the sweep; `emm sync DIR` writes it (if DIR was moved, delete its mlflow.db first)")
    number = experiment["experiment_id"]
    wanted = {"experiment_ids": [number], "filter": f"tags.`emm.level` = 'study' and tags.`emm.sweep` = '{key}'"}
    ids = [run["info"]["run_id"] for run in _ask(f"{server}/api/2.0/mlflow/runs/search", wanted).get("runs", [])]
    runs = f"{server}/#/experiments/{number}/runs?workflowType=machine_learning&viewStateShareKey={key}"
    chosen = quote(json.dumps(ids[:MAX_COMPARED])), quote(json.dumps([number]))
    return {
        "studies": runs,
        "charts": f"{runs}&compareRunsMode=CHART",
        "compare": f"{server}/#/compare-runs?runs={chosen[0]}&experiments={chosen[1]}&workflowType=machine_learning",
        "trials": f"{runs}{TRIALS}&compareRunsMode=CHART",
    }


def _ask(address: str, content: Any = None) -> Any:
    """A server's answer as JSON; without a proxy, which would be asked for loopback too."""
    body = None if content is None else json.dumps(content).encode()
    request = Request(address, body, {} if body is None else {"Content-Type": "application/json"})
    with build_opener(ProxyHandler({})).open(request, timeout=10) as answer:
        return json.load(answer)


def study_numbers(study: StudySummary) -> dict[str, float | None]:
    """What studies are compared by; of the belief five digits, which is more than is known and fits a column."""
    known = {name: getattr(study.verdict, name) for name in ("emm", "emm_low", "emm_high", "sd")}
    return {
        **{name: None if value is None else float(f"{value:.5g}") for name, value in known.items()},
        "noisy_copier": study.scale.noisy_copier,
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
        names = ("r_mem_last", "r_mem_half", "n_samples", "n_memorized", *MEASURES)
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
    numbers["progress"] = snapshot.images_trained / record.spec.configuration.trainer.train_images(record.spec.n)
    if snapshot.seconds > 0:
        numbers["images_per_second"] = snapshot.images_trained / snapshot.seconds
    return numbers


def parameters(record: TrialRecord) -> dict[str, str]:
    """All that describes a trial, by dotted path of the field, but where its data lie."""
    spec = record.spec
    tree = {**spec.configuration.model_dump(mode="json"), "measurement": spec.measurement.model_dump(mode="json")}
    tree["data"] = without_places(spec.configuration.data)
    fields = {f"{section}.{name}": value for section, group in tree.items() for name, value in group.items()}
    return texts({"configuration": spec.name, "n": spec.n, "seed": spec.seed, **fields})


def without_places(data: Data) -> dict[str, Any]:
    """The fields of a source that say what is learned; directories of the user's are not among them."""
    places = {name for name, field in type(data).model_fields.items() if field.json_schema_extra == IGNORED}
    fields = data.model_dump(mode="json", exclude=places)
    if data.mix is not None:
        fields["mix"] = {"share": data.mix.share, "data": without_places(data.mix.data)}
    return fields


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def data_set(record: TrialRecord) -> Any:
    """MLflow's entry of the data behind a trial; it takes 36 characters of a digest, and any text as source."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = record.data
    source = json.dumps({"kind": data.source, "sha256": data.digest})
    profile = json.dumps({"images": data.size, "duplicates": data.duplicates})
    tag = InputTag("mlflow.data.context", f"N={record.spec.n} seed={record.spec.seed}")
    return DatasetInput(Dataset(data.source, data.digest[:32], "emm", source, profile=profile), [tag])


def distances_table(found: Neighbours, memorized: NDArray[np.bool_]) -> str:
    """A line of CSV for each sample."""
    text = io.StringIO()
    columns = np.column_stack([found.d1, found.d2, found.i1, found.i2, memorized])
    np.savetxt(text, columns, ["%.9g", "%.9g", "%d", "%d", "%d"], ",", header="d1,d2,i1,i2,memorized", comments="")
    return text.getvalue()


def one_line(error: object, uri: str = "") -> str:
    """What an error says, without the user and password that are part of `uri`."""
    text = " ".join(str(error).split()) or type(error).__name__
    user, at, _ = urlsplit(uri).netloc.rpartition("@")
    return visible(text.replace(f"{user}@", "…@") if at else text)[:300]


def _said(text: str) -> str:
    """A text of the user's in Markdown; what follows it must fit the description of a run as well."""
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
    nearest = ", each with its nearest and second nearest training image and the distances to them" if pairs else ""
    return f"The first generated images{nearest}; memorized ones are framed.\n\n{picture(run_id, 'samples.png')}"


def picture(run_id: str, path: str) -> str:
    """Markdown that shows an artifact of a run."""
    return f"![{path}](get-artifact?path={quote(path, safe='')}&run_uuid={run_id})"


def serve(storage: Storage, directory: Path, port: int | None = None) -> None:
    """Shows the sweep, whose database is in `directory`, until Ctrl-C. Raises UserError if there is none, or no port."""
    key = sweep_key(read_space(storage), storage)
    signal.signal(signal.SIGTERM, _interrupt)  # so that the server never outlives us
    with suppress(KeyboardInterrupt), server(directory, port) as address:
        for what, url in urls(address, key).items():
            say(f"{what:<8} {url}")
        say("Ctrl-C ends it", flush=True)
        signal.pause()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def server(directory: Path, port: int | None = None) -> Iterator[str]:
    """An MLflow server on loopback for `directory`'s database; gives its address, and ends all its processes."""
    if not (directory / DATABASE).exists():
        raise UserError(f"{directory / DATABASE} does not exist; `emm run` or `emm sync {directory}` makes it")
    uri, artifacts = local_tracking(directory)
    port = _usable(port)
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", uri, "--artifacts-destination", artifacts]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, env={**os.environ, **ENVIRONMENT}, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait(process, f"{address}/health", output)
            yield address
        finally:
            _end_group(process)


def _usable(port: int | None) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port or 0))
        except (OSError, OverflowError) as error:
            raise UserError(f"--port {port}: can't be used ({error}); leave it out, and a free one is chosen") from None
        return int(probe.getsockname()[1])


def _wait(process: "subprocess.Popen[bytes]", health: str, output: IO[bytes]) -> None:
    """Until the server answers; without a proxy, which would be asked for loopback too."""
    opener, deadline = build_opener(ProxyHandler({})), time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), opener.open(health, timeout=5):
            return
        time.sleep(0.2)
    output.seek(0)
    raise RuntimeError(f"the MLflow server did not start:\n{output.read().decode(errors='replace')[-2000:]}")


def _end_group(process: "subprocess.Popen[Any]") -> None:
    with suppress(ProcessLookupError):  # none is left
        for number in (signal.SIGTERM, signal.SIGKILL):
            os.killpg(process.pid, number)
            deadline = time.monotonic() + STOP_SECONDS
            while time.monotonic() < deadline:
                process.poll()  # reaps it: until then it counts as a member
                os.killpg(process.pid, 0)
                time.sleep(0.05)
