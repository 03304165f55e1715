"""A data set by its configuration: its sources read, brought together, and how subsets choose."""

from trainables.config.code import load_code
from trainables.config.data import Data
from trainables.config.identity import key_of
from trainables.data.images import ImageData
from trainables.data.pools import PLAIN, Pool, Rule, first_classes, mixed
from trainables.progress import work


def load(data: Data, may_fetch: bool = False) -> ImageData:
    """Reads a source. Raises UserError if it is missing, corrupt, or not what its configuration
    says.

    `may_fetch`: whether what is missing may be downloaded, or unpacked from an archive, where the
    configuration says so. Not for showing a sweep, which may be somebody else's.
    """
    with work(f"loading the data ({data.kind})"):
        return _loaded(data, may_fetch)


def _loaded(data: Data, may_fetch: bool) -> ImageData:
    pool, rule = _pool(data, may_fetch), PLAIN
    if data.mix is not None:
        second = _pool(data.mix.data, may_fetch)
        pool, rule = mixed(pool, second, data.mix.share), Rule(mix=data.mix.share)
    elif data.duplicates is not None:
        copies = data.duplicates
        rule = Rule(repeated=copies.share, multiplicity=copies.multiplicity)
    return ImageData.of(
        pool.images, pool.labels, data.kind, pool.groups, pool.second, rule, pool.notes
    )


def _pool(source: Data, may_fetch: bool) -> Pool:
    read = load_code(source.read_by, "data.read_by")
    pool: Pool = read(source, may_fetch)
    return pool if source.classes is None else first_classes(pool, source.classes)


def data_key(data: Data) -> str:
    """Names a data set among those that a sweep's trials are given."""
    return key_of(data.model_dump(mode="json"))
