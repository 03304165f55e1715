"""The local MLflow of a sweep whose directory was copied or moved: made to say where it is now."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, text

from sweep.tracking.charts import VIEW
from sweep.tracking.page import KEY, SWEEP_KEY
from sweep.tracking.place import DATABASE, EXPERIMENT, local_tracking, study_key, trial_key
from trainables.storage import Storage


def settle(directory: Path, storage: Storage, key: str) -> bool:
    """Changes the places and the identities in the database of `directory`, if it was made
    elsewhere: the runs, their times and what people noted in them stay. `key`: of the sweep in
    `storage`. Returns whether that was needed.

    A database with several sweeps is nobody's copy, and is left alone. Raises SQLAlchemyError.
    """
    uri, artifacts = local_tracking(directory)
    if not (directory / DATABASE).exists():
        return False
    engine = create_engine(uri)
    try:
        with engine.begin() as database:
            return _settled(database, artifacts, storage.shown, key)
    finally:
        engine.dispose()


def _settled(database: Connection, artifacts: str, shown: str, key: str) -> bool:
    experiments = "SELECT artifact_location FROM experiments WHERE name = :name"
    places = _rows(database, experiments, name=EXPERIMENT)
    sweeps = _rows(database, "SELECT DISTINCT value FROM tags WHERE key = :tag", tag=SWEEP_KEY)
    if len(places) != 1 or len(sweeps) != 1 or places[0][0] == artifacts:
        return False
    (former,), (former_key,) = places[0], sweeps[0]
    _move(database, "experiments", "artifact_location", former, artifacts)
    _move(database, "runs", "artifact_uri", former, artifacts)
    tags: dict[str, dict[str, str]] = defaultdict(dict)
    for run, name, value in _rows(database, "SELECT run_uuid, key, value FROM tags"):
        tags[run][name] = value
    for run, known in tags.items():
        changed = {KEY: _key_of(known, key), SWEEP_KEY: key, "emm.storage": shown}
        for name in changed.keys() & known.keys():
            change = "UPDATE tags SET value = :new WHERE run_uuid = :run AND key = :tag"
            database.execute(text(change), {"new": changed[name], "run": run, "tag": name})
    views = (
        "UPDATE experiment_tags SET key = replace(key, :old, :new), "
        "value = replace(value, :old, :new) WHERE key LIKE :views"
    )
    database.execute(text(views), {"old": former_key, "new": key, "views": f"{VIEW}%"})
    return True


def _rows(database: Connection, command: str, **values: str) -> Sequence[Any]:
    return database.execute(text(command), values).all()


def _move(database: Connection, table: str, column: str, former: str, place: str) -> None:
    """Of places that begin with `former`. Table and column are words of ours."""
    command = (
        f"UPDATE {table} SET {column} = :place || substr({column}, length(:former) + 1) "
        f"WHERE substr({column}, 1, length(:former)) = :former"
    )
    database.execute(text(command), {"place": place, "former": former})


def _key_of(tags: dict[str, str], key: str) -> str:
    """The identity of a run with these tags in the sweep `key`."""
    level = tags.get("emm.level")
    if level == "study":
        return study_key(key, tags.get("emm.study", ""))
    if level == "trial":
        return trial_key(key, tags.get("emm.training_key", ""))
    return key
