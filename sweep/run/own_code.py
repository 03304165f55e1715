"""Whether the user's code is still that by which a sweep was trained: results of two codes that have
one name and version are taken for alike."""

import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

from search_spaces.space import SearchSpace
from sweep.store.files import Invocation
from trainables.config.network import CustomNetwork
from trainables.config.training import CustomTrainer
from trainables.import_path import OURS


def code_of(space: SearchSpace) -> dict[str, str]:
    """What names code of the user's, with its version → SHA-256 of the file that it is in. Modules
    that these import are not looked at."""
    found = {}
    for field, path, version in _named(space):
        file = _file_of(path)
        if file is not None:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            said = f"version {version}" if version else "without a version"
            found[f"{field}={path}, {said}"] = digest
    return found


def changed_code(space: SearchSpace, runs: Sequence[Invocation]) -> list[str]:
    """A line for all code that is another now than in one of the `runs` that had it."""
    lines = []
    for name, digest in code_of(space).items():
        before = [run for run in runs if run.code.get(name, digest) != digest]
        if before:
            field, _, _ = name.partition("=")
            section, _, _ = field.rpartition(".")
            version = "features_version" if field == "measurement.features" else "version"
            lines.append(
                f"the file of {name}, has changed since this sweep ran on {before[-1].at[:10]}; what "
                f"was trained by both counts as alike. If they give different results, set another "
                f"{section}.{version}"
            )
    return lines


def _named(space: SearchSpace) -> Iterator[tuple[str, str, str]]:
    """Field, package.module:name, version; some more than once."""
    for named in space.configurations:
        network, trainer = named.configuration.network, named.configuration.trainer
        if isinstance(network, CustomNetwork):
            yield "network.builder", network.builder, network.version
        if isinstance(trainer, CustomTrainer):
            yield "trainer.builder", trainer.builder, trainer.version
    how = space.measurement
    if how.features is not None:
        yield "measurement.features", how.features, how.features_version


def _file_of(path: str) -> Path | None:
    """Of a module that was imported already; None for ours, whose versions are kept elsewhere, and
    for one that is no file."""
    module, _, _ = path.partition(":")
    if module.partition(".")[0] in OURS:
        return None
    spec = importlib.util.find_spec(module)
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None
