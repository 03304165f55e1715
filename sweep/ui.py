"""The MLflow UI: a server on loopback for a local sweep, and what it shows at first."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import ProxyHandler, build_opener

import numpy as np
from numpy.typing import NDArray

from search_spaces.space import SearchSpace
from sweep.summary import StudySummary, read_space
from trainables.config import key_of
from trainables.errors import UserError
from trainables.memorization import Neighbours, r_mem_interval
from trainables.result import MEASURES, Result, Snapshot, TrialRecord
from trainables.storage import Storage

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
START_SECONDS, STOP_SECONDS = 120.0, 10.0
N_PICTURES = 64
MIN_PIXELS, GAP, FRAME = 48, 3, 3  # side of a picture, space around it, width of its frame
MEMORIZED = (230, 159, 0)  # colour of the frame

UInt8 = NDArray[np.uint8]


def prepare_environment() -> None:
    """What MLflow reads when it is imported and when it is called; what the user has set wins."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def local_tracking(directory: Path) -> tuple[str, str]:
    """Tracking URI and place of the artifacts of a local sweep."""
    return f"sqlite:///{directory.absolute() / DATABASE}", str(directory.absolute() / ARTIFACTS)


def sweep_key(space: SearchSpace, storage: Storage) -> str:
    """Identity of a sweep on an MLflow server; credentials in the URL of its storage are no part of it."""
    return key_of({"space": space.name, "storage": storage.root if storage.is_local else storage.shown})


def studies_table(space: SearchSpace, key: str) -> str:
    """The studies of the sweep `key` as a table, for the tag `VIEW` + `key` of the experiment."""
    factors = [f"params.`{path.rsplit('.', 1)[-1]}`" for path in space.vary]
    metrics = [f"metrics.`{name}`" for name in ("emm", "emm_low", "emm_high", "sd", "n_trials", "images_trained")]
    view = {
        "searchFilter": f"tags.`emm.level` = 'study' and tags.`emm.sweep` = '{key}'",
        "orderByKey": "attributes.`start_time`",
        "orderByAsc": True,
        "selectedColumns": [*factors, "tags.`emm.verdict`", *metrics],
    }
    return json.dumps(view)


def studies_url(server: str, key: str) -> str:
    """Where a running `server` shows that table. Raises UserError if the sweep is not in it, OSError if it does not answer."""
    address = f"{server}/api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(EXPERIMENT)}"
    try:
        with build_opener(ProxyHandler({})).open(address, timeout=10) as answer:
            experiment = json.load(answer)["experiment"]
    except HTTPError:
        experiment = {}
    if VIEW + key not in [tag["key"] for tag in experiment.get("tags", [])]:
        raise UserError("this MLflow lacks the sweep; `emm sync DIR` writes it (if DIR was moved, delete its mlflow.db first)")
    return f"{server}/#/experiments/{experiment['experiment_id']}/runs?workflowType=machine_learning&viewStateShareKey={key}"


def study_numbers(study: StudySummary) -> dict[str, float | None]:
    """What studies are compared by; of the belief five digits, which is more than is known and fits a column."""
    known = {name: getattr(study.verdict, name) for name in ("emm", "emm_low", "emm_high", "sd")}
    return {
        **{name: None if value is None else float(f"{value:.5g}") for name, value in known.items()},
        "n_trials": study.verdict.n_trials,
        "images_trained": study.images_trained,
        "seconds": sum(result.seconds for result in study.results),
    }


def result_numbers(result: Result) -> dict[str, float | None]:
    numbers: dict[str, float | None] = {}
    if result.complete:
        low, high = r_mem_interval(result.n_memorized, result.n_samples)
        numbers = {"r_mem": result.r_mem, "r_mem_low": low, "r_mem_high": high}
        names = ("r_mem_last", "r_mem_half", "n_samples", "n_memorized", *MEASURES)
        numbers |= {name: getattr(result, name) for name in names}
    return {**numbers, "images_trained": result.images_trained, "seconds": result.seconds}


def curve_numbers(snapshot: Snapshot, record: TrialRecord) -> dict[str, float]:
    numbers = {"r_mem_snapshot": snapshot.r_mem, "median_d1_snapshot": snapshot.median_d1}
    optional = {"loss": snapshot.loss, "loss_gap": snapshot.loss_gap}
    numbers |= {name: value for name, value in optional.items() if value is not None}
    numbers["progress"] = snapshot.images_trained / record.spec.configuration.trainer.train_images(record.spec.n)
    if snapshot.seconds > 0:
        numbers["images_per_second"] = snapshot.images_trained / snapshot.seconds
    return numbers


def parameters(record: TrialRecord) -> dict[str, str]:
    """All that describes a trial, by dotted path of the field."""
    spec = record.spec
    tree = {**spec.configuration.model_dump(mode="json"), "measurement": spec.measurement.model_dump(mode="json")}
    fields = {f"{section}.{name}": value for section, group in tree.items() for name, value in group.items()}
    return texts({"configuration": spec.name, "n": spec.n, "seed": spec.seed, **fields})


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


def one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


def sweep_note(space: SearchSpace) -> str:
    note = f"**{space.question}**\n\nExpected: {space.expectation}. Source: {space.source}.\n\n"
    return note + f"N from {space.search.n_low} to {space.search.n_high}, target R_mem {space.search.target}."


def gallery_note(run_id: str, pairs: bool) -> str:
    shown = "First samples, each above its nearest training image" if pairs else "First samples"
    return f"{shown}; memorized ones are framed.\n\n![samples](get-artifact?path=samples.png&run_uuid={run_id})"


def gallery(samples: UInt8, found: Neighbours, memorized: NDArray[np.bool_], training: UInt8 | None) -> UInt8:
    """The first samples as drawn, ordered by d1 / d2; below each its nearest `training` image, if given."""
    order = np.argsort(found.d1[:N_PICTURES] / np.maximum(found.d2[:N_PICTURES], 1e-9), kind="stable")
    return make_grid(samples[order], None if training is None else training[found.i1[order]], memorized[order])


def make_grid(generated: UInt8, nearest: UInt8 | None, memorized: NDArray[np.bool_], columns: int = 16) -> UInt8:
    """Generated images [n, C, R, R], each above its nearest training image if there is one -> [height, width, 3].

    Small images are enlarged by a whole factor; memorized ones ([n] bool) have a frame.
    """
    scale = max(1, -(-MIN_PIXELS // generated.shape[-1]))
    rows = [images.repeat(scale, 2).repeat(scale, 3) for images in (generated, nearest) if images is not None]
    strip = np.full((*rows[0].shape[:2], GAP, rows[0].shape[3]), 255, np.uint8)
    pictures = rows[0] if nearest is None else np.concatenate([rows[0], strip, rows[1]], axis=2)
    n, _, height, width = pictures.shape
    border = GAP + FRAME
    tiles = np.full((-(-n // columns) * columns, height + 2 * border, width + 2 * border, 3), 255, np.uint8)
    tiles[:n][memorized, GAP:-GAP, GAP:-GAP] = MEMORIZED
    tiles[:n, border:-border, border:-border] = pictures.transpose(0, 2, 3, 1)  # grey: one channel for all three
    lines = tiles.reshape(-1, columns, *tiles.shape[1:]).swapaxes(1, 2)
    return lines.reshape(-1, columns * tiles.shape[2], 3)


def serve(storage: Storage, directory: Path, port: int | None = None) -> None:
    """Shows the sweep, whose database is in `directory`, until Ctrl-C. Raises UserError if there is none, or no port."""
    key = sweep_key(read_space(storage), storage)
    signal.signal(signal.SIGTERM, _interrupt)  # so that the server never outlives us
    with suppress(KeyboardInterrupt), server(directory, port) as address:
        print(f"the studies: {studies_url(address, key)}\nCtrl-C ends it", flush=True)
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
